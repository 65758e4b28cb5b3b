"""MTA against a plain NumPy version, image by image, and its invariants."""

import jittor as jt
import numpy as np
import pytest

from models.mta import mta

SCALE = 12.0


def plain_mta(views, texts, scale, lambda_y=0.2, lambda_q=4.0, nearest=0.3, n_rounds=5,
              n_steps=5):
    """The equations of `models.mta` for one image, views (V, D), in float64."""
    views, texts = views.astype(np.float64), texts.astype(np.float64)
    V = len(views)

    def softmax(x):
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    predictions = softmax(scale * views @ texts.T)
    distances = ((views[:, None] - views[None]) ** 2).sum(axis=-1)
    bandwidth = np.empty(V)
    for p in range(V):
        others = np.sort(np.delete(distances[p], p))
        bandwidth[p] = others[:max(1, int(nearest * (V - 1)))].mean()
    mode, y = views[0], np.full(V, 1 / V)
    for _ in range(n_rounds):
        closeness = np.exp(-((views - mode) ** 2).sum(axis=1) / bandwidth)
        for _ in range(n_steps):
            y = softmax((closeness + lambda_q * (predictions @ predictions.T) @ y) / lambda_y)
        for _ in range(n_steps):
            weights = y * np.exp(-((views - mode) ** 2).sum(axis=1) / bandwidth)
            mode = (weights[:, None] * views).sum(axis=0)
            mode /= np.linalg.norm(mode)
    return mode, y


@pytest.fixture
def views(unit_rows):
    """Five images of nine views that lie about a direction of their own: (5, 9, 16)."""
    centres = unit_rows(5, 1, 16, seed=1)
    noisy = centres + 0.5 * unit_rows(5, 9, 16, seed=2)
    return noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)


def run(views, texts, **settings):
    mode, inlierness = mta(jt.array(views), jt.array(texts), SCALE, **settings)
    return mode.numpy(), inlierness.numpy()


@pytest.mark.parametrize("settings", [{}, {"lambda_q": 0.0}, {"lambda_y": 1.0, "nearest": 0.6},
                                      {"n_rounds": 2, "n_steps": 1}])
def test_equals_the_plain_version(kernels, views, unit_rows, settings):
    texts = unit_rows(7, 16, seed=3)
    mode, inlierness = run(views, texts, **settings)
    for i in range(len(views)):
        expected_mode, expected_y = plain_mta(views[i], texts, SCALE, **settings)
        np.testing.assert_allclose(mode[i], expected_mode, atol=2e-5)
        np.testing.assert_allclose(inlierness[i], expected_y, atol=2e-5)


def test_weights_sum_to_one_and_modes_have_unit_norm(views, unit_rows):
    mode, inlierness = run(views, unit_rows(7, 16))
    np.testing.assert_allclose(inlierness.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(mode, axis=1), 1, atol=1e-5)
    assert (inlierness >= 0).all()


def test_the_order_of_the_other_views_is_irrelevant(kernels, views, unit_rows):
    texts = unit_rows(7, 16)
    order = np.r_[0, 1 + np.random.RandomState(0).permutation(views.shape[1] - 1)]
    mode, inlierness = run(views, texts)
    shuffled_mode, shuffled = run(views[:, order], texts)
    np.testing.assert_allclose(shuffled_mode, mode, atol=1e-5)
    np.testing.assert_allclose(shuffled, inlierness[:, order], atol=1e-5)


def test_images_do_not_touch_each_other(views, unit_rows):
    texts = unit_rows(7, 16)
    together, _ = run(views, texts)
    alone, _ = run(views[2:3], texts)
    np.testing.assert_allclose(alone[0], together[2], atol=1e-6)


def test_an_outlier_gets_little_weight(unit_rows):
    texts = unit_rows(7, 16)
    views = texts[:1] + 0.2 * unit_rows(1, 9, 16, seed=2)
    views[0, 5] = -texts[0]
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    _, inlierness = run(views, texts)
    assert inlierness[0, 5] < 0.2 * np.delete(inlierness[0], 5).min()


def test_one_view_and_equal_views_are_themselves(kernels, views, unit_rows):
    texts = unit_rows(7, 16)
    mode, inlierness = run(views[:, :1], texts)
    np.testing.assert_array_equal(mode, views[:, 0])
    np.testing.assert_array_equal(inlierness, np.ones((5, 1)))
    mode, inlierness = run(np.repeat(views[:, :1], 4, axis=1), texts)
    np.testing.assert_allclose(mode, views[:, 0], atol=1e-5)
    np.testing.assert_allclose(inlierness, 0.25, atol=1e-4)
