/* cuda_priv.h - the backend of one NVIDIA GPU, as its files share it.
 *
 * cuda.c has the ops, what goes up at the beginning of a step and comes down at its end;
 * cuda_open.c finds the GPU, reserves and closes; cuda_load.c brings weights; cuda_graph.c has the
 * steps that are one launch. The kernels are in kernels/ (cuda.h). Ops only queue work: a failure
 * is found after the launch, and latched, or by who waits for the step. */
#ifndef BACKEND_CUDA_PRIV_H
#define BACKEND_CUDA_PRIV_H

#include "backend_cuda.h"
#include "cuda.h"

#include <cuda_runtime.h>

#define APART_MAX    16384
#define LOAD_THREADS 8                     /* four reach what PCIe 5 can take */
#define LANES        LINEAR_MAX            /* products side by side: lane 0 is the stream itself */
#define TOP          ((size_t) (1 + SAMPLE_TOP_MAX))

/* Where the caller wants it. */
struct result { int32_t *tok, *lp_id; float *lp; int32_t n_top; };

/* The host's part of a step, from its first input until it was waited for. Of the device's buffers
 * there is one each: the stream keeps the steps apart. */
struct flight {
    char          *up;                     /* what goes up, pinned: the stream reads it later */
    int32_t       *down;                   /* what comes down, pinned */
    struct result *result;                 /* [step_tok_max] */
    int32_t        n_result;
    cudaEvent_t    first, last;
    uint64_t       begin_ns;               /* 0: no step_begin, no times */
    double         launch_ms;
};

/* Rows in what goes up of which so many bytes each are filled. */
struct table { size_t at, pitch, bytes, n_row; };

#define TABLES 2                           /* of a step: the pages of both pools */

struct graph { cudaGraphExec_t exec; int32_t n_seen; };        /* exec NULL: not there */

enum step_mode { EAGER, RECORD, REPLAY };  /* cuda_graph.c */

struct cuda {
    struct backend        be;              /* first: the two share an address */
    struct backend_limits lim;
    cudaStream_t          stream;
    size_t                smem_max;        /* shared memory that a block may ask for */
    char                 *mem;             /* everything is in here, one after the other, */
    uint64_t              mem_bytes, mem_used, free_before;
    char                  note[800];       /* be.note's */
    void                 *part[APART_MAX]; /* or, if lim.apart, in allocations of its own */
    int                   n_part;

    struct pump          *pump;            /* while weights come in */
    char                 *load;            /* its buffers, pinned */
    cudaEvent_t           sent[2 * LOAD_THREADS];      /* all from this buffer is there */

    /* What goes up: host and device agree on offsets. Rows to sample grow down from up_base, inputs
     * up from there, so that both lie at the same place in every step of a shape, however much is
     * behind them. */
    char                 *up_dev;
    size_t                up_max, up_base, up_rows, up_used, up_sent;
    struct table          table[TABLES];   /* that are not sent as a whole */
    int32_t               n_table;

    /* What comes down: of each sampled row its id, what was wrong and, if asked, logprobs. The ids
     * stay for the next step, which may begin with them. */
    int32_t              *down_dev;        /* [2 + 2 * TOP, step_tok_max] */
    int32_t               n_result;
    bool                  lp;              /* logprobs among them */

    /* Steps that ended, counted by who asks for ops; of these waited for, by who waits. */
    struct flight         flight[BE_FLIGHT_MAX];
    uint32_t              n_ended;
    _Atomic uint32_t      n_waited;

    enum step_mode        mode;
    struct graph         *graph;           /* [lim.n_shape] */
    int32_t               shape;           /* of this step, unless EAGER */
    void                 *hold;            /* be_graphs_cuda() bytes, until the first capture */
    bool                  full;            /* no more graphs: no room */

    struct lane { cudaStream_t stream; cudaEvent_t done; struct gemm_lt *lt; } lane[LANES];
    cudaEvent_t           fork;
    bool                  routing;         /* in lane 1, since the last moe_route */
    struct hopper         hopper;
    void                 *attn, *moe;
    void                 *draw;            /* of SAMPLE_ROW_MAX rows */
};

static inline struct cuda *cuda_of(struct backend *be)
{
    return (struct cuda *) be;
}

/* Of the step whose ops are asked for. */
static inline struct flight *cuda_flight(struct cuda *c)
{
    return &c->flight[c->n_ended % BE_FLIGHT_MAX];
}

static inline void latch(struct cuda *c, const char *op, cudaError_t rc)
{
    if (rc != cudaSuccess && c->be.err.code == 0)
        err_set(&c->be.err, E_GPU, "GPU: %s: %s", op, cudaGetErrorString(rc));
}

extern const struct backend_ops cuda_ops;

/* Bytes from .. to of what goes up; of tables what is filled. */
void cuda_up_send(struct cuda *c, size_t from, size_t to);
/* All of this step is queued or kept: the next one may begin. */
void cuda_step_over(struct cuda *c);

void *cuda_alloc(struct backend *be, size_t bytes);
void  cuda_memory(struct backend *be, struct be_memory *m);
void  cuda_close(struct backend *be);

const void *cuda_weight(struct backend *be, const struct be_file *from, size_t bytes);
uint64_t    cuda_loading(struct backend *be);
void        cuda_load_end(struct cuda *c);

void cuda_graph_begin(struct cuda *c, int32_t shape);
void cuda_graph_launch(struct cuda *c);
void cuda_graph_close(struct cuda *c);

bool cuda_record(struct backend *be, int32_t shape);
int  cuda_recorded(struct backend *be, struct err *e);

#endif
