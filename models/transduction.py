"""Base and new classes judged jointly: all images together, or by one classifier over both.

In the place of the decision between base and new that `models.classifier.answer` makes first:
'few-shot' and 'zero-shot' are TransCLIP (models/transclip.py), in which new classes are
components beside the base ones, with the training images as support or without; 'selective' is
one classifier whose rows are learned for base classes and are texts for new ones (2SFS, Farina
et al. 2025, arXiv 2503.11609).
"""

import numpy as np

from data.report import by_logit
from data.submission import N_LABELS
from models.calibration import probabilities
from models.classifier import Answers
from models.errors import UserError
from models.ood import log_odds
from models.trained import fused_logits, text_logits
from models.transclip import transclip

MODES = ("none", "few-shot", "zero-shot", "selective")


def require_mode(settings):
    """Refuse an unknown mode; `settings` is the config's section `transduction`."""
    if settings.mode not in MODES:
        raise UserError(f"transduction.mode is {settings.mode!r}; it must be one of "
                        f"{', '.join(MODES)}")


def joint_logits(trained, seen, config):
    """Logits (N, C) of all classes, float32.

    Args:
        trained: `Trained`. seen: `Seen`, everything of it. config: the run's, with a mode.
    """
    if config.transduction.mode == "selective":
        return selective_logits(trained, seen, config.fusion)
    return transductive_logits(trained, seen, config)


def joint_answer(logits, temperature):
    """`Answers` in the order of `joint_logits` (N, C), with a temperature for probabilities."""
    labels = by_logit(logits)[:, :N_LABELS]
    return Answers(labels, *(np.take_along_axis(probabilities(logits, each), labels, axis=1)
                             for each in (temperature, 1.0)))


def selective_logits(trained, seen, fusion):
    """Logits (N, C): of base classes the fused ones, of new ones those of the same texts' parts."""
    logits = text_logits(trained, seen.all_modes, trained.zero_shot_text)
    logits[:, trained.base] = fused_logits(trained, seen, fusion)
    if len(trained.new):
        tuned = text_logits(trained, seen.tuned_modes, trained.tuned_new_text)
        zero_shot, weight = logits[:, trained.new], fusion.zero_shot_text
        logits[:, trained.new] = ((weight * zero_shot + fusion.tuned_text * tuned)
                                  / (weight + fusion.tuned_text))
    return logits


def transductive_logits(trained, seen, config):
    """log z (N, C) of TransCLIP, over both models' features."""
    settings = config.transduction
    features, support = whitened(both(seen.all_modes, seen.tuned_modes),
                                 both(trained.support, trained.tuned_support))
    labels = trained.support_labels
    if settings.mode == "zero-shot":
        support = labels = None
    return transclip(features, log_prior(trained, seen, config), support, labels,
                     settings.kl_weight, settings.support_weight, settings.affinity_weight,
                     settings.nearest)


def both(features, tuned_features):
    """Unit-norm features (N, 2D) whose cosine is the mean of both models' cosines."""
    return np.concatenate([features, tuned_features], axis=1) / np.float32(np.sqrt(2))


def whitened(features, support, ridge=0.1):
    """Features without the mean and the correlations of the test images', unit norm.

    CLIP's features share most of their direction, and TransCLIP's covariance is diagonal.

    Args:
        features: float32 array (N, D). support: float32 array (S, D).
        ridge: share of the mean variance that is added to each channel's.

    Returns:
        features, support: float32 arrays of those shapes.
    """
    mean = features.mean(axis=0)
    centred = features - mean
    covariance = (centred.T @ centred).astype(np.float64) / len(features)
    variance = ridge * np.trace(covariance) / len(covariance) + 1e-6  # one image alone has none
    values, vectors = np.linalg.eigh(covariance + variance * np.eye(len(covariance)))
    whitening = ((vectors / np.sqrt(values)) @ vectors.T).astype(np.float32)
    return tuple(_unit(rows @ whitening) for rows in (centred, support - mean))


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def log_prior(trained, seen, config):
    """log ŷ (N, C): the probability of either side times the class's among its side's."""
    fused = fused_logits(trained, seen, config.fusion)
    zero_shot = text_logits(trained, seen.all_modes, trained.zero_shot_text)[:, trained.new]
    odds = log_odds(seen.scores, trained.threshold, config.ood.score)[:, None]
    prior = np.empty((len(fused), len(trained.classes)), np.float32)
    prior[:, trained.base] = log_softmax(fused / trained.temperature) - np.logaddexp(0, -odds)
    prior[:, trained.new] = (log_softmax(zero_shot / trained.zero_shot_temperature)
                             - np.logaddexp(0, odds))
    return prior


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
