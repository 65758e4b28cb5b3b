"""Gathers what a run's page needs from the models and the test images."""

import jittor as jt
import numpy as np

from data.views import Views
from models.calibration import probabilities
from models.classifier import blocks_of
from models.features import encode_views, mta_inlierness
from models.trained import base_logits, base_logits_of, text_logits
from runs.record import crops_shown, pictures_of, telling_images, versions


def gather(images, labels, trained, seen, answers, config):
    """A record (`runs.record`) but for the temperature, the ablation and the time.

    Args:
        images: with `paths` and `names`, lists (N).
        labels: int array (N,), -1 where unknown.
        trained: `models.trained.Trained`. seen, answers: `models.classifier`'s; where labels are
            known, everything seen.
        config: the run's.
    """
    likeliest = map(np.concatenate, zip(*(_likeliest(trained, some) for some in blocks_of(seen))))
    base_label, new_label, zero_shot_label, whole_label = likeliest
    confidence = answers.probabilities[:, 0]
    predicted = answers.labels[:, 0]
    is_base = np.isin(predicted, trained.base)
    return {
        "config": config.to_dict(), "classes": [list(c) for c in trained.classes],
        "base": trained.base, "names": list(images.names), "labels": labels,
        "scores": seen.scores, "taken_for_base": is_base, "threshold": trained.threshold,
        "rankings": answers.labels, "base_label": base_label, "new_label": new_label,
        "zero_shot_label": zero_shot_label,
        "confidence": confidence, "plain_confidence": answers.plain[:, 0],
        "crops": look_closer(images.paths, labels, trained, seen, is_base, config, whole_label,
                             base_label),
        "pictures": pictures_of(images.paths, predicted, labels, confidence),
        "parameters": trained.parameters,
        "versions": versions()}


def _likeliest(trained, seen):
    """Labels (N,): the likeliest base class, new class, class by zero-shot, and base class.

    The last two are the whole image's, where that was seen.
    """
    base = base_logits_of(trained, seen)
    zero_shot = text_logits(trained, seen.all_modes, trained.zero_shot_text)
    new = zero_shot[:, trained.new]
    base_label = trained.base[base.argmax(axis=1)]
    new_label = trained.new[new.argmax(axis=1)] if len(trained.new) else base_label
    if seen.whole is None:
        return base_label, new_label, zero_shot.argmax(axis=1), base_label
    whole = base_logits(trained, seen.whole, seen.tuned_whole, trained.head, seen.aux_features)
    zero_shot = text_logits(trained, seen.whole, trained.zero_shot_text)
    return base_label, new_label, zero_shot.argmax(axis=1), trained.base[whole.argmax(axis=1)]


def look_closer(paths, labels, trained, seen, is_base, config, before, after):
    """The crops of a few images taken for base, with MTA's inlierness (a record's 'crops').

    Args:
        is_base: bool array (N,), which are taken for base.
        before, after: int arrays (N,), the likeliest base class without and with MTA.
    """
    views = Views(trained.preprocess, config.mta.views, config.mta.scale, config.seed)
    taken = np.flatnonzero(is_base)
    if views.n_views == 1 or not len(taken):
        return []

    def logits(features, tuned_features, image):
        aux_features = None if seen.aux_features is None else seen.aux_features[image:image + 1]
        return base_logits(trained, features, tuned_features, trained.head, aux_features)

    looked = []
    for row in telling_images(before[taken], after[taken], labels[taken]):
        image = int(taken[row])
        pixels = views.of(paths[image])
        if pixels is None:
            continue
        shown = jt.array(pixels).numpy().astype(np.uint8)  # on a GPU they are a Var of floats
        features = encode_views(trained.tuned, pixels[None])
        inlierness = mta_inlierness(features, trained.tuned_text, trained.scale, config.mta)
        whole = encode_views(trained.original, pixels[None, :1])
        looked.append({
            "image": image, **crops_shown(shown, inlierness[0]),
            "before": _first(trained, logits(whole[:, 0].numpy(), features[:, 0].numpy(), image)),
            "after": _first(trained, logits(seen.modes[image:image + 1],
                                            seen.tuned_modes[image:image + 1], image))})
    return looked


def _first(trained, logits):
    """[label, probability] of an image's logits (1, C_base)."""
    shares = probabilities(logits, trained.temperature)[0]
    return [int(trained.base[shares.argmax()]), float(shares.max())]
