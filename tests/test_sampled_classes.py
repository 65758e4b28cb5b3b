"""A step's classes: the batch's own, and others drawn to stand for all the rest."""

import numpy as np
import pytest

from models.sampled_classes import drawn_classes

TARGETS = np.array([3, 7, 3, 0])


def draw(n_wanted, n_classes=10, seed=0):
    return drawn_classes(TARGETS, n_classes, n_wanted, np.random.RandomState(seed))


def test_own_classes_count_once_and_drawn_ones_for_the_others():
    classes, counts = draw(5)
    assert len(classes) == 5 and set(TARGETS) <= set(classes)
    assert classes.tolist() == sorted(set(classes))
    assert counts.tolist() == [1.0 if c in TARGETS else 7 / 2 for c in classes]


@pytest.mark.parametrize("n_wanted", [10, 11, 128])
def test_where_all_are_wanted_nothing_is_drawn(n_wanted):
    random = np.random.RandomState(0)
    classes, counts = drawn_classes(TARGETS, 10, n_wanted, random)
    assert classes.tolist() == list(range(10)) and counts.tolist() == [1.0] * 10
    assert random.randint(1000) == np.random.RandomState(0).randint(1000)


def test_a_batch_of_more_classes_than_wanted_has_one_more_than_its_own():
    classes, counts = draw(2)
    assert len(classes) == 4 and counts.max() == 7 and counts.sum() == 10


def test_the_softmaxs_denominator_is_that_of_all_classes_in_the_mean():
    logits = np.random.RandomState(1).normal(0, 2, 10)
    sums = [(counts * np.exp(logits[classes])).sum()
            for classes, counts in (draw(6, seed=seed) for seed in range(4000))]
    assert np.mean(sums) == pytest.approx(np.exp(logits).sum(), rel=0.02)
    assert np.std(sums) > 0.1 * np.mean(sums)  # each of them is an estimate
