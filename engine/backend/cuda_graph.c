/* cuda_graph.c - steps that are kept: one launch instead of a few hundred, which takes 0.1 ms off a
 * step of one row and 0.7 off one of 64 (SPEED.md).
 *
 * There is one graph a shape (bucket.h), captured when the thread that launches has had nothing to
 * do for a moment (runner.h), short contexts and few rows first. Until then a step runs op by op,
 * but for one that has come so often that this has cost as much as a capture: a server that is
 * never idle gets its graphs too. A second thread could capture beside the steps, but would need
 * its own streams, library handles and scratch, since all of these are part of a graph; this way a
 * request that arrives meanwhile waits for one capture: 3 to 10 ms, 27 where it loads a kernel.
 *
 * The driver takes memory of the GPU for each. It is in the plan (be_graphs_cuda); after ready
 * nothing else is taken. */
#include "cuda_priv.h"

#include <stdlib.h>

/* What the driver takes for one, at most (SPEED.md): more where ops go side by side. */
#define GRAPH_BYTES       (128u << 10)
#define GRAPH_LAYER_FEW   (36u << 10)
#define GRAPH_LAYER       (320u << 10)
#define GRAPH_SEEN 16                      /* so many launches op by op cost as much as a capture */

size_t be_graphs_cuda(const struct backend_limits *lim)
{
    size_t n = (size_t) lim->n_shape, few = (size_t) lim->n_shape_few;

    return n * GRAPH_BYTES
           + (size_t) lim->n_layer * (few * GRAPH_LAYER_FEW + (n - few) * GRAPH_LAYER);
}

static void capture(struct cuda *c, int32_t shape, enum step_mode mode)
{
    latch(c, "capture", cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    c->shape = shape;
    c->mode = mode;
}

void cuda_graph_begin(struct cuda *c, int32_t shape)
{
    struct graph *g = &c->graph[shape];

    if (g->exec != NULL) {
        c->shape = shape;
        c->mode = REPLAY;
    } else if (++g->n_seen >= GRAPH_SEEN) {
        capture(c, shape, CAPTURE);
    }
}

bool cuda_graph_record(struct cuda *c, int32_t shape)
{
    if (c->graph[shape].exec != NULL)
        return false;
    capture(c, shape, RECORD);
    return true;
}

/* What was captured becomes the graph of its shape. The upload takes the device's memory now. */
static void keep(struct cuda *c)
{
    cudaGraphExec_t *exec = &c->graph[c->shape].exec;
    cudaGraph_t graph = NULL;

    latch(c, "capture", cudaStreamEndCapture(c->stream, &graph));
    if (c->be.err.code == 0)
        latch(c, "graph", cudaGraphInstantiate(exec, graph, 0));
    if (graph != NULL)
        cudaGraphDestroy(graph);
    if (c->be.err.code == 0)
        latch(c, "graph", cudaGraphUpload(*exec, c->stream));
}

void cuda_graph_end(struct cuda *c)
{
    enum step_mode mode = c->mode;

    c->mode = EAGER;
    if (mode == CAPTURE || mode == RECORD)
        keep(c);
    if (mode == EAGER || mode == RECORD || c->be.err.code != 0)
        return;
    latch(c, "clock", cudaEventRecord(c->first, c->stream));
    cuda_up_send(c, c->up_rows, c->up_used);
    latch(c, "graph", cudaGraphLaunch(c->graph[c->shape].exec, c->stream));
}

void cuda_graph_close(struct cuda *c)
{
    for (int32_t i = 0; c->graph != NULL && i < c->lim.n_shape; i++)
        if (c->graph[i].exec != NULL)
            cudaGraphExecDestroy(c->graph[i].exec);
    free(c->graph);
}
