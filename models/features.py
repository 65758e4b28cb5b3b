"""Unit-norm features of images: of each view, and one of all views of an image."""

import jittor as jt

from models.jclip.model import unit_norm
from models.jclip.preprocess import normalise
from models.mta import mta


def encode_views(model, pixels):
    """Features of views, without gradient.

    Args:
        model: CLIP.
        pixels: uint8 array (B, V, S, S, 3).

    Returns:
        Var (B, V, D), unit norm.
    """
    B, V = pixels.shape[:2]
    with jt.no_grad():
        flat = normalise(pixels.reshape(B * V, *pixels.shape[2:]))  # -> (B*V, 3, S, S)
        return unit_norm(model.encode_image(flat)).reshape(B, V, -1)


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
    with jt.no_grad():
        mode, _ = mta(view_features, text_features, logit_scale, settings.lambda_y,
                      settings.lambda_q, settings.nearest)
        return mode.numpy()
