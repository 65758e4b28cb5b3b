"""What the CPU's own kernels share: oneDNN's matrix product, and when they serve."""

import jittor as jt

# C++; every matrix is row-major.
SGEMM = r"""
#include <cstdint>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""


def has_kernels():
    """Whether kernels that call oneDNN serve: it is installed, and Jittor computes on the CPU."""
    return jt.compile_extern.use_mkl and not jt.flags.use_cuda
