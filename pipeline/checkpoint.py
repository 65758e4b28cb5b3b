"""What training leaves for testing: `.pkl` files that know what they were made with."""

import glob
import os
import warnings
import zlib

import numpy as np

from configs import OWN_RUNS, differences, load_config
from pipeline.shards import files_checksum
from system import runtime
from system.errors import UserError, log
from system.files import read_pickle, write_pickle
from system.places import beside_scripts
from system.untrusted import same_value, shown


def made_with(config, clip, classes, samples=None):
    """What a checkpoint depends on.

    Args:
        config: the run's `Config`.
        clip: `fingerprint` of the original weights.
        classes: list of `ClassName` of the data; None where it brings none, in testing.
        samples: list of `Sample` trained on; None where they are not known, in testing.

    Returns:
        dict of plain containers.
    """
    content = {"config": config.to_dict(), "clip": clip, "precision": runtime.precision()}
    if classes is not None:
        content["classes"] = [list(c) for c in classes]
    if samples is not None:
        content["base"] = np.unique([sample.label for sample in samples])
        checksum = files_checksum([sample.path for sample in samples])
        labels = zlib.crc32(repr([sample.label for sample in samples]).encode(), checksum)
        content["data"] = f"{len(samples)} training images with checksum {labels:08x}"
    return content


def save_checkpoint(path, made_with, content):
    """Write what was learned, a dict of arrays and plain containers, with what it depends on."""
    write_pickle(path, {**made_with, **content})


def _as_called_now(saved):
    """Saved settings without what is no setting any more."""
    train = saved.get("train")
    if isinstance(train, dict) and "amp" in train:  # `precision`, where it was for a GPU alone
        return {**saved, "train": {key: train[key] for key in train if key != "amp"}}
    return saved


def _with_defaults(saved):
    """Saved settings, those that did not exist then as their defaults are."""
    try:
        return load_config(None, (), _as_called_now(saved)).to_dict()
    except UserError:  # damaged ones differ from any
        return saved


def other_classes(path, n_saved, classes):
    """The error for a checkpoint of other classes than `classes`, a list."""
    return UserError(f"{path} was trained with another class list ({n_saved} classes, not "
                     f"{len(classes)}, or other names); train again")


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
    if not same_value(classes, made_with.get("classes", classes)):
        n_saved = len(classes) if isinstance(classes, list) else 0
        raise other_classes(path, n_saved, made_with["classes"])
    if not isinstance(classes, list) or not all(
            isinstance(c, list) and [type(text) for text in c] == [str, str] for c in classes):
        raise UserError(f"{path} is damaged: its class list holds no names; train again")
    content["config"] = _with_defaults(content["config"])
    changed = differences(content["config"], made_with["config"], keys)
    if "data" in made_with and not same_value(content.get("data"), made_with["data"]):
        changed.append(f"{shown(content.get('data'))} then, {made_with['data']} now")
    if changed:
        raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}); {cure}")
    then, now = (each.get("precision", "float32") for each in (content, made_with))
    if not same_value(then, now):
        log(f"{path} was trained with the encoders' products in {shown(then)}, and they are in "
            f"{now} now; precision={shown(then)} has them as they were")
    return content


def config_of_run(folder, overrides=(), images=None):
    """The settings that a run was trained with, to test it with.

    Args:
        folder: its checkpoint folder.
        overrides: see `load_config`.
        images: own pictures to look at in the place of those trained on, or None.

    Raises:
        UserError: nothing was trained there.
    """
    path = os.path.join(folder, "head.pkl")
    if not os.path.isfile(path):
        raise UserError(f"no trained weights at {path}; name a folder that train.py has filled")
    content = read_pickle(path)
    settings = content.get("config") if isinstance(content, dict) else None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no checkpoint of train.py; train again")
    changes = {"output": {"checkpoint_dir": folder}}
    if images is not None:
        changes["data"] = {"images": images}
    return load_config(None, overrides, _as_called_now(settings), changes)


def refuse_other_pictures(folder, images):
    """Refuse to replace what was trained on other own pictures whose folder is called the same.

    Args:
        folder: checkpoint folder. images: the folder or CSV to train on.
    """
    if not os.path.isfile(os.path.join(folder, "head.pkl")):
        return
    trained_on = config_of_run(folder).data.images
    if trained_on is None or os.path.abspath(trained_on) != os.path.abspath(images):
        raise UserError(f"{folder} holds what was trained on {trained_on}; name another folder, as "
                        f"output.checkpoint_dir={folder}-2, or remove it")


def trained_folder(output):
    """The folder of the weights to test with: one's own, else the shipped ones.

    Where a config has shipped weights, a line on stderr says which are taken. A warning tells of a
    training that has not come to its end.

    Args:
        output: the config's section.
    """
    own, shipped = output.checkpoint_dir, output.shipped_dir
    finished, stage_1, begun = (os.path.exists(os.path.join(own, name)) for name in (
        "head.pkl", "prompt_lora.pkl", "unfinished"))
    if begun or stage_1 and not finished:
        warnings.warn(f"a training in {own} has not come to its end; run train.py again to finish "
                      "it", stacklevel=2)
    if shipped is None:
        return own
    taken, what = (own, "the weights of your own training") if finished else (
        beside_scripts(shipped), f"the shipped weights, as {own} has none")
    log(f"{taken}: {what}")
    return taken


def last_own_run():
    """The checkpoint folder of the run on own pictures that was trained last, None without one."""
    finished = glob.glob(os.path.join(OWN_RUNS, "*", "head.pkl"))
    return os.path.dirname(max(finished, key=os.path.getmtime)) if finished else None
