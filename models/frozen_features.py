"""Stage 2's features of images by frozen models, kept in the cache folder.

Each kind lies there under a name that tells the models, the texts and the crops; so a stopped run
goes on, and the head is fitted again without them being computed again. All functions return None
in all processes but the first.
"""

import functools

import numpy as np

from data.views import Views, view_batches
from models import parallel
from models.features import encode_views, mta_features
from models.shards import Shards, files_checksum


def training_features(model, preprocess, paths, config, stage_1_path, restart):
    """Features (N, V, D) of random crops of the training images by the tuned model.

    Kept under a name that tells the checkpoint and the crops.
    """
    views = Views(preprocess, config.head.views, config.train.scale, config.seed,
                  whole_first=False)
    shards = Shards(config.output.cache_dir, "training_features",
                    [files_checksum([stage_1_path]), views.identity], paths,
                    config.test.batch_size)
    return features_of(shards, views, lambda pixels: encode_views(model, pixels).numpy(),
                       config.workers, "tuned CLIP", restart)


def auxiliary_features(encoder, preprocess, paths, config, restart):
    """Features (N, V, A) of the same crops by an auxiliary `Encoder`, kept likewise."""
    views = Views(preprocess, config.head.views, config.train.scale, config.seed,
                  whole_first=False)
    shards = Shards(config.output.cache_dir, "auxiliary_features",
                    [encoder.fingerprint, views.identity], paths, config.test.batch_size)
    return features_of(shards, views, lambda pixels: encoder.view_features(pixels).numpy(),
                       config.workers, "auxiliary encoder", restart)


def base_image_features(model, clip, preprocess, paths, prompts, text, config, restart):
    """MTA features (N, D) of the training images by the original CLIP, kept likewise.

    They are the support when test images are judged together, and tell an auxiliary head how sure
    zero-shot CLIP is.

    Args:
        clip: `fingerprint` of the model's weights.
        prompts: list (C) of lists of texts of the base classes. text: Var (C, D), theirs.
    """
    views = Views(preprocess, min(config.mta.views, config.mta.zero_shot_views),
                  config.mta.scale, config.seed)
    shards = Shards(config.output.cache_dir, "base_image_features",
                    [clip, config.mta.to_dict(), prompts, views.identity], paths,
                    config.test.batch_size)
    return features_of(
        shards, views,
        lambda pixels: mta_features(encode_views(model, pixels), text, model.scale(), config.mta),
        config.workers, "original CLIP", restart)


def held_back_features(original, tuned, prompts, text, tuned_text, preprocess, samples, config,
                       clip, stage_1_path, restart, encoder=None):
    """Features of images that were not trained on, as test.py looks at images.

    Args:
        original, tuned: CLIPs. prompts: list (C) of lists of texts of all classes.
        text: Var (C, D), theirs. tuned_text: Var (C_base, D). samples: list (N) of `Sample`.
        clip, stage_1_path: what the models are known by.
        encoder: auxiliary `Encoder`, or None.

    Returns:
        {'modes', 'tuned_modes': arrays (N, D), MTA's by both CLIPs, 'labels': int array (N,)},
        and with an auxiliary encoder 'aux_features': array (N, A).
    """
    views = Views(preprocess, config.mta.views, config.mta.scale, config.seed)
    depends_on = [clip, files_checksum([stage_1_path]), config.mta.to_dict(), prompts,
                  views.identity]
    widths = {"modes": tuned_text.shape[1], "tuned_modes": tuned_text.shape[1]}
    if encoder is not None:
        depends_on += [encoder.fingerprint, config.aux.views]
        widths["aux_features"] = encoder.n_features
    shards = Shards(config.output.cache_dir, "held_back_images", depends_on,
                    [sample.path for sample in samples], config.test.batch_size)

    def encode(pixels):
        zero_shot = encode_views(original, pixels[:, :config.mta.zero_shot_views])
        found = {"modes": mta_features(zero_shot, text, original.scale(), config.mta),
                 "tuned_modes": mta_features(encode_views(tuned, pixels), tuned_text,
                                             original.scale(), config.mta)}
        if encoder is not None:
            found["aux_features"] = encoder.image_features(pixels[:, :config.aux.views])
        return found

    if samples:
        found = arrays_of(shards, views, encode, config.workers, "held-back images", restart)
    else:
        found = {name: np.zeros((0, width), np.float32) for name, width in widths.items()}
    if not parallel.is_first():
        return None
    return {**found, "labels": np.array([sample.label for sample in samples], int)}


def features_of(shards, views, encode, n_threads, description, restart):
    """The one array that `encode` makes of each image's views; see `arrays_of`."""
    found = arrays_of(shards, views, lambda pixels: {"features": encode(pixels)}, n_threads,
                      description, restart)
    return None if found is None else found["features"]


def arrays_of(shards, views, encode, n_threads, description, restart):
    """What `encode` makes of each image's views: of an earlier run, or computed now."""
    if restart:
        shards.remove()
    batches = functools.partial(view_batches, views, batch_size=shards.batch_size,
                                n_threads=n_threads, description=description)
    return shards.compute(batches, encode)
