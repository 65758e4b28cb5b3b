"""What a test says where labels are known: accuracies, calibration, and what each part adds."""

import numpy as np

from pipeline.trained import base_logits, base_logits_of, text_logits
from runs.metrics import (
    ABLATION_COLUMNS,
    ablation_table,
    accuracy,
    by_domain,
    expected_calibration_error,
    harmonic_mean,
    sides_of,
    summary,
)
from runs.texts import format_table, percent


def evaluate(trained, features, judged, labels, show_parts):
    """Print the accuracies, and part by part if `show_parts`.

    Args:
        trained: `Trained`. features: `ImageFeatures`, complete.
        judged: `pipeline.transduction.Judged`.
        labels: int array (N,), -1 where unknown.

    Returns:
        `runs.metrics.ablation_table`'s.
    """
    rankings = judged.predictions.labels
    print_accuracies(trained.classes, trained.base, rankings, features.scores, labels)
    print_calibration(judged.predictions, labels, judged.temperature)
    rows = ablation_rows(trained, features, judged.one_by_one.labels)
    if judged.log_z is not None:
        rows.append(("+ all images together", judged.log_z[:, trained.base],
                     judged.log_z[:, trained.new], rankings))
    table = ablation_table(rows, trained.base, trained.new, labels)
    last = table[-1][1]  # as the papers' base-to-new setting measures it
    if not np.isnan([last["base"], last["new"]]).any():
        print(f"each side among its own classes: base {percent(last['base'])}   "
              f"new {percent(last['new'])}   "
              f"harmonic mean {percent(harmonic_mean(last['base'], last['new']))}")
    if show_parts:
        print("\n" + format_table([["part", *ABLATION_COLUMNS], *(
            [name, *map(percent, shares.values())] for name, shares in table)]))
    return table


def print_accuracies(classes, base, rankings, scores, labels):
    """Print `summary`, and top-1 by domain; the arguments are its, and the list of classes."""
    shares = summary(base, rankings, scores, labels)
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


def ablation_rows(trained, features, rankings):
    """What `ablation_table` takes, as the parts are added; all from the same features.

    Args:
        trained: `Trained`. features: `ImageFeatures`, complete.
        rankings: int array (N, K), labels as the base/new decision has them.
    """
    zero_shot, zero_shot_mta = (text_logits(trained, features, trained.texts.zero_shot)
                                for features in (features.whole, features.all_modes))
    base, new = zero_shot[:, trained.base], zero_shot[:, trained.new]

    def of_whole(head):
        return base_logits(trained, features.whole, features.tuned_whole, head)

    with_mta = base_logits(trained, features.modes, features.tuned_modes, trained.heads.head)
    last = base_logits_of(trained, features), zero_shot_mta[:, trained.new]
    rows = [("zero-shot", base, new, None)]
    if trained.texts.prompt is not None:
        rows += [(name, text_logits(trained, features.whole, text), new, None) for name, text in (
            ("+ learned prompt, half", trained.texts.prompt),
            ("+ queue average", trained.texts.queue))]
    rows.append(("+ LoRA", of_whole(None), new, None))
    if trained.heads.head is not None:
        rows.append(("+ head", of_whole(trained.heads.plain_head), new, None))
        if trained.heads.head.reweights():
            rows.append(("+ channel re-weighting", of_whole(trained.heads.head), new, None))
    rows.append(("+ MTA", with_mta, zero_shot_mta[:, trained.new], None))
    if trained.heads.aux_head is not None:
        rows.append(("+ auxiliary", *last, None))
    return [*rows, ("+ OOD", *last, rankings)]
