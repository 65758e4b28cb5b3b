"""Base or new: scores of the original zero-shot CLIP, over an enlarged class list.

Both the base and the new class names are known, so an image is compared with the names of
both sides. The enlarged list adds names that are in neither: each counts for the side whose
nearest class name is closer to it, so that a picture that no class name describes well is
still told apart by its surroundings.

Ours: the scores themselves are log-odds of two known sides, where the papers set a threshold on how
much an image looks like the known classes alone. NegLabel takes the largest cosine with the base
names where the paper takes a high quantile, one group of negatives where it averages over a hundred
random ones, and the new names are always among them.
"""

import numpy as np
from jittor import nn

from system.errors import UserError

SCORES = ("winner", "mass", "neglabel")


def base_score(image_features, base_text, new_text, logit_scale, enlarged_text=None,
               score="mass", negative_share=0.5):
    """How much each image looks like one of the base classes: a log-odds, positive for base.

    Args:
        image_features: Var (B, D), unit norm, of the original CLIP.
        base_text, new_text: Var (C, D), unit norm, original CLIP; at least one base class.
        logit_scale: factor on the cosines, float.
        enlarged_text: Var (E, D) of further class names, or None.
        score: 'winner': the largest logit of the base side minus that of the new side, whose
            sign is the winning class's side. 'mass': the log-odds of the base side's
            probability. 'neglabel': those of the base classes against negative labels (Jiang et
            al. 2024, arXiv 2403.20078): the new names and those of the enlarged list that are
            farthest from the base ones.
        negative_share: share of the enlarged list that 'neglabel' keeps.

    Returns:
        float32 array (B,).

    Raises:
        UserError: an unknown score.
    """
    if score not in SCORES:
        raise UserError(f"ood.score is {score!r}; it must be one of {', '.join(SCORES)}")

    if not new_text.shape[0]:
        return np.full(image_features.shape[0], np.inf, np.float32)

    def logits(text_features):
        return (logit_scale * nn.matmul_transpose(image_features, text_features)).numpy()

    base = logits(base_text)
    new = [logits(new_text)]
    if enlarged_text is not None and enlarged_text.shape[0]:
        enlarged = logits(enlarged_text)
        to_base = nn.matmul_transpose(enlarged_text, base_text).max(dim=1).numpy()
        if score == "neglabel":
            n_kept = int(round(negative_share * len(to_base)))
            new.append(enlarged[:, np.argsort(to_base, kind="stable")[:n_kept]])
        else:
            to_new = nn.matmul_transpose(enlarged_text, new_text).max(dim=1).numpy()
            new.append(enlarged[:, to_new > to_base])
            base = np.concatenate([base, enlarged[:, to_new <= to_base]], axis=1)
    new = np.concatenate(new, axis=1)
    if score == "winner":
        return base.max(axis=1) - new.max(axis=1)
    return _log_sum(base) - _log_sum(new)


def _log_sum(logits):
    """log Σ exp over the last axis."""
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
