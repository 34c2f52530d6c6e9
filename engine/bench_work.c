#include "bench_work.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* splitmix64 */
static uint64_t next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static int32_t between(uint64_t *state, int32_t low, int32_t high)
{
    return low + (int32_t) (next(state) % ((uint64_t) high - (uint64_t) low + 1));
}

static int32_t length(uint64_t *state, int32_t len, double range)
{
    int32_t low = (int32_t) floor(len * (1 - range)), high = (int32_t) ceil(len * (1 + range));

    low = low > 1 ? low : 1;
    return between(state, low, high > low ? high : low);
}

void bench_work(struct bench_item *item, int32_t n, const struct bench_shape *s)
{
    uint64_t state = s->seed;
    double at = 0;

    for (int32_t i = 0; i < n; i++) {
        item[i].input_len = length(&state, s->input_len, s->range);
        item[i].output_len = length(&state, s->output_len, s->range);
        item[i].seed = next(&state);
    }
    for (int32_t i = 0; i < n; i++) {
        at -= log(((double) (next(&state) >> 11) + 0.5) * 0x1p-53);
        item[i].due_s = at;
    }
    for (int32_t i = 0; i < n; i++)
        item[i].due_s = s->rate > 0 ? item[i].due_s * n / s->rate / at : 0;
}

static void put_ids(struct buf *b, uint64_t seed, int32_t n, int32_t vocab)
{
    for (int32_t i = 0; i < n; i++)
        buf_fmt(b, "%s%" PRId32, b->p[b->n - 1] == '[' ? "" : ",",
                between(&seed, vocab / 16, vocab - 1));
}

/* Words that every tokenizer has as one token each, more or less. */
static void put_words(struct buf *b, uint64_t seed, int32_t n)
{
    static const char *const word[] = {
        "the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as",
        "with", "they", "be", "at", "one", "have", "this", "from", "had", "by", "hot", "but",
        "some", "what", "there", "we", "can", "out", "other",
    };

    for (int32_t i = 0; i < n; i++)
        buf_fmt(b, "%s%s", b->p[b->n - 1] == '"' ? "" : " ", word[next(&seed) % 32]);
}

void bench_body(struct buf *b, const struct bench_item *item, const struct bench_shape *s)
{
    buf_str(b, "{\"model\":");
    buf_json_str(b, s->model, strlen(s->model));
    if (s->chat) {
        buf_str(b, ",\"messages\":[{\"role\":\"user\",\"content\":\"");
        put_words(b, s->seed, s->prefix_len);
        put_words(b, item->seed, item->input_len);
        buf_str(b, "\"}]");
    } else {
        buf_str(b, ",\"prompt\":[");
        put_ids(b, s->seed, s->prefix_len, s->vocab);
        put_ids(b, item->seed, item->input_len, s->vocab);
        buf_str(b, "]");
    }
    buf_fmt(b, ",\"%s\":%" PRId32, s->chat ? "max_completion_tokens" : "max_tokens",
            item->output_len);
    if (s->ignore_eos)
        buf_str(b, ",\"ignore_eos\":true");
    if (s->temperature >= 0)
        buf_fmt(b, ",\"temperature\":%g", s->temperature);
    if (s->top_p >= 0)
        buf_fmt(b, ",\"top_p\":%g", s->top_p);
    if (s->top_k >= 0)
        buf_fmt(b, ",\"top_k\":%" PRId32, s->top_k);
    /* With its ids every token is an event, though it may have no text of its own. */
    buf_str(b, ",\"return_token_ids\":true,\"stream\":true"
            ",\"stream_options\":{\"include_usage\":true}}");
}
