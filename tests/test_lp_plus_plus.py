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


def plain_lp_plus_plus(features, labels, texts, epochs, decay):
    """LP++ as in the paper and its authors' settings, and a penalty on w, in float64.

    `features` (N, V, D) are V crops of each image.
    """
    F, T = features.reshape(-1, features.shape[-1]).astype(np.float64), texts.astype(np.float64)
    V, C = features.shape[1], len(T)
    N = len(F)
    Y = np.eye(C)[np.repeat(labels, V)]
    # The sum over a class's images, of which each is the mean of its crops.
    w = np.stack([features[labels == k].mean(axis=1).sum(axis=0) for k in range(C)])
    b, velocity_w, velocity_b = np.zeros(C), 0, 0
    own = np.array([(features[labels == k] @ T[k]).mean() for k in range(C)])
    alpha, alpha_gradient = np.full(C, 250 * own.mean()), 0
    curvature = np.linalg.eigvalsh(F.T @ F)[-1] / (4 * N)
    alpha_step = N / (4 * ((F @ T.T) ** 2).sum(axis=0).max())
    for epoch in range(epochs):
        logits = F @ w.T + b + alpha * (F @ T.T)
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        G = (e / e.sum(axis=1, keepdims=True) - Y) / N
        velocity_w = 0.9 * velocity_w + G.T @ F + decay * w
        velocity_b = 0.9 * velocity_b + G.sum(axis=0)
        alpha_gradient = (G * (F @ T.T)).sum(axis=0) + alpha_gradient
        w, b = w - velocity_w / (curvature + decay), b - velocity_b / curvature
        if (epoch + 1) % 10 == 0:
            alpha, alpha_gradient = alpha - alpha_step * alpha_gradient, 0
    return w, b, alpha


@pytest.mark.parametrize("n_crops", [1, 4])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_without_reweighting_it_is_lp_plus_plus(problem, decay, n_crops):
    features, labels, texts = problem
    crops, labels = features.reshape(-1, n_crops, features.shape[1]), labels[::n_crops]
    head = LPPlusPlus(25, channel_reweighting=False, weight_decay=decay).fit(crops, labels, texts)
    w, b, alpha = plain_lp_plus_plus(crops, labels, texts, 25, decay)
    for ours, expected in ((head.w, w), (head.bias, b), (head.alpha, alpha)):
        np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3,
                                   atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(head.scale.numpy(), 1)
    np.testing.assert_allclose(head.logits(features).numpy(),
                               features @ w.T + b + alpha * (features @ texts.T), atol=0.02)


@pytest.mark.parametrize("reweighting", [True, False])
def test_the_same_crop_again_changes_nothing(problem, reweighting):
    """So neither the start nor the penalties grow with the number of crops."""
    features, labels, texts = problem
    one, four = (LPPlusPlus(25, reweighting).fit(
        np.repeat(features[:, None], n, axis=1), labels, texts) for n in (1, 4))
    for name in ("w", "bias", "alpha", "scale"):
        expected = getattr(one, name).numpy()
        np.testing.assert_allclose(getattr(four, name).numpy(), expected, rtol=1e-3,
                                   atol=1e-4 * np.abs(expected).max(), err_msg=name)


def test_gradients_are_those_of_finite_differences(problem):
    features, labels, texts = problem
    head = LPPlusPlus(4, True, weight_decay=1e-2).fit(*problem)
    F, T = jt.array(features), jt.array(texts)
    F1, labels = with_ones(F), jt.array(labels.astype(np.int32))
    _, gradients, along_text = head.gradients(F1, labels, T)
    gradients = {**gradients, "alpha": along_text}
    assert set(gradients) == {"w", "bias", "scale", "alpha"}

    def objective():
        penalties = (head.weight_decay * float((head.w ** 2).sum().item())
                     + head._scale_decay * float(((head.scale - 1) ** 2).sum().item()))
        return float(head.gradients(F1, labels, T)[0].item()) + penalties / 2

    for name, gradient in gradients.items():
        start = getattr(head, name)
        direction = np.random.RandomState(4).normal(size=start.shape).astype(np.float32)
        slope = 0.0
        for sign in (1, -1):
            setattr(head, name, start + sign * 1e-2 * jt.array(direction))
            slope += sign * objective() / 2e-2
        setattr(head, name, start)
        np.testing.assert_allclose((gradient.numpy() * direction).sum(), slope, rtol=2e-2,
                                   atol=1e-4, err_msg=name)


def test_the_step_size_of_the_reweighting_lowers_the_loss(problem):
    """A step against the gradient of s alone never climbs: the bound holds."""
    features, labels, texts = problem
    F, T = jt.array(features), jt.array(texts)
    F1, labels = with_ones(F), jt.array(labels.astype(np.int32))
    head = LPPlusPlus(channel_reweighting=True)
    head._start(F, labels, T, 1)
    step = head._step_sizes(F, T)["scale"]
    loss, gradients, _ = head.gradients(F1, labels, T)
    head.scale = head.scale - step * gradients["scale"]
    after = head.gradients(F1, labels, T)[0]
    squared = float((gradients["scale"] ** 2).sum().item())
    # Gradient descent with step 1/L falls by at least |gradient|² / 2L.
    assert loss.item() - after.item() >= 0.5 * step * squared * 0.99


def test_it_fits_and_reweighting_learns(problem):
    features, labels, _ = problem
    plain = LPPlusPlus(60, channel_reweighting=False).fit(*problem)
    reweighted = LPPlusPlus(60, channel_reweighting=True).fit(*problem)
    for head in (plain, reweighted):
        assert (head.logits(features).numpy().argmax(axis=1) == labels).mean() > 0.95
    assert np.abs(reweighted.scale.numpy() - 1).max() > 1e-4


def test_reweighting_finds_the_channels_that_tell_the_classes(unit_rows):
    """Where most channels are noise that the texts take for signal: three images a class."""
    C, D, n_telling = 20, 64, 16
    texts, random = unit_rows(C, D, seed=1), np.random.RandomState(2)

    def images(n):
        labels = np.repeat(np.arange(C), n)
        drawn = 0.4 * random.normal(size=(len(labels), D))
        drawn[:, :n_telling] = 1.5 * texts[labels, :n_telling] + 0.05 * random.normal(
            size=(len(labels), n_telling))
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32), labels

    (features, labels), (fresh, right) = images(3), images(30)
    plain, reweighted = (
        (LPPlusPlus(300, reweighting, alpha_init=20.0).fit(features, labels, texts)
         .logits(fresh).numpy().argmax(axis=1) == right).mean() for reweighting in (False, True))
    assert reweighted > plain + 0.04


def test_state_survives(problem):
    head = LPPlusPlus(5, channel_reweighting=True).fit(*problem)
    again = LPPlusPlus.from_state(head.state())
    assert again.reweights() and not LPPlusPlus(5).fit(*problem).reweights()
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
