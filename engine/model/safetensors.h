/* safetensors.h - the tensors of a checkpoint directory, mapped read-only.
 *
 * Headers and st_read use pread, so that only who reads a matrix through p can meet SIGBUS, if the
 * file shrinks.
 *
 * model.safetensors, or the shards that model.safetensors.index.json names. Everything a header
 * claims is checked against the file before a pointer is made of it. */
#ifndef MODEL_SAFETENSORS_H
#define MODEL_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "buf.h"
#include "err.h"

#define ST_DIM_MAX    8
#define ST_NAME_MAX   256
#define ST_SHARD_MAX  1024
#define ST_HEADER_MAX (100u << 20)
#define ST_INDEX_MAX  (100u << 20)

struct st_tensor {
    const char *name;                  /* owned by the st, NUL-terminated */
    const char *file;                  /* base name of its shard */
    char        dtype[8];              /* "BF16", "F32", ... one of the format's own */
    int         n_dim;
    int64_t     shape[ST_DIM_MAX];
    const void *p;                     /* into the map */
    int         fd;                    /* of the file, -1: st_open_mem */
    uint64_t    off;                   /* in it */
    uint64_t    bytes;
    bool        used;                  /* the loader's mark */
};

struct st;

int  st_open(struct st **out, const char *dir, struct err *e);
void st_close(struct st *st);                          /* NULL is fine; unmaps every tensor */

/* One file that is in memory already (borrowed): what st_open does after mapping. */
int  st_open_mem(struct st **out, const void *p, size_t n, const char *name, struct err *e);

/* All bytes of t to `to`. */
int  st_read(const struct st_tensor *t, void *to, struct err *e);

int32_t           st_count(const struct st *st);
struct st_tensor *st_at(struct st *st, int32_t i);     /* sorted by name */
struct st_tensor *st_find(struct st *st, const char *name);        /* NULL: not there */

#endif
