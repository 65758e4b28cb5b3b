"""LP++'s pass over the features (models/lp_plus_plus.py) on the CPU."""

import jittor as jt

from models.kernels.sources import SGEMM, SOFTMAX


def residual_sums(F1, weights, labels):
    """F1 (N, D + 1), weights (C, D + 1), labels (N,) -> cross-entropies (N,) and
    (softmax(F1 weightsᵀ) − Y)ᵀ F1 (C, D + 1)."""
    return jt.code([(F1.shape[0],), weights.shape], [F1.dtype] * 2, [F1, weights, labels],
                   cpu_header=_HEADER, cpu_src=_RESIDUAL_SUMS)


# C++: an epoch's pass over the features, some rows at a time, whose logits stay in the cache.
_HEADER = SGEMM + SOFTMAX + """
#include <omp.h>
#include <vector>
"""
_RESIDUAL_SUMS = r"""
    int64_t N = in0_shape0, D = in0_shape1, C = in1_shape0, rows = 256;
    std::vector<std::vector<float>> sums(omp_get_max_threads());
    #pragma omp parallel
    {
        std::vector<float> residuals(rows * C);
        std::vector<float>& sum = sums[omp_get_thread_num()];
        sum.assign(C * D, 0);
        #pragma omp for schedule(static)
        for (int64_t start = 0; start < N; start += rows) {
            int64_t n = std::min(rows, N - start);
            const float* f = in0_p + start * D;
            dnnl_sgemm('N', 'T', n, C, D, 1, f, D, in1_p, D, 0, residuals.data(), C);
            for (int64_t i = 0; i < n; i++) {
                float* x = residuals.data() + i * C;
                int64_t label = in2_p[start + i];
                float own = x[label];
                out0_p[start + i] = softmax(x, x, C) - own;
                x[label] -= 1;
            }
            dnnl_sgemm('T', 'N', C, D, n, 1, residuals.data(), C, f, D, 1, sum.data(), D);
        }
        #pragma omp for schedule(static)
        for (int64_t i = 0; i < C * D; i++) {
            float total = 0;
            for (auto& sum : sums) if (!sum.empty()) total += sum[i];
            out1_p[i] = total;
        }
    }
"""
