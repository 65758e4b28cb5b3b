"""Metrics against values computed by hand and plain counting."""

import math

import numpy as np
import pytest

from runs.metrics import (
    accuracy,
    auroc,
    expected_calibration_error,
    fpr_at_recall,
    harmonic_mean,
    reliability,
    roc,
    threshold_curve,
)


@pytest.mark.parametrize("k, expected", [(1, 0.25), (2, 0.5), (3, 0.75), (5, 0.75)])
def test_accuracy_is_the_share_among_the_first_k(k, expected):
    rankings = np.array([[3, 1, 2], [1, 3, 2], [1, 2, 3], [1, 2, 4]])
    assert accuracy(rankings, np.array([3, 3, 3, 3]), k) == expected


def test_accuracy_counts_the_first_by_default_and_takes_lists():
    assert accuracy([[0, 1], [0, 1], [1, 0]], [0, 1, 1]) == pytest.approx(2 / 3)


@pytest.mark.filterwarnings("error")
def test_accuracy_of_no_images_is_nan():
    assert math.isnan(accuracy(np.zeros((0, 5), int), np.zeros(0, int)))


@pytest.mark.parametrize("a, b, expected", [
    (0.5, 0.5, 0.5), (1.0, 0.5, 2 / 3), (0.6, 0.3, 0.4), (0.0, 0.9, 0.0), (0.0, 0.0, 0.0)])
def test_harmonic_mean(a, b, expected):
    assert harmonic_mean(a, b) == pytest.approx(expected)
    assert harmonic_mean(b, a) == pytest.approx(expected)


def test_harmonic_mean_with_nan_is_nan():
    """An accuracy of no images must not turn into a number."""
    assert math.isnan(harmonic_mean(float("nan"), 0.5))


@pytest.mark.parametrize("positives, negatives, expected", [
    ([3, 4], [1, 2], 1.0),
    ([1, 2], [3, 4], 0.0),
    ([1, 1], [1, 1, 1], 0.5),
    ([2, 3], [1, 2], 0.875),        # 3 pairs won, 1 drawn, of 4
    ([1, 4, 5], [2, 3], 4 / 6),
    ([0.5], [0.5, 0.2], 0.75),
])
def test_auroc_by_hand(positives, negatives, expected):
    scores = np.array(positives + negatives, float)
    positive = np.arange(len(scores)) < len(positives)
    assert auroc(scores, positive) == pytest.approx(expected)


