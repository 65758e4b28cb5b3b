"""The GPU's own kernels against NumPy, run on the CPU (tests/cuda_on_cpu.py)."""

import numpy as np
import pytest

from models import kernels
from models.jclip.layer_norm import EPSILON
from models.kernels import attention, layer_norm, mta
from tests import cuda_on_cpu
from tests.test_kernels import normal, plain_layer_norm
from tests.test_mta import plain_mta

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("n_parts", [1, 3])
def test_heads_are_set_apart_and_put_back(n_parts):
    B, L, H, d = 3, 5, 2, 20
    rows = normal(B, L, n_parts * H * d)
    parts = cuda_on_cpu.code([(B * H, L, d)] * n_parts, [rows], attention._HEADS,
                             attention._launch("in0_p", "out", n_parts, True), {"heads": H})
    expected = rows.reshape(B, L, n_parts, H, d).transpose(2, 0, 3, 1, 4)
    for part, of_heads in zip(parts, expected):
        np.testing.assert_array_equal(part, of_heads.reshape(B * H, L, d))
    back, = cuda_on_cpu.code([rows.shape], parts, attention._HEADS,
                             attention._launch("out0_p", "in", n_parts, False), {"heads": H})
    np.testing.assert_array_equal(back, rows)


@pytest.mark.parametrize("n, length", [(1, 1), (6, 33), (9, 200)])
def test_softmax(n, length):
    x = 5 * normal(n, length)
    y, = cuda_on_cpu.code([x.shape], [x], kernels._SOFTMAX_CUDA, kernels._SOFTMAX_CUDA_SRC,
                          {"factor": 2.0})
    e = np.exp(2 * (x - x.max(axis=1, keepdims=True)).astype(np.float64))
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 16), (3, 48), (1, 1, 7)])
def test_layer_norm(shape):
    x, weight, bias = normal(*shape) + 3, normal(shape[-1], seed=1), normal(shape[-1], seed=2)
    data = {"epsilon": EPSILON}
    y, = cuda_on_cpu.code([shape], [x, weight, bias], layer_norm._MOMENTS_CUDA,
                          layer_norm._FORWARD_CUDA, data)
    np.testing.assert_allclose(y, plain_layer_norm(x, weight, bias), atol=1e-5)

    g = normal(*shape, seed=3)
    dx, u = cuda_on_cpu.code([shape, shape], [x, weight, g], layer_norm._MOMENTS_CUDA,
                             layer_norm._BACKWARD_CUDA, data)
    x = x.astype(np.float64)
    np.testing.assert_allclose(u, plain_layer_norm(x, 1, 0), atol=1e-5)
    direction = normal(*shape, seed=4)
    ahead, behind = (plain_layer_norm(x + step * direction, weight, bias) for step in (1e-5, -1e-5))
    expected = (g * (ahead - behind)).sum() / 2e-5
    assert (dx * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("B, V", [(5, 6), (1, 40)])
def test_mta(unit_rows, B, V):
    views, texts = unit_rows(B, V, 16), unit_rows(7, 16, seed=1)
    settings = {"lambda_y": 0.2, "lambda_q": 4.0, "n_rounds": 5, "n_steps": 5}
    logits = 20 * views @ texts.T
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    agreement, gram = shares @ shares.transpose(0, 2, 1), views @ views.transpose(0, 2, 1)
    inlierness, state = cuda_on_cpu.code(
        [(B, V), (B, 5, V)], [agreement, gram], mta._MODES_CUDA, mta._LAUNCH_CUDA,
        {**settings, "n_nearest": max(1, int(0.3 * (V - 1)))})
    modes = (state[:, :1] @ views)[:, 0]
    for b in range(B):
        mode, expected = plain_mta(views[b], texts, 20.0, nearest=0.3)
        np.testing.assert_allclose(inlierness[b], expected, atol=1e-4)
        np.testing.assert_allclose(modes[b] / np.linalg.norm(modes[b]), mode, atol=1e-4)
