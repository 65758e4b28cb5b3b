"""The CPU's own kernels, and what stands in for them elsewhere, against NumPy in float64."""

import math

import jittor as jt
import numpy as np
import pytest

from models.features import encode_in_parts
from models.jclip import attention, layer_norm
from models.jclip.model import Block, linear
from models.kernels import has_kernels
from models.kernels.linear import packed
from system import onednn, runtime
from system.errors import UserError


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


# What products differ by from those in float64, in units of the largest value.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1e-2}


@pytest.fixture(params=TOLERANCE)
def precision(request, monkeypatch):
    """Both precisions in turn; as much as results may differ by."""
    if request.param == "bfloat16" and (jt.flags.use_cuda or not onednn.has_bfloat16()):
        pytest.skip("no bfloat16 here")
    monkeypatch.setattr(runtime, "_PRECISION", request.param)
    return TOLERANCE[request.param]


def frozen(*arrays):
    return [jt.array(array).stop_grad() for array in arrays]


def assert_near(found, expected, tolerance):
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("shape, E", [((3, 5, 16), 24), ((50, 96), 130), ((1, 7), 1),
                                      ((2, 64), 64)])
def test_linear(precision, shape, E):
    """Value, the gradient of x, and those of a weight and bias that are trained."""
    x, W, b = normal(*shape), normal(E, shape[-1], seed=1), normal(E, seed=2)
    past, weights = normal(*shape[:-1], E, seed=3), normal(*shape[:-1], E, seed=4)
    variables = x_var, W_var, b_var = [jt.array(array) for array in (x, W, b)]
    y = linear(x_var, W_var, b_var, jt.array(past))
    expected = x.astype(np.float64) @ W.T + b + past
    assert_near(y.numpy(), expected, precision)
    gradients = jt.grad((y * jt.array(weights)).sum(), variables)
    rows = weights.reshape(-1, E).astype(np.float64)
    assert_near(gradients[0].numpy(), weights.astype(np.float64) @ W, precision)
    assert_near(gradients[1].numpy(), rows.T @ x.reshape(-1, shape[-1]), 1e-5)
    assert_near(gradients[2].numpy(), rows.sum(axis=0), 1e-5)
    with jt.no_grad():  # the sum and all in one kernel
        assert_near(linear(x_var, W_var, b_var, jt.array(past)).numpy(), expected, precision)


def plain_block(block, x, heads, activation, causal):
    """`Block` in NumPy with float64."""
    p = {name: parameter.numpy().astype(np.float64) for name, parameter in block.named_parameters()}

    def layer(rows, weight, bias):
        return rows @ p[weight].T + p[bias]

    def normalised(rows, norm):
        return plain_layer_norm(rows, p[f"{norm}.weight"], p[f"{norm}.bias"])

    qkv = layer(normalised(x, "ln_1"), "attn.in_proj_weight", "attn.in_proj_bias")
    mixed = plain_attention(qkv, heads, causal)
    x = x + layer(mixed, "attn.out_proj.weight", "attn.out_proj.bias")
    hidden = layer(normalised(x, "ln_2"), "mlp.c_fc.weight", "mlp.c_fc.bias")
    share = {"quick_gelu": 1 / (1 + np.exp(-1.702 * hidden)),
             "gelu": (1 + np.vectorize(math.erf)(hidden * math.sqrt(0.5))) / 2}[activation]
    return x + layer(hidden * share, "mlp.c_proj.weight", "mlp.c_proj.bias")


@pytest.mark.parametrize("activation, causal", [("quick_gelu", True), ("gelu", False)])
def test_block(precision, activation, causal):
    """With weights that learn, with frozen ones, and where no gradient is wanted."""
    block, x, weights = Block(32, 2, activation), normal(3, 5, 32), normal(3, 5, 32, seed=9)
    for i, parameter in enumerate(block.parameters()):
        start = 1.0 if parameter.ndim == 1 else 0.0
        parameter.update(jt.array(start + 0.3 * normal(*parameter.shape, seed=i)))
    expected = plain_block(block, x, 2, activation, causal)
    for freeze in (False, True):
        for parameter in block.parameters() if freeze else ():
            parameter.stop_grad()
        x_var = jt.array(x)
        y = block(x_var, causal)
        assert_near(y.numpy(), expected, precision)
        gradient = jt.grad((y * jt.array(weights)).sum(), x_var).numpy()
        along = slope(lambda x: (plain_block(block, x, 2, activation, causal) * weights).sum(),
                      x, gradient.astype(np.float64))  # of which it is the steepest
        assert (gradient ** 2).sum() == pytest.approx(along, rel=max(1e-4, precision))
    with jt.no_grad():
        assert_near(block(jt.array(x), causal).numpy(), expected, precision)


@pytest.mark.parametrize("has, wanted, found, told", [
    (True, "auto", "bfloat16", "precision=float32"), (False, "auto", "float32", ""),
    (True, "float32", "float32", ""), (True, "bfloat16", "bfloat16", "precision=float32"),
    (False, "bfloat16", "float32", "gains nothing")])
@pytest.mark.skipif(jt.flags.use_cuda, reason="a GPU's precision")
def test_the_processor_decides_the_precision(monkeypatch, capsys, has, wanted, found, told):
    monkeypatch.setattr(runtime, "_PRECISION", "float32")
    monkeypatch.setattr(onednn, "has_bfloat16", lambda: has)
    runtime.use_accelerator("cpu", wanted)
    lines = [line for line in capsys.readouterr().err.splitlines() if "GPU" not in line]
    assert runtime.precision() == found
    assert len(lines) == bool(told) and told in "".join(lines)


@pytest.mark.skipif(jt.flags.use_cuda, reason="as if there were a GPU")
def test_on_a_gpu_the_encoders_products_alone_are_rounded(monkeypatch):
    monkeypatch.setattr(runtime, "gpu_is_used", lambda: True)
    monkeypatch.setattr(runtime, "_PRECISION", "bfloat16")
    seen = []

    def encode(flat):
        seen.append(jt.flags.use_tensorcore)
        return jt.ones((len(flat), 4))

    features = encode_in_parts(encode, np.zeros((2, 3, 8, 8, 3), np.uint8), 100)
    assert seen == [2] and jt.flags.use_tensorcore == 0
    np.testing.assert_allclose(features.numpy(), 0.5)


def test_another_word_is_refused():
    with pytest.raises(UserError, match="precision is 'half'; it must be auto, float32 or"):
        runtime.use_accelerator("cpu", "half")


@pytest.mark.skipif(jt.flags.use_cuda, reason="the CPU's kernels")
def test_a_packed_weight_follows_its_weight(precision):
    W, x = normal(24, 16, seed=1), normal(3, 16)
    (weight,), x_var = frozen(W), jt.array(x)
    for value in (W, 2 * W):
        weight.update(jt.array(value).stop_grad())
        weight.stop_grad()
        assert_near(linear(x_var, weight).numpy(), x @ value.T, precision)
    assert packed(weight) is packed(weight)  # made once


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


def test_a_gradient_through_linear_layers_can_be_taken_once():
    """So that a step does not keep what they saw; said in words, not by a crash."""
    x, W, b = (jt.array(normal(*shape)) for shape in ((5, 8), (6, 8), (6,)))
    loss = linear(x, W, b).sum()
    jt.grad(loss, [x])
    if has_kernels():
        with pytest.raises(RuntimeError, match="compute their output again"):
            jt.grad(loss, [x])
