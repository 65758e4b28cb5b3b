"""CLIP (Radford et al. 2021, arXiv 2103.00020) in Jittor, with OpenAI's parameter names.

Every size is read from the weights by `models.jclip.sizes`: width, depth, heads, patch, image size,
context length, vocabulary and embedding may be anything.
"""

import math

import jittor as jt
import numpy as np
from jittor import nn

from models.jclip.attention import self_attention
from models.jclip.layer_norm import LayerNorm
from models.jclip.resnet import ModifiedResNet
from models.jclip.sizes import ResNetSizes
from models.kernels import has_kernels, transposed
from models.kernels.linear import layer, transposed_layer
from models.kernels.mlp import mlp, mlp_gradient
from system.kernel_compiler import prepare_kernel_compiler


def linear(x, weight, bias=None, residual=None, norm=None, rounded=False):
    """x Wᵀ + b (+ residual) for x (…, D), W (E, D) and b (E,).

    Args:
        norm: `LayerNorm` of x before it.
        rounded: whether a result without gradient may be as `layer` rounds it.
    """
    if not has_kernels():
        x = x if norm is None else norm(x)
        y = nn.matmul_transpose(x, weight.reshape(len(weight), -1))
        y = y if bias is None else y + bias
        return y if residual is None else residual + y
    if jt.flags.no_grad:
        return layer(x, weight, bias, residual, norm and norm.numbers(), rounded)
    return _Linear.apply(x if norm is None else norm(x), weight, bias, residual)


class _Saved(jt.Function):
    """A kernel of our own whose gradient can be taken once, as what that needs is free then."""

    def take(self):
        if self.saved is None:
            raise RuntimeError("a gradient was taken through these layers already; compute their "
                               "output again")
        saved, self.saved = self.saved, None
        return saved


class _Linear(_Saved):
    """x Wᵀ + b + what went past, and its gradients."""

    def execute(self, x, weight, bias, residual):
        self.saved = x, weight, residual is not None
        return layer(x, weight, bias, residual)

    def grad(self, gradient):
        x, weight, has_residual = self.take()
        _, of_weight, of_bias, _ = (place >= 0 for place in self.input_mask)  # the trained ones
        rows = gradient.reshape(-1, gradient.shape[-1])
        d_weight = d_bias = None
        if of_weight:
            d_weight = jt.matmul(rows.transpose(1, 0), x.reshape(len(rows), -1))
            d_weight = d_weight.reshape(weight.shape)
        if of_bias:
            d_bias = rows.sum(0)
        return (transposed_layer(gradient, weight), d_weight, d_bias,
                gradient if has_residual else None)


class Attention(nn.Module):
    """Multi-head self-attention; q, k and v come from one product, as in OpenAI's weights."""

    def __init__(self, width, heads):
        self.heads = heads
        self.in_delta = None  # models.lora puts its low-rank layers here: q, k, v …
        self.out_delta = None  # … and o
        self.in_proj_weight = jt.zeros((3 * width, width))
        self.in_proj_bias = jt.zeros((3 * width,))
        self.out_proj = nn.Linear(width, width)

    def execute(self, x, norm, causal=False, kept=None, residual=None):
        weights = self.in_proj_weight, self.in_proj_bias
        if self.in_delta is None:
            qkv = linear(x, *weights, norm=norm, rounded=self.out_delta is None)  # -> (B, L, 3D)
        else:
            x = norm(x)
            qkv = linear(x, *weights) + self.in_delta(x)
        mixed = _tokens(self_attention(qkv, self.heads, causal), kept)
        out = linear(mixed, self.out_proj.weight, self.out_proj.bias, residual)
        return out if self.out_delta is None else out + self.out_delta(mixed)


def quick_gelu(x):
    """OpenAI's approximation of GELU."""
    return x * jt.sigmoid(1.702 * x)


def gelu(x):
    """x Φ(x) with the exact normal distribution."""
    return 0.5 * x * (1 + jt.erf(x * math.sqrt(0.5)))


_ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


class MLP(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, width, hidden, activation):
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)
        self.activation = activation

    def execute(self, x, norm):
        fc, proj = self.c_fc, self.c_proj
        if has_kernels():
            weights, numbers = (fc.weight, fc.bias, proj.weight, proj.bias), norm.numbers()
            if jt.flags.no_grad:
                return mlp(x, numbers, weights, self.activation)
            if all(variable.is_stop_grad() for variable in (*numbers[:2], *weights)):
                return _MLP.apply(x, numbers, weights, self.activation)
        hidden = _ACTIVATIONS[self.activation](linear(x, fc.weight, fc.bias, norm=norm))
        return linear(hidden, proj.weight, proj.bias, residual=x)


class _MLP(_Saved):
    """`mlp` of frozen weights, and the gradient of x."""

    def execute(self, x, *of_layers):
        y, hidden = mlp(x, *of_layers, kept=True)
        self.saved = x, hidden, *of_layers
        return y

    def grad(self, gradient):
        return mlp_gradient(gradient, *self.take()), None, None, None


class Block(nn.Module):
    """Pre-norm residual attention block."""

    def __init__(self, width, heads, activation):
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        self.mlp = MLP(width, 4 * width, activation)
        self.ln_2 = LayerNorm(width)

    def execute(self, x, causal=False, kept=None):
        x = self.attn(x, self.ln_1, causal, kept, _tokens(x, kept))
        return self.mlp(x, self.ln_2)


