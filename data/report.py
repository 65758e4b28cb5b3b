"""Prints how right the predictions are, where labels are known."""

import numpy as np

from data.metrics import (
    accuracy,
    auroc,
    expected_calibration_error,
    fpr_at_recall,
    harmonic_mean,
)


def print_report(classes, base, rankings, scores, taken_for_base, labels):
    """Accuracies by side and domain, and how well the scores tell base from new.

    Args:
        classes: list (C) of `ClassName`.
        base: int array, labels of the base classes.
        rankings: int array (N, K), labels by likelihood.
        scores: array (N,), higher for base. taken_for_base: bool array (N,), the decision.
        labels: int array (N,), -1 where unknown; such images do not count.
    """
    known = labels >= 0
    is_base = np.isin(labels, base)
    sides = {"all": known, "base": is_base, "new": known & ~is_base}
    n_shown = rankings.shape[1]
    for name, rows in sides.items():
        if rows.any():
            print(f"{name:<5} {rows.sum():6d} images   "
                  f"top-1 {percent(accuracy(rankings[rows], labels[rows]))}   "
                  f"top-{n_shown} {percent(accuracy(rankings[rows], labels[rows], n_shown))}")
    if sides["base"].any() and sides["new"].any():
        each = [accuracy(rankings[sides[side]], labels[sides[side]]) for side in ("base", "new")]
        print(f"harmonic mean of base and new {percent(harmonic_mean(*each))}")
        print(f"base/new: AUROC {auroc(scores[known], is_base[known]):.4f}   "
              f"FPR95 {percent(fpr_at_recall(scores[known], is_base[known]))}   "
              f"decided right {percent((taken_for_base == is_base)[known].mean())}")
    domains = np.array([c.domain for c in classes])
    for domain in dict.fromkeys(domains):
        rows = known & (domains[labels] == domain)
        if rows.any():
            print(f"  {domain or 'no domain':<16} {rows.sum():6d} images   "
                  f"top-1 {percent(accuracy(rankings[rows], labels[rows]))}")


def print_calibration(answers, labels, temperature):
    """How far the first label's probability is from its being right, without and with temperature.

    Args:
        answers: `models.classifier.Answers`.
        labels: int array (N,), -1 where unknown; such images do not count.
        temperature: of base images.
    """
    known = labels >= 0
    right = (answers.labels[:, 0] == labels)[known]
    before, after = (expected_calibration_error(each[known, 0], right)
                     for each in (answers.plain, answers.probabilities))
    print(f"calibration error (15 bins) {percent(before)} before, {percent(after)} after "
          f"temperature {temperature:.2f}")


def print_ablation(rows, final_rankings, base, new, labels):
    """Top-1 as the parts are added, one after the other.

    'base' and 'new' are among the classes of the image's own side. 'base of all', 'new of
    all' and H, their harmonic mean, are among all classes; only the last row, the base/new
    decision, is made for them.

    Args:
        rows: list of (name, base logits (N, C_base), new logits (N, C_new)).
        final_rankings: int array (N, K) of the whole pipeline, for the last row; its images
            are as well placed among their own side's classes as in the row before.
        base, new: int arrays, labels of either side.
        labels: int array (N,), -1 where unknown.
    """
    is_base, is_new = np.isin(labels, base), np.isin(labels, new)
    print(f"\n{'part':<24}{'base':>8}{'new':>8}{'base of all':>13}{'new of all':>12}{'H':>8}")

    def print_row(name, among_own, rankings):
        of_all = [accuracy(rankings[side], labels[side]) for side in (is_base, is_new)]
        values = [*among_own, *of_all, harmonic_mean(*of_all)]
        print(f"{name:<24}" + "".join(f"{percent(value):>{width}}" for value, width in zip(
            values, (8, 8, 13, 12, 8))))

    for name, base_logits, new_logits in rows:
        among_own = [accuracy(side[by_logit(logits)[rows_of]], labels[rows_of])
                     for side, logits, rows_of in ((base, base_logits, is_base),
                                                   (new, new_logits, is_new))]
        together = np.concatenate([base, new])[
            by_logit(np.concatenate([base_logits, new_logits], axis=1))]
        print_row(name, among_own, together)
    print_row("+ OOD", among_own, final_rankings)


def by_logit(logits):
    """Columns of logits (N, C) from the largest to the smallest; equal ones by number."""
    return np.argsort(-logits, axis=1, kind="stable")


def percent(share):
    """A share in percent, as text."""
    return f"{100 * share:.2f}"
