"""Source that several kernels share: a product, a softmax, bfloat16, a layer norm, warps' sums."""

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
# Rows of float32 or of bfloat16's bits: `convert` from either to either, rounding to even.
BFLOAT16 = r"""
#include <cstdint>
#include <cstring>
static void convert(float x, float& y) { y = x; }
static void convert(float x, int16_t& y) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    y = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
static void convert(int16_t x, float& y) {
    uint32_t bits = (uint32_t)(uint16_t)x << 16;
    std::memcpy(&y, &bits, 4);
}
"""
# A layer norm of a row of D numbers, and its gradient: with h = weight ⊙ g and
# u = (x − mean) / deviation it is dx = (h − mean(h) − u mean(h ⊙ u)) / deviation.
LAYER_NORM = BFLOAT16 + r"""
#include <cmath>
static void moments(const float* x, int64_t D, float epsilon, float& mean, float& inverse) {
    float sum = 0, squares = 0;
    for (int64_t c = 0; c < D; c++) sum += x[c];
    mean = sum / D;
    for (int64_t c = 0; c < D; c++) squares += (x[c] - mean) * (x[c] - mean);
    inverse = 1 / std::sqrt(squares / D + epsilon);
}
template <class T>
static void norm_row(const float* x, const float* weight, const float* bias, int64_t D,
                     float epsilon, T* y) {
    float mean, inverse;
    moments(x, D, epsilon, mean, inverse);
    for (int64_t c = 0; c < D; c++) convert((x[c] - mean) * inverse * weight[c] + bias[c], y[c]);
}
static void norm_gradient(const float* x, const float* weight, const float* g, int64_t D,
                          float mean, float inverse, float* dx) {
    float total = 0, along = 0;
    for (int64_t c = 0; c < D; c++) {
        total += weight[c] * g[c];
        along += weight[c] * g[c] * (x[c] - mean) * inverse;
    }
    total /= D;
    along /= D;
    for (int64_t c = 0; c < D; c++)
        dx[c] = inverse * (weight[c] * g[c] - total - (x[c] - mean) * inverse * along);
}
"""
# CUDA: a warp of 32 threads does a row, blocks are of four; so no thread waits for another warp.
WARPS = r"""
#include <cstdint>
static __device__ float sum_of_warp(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ float max_of_warp(float x) {
    for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
static __device__ int64_t row_of_warp() { return (int64_t)blockIdx.x * 4 + threadIdx.x / 32; }
"""
