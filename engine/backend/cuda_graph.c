/* cuda_graph.c - steps that are kept: one launch instead of a few hundred, which takes 0.1 ms off a
 * step of one row and 0.7 off one of 64 (SPEED.md).
 *
 * There is one graph a shape (bucket.h), captured when the thread that launches has had nothing to
 * do for a moment (runner.h), short contexts and few rows first. Until then a step runs op by op,
 * but a shape that has come so often that this has cost as much as a capture is due: a server that
 * is never idle gets its graphs too. A second thread could capture beside the steps, but would need
 * its own streams, library handles and scratch, since all of these are part of a graph; this way a
 * request that arrives meanwhile waits for one capture: 3 to 10 ms, 27 where it loads a kernel.
 *
 * The driver takes memory of the GPU for each. It is in the plan (be_graphs_cuda) and held from the
 * start until the first capture, so that nobody else takes it meanwhile; during the captures
 * somebody may, and then the steps without a graph go on op by op: slower, and nothing is lost,
 * since a capture runs nothing. After ready nothing else is taken. */
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

void cuda_graph_begin(struct cuda *c, int32_t shape)
{
    struct graph *g = &c->graph[shape];

    c->shape = shape;
    if (g->exec != NULL)
        c->mode = REPLAY;
    else if (++g->n_seen >= GRAPH_SEEN && !c->full)
        c->be.due = shape;
}

void cuda_graph_launch(struct cuda *c)
{
    if (c->be.err.code != 0)
        return;
    latch(c, "clock", cudaEventRecord(cuda_flight(c)->first, c->stream));
    cuda_up_send(c, c->up_rows, c->up_used);
    latch(c, "graph", cudaGraphLaunch(c->graph[c->shape].exec, c->stream));
}

bool cuda_record(struct backend *be, int32_t shape)
{
    struct cuda *c = cuda_of(be);

    be->due = NO_SHAPE;
    if (be->err.code != 0 || c->full || c->graph[shape].exec != NULL)
        return false;
    latch(c, "the step", cudaStreamSynchronize(c->stream));        /* the one before, if it runs */
    latch(c, "graph", cudaFree(c->hold));
    c->hold = NULL;
    latch(c, "capture", cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal));
    c->shape = shape;
    c->mode = RECORD;
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
    if (c->be.err.code == 0)
        latch(c, "graph", cudaStreamSynchronize(c->stream));
}

/* A failure that the device outlives is the capture's alone. */
int cuda_recorded(struct backend *be, struct err *e)
{
    struct cuda *c = cuda_of(be);
    cudaGraphExec_t *exec = &c->graph[c->shape].exec;

    keep(c);
    cuda_step_over(c);
    (void) cudaGetLastError();
    if (be->err.code == 0 || cudaStreamSynchronize(c->stream) != cudaSuccess)
        return be_failed(be, e);
    if (*exec != NULL)
        cudaGraphExecDestroy(*exec);
    *exec = NULL;
    c->full = true;
    err_set(e, E_FULL, "%s", be->err.msg);
    be->err = (struct err) {0};
    return E_FULL;
}

void cuda_graph_close(struct cuda *c)
{
    for (int32_t i = 0; c->graph != NULL && i < c->lim.n_shape; i++)
        if (c->graph[i].exec != NULL)
            cudaGraphExecDestroy(c->graph[i].exec);
    free(c->graph);
}
