"""What predictions are worth: accuracies, separation by scores, and trust in probabilities."""

import numpy as np

from models.calibration import by_logit, recall_threshold

ABLATION_COLUMNS = ("base", "new", "base of all", "new of all", "H")


def summary(base, rankings, scores, labels):
    """What the predictions are worth, as shares.

    Args:
        base: int array, labels of the base classes.
        rankings: int array (N, K), labels by likelihood.
        scores: array (N,), higher for base.
        labels: int array (N,), -1 where unknown; such images do not count.

    Returns:
        {name: float}: top-1 and top-K of 'all', 'base' and 'new' images ('all_top' for top-K),
        'harmonic_mean' of base and new, and of the base/new decision 'auroc', 'fpr95' and
        'decided_right'; without what these images do not tell.
    """
    sides = sides_of(base, labels)
    shares = {}
    for name, rows in sides.items():
        if rows.any():
            shares[name] = accuracy(rankings[rows], labels[rows])
            shares[f"{name}_top"] = accuracy(rankings[rows], labels[rows], rankings.shape[1])
    if "base" in shares and "new" in shares:
        known, is_base = sides["all"], sides["base"]
        shares["harmonic_mean"] = harmonic_mean(shares["base"], shares["new"])
        shares["auroc"] = auroc(scores[known], is_base[known])
        shares["fpr95"] = fpr_at_recall(scores[known], is_base[known])
        shares["decided_right"] = float((np.isin(rankings[:, 0], base) == is_base)[known].mean())
    return shares


def sides_of(base, labels):
    """{'all', 'base', 'new': bool array (N,)}, which images with a known label are of a side."""
    known, is_base = labels >= 0, np.isin(labels, base)
    return {"all": known, "base": is_base, "new": known & ~is_base}


def by_domain(classes, labels):
    """{domain: bool array (N,)} of the domains that images with a known label are of.

    Args:
        classes: list (C) of (domain, name).
        labels: int array (N,), -1 where unknown.
    """
    domains = np.array([domain for domain, _ in classes])
    rows = {domain: (labels >= 0) & (domains[labels] == domain)
            for domain in dict.fromkeys(domains)}
    return {domain: each for domain, each in rows.items() if each.any()}


def ablation_table(rows, base, new, labels):
    """Top-1 as the parts are added, one after the other.

    Args:
        rows: list of (name, base logits (N, C_base), new logits (N, C_new), rankings): int
            array (N, K) of labels by likelihood, or None where nothing but the logits decides
            between base and new.
        base, new: int arrays, labels of either side.
        labels: int array (N,), -1 where unknown.

    Returns:
        list of (name, {column of `ABLATION_COLUMNS`: share}): 'base' and 'new' are among the
        classes of the image's own side; 'base of all', 'new of all' and 'H', their harmonic mean,
        are among all classes.
    """
    is_base, is_new = np.isin(labels, base), np.isin(labels, new)
    table = []
    for name, base_logits, new_logits, rankings in rows:
        among_own = [accuracy(side[by_logit(logits)[rows_of]], labels[rows_of])
                     for side, logits, rows_of in ((base, base_logits, is_base),
                                                   (new, new_logits, is_new))]
        if rankings is None:
            rankings = np.concatenate([base, new])[
                by_logit(np.concatenate([base_logits, new_logits], axis=1))]
        of_all = [accuracy(rankings[side], labels[side]) for side in (is_base, is_new)]
        table.append((name, dict(zip(ABLATION_COLUMNS,
                                     [*among_own, *of_all, harmonic_mean(*of_all)]))))
    return table


def accuracy(rankings, labels, k=1):
    """Share of images whose label is among the first k.

    Args:
        rankings: int array (N, K), classes by likelihood.
        labels: int array (N,).

    Returns:
        float in [0, 1]; NaN for no images.
    """
    if len(labels) == 0:
        return float("nan")
    return float((np.asarray(rankings)[:, :k] == np.asarray(labels)[:, None]).any(axis=1).mean())


