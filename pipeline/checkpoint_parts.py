"""Holds the arrays of a checkpoint against what they must be, before they are computed with."""

import numpy as np

from models.jclip.tokenizer import encode
from system.errors import UserError
from system.untrusted import shown

# The axes of each array; a letter is of one length throughout a file: C base classes, K contexts
# of M tokens, W text width, N images, n images or none, D feature, A auxiliary feature. Names and
# shapes in 'lora' are held against the model when they are loaded into it.
_HEAD = {"w": "CD", "bias": "C", "alpha": "C", "scale": "D", "text": "CD"}
_AXES = {"contexts": "KMW", "context": "MW", "queue": "KMW", "lora": {}, "features": "ND",
         "head": _HEAD, "plain_head": _HEAD, "modes": "nD", "tuned_modes": "nD",
         "aux_weight": "CA", "aux_features": "nA"}


def check_parts(path, content, parts, sizes, n_aux=0, cure="train again"):
    """Refuse a checkpoint whose arrays are not what training leaves.

    Args:
        path: for the message.
        content: of `pipeline.checkpoint.load_checkpoint`, which compared its settings.
        parts: what it must hold beside the base classes, of the names above.
        sizes: `models.jclip.sizes.CLIPSizes` of the model.
        n_aux: A, where there is an auxiliary encoder.
        cure: what the user is told to do.

    Raises:
        UserError: a part is missing or no array of finite float32, or its shape does not fit
            the model or the others.
    """
    if not all(part in content for part in ("base", *parts)):
        raise UserError(f"{path} is no whole checkpoint of train.py; {cure}")
    base, n_classes = content["base"], len(content["classes"])
    if (not isinstance(base, np.ndarray) or base.ndim != 1 or base.dtype.kind not in "iu"
            or not len(base) or not 0 <= base[0] <= base[-1] < n_classes
            or not (base[1:] > base[:-1]).all()):
        raise UserError(f"{path} is damaged: its base classes are no ascending labels below "
                        f"{n_classes}; {cure}")
    lengths = {"C": len(base), "D": sizes.embed_dim, "W": sizes.text.width, "A": n_aux}
    if set(parts) & {"contexts", "context"}:
        lengths["M"] = len(encode(content["config"]["prompt"]["init"]))
    for part in parts:
        _check(path, part, content[part], _AXES[part], lengths, cure)


def _check(path, name, value, axes, lengths, cure):
    """Check an array, or a dict of them.

    Args:
        axes: a letter an axis; {key: axes} of a dict, {} of one with any keys and shapes.
        lengths: {letter: length} as far as it is known; gains what this array tells.
    """
    def fail(what):
        raise UserError(f"{path} is damaged: {name} {what}; {cure}")

    if isinstance(axes, dict):
        if not isinstance(value, dict) or axes and set(value) != set(axes):
            fail(f"is no dict with {', '.join(axes) or 'arrays'}")
        for key, item in value.items():
            if not isinstance(key, str):
                fail(f"has the name {shown(key)}")
            _check(path, f"{name}.{key[:60]}", item, axes.get(key), lengths, cure)
        return
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        fail("is no array of float32")
    if axes is not None:
        wanted = [lengths.setdefault(axis, n) for axis, n in zip(axes, value.shape)]
        if list(value.shape) != wanted or len(axes) != value.ndim or any(
                n == 0 and axis != "n" for axis, n in zip(axes, value.shape)):
            fail(f"has the shape {value.shape}, which does not fit the others or the model")
    if not np.isfinite(value).all():
        fail("has values that are not finite")
