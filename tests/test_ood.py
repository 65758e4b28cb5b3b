"""Base/new scores: higher for base, at the border, and against plain NumPy versions."""

import jittor as jt
import numpy as np
import pytest

from models.ood import SCORES, base_score
from system.errors import UserError

SCALE = 20.0


@pytest.fixture
def world(unit_rows):
    """Six names, the first four base; images near each; further names near either side."""
    names = unit_rows(6, 16, seed=1)
    images = names + 0.3 * unit_rows(6, 16, seed=2)
    further = np.concatenate([names[[0, 5]], unit_rows(3, 16, seed=4)]) + 0.2 * unit_rows(
        5, 16, seed=3)
    return [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, names, further)]


def score(images, names, n_base, further=None, **settings):
    return base_score(jt.array(images), jt.array(names[:n_base]), jt.array(names[n_base:]),
                      SCALE, None if further is None else jt.array(further), **settings)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("enlarged", [False, True])
def test_higher_for_base_on_either_side_of_the_border(world, kind, enlarged):
    images, names, further = world
    for n_base in (3, 4, 5):
        scores = score(images, names, n_base, further if enlarged else None, score=kind)
        assert scores.shape == (6,)
        assert scores[n_base - 1] > scores[n_base], n_base


def test_winner_and_mass_agree_with_the_softmax(world):
    images, names, _ = world
    logits = SCALE * (images @ names.T).astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(score(images, names, 4, score="winner") > 0,
                                  p.argmax(axis=1) < 4)
    base_share = p[:, :4].sum(axis=1)
    np.testing.assert_allclose(score(images, names, 4, score="mass"),
                               np.log(base_share / (1 - base_share)), atol=1e-3)


def test_each_further_name_counts_for_its_nearest_side(world):
    images, names, further = world
    nearest = (further @ names.T).argmax(axis=1)
    assert nearest[0] < 4 <= nearest[1]
    sums = np.exp(SCALE * images @ np.concatenate([names, further]).T)
    base = np.r_[np.arange(6) < 4, nearest < 4]
    np.testing.assert_allclose(
        score(images, names, 4, further, score="mass"),
        np.log(sums[:, base].sum(axis=1) / sums[:, ~base].sum(axis=1)), atol=1e-3)


def test_neglabel_uses_the_names_farthest_from_base(world):
    images, names, further = world
    kept = np.argsort((further @ names[:4].T).max(axis=1))[:2]
    base = np.exp(SCALE * images @ names[:4].T).sum(axis=1)
    other = np.exp(SCALE * images @ np.concatenate([names[4:], further[kept]]).T).sum(axis=1)
    np.testing.assert_allclose(
        score(images, names, 4, further, score="neglabel", negative_share=0.4),
        np.log(base / other), atol=1e-3)


def test_without_new_classes_everything_is_base(world):
    images, names, further = world
    for kind in SCORES:
        assert np.isposinf(score(images, names, 6, further, score=kind)).all()


def test_an_unknown_score_is_named(world):
    with pytest.raises(UserError, match="entropy"):
        score(world[0], world[1], 4, score="entropy")
