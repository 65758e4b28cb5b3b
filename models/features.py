"""Unit-norm features of images: of each view, and one of all views of an image."""

import functools

import jittor as jt

from models.jclip.model import unit_norm
from models.jclip.preprocess import normalise
from models.mta import mta
from system.memory import fitting
from system.runtime import gpu_is_used, mixed_precision

_PASS_BYTES = 256 << 20
_PASS_BYTES_GPU = 8 << 30  # Jittor numbers an array's elements with 32 bits


def encode_views(model, pixels):
    """CLIP's features of views, without gradient.

    Args:
        model: CLIP.
        pixels: uint8 array (B, V, S, S, 3).

    Returns:
        Var (B, V, D), unit norm.
    """
    return encode_in_parts(lambda flat: model.encode_image(normalise(flat)), pixels,
                           model.sizes.bytes_per_image)


def encode_in_parts(encode, pixels, bytes_per_view):
    """What `encode` makes of views, without gradient and brought to unit norm.

    Args:
        encode: function of uint8 array (N, S, S, 3) that returns features, Var (N, D).
        pixels: uint8 array (B, V, S, S, 3).
        bytes_per_view: memory that a view takes at most.

    Returns:
        Var (B, V, D). Where memory is short, fewer views are worked on at a time, with the same
        result.
    """
    B, V = pixels.shape[:2]
    flat = pixels.reshape(B * V, *pixels.shape[2:])
    at_once = _at_once(B * V, bytes_per_view)
    features = []
    with jt.no_grad(), mixed_precision():
        for start in range(0, B * V, at_once):
            features.append(unit_norm(encode(flat[start:start + at_once])))
            if at_once < B * V:
                features[-1].sync()
        return jt.concat(features).reshape(B, V, -1)


@functools.lru_cache(maxsize=None)  # Jittor keeps the first batch's memory for those after it
def _at_once(n_views, bytes_per_view):
    """How many views to encode at a time; on the CPU more are not faster, but take memory."""
    limit = _PASS_BYTES_GPU if gpu_is_used() else _PASS_BYTES
    n_views = min(n_views, max(1, limit // bytes_per_view))
    return fitting(n_views, bytes_per_view, "views")


def mta_features(view_features, text_features, logit_scale, settings):
    """MTA's feature of each image, as an array.

    Args:
        view_features: Var (B, V, D), unit norm.
        text_features: Var (C, D), unit norm.
        logit_scale: float.
        settings: the config's section `mta`.

    Returns:
        float32 array (B, D), unit norm.
    """
    return _mta(view_features, text_features, logit_scale, settings)[0]


def mta_inlierness(view_features, text_features, logit_scale, settings):
    """How much each view counts in `mta_features`, float32 array (B, V), rows sum to 1."""
    return _mta(view_features, text_features, logit_scale, settings)[1]


def _mta(view_features, text_features, logit_scale, settings):
    with jt.no_grad():
        return [result.numpy() for result in mta(
            view_features, text_features, logit_scale, settings.lambda_y, settings.lambda_q,
            settings.nearest)]
