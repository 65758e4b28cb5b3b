"""Stage 2's features of images by frozen models, kept in the cache folder.

Each kind lies there under a name that tells the models, the texts and the crops; so a stopped run
goes on, and the head is fitted again without them being computed again. All functions return None
in all processes but the first.
"""

import functools

import numpy as np

from data.views import Views, view_batches
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


def base_image_features(model, clip, preprocess, paths, prompts, text, config, restart):
    """MTA features (N, D) of the training images by the original CLIP, kept likewise.

    They tell which scores base images have, so that test.py can choose its threshold.

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
                       clip, stage_1_path, restart):
    """MTA features by both CLIPs of images that were not trained on, as test.py looks at images.

    Args:
        original, tuned: CLIPs. prompts: list (C) of lists of texts of all classes.
        text: Var (C, D), theirs. tuned_text: Var (C_base, D). samples: list (N) of `Sample`.
        clip, stage_1_path: what the models are known by.

    Returns:
        {'modes', 'tuned_modes': arrays (N, D), 'labels': int array (N,)}.
    """
    scale = original.scale()
    views = Views(preprocess, config.mta.views, config.mta.scale, config.seed)
    shards = Shards(config.output.cache_dir, "held_back_features",
                    [clip, files_checksum([stage_1_path]), config.mta.to_dict(), prompts,
                     views.identity], [sample.path for sample in samples],
                    config.test.batch_size)

    def encode(pixels):
        zero_shot = encode_views(original, pixels[:, :config.mta.zero_shot_views])
        return np.stack([
            mta_features(zero_shot, text, scale, config.mta),
            mta_features(encode_views(tuned, pixels), tuned_text, scale, config.mta)], axis=1)

    features = np.zeros((0, 2, tuned_text.shape[1]), np.float32)
    if samples:
        features = features_of(shards, views, encode, config.workers, "held-back images", restart)
    if features is None:
        return None
    return {"modes": features[:, 0], "tuned_modes": features[:, 1],
            "labels": np.array([sample.label for sample in samples], int)}


def features_of(shards, views, encode, n_threads, description, restart):
    """What `encode` makes of each image's views: of an earlier run, or computed now."""
    if restart:
        shards.remove()
    batches = functools.partial(view_batches, views, batch_size=shards.batch_size,
                                n_threads=n_threads, description=description)
    found = shards.compute(batches, lambda pixels: {"features": encode(pixels)})
    return None if found is None else found["features"]
