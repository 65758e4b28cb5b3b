"""Multi-head self-attention's products, and their gradients.

On the CPU they are kernels of our own: Jittor's batched product is a plain loop, and would need
q, k and v as copies by head. Here each head's products are oneDNN's and read q, k and v where
they stand, heads in parallel. On a GPU they are cuBLAS' batched products, and the copies by head a
kernel of our own.
"""

import jittor as jt
import numpy as np
from jittor import nn

from models.kernels import has_kernels, softmax
from models.kernels.attention import (
    by_head,
    head_by_head,
    head_by_head_gradient,
    side_by_side,
)


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
        self.saved = qkv, heads, causal
        return head_by_head(qkv, heads, causal)

    def grad(self, gradient):
        return head_by_head_gradient(gradient, *self.saved), None, None


class _Batched(jt.Function):
    """`self_attention` as products over all heads at once: on a GPU, or without oneDNN."""

    def execute(self, qkv, heads, causal):
        L = qkv.shape[1]
        self.heads, self.mix = heads, AttentionMix()
        mask = jt.array(np.triu(np.full((L, L), -1e9, np.float32), k=1)) if causal else None
        return side_by_side([self.mix.execute(*by_head(qkv, 3, heads), mask)], heads)

    def grad(self, gradient):
        parts = self.mix.grad(*by_head(gradient, 1, self.heads))[:3]
        return side_by_side(parts, self.heads), None, None


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
