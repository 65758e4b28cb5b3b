"""Looks at images with what train.py left, and tells base from new and class from class.

Each image becomes V views, which MTA (Zanella and Ben Ayed 2024, arXiv 2405.02266) turns into
one feature. The original CLIP says how likely the image is of a base class; the tuned CLIP and the
head, with the auxiliary head's bias where there is one, say of which; and the original CLIP says of
which new class it would be:

    P(class) = P(its side) P(class | its side)

The odds of the sides are even at a score that all but a few training images reach. A side that is
all but excluded (`_EXCLUDED`) is not looked at closer: what is known by then tells the order of its
classes.
"""

import functools
from typing import NamedTuple

import jittor as jt
import numpy as np

from data.challenge import N_LABELS
from data.views import view_batches
from models.calibration import by_logit
from models.jclip.model import unit_norm
from pipeline.look import Look, views_in_testing
from pipeline.trained import base_logits_of, scores_of, text_logits

_BLOCK = 4096  # images
_EXCLUDED = np.log(99)  # log-odds against a side: it has a hundredth


class ImageFeatures(NamedTuple):
    """What the models made of the test images.

    Attributes:
        modes, tuned_modes: arrays (N, D), MTA's features by the original CLIP, of the first
            views, and by the tuned one.
        all_modes: array (N, D), the original CLIP's of all views, by which new classes are named;
            where those are excluded like `modes`, unless all is `complete`.
        scores: array (N,), `base_score`.
        whole, tuned_whole: arrays (N, D), view 0 by either; None unless all is `complete`.
        aux_features: array (N, A), zeros of an image that was not seen; None without an auxiliary
            encoder.
    """

    modes: np.ndarray
    tuned_modes: np.ndarray
    all_modes: np.ndarray
    scores: np.ndarray
    whole: np.ndarray = None
    tuned_whole: np.ndarray = None
    aux_features: np.ndarray = None


def look_at(shards, trained, config, complete):
    """What the models make of the images of `Shards`.

    An image that cannot be decoded is seen as the mean of all texts: its labels come from the
    text alone.

    Returns:
        `ImageFeatures`; None in all processes but the first.
    """
    batches = functools.partial(
        view_batches, views_in_testing(trained.preprocess, config),
        batch_size=config.test.batch_size, n_threads=config.workers, description="test images")
    look = ThriftyLook(trained, config, complete)
    found = shards.compute(batches, look, look.of_no_image)
    return None if found is None else ImageFeatures(**found)


def base_odds(trained, scores):
    """The log-odds (N,) of the base side: `base_score` from the threshold on, at the temperature of
    the zero-shot logits; infinite where there are no new classes."""
    if not len(trained.new):
        return scores
    return (scores - trained.decision.threshold) / trained.decision.zero_shot_temperature


