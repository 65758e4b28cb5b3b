"""All test images judged together: TransCLIP over base and new classes.

In the place of `models.classifier.answer`, which judges one by one. New classes are components
beside the base ones; 'few-shot' has the training images as support, 'zero-shot' none. The features
are the original CLIP's, and the predictions that TransCLIP starts from those of the pipeline.
"""

from models.classifier import likeliest, log_probabilities
from models.errors import UserError
from models.transclip import transclip

MODES = ("none", "few-shot", "zero-shot")


def require_mode(settings):
    """Refuse an unknown mode; `settings` is the config's section `transduction`."""
    if settings.mode not in MODES:
        raise UserError(f"transduction.mode is {settings.mode!r}; it must be one of "
                        f"{', '.join(MODES)}")


def joint_answer(trained, seen, settings):
    """What all images together say.

    Args:
        trained: `Trained`. seen: `Seen`, everything of it.
        settings: the config's section `transduction`, with a mode.

    Returns:
        `Answers`, and log z (N, C), float32.
    """
    support = labels = None
    if settings.mode == "few-shot":
        support, labels = trained.support, trained.support_labels
    log_z = transclip(seen.all_modes, log_probabilities(trained, seen)[0], support, labels,
                      settings.kl_weight, settings.support_weight, settings.nearest)
    return likeliest(log_z, log_z), log_z
