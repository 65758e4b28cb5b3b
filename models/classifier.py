"""Looks at images with what train.py left, decides base or new, and names classes.

Each image becomes V views, which MTA (Zanella and Ben Ayed 2024, arXiv 2405.02266) turns into
one feature. The original CLIP tells base images from new ones. Base images get the logits of
the tuned text, the zero-shot text and the head, and the auxiliary head's bias where there is one;
new ones get zero-shot labels.
"""

import functools
from typing import NamedTuple

import jittor as jt
import numpy as np

from data.report import by_logit
from data.submission import N_LABELS
from data.views import Views, view_batches
from models.calibration import probabilities
from models.features import encode_views, mta_features
from models.jclip.model import unit_norm
from models.trained import fused_logits, scores_of, text_logits

_BLOCK = 4096  # images


class Seen(NamedTuple):
    """What the models made of the test images.

    Attributes:
        modes, tuned_modes: arrays (N, D), MTA's features by the original CLIP, of the first
            views, and by the tuned one.
        all_modes: array (N, D), the original CLIP's of all views, by which new classes are named;
            of an image taken for base like `modes` unless `everything` is seen.
        scores: array (N,), `base_score`. is_base: bool array (N,).
        whole, tuned_whole: arrays (N, D), view 0 by either; None unless `everything` is seen.
        aux_features: array (N, A), zeros of an image that was not seen; None without an auxiliary
            encoder.
    """

    modes: np.ndarray
    tuned_modes: np.ndarray
    all_modes: np.ndarray
    scores: np.ndarray
    is_base: np.ndarray
    whole: np.ndarray = None
    tuned_whole: np.ndarray = None
    aux_features: np.ndarray = None


def look_at(shards, trained, config, everything):
    """What the models make of the images of `Shards`.

    An image that cannot be decoded is seen as the mean of all texts: its labels come from the
    text alone.

    Returns:
        `Seen`; None in all processes but the first.
    """
    views = Views(trained.preprocess, config.mta.views, config.mta.scale, config.seed)
    batches = functools.partial(view_batches, views, batch_size=config.test.batch_size,
                                n_threads=config.workers, description="test images")
    otherwise = unseen(trained, config, everything)
    found = shards.compute(batches, functools.partial(look, trained, config, otherwise),
                           {name: row[0] for name, row in otherwise.items()})
    return None if found is None else judged(trained, found)


def judged(trained, found):
    """`Seen` of `look`'s arrays: with the decision between base and new."""
    return Seen(is_base=found["scores"] >= trained.threshold, **found)


def look(trained, config, otherwise, pixels):
    """Features and scores of a batch's views, (B, V, S, S, 3): {attribute of `Seen`: array}.

    Args:
        otherwise: `unseen`'s, which tells what is wanted. The tuned model and the auxiliary
            encoder see base images only, unless everything is; the others have what `unseen` has.
    """
    everything = "whole" in otherwise
    seen = {name: np.repeat(row, len(pixels), axis=0) for name, row in otherwise.items()}
    n_first = config.mta.zero_shot_views
    features = encode_views(trained.original, pixels[:, :n_first])

    def of_all_views(rows):
        further = encode_views(trained.original, pixels[rows][:, n_first:])
        return jt.concat([features[jt.array(rows)], further], dim=1)

    seen["modes"], seen["all_modes"], seen["scores"] = original_modes(
        trained, config, features, of_all_views if pixels.shape[1] > n_first else None, everything)
    wanted = np.flatnonzero(everything | (seen["scores"] >= trained.threshold))
    if len(wanted):
        tuned_features = encode_views(trained.tuned, pixels[wanted])
        seen["tuned_modes"][wanted] = mta_features(tuned_features, trained.tuned_text,
                                                   trained.scale, config.mta)
        if trained.aux_encoder is not None:
            seen["aux_features"][wanted] = trained.aux_encoder.image_features(
                pixels[wanted][:, :config.aux.views])
    if everything:
        seen.update(whole=features[:, 0].numpy(), tuned_whole=tuned_features[:, 0].numpy())
    return seen


