"""Prints how right the predictions are, where labels are known."""

import numpy as np

from models.calibration import by_logit
from runs.metrics import (
    accuracy,
    auroc,
    expected_calibration_error,
    fpr_at_recall,
    harmonic_mean,
)

ABLATION_COLUMNS = ("base", "new", "base of all", "new of all", "H")


def summary(base, rankings, scores, taken_for_base, labels):
    """What the predictions are worth, as shares.

    Args:
        base: int array, labels of the base classes.
        rankings: int array (N, K), labels by likelihood.
        scores: array (N,), higher for base. taken_for_base: bool array (N,), the decision.
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
        shares["decided_right"] = float((taken_for_base == is_base)[known].mean())
    return shares


def sides_of(base, labels):
    """{'all', 'base', 'new': bool array (N,)}, which images with a known label are of a side."""
    known, is_base = labels >= 0, np.isin(labels, base)
    return {"all": known, "base": is_base, "new": known & ~is_base}


def by_domain(classes, labels):
    """{domain: bool array (N,)} of the domains that images with a known label are of."""
    domains = np.array([domain for domain, _ in classes])
    rows = {domain: (labels >= 0) & (domains[labels] == domain)
            for domain in dict.fromkeys(domains)}
    return {domain: each for domain, each in rows.items() if each.any()}


def print_report(classes, base, rankings, scores, taken_for_base, labels):
    """Print `summary`, and top-1 by domain; the arguments are its, and the list of classes."""
    shares = summary(base, rankings, scores, taken_for_base, labels)
    for name, rows in sides_of(base, labels).items():
        if rows.any():
            print(f"{name:<5} {rows.sum():6d} images   top-1 {percent(shares[name])}   "
                  f"top-{rankings.shape[1]} {percent(shares[f'{name}_top'])}")
    if "harmonic_mean" in shares:
        print(f"harmonic mean of base and new {percent(shares['harmonic_mean'])}")
        print(f"base/new: AUROC {shares['auroc']:.4f}   FPR95 {percent(shares['fpr95'])}   "
              f"decided right {percent(shares['decided_right'])}")
    for domain, rows in by_domain(classes, labels).items():
        print(f"  {domain or 'no domain':<16} {rows.sum():6d} images   "
              f"top-1 {percent(accuracy(rankings[rows], labels[rows]))}")


def print_calibration(predictions, labels, temperature):
    """How far the first label's probability is from its being right, without and with temperature.

    Args:
        predictions: `pipeline.classifier.Predictions`.
        labels: int array (N,), -1 where unknown; such images do not count.
        temperature: of base images.
    """
    known = labels >= 0
    right = (predictions.labels[:, 0] == labels)[known]
    before, after = (expected_calibration_error(each[known, 0], right)
                     for each in (predictions.plain, predictions.probabilities))
    print(f"calibration error (15 bins) {percent(before)} before, {percent(after)} after "
          f"temperature {temperature:.2f}")


def ablation_table(rows, base, new, labels):
    """Top-1 as the parts are added, one after the other.

    Args:
        rows: list of (name, base logits (N, C_base), new logits (N, C_new), rankings): int
            array (N, K) of labels by likelihood, or None where nothing but the logits decides
            between base and new.
        base, new: int arrays, labels of either side.
        labels: int array (N,), -1 where unknown.

    Returns:
        list of (name, shares): 'base' and 'new' are among the classes of the image's own side;
        'base of all', 'new of all' and 'H', their harmonic mean, are among all classes.
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


def print_own_sides(table):
    """Print the last row of `ablation_table` as the papers' base-to-new setting measures."""
    base, new = (table[-1][1][side] for side in ("base", "new"))
    if not np.isnan([base, new]).any():
        print(f"each side among its own classes: base {percent(base)}   new {percent(new)}   "
              f"harmonic mean {percent(harmonic_mean(base, new))}")


def print_ablation(table):
    """Print `ablation_table`'s result."""
    widths = (8, 8, 13, 12, 8)
    print(f"\n{'part':<24}"
          + "".join(f"{name:>{width}}" for name, width in zip(ABLATION_COLUMNS, widths)))
    for name, shares in table:
        print(f"{name:<24}" + "".join(f"{percent(share):>{width}}"
                                      for share, width in zip(shares.values(), widths)))


def percent(share):
    """A share in percent, as text; a dash where there is none."""
    return "–" if np.isnan(share) else f"{100 * share:.2f}"
