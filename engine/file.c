#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, const char *path, char *p, size_t n, struct err *e)
{
    for (size_t at = 0; at < n; ) {
        ssize_t got = read(fd, p + at, n - at);

        if (got > 0)
            at += (size_t) got;
        else if (got == 0)
            return err_set(e, E_INVALID, "%s: cut short", path);
        else if (errno != EINTR)
            return err_set(e, E_INVALID, "%s: %s", path, strerror(errno));
    }
    return 0;
}

int file_read(const char *path, size_t max, char **p, size_t *n, struct err *e)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), rc;
    struct stat is;

    *p = NULL;
    if (fd < 0)
        return err_set(e, errno == ENOENT ? E_IO : E_INVALID, "%s: %s", path,
                       errno == ENOENT ? "no such file" : strerror(errno));
    if (fstat(fd, &is) != 0 || !S_ISREG(is.st_mode))
        rc = err_set(e, E_INVALID, "%s: not a regular file", path);
    else if ((uint64_t) is.st_size > max)
        rc = err_set(e, E_INVALID, "%s: more than %zu bytes", path, max);
    else if ((*p = malloc((size_t) is.st_size + 1)) == NULL)
        rc = err_set(e, E_FULL, "%s: out of memory", path);
    else
        rc = read_all(fd, path, *p, *n = (size_t) is.st_size, e);
    close(fd);
    if (rc != 0) {
        free(*p);
        *p = NULL;
    }
    return rc;
}
