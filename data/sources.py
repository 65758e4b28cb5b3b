"""The data set that the settings name, whatever its layout."""

import os
from typing import NamedTuple

import numpy as np

from data.challenge import load_challenge
from data.folders import data_path
from data.image_paths import list_images, with_slashes
from data.lists import read_labels
from data.names import warn_of_names
from data.pictures import labels_of_pictures, load_pictures, read_pictures
from data.splits import load_benchmark, read_benchmark, require_image
from system.errors import UserError


def load_data(settings, seed, library):
    """The training data.

    Args:
        settings: the config's section `data`: own pictures where `images` is set, a benchmark
            where `split` is, else the challenge's layout.
        seed: chooses the shots.
        library: `prompts.PromptLibrary`, which knows the domains of own classes.

    Returns:
        `Challenge`.

    Raises:
        UserError: see `load_pictures`, `load_benchmark`, `load_challenge`.
    """
    if settings.images is not None:
        challenge = load_pictures(settings, seed, library)
    elif settings.split is not None:
        challenge = load_benchmark(settings, seed)
    else:
        challenge = load_challenge(settings, seed, library.domains)
    warn_of_names([library.name(c) for c in challenge.classes], settings.images or settings.root)
    return challenge


class Images(NamedTuple):
    """Images to classify.

    Attributes:
        paths: list (N) of files. names: list (N), how results call them.
        labels: int array (N,), -1 where unknown; None where all are.
    """

    paths: list
    names: list
    labels: np.ndarray


def images_to_classify(settings, classes, numbers, labels_path=None):
    """The test images of the data set that the settings name.

    Args:
        settings: the config's section `data`.
        classes: list of `ClassName`, those that were trained.
        numbers: int array (C,), what a label file calls each of them.
        labels_path: a file with lines 'image label', or None. Folders, CSVs and benchmarks
            bring labels of their own.

    Returns:
        `Images`.

    Raises:
        UserError: no image, or a label file that names none of them.
    """
    labels = None
    if settings.images is not None:
        pictures = read_pictures(settings.images, part="test")
        paths, names = ([getattr(p, key) for p in pictures] for key in ("path", "file"))
        labels = labels_of_pictures(pictures, classes)
    elif settings.split is not None:
        samples = read_benchmark(settings).test
        paths = [sample.path for sample in samples]
        for path in paths:
            require_image(path, settings)
        names = [os.path.relpath(path, settings.root) for path in paths]
        labels = np.array([sample.label for sample in samples])
    else:
        paths = list_images(data_path(settings, "test_dir"))
        names = [os.path.basename(path) for path in paths]
    if labels_path is not None:
        flat = settings.images is None and settings.split is None  # all images in one folder
        plain = os.path.basename if flat else os.path.normpath
        known = set(names)
        # Windows' separators count as ours, unless an image is really called so.
        by_name = read_labels(labels_path, len(classes), lambda text: plain(
            text if text in known else with_slashes(text)))
        label_of = {number: label for label, number in enumerate(numbers.tolist())}
        labels = np.array([label_of.get(by_name.get(plain(name)), -1) for name in names])
        if (labels < 0).all():
            cure = "set data.test_dir to their folder" if flat else "name them as result.txt does"
            raise UserError(f"{labels_path} names none of the images in "
                            f"{os.path.dirname(paths[0])}; {cure}")
    return Images(paths, names, None if labels is None or (labels < 0).all() else labels)
