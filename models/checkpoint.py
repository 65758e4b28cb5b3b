"""What training leaves for testing: `.pkl` files that know what they were made with."""

import zlib

import numpy as np

from configs import differences
from models.errors import UserError
from models.jclip.weights import read_pickle, write_pickle


def fingerprint(model):
    """A checksum of a CLIP's weights, int."""
    checksum = 0
    for _, parameter in model.named_parameters():
        checksum = zlib.crc32(np.ascontiguousarray(parameter.numpy()), checksum)
    return checksum


def save_checkpoint(path, config, clip, challenge, content):
    """Write what was learned, with what it depends on.

    Args:
        path: `.pkl` file.
        config: the run's `Config`.
        clip: `fingerprint` of the original weights.
        challenge: the `Challenge` trained on.
        content: dict of arrays and plain containers.
    """
    write_pickle(path, {"config": config.to_dict(), "clip": clip, "base": challenge.base,
                        "classes": [list(c) for c in challenge.classes], **content})


def load_checkpoint(path, config, clip, classes, keys):
    """Read `save_checkpoint`'s content.

    Args:
        path: `.pkl` file.
        config: the run's `Config`.
        clip: `fingerprint` of the original weights.
        classes: list of `ClassName` of the class file.
        keys: sections of the config, or single settings, that must be as in training.

    Raises:
        UserError: no file, or it was made with another CLIP, class list or settings.
    """
    content = read_pickle(path)
    if not isinstance(content, dict) or not {"config", "clip", "classes"} <= set(content):
        raise UserError(f"{path} is no checkpoint of train.py; train again")
    if content["clip"] != clip:
        raise UserError(f"{path} was trained with other CLIP weights than {config.clip.weights};"
                        " use those, or train again")
    if content["classes"] != [list(c) for c in classes]:
        raise UserError(f"{path} was trained with another class list ({len(content['classes'])} "
                        f"classes, not {len(classes)}, or other names); train again")
    changed = differences(content["config"], config.to_dict(), keys)
    if changed:
        raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}); "
                        "set them back, or train again")
    return content
