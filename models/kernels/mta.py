"""MTA's steps (models/mta.py), image by image: on the CPU whole, on a GPU from its matrices on."""

import jittor as jt

from models.kernels.sources import SGEMM, SOFTMAX, WARPS


def modes(image_features, text_features, logit_scale, lambda_y, lambda_q, n_nearest, n_rounds,
          n_steps):
    """On the CPU: views (B, V, D) and texts (C, D) -> mode (B, D), inlierness (B, V)."""
    B, V, D = image_features.shape
    columns = text_features.transpose(1, 0)  # oneDNN's product with them is faster
    return jt.code([(B, D), (B, V)], [image_features.dtype] * 2, [image_features, columns],
                   cpu_header=_HEADER, cpu_src=_MTA,
                   data={"lambda_y": lambda_y, "lambda_q": lambda_q, "n_nearest": n_nearest,
                         "n_rounds": n_rounds, "n_steps": n_steps, "logit_scale": logit_scale})


def weights_of_views(agreement, gram, lambda_y, lambda_q, n_nearest, n_rounds, n_steps):
    """On a GPU: both matrices (B, V, V) -> the views' weights in the mode, inlierness; (B, V)."""
    B, V = gram.shape[:2]
    inlierness, state = jt.code(
        [(B, V), (B, 5, V)], ["float32"] * 2, [agreement, gram], cuda_header=_MODES_CUDA,
        cuda_src=_LAUNCH_CUDA,
        data={"lambda_y": lambda_y, "lambda_q": lambda_q, "n_nearest": n_nearest,
              "n_rounds": n_rounds, "n_steps": n_steps})
    return state[:, 0], inlierness


