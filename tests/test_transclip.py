"""TransCLIP against a plain dense version, and what must hold whatever the data."""

import numpy as np
import pytest

from models import transclip as module
from models.transclip import nearest_others, starting_means, transclip

SETTINGS = {"kl_weight": 0.7, "support_weight": 0.3, "nearest": 3, "n_confident": 4,
            "n_rounds": 4, "n_steps": 3}


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def mixture(n_classes=5, n_each=12, n_support=3, width=16, noise=0.25, seed=0):
    """Clusters on the sphere, a prior that is often wrong, and support for all classes but the
    last."""
    random = np.random.RandomState(seed)
    centres = unit(random.randn(n_classes, width))
    labels = random.permutation(np.repeat(np.arange(n_classes), n_each))
    features = unit(centres[labels] + noise * random.randn(len(labels), width))
    logits = random.randn(len(labels), n_classes) + 1.5 * np.eye(n_classes)[labels]
    log_prior = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    support_labels = np.repeat(np.arange(n_classes - 1), n_support)
    support = unit(centres[support_labels] + noise * random.randn(len(support_labels), width))
    return features, log_prior.astype(np.float32), support, support_labels, labels


def plain(features, log_prior, support, support_labels, kl_weight, support_weight, nearest,
          n_confident, n_rounds, n_steps, temperature=50.0):
    """The updates as the module's docstring has them, dense and in float64; returns z."""
    N, C = log_prior.shape
    everything = np.concatenate([features, support]).astype(np.float64)
    known = np.eye(C)[support_labels]
    cosines = everything @ everything.T
    np.fill_diagonal(cosines, -np.inf)
    kept = np.zeros_like(cosines)
    for i in range(N):
        for j in np.argsort(-cosines[i], kind="stable")[:nearest]:
            kept[i, j] = max(cosines[i, j], 0)
    affinity = kept + kept.T
    means = starting_means(features, log_prior, support, support_labels, n_confident)
    variance = np.ones(features.shape[1]) / features.shape[1]
    of_support = temperature * support_weight * N / max(1, len(support))
    each = np.concatenate([np.ones(N), np.full(len(support), of_support)])
    z = np.concatenate([np.exp(log_prior.astype(np.float64)), known])

    def assign():
        apart = everything[:, None] - means  # (N + S, C, D)
        log_p = -(apart ** 2 / variance).sum(axis=2) / 2
        for _ in range(n_steps):
            logits = (kl_weight * log_prior + log_p[:N] / temperature
                      + (affinity @ z)[:N] / (2 * nearest))
            logits -= logits.max(axis=1, keepdims=True)
            z[:N] = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    for _ in range(n_rounds):
        assign()
        weights = z * each[:, None]
        means = weights.T @ everything
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        apart = everything[:, None] - means
        variance = (weights[:, :, None] * apart ** 2).sum(axis=(0, 1)) / each.sum()
    assign()
    return z[:N]


@pytest.mark.parametrize("few_shot", [True, False])
def test_as_the_plain_version(few_shot):
    features, log_prior, support, support_labels, _ = mixture()
    if not few_shot:
        support, support_labels = support[:0], support_labels[:0]
    log_z = transclip(features, log_prior, support, support_labels, **SETTINGS)
    expected = plain(features, log_prior, support, support_labels, **SETTINGS)
    assert np.abs(np.exp(log_z) - expected).max() < 1e-4


def test_without_support_none_serves():
    features, log_prior, support, support_labels, _ = mixture()
    empty = transclip(features, log_prior, support[:0], support_labels[:0], **SETTINGS)
    assert np.array_equal(transclip(features, log_prior, **SETTINGS), empty)


def test_blocks_change_nothing(monkeypatch):
    inputs = mixture()[:4]
    whole = transclip(*inputs, **SETTINGS)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 700)
    assert np.abs(np.exp(transclip(*inputs, **SETTINGS)) - np.exp(whole)).max() < 1e-5


def test_the_order_of_images_is_irrelevant():
    features, log_prior, support, support_labels, _ = mixture()
    order = np.random.RandomState(1).permutation(len(features))
    straight, mixed = (transclip(features[rows], log_prior[rows], support, support_labels,
                                 **SETTINGS) for rows in (np.arange(len(features)), order))
    assert np.abs(np.exp(mixed) - np.exp(straight[order])).max() < 1e-4


def test_rows_are_probabilities():
    assert np.allclose(np.exp(transclip(*mixture()[:4])).sum(axis=1), 1, atol=1e-5)


def test_structure_mends_a_poor_prior():
    features, log_prior, support, support_labels, labels = mixture(
        n_each=40, width=256, noise=0.06)
    before = (log_prior.argmax(axis=1) == labels).mean()
    for known in ((support, support_labels), (None, None)):
        after = (transclip(features, log_prior, *known).argmax(axis=1) == labels).mean()
        assert before < 0.8 < 0.95 < after


@pytest.mark.parametrize("n_images", [1, 2])
def test_fewer_images_than_neighbours(n_images):
    features, log_prior, support, support_labels, _ = mixture()
    for known in ((support[:1], support_labels[:1]), (None, None)):
        log_z = transclip(features[:n_images], log_prior[:n_images], *known, **SETTINGS)
        assert log_z.shape == (n_images, 5) and np.isfinite(log_z).all()


def test_a_class_that_no_image_is_of_keeps_its_mean():
    features, log_prior, support, support_labels, labels = mixture()
    log_prior[:, -1] = -200
    log_z = transclip(features, log_prior, support, support_labels, **SETTINGS)
    assert np.isfinite(log_z).all() and not (log_z.argmax(axis=1) == 4).any()


def test_nearest_others():
    features = unit(np.array([[1, 0], [1, 0.1], [-1, 0.2], [0, 1]]))
    indices, cosines = nearest_others(features, unit(np.array([[1, 0.02], [-1, 0]])), 2)
    assert indices.tolist() == [[4, 1], [4, 0], [5, 3], [2, 1]]
    assert (cosines >= 0).all()
    assert np.allclose(cosines[0], [features[0] @ unit(np.array([[1, 0.02]]))[0],
                                    features[0] @ features[1]], atol=1e-6)
