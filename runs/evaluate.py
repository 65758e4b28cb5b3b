"""What a test says where labels are known: accuracies, calibration, and what each part adds."""

import numpy as np

from pipeline.trained import base_logits, base_logits_of, text_logits
from runs.report import (
    ablation_table,
    print_ablation,
    print_calibration,
    print_own_sides,
    print_report,
)


def evaluate(trained, features, judged, labels, show_parts):
    """Print the accuracies, and part by part if `show_parts`.

    Args:
        trained: `Trained`. features: `ImageFeatures`, complete.
        judged: `pipeline.transduction.Judged`.
        labels: int array (N,), -1 where unknown.

    Returns:
        `ablation_table`.
    """
    rankings = judged.predictions.labels
    print_report(trained.classes, trained.base, rankings, features.scores,
                 np.isin(rankings[:, 0], trained.base), labels)
    print_calibration(judged.predictions, labels, judged.temperature)
    rows = ablation_rows(trained, features, judged.one_by_one.labels)
    if judged.log_z is not None:
        rows.append(("+ all images together", judged.log_z[:, trained.base],
                     judged.log_z[:, trained.new], rankings))
    table = ablation_table(rows, trained.base, trained.new, labels)
    print_own_sides(table)
    if show_parts:
        print_ablation(table)
    return table


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
