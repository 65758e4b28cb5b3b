"""Stage 2: the heads, fitted to the frozen models' features, and what testing needs beside.

The features are in models/frozen_features.py. Of several processes all compute them, and the first
fits the heads.
"""

import jittor as jt
import numpy as np

from configs.places import beside_scripts
from models import jclip, lora, parallel
from models.amu import AMUHead
from models.frozen_features import (
    auxiliary_features,
    base_image_features,
    held_back_features,
    training_features,
)
from models.lp_plus_plus import LPPlusPlus
from models.prompt import class_features, classifier_features, handcrafted_prompts
from runs.log import distance


def fit_heads(stage_1, stage_1_path, challenge, library, learner, labels, encoder, clip, config,
              restart, run_log):
    """Stage 2: what is fitted to, and noted of, the frozen models' features of the images.

    Args:
        stage_1: content of its checkpoint, which lies at `stage_1_path`.
        challenge: `Challenge`. library: `PromptLibrary`.
        learner: `PromptLearner` of the base classes.
        labels: int array (N,), 0 … C-1.
        encoder: auxiliary `Encoder`, or None.
        clip: `fingerprint` of the original weights.
        config: the run's. restart: whether to compute all features anew. run_log: `RunLog`.

    Returns:
        {file name: content} of checkpoints; None in all processes but the first.
    """
    # Anew, as stage 1 may have changed the first.
    original, preprocess = jclip.load(beside_scripts(config.clip.weights), config.clip.activation)
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], stage_1_path)
    paths = [sample.path for sample in challenge.train]
    all_prompts = handcrafted_prompts(library, challenge.classes, config.prompts)
    prompts = [all_prompts[label] for label in challenge.base]
    tuned_text = classifier_features(tuned, learner, stage_1["contexts"], prompts,
                                     config.prompt.queue_weight)
    text = class_features(original, all_prompts)
    base_text = text[jt.array(challenge.base)]
    with run_log.timed("features"):
        features = training_features(tuned, preprocess, paths, config, stage_1_path, restart)
    with run_log.timed("base_features"):
        noted = base_image_features(original, clip, preprocess, paths, prompts, base_text, config,
                                    restart)
    with run_log.timed("held_back_features"):
        held_back = held_back_features(original, tuned, all_prompts, text, tuned_text, preprocess,
                                       challenge.validation, config, clip, stage_1_path, restart,
                                       encoder)
    if encoder is not None:
        with run_log.timed("auxiliary_features"):
            aux_features = auxiliary_features(encoder, preprocess, paths, config, restart)
    if not parallel.is_first():
        return None
    heads = fit_lp_plus_plus(features, labels, tuned_text, tuned.scale(), config, run_log)
    contents = {"calibration.pkl": held_back}
    if encoder is not None:
        zero_shot = original.scale() * noted @ base_text.numpy().T
        # The first process is alone here; Jittor's optimizers would wait for the others.
        weight = jt.single_process_scope()(fit_auxiliary)(aux_features, labels, zero_shot,
                                                          config.aux, run_log)
        contents["aux.pkl"] = {"aux_weight": weight, "aux_encoder": encoder.fingerprint}
    # The last to be written: it tells that all are there.
    return {**contents, "head.pkl": {**heads, "features": noted,
                                     "labels": challenge.base[labels]}}


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
