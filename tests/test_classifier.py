"""What the models look at, and what is said of it."""

from types import SimpleNamespace

import jittor as jt
import numpy as np
import pytest

from models.features import mta_features
from pipeline import classifier, look
from pipeline.classifier import ImageFeatures, ThriftyLook, log_probabilities, predict
from pipeline.trained import Decision, Heads, Texts

SURE = np.log(99)  # log-odds


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def world(n=11, new=(1, 4, 6), n_base=4, seed=0):
    """(trained, features), random ones; scores of all odds, some of which exclude a side."""
    random, D, C = np.random.RandomState(seed), 16, n_base + len(new)
    base = np.setdiff1d(np.arange(C), new)
    trained = SimpleNamespace(
        base=base, new=np.array(new, int), logit_scale=20.0,
        texts=Texts(jt.array(unit(random.randn(C, D))), jt.array(unit(random.randn(n_base, D)))),
        heads=Heads(SimpleNamespace(logits=lambda features: jt.array(9 * features[:, :n_base]))),
        decision=Decision(threshold=-1.0, temperature=2.0, zero_shot_temperature=1.5))
    modes, tuned_modes, all_modes = (unit(random.randn(n, D)) for _ in range(3))
    scores = np.linspace(-12, 12, n).astype(np.float32)
    if not len(new):
        scores = np.full(n, np.inf, np.float32)
    return trained, ImageFeatures(modes, tuned_modes, all_modes, scores)


def softmax(logits):
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_a_class_has_its_sides_probability_times_its_own_among_the_side():
    trained, features = world()
    odds = (features.scores + 1.0) / 1.5
    zero_shot = {name: softmax(20 * features @ trained.texts.zero_shot.numpy().T[:, side] / 1.5)
                 for name, features, side in (("new", features.all_modes, trained.new),
                                              ("new by few", features.modes, trained.new),
                                              ("base", features.all_modes, trained.base))}
    head = softmax(9 * features.tuned_modes[:, :4] / 2.0)
    of_base = np.where((odds > -SURE)[:, None], head, zero_shot["base"])
    of_new = np.where((odds < SURE)[:, None], zero_shot["new"], zero_shot["new by few"])
    assert 0 < (odds <= -SURE).sum() < 4 and 0 < (odds >= SURE).sum() < 4
    p_base = 1 / (1 + np.exp(-odds[:, None]))
    p = np.exp(log_probabilities(trained, features)[0])
    np.testing.assert_allclose(p[:, trained.base], p_base * of_base, atol=1e-6)
    np.testing.assert_allclose(p[:, trained.new], (1 - p_base) * of_new, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_the_likeliest_classes_of_both_sides_are_in_one_order():
    trained, features = world()
    predictions, p = predict(trained, features), np.exp(log_probabilities(trained, features)[0])
    assert predictions.labels.shape == (11, 5)
    np.testing.assert_allclose(predictions.probabilities, -np.sort(-p, axis=1)[:, :5], rtol=1e-5)
    assert (predictions.labels[:, 0] == p.argmax(axis=1)).all()
    plain = np.exp(log_probabilities(trained, features)[1])
    np.testing.assert_allclose(
        predictions.plain, np.take_along_axis(plain, predictions.labels, axis=1), rtol=1e-5)


def test_without_new_classes_all_is_base():
    trained, features = world(new=(), n_base=6)
    p = np.exp(log_probabilities(trained, features)[0])
    np.testing.assert_allclose(p, softmax(9 * features.tuned_modes[:, :6] / 2.0), atol=1e-6)


def test_blocks_change_no_answer(monkeypatch):
    trained, features = world()
    whole = predict(trained, features)
    monkeypatch.setattr(classifier, "_BLOCK", 4)
    for ours, expected in zip(predict(trained, features), whole):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.fixture
def looked(monkeypatch):
    """looked(complete) -> (trained, views, what is found, how many views each CLIP saw)."""
    random, C, D, V = np.random.RandomState(0), 7, 16, 6
    base, new = np.array([0, 2, 3]), np.array([1, 4, 5, 6])
    texts = unit(random.randn(C, D))
    views = unit((texts[random.randint(C, size=60)][:, None] + 0.3 * random.randn(60, V, D))
                 .reshape(-1, D)).reshape(60, V, D)
    trained = SimpleNamespace(
        original=SimpleNamespace(name="original", scale=lambda: 10.0),
        tuned=SimpleNamespace(name="tuned"), logit_scale=10.0, base=base, new=new,
        texts=Texts(jt.array(texts), jt.array(texts[base])),
        heads=Heads(SimpleNamespace(logits=lambda features: jt.array(9 * features[:, :3]))),
        decision=Decision(threshold=0.5, zero_shot_temperature=1.2))
    config = SimpleNamespace(
        mta=SimpleNamespace(views=6, zero_shot_views=2, lambda_y=0.2, lambda_q=4.0, nearest=0.3),
        ood=SimpleNamespace(score="mass", negative_share=0.5))

    def looked_at(complete):
        n_encoded = {"original": 0, "tuned": 0}

        def encode(model, pixels):  # the views' features are handed over in the place of pixels
            n_encoded[model.name] += pixels.shape[0] * pixels.shape[1]
            return jt.array(pixels)

        monkeypatch.setattr(look, "encode_views", encode)
        found = ThriftyLook(trained, config, complete)(views)
        return trained, views, found, n_encoded

    def modes(of, text):
        return mta_features(jt.array(of), text, trained.logit_scale, config.mta)

    looked_at.modes = modes
    return looked_at


def test_a_side_that_is_excluded_is_not_looked_at_closer(looked):
    trained, views, features, n_encoded = looked(complete=False)
    odds = (features["scores"] - 0.5) / 1.2
    may_be_base, may_be_new = odds > -SURE, odds < SURE
    assert 0 < may_be_base.sum() < 60 and 0 < may_be_new.sum() < 60
    assert (may_be_base & may_be_new).any()
    few, many = (looked.modes(of, trained.texts.zero_shot) for of in (views[:, :2], views))
    np.testing.assert_allclose(features["modes"], few, atol=1e-6)
    np.testing.assert_allclose(features["all_modes"][~may_be_new], few[~may_be_new], atol=1e-6)
    np.testing.assert_allclose(features["all_modes"][may_be_new], many[may_be_new], atol=1e-6)
    assert (many[may_be_new] != few[may_be_new]).any()
    np.testing.assert_allclose(features["tuned_modes"][may_be_base],
                               looked.modes(views, trained.texts.tuned)[may_be_base], atol=1e-6)
    assert n_encoded == {"original": 60 * 2 + may_be_new.sum() * 4,
                         "tuned": may_be_base.sum() * 6}


def test_labels_are_the_same_where_everything_is_seen(looked):
    """With fewer than five base classes an image's new ones are listed too, and the other way."""
    trained, views, features, _ = looked(complete=False)
    _, _, more, n_encoded = looked(complete=True)
    np.testing.assert_allclose(more["all_modes"], looked.modes(views, trained.texts.zero_shot),
                               atol=1e-6)
    assert n_encoded == {"original": 60 * 6, "tuned": 60 * 6}
    predictions, others = (predict(trained, ImageFeatures(**found)) for found in (features, more))
    for ours, expected in zip(predictions, others):
        np.testing.assert_array_equal(ours, expected)
