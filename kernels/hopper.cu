/* hopper.cu - is this a Hopper, and is its own code here? All of it, or the base path. */
#include "hopper.cuh"

static bool find_encode(struct hopper *h)
{
    cudaDriverEntryPointQueryResult found;

    return cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &h->encode, 12000,
                                            cudaEnableDefault, &found) == cudaSuccess
           && found == cudaDriverEntryPointSuccess;
}

void hopper_open(struct hopper *h)
{
    int n_sm;

    *h = {};
    if (moe_hopper_open() && gemm_hopper_open(h) && find_encode(h)
        && cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess)
        h->n_sm = n_sm;
    (void) cudaGetLastError();             /* n_sm says it */
}
