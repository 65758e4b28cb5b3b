"""Multi-head self-attention's products, and their gradients.

On the CPU they are kernels of our own: Jittor's batched product is a plain loop, and would need
q, k and v as copies by head. Here each head's products are oneDNN's and read q, k and v where
they stand, heads in parallel.
"""

import jittor as jt
import numpy as np
from jittor import nn

from models.kernels import SGEMM, SOFTMAX, has_kernels


def self_attention(qkv, heads, causal=False):
    """Every head's softmax(q kᵀ / √d) v.

    Args:
        qkv: Var (B, L, 3D), float32: q, k and v, each of all heads side by side.
        heads: H, a divisor of D; d = D / H.
        causal: a token attends to itself and those before it alone.

    Returns:
        Var (B, L, D), heads side by side.
    """
    if has_kernels():
        return _HeadByHead.apply(qkv, heads, causal)
    B, L, width = qkv.shape
    D = width // 3
    qkv = qkv.reshape(B, L, 3, heads, D // heads).permute(2, 0, 3, 1, 4)  # -> (3, B, H, L, d)
    q, k, v = (qkv[i].reshape(B * heads, L, D // heads) for i in range(3))
    mask = jt.array(np.triu(np.full((L, L), -1e9, np.float32), k=1)) if causal else None
    mixed = AttentionMix.apply(q * (D // heads) ** -0.5, k, v, mask)
    return mixed.reshape(B, heads, L, D // heads).permute(0, 2, 1, 3).reshape(B, L, D)


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


class AttentionMix(jt.Function):
    """softmax(q kᵀ + mask) v over (B*H, L, d), with its gradient written out.

    Jittor would fuse the softmax's backward pass into its naive batched products and so
    compute it again for every channel; `stop_fuse` keeps them apart (5 times faster at L 65).
    """

    def execute(self, q, k, v, mask=None):
        scores = nn.bmm_transpose(q, k)  # (B*H, L, L)
        if mask is not None:
            scores = scores + mask
        shares = nn.softmax(scores, dim=-1).stop_fuse()
        self.saved = q, k, v, shares
        return nn.bmm(shares, v)

    def grad(self, gradient):
        q, k, v, shares = self.saved
        d_shares = nn.bmm_transpose(gradient, v).stop_fuse()
        mean = (d_shares * shares).sum(dim=-1, keepdims=True)
        d_scores = (shares * (d_shares - mean)).stop_fuse()

        def swap(x):
            return x.transpose(0, 2, 1).stop_fuse()

        return (nn.bmm(d_scores, k), nn.bmm(swap(d_scores), q), nn.bmm(swap(shares), gradient),
                None)
