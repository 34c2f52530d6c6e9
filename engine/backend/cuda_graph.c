/* cuda_graph.c - steps that were captured: the same again is one launch. */
#include "cuda_priv.h"

#define GRAPH_SEEN   2                     /* capture a step when it comes so often */

static bool same_key(const struct step_key *a, const struct step_key *b)
{
    return a->n_tok == b->n_tok && a->n_seq == b->n_seq && a->n_out == b->n_out
           && a->n_one == b->n_one && a->ctx == b->ctx && a->n_steer == b->n_steer;
}

/* The graph of this key, or the least recently used one made free for it. */
static struct graph *graph_of(struct cuda *c, const struct step_key *key)
{
    struct graph *oldest = &c->graph[0];

    for (int i = 0; i < GRAPH_MAX; i++) {
        struct graph *g = &c->graph[i];

        if (g->n_seen > 0 && same_key(&g->key, key))
            return g;
        if (g->used < oldest->used)
            oldest = g;
    }
    if (oldest->exec != NULL)
        latch(c, "graph", cudaGraphExecDestroy(oldest->exec));
    *oldest = (struct graph) { .key = *key };
    return oldest;
}

void cuda_graph_begin(struct cuda *c, const struct step_key *key)
{
    c->now = graph_of(c, key);
    c->now->used = c->n_step;
    if (c->now->exec != NULL) {
        c->mode = REPLAY;
    } else if (++c->now->n_seen >= GRAPH_SEEN) {
        latch(c, "capture", cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
        c->mode = CAPTURE;
    }
}

void cuda_graph_end(struct cuda *c)
{
    cudaGraph_t graph = NULL;
    enum step_mode mode = c->mode;

    c->mode = EAGER;
    if (mode == EAGER)
        return;
    if (mode == CAPTURE) {
        latch(c, "capture", cudaStreamEndCapture(c->stream, &graph));
        if (c->be.err.code == 0)
            latch(c, "graph", cudaGraphInstantiate(&c->now->exec, graph, 0));
        if (graph != NULL)
            cudaGraphDestroy(graph);
    }
    if (c->be.err.code != 0)
        return;
    latch(c, "clock", cudaEventRecord(c->first, c->stream));
    cuda_up_send(c);
    latch(c, "graph", cudaGraphLaunch(c->now->exec, c->stream));
}

void cuda_graph_close(struct cuda *c)
{
    for (int i = 0; i < GRAPH_MAX; i++)
        if (c->graph[i].exec != NULL)
            cudaGraphExecDestroy(c->graph[i].exec);
}
