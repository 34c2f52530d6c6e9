#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "engine.h"
#include "json.h"
#include "score.h"

#define N_MAX  (1 << 24)

struct job {
    struct req r;
    int32_t   *prompt;                   /* [r.n_prompt] */
    int        line;                     /* in the file, from 1 */
};

struct score {
    const char    *file;
    struct job    *job;
    int32_t        n_job, cap;
    int32_t        len_max;              /* tokens of the longest */
    struct engine  en;
};

/* --- the file --- */

static int read_ids(struct job *j, const struct json *list)
{
    int32_t i = 0;
    int64_t v;

    if (list == NULL || list->type != JSON_ARRAY || list->n < 1 || list->n > N_MAX)
        return E_INVALID;
    j->prompt = malloc(list->n * sizeof(int32_t));
    if (j->prompt == NULL)
        return E_IO;
    for (const struct json *c = list->child; c != NULL; c = c->next) {
        if (json_int(c, &v) != 0 || v < 0 || v > INT32_MAX)
            return E_INVALID;
        j->prompt[i++] = (int32_t) v;
    }
    j->r.n_prompt = i;
    return 0;
}

/* The fields of an answer may stand there too: a file of references can be used as it is. */
static bool is_known(struct slice key)
{
    return slice_is(key, "prompt") || slice_is(key, "n") || slice_is(key, "logprob_of_next")
           || slice_is(key, "last_logits") || slice_is(key, "greedy");
}

static int read_job(struct score *s, struct job *j, const struct json *o, struct err *e)
{
    int64_t n = 0;
    int rc;

    if (o->type != JSON_OBJECT)
        return err_set(e, E_INVALID, "%s:%d: not an object", s->file, j->line);
    for (const struct json *c = o->child; c != NULL; c = c->next)
        if (!is_known(c->key))
            return err_set(e, E_INVALID, "%s:%d: unknown field %.*s", s->file, j->line,
                           c->key.n < 40 ? (int) c->key.n : 40, c->key.p);
    if ((rc = read_ids(j, json_get(o, "prompt"))) == E_IO)
        return err_set(e, E_IO, "%s:%d: out of memory", s->file, j->line);
    if (rc != 0)
        return err_set(e, E_INVALID, "%s:%d: prompt: must be a list of token ids, not empty",
                       s->file, j->line);
    if (json_get(o, "n") != NULL
        && (json_int(json_get(o, "n"), &n) != 0 || n < 0 || n > N_MAX))
        return err_set(e, E_INVALID, "%s:%d: n: must be a whole number from 0 to %d", s->file,
                       j->line, N_MAX);
    j->r.max_new = (int32_t) n;
    if (j->r.n_prompt + j->r.max_new > s->len_max)
        s->len_max = j->r.n_prompt + j->r.max_new;
    return 0;
}

static int add_line(struct score *s, const char *p, size_t n, int line, struct err *e)
{
    const struct json_limits lim = { 256u << 20, 4, N_MAX + 8 };
    const struct json *root;
    struct json_doc *doc = NULL;
    struct err why;
    struct job *j;
    int rc;

    if (s->n_job == s->cap) {
        int32_t cap = s->cap == 0 ? 64 : s->cap * 2;

        j = realloc(s->job, (size_t) cap * sizeof(*j));
        if (j == NULL)
            return err_set(e, E_IO, "%s: out of memory", s->file);
        s->job = j;
        s->cap = cap;
    }
    j = &s->job[s->n_job++];
    memset(j, 0, sizeof(*j));
    j->line = line;

    rc = json_parse(&doc, &root, p, n, &lim, &why);
    if (rc != 0)
        return err_set(e, rc, "%.80s:%d: %.140s", s->file, line, why.msg);
    rc = read_job(s, j, root, e);
    json_free(doc);
    return rc;
}

static int read_file(struct score *s, struct err *e)
{
    FILE *in = strcmp(s->file, "-") == 0 ? stdin : fopen(s->file, "r");
    char *p = NULL;
    size_t cap = 0;
    ssize_t n;
    int line = 0, rc = 0;

    if (in == NULL)
        return err_set(e, E_IO, "%s: %s", s->file, strerror(errno));
    while (rc == 0 && (n = getline(&p, &cap, in)) >= 0) {
        line++;
        if (strspn(p, " \t\r\n") < (size_t) n)
            rc = add_line(s, p, (size_t) n, line, e);
    }
    if (rc == 0 && ferror(in))
        rc = err_set(e, E_IO, "%s: cannot be read", s->file);
    free(p);
    if (in != stdin)
        fclose(in);
    return rc;
}

/* --- the engine: the core is driven by hand, no thread of its own --- */

