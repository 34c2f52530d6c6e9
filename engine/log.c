#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

static enum log_level log_level = LOG_INFO;

void log_set_level(enum log_level level)
{
    log_level = level;
}

/* One write(2) a line, so that lines of several threads do not mix. */
void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const name[] = { "error", "warn", "info" };
    char line[1024];
    struct timespec ts;
    struct tm tm;
    va_list ap;
    int n, k;

    if (level > log_level)
        return;

    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    n = (int) strftime(line, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    n += snprintf(line + n, 32, ".%03dZ [%s] ", (int) (ts.tv_nsec / 1000000), name[level]);

    va_start(ap, fmt);
    k = vsnprintf(line + n, sizeof(line) - (size_t) n - 1, fmt, ap);
    va_end(ap);
    if (k > (int) sizeof(line) - n - 2)
        k = (int) sizeof(line) - n - 2;
    n += k > 0 ? k : 0;
    line[n++] = '\n';

    (void) !write(STDERR_FILENO, line, (size_t) n);
}