def original_modes(trained, config, features, of_all_views=None, everything=False):
    """MTA's features by the original CLIP, and the scores by which base and new are told apart.

    The first views tell; a new image, which the original CLIP is to name, is looked at in all.

    Args:
        features: Var (B, V, D), of the first views.
        of_all_views: function of some rows of B, int array, that returns the features of all
            views of these images, Var; None where the first are all.
        everything: whether base images are looked at in all views too.

    Returns:
        modes, all_modes: float32 arrays (B, D), `Seen`'s. scores: array (B,).
    """
    modes = mta_features(features, trained.zero_shot_text, trained.scale, config.mta)
    scores = scores_of(trained, jt.array(modes), config.ood)
    all_modes = modes.copy()
    wanted = np.flatnonzero(everything | ~(scores >= trained.threshold))
    if of_all_views is not None and len(wanted):
        all_modes[wanted] = mta_features(of_all_views(wanted), trained.zero_shot_text,
                                         trained.scale, config.mta)
    return modes, all_modes, scores


def unseen(trained, config, everything):
    """The row (1, …) of each of `look`'s arrays for an image that was not looked at."""
    zero_shot, tuned = (unit_norm(text.mean(dim=0, keepdims=True)).numpy()
                        for text in (trained.zero_shot_text, trained.tuned_text))
    row = {"modes": zero_shot, "tuned_modes": tuned, "all_modes": zero_shot,
           "scores": scores_of(trained, jt.array(zero_shot), config.ood)}
    if trained.aux_encoder is not None:
        row["aux_features"] = np.zeros((1, trained.aux_encoder.n_features), np.float32)
    return {**row, "whole": zero_shot, "tuned_whole": tuned} if everything else row


class Answers(NamedTuple):
    """The likeliest labels of images.

    A base image's labels begin with base classes, a new one's with new classes; where they
    were judged jointly (models/transduction.py), all classes are in one order.

    Attributes:
        labels: int array (N, min(5, C)), the likeliest first.
        probabilities: array of that shape, calibrated: among the classes of the image's side,
            0 for those of the other; or among all, where they were judged jointly.
        plain: the same without the temperatures.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    plain: np.ndarray


def answer(trained, seen, fusion):
    """`Answers` on the images that were `Seen`; `fusion` is the config's section."""
    return Answers(*map(np.concatenate, zip(*(
        _answer(trained, some, fusion) for some in blocks_of(seen)))))


def blocks_of(seen):
    """`Seen` of some images after the other, so that logits need little memory however many."""
    for start in range(0, len(seen.scores), _BLOCK):
        yield Seen(*(None if values is None else values[start:start + _BLOCK] for values in seen))


def _answer(trained, seen, fusion):
    base, new = trained.base, trained.new
    zero_shot = text_logits(trained, seen.all_modes, trained.zero_shot_text)
    fused = fused_logits(trained, seen, fusion)
    base_first = [base[by_logit(fused)], new[by_logit(zero_shot[:, new])]]
    new_first = [base_first[1], base[by_logit(zero_shot[:, base])]]
    labels = np.where(seen.is_base[:, None], np.concatenate(base_first, axis=1),
                      np.concatenate(new_first, axis=1))[:, :N_LABELS]

    def of_labels(temperature, zero_shot_temperature):
        shares = np.zeros(zero_shot.shape)
        shares[np.ix_(seen.is_base, base)] = probabilities(fused[seen.is_base], temperature)
        shares[np.ix_(~seen.is_base, new)] = probabilities(
            zero_shot[np.ix_(~seen.is_base, new)], zero_shot_temperature)
        return np.take_along_axis(shares, labels, axis=1)

    return Answers(labels, of_labels(trained.temperature, trained.zero_shot_temperature),
                   of_labels(1.0, 1.0))
