"""Gathers what a run's page needs from the models and the test images, and leaves it in the run's
folder."""

import warnings

import jittor as jt
import numpy as np

from models.calibration import probabilities
from models.features import encode_views, mta_inlierness
from pipeline.classifier import ImageFeatures, blocks_of
from pipeline.look import views_in_testing
from pipeline.trained import base_logits_of, text_logits
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
    base_label, new_label, zero_shot_label = likeliest_labels(trained, features)
    whole_label = base_label
    if features.whole is not None:
        whole_label, _, zero_shot_label = likeliest_labels(trained, features._replace(
            modes=features.whole, all_modes=features.whole, tuned_modes=features.tuned_whole))
    confidence = predictions.probabilities[:, 0]
    predicted = predictions.labels[:, 0]
    taken = np.flatnonzero(np.isin(predicted, trained.base))
    telling = taken[telling_images(whole_label[taken], base_label[taken], labels[taken])]
    return {
        "config": config.to_dict(), "classes": [list(c) for c in trained.classes],
        "base": trained.base, "names": list(images.names), "labels": labels,
        "scores": features.scores, "threshold": trained.decision.threshold,
        "rankings": predictions.labels, "base_label": base_label, "new_label": new_label,
        "zero_shot_label": zero_shot_label,
        "confidence": confidence, "plain_confidence": predictions.plain[:, 0],
        "crops": look_closer(images.paths, telling, trained, features, config),
        "pictures": pictures_of(images.paths, predicted, labels, confidence),
        "parameters": trained.parameters,
        "versions": versions()}


def likeliest_labels(trained, features):
    """The likeliest base class, new class, and class by zero-shot: three int arrays (N,)."""
    found = []
    for some in blocks_of(features):
        base_label = trained.base[base_logits_of(trained, some).argmax(axis=1)]
        zero_shot = text_logits(trained, some.all_modes, trained.texts.zero_shot)
        new = zero_shot[:, trained.new]
        found.append((base_label, trained.new[new.argmax(axis=1)] if len(trained.new)
                      else base_label, zero_shot.argmax(axis=1)))
    return map(np.concatenate, zip(*found))


def look_closer(paths, telling, trained, features, config):
    """The crops of a few images taken for base, with MTA's inlierness: a record's 'crops'.

    Args:
        telling: int array, which of the N images.
    """
    views = views_in_testing(trained.preprocess, config)
    if views.n_views == 1:
        return []
    looked = []
    for image in map(int, telling):
        pixels = views.of(paths[image])
        if pixels is None:
            continue
        shown = jt.array(pixels).numpy().astype(np.uint8)  # on a GPU they are a Var of floats
        of_crops = encode_views(trained.tuned, pixels[None])
        inlierness = mta_inlierness(of_crops, trained.texts.tuned, trained.logit_scale, config.mta)
        whole = encode_views(trained.original, pixels[None, :1])
        by_mta = ImageFeatures(*(None if values is None else values[image:image + 1]
                                 for values in features))
        without = by_mta._replace(modes=whole[:, 0].numpy(), tuned_modes=of_crops[:, 0].numpy())
        looked.append({"image": image, **crops_shown(shown, inlierness[0]),
                       "before": _answer(trained, without), "after": _answer(trained, by_mta)})
    return looked


def _answer(trained, features):
    """[label, probability] of the likeliest base class of the one image of `ImageFeatures`."""
    shares = probabilities(base_logits_of(trained, features), trained.decision.temperature)[0]
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
