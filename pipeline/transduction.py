"""All test images judged together: TransCLIP over base and new classes.

In the place of `pipeline.classifier.predict`, which judges one by one. New classes are components
beside the base ones; 'few-shot' has the training images as support, 'zero-shot' none. The features
are the original CLIP's, and the predictions that TransCLIP starts from those of the pipeline.
"""

from typing import NamedTuple

import numpy as np

from models.transclip import transclip
from pipeline.classifier import Predictions, likeliest, log_probabilities, predict
from system.errors import UserError

MODES = ("none", "few-shot", "zero-shot")


def require_mode(settings):
    """Refuse an unknown mode; `settings` is the config's section `transduction`."""
    if settings.mode not in MODES:
        raise UserError(f"transduction.mode is {settings.mode!r}; it must be one of "
                        f"{', '.join(MODES)}")


class Judged(NamedTuple):
    """What is said of the test images.

    Attributes:
        predictions: `Predictions` that count.
        one_by_one: those of each image by itself.
        temperature: of the base classes' probabilities.
        log_z: array (N, C), TransCLIP's; None where images are judged one by one.
    """

    predictions: Predictions
    one_by_one: Predictions
    temperature: float
    log_z: np.ndarray = None


def judge(trained, features, settings):
    """`Judged` by `ImageFeatures`; `settings` is the config's section `transduction`."""
    one_by_one = predict(trained, features)
    if settings.mode == "none":
        return Judged(one_by_one, one_by_one, trained.decision.temperature)
    together, log_z = predict_together(trained, features, settings)
    return Judged(together, one_by_one, 1.0, log_z)  # assignments are probabilities as they are


def predict_together(trained, features, settings):
    """What all images together say.

    Args:
        trained: `Trained`. features: `ImageFeatures`, complete.
        settings: the config's section `transduction`, with a mode.

    Returns:
        `Predictions`, and log z (N, C), float32.
    """
    support = labels = None
    if settings.mode == "few-shot":
        support, labels = trained.support, trained.support_labels
    log_z = transclip(features.all_modes, log_probabilities(trained, features)[0], support, labels,
                      settings.kl_weight, settings.support_weight, settings.nearest)
    return likeliest(log_z, log_z), log_z
