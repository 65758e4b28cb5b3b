"""MTA: the mode of an image's views, weighted by how much each view belongs to them.

Zanella and Ben Ayed 2024, arXiv 2405.02266. Over the mode m and the inlierness y of the views
f_p (y on the simplex) it maximises

    Σ_p y_p K(f_p − m) + λ_q/2 Σ_pq w_pq y_p y_q + λ_y H(y),   K(d) = exp(−‖d‖² / h_p²)

with w_pq the agreement of two views' predictions, by turns:

    y_p ∝ exp((K(f_p − m) + λ_q Σ_q w_pq y_q) / λ_y)        (fixed point of the y-step)
    m = Σ_p y_p K(f_p − m) f_p / Σ_p y_p K(f_p − m)          (mean shift, then unit norm)
"""

import jittor as jt
from jittor import nn

from models.jclip.model import unit_norm
from models.kernels import SGEMM, SOFTMAX, has_kernels


def mta(image_features, text_features, logit_scale, lambda_y=0.2, lambda_q=4.0, nearest=0.3,
        n_rounds=5, n_steps=5):
    """One feature for each image from its views, all images at once.

    Args:
        image_features: Var (B, V, D), unit norm; view 0 is the whole image, where the mode
            starts. The order of the others is irrelevant.
        text_features: Var (C, D), unit norm, for the views' predictions.
        logit_scale: factor on the cosines in the predictions' softmax, float.
        lambda_y: the paper's λ_y, weight of the entropy.
        lambda_q: the paper's λ (λ_q in the code), weight of the views' agreement.
        nearest: share of the other views whose mean squared distance is a view's h².
        n_rounds: turns of inlierness and mode. The paper iterates to convergence; a fixed
            number lets images of any kind share each step.
        n_steps: fixed-point and mean-shift steps a turn.

    Returns:
        mode: Var (B, D), unit norm.
        inlierness: Var (B, V), each row sums to 1.
    """
    B, V, D = image_features.shape
    if V == 1:
        return image_features[:, 0], jt.ones((B, 1))
    cosines = nn.matmul_transpose(image_features.reshape(B * V, D), text_features)  # (B*V, C)
    n_nearest = max(1, int(nearest * (V - 1)))
    if has_kernels():
        return jt.code([(B, D), (B, V)], [image_features.dtype] * 2, [image_features, cosines],
                       cpu_header=_HEADER, cpu_src=_MTA,
                       data={"lambda_y": lambda_y, "lambda_q": lambda_q, "n_nearest": n_nearest,
                             "n_rounds": n_rounds, "n_steps": n_steps,
                             "logit_scale": logit_scale})
    predictions = nn.softmax(logit_scale * cosines, dim=-1).reshape(B, V, -1)
    agreement = nn.bmm_transpose(predictions, predictions)  # (B, V, V)
    # The mode is a weighted sum of the views, so its cosines with them need their Gram matrix
    # alone: no step below works on D channels.
    gram = nn.bmm_transpose(image_features, image_features)  # (B, V, V)
    _, distances = jt.argsort((2 - 2 * gram).maximum(0.0), dim=-1)
    # Each view's own distance, 0, comes first. Equal views would make h² zero.
    bandwidth = distances[:, :, 1:1 + n_nearest].mean(dim=-1).maximum(1e-6)  # (B, V)

    def kernel(cosines):
        return jt.exp(-(2 - 2 * cosines).maximum(0.0) / bandwidth)  # (B, V)

    cosines = gram[:, 0]  # of the mode with each view
    inlierness = jt.ones((B, V)) / V
    for _ in range(n_rounds):
        closeness = kernel(cosines)
        for _ in range(n_steps):
            support = (agreement * inlierness.unsqueeze(1)).sum(dim=-1)
            inlierness = nn.softmax((closeness + lambda_q * support) / lambda_y, dim=-1)
        for _ in range(n_steps):
            weights = (inlierness * kernel(cosines)).maximum(1e-30)
            weights = weights / weights.sum(dim=-1, keepdims=True)
            products = (gram * weights.unsqueeze(1)).sum(dim=-1)
            cosines = products / jt.sqrt((weights * products).sum(dim=-1, keepdims=True))
    mode = unit_norm((weights.unsqueeze(-1) * image_features).sum(dim=1))
    return mode, inlierness


# C++: the same steps for an image at a time, images in parallel, all that they read and write
# in the processor's cache.
_HEADER = SGEMM + SOFTMAX + r"""
#include <vector>
// y = A x for a symmetric A (n, n).
static void product(const float* A, const float* x, float* y, int64_t n) {
    std::fill(y, y + n, 0.0f);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < n; i++) y[i] += x[j] * A[j * n + i];
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
    #pragma omp parallel
    {
        std::vector<float> predictions(V * C), agreement(V * V), gram(V * V), bandwidth(V),
            cosines(V), closeness(V), weights(V), along(V);
        #pragma omp for
        for (int64_t b = 0; b < B; b++) {
            const float* views = in0_p + b * V * D;
            float *mode = out0_p + b * D, *inlierness = out1_p + b * V;
            for (int64_t v = 0; v < V; v++)
                softmax(in1_p + (b * V + v) * C, &predictions[v * C], C,
                        data["logit_scale"]);
            dnnl_sgemm('N', 'T', V, V, C, 1.0f, predictions.data(), C, predictions.data(), C, 0.0f,
                       agreement.data(), V);
            dnnl_sgemm('N', 'T', V, V, D, 1.0f, views, D, views, D, 0.0f, gram.data(), V);
            for (int64_t v = 0; v < V; v++) {
                for (int64_t u = 0; u < V; u++) along[u] = std::max(2 - 2 * gram[v * V + u], 0.0f);
                std::swap(along[v], along[0]);  // its own distance, 0, does not count
                std::nth_element(along.begin() + 1, along.begin() + n_nearest, along.end());
                float sum = 0;
                for (int64_t i = 1; i <= n_nearest; i++) sum += along[i];
                bandwidth[v] = std::max(sum / n_nearest, 1e-6f);  // equal views would make it 0
                cosines[v] = gram[v];
                inlierness[v] = 1.0f / V;
            }
            for (int64_t round = 0; round < n_rounds; round++) {
                kernel(cosines.data(), bandwidth.data(), closeness.data(), V);
                for (int64_t step = 0; step < n_steps; step++) {
                    product(agreement.data(), inlierness, along.data(), V);
                    for (int64_t v = 0; v < V; v++) along[v] = closeness[v] + lambda_q * along[v];
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
"""