static int open_engine(struct score *s, const struct conf *conf, struct err *e)
{
    struct engine *en = &s->en;
    struct conf c = *conf;
    int rc;

    if ((rc = engine_config(en, &c, e)) != 0)
        return rc;
    if (c.max_num_seqs > c.batch)
        c.max_num_seqs = c.batch;
    if (c.max_model_len == 0)
        c.max_model_len = s->len_max < en->mc.max_pos ? s->len_max : en->mc.max_pos;
    if ((rc = plan_make(&en->plan, &en->mc, &c, e)) != 0)
        return rc;
    return engine_load(en, &c, 1, c.batch, NULL, NULL, e);
}

static int submit(struct score *s, struct job *j, struct err *e)
{
    struct req *r = &j->r;
    struct err why;
    int rc;

    rc = req_alloc(r, r->n_prompt, r->max_new, s->en.plan.kv.page_tok);
    r->prompt_lp.p = malloc((size_t) r->n_prompt * sizeof(float));
    r->last_logits = malloc((size_t) s->en.mc.vocab * sizeof(float));
    if (rc != 0 || r->prompt_lp.p == NULL || r->last_logits == NULL)
        return err_set(e, E_IO, "%s:%d: out of memory", s->file, j->line);

    memcpy(r->tok, j->prompt, (size_t) r->n_prompt * sizeof(int32_t));
    r->sample = (struct sample) { .temperature = 0, .top_p = 1 };
    rc = serve_submit(s->en.serve, r, &why);
    return rc == 0 ? 0 : err_set(e, rc, "%.80s:%d: %.140s", s->file, j->line, why.msg);
}

/* --- the answers --- */

static bool put_floats(struct buf *b, const char *name, const float *v, int32_t n)
{
    buf_fmt(b, "\"%s\":[", name);
    for (int32_t i = 0; i < n; i++) {
        if (!isfinite(v[i]))
            return false;
        buf_fmt(b, i == 0 ? "%.9g" : ",%.9g", (double) v[i]);
    }
    buf_str(b, "],");
    return true;
}

static int not_finite(const struct score *s, const struct job *j, struct err *e)
{
    return err_set(e, E_INVALID, "%s:%d: the model's numbers are not finite", s->file, j->line);
}

static int write_job(struct score *s, const struct job *j, FILE *out, struct err *e)
{
    const struct req *r = &j->r;
    struct buf b = { 0 };
    bool finite, written;

    if (atomic_load(&r->finish) == FIN_CORRUPT)
        return not_finite(s, j, e);
    buf_str(&b, "{");
    finite = put_floats(&b, "logprob_of_next", r->prompt_lp.p, r->n_prompt - 1)
             && put_floats(&b, "last_logits", r->last_logits, s->en.mc.vocab);
    buf_str(&b, "\"greedy\":[");
    for (int32_t i = 0; i < r->max_new; i++)
        buf_fmt(&b, i == 0 ? "%d" : ",%d", r->tok[r->n_prompt + i]);
    buf_str(&b, "]}\n");
    written = finite && !b.full && fwrite(b.p, 1, b.n, out) == b.n && fflush(out) == 0;
    buf_free(&b);

    if (!finite)
        return not_finite(s, j, e);
    return written ? 0 : err_set(e, E_IO, "standard output: %s", strerror(errno));
}

static void free_job(struct job *j)
{
    req_free(&j->r);
    free(j->r.prompt_lp.p);
    free(j->r.last_logits);
    free(j->prompt);
    memset(j, 0, sizeof(*j));
}

/* Keep up to `batch` jobs in the core; write them in the file's order as the oldest ends. */
static int run(struct score *s, int32_t batch, FILE *out, struct err *e)
{
    int32_t head = 0, tail = 0;
    int rc;

    while (head < s->n_job) {
        for (; tail < s->n_job && tail - head < batch; tail++)
            if ((rc = submit(s, &s->job[tail], e)) != 0)
                return rc;

        serve_once(s->en.serve, e);
        if (e->code != 0)
            return e->code;

        while (head < tail && atomic_load(&s->job[head].r.finish) != FIN_NONE) {
            if ((rc = write_job(s, &s->job[head], out, e)) != 0)
                return rc;
            free_job(&s->job[head++]);
        }
    }
    return 0;
}

int score_file(const struct conf *c, FILE *out, struct err *e)
{
    struct score s = { .file = c->pos[1], .en.kick_fd = -1 };
    int rc;

    rc = read_file(&s, e);
    if (rc == 0 && s.n_job > 0)
        rc = open_engine(&s, c, e);
    if (rc == 0 && s.n_job > 0)
        rc = run(&s, c->batch, out, e);

    engine_close(&s.en);
    for (int32_t i = 0; i < s.n_job; i++)
        free_job(&s.job[i]);
    free(s.job);
    return rc;
}