# C++: the same steps. The views of some images are compared with the texts at once; the rest is
# done image by image, images in parallel, all that they read and write in the processor's cache.
_HEADER = SGEMM + SOFTMAX + r"""
#include <cstring>
#include <vector>
typedef float Lanes __attribute__((vector_size(32)));
static inline Lanes lanes(const float* x) { Lanes y; std::memcpy(&y, x, 32); return y; }
// Y (n, n) = X XT for n rows of K numbers, 4 x 4 of Y at a time; one half mirrors the other.
static void gram_matrix(const float* X, int64_t n, int64_t K, float* Y) {
    for (int64_t i = 0; i < n; i += 4)
        for (int64_t j = 0; j <= i; j += 4) {
            const float *a[4], *b[4];
            for (int r = 0; r < 4; r++) {  // the last row again where there are no more
                a[r] = X + std::min(i + r, n - 1) * K;
                b[r] = X + std::min(j + r, n - 1) * K;
            }
            Lanes sums[4][4] = {};
            int64_t k = 0;
            for (; k + 8 <= K; k += 8) {
                Lanes column[4];
                for (int c = 0; c < 4; c++) column[c] = lanes(b[c] + k);
                for (int r = 0; r < 4; r++)
                    for (int c = 0; c < 4; c++) sums[r][c] += lanes(a[r] + k) * column[c];
            }
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < 4; c++) {
                    float sum = 0;
                    for (int l = 0; l < 8; l++) sum += sums[r][c][l];
                    for (int64_t rest = k; rest < K; rest++) sum += a[r][rest] * b[c][rest];
                    int64_t row = std::min(i + r, n - 1), at = std::min(j + c, n - 1);
                    Y[row * n + at] = Y[at * n + row] = sum;
                }
        }
}
// y = A x for a symmetric A (n, n), four of its rows at a time.
static void product(const float* A, const float* x, float* y, int64_t n) {
    std::fill(y, y + n, 0.0f);
    int64_t j = 0;
    for (; j + 4 <= n; j += 4) {
        const float* a = A + j * n;
        for (int64_t i = 0; i < n; i++)
            y[i] += x[j] * a[i] + x[j + 1] * a[n + i] + x[j + 2] * a[2 * n + i]
                + x[j + 3] * a[3 * n + i];
    }
    for (; j < n; j++)
        for (int64_t i = 0; i < n; i++) y[i] += x[j] * A[j * n + i];
}
// Mean of the n smallest of so many numbers >= 0. The n-th of them is found bit by bit, as such
// floats are ordered as their bits are.
static float mean_of_smallest(const float* x, int64_t size, int64_t n) {
    float nth = 0, sum = 0;
    int64_t n_below;
    for (int32_t bit = 1 << 30, found = 0; bit; bit >>= 1) {
        int32_t tried = found | bit;
        float limit;
        std::memcpy(&limit, &tried, sizeof limit);
        n_below = 0;
        for (int64_t i = 0; i < size; i++) n_below += x[i] < limit;
        if (n_below < n) { found = tried; nth = limit; }
    }
    n_below = 0;
    for (int64_t i = 0; i < size; i++)
        if (x[i] < nth) { sum += x[i]; n_below++; }
    return (sum + (n - n_below) * nth) / n;
}
static void kernel(const float* cosines, const float* bandwidth, float* y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = std::exp(-std::max(2 - 2 * cosines[i], 0.0f) / bandwidth[i]);
}
"""
_MTA = r"""
    int64_t B = in0_shape0, V = in0_shape1, D = in0_shape2, C = in1_shape1;
    int64_t n_nearest = data["n_nearest"], n_rounds = data["n_rounds"], n_steps = data["n_steps"];
    float lambda_y = data["lambda_y"], lambda_q = data["lambda_q"];
    const int64_t at_once = std::max<int64_t>(1, 1024 / V);
    std::vector<float> logits(std::min(at_once, B) * V * C);
    for (int64_t first = 0; first < B; first += at_once) {
        int64_t last = std::min(first + at_once, B);
        dnnl_sgemm('N', 'N', (last - first) * V, C, D, data["logit_scale"], in0_p + first * V * D,
                   D, in1_p, C, 0.0f, logits.data(), C);
        #pragma omp parallel
        {
            std::vector<float> agreement(V * V), gram(V * V), bandwidth(V), cosines(V),
                closeness(V), weights(V), along(V);
            #pragma omp for
            for (int64_t b = first; b < last; b++) {
                const float* views = in0_p + b * V * D;
                float *mode = out0_p + b * D, *inlierness = out1_p + b * V;
                float* predictions = &logits[(b - first) * V * C];
                for (int64_t v = 0; v < V; v++)
                    softmax(predictions + v * C, predictions + v * C, C);
                dnnl_sgemm('N', 'T', V, V, C, 1.0f, predictions, C, predictions, C, 0.0f,
                           agreement.data(), V);
                gram_matrix(views, V, D, gram.data());
                for (int64_t v = 0; v < V; v++) {
                    for (int64_t u = 0; u < V; u++)
                        along[u] = std::max(2 - 2 * gram[v * V + u], 0.0f);
                    along[v] = 8;  // its own distance does not count, and none is as large
                    // Equal views would make it 0.
                    bandwidth[v] = std::max(mean_of_smallest(along.data(), V, n_nearest), 1e-6f);
                    cosines[v] = gram[v];
                    inlierness[v] = 1.0f / V;
                }
                for (int64_t round = 0; round < n_rounds; round++) {
                    kernel(cosines.data(), bandwidth.data(), closeness.data(), V);
                    for (int64_t step = 0; step < n_steps; step++) {
                        product(agreement.data(), inlierness, along.data(), V);
                        for (int64_t v = 0; v < V; v++)
                            along[v] = closeness[v] + lambda_q * along[v];
                        softmax(along.data(), inlierness, V, 1 / lambda_y);
                    }
                    for (int64_t step = 0; step < n_steps; step++) {
                        kernel(cosines.data(), bandwidth.data(), weights.data(), V);
                        float sum = 0, squared = 0;
                        for (int64_t v = 0; v < V; v++) {
                            weights[v] = std::max(weights[v] * inlierness[v], 1e-30f);
                            sum += weights[v];
                        }
                        for (int64_t v = 0; v < V; v++) weights[v] /= sum;
                        product(gram.data(), weights.data(), along.data(), V);
                        for (int64_t v = 0; v < V; v++) squared += weights[v] * along[v];
                        for (int64_t v = 0; v < V; v++) cosines[v] = along[v] / std::sqrt(squared);
                    }
                }
                std::fill(mode, mode + D, 0.0f);
                for (int64_t v = 0; v < V; v++)
                    for (int64_t c = 0; c < D; c++) mode[c] += weights[v] * views[v * D + c];
                float squared = 0;
                for (int64_t c = 0; c < D; c++) squared += mode[c] * mode[c];
                for (int64_t c = 0; c < D; c++) mode[c] /= std::sqrt(squared);
            }
        }
    }
"""
# CUDA: the same steps from the two matrices (V, V) of an image on, a warp an image. `state` (5, V)
# is its workplace; its first row is the views' weights in the mode.
_MODES_CUDA = WARPS + r"""
static __device__ float closeness_of(float cosine, float bandwidth) {
    return expf(-fmaxf(2 - 2 * cosine, 0.0f) / bandwidth);
}
static __device__ float entry_of_product(const float* A, const float* x, int64_t row, int64_t V) {
    float sum = 0;
    for (int64_t u = 0; u < V; u++) sum += A[u * V + row] * x[u];  // A is symmetric
    return sum;
}
// Mean of the n smallest squared distances of a view from the others; see `mean_of_smallest`.
static __device__ float mean_of_nearest(const float* gram, int64_t v, int64_t V, int64_t n) {
    float nth = 0, sum = 0;
    int64_t n_below = 0;
    for (int bit = 1 << 30, found = 0; bit; bit >>= 1) {
        float limit = __int_as_float(found | bit);
        n_below = 0;
        for (int64_t u = 0; u < V; u++)
            n_below += u != v && fmaxf(2 - 2 * gram[u * V + v], 0.0f) < limit;
        if (n_below < n) { found |= bit; nth = limit; }
    }
    n_below = 0;
    for (int64_t u = 0; u < V; u++) {
        float distance = fmaxf(2 - 2 * gram[u * V + v], 0.0f);
        if (u != v && distance < nth) { sum += distance; n_below++; }
    }
    return (sum + (n - n_below) * nth) / n;
}
static __global__ void modes(const float* agreement, const float* gram, float* inlierness,
                             float* state, int64_t B, int64_t V, int64_t n_nearest, int n_rounds,
                             int n_steps, float lambda_y, float lambda_q) {
    int64_t b = row_of_warp(), first = threadIdx.x % 32;
    if (b >= B) return;
    agreement += b * V * V;
    gram += b * V * V;
    inlierness += b * V;
    float *weights = state + b * 5 * V, *bandwidth = weights + V, *cosines = bandwidth + V,
        *closeness = cosines + V, *along = closeness + V;
    for (int64_t v = first; v < V; v += 32) {
        bandwidth[v] = fmaxf(mean_of_nearest(gram, v, V, n_nearest), 1e-6f);
        cosines[v] = gram[v];
        inlierness[v] = 1.0f / V;
    }
    for (int round = 0; round < n_rounds; round++) {
        for (int64_t v = first; v < V; v += 32)
            closeness[v] = closeness_of(cosines[v], bandwidth[v]);
        for (int step = 0; step < n_steps; step++) {
            float top = -INFINITY, sum = 0;
            __syncwarp();
            for (int64_t v = first; v < V; v += 32) {
                along[v] = (closeness[v] + lambda_q * entry_of_product(agreement, inlierness, v, V))
                    / lambda_y;
                top = fmaxf(top, along[v]);
            }
            top = max_of_warp(top);
            for (int64_t v = first; v < V; v += 32) sum += along[v] = expf(along[v] - top);
            sum = sum_of_warp(sum);
            __syncwarp();
            for (int64_t v = first; v < V; v += 32) inlierness[v] = along[v] / sum;
        }
        for (int step = 0; step < n_steps; step++) {
            float sum = 0, squared = 0;
            for (int64_t v = first; v < V; v += 32)
                sum += weights[v] =
                    fmaxf(inlierness[v] * closeness_of(cosines[v], bandwidth[v]), 1e-30f);
            sum = sum_of_warp(sum);
            for (int64_t v = first; v < V; v += 32) weights[v] /= sum;
            __syncwarp();
            for (int64_t v = first; v < V; v += 32) {
                along[v] = entry_of_product(gram, weights, v, V);
                squared += weights[v] * along[v];
            }
            squared = sum_of_warp(squared);
            __syncwarp();
            for (int64_t v = first; v < V; v += 32) cosines[v] = along[v] / sqrtf(squared);
        }
    }
}
"""
_LAUNCH_CUDA = r"""
    int64_t B = in0_shape0, V = in0_shape1;
    modes<<<(B + 3) / 4, 128>>>(in0_p, in1_p, out0_p, out1_p, B, V, data["n_nearest"],
                                data["n_rounds"], data["n_steps"], data["lambda_y"],
                                data["lambda_q"]);
    CHECK(0 == cudaGetLastError());
"""