class ThriftyLook(Look):
    """A look at test images that ends where the answer is sure.

    The original CLIP looks at the first views of each. Where these leave it open, it looks at all
    views of an image that may be of a new class, and the tuned CLIP and the auxiliary encoder at
    one that may be of a base class.

    Args:
        trained: `Trained`. config: the run's.
        complete: whether all look at every image, as a report wants it.

    Attributes:
        of_no_image: {attribute of `ImageFeatures`: array (…)}, what an image has of a model that
            did not look at it: the mean of the texts.
    """

    def __init__(self, trained, config, complete):
        texts, encoder = trained.texts, trained.heads.aux_encoder
        super().__init__(trained.original, trained.tuned, encoder, texts.zero_shot, texts.tuned,
                         config)
        self.trained, self.complete = trained, complete
        zero_shot, tuned = (unit_norm(text.mean(dim=0, keepdims=True)).numpy()
                            for text in (texts.zero_shot, texts.tuned))
        row = {"modes": zero_shot, "tuned_modes": tuned, "all_modes": zero_shot,
               "scores": scores_of(trained, jt.array(zero_shot), config.ood)}
        if encoder is not None:
            row["aux_features"] = np.zeros((1, encoder.n_features), np.float32)
        if complete:
            row.update(whole=zero_shot, tuned_whole=tuned)
        self.of_no_image = {name: values[0] for name, values in row.items()}

    def __call__(self, pixels):
        """Pixels (B, V, S, S, 3) of views -> {attribute of `ImageFeatures`: array (B, …)}."""
        found = {name: np.repeat(row[None], len(pixels), axis=0)
                 for name, row in self.of_no_image.items()}
        first = self.first_views(pixels)  # (B, V', D)

        def of_all_views(rows):
            return jt.concat([first[jt.array(rows)], self.further_views(pixels[rows])], dim=1)

        found["modes"], found["all_modes"], found["scores"] = self.original_modes(
            first, of_all_views if pixels.shape[1] > first.shape[1] else None)
        may_be_base = base_odds(self.trained, found["scores"]) > -_EXCLUDED
        wanted = np.flatnonzero(self.complete | may_be_base)
        if len(wanted):
            tuned = self.all_views(pixels[wanted])  # (B', V, D)
            found["tuned_modes"][wanted] = self.tuned_modes(tuned)
            if self.encoder is not None:
                found["aux_features"][wanted] = self.auxiliary(pixels[wanted])
        if self.complete:
            found.update(whole=first[:, 0].numpy(), tuned_whole=tuned[:, 0].numpy())
        return found

    def original_modes(self, first, of_all_views=None):
        """MTA's features by the original CLIP, and the scores that tell base from new.

        Args:
            first: Var (B, V', D), features of the first views.
            of_all_views: function of some rows of B, int array, that returns the features of all
                views of these images, Var; None where the first are all.

        Returns:
            modes, all_modes: float32 arrays (B, D), `ImageFeatures`'s. scores: array (B,).
        """
        modes = self.modes(first)
        scores = scores_of(self.trained, jt.array(modes), self.config.ood)
        all_modes = modes.copy()
        wanted = np.flatnonzero(self.complete | (base_odds(self.trained, scores) < _EXCLUDED))
        if of_all_views is not None and len(wanted):
            all_modes[wanted] = self.modes(of_all_views(wanted))
        return modes, all_modes, scores


class Predictions(NamedTuple):
    """The likeliest labels of images.

    Attributes:
        labels: int array (N, min(5, C)), the likeliest first.
        probabilities: array of that shape, calibrated, among all classes.
        plain: the same without the temperatures.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    plain: np.ndarray


def predict(trained, features):
    """`Predictions` by `ImageFeatures`."""
    return Predictions(*map(np.concatenate, zip(*(
        likeliest(*log_probabilities(trained, some)) for some in blocks_of(features)))))


def blocks_of(features):
    """`ImageFeatures` of some images after the other, so that logits need little memory."""
    for start in range(0, len(features.scores), _BLOCK):
        yield ImageFeatures(*(None if values is None else values[start:start + _BLOCK]
                              for values in features))


def likeliest(log_p, plain_log_p):
    """`Predictions` by log-probabilities (N, C) of all classes, with and without temperatures."""
    labels = by_logit(log_p)[:, :N_LABELS]
    return Predictions(labels, *(np.exp(np.take_along_axis(each, labels, axis=1))
                             for each in (log_p, plain_log_p)))


def log_probabilities(trained, features):
    """log P(class) by `ImageFeatures`: (N, C) with the temperatures, and without.

    They take of `features` what is there whether these are complete or not.
    """
    odds = base_odds(trained, features.scores)[:, None]
    modes = np.where(odds < _EXCLUDED, features.all_modes, features.modes)
    zero_shot = text_logits(trained, modes, trained.texts.zero_shot)
    base, base_zero_shot = base_logits_of(trained, features), zero_shot[:, trained.base]
    found = []
    for temperature, zero_shot_temperature, log_odds in (
            (trained.decision.temperature, trained.decision.zero_shot_temperature, odds),
            (1.0, 1.0, odds * trained.decision.zero_shot_temperature)):
        log_p = np.empty(zero_shot.shape, np.float32)
        log_p[:, trained.base] = _log_softmax(np.where(
            odds > -_EXCLUDED, base / temperature, base_zero_shot / zero_shot_temperature)
        ) - np.logaddexp(0, -log_odds)
        log_p[:, trained.new] = _log_softmax(
            zero_shot[:, trained.new] / zero_shot_temperature) - np.logaddexp(0, log_odds)
        found.append(log_p)
    return tuple(found)


def _log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
