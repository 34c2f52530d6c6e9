/* gpu_data.c - random numbers on both sides, poison, and how far the GPU's are from the twins'. */
#include "gpu.h"

uint64_t rng;
const int32_t row_counts[10] = { 1, 2, 7, 8, 9, 16, 33, 64, 65, 200 };

uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

int32_t below(int32_t n)
{
    return (int32_t) (next() % (uint64_t) n);
}

float uniform(void)
{
    return (float) (next() >> 40) * 0x1p-23f - 1;
}

static float to_bf16(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static void check_memory(const void *a, const void *b, size_t n)
{
    if (a != NULL && b != NULL)
        return;
    ok(0, "memory for %zu numbers", n);
    exit(done_testing());
}

/* half: bytes of a number of the GPU are 2, not 4. */
static struct two two_alloc(size_t n, bool half)
{
    struct two t = { { be_alloc(be[0], n * 4), be_alloc(be[1], half ? n * 2 : n * 4) }, n };

    check_memory(t.p[0], t.p[1], n);
    return t;
}

struct two two_new(size_t n)
{
    return two_alloc(n, false);
}

void two_set(const struct two *t, const float *v)
{
    for (int i = 0; i < 2; i++)
        be[i]->ops->put(be[i], t->p[i], v, t->n * 4);
}

void two_poison(const struct two *t)
{
    float *v = malloc(t->n * 4);

    memset(v, 0xff, t->n * 4);
    two_set(t, v);
    free(v);
}

static struct two two_filled(size_t n, float scale, bool coarse)
{
    struct two t = two_new(n);
    float *v = malloc(n * 4);

    for (size_t i = 0; i < n; i++) {
        v[i] = scale * uniform();
        v[i] = coarse ? to_bf16(v[i]) : v[i];
    }
    two_set(&t, v);
    free(v);
    return t;
}

struct two two_random(size_t n, float scale)
{
    return two_filled(n, scale, false);
}

struct two two_coarse(size_t n, float scale)
{
    return two_filled(n, scale, true);
}

struct two act_random(size_t n, float scale)
{
    struct two t = two_alloc(n, true);
    float *v = malloc(n * 4);
    uint16_t *h = malloc(n * 2);

    for (size_t i = 0; i < n; i++) {
        v[i] = to_bf16(scale * uniform());
        h[i] = (uint16_t) (((union { float f; uint32_t u; }) { v[i] }).u >> 16);
    }
    be[0]->ops->put(be[0], t.p[0], v, n * 4);
    be[1]->ops->put(be[1], t.p[1], h, n * 2);
    free(v);
    free(h);
    return t;
}

struct mat mat_random(int i, int64_t rows, int32_t cols, uint64_t seed)
{
    struct mat m = { be_alloc(be[i], (size_t) rows * (size_t) cols * 2), MAT_BF16, rows, cols };

    check_memory(m.p, m.p, (size_t) rows * (size_t) cols);
    op_fill(be[i], &(struct fill) { (void *) (uintptr_t) m.p, rows * cols, seed });
    return m;
}

void done(void)
{
    struct err e;

    for (int i = 0; i < 2; i++)
        if (be_sync(be[i], &e) < 0)
            ok(0, "%s", e.msg);
}

float *get_floats(const void *p, size_t n)
{
    float *v = malloc(n * 4);

    be[1]->ops->get(be[1], v, p, n * 4);
    return v;
}

float *get_halves(const void *p, size_t n)
{
    float *v = malloc(n * 4);
    uint16_t *h = malloc(n * 2);

    be[1]->ops->get(be[1], h, p, n * 2);
    for (size_t i = 0; i < n; i++)
        v[i] = ((union { uint32_t u; float f; }) { (uint32_t) h[i] << 16 }).f;
    free(h);
    return v;
}

double error_of(const float *got, const float *ref, size_t n)
{
    double d = 0, max = 0;

    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i]) || !isfinite(ref[i]))
            return INFINITY;
        d = fmax(d, fabs((double) got[i] - (double) ref[i]));
        max = fmax(max, fabs((double) ref[i]));
    }
    return max > 0 ? d / max : INFINITY;
}

/* Frees got. */
static void compare_with(float *got, const float *ref, size_t n, double limit, const char *what)
{
    double d = error_of(got, ref, n);

    ok(d <= limit, "%s: deviation %.2g, allowed %.2g", what, d, limit);
    free(got);
}

void compare(const struct two *t, size_t n, double limit, const char *what)
{
    done();
    compare_with(get_floats(t->p[1], n), t->p[0], n, limit, what);
}

void compare_act(const struct two *t, size_t n, double limit, const char *what)
{
    done();
    compare_with(get_halves(t->p[1], n), t->p[0], n, limit, what);
}

const char *say(const char *fmt, ...)
{
    static char s[200];
    __builtin_va_list ap;

    __builtin_va_start(ap, fmt);
    vsnprintf(s, sizeof(s), fmt, ap);
    __builtin_va_end(ap);
    return s;
}
