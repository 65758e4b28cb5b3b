"""Self-attention's products (models/jclip/attention.py), and the moves between layouts by head."""

import jittor as jt

from models.kernels.sources import BFLOAT16, SGEMM, SOFTMAX


def head_by_head(qkv, heads, causal):
    """On the CPU: `self_attention`, heads in parallel; of bfloat16's bits, int16, it makes such."""
    B, L, width = qkv.shape
    return jt.code((B, L, width // 3), qkv.dtype, [qkv], cpu_header=_SHARES + BFLOAT16 + _ROWS,
                   cpu_src=_SIZES + _FORWARD, data={"heads": heads, "causal": int(causal)})


def head_by_head_gradient(gradient, qkv, heads, causal):
    """The gradient of qkv by that of the result."""
    return jt.code(qkv.shape, qkv.dtype, [qkv, gradient], cpu_header=_SHARES,
                   cpu_src=_SIZES + _BACKWARD, data={"heads": heads, "causal": int(causal)})


def by_head(rows, n_parts, heads):
    """(B, L, n_parts * D) -> n_parts Vars (B*H, L, d)."""
    B, L, width = rows.shape
    d = width // n_parts // heads
    if jt.flags.use_cuda:
        return jt.code([(B * heads, L, d)] * n_parts, [rows.dtype] * n_parts, [rows],
                       cuda_header=_HEADS, cuda_src=_launch("in0_p", "out", n_parts, True),
                       data={"heads": heads})
    parts = rows.reshape(B, L, n_parts, heads, d).permute(2, 0, 3, 1, 4)  # -> (n, B, H, L, d)
    return [parts[i].reshape(B * heads, L, d) for i in range(n_parts)]


def side_by_side(parts, heads):
    """The inverse of `by_head`: n Vars (B*H, L, d) -> (B, L, n * D)."""
    BH, L, d = parts[0].shape
    shape = BH // heads, L, len(parts) * heads * d
    if jt.flags.use_cuda:
        return jt.code(shape, parts[0].dtype, list(parts), cuda_header=_HEADS,
                       cuda_src=_launch("out0_p", "in", len(parts), False), data={"heads": heads})
    rows = [part.reshape(-1, heads, L, d).permute(0, 2, 1, 3).reshape(BH // heads, L, heads * d)
            for part in parts]
    return rows[0] if len(rows) == 1 else jt.concat(rows, dim=2)


# CUDA. One block a token; Jittor's own transposes of five axes take 13 times as long.
_HEADS = r"""
struct Parts { float* of[3]; };
static __global__ void move_heads(float* rows, Parts parts, int n_parts, int L, int H, int d,
                                  bool apart) {
    int64_t b = blockIdx.x / L, l = blockIdx.x % L;
    int width = n_parts * H * d;
    rows += (int64_t)blockIdx.x * width;
    for (int c = threadIdx.x; c < width; c += blockDim.x) {
        float* place = parts.of[c / (H * d)] + ((b * H + c / d % H) * L + l) * d + c % d;
        if (apart) *place = rows[c]; else rows[c] = *place;
    }
}
"""


def _launch(rows, part, n_parts, apart):
    pointers = ", ".join(f"{part}{i}_p" for i in range(n_parts))
    return f"""
    int H = (int)data["heads"], L = {part}0_shape1, d = {part}0_shape2;
    Parts parts = {{{{{pointers}}}}};
    move_heads<<<{part}0_shape0 / H * L, 256>>>({rows}, parts, {n_parts}, L, H, d,
                                                {str(apart).lower()});
    CHECK(0 == cudaGetLastError());
"""


# C++. `row` is the step from a token to the next in qkv.
_SHARES = SGEMM + SOFTMAX + r"""
#include <vector>
// Shares (L, L) of one head: softmax of q kT, of the keys up to the query if causal.
static void attention_shares(const float* q, const float* k, int64_t row, int64_t L, int64_t d,
                             bool causal, float* s) {
    dnnl_sgemm('N', 'T', L, L, d, 1.0f / std::sqrt((float)d), q, row, k, row, 0.0f, s, L);
    for (int64_t i = 0; i < L; i++) {
        float* x = s + i * L;
        int64_t n = causal ? i + 1 : L;
        softmax(x, x, n);
        for (int64_t j = n; j < L; j++) x[j] = 0;
    }
}
"""
_SIZES = r"""
    int64_t B = in0_shape0, L = in0_shape1, row = in0_shape2, D = row / 3;
    int64_t H = (int64_t)data["heads"], d = D / H;
    bool causal = data["causal"] != 0;
"""
_ROWS = r"""
// n rows of d numbers, `from` and `to` apart in their places.
template <class X, class Y>
static void copy_rows(const X* x, int64_t from, Y* y, int64_t to, int64_t n, int64_t d) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++) convert(x[i * from + c], y[i * to + c]);
}
"""
_FORWARD = r"""
    #pragma omp parallel
    {
        std::vector<float> shares(L * L), parts(4 * L * d);
        float *q = parts.data(), *k = q + L * d, *v = k + L * d, *mixed = v + L * d;
        #pragma omp for
        for (int64_t t = 0; t < B * H; t++) {
            const auto* x = in0_p + t / H * L * row + t % H * d;
            for (int i = 0; i < 3; i++) copy_rows(x + i * D, row, q + i * L * d, d, L, d);
            attention_shares(q, k, d, L, d, causal, shares.data());
            dnnl_sgemm('N', 'N', L, d, L, 1.0f, shares.data(), L, v, d, 0.0f, mixed, d);
            copy_rows(mixed, d, out0_p + t / H * L * D + t % H * d, D, L, d);
        }
    }
"""
_BACKWARD = r"""
    float scale = 1.0f / std::sqrt((float)d);
    #pragma omp parallel
    {
        std::vector<float> shares(L * L), change(L * L);
        #pragma omp for
        for (int64_t t = 0; t < B * H; t++) {
            int64_t place = t / H * L * row + t % H * d;
            const float *q = in0_p + place, *g = in1_p + t / H * L * D + t % H * d;
            float *s = shares.data(), *c = change.data(), *dq = out0_p + place;
            attention_shares(q, q + D, row, L, d, causal, s);
            dnnl_sgemm('T', 'N', L, d, L, 1.0f, s, L, g, D, 0.0f, dq + 2 * D, row);
            dnnl_sgemm('N', 'T', L, L, d, 1.0f, g, D, q + 2 * D, row, 0.0f, c, L);
            for (int64_t i = 0; i < L; i++) {
                float mean = 0;
                for (int64_t j = 0; j < L; j++) mean += c[i * L + j] * s[i * L + j];
                for (int64_t j = 0; j < L; j++)
                    c[i * L + j] = s[i * L + j] * (c[i * L + j] - mean);
            }
            dnnl_sgemm('N', 'N', L, d, L, scale, c, L, q + D, row, 0.0f, dq, row);
            dnnl_sgemm('T', 'N', L, d, L, scale, c, L, q, row, 0.0f, dq + D, row);
        }
    }
"""
