"""What the CPU's own kernels share: oneDNN's matrix product, a softmax, and when they serve."""

import jittor as jt

# C++; every matrix is row-major.
SGEMM = r"""
#include <cstdint>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""
SOFTMAX = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
// y = softmax(factor x) of n numbers, y may be x; returns log(sum(exp(factor x))).
static float softmax(const float* x, float* y, int64_t n, float factor = 1) {
    float top = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = std::max(top, x[i]);
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < n; i++) { y[i] = std::exp((x[i] - top) * factor); sum += y[i]; }
    float scale = 1 / sum;
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
    return factor * top + std::log(sum);
}
"""


def has_kernels():
    """Whether kernels that call oneDNN serve: it is installed, and Jittor computes on the CPU."""
    return jt.compile_extern.use_mkl and not jt.flags.use_cuda
