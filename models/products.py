"""Batched matrix products that reach oneDNN on the CPU, where Jittor's own are a plain loop."""

import jittor as jt
from jittor import nn

# C++; every matrix is row-major.
SGEMM = r"""
#include <cstdint>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""
_PRODUCTS = r"""
    int64_t B = in0_shape0, M = in0_shape1, K = in0_shape2, N = out0_shape2;
    bool transpose = data["transpose"] != 0;
    #pragma omp parallel for if (B > 1)
    for (int64_t i = 0; i < B; i++)
        dnnl_sgemm('N', transpose ? 'T' : 'N', M, N, K, 1.0f, in0_p + i * M * K, K,
                   in1_p + i * K * N, transpose ? K : N, 0.0f, out0_p + i * M * N, N);
"""


def has_kernels():
    """Whether kernels that call oneDNN serve: it is installed, and Jittor computes on the CPU."""
    return jt.compile_extern.use_mkl and not jt.flags.use_cuda


def batched_product(a, b):
    """a b of each pair of matrices, without gradient.

    Args:
        a: Var (B, M, K), float32.
        b: Var (B, K, N), float32.

    Returns:
        Var (B, M, N).
    """
    if has_kernels():
        return _products(a, b, b.shape[2], transpose=False)
    return nn.bmm(a, b)


def batched_product_transpose(a, b):
    """a bᵀ of each pair of matrices, without gradient.

    Args:
        a: Var (B, M, K), float32.
        b: Var (B, N, K), float32.

    Returns:
        Var (B, M, N).
    """
    if has_kernels():
        return _products(a, b, b.shape[1], transpose=True)
    return nn.bmm_transpose(a, b)


def _products(a, b, n_columns, transpose):
    return jt.code((a.shape[0], a.shape[1], n_columns), a.dtype, [a, b], cpu_header=SGEMM,
                   cpu_src=_PRODUCTS, data={"transpose": int(transpose)}).stop_grad()
