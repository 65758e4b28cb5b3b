"""The prior and the features that TransCLIP gets."""

from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest

from models.classifier import Seen
from models.errors import UserError
from models.transduction import log_prior, require_mode, whitened

BASE, NEW = np.array([0, 2, 3, 5]), np.array([1, 4])


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(n=9, new=NEW, seed=0):
    """(trained, seen, config) with random features; scores around the threshold."""
    random, D = np.random.RandomState(seed), 12
    labels = np.concatenate([BASE, new])
    text = jt.array(unit(random.randn(6, D)))
    trained = SimpleNamespace(
        base=BASE, new=new, classes=[None] * len(labels), scale=20.0, zero_shot_text=text,
        tuned_text=jt.array(unit(random.randn(len(BASE), D))), aux_head=None, threshold=0.5,
        head=SimpleNamespace(logits=lambda features: jt.array(features[:, :len(BASE)])),
        temperature=2.0, zero_shot_temperature=1.5)
    seen = Seen(*(unit(random.randn(n, D)) for _ in range(3)),
                np.linspace(-3, 4, n).astype(np.float32), None)
    config = SimpleNamespace(
        fusion=SimpleNamespace(tuned_text=1.0, zero_shot_text=0.5, head=1.0),
        ood=SimpleNamespace(score="mass"))
    return trained, seen, config


def test_the_prior_is_of_either_side_as_the_score_tells():
    trained, seen, config = world()
    prior = np.exp(log_prior(trained, seen, config))
    np.testing.assert_allclose(prior.sum(axis=1), 1, atol=1e-5)
    of_base = 1 / (1 + np.exp(-(seen.scores - trained.threshold)))
    np.testing.assert_allclose(prior[:, BASE].sum(axis=1), of_base, atol=1e-5)


def test_a_probability_as_score_gives_its_odds():
    trained, seen, config = world()
    config.ood.score, trained.threshold = "mcm", 0.5
    seen = seen._replace(scores=np.linspace(0.1, 0.9, 9))
    prior = np.exp(log_prior(trained, seen, config))
    np.testing.assert_allclose(prior[:, BASE].sum(axis=1), seen.scores, atol=1e-5)


def test_without_new_classes_all_is_base():
    trained, seen, config = world(new=np.array([], int))
    trained.classes = [None] * 6
    trained.base = np.arange(6)
    trained.tuned_text = trained.zero_shot_text
    trained.head = SimpleNamespace(logits=lambda features: jt.array(features[:, :6]))
    seen, trained.threshold = seen._replace(scores=np.full(9, np.inf)), np.inf
    np.testing.assert_allclose(np.exp(log_prior(trained, seen, config)).sum(axis=1), 1, atol=1e-5)


def test_whitened_features_are_decorrelated():
    random = np.random.RandomState(0)
    mixing = random.randn(8, 8)
    features, support = unit(1 + random.randn(4000, 8) @ mixing), unit(1 + random.randn(5, 8))
    ours, others = whitened(features, support, ridge=1e-6)
    assert others.shape == support.shape
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    correlation = np.corrcoef(ours.T)
    before = np.abs(np.corrcoef(features.T) - np.eye(8)).max()
    # What is left comes from the unit norm.
    assert np.abs(correlation - np.eye(8)).max() < 0.2 < 0.5 < before


def test_one_image_alone_can_be_whitened():
    ours, others = whitened(unit(np.ones((1, 4))), unit(np.eye(4)))
    assert np.isfinite(ours).all() and np.isfinite(others).all()


def test_an_unknown_mode_is_named():
    with pytest.raises(UserError, match="'few'; .*few-shot"):
        require_mode(SimpleNamespace(mode="few"))
