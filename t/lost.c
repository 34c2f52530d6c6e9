/* lost.c - a device that fails while steps are kept in idle time: the model says so at once, in the
 * device's words and once, though nobody asks it anything; not if there is just no room for more.
 * The backend is this file's own, linked in place of the CPU's: its ops do nothing. */
#include "tap.h"
#include "backend.h"
#include "model.h"
#include "runner.h"

#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#define KEPT_MAX   3                       /* so many shapes are kept */
#define WORDS      "GPU: capture: the device is lost"
#define PART_MAX   1000                    /* buffers of the model */
#define LIMIT_S    60

static struct backend fake;
static int how;                            /* E_GPU or E_FULL: what comes after KEPT_MAX */
static int n_recorded, n_lost;
static void *part[PART_MAX];
static int n_part;
static char words[256];
static sem_t tried, told;

#define NO_OP(name, type) \
    static void fake_##name(struct backend *be, const struct type *a) { (void) be; (void) a; }

NO_OP(next_ids, next_ids)
NO_OP(embed, embed)
NO_OP(norm, norm)
NO_OP(gather, gather)
NO_OP(join, join)
NO_OP(to_act, to_act)
NO_OP(linear, linear)
NO_OP(geglu, geglu)
NO_OP(rope_table, rope_table)
NO_OP(kv_copy, kv_copy)
NO_OP(attn_layer, attn_layer)
NO_OP(moe_route, moe)
NO_OP(moe, moe)
NO_OP(fill, fill)

static void fake_sample(struct backend *be, const struct sample_row *rows, int32_t n_row)
{
    (void) be, (void) rows, (void) n_row;
}

static void *fake_alloc(struct backend *be, size_t bytes)
{
    (void) be;
    return n_part < PART_MAX ? part[n_part++] = calloc(1, bytes) : NULL;
}

static void fake_close(struct backend *be)
{
    (void) be;
    while (n_part > 0)
        free(part[--n_part]);
}

static void fake_nothing(struct backend *be)
{
    (void) be;
}

static int fake_wait(struct backend *be, struct err *e)
{
    (void) be, (void) e;
    return 0;
}

static const void *fake_weight(struct backend *be, const struct be_file *from, size_t bytes)
{
    (void) be, (void) bytes;
    return from->p;
}

static uint64_t fake_loading(struct backend *be)
{
    (void) be;
    return 0;
}

static void fake_put(struct backend *be, void *to, const void *p, size_t bytes)
{
    (void) be;
    memcpy(to, p, bytes);
}

static const int32_t *fake_input(struct backend *be, struct input *in)
{
    (void) be;
    return in->p;
}

static bool fake_record(struct backend *be, int32_t shape)
{
    (void) shape;
    return be->err.code == 0;
}

static int fake_recorded(struct backend *be, struct err *e)
{
    if (++n_recorded <= KEPT_MAX)
        return 0;
    if (how == E_GPU)
        err_set(&be->err, E_GPU, WORDS);
    sem_post(&tried);
    return err_set(e, how, WORDS);
}

static const struct backend_ops fake_ops = {
    .alloc = fake_alloc,          .close = fake_close,        .weight = fake_weight,
    .loading = fake_loading,      .put = fake_put,            .input = fake_input,
    .step_end = fake_nothing,     .step_wait = fake_wait,
    .record = fake_record,        .recorded = fake_recorded,  .next_ids = fake_next_ids,
    .embed = fake_embed,          .norm = fake_norm,          .gather = fake_gather,
    .join = fake_join,            .to_act = fake_to_act,      .linear = fake_linear,
    .geglu = fake_geglu,          .rope_table = fake_rope_table, .kv_copy = fake_kv_copy,
    .attn_layer = fake_attn_layer, .moe_route = fake_moe_route, .moe = fake_moe,
    .fill = fake_fill,            .sample = fake_sample,
};

int be_open_cpu(struct backend **out, const struct backend_limits *lim, struct err *e)
{
    (void) lim, (void) e;
    fake = (struct backend) { .ops = &fake_ops, .keeps = true, .due = NO_SHAPE };
    *out = &fake;
    return 0;
}

static void lost(void *arg, const struct err *e)
{
    ++*(int *) arg;
    snprintf(words, sizeof(words), "%s", e->msg);
    sem_post(&told);
}

static bool comes(sem_t *s)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_S;
    return sem_timedwait(s, &until) == 0;
}

/* A model that is loaded and asked nothing. */
static void idle(int code, const char *name)
{
    const char *dir = "t/golden/moe";
    struct timespec more = { 0, 20 * RUNNER_IDLE_MS * 1000000 };   /* for what must not come */
    struct model_limits lim = { .kv = { 16, 8, 8 }, .step_tok_max = 64, .seq_max = 8,
                                .page_max = 8, .n_thread = 1, .lost = lost, .lost_arg = &n_lost };
    struct model_conf mc;
    struct model *m;
    struct err e;

    how = code;
    n_recorded = n_lost = 0;
    sem_init(&tried, 0, 0);
    sem_init(&told, 0, 0);
    if (model_conf_load(&mc, dir, &e) != 0 || model_open(&m, dir, &mc, &lim, NULL, NULL, &e) != 0) {
        printf("Bail out! %s\n", e.msg);
        exit(1);
    }

    ok(comes(&tried), "%s: a step could not be kept", name);
    if (code == E_GPU)
        ok(comes(&told), "%s: told with no step to come", name);
    nanosleep(&more, NULL);
    model_close(m);
    is_int(n_recorded, KEPT_MAX + 1, "%s: nothing is tried after it", name);
    is_int(n_lost, code == E_GPU, "%s: how often it is told", name);
}

int main(void)
{
    idle(E_FULL, "no more room");
    idle(E_GPU, "the device is lost");
    is_str(words, WORDS, "in its words");
    return done_testing();
}
