"""The CPU's own kernels, and what stands in for them elsewhere, against NumPy in float64."""

import jittor as jt
import numpy as np
import pytest

from models.jclip import attention, layer_norm


def normal(*shape, seed=0):
    return np.random.RandomState(seed).normal(size=shape).astype(np.float32)


def plain_attention(qkv, heads, causal):
    B, L, width = qkv.shape
    q, k, v = qkv.astype(np.float64).reshape(B, L, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(L, dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return (shares @ v).transpose(0, 2, 1, 3).reshape(B, L, width // 3)


def plain_layer_norm(x, weight, bias):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred ** 2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def slope(function, argument, direction, step=1e-5):
    """The derivative of a function along a direction, by central differences in float64."""
    argument = argument.astype(np.float64)
    return (function(argument + step * direction) - function(argument - step * direction)) / (
        2 * step)


@pytest.mark.parametrize("B, L, heads, d, causal", [(3, 7, 2, 8, False), (2, 5, 3, 16, True),
                                                    (1, 1, 1, 4, True), (5, 50, 2, 64, False)])
def test_attention(kernels, B, L, heads, d, causal):
    qkv, weights = normal(B, L, 3 * heads * d), normal(B, L, heads * d, seed=1)
    var = jt.array(qkv)
    mixed = attention.self_attention(var, heads, causal)
    np.testing.assert_allclose(mixed.numpy(), plain_attention(qkv, heads, causal), atol=2e-6)

    gradient = jt.grad((mixed * jt.array(weights)).sum(), var).numpy()
    direction = normal(*qkv.shape, seed=2).astype(np.float64)
    expected = slope(lambda x: (plain_attention(x, heads, causal) * weights).sum(), qkv, direction)
    assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_a_causal_token_is_blind_to_later_ones(kernels):
    qkv = normal(1, 6, 24)
    changed = qkv.copy()
    changed[:, 4:] += 1
    before, after = (attention.self_attention(jt.array(x), 2, True).numpy()
                     for x in (qkv, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 0.01


@pytest.mark.parametrize("shape", [(4, 5, 16), (3, 48), (1, 1, 7)])
def test_layer_norm(shape):
    arrays = normal(*shape) + 3, normal(shape[-1], seed=1), normal(shape[-1], seed=2)
    weights = normal(*shape, seed=3)
    norm = layer_norm.LayerNorm(shape[-1])
    x, norm.weight, norm.bias = map(jt.array, arrays)
    y = norm(x)
    np.testing.assert_allclose(y.numpy(), plain_layer_norm(*arrays), atol=1e-5)

    gradients = jt.grad((y * jt.array(weights)).sum(), [x, norm.weight, norm.bias])
    for i, gradient in enumerate(gradients):
        direction = normal(*arrays[i].shape, seed=4).astype(np.float64)

        def total(changed, i=i):
            return (plain_layer_norm(*arrays[:i], changed, *arrays[i + 1:]) * weights).sum()

        expected = slope(total, arrays[i], direction)
        assert (gradient.numpy() * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_layer_norm_is_exact_where_the_mean_is_large():
    x = (1000 + normal(3, 64)).astype(np.float32)
    expected = plain_layer_norm(x.astype(np.float64), 1, 0)
    np.testing.assert_allclose(layer_norm.LayerNorm(64)(jt.array(x)).numpy(), expected, atol=1e-3)
