"""Layer norm (models/jclip/layer_norm.py) a row at a time, rows in parallel, and its gradient.

Jittor's fused loops read the whole array once for each sum.
"""

import jittor as jt

from models.kernels.sources import LAYER_NORM, WARPS


def normalised(x, weight, bias, epsilon):
    """x (…, D), weight and bias (D,) -> (…, D)."""
    return jt.code(x.shape, x.dtype, [x, weight, bias], cpu_header=LAYER_NORM, cpu_src=_FORWARD,
                   cuda_header=_MOMENTS_CUDA, cuda_src=_FORWARD_CUDA, data={"epsilon": epsilon})


def normalised_gradient(x, weight, gradient, epsilon):
    """The gradients of x, weight and bias, by that of the result."""
    if not jt.flags.use_cuda:
        return jt.code([x.shape, weight.shape, weight.shape], [x.dtype] * 3,
                       [x, weight, gradient], cpu_header=_SUMS, cpu_src=_BACKWARD,
                       data={"epsilon": epsilon})
    dx, u = jt.code([x.shape, x.shape], [x.dtype] * 2, [x, weight, gradient],
                    cuda_header=_MOMENTS_CUDA, cuda_src=_BACKWARD_CUDA, data={"epsilon": epsilon})
    rows = tuple(range(x.ndim - 1))
    return dx, (gradient * u).sum(rows), gradient.sum(rows)  # computed if asked for


# C++. n rows of D channels; u = (x − mean) / deviation is a normalised row.
_FORWARD = r"""
    int64_t D = in1_shape0, n = in0->num / D;
    float epsilon = data["epsilon"];
    #pragma omp parallel for
    for (int64_t i = 0; i < n; i++)
        norm_row(in0_p + i * D, in1_p, in2_p, D, epsilon, out0_p + i * D);
"""
# dweight = Σ g ⊙ u and dbias = Σ g: each thread sums its own rows, and the threads' sums are added
# in their order.
_SUMS = LAYER_NORM + """
#include <omp.h>
#include <vector>
"""
_BACKWARD = r"""
    int64_t D = in1_shape0, n = in0->num / D;
    float epsilon = data["epsilon"];
    int n_threads = omp_get_max_threads();
    std::vector<float> sums(2 * D * n_threads);
    #pragma omp parallel num_threads(n_threads)
    {
        float *dw = sums.data() + 2 * D * omp_get_thread_num(), *db = dw + D;
        #pragma omp for schedule(static)
        for (int64_t i = 0; i < n; i++) {
            const float *x = in0_p + i * D, *g = in2_p + i * D;
            float mean, inverse;
            moments(x, D, epsilon, mean, inverse);
            norm_gradient(x, in1_p, g, D, mean, inverse, out0_p + i * D);
            for (int64_t c = 0; c < D; c++) {
                dw[c] += g[c] * (x[c] - mean) * inverse;
                db[c] += g[c];
            }
        }
    }
    for (int64_t c = 0; c < D; c++) {
        out1_p[c] = out2_p[c] = 0;
        for (int t = 0; t < n_threads; t++) {
            out1_p[c] += sums[2 * D * t + c];
            out2_p[c] += sums[2 * D * t + D + c];
        }
    }
"""
_MOMENTS_CUDA = WARPS + r"""
static __device__ void moments(const float* x, int D, float epsilon, float& mean, float& inverse) {
    float sum = 0, squares = 0;
    for (int c = threadIdx.x % 32; c < D; c += 32) sum += x[c];
    mean = sum_of_warp(sum) / D;
    for (int c = threadIdx.x % 32; c < D; c += 32) squares += (x[c] - mean) * (x[c] - mean);
    inverse = rsqrtf(sum_of_warp(squares) / D + epsilon);
}
static __global__ void norm_rows(const float* x, const float* weight, const float* bias, float* y,
                                 int64_t n, int D, float epsilon) {
    int64_t row = row_of_warp();
    if (row >= n) return;
    x += row * D;
    y += row * D;
    float mean, inverse;
    moments(x, D, epsilon, mean, inverse);
    for (int c = threadIdx.x % 32; c < D; c += 32)
        y[c] = (x[c] - mean) * inverse * weight[c] + bias[c];
}
static __global__ void norm_gradient(const float* x, const float* weight, const float* g,
                                     float* dx, float* u, int64_t n, int D, float epsilon) {
    int64_t row = row_of_warp();
    if (row >= n) return;
    x += row * D; g += row * D; dx += row * D; u += row * D;
    float mean, inverse, total = 0, along = 0;
    moments(x, D, epsilon, mean, inverse);
    for (int c = threadIdx.x % 32; c < D; c += 32) {
        u[c] = (x[c] - mean) * inverse;
        total += weight[c] * g[c];
        along += weight[c] * g[c] * u[c];
    }
    total = sum_of_warp(total) / D;
    along = sum_of_warp(along) / D;
    for (int c = threadIdx.x % 32; c < D; c += 32)
        dx[c] = inverse * (weight[c] * g[c] - total - u[c] * along);
}
"""
_FORWARD_CUDA = r"""
    int64_t D = in1_shape0, n = in0->num / D;
    norm_rows<<<(n + 3) / 4, 128>>>(in0_p, in1_p, in2_p, out0_p, n, D, data["epsilon"]);
    CHECK(0 == cudaGetLastError());
"""
_BACKWARD_CUDA = r"""
    int64_t D = in1_shape0, n = in0->num / D;
    norm_gradient<<<(n + 3) / 4, 128>>>(in0_p, in1_p, in2_p, out0_p, out1_p, n, D,
                                        data["epsilon"]);
    CHECK(0 == cudaGetLastError());
"""
