"""Gathers what a run's page needs from the models and the test images, and leaves it in the run's
folder."""

import warnings

import jittor as jt
import numpy as np

from models.calibration import probabilities
from models.features import encode_views, mta_inlierness
from pipeline.classifier import blocks_of
from pipeline.look import views_in_testing
from pipeline.trained import base_logits, base_logits_of, text_logits
from runs.log import RunLog
from runs.record import (
    crops_shown,
    pictures_of,
    summary_of,
    telling_images,
    versions,
    write_record,
)
from system.errors import log


def gather(images, labels, trained, features, predictions, config):
    """A record (`runs.record`) but for the temperature, the ablation and the time.

    Args:
        images: with `paths` and `names`, lists (N).
        labels: int array (N,), -1 where unknown.
        trained: `pipeline.trained.Trained`.
        features, predictions: `pipeline.classifier`'s; where labels are known, complete ones.
        config: the run's.
    """
    likeliest = map(np.concatenate, zip(*(
        _likeliest(trained, some) for some in blocks_of(features))))
    base_label, new_label, zero_shot_label, whole_label = likeliest
    confidence = predictions.probabilities[:, 0]
    predicted = predictions.labels[:, 0]
    is_base = np.isin(predicted, trained.base)
    return {
        "config": config.to_dict(), "classes": [list(c) for c in trained.classes],
        "base": trained.base, "names": list(images.names), "labels": labels,
        "scores": features.scores, "threshold": trained.decision.threshold,
        "rankings": predictions.labels, "base_label": base_label, "new_label": new_label,
        "zero_shot_label": zero_shot_label,
        "confidence": confidence, "plain_confidence": predictions.plain[:, 0],
        "crops": look_closer(images.paths, labels, trained, features, is_base, config, whole_label,
                             base_label),
        "pictures": pictures_of(images.paths, predicted, labels, confidence),
        "parameters": trained.parameters,
        "versions": versions()}


def _likeliest(trained, features):
    """Labels (N,): the likeliest base class, new class, class by zero-shot, and base class.

    The last two are the whole image's, where that was seen.
    """
    base = base_logits_of(trained, features)
    zero_shot = text_logits(trained, features.all_modes, trained.texts.zero_shot)
    new = zero_shot[:, trained.new]
    base_label = trained.base[base.argmax(axis=1)]
    new_label = trained.new[new.argmax(axis=1)] if len(trained.new) else base_label
    if features.whole is None:
        return base_label, new_label, zero_shot.argmax(axis=1), base_label
    whole = base_logits(trained, features.whole, features.tuned_whole, trained.heads.head,
                        features.aux_features)
    zero_shot = text_logits(trained, features.whole, trained.texts.zero_shot)
    return base_label, new_label, zero_shot.argmax(axis=1), trained.base[whole.argmax(axis=1)]


def look_closer(paths, labels, trained, features, is_base, config, before, after):
    """The crops of a few images taken for base, with MTA's inlierness (a record's 'crops').

    Args:
        is_base: bool array (N,), which are taken for base.
        before, after: int arrays (N,), the likeliest base class without and with MTA.
    """
    views = views_in_testing(trained.preprocess, config)
    taken = np.flatnonzero(is_base)
    if views.n_views == 1 or not len(taken):
        return []

    def logits(zero_shot, tuned, image):
        of_aux = features.aux_features
        return base_logits(trained, zero_shot, tuned, trained.heads.head,
                           None if of_aux is None else of_aux[image:image + 1])

    looked = []
    for row in telling_images(before[taken], after[taken], labels[taken]):
        image = int(taken[row])
        pixels = views.of(paths[image])
        if pixels is None:
            continue
        shown = jt.array(pixels).numpy().astype(np.uint8)  # on a GPU they are a Var of floats
        of_crops = encode_views(trained.tuned, pixels[None])
        inlierness = mta_inlierness(of_crops, trained.texts.tuned, trained.logit_scale, config.mta)
        whole = encode_views(trained.original, pixels[None, :1])
        looked.append({
            "image": image, **crops_shown(shown, inlierness[0]),
            "before": _first(trained, logits(whole[:, 0].numpy(), of_crops[:, 0].numpy(), image)),
            "after": _first(trained, logits(features.modes[image:image + 1],
                                            features.tuned_modes[image:image + 1], image))})
    return looked


def _first(trained, logits):
    """[label, probability] of an image's logits (1, C_base)."""
    shares = probabilities(logits, trained.decision.temperature)[0]
    return [int(trained.base[shares.argmax()]), float(shares.max())]


def leave_record(folder, record):
    """Leave the record, a line of the log and, where labels are known, the page in a run folder.

    The result is written by now, so a folder that cannot be written is only warned of.
    """
    try:
        write_record(folder, record)
        run_log = RunLog(folder)
        run_log.begin("test")
        run_log.write(record["seconds"], images=len(record["names"]), **summary_of(record))
        if (record["labels"] >= 0).any():
            from runs.page import write_run_page  # here, as it loads matplotlib
            log(f"{write_run_page(folder)}: the run's page")
    except OSError as error:
        warnings.warn(f"no report: {error}; set output.checkpoint_dir to a folder that can be "
                      "written", stacklevel=1)
