"""Reads the challenge's class, image and label lists and its folders as they are.

`classes.txt` has a line `Prefix_name label` a class: the prefix is the domain, underscores
are spaces. `train.txt` and label files have a line `path label` an image. Byte-order marks,
CRLF line ends, blank lines and spaces in names and paths are accepted.
"""

import os
import re
from typing import NamedTuple

import numpy as np

from models.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


class ClassName(NamedTuple):
    """A class as `classes.txt` names it: 'Animal_polar_bear' -> ('Animal', 'polar bear')."""

    domain: str
    name: str


class Sample(NamedTuple):
    """An image file and its label."""

    path: str
    label: int


def read_classes(path):
    """The classes by label.

    Returns:
        list of `ClassName`; the index is the label.

    Raises:
        UserError: a bad row, a label or name given twice, or labels that are not 0 … C-1.
    """
    by_label = {}
    for where, text, label in _rows(path, "Prefix_name label"):
        domain, _, name = text.partition("_")
        if not name:
            domain, name = "", text
        if label in by_label:
            raise UserError(f"{where}: label {label} is already {by_label[label].name!r}; "
                            "each class needs a label of its own")
        by_label[label] = ClassName(domain, name.replace("_", " "))
    if sorted(by_label) != list(range(len(by_label))):
        gap = next(label for label in range(len(by_label)) if label not in by_label)
        raise UserError(f"{path}: labels must be 0 to {len(by_label) - 1}; {gap} is missing")
    if len(set(by_label.values())) < len(by_label):
        raise UserError(f"{path}: a class is listed twice; remove one of its lines")
    return [by_label[label] for label in range(len(by_label))]


def read_samples(path, folders, n_classes):
    """The images of a list with their labels.

    Args:
        path: file with a line `image label` an image.
        folders: where a relative image path may start, in this order.
        n_classes: labels must be below it.

    Returns:
        list of `Sample` in the file's order, each with the path of a file that exists.

    Raises:
        UserError: a bad row, a label outside the class list, an image that is nowhere.
    """
    samples = []
    for where, text, label in _rows(path, "path label"):
        if not 0 <= label < n_classes:
            raise UserError(f"{where}: label {label} is outside the class list "
                            f"(0 to {n_classes - 1})")
        # Lists write TrainSet once, twice or not at all, and so do the archives on disk.
        inside = re.sub(r"^(.*?/)?(TrainSet/)+", "", text)
        samples.append(Sample(find_image((text, inside), folders, where), label))
    return samples


class Challenge(NamedTuple):
    """A data set in the challenge's layout.

    Attributes:
        classes: list of `ClassName` by label.
        base: int array, the labels with training images, ascending.
        new: int array, the others.
        train: list of `Sample`, the shots to train on; labels as in `classes`.
        held_back: list of `Sample`, the other training images.
        validation: list of `Sample`, a few that are not trained on: the temperature's.
    """

    classes: list
    base: np.ndarray
    new: np.ndarray
    train: list
    held_back: list
    validation: list


def load_challenge(settings, seed):
    """Read a data set and choose its shots.

    Args:
        settings: the config's section `data`.
        seed: chooses the shots.

    Returns:
        `Challenge`.

    Raises:
        UserError: see `read_classes`, `read_samples` and `few_shot`.
    """
    classes = read_classes(os.path.join(settings.root, settings.classes))
    folders = training_folders(settings.root)
    samples = read_samples(os.path.join(settings.root, settings.train_list), folders,
                           len(classes))
    train = None
    if settings.shots_file is not None:
        train = read_samples(settings.shots_file, folders, len(classes))
    return few_shot(classes, samples, settings, seed, train)