@pytest.mark.parametrize("n_levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs_won(seed, n_levels):
    rng = np.random.RandomState(seed)
    positive = rng.rand(60) < 0.3
    scores = rng.randint(n_levels, size=60) + n_levels // 2 * positive
    won = [float(p > n) + 0.5 * float(p == n)
           for p in scores[positive] for n in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(won), abs=1e-12)
    assert auroc(-scores, positive) == pytest.approx(1 - np.mean(won), abs=1e-12)
    assert auroc(scores, ~positive) == pytest.approx(1 - np.mean(won), abs=1e-12)
    assert auroc(np.exp(scores / n_levels), positive) == auroc(scores, positive)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", [auroc, fpr_at_recall])
@pytest.mark.parametrize("positive", [[True, True], [False, False], []])
def test_one_kind_alone_is_nan(metric, positive):
    scores = np.arange(len(positive), dtype=float)
    assert math.isnan(metric(scores, np.array(positive, bool)))


def fpr(positives, negatives, **arguments):
    scores = np.array(list(positives) + list(negatives), float)
    return fpr_at_recall(scores, np.arange(len(scores)) < len(positives), **arguments)


def test_fpr_at_recall_by_hand():
    # Of 10 positives none may be missed for 95 %, of 31 one may.
    assert fpr(range(10, 20), [9, 10, 11, 30]) == 0.75
    assert fpr(range(31), [0, 0.5, 1, 50]) == 0.5
    assert fpr(range(31), [0, 0.5, 1, 50], recall=1.0) == 1.0
    assert fpr([5, 5, 5], [1, 4, 4.9]) == 0.0
    assert fpr([5, 5, 5], [5, 6]) == 1.0


@pytest.mark.parametrize("n, recall", [(100, 0.95), (20, 0.95), (50, 0.98), (4, 0.5)])
def test_fpr_at_recall_is_the_lowest_that_reaches_it(n, recall):
    positives = np.arange(n)
    negatives = positives - 0.5  # one below each positive
    reaching = [t for t in positives if (positives >= t).mean() >= recall]
    assert fpr(positives, negatives, recall=recall) == (negatives >= max(reaching)).mean()


def test_calibration_error_by_hand():
    # Two bins of ten: 0.85 is right twice in four (gap 0.35), 0.35 in one of one (gap 0.65).
    confidences = np.array([0.85, 0.85, 0.85, 0.85, 0.35])
    right = np.array([True, True, False, False, True])
    assert expected_calibration_error(confidences, right, 10) == pytest.approx(
        0.8 * 0.35 + 0.2 * 0.65)


def test_calibration_error_averages_within_a_bin_alone():
    # In one bin too low and too high confidence cancel, in two they do not.
    confidences, right = np.array([0.4, 0.6]), np.array([True, False])
    assert expected_calibration_error(confidences, right, 1) == pytest.approx(0.0)
    assert expected_calibration_error(confidences, right, 2) == pytest.approx(0.6)


@pytest.mark.parametrize("n_bins", [1, 7, 15])
def test_calibration_error_is_what_counting_bin_by_bin_gives(n_bins):
    rng = np.random.RandomState(3)
    confidences, right = np.append(rng.rand(200), [0.0, 1.0]), rng.rand(202) < 0.5
    expected = 0.0
    for b in range(n_bins):
        inside = (confidences > b / n_bins) & (confidences <= (b + 1) / n_bins)
        inside |= (confidences == 0) & (b == 0)
        if inside.any():
            expected += inside.mean() * abs(confidences[inside].mean() - right[inside].mean())
    assert expected_calibration_error(confidences, right, n_bins) == pytest.approx(expected)


def test_calibration_error_of_no_images_is_nan():
    assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


@pytest.mark.parametrize("seed", range(3))
def test_the_threshold_curve_is_what_a_plain_loop_counts(seed):
    rng = np.random.RandomState(seed)
    scores = rng.randint(8, size=40) / 2.0
    is_base, base_right, new_right = rng.rand(3, 40) < 0.6
    thresholds, base, new, harmonic = threshold_curve(scores, is_base, base_right, new_right)
    assert thresholds[0] == scores.min() and thresholds[-1] == np.inf
    for i, threshold in enumerate(thresholds):
        right = {True: [], False: []}
        for n in range(40):
            decided_base = scores[n] >= threshold
            right[is_base[n]].append(decided_base == is_base[n]
                                     and (base_right if decided_base else new_right)[n])
        assert base[i] == pytest.approx(np.mean(right[True]))
        assert new[i] == pytest.approx(np.mean(right[False]))
        assert harmonic[i] == pytest.approx(harmonic_mean(base[i], new[i]))


def test_the_area_below_the_roc_curve_is_the_auroc():
    rng = np.random.RandomState(0)
    positive = rng.rand(60) < 0.4
    scores = rng.randint(9, size=60) + 3 * positive
    false_positive, true_positive = roc(scores, positive)
    assert (false_positive[0], true_positive[0]) == (0, 0)
    assert (false_positive[-1], true_positive[-1]) == (1, 1)
    trapezoid = getattr(np, "trapezoid", None) or np.trapz  # its name before NumPy 2
    assert trapezoid(true_positive, false_positive) == pytest.approx(auroc(scores, positive))


def test_reliability_by_hand():
    counts, confidences, accuracies = reliability(
        np.array([0.1, 0.3, 0.9, 0.7, 1.0]), np.array([False, True, True, True, False]), n_bins=2)
    np.testing.assert_array_equal(counts, [2, 3])
    np.testing.assert_allclose(confidences, [0.2, 2.6 / 3])
    np.testing.assert_allclose(accuracies, [0.5, 2 / 3])


@pytest.mark.filterwarnings("error")
def test_reliability_of_an_empty_bin_is_nan():
    counts, confidences, accuracies = reliability(np.array([0.95]), np.array([True]))
    assert counts[0] == 0 and math.isnan(confidences[0]) and math.isnan(accuracies[0])
    assert counts[9] == accuracies[9] == 1
