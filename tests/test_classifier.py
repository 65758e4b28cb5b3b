"""Answers by blocks of images."""

from types import SimpleNamespace

import jittor as jt
import numpy as np

from models import classifier
from models.classifier import Seen, answer


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
    seen = Seen(features, tuned, random.randn(11), random.rand(11) > 0.4)
    fusion = SimpleNamespace(tuned_text=1.0, zero_shot_text=0.5, head=1.0)
    whole = answer(trained, seen, fusion)
    assert whole.labels.shape == (11, 5)
    monkeypatch.setattr(classifier, "_BLOCK", 4)
    for ours, expected in zip(answer(trained, seen, fusion), whole):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
