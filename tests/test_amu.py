"""AMU-Tuning's head against a plain NumPy version and finite differences."""

import jittor as jt
import numpy as np
import pytest

from models.amu import AMUHead, uncertainty


@pytest.fixture
def problem(unit_rows):
    """Features about class centres (N, A), labels, and zero-shot logits that are often wrong."""
    labels = np.repeat(np.arange(5), 8)
    features = unit_rows(5, 12, seed=1)[labels] + 0.8 * unit_rows(40, 12, seed=2)
    logits = np.random.RandomState(3).normal(size=(40, 5)) * 2 + np.eye(5)[labels]
    return (features / np.linalg.norm(features, axis=1, keepdims=True), labels,
            logits.astype(np.float32))


def plain_standardised(values):
    return (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)


def plain_softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def plain_fused(W, logits, features, zero_shot, alpha, power):
    shares = plain_softmax(zero_shot)
    kurtosis = (plain_standardised(shares) ** 4).mean(axis=1, keepdims=True)
    weights = alpha * (logits.shape[1] / 4 / kurtosis) ** power * logits.std(axis=1, keepdims=True)
    return logits + weights * plain_standardised(features @ W.T)


def plain_loss(W, features, labels, logits, alpha, power, share):
    """In float64."""
    def cross_entropy(values):
        return -np.log(plain_softmax(values)[np.arange(len(labels)), labels]).mean()

    return (share * cross_entropy(plain_fused(W, logits, features, logits, alpha, power))
            + (1 - share) * cross_entropy(plain_standardised(features @ W.T)))


@pytest.mark.parametrize("alpha, power, share", [(0.5, 0.4, 0.35), (2.0, 0.0, 1.0)])
def test_fitting_is_adam_on_both_branches(problem, alpha, power, share):
    """Three steps, with gradients by finite differences of the plain loss."""
    features, labels, logits = (values.astype(np.float64) for values in problem)
    labels = labels.astype(int)
    W = np.stack([features[labels == k].mean(axis=0) for k in range(5)])
    first, second = np.zeros_like(W), np.zeros_like(W)
    for step in range(1, 4):
        gradient = np.zeros_like(W)
        for place in np.ndindex(*W.shape):
            ends = []
            for sign in (1, -1):
                moved = W.copy()
                moved[place] += sign * 1e-5
                ends.append(plain_loss(moved, features, labels, logits, alpha, power, share))
            gradient[place] = (ends[0] - ends[1]) / 2e-5
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient ** 2
        W = W - 0.01 * (first / (1 - 0.9 ** step)) / (np.sqrt(second / (1 - 0.999 ** step)) + 1e-8)
    losses = []
    head = AMUHead(alpha, power, share).fit(*problem, epochs=3, lr=0.01,
                                            after_epoch=lambda epoch, loss: losses.append(loss))
    np.testing.assert_allclose(head.weight.numpy(), W, atol=1e-4)
    assert len(losses) == 3 and losses[2] < losses[0]
    features, _, logits = problem
    others = 7 * logits[::-1]
    np.testing.assert_allclose(head.fused(others, features, logits),
                               plain_fused(W, others, features, logits, alpha, power), atol=0.05)


def test_a_fitted_head_comes_back_from_its_weight(problem):
    features, _, logits = problem
    head = AMUHead(alpha=0.7, power=0.3).fit(*problem, epochs=20, lr=0.01)
    again = AMUHead(alpha=0.7, power=0.3, weight=head.weight.numpy())
    np.testing.assert_array_equal(again.fused(logits, features, logits),
                                  head.fused(logits, features, logits))


def test_what_was_not_seen_gives_no_bias(problem):
    features, _, logits = problem
    head = AMUHead().fit(*problem, epochs=1, lr=0.01)
    np.testing.assert_array_equal(head.fused(logits, np.zeros_like(features), logits), logits)


def test_the_surer_the_less():
    """At 1,000 classes the factor is the authors', (250 / κ)^ρ; a sure row has κ = C - 2."""
    logits = np.zeros((3, 1000), np.float32)
    logits[1, :3], logits[2, 7] = (9, 8.5, 8), 60
    equal, unsure, sure = uncertainty(jt.array(logits), 0.4).numpy()[:, 0]
    assert equal > unsure > sure
    np.testing.assert_allclose(sure, (250 / 998) ** 0.4, rtol=1e-3)
    np.testing.assert_allclose(equal, 250 ** 0.4, rtol=1e-3)  # κ is 1 at least
    np.testing.assert_array_equal(uncertainty(jt.array(logits), 0.0).numpy(), 1)


def test_a_single_class_stays_finite():
    head = AMUHead().fit(np.eye(3, dtype=np.float32), np.zeros(3, int), np.ones((3, 1), "f4"), 2,
                         0.01)
    assert np.isfinite(head.weight.numpy()).all()
    ones = np.ones((3, 1), "f4")
    np.testing.assert_array_equal(head.fused(ones, np.eye(3, dtype=np.float32), ones), ones)
