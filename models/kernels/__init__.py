"""Kernels of our own, apart from the equations that they compute, and when they serve.

Each module has the sources of one part of the method, in C++ for the CPU or in CUDA, and functions
of Vars. What they compute is told, and written once more in Jittor's operations or NumPy, where it
is used and in the tests.
"""

import jittor as jt
from jittor import nn

from models.kernels.sources import WARPS

_SOFTMAX_CUDA = WARPS + r"""
static __global__ void softmax_rows(const float* x, float* y, int64_t n, int64_t length,
                                    float factor) {
    int64_t row = row_of_warp();
    if (row >= n) return;
    x += row * length;
    y += row * length;
    float top = -INFINITY, sum = 0;
    for (int64_t i = threadIdx.x % 32; i < length; i += 32) top = fmaxf(top, factor * x[i]);
    top = max_of_warp(top);
    for (int64_t i = threadIdx.x % 32; i < length; i += 32) sum += expf(factor * x[i] - top);
    sum = sum_of_warp(sum);
    for (int64_t i = threadIdx.x % 32; i < length; i += 32) y[i] = expf(factor * x[i] - top) / sum;
}
"""
_SOFTMAX_CUDA_SRC = r"""
    int64_t length = in0->shape[in0->shape.size() - 1], n = in0->num / length;
    softmax_rows<<<(n + 3) / 4, 128>>>(in0_p, out0_p, n, length, data["factor"]);
    CHECK(0 == cudaGetLastError());
"""


def softmax(x, factor=1.0):
    """exp(factor x) / Σ exp(factor x) over the last axis, float32, without gradient.

    Jittor's own on a GPU takes nvcc three times as long to compile, once for each 128 of length,
    and numbers its elements with 32 bits.
    """
    if not jt.flags.use_cuda:
        return nn.softmax(x * factor if factor != 1 else x, dim=-1)
    return jt.code(x.shape, x.dtype, [x], cuda_header=_SOFTMAX_CUDA, cuda_src=_SOFTMAX_CUDA_SRC,
                   data={"factor": factor})


def has_kernels():
    """Whether kernels that call oneDNN serve: it is installed, and Jittor computes on the CPU."""
    return jt.compile_extern.use_mkl and not jt.flags.use_cuda


def transposed(x, axes):
    """x with its axes in this order, where it lies.

    Jittor's own `transpose` moves a GPU's array to the host and back, but for an optional library.
    """
    return jt.fuse_transpose(x, axes) if jt.flags.use_cuda else x.permute(*axes)
