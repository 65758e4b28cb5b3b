"""What the models look at, and answers by blocks of images."""

from types import SimpleNamespace

import jittor as jt
import numpy as np

from models import classifier
from models.classifier import Seen, answer, look, unseen
from models.features import mta_features


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_blocks_change_no_answer(monkeypatch):
    random, C, D = np.random.RandomState(0), 7, 16
    base = np.array([0, 2, 3, 5])
    texts = {name: jt.array(unit(random.randn(n, D))) for name, n in (
        ("zero_shot_text", C), ("tuned_text", len(base)))}
    head = SimpleNamespace(logits=lambda features: jt.array(features[:, :len(base)]))
    trained = SimpleNamespace(**texts, base=base, new=np.array([1, 4, 6]), scale=20.0, head=head,
                              aux_head=None, temperature=2.0, zero_shot_temperature=1.5)
    features, tuned = unit(random.randn(11, D)), unit(random.randn(11, D))
    seen = Seen(features, tuned, unit(random.randn(11, D)), random.randn(11),
                random.rand(11) > 0.4)
    fusion = SimpleNamespace(tuned_text=1.0, zero_shot_text=0.5, head=1.0)
    whole = answer(trained, seen, fusion)
    assert whole.labels.shape == (11, 5)
    monkeypatch.setattr(classifier, "_BLOCK", 4)
    for ours, expected in zip(answer(trained, seen, fusion), whole):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_few_views_tell_base_from_new_and_all_name_the_new(monkeypatch):
    random, C, D, V = np.random.RandomState(0), 7, 16, 6
    base, new = np.array([0, 2, 3, 5]), np.array([1, 4, 6])
    texts = unit(random.randn(C, D))
    views = unit((texts[random.randint(C, size=40)][:, None] + 0.3 * random.randn(40, V, D))
                 .reshape(-1, D)).reshape(40, V, D)
    trained = SimpleNamespace(
        original="original", tuned="tuned", scale=20.0, base=base, new=new, threshold=0.0,
        zero_shot_text=jt.array(texts), tuned_text=jt.array(texts[base]), enlarged_text=None,
        aux_encoder=None)
    settings = {"lambda_y": 0.2, "lambda_q": 4.0, "nearest": 0.3}
    config = SimpleNamespace(mta=SimpleNamespace(zero_shot_views=2, **settings),
                             ood=SimpleNamespace(score="mass", negative_share=0.5))
    n_encoded = {"original": 0, "tuned": 0}

    def encode(model, pixels):  # the views' features are handed over in the place of pixels
        n_encoded[model] += pixels.shape[0] * pixels.shape[1]
        return jt.array(pixels)

    monkeypatch.setattr(classifier, "encode_views", encode)
    seen = look(trained, config, unseen(trained, config, everything=False), views)

    def modes(of, text):
        return mta_features(jt.array(of), text, trained.scale, config.mta)

    is_base = seen["scores"] >= 0
    n_base = int(is_base.sum())
    assert 0 < n_base < 40
    few, many = (modes(of, trained.zero_shot_text) for of in (views[:, :2], views))
    np.testing.assert_allclose(seen["modes"], few, atol=1e-6)
    np.testing.assert_allclose(seen["all_modes"][is_base], few[is_base], atol=1e-6)
    np.testing.assert_allclose(seen["all_modes"][~is_base], many[~is_base], atol=1e-6)
    assert (seen["all_modes"][~is_base] != few[~is_base]).any()
    np.testing.assert_allclose(seen["tuned_modes"][is_base],
                               modes(views, trained.tuned_text)[is_base], atol=1e-6)
    assert n_encoded == {"original": 40 * 2 + (40 - n_base) * (V - 2), "tuned": n_base * V}
    # With labels or together, new classes' logits of all images are of one kind.
    seen = look(trained, config, unseen(trained, config, everything=True), views)
    np.testing.assert_allclose(seen["modes"], few, atol=1e-6)
    np.testing.assert_allclose(seen["all_modes"], many, atol=1e-6)