class Transformer(nn.Module):
    """A stack of blocks over (B, L, D)."""

    def __init__(self, sizes, activation):
        self.resblocks = nn.ModuleList([Block(sizes.width, sizes.heads, activation)
                                        for _ in range(sizes.layers)])

    def execute(self, x, kept, causal=False):
        """-> (B, D): of each row the token at `kept`, int array (B,).

        Nothing else is wanted of the last block, so most of it works on that token alone.
        """
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x, causal)
        return last(x, causal, kept)


def _tokens(x, kept):
    """(B, L, D) -> (B, D), the token of each row at `kept`; x itself if that is None."""
    return x if kept is None else x[jt.arange(len(kept)), jt.array(kept)]


class VisionTransformer(nn.Module):
    """Image encoder: (B, 3, S, S) -> (B, D)."""

    def __init__(self, sizes):
        width = sizes.vision.width
        n_patches = (sizes.image_size // sizes.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, stride=sizes.patch_size, bias=False)
        self.class_embedding = jt.zeros((width,))
        self.positional_embedding = jt.zeros((n_patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(sizes.vision, sizes.activation)
        self.ln_post = LayerNorm(width)
        self.proj = jt.zeros((width, sizes.embed_dim))

    def execute(self, images):
        x = self._patches(images)
        B, _, W = x.shape
        first = self.class_embedding.broadcast((B, 1, W))
        x = jt.concat([first, x], dim=1) + self.positional_embedding  # (B, 1 + g*g, W)
        x = self.transformer(self.ln_pre(x), kept=np.zeros(B, np.int32))  # -> (B, W)
        return jt.matmul(self.ln_post(x), self.proj)

    def _patches(self, images):
        """The convolution, (B, 3, S, S) -> (B, g*g, W)."""
        # As one product: no cuDNN is needed, and what holds for products' precision holds here.
        weight = self.conv1.weight
        B, C, S = images.shape[:3]
        p = weight.shape[-1]
        g = S // p
        pixels = transposed(images.reshape(B, C, g, p, g, p), (0, 2, 4, 1, 3, 5))
        return linear(pixels.reshape(B, g * g, -1), weight)


class CLIP(nn.Module):
    """Image and text encoders into one space.

    Attributes:
        sizes: `CLIPSizes` of these weights.
        logit_scale: Var (1,), the natural logarithm of the factor on cosine similarities.
    """

    def __init__(self, sizes):
        prepare_kernel_compiler()  # before anything is computed, whoever builds one
        self.sizes = sizes
        if isinstance(sizes.vision, ResNetSizes):
            self.visual = ModifiedResNet(*sizes.vision, sizes.image_size, sizes.embed_dim)
        else:
            self.visual = VisionTransformer(sizes)
        self.transformer = Transformer(sizes.text, sizes.activation)
        self.token_embedding = nn.Embedding(sizes.vocab_size, sizes.text.width)
        self.positional_embedding = jt.zeros((sizes.context_length, sizes.text.width))
        self.ln_final = LayerNorm(sizes.text.width)
        self.text_projection = jt.zeros((sizes.text.width, sizes.embed_dim))
        self.logit_scale = jt.array(np.float32([math.log(1 / 0.07)]))

    def scale(self):
        """The factor on cosine similarities, float."""
        return float(self.logit_scale.exp().item())

    def encode_image(self, images):
        """Images (B, 3, S, S) as `preprocess` makes them -> features (B, D), not normalised."""
        S = self.sizes.image_size
        if tuple(images.shape[1:]) != (3, S, S):
            raise ValueError(f"images of shape {tuple(images.shape)}; these weights take "
                             f"(B, 3, {S}, {S})")
        return self.visual(images)

    def encode_text(self, tokens):
        """Tokens (B, context_length), integers -> features (B, D), not normalised.

        Attention is causal, so what follows the end-of-text token changes nothing: the
        encoder works on the longest prompt of the batch, not on the whole context.
        """
        tokens = np.asarray(tokens.numpy() if isinstance(tokens, jt.Var) else tokens)
        ends = tokens.argmax(axis=-1)  # end-of-text has the highest id
        tokens = jt.array(tokens[:, :int(ends.max()) + 1].astype(np.int32))
        return self.encode_embeddings(self.token_embedding(tokens), ends)

    def encode_embeddings(self, embeddings, ends):
        """Token embeddings (B, L, W) and end-of-text positions (B,), int -> features (B, D)."""
        x = embeddings + self.positional_embedding[:embeddings.shape[1]]
        x = self.transformer(x, kept=np.asarray(ends, np.int32), causal=True)  # -> (B, W)
        return jt.matmul(self.ln_final(x), self.text_projection)

    def execute(self, images, tokens):
        """-> logits (B images, B texts) and its transpose, times the logit scale."""
        image_features = unit_norm(self.encode_image(images))
        text_features = unit_norm(self.encode_text(tokens))
        logits = self.logit_scale.exp() * nn.matmul_transpose(image_features, text_features)
        return logits, transposed(logits, (1, 0))


def unit_norm(features):
    """Features (..., D) divided by their Euclidean length."""
    return features / jt.sqrt((features * features).sum(dim=-1, keepdims=True))
