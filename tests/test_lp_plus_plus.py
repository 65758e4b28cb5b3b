"""The head against finite differences and a plain NumPy version of LP++."""

import jittor as jt
import numpy as np
import pytest

from models.lp_plus_plus import LPPlusPlus, with_ones


@pytest.fixture
def problem(unit_rows):
    """Features about class centres, labels, and texts near the centres."""
    labels = np.repeat(np.arange(6), 8)
    centres = unit_rows(6, 12, seed=1)
    features = centres[labels] + 0.8 * unit_rows(48, 12, seed=2)
    texts = centres + 0.8 * unit_rows(6, 12, seed=3)
    return (features / np.linalg.norm(features, axis=1, keepdims=True), labels,
            texts / np.linalg.norm(texts, axis=1, keepdims=True))


def plain_lp_plus_plus(features, labels, texts, epochs, accumulate):
    """LP++ as in the paper and its authors' settings, in float64."""
    F, T = features.astype(np.float64), texts.astype(np.float64)
    N, C = len(F), len(T)
    Y = np.eye(C)[labels]
    w, b, velocity_w, velocity_b = Y.T @ F, np.zeros(C), 0, 0
    own = np.array([(F[labels == k] @ T[k]).mean() for k in range(C)])
    alpha, alpha_gradient = np.full(C, 250 * own.mean()), 0
    step = 4 * N / np.linalg.eigvalsh(F.T @ F)[-1]
    alpha_step = N / (4 * ((F @ T.T) ** 2).sum(axis=0).max())
    for epoch in range(epochs):
        logits = F @ w.T + b + alpha * (F @ T.T)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        G = (e / e.sum(axis=1, keepdims=True) - Y) / N
        velocity_w, velocity_b = 0.9 * velocity_w + G.T @ F, 0.9 * velocity_b + G.sum(axis=0)
        along = (G * (F @ T.T)).sum(axis=0)
        alpha_gradient = along + (alpha_gradient if accumulate else 0)
        w, b = w - step * velocity_w, b - step * velocity_b
        if (epoch + 1) % 10 == 0:
            alpha, alpha_gradient = alpha - alpha_step * alpha_gradient, 0
    return w, b, alpha


@pytest.mark.parametrize("accumulate", [True, False])
def test_without_reweighting_it_is_lp_plus_plus(problem, accumulate):
    head = LPPlusPlus(25, channel_reweighting=False, accumulate_alpha=accumulate).fit(*problem)
    w, b, alpha = plain_lp_plus_plus(*problem, 25, accumulate)
    for ours, expected in ((head.w, w), (head.bias, b), (head.alpha, alpha)):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3,
                                   atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(head.scale.numpy(), 1)
    np.testing.assert_array_equal(head.shift.numpy(), 0)
    features, _, texts = problem
    np.testing.assert_allclose(head.logits(features).numpy(),
                               features @ w.T + b + alpha * (features @ texts.T), atol=0.02)


def test_gradients_are_those_of_finite_differences(problem):
    features, labels, texts = problem
    head = LPPlusPlus(4).fit(*problem)
    F, T = jt.array(features), jt.array(texts)
    F1, labels = with_ones(F), jt.array(labels.astype(np.int32))
    _, gradients, along_text = head.gradients(F1, labels, T)
    gradients = {**gradients, "alpha": along_text}
    assert set(gradients) == {"w", "bias", "scale", "shift", "alpha"}
    for name, gradient in gradients.items():
        start = getattr(head, name)
        direction = np.random.RandomState(4).normal(size=start.shape).astype(np.float32)
        slope = 0.0
        for sign in (1, -1):
            setattr(head, name, start + sign * 1e-2 * jt.array(direction))
            slope += sign * float(head.gradients(F1, labels, T)[0].item()) / 2e-2
        setattr(head, name, start)
        np.testing.assert_allclose((gradient.numpy() * direction).sum(), slope, rtol=2e-2,
                                   atol=1e-4, err_msg=name)


def test_step_sizes_of_the_reweighting_lower_the_loss(problem):
    """A step against the gradient of one parameter alone never climbs: the bound holds."""
    features, labels, texts = problem
    F, T = jt.array(features), jt.array(texts)
    F1, labels = with_ones(F), jt.array(labels.astype(np.int32))
    head = LPPlusPlus()
    head._start(F, labels, T)
    steps = head._step_sizes(F, T)
    loss, gradients, _ = head.gradients(F1, labels, T)
    for name in ("scale", "shift"):
        start = getattr(head, name)
        setattr(head, name, start - steps[name] * gradients[name])
        after = head.gradients(F1, labels, T)[0]
        setattr(head, name, start)
        squared = float((gradients[name] ** 2).sum().item())
        # Gradient descent with step 1/L falls by at least |gradient|² / 2L.
        assert loss.item() - after.item() >= 0.5 * steps[name] * squared * 0.99, name


def test_it_fits_and_reweighting_learns(problem):
    features, labels, _ = problem
    plain = LPPlusPlus(60, channel_reweighting=False).fit(*problem)
    reweighted = LPPlusPlus(60).fit(*problem)
    for head in (plain, reweighted):
        assert (head.logits(features).numpy().argmax(axis=1) == labels).mean() > 0.95
    assert np.abs(reweighted.scale.numpy() - 1).max() > 1e-4
    assert np.abs(reweighted.shift.numpy()).max() > 1e-6


def test_state_survives(problem):
    head = LPPlusPlus(5).fit(*problem)
    again = LPPlusPlus.from_state(head.state())
    np.testing.assert_array_equal(again.logits(problem[0]).numpy(),
                                  head.logits(problem[0]).numpy())


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 1, 3]])
def test_each_class_needs_a_feature(unit_rows, labels):
    with pytest.raises(ValueError, match="0 to 2"):
        LPPlusPlus(1).fit(unit_rows(3, 4), np.array(labels), unit_rows(3, 4, seed=1))


def test_after_each_epoch_the_caller_is_told_and_changes_nothing(problem):
    losses = {}
    head = LPPlusPlus(6)
    head.fit(*problem, lambda epoch, loss: losses.update({epoch: float(loss.item())}))
    assert list(losses) == list(range(6)) and losses[5] < losses[0]
    silent = LPPlusPlus(6).fit(*problem)
    np.testing.assert_array_equal(head.w.numpy(), silent.w.numpy())
