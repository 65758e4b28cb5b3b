"""Multi-head self-attention's products, and their gradients.

On the CPU they are kernels of our own: Jittor's batched product is a plain loop, and would need
q, k and v as copies by head. Here each head's products are oneDNN's and read q, k and v where
they stand, heads in parallel. On a GPU they are cuBLAS' batched products, and the copies by head a
kernel of our own.
"""

import jittor as jt
import numpy as np
from jittor import nn

from models.kernels import SGEMM, SOFTMAX, has_kernels, softmax


def self_attention(qkv, heads, causal=False):
    """Every head's softmax(q kᵀ / √d) v.

    Args:
        qkv: Var (B, L, 3D), float32: q, k and v, each of all heads side by side.
        heads: H, a divisor of D; d = D / H.
        causal: a token attends to itself and those before it alone.

    Returns:
        Var (B, L, D), heads side by side.
    """
    return (_HeadByHead if has_kernels() else _Batched).apply(qkv, heads, causal)


class _HeadByHead(jt.Function):
    """`self_attention` on the CPU; the backward pass computes the shares again."""

    def execute(self, qkv, heads, causal):
        self.saved = qkv, {"heads": heads, "causal": int(causal)}
        B, L, width = qkv.shape
        return jt.code((B, L, width // 3), qkv.dtype, [qkv], cpu_header=_SHARES,
                       cpu_src=_SIZES + _FORWARD, data=self.saved[1])

    def grad(self, gradient):
        qkv, settings = self.saved
        return jt.code(qkv.shape, qkv.dtype, [qkv, gradient], cpu_header=_SHARES,
                       cpu_src=_SIZES + _BACKWARD, data=settings), None, None


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
_FORWARD = r"""
    #pragma omp parallel
    {
        std::vector<float> shares(L * L);
        #pragma omp for
        for (int64_t t = 0; t < B * H; t++) {
            const float* q = in0_p + t / H * L * row + t % H * d;
            attention_shares(q, q + D, row, L, d, causal, shares.data());
            dnnl_sgemm('N', 'N', L, d, L, 1.0f, shares.data(), L, q + 2 * D, row, 0.0f,
                       out0_p + t / H * L * D + t % H * d, D);
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


class _Batched(jt.Function):
    """`self_attention` as products over all heads at once: on a GPU, or without oneDNN."""

    def execute(self, qkv, heads, causal):
        L = qkv.shape[1]
        self.heads, self.mix = heads, AttentionMix()
        mask = jt.array(np.triu(np.full((L, L), -1e9, np.float32), k=1)) if causal else None
        return _side_by_side([self.mix.execute(*_by_head(qkv, 3, heads), mask)], heads)

    def grad(self, gradient):
        parts = self.mix.grad(*_by_head(gradient, 1, self.heads))[:3]
        return _side_by_side(parts, self.heads), None, None


def _by_head(rows, n_parts, heads):
    """(B, L, n_parts * D) -> n_parts Vars (B*H, L, d)."""
    B, L, width = rows.shape
    d = width // n_parts // heads
    if jt.flags.use_cuda:
        return jt.code([(B * heads, L, d)] * n_parts, [rows.dtype] * n_parts, [rows],
                       cuda_header=_HEADS, cuda_src=_launch("in0_p", "out", n_parts, True),
                       data={"heads": heads})
    parts = rows.reshape(B, L, n_parts, heads, d).permute(2, 0, 3, 1, 4)  # -> (n, B, H, L, d)
    return [parts[i].reshape(B * heads, L, d) for i in range(n_parts)]


def _side_by_side(parts, heads):
    """The inverse of `_by_head`: n Vars (B*H, L, d) -> (B, L, n * D)."""
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


class AttentionMix(jt.Function):
    """softmax(q kᵀ / √d + mask) v over (B*H, L, d), with its gradient written out.

    Jittor would fuse the softmax's backward pass into its naive batched products and so
    compute it again for every channel; `stop_fuse` keeps them apart (5 times faster at L 65).
    """

    def execute(self, q, k, v, mask=None):
        scores = nn.bmm_transpose(q, k) * q.shape[-1] ** -0.5  # (B*H, L, L)
        if mask is not None:
            scores = scores + mask
        shares = softmax(scores).stop_fuse()
        self.saved = q, k, v, shares
        return nn.bmm(shares, v)

    def grad(self, gradient):
        q, k, v, shares = self.saved
        d_shares = nn.bmm_transpose(gradient, v).stop_fuse()
        mean = (d_shares * shares).sum(dim=-1, keepdims=True)
        d_scores = (shares * (d_shares - mean) * q.shape[-1] ** -0.5).stop_fuse()
        return (nn.bmm(d_scores, k), _bmm_of_transposed(d_scores, q),
                _bmm_of_transposed(shares, gradient), None)


def _bmm_of_transposed(a, b):
    """aᵀ b over a batch."""
    if jt.flags.use_cuda:
        return jt.compile_extern.cublas_ops.cublas_batched_matmul(a, b, 1, 0)
    return nn.bmm(a.transpose(0, 2, 1).stop_fuse(), b)