def few_shot(classes, samples, settings, seed, train=None, validation=None):
    """A `Challenge` of some of the training images.

    Args:
        classes: list of `ClassName` by label.
        samples: list of `Sample`, all training images.
        settings: the config's section `data`, for `shots` and `val_shots`.
        seed: chooses the shots, and among the rest the validation images.
        train: list of `Sample`, the shots where they are given.
        validation: list of `Sample` to choose the validation images from where they are no
            training images.

    Raises:
        UserError: data.shots is below 1, or the seed is no 32-bit number.
    """
    if settings.shots < 1:
        raise UserError(f"data.shots is {settings.shots}; it must be at least 1")
    if not 0 <= seed < 2 ** 32:
        raise UserError(f"seed is {seed}; it must be 0 to 2**32 - 1")
    if train is None:
        train, held_back = choose_shots(samples, settings.shots, seed)
    else:
        chosen = set(train)
        held_back = [sample for sample in samples if sample not in chosen]
    base = np.unique([s.label for s in train])
    rest = held_back if validation is None else validation
    validation, _ = choose_shots(rest, settings.val_shots, seed)
    validation = [sample for sample in validation if sample.label in base]
    return Challenge(classes, base, np.setdiff1d(np.arange(len(classes)), base), train,
                     held_back, validation)


def read_labels(path, n_classes):
    """{file name: label} of a label file for test images; errors as in `read_samples`."""
    labels = {}
    for where, text, label in _rows(path, "image label"):
        if not 0 <= label < n_classes:
            raise UserError(f"{where}: label {label} is outside the class list "
                            f"(0 to {n_classes - 1})")
        name = os.path.basename(text)
        if labels.setdefault(name, label) != label:
            raise UserError(f"{where}: {name} has another label above, {labels[name]}")
    return labels


def training_folders(root):
    """Where the image paths of `train.txt` may start, for a data folder `root`.

    'Dataset/TrainSet/…' starts beside it (or in the repository), 'TrainSet/…' in it, and
    'Animal/…' in its TrainSet, which may lie in another TrainSet.
    """
    train = os.path.join(root, "TrainSet")
    return [root, os.path.join(root, os.pardir), train, os.path.join(train, "TrainSet"), "."]


def list_images(folder):
    """Paths of the images in a folder in natural order (image_2 before image_10).

    Raises:
        UserError: no such folder, or no image in it.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f"cannot read the image folder {folder}: {error.strerror}") from error
    images = [n for n in names if n.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        raise UserError(f"no images in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    return [os.path.join(folder, name) for name in sorted(images, key=natural_key)]


def natural_key(name):
    """Sort key with numbers by value; ties by the name itself."""
    parts = re.split(r"([0-9]+)", name)  # text and numbers by turns
    return [(-1, p) if i % 2 == 0 else (int(p), "") for i, p in enumerate(parts)], name


def choose_shots(samples, shots, seed):
    """`shots` images of each class, chosen by seed.

    Args:
        samples: list of `Sample`.
        shots: images a class; a class with fewer keeps all.
        seed: int; the choice depends on it and on each class's own images alone.

    Returns:
        (chosen, held_back): two lists of `Sample`, by label, then in the list's order.
    """
    by_label = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample)
    chosen, held_back = [], []
    for label, group in sorted(by_label.items()):
        picks = set(np.random.RandomState([seed, label]).permutation(len(group))[:shots])
        for i, sample in enumerate(group):
            (chosen if i in picks else held_back).append(sample)
    return chosen, held_back


def read_text(path):
    """The text of a UTF-8 file, without a byte-order mark; a `UserError` names what is wrong."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; see the README for the layout "
                        "of the data") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it") from error


def find_image(names, folders, where):
    """The path of the first file that is there.

    Args:
        names: how its path may be written; the first stands in the message.
        folders: where relative ones may start.
        where: the place that lists it, for the message.

    Raises:
        UserError: there is none.
    """
    for folder in folders:
        for name in names:
            path = os.path.normpath(os.path.join(folder, name))
            if os.path.isfile(path):
                return path
    raise UserError(f"{where}: no image {names[0]}; looked in "
                    f"{', '.join(map(os.path.normpath, folders))}")


def _rows(path, form):
    """(where, text, label) of each line that is not blank."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        text, _, label = line.strip().rpartition(" ")
        if not text.strip() or not re.fullmatch(r"[0-9]{1,9}", label):
            raise UserError(f"{path}, line {number}: {line.strip()!r} is not of the form "
                            f"'{form}'")
        rows.append((f"{path}, line {number}", text.strip(), int(label)))
    if not rows:
        raise UserError(f"{path} is empty; it needs lines '{form}'")
    return rows
