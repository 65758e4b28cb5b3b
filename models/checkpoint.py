"""What training leaves for testing: `.pkl` files that know what they were made with."""

import zlib

import numpy as np

from configs import differences
from models.errors import UserError
from models.jclip.weights import read_pickle, write_pickle
from models.shards import files_checksum
from models.untrusted import same_value, shown


def fingerprint(model):
    """A checksum of a CLIP's weights, int."""
    checksum = 0
    for _, parameter in model.named_parameters():
        checksum = zlib.crc32(np.ascontiguousarray(parameter.numpy()), checksum)
    return checksum


def made_with(config, clip, classes, samples=None):
    """What a checkpoint depends on.

    Args:
        config: the run's `Config`.
        clip: `fingerprint` of the original weights.
        classes: list of `ClassName` of the class file.
        samples: list of `Sample` trained on; None where they are not known, in testing.

    Returns:
        dict of plain containers.
    """
    content = {"config": config.to_dict(), "clip": clip, "classes": [list(c) for c in classes]}
    if samples is not None:
        content["base"] = np.unique([sample.label for sample in samples])
        checksum = files_checksum([sample.path for sample in samples])
        labels = zlib.crc32(repr([sample.label for sample in samples]).encode(), checksum)
        content["data"] = f"{len(samples)} training images with checksum {labels:08x}"
    return content


def save_checkpoint(path, made_with, content):
    """Write what was learned, a dict of arrays and plain containers, with what it depends on."""
    write_pickle(path, {**made_with, **content})


def load_checkpoint(path, made_with, keys, cure="set them back, or train again"):
    """Read `save_checkpoint`'s content.

    Args:
        path: `.pkl` file.
        made_with: what the present run depends on.
        keys: sections of the config, or single settings, that must be as in training.
        cure: what a user whose settings have changed is told to do.

    Raises:
        UserError: no file, or it was made with another CLIP, class list, data or settings.
    """
    content = read_pickle(path)
    if (not isinstance(content, dict) or not {"config", "clip", "classes"} <= set(content)
            or not isinstance(content["config"], dict)):
        raise UserError(f"{path} is no checkpoint of train.py; train again")
    clip, classes = content["clip"], content["classes"]
    if not same_value(clip, made_with["clip"]):
        weights = made_with["config"]["clip"]["weights"]
        saved = f"{clip:08x}" if type(clip) is int and abs(clip) < 2 ** 32 else shown(clip)
        raise UserError(f"{path} was trained with other CLIP weights ({saved}) than {weights} "
                        f"({made_with['clip']:08x}); use those, or train again")
    if not same_value(classes, made_with["classes"]):
        n_saved = len(classes) if isinstance(classes, list) else 0
        raise UserError(f"{path} was trained with another class list ({n_saved} classes, not "
                        f"{len(made_with['classes'])}, or other names); train again")
    changed = differences(content["config"], made_with["config"], keys)
    if "data" in made_with and not same_value(content.get("data"), made_with["data"]):
        changed.append(f"{shown(content.get('data'))} then, {made_with['data']} now")
    if changed:
        raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}); {cure}")
    return content