def harmonic_mean(a, b):
    """2ab / (a + b), 0 where both are 0, of numbers or of arrays."""
    return 2 * a * b / np.maximum(a + b, 1e-12)


def auroc(scores, positive):
    """Area under the ROC curve: the chance that a positive scores above a negative.

    Args:
        scores: float array (N,), higher for positives.
        positive: bool array (N,).

    Returns:
        float in [0, 1], ties counting half; NaN without positives or negatives.
    """
    positives, negatives = np.sort(scores[positive]), np.sort(scores[~positive])
    if not len(positives) or not len(negatives):
        return float("nan")
    below = np.searchsorted(negatives, positives, side="left")
    not_above = np.searchsorted(negatives, positives, side="right")
    return float((below + not_above).mean() / 2 / len(negatives))


def fpr_at_recall(scores, positive, recall=0.95):
    """Share of negatives at or above the score that a share `recall` of the positives reaches."""
    if positive.all() or not positive.any():
        return float("nan")
    return float((scores[~positive] >= recall_threshold(scores[positive], recall)).mean())


def expected_calibration_error(confidences, right, n_bins=15):
    """How far confidence is from accuracy (Guo et al. 2017, arXiv 1706.04599, equation 3).

    Args:
        confidences: float array (N,), probability of the first label, in [0, 1].
        right: bool array (N,), whether that label is the image's.
        n_bins: bins of equal width; a confidence at a border is of the lower bin.

    Returns:
        float in [0, 1]: the mean over bins, by their share of the images, of the gap between
        mean confidence and share of right labels; NaN for no images.
    """
    if len(confidences) == 0:
        return float("nan")
    counts, claimed, accuracies = reliability(confidences, right, n_bins)
    return float(np.nansum(counts * np.abs(claimed - accuracies)) / len(confidences))


def roc(scores, positive):
    """The ROC curve, a point for each threshold that makes a difference.

    Args:
        scores: float array (N,), higher for positives.
        positive: bool array (N,), with both kinds.

    Returns:
        (false_positive_rate, true_positive_rate): arrays, from (0, 0) to (1, 1).
    """
    thresholds = np.append(np.inf, np.unique(scores)[::-1])
    return tuple(_n_reaching(scores[side], thresholds) / side.sum()
                 for side in (~positive, positive))


def threshold_curve(scores, is_base, base_right, new_right):
    """What the base/new decision's threshold does to the accuracies among all classes.

    Args:
        scores: float array (N,), higher for base; an image is taken for base from the
            threshold on.
        is_base: bool array (N,), the truth, with both kinds.
        base_right: bool array (N,), whether the likeliest base class is the image's.
        new_right: the same of the new classes.

    Returns:
        (thresholds, base, new, harmonic): arrays (T,), by ascending threshold; the last one
        takes every image for new.
    """
    thresholds = np.append(np.unique(scores), np.inf)
    base = _n_reaching(scores[is_base & base_right], thresholds) / is_base.sum()
    right = ~is_base & new_right
    new = (right.sum() - _n_reaching(scores[right], thresholds)) / (~is_base).sum()
    return thresholds, base, new, harmonic_mean(base, new)


def _n_reaching(scores, thresholds):
    """How many of the scores are at least each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def reliability(confidences, right, n_bins=10):
    """Whether predictions are right as often as they claim to be, bin by bin.

    Args:
        confidences, right, n_bins: as `expected_calibration_error` takes them.

    Returns:
        (counts, confidences, accuracies): int array (n_bins,), and the means of the bins, float
        arrays (n_bins,), NaN where a bin is empty.
    """
    bins = np.clip(np.ceil(confidences * n_bins).astype(int) - 1, 0, n_bins - 1)
    counts, confidences, accuracies = (np.bincount(bins, weights, minlength=n_bins)
                                       for weights in (None, confidences, right))
    with np.errstate(invalid="ignore"):
        return counts, confidences / counts, accuracies / counts
