"""A data set in the challenge's layout, and its shots: the few images a class to train on."""

from typing import NamedTuple

import numpy as np

from data.folders import data_folder, data_path, natural_key
from data.image_paths import training_folders
from data.lists import read_classes, read_samples, require_text
from system.errors import UserError

N_LABELS = 5  # a line of an entry


class Challenge(NamedTuple):
    """A data set in the challenge's layout.

    Attributes:
        classes: list of `ClassName` by label.
        base: int array, the labels with training images, ascending.
        new: int array, the others.
        train: list of `Sample`, the shots to train on; labels as in `classes`.
        held_back: list of `Sample`, the other training images.
        validation: list of `Sample`, a few that are not trained on: the temperature's.
        spare: list of `Sample` in the order in which they take the place of one of `train` that
            cannot be decoded. spare_validation: the same for `validation`.
    """

    classes: list
    base: np.ndarray
    new: np.ndarray
    train: list
    held_back: list
    validation: list
    spare: list = ()
    spare_validation: list = ()


def load_challenge(settings, seed, known_domains=()):
    """Read a data set and choose its shots.

    Args:
        settings: the config's section `data`.
        seed: chooses the shots.
        known_domains: see `read_classes`.

    Returns:
        `Challenge`, whose labels are places in the list of classes by domain and name.

    Raises:
        UserError: see `read_classes`, `read_samples` and `few_shot`.
    """
    listed = challenge_classes(settings, known_domains)
    # By name, so that nothing that is learned depends on how the list numbers them.
    order = sorted(range(len(listed)),
                   key=lambda label: [natural_key(text.lower()) for text in listed[label]])
    place_of = {label: place for place, label in enumerate(order)}
    folders = training_folders(data_folder(settings.root, "TrainSet"))

    def read(path):
        return [sample._replace(label=place_of[sample.label])
                for sample in read_samples(path, folders, len(listed))]

    train, samples = None, read(data_path(settings, "train_list"))
    if settings.shots_file is not None:
        require_text(settings.shots_file, "a list of lines 'path label'")
        train = read(settings.shots_file)
    return few_shot([listed[label] for label in order], samples, settings, seed, train)


def challenge_classes(settings, known_domains=()):
    """The classes of the challenge's layout, as all scripts read them.

    Args:
        settings: the config's section `data`. known_domains: see `read_classes`, as for errors.
    """
    return read_classes(data_path(settings, "classes"), settings.domains, known_domains)


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
        UserError: data.shots is below 1.
    """
    if settings.shots < 1:
        raise UserError(f"data.shots is {settings.shots}; it must be at least 1")
    spare = []
    if train is None:
        train, held_back = choose_shots(samples, settings.shots, seed)
        spare = after_shots(samples, settings.shots, seed)
    else:
        chosen = set(train)
        held_back = [sample for sample in samples if sample not in chosen]
    base = np.unique([s.label for s in train])
    trained = set(base.tolist())
    rest = [sample for sample in (held_back if validation is None else validation)
            if sample.label in trained]
    validation, _ = choose_shots(rest, settings.val_shots, seed)
    return Challenge(classes, base, np.setdiff1d(np.arange(len(classes)), base), train, held_back,
                     validation, spare, after_shots(rest, settings.val_shots, seed))


def choose_shots(samples, shots, seed):
    """`shots` images of each class, chosen by seed.

    Args:
        samples: list of `Sample`.
        shots: images a class; a class with fewer keeps all.
        seed: int; the choice depends on it and on each class's own images alone.

    Returns:
        (chosen, held_back): two lists of `Sample`, by label, then in the list's order.
    """
    chosen, held_back = [], []
    for label, group in _by_label(samples):
        picks = set(_order(label, group, seed)[:shots])
        for i, sample in enumerate(group):
            (chosen if i in picks else held_back).append(sample)
    return chosen, held_back


def after_shots(samples, shots, seed):
    """What `choose_shots` holds back, each class's in the order in which the seed has them."""
    return [group[i] for label, group in _by_label(samples)
            for i in _order(label, group, seed)[shots:]]


def _by_label(samples):
    """(label, list of its samples) by label."""
    by_label = {}
    for sample in samples:
        by_label.setdefault(sample.label, []).append(sample)
    return sorted(by_label.items())


def _order(label, group, seed):
    return np.random.RandomState([seed, label]).permutation(len(group))
