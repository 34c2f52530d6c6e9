#include "bucket.h"

#define CLASS 8                            /* a class of contexts is so many times the one before */

static int32_t min(int64_t a, int32_t b)
{
    return a < b ? (int32_t) a : b;
}

static int32_t next(int32_t rows)
{
    return rows + (rows < 8 ? 1 : rows < 16 ? 4 : rows < 64 ? 8 : rows < 128 ? 16 : 32);
}

int32_t bucket_rows(const struct buckets *b, int32_t n)
{
    int32_t rows = 1;

    while (rows < n && rows < BUCKET_ROWS)
        rows = next(rows);
    return rows < n ? n : min(rows, b->row_max);
}

int32_t bucket_ctx(const struct buckets *b, int32_t ctx)
{
    int64_t c = BUCKET_CTX;

    while (c < ctx)
        c *= CLASS;
    return min(c, b->ctx_max);
}

/* Buckets up to the one of n rows. */
static int32_t rows_upto(int32_t n)
{
    int32_t count = 1;

    for (int32_t rows = 1; rows < n; rows = next(rows))
        count++;
    return count;
}

static int32_t classes_upto(int32_t ctx)
{
    int32_t count = 1;

    for (int64_t c = BUCKET_CTX; c < ctx; c *= CLASS)
        count++;
    return count;
}

static int32_t n_rows(const struct buckets *b)
{
    return rows_upto(min(b->row_max, BUCKET_ROWS));
}

int32_t bucket_count(const struct buckets *b, int32_t n)
{
    return (n < b->row_max && n < BUCKET_ROWS ? rows_upto(n) : n_rows(b))
           * classes_upto(b->ctx_max);
}

struct shape bucket_shape(const struct buckets *b, int32_t number)
{
    struct shape s = { 1, BUCKET_CTX };

    for (int32_t i = number % n_rows(b); i > 0; i--)
        s.n_row = next(s.n_row);
    for (int32_t i = number / n_rows(b); i > 0; i--)
        s.ctx = min(CLASS * (int64_t) s.ctx, b->ctx_max);
    s.n_row = min(s.n_row, b->row_max);
    s.ctx = min(s.ctx, b->ctx_max);
    return s;
}

int32_t bucket_number(const struct buckets *b, int32_t n_row, int32_t ctx)
{
    return n_row > BUCKET_ROWS ? -1
           : (classes_upto(ctx) - 1) * n_rows(b) + rows_upto(n_row) - 1;
}
