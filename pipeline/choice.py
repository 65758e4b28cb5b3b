"""The config for a user who names none: what is in the working folder decides."""

import os

from configs import COMPETITION, FOLDER, SAMPLE, load_config
from data.folders import data_folder, named_alike, visible_names
from models import jclip
from system.errors import UserError, log
from system.places import MAIN_FOLDER, beside_scripts

NEEDS = ("weights", "train", "test")  # what a script may need to be there
_WEIGHTS = (".pkl", ".pt", ".pth", ".bin", ".safetensors")


def config_path(named, overrides=(), needs=NEEDS):
    """The config file that `--config` names, else `choose_config`'s, which is said on stderr."""
    if named is not None:
        return named
    path, why = choose_config(overrides, needs)
    log(f"{path}: {why}")
    return path


def choose_config(overrides=(), needs=NEEDS):
    """The challenge's config if its files are there, else the sample set's.

    Args:
        overrides: the command line's settings, which count here as they will in the run.
        needs: some of `NEEDS`, which files the script reads.

    Returns:
        (path, why): the config file, and a text for people.

    Raises:
        UserError: some of the challenge's data is there, and some of its files are not; or there
            is nothing in the data.root of the command line.
    """
    config = load_config(os.path.join(FOLDER, os.path.basename(COMPETITION)), overrides)
    data, weights = config.data, config.clip.weights
    if data.images is not None:
        raise UserError(f"name own pictures with --images {data.images}, which gives their run a "
                        "folder of its own, or name a config with --config")
    if not visible_names(data.root):
        if any(override.partition("=")[0].strip() == "data.root" for override in overrides):
            raise UserError(f"there is no data in data.root={data.root}; name the folder of "
                            f"{data.split or data.classes} (the sample set is drawn there with "
                            f"--config {SAMPLE} alone)")
        why = f"the sample set, as there is no data in {data.root}/"
        beside = beside_scripts(data.root)
        if beside != data.root and visible_names(beside):
            why += f" here; for that beside the scripts set data.root={beside}"
        return _own(SAMPLE), why
    missing, there = missing_files(data, needs)
    if "weights" in needs and not (os.path.exists(beside_scripts(weights))
                                   or weights in jclip.available_models()):
        missing.insert(0, weights)
        there += [f"clip.weights={name}" for name in sorted(visible_names("."))
                  if name.endswith(_WEIGHTS)][:1]
    if missing:
        others = f", or set {' '.join(there)}, which is there" if there else ""
        raise UserError(f"{data.root}/ is there, but {', '.join(missing)} missing; put the missing "
                        f"files there{others}, or name a config: --config {SAMPLE}")
    return _own(COMPETITION), f"{data.root}/ and {weights} are in place"


def missing_files(data, needs):
    """(paths, settings): what of the challenge's files is not there, and what may be meant instead.

    Args:
        data: the config's section. needs: some of `NEEDS`.

    Returns:
        two lists of texts, the second of 'data.classes=classes_b.txt'.
    """
    wanted = {"split": data.split} if data.split is not None else {"classes": data.classes}
    if data.split is None and "train" in needs:
        wanted.update(train_list=data.train_list, TrainSet="TrainSet")
    if data.split is None and "test" in needs:
        wanted.update(test_dir=data.test_dir)
    if not {"train", "test"} & set(needs):
        wanted = {}  # what was trained tells the classes
    missing, there = [], []
    for key, name in wanted.items():
        path = os.path.join(data_folder(data.root, name), name)
        if not os.path.exists(path):
            missing.append(path)
            if key != name:
                there += [f"data.{key}={other}" for other in named_alike(data.root, name)[:1]]
    return missing, there


def _own(path):
    """A config of the project's, as one names it from the working folder."""
    own = os.path.join(MAIN_FOLDER, path)
    return path if os.path.realpath(beside_scripts(path)) == os.path.realpath(own) else own
