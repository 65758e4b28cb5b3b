"""Fits stage 2's heads to frozen features, and logs it."""

import numpy as np

from models.amu import AMUHead
from models.lp_plus_plus import LPPlusPlus
from pipeline.training_state import distance


def fit_lp_plus_plus(features, labels, text, logit_scale, config, run_log):
    """LP++ on all crops; with channel re-weighting also the head without it.

    Args:
        features: array (N, V, D), unit norm.
        labels: int array (N,).
        text: Var (C, D), unit norm.
        logit_scale: the model's factor on cosines, in units of which α starts.
        run_log: `RunLog`.

    Returns:
        {'head': state, 'plain_head': state}; the second is for the ablation.
    """
    states = {}
    reweighted = config.head.channel_reweighting
    for name, reweighting in [("head", reweighted), *[("plain_head", False)] * reweighted]:
        head = LPPlusPlus(config.head.epochs, reweighting, config.head.weight_decay, progress=True,
                          alpha_init=config.head.alpha_init * logit_scale)
        run_log.begin(name)
        states[name] = head.fit(features, labels, text, log_epochs(head, run_log)).state()
    return {"plain_head": states["head"], **states}


def fit_auxiliary(features, labels, zero_shot, settings, run_log):
    """AMU-Tuning's head on all crops; an image's zero-shot logits are those of MTA's feature.

    Args:
        features: array (N, V, A), unit norm.
        labels: int array (N,).
        zero_shot: array (N, C), logits of the training images by the original CLIP.
        settings: the config's section `aux`.
        run_log: `RunLog`.

    Returns:
        array (C, A), the head's weight.
    """
    N, V, A = features.shape
    head = AMUHead(settings.alpha, settings.power, settings.merged_share)
    run_log.begin("auxiliary")
    head.fit(features.reshape(N * V, A), np.repeat(labels, V), np.repeat(zero_shot, V, axis=0),
             settings.epochs, settings.lr,
             lambda epoch, loss: run_log.write(epoch=epoch + 1, loss=loss))
    return head.weight.numpy()


def log_epochs(head, run_log):
    """What `LPPlusPlus.fit` calls after each epoch: it logs about fifty of them."""
    every, start = max(1, head.epochs // 50), []

    def after_epoch(epoch, loss):
        if not start:
            start.append(head.w.numpy())
        if (epoch + 1) % every == 0:
            run_log.write(epoch=epoch + 1, loss=float(loss.item()),
                          moved_head=distance([head.w.numpy()], start))

    return after_epoch
