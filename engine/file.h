/* file.h - small files of a model's folder, whole. */
#ifndef ENGINE_FILE_H
#define ENGINE_FILE_H

#include <stddef.h>

#include "err.h"

/* A regular file of at most max bytes; all *n come in *p, which the caller frees. E_IO: there is no
 * such file, for some callers no failure; whatever else is wrong is another code. Never waits, as a
 * pipe of that name would have it. */
int file_read(const char *path, size_t max, char **p, size_t *n, struct err *e);

#endif
