/* bucket.h - which steps are alike: those of single tokens, in few shapes.
 *
 * A step in which every token is alone in its sequence gets as many rows as the next bucket has,
 * and its contexts count as long as their class: 1 to 8 rows as they are, then every 4th up to 16,
 * every 8th to 64, every 16th to 128, every 32nd to BUCKET_ROWS; 2,048 positions and eight times as
 * many each time. A backend that keeps steps (backend.h) has them by the number of their shape.
 * Arithmetic only. */
#ifndef MODEL_BUCKET_H
#define MODEL_BUCKET_H

#include <stdint.h>

#define BUCKET_ROWS 256            /* steps of more rows are none's like */
#define BUCKET_CTX  2048

struct buckets { int32_t row_max, ctx_max; };      /* of a step; positions of a sequence */

int32_t bucket_rows(const struct buckets *b, int32_t n);       /* n of 1 .. row_max; at least n */
int32_t bucket_ctx(const struct buckets *b, int32_t ctx);      /* the same with ctx_max */

/* Shapes, numbered from 0: short contexts and few rows first. */
struct shape { int32_t n_row, ctx; };

int32_t bucket_count(const struct buckets *b, int32_t n);      /* of up to n rows */
struct shape bucket_shape(const struct buckets *b, int32_t number);
/* -1: too many rows. */
int32_t bucket_number(const struct buckets *b, int32_t n_row, int32_t ctx);

#endif
