#include "rate.h"

void rate_note(struct rate *r, uint64_t now_ns, bool waiting, int64_t tok)
{
    double dt = r->waiting ? (double) (now_ns - r->last_ns) : 0;
    double keep = dt < RATE_WINDOW_NS ? 1 - dt / RATE_WINDOW_NS : 0;

    if (!waiting) {                        /* the next queue may move in another way */
        *r = (struct rate) { 0 };
        return;
    }
    if (!r->waiting)
        r->since_ns = now_ns;
    r->waiting = true;
    r->last_ns = now_ns;
    r->ns = r->ns * keep + dt;
    r->tok = r->tok * keep + (double) tok;
}

uint64_t rate_wait_ns(const struct rate *r, int64_t n_tok)
{
    double wait;

    if (n_tok <= 0 || r->ns <= 0 || r->tok <= 0)
        return 0;
    wait = (double) n_tok * r->ns / r->tok;
    return wait < 1e18 ? (uint64_t) wait : (uint64_t) 1e18;
}

int32_t rate_retry_ms(uint64_t wait_ns)
{
    uint64_t ms = wait_ns / 1000000;

    return ms < RETRY_MS_MIN ? RETRY_MS_MIN : ms > RETRY_MS_MAX ? RETRY_MS_MAX : (int32_t) ms;
}

bool rate_shows(const struct rate *r, uint64_t wait_ns)
{
    return r->waiting && r->last_ns - r->since_ns >= wait_ns / RATE_AHEAD;
}
