"""Reads the challenge's class, image and label lists and its folders as they are.

`classes.txt` has a line `Prefix_name label` a class: the prefix is the domain, underscores
are spaces. `train.txt` and label files have a line `path label` an image. Byte-order marks,
CRLF line ends, blank lines, tabs before the label and spaces in names and paths are accepted.
A path in them that leads out of the folder it starts in is refused.
"""

import os
import re
import warnings
from typing import NamedTuple

import numpy as np

from models import untrusted
from models.errors import UserError
from models.untrusted import leaves_folder, odd_character, shown

_LAYOUT = "see the README for the layout of the data"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


# What operating systems and tools leave in folders, beside what begins with a point.
_LEFT_BY_SYSTEMS = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx",
    "$recycle.bin", "#recycle", "system volume information", "lost+found", "@eadir"}


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
            Names that differ in case alone are the same: they would get the same prompts.
    """
    by_label, seen = {}, set()
    for where, text, label in _rows(path, "Prefix_name label"):
        domain, underscore, name = text.partition("_")
        if not underscore:
            domain, name = "", text
        name = name.replace("_", " ").strip()
        if not name:
            raise UserError(f"{where}: {shown(text)} has no name after the prefix")
        if label in by_label:
            raise UserError(f"{where}: label {label} is already {shown(by_label[label].name)}; "
                            "each class needs a label of its own")
        if (domain.lower(), name.lower()) in seen:
            raise UserError(f"{where}: a class is listed twice, {shown(text)}; remove one of "
                            "its lines")
        seen.add((domain.lower(), name.lower()))
        by_label[label] = ClassName(domain, name)
    gap = next((label for label in range(len(by_label)) if label not in by_label), None)
    if gap is not None:
        raise UserError(f"{path}: labels must be 0 to {len(by_label) - 1}; {gap} is missing")
    return [by_label[label] for label in range(len(by_label))]


def read_samples(path, folders, n_classes):
    """The images of a list with their labels.

    Args:
        path: file with a line `image label` an image.
        folders: where a relative image path may start, in this order, and which it may not
            leave.
        n_classes: labels must be below it.

    Returns:
        list of `Sample` in the file's order, each with the path of a file that exists. An
        image that is listed again counts once, with a warning.

    Raises:
        UserError: a bad row, a label outside the class list, an image that is nowhere, outside
            the folders, or listed with two labels.
    """
    labels, found, repeated = {}, {}, []
    for where, text, label in _labelled_rows(path, "path label", n_classes):
        if text not in found:
            found[text] = find_image(text, folders, where)
        if not _is_first(found[text], label, labels, where):
            repeated.append(where)
    if repeated:
        warnings.warn(f"{path}: {len(repeated)} lines name an image again, such as "
                      f"{repeated[0]}; it counts once", stacklevel=2)
    return [Sample(image, label) for image, label in labels.items()]


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
        UserError: data.shots is below 1.
    """
    if settings.shots < 1:
        raise UserError(f"data.shots is {settings.shots}; it must be at least 1")
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


def read_labels(path, n_classes, named=os.path.basename):
    """{image: label} of a label file for test images; errors as in `read_samples`.

    Args:
        path: the file. n_classes: C.
        named: function of an image's path in the file, what it is known by; its bare name by
            default.
    """
    labels = {}
    for where, text, label in _labelled_rows(path, "image label", n_classes):
        if leaves_folder(text):
            raise UserError(f"{where}: {shown(text)} leaves the folder of the test images; "
                            "write the image's name alone")
        _is_first(named(text), label, labels, where)
    return labels


def training_folders(root):
    """Where the image paths of `train.txt` may start, for a data folder `root`.

    'TrainSet/…' starts in it, 'Animal/…' in its TrainSet, which may lie in another TrainSet, and
    'Dataset/TrainSet/…' in the repository or, by its own name, in the folder.
    """
    train = os.path.join(root, "TrainSet")
    return [root, train, os.path.join(train, "TrainSet"), "."]


def list_images(folder):
    """Paths of the images in a folder in natural order (image_2 before image_10).

    The ending of the name tells an image, so that one that cannot be read gets its line of the
    result too; a warning tells of what else is in the folder.

    Raises:
        UserError: no such folder, no image in it, or an image whose name cannot stand in the
            result file: with a line break, or not UTF-8.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f"cannot read the image folder {folder}: {error.strerror}") from error
    images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)
              and not os.path.isdir(os.path.join(folder, name))]
    if not images:
        raise UserError(f"no images in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    check_names(folder, images, left_out=set(names) - set(images))
    return [os.path.join(folder, name) for name in sorted(images, key=natural_key)]


def check_names(folder, images, left_out):
    """Refuse image names that no result file can hold; warn of what is left out.

    Args:
        folder: text. images, left_out: names in it.
    """
    for name in images:
        if re.search("[\n\r\ud800-\udfff]", name):
            raise UserError(f"{folder}: the image name {ascii(name)} has a line break or is not "
                            "UTF-8, so the result file cannot hold it; rename the image")
    if left_out:
        warnings.warn(f"{folder}: {len(left_out)} names are left out, such as "
                      f"{ascii(min(left_out))}: folders, or no ending of an image", stacklevel=3)


def is_hidden(name):
    """Whether a file or folder of this name is hidden or an operating system's own.

    Such are no images and no classes, and nothing is said of them: '._1.jpg' is what a Mac leaves
    beside '1.jpg'.
    """
    return name.startswith(".") or name.casefold() in _LEFT_BY_SYSTEMS


def visible_names(folder):
    """Names in a folder that are not hidden, in natural order; none where it cannot be read."""
    try:
        return sorted((n for n in os.listdir(folder) if not is_hidden(n)), key=natural_key)
    except OSError:
        return []


def named_alike(root, name):
    """What else lies in a folder that may be meant by a name that is not there.

    Args:
        root: the folder.
        name: of a list in it ('classes.txt': 'classes_b.txt', 'Classes.txt') or of a folder of
            images ('TestSetB': 'TestSetA').

    Returns:
        list of names as `name` is written, relative to `root`, in natural order.
    """
    folder, wanted = os.path.split(os.path.normpath(name))
    place, ending = os.path.join(root, folder), os.path.splitext(wanted)[1].casefold()
    # The first word tells the kind: 'Test' of 'TestSetB', 'class' of 'classes' and 'class_names'.
    kind = re.match("[A-Za-z][a-z]*|", wanted)[0].casefold()[:5]
    found = []
    for other in visible_names(place):
        same_ending = os.path.splitext(other)[1].casefold() == ending
        is_kind = os.path.isfile if ending else os.path.isdir
        if (other != wanted and same_ending and is_kind(os.path.join(place, other))
                and (kind and other.casefold().startswith(kind)
                     or other.casefold() == wanted.casefold())):
            found.append(os.path.join(folder, other))
    return found


def inner_folder(folder, holds):
    """A folder, or the one in it that archives leave when they are unpacked into it.

    Args:
        folder: where something is looked for.
        holds: function of a folder, whether it is there.

    Returns:
        the folder itself, if it holds it or none does; else, with a warning, the one of its own
        name in it ('Dataset/Dataset'), or the only one in it.
    """
    place = folder
    for _ in range(3):
        if holds(place):
            break
        inner = [name for name in visible_names(place) if os.path.isdir(os.path.join(place, name))]
        own = os.path.basename(os.path.abspath(place)).casefold()
        inner = [name for name in inner if name.casefold() == own] or inner
        if len(inner) != 1:
            return folder
        place = os.path.join(place, inner[0])
    if not holds(place):
        return folder
    if place != folder:  # told from one place in the source, so that Python tells it once
        warnings.warn(f"{folder}: what lies in {place} is used", stacklevel=1)
    return place


def data_folder(root, name):
    """The folder that holds a list or a folder of the data: `root`, or its `inner_folder`."""
    return inner_folder(root, lambda folder: os.path.exists(os.path.join(folder, name)))


def data_path(settings, key):
    """The path of what a key of the config's section `data` names in data.root.

    Args:
        settings: the section. key: such as 'classes' or 'test_dir'.

    Raises:
        UserError: it is not there, and others of its kind are.
    """
    name = getattr(settings, key)
    path = os.path.join(data_folder(settings.root, name), name)
    if not os.path.exists(path):
        others = named_alike(settings.root, name)
        if others:
            raise UserError(f"{path} is not there, but {', '.join(others[:5])}; did you mean "
                            f"data.{key}={others[0]}?")
    return path


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
    return untrusted.read_text(path, _LAYOUT).lstrip("\ufeff")


def numbered_lines(path, form):
    """(where, line) of each line of a UTF-8 text that is not blank; `form` says what lines hold."""
    n_lines = 0
    for number, line in enumerate(map(str.strip, read_text(path).split("\n")), start=1):
        if line:
            n_lines += 1
            yield f"{path}, line {number}", line
    if n_lines == 0:
        raise UserError(f"{path} is empty; it needs lines '{form}'")


def refuse_odd_characters(where, text):
    """Refuse a name or path with a character that does not show; see `odd_character`."""
    odd = odd_character(text)
    if odd:
        raise UserError(f"{where}: {shown(text)} has the character {ascii(odd)}; remove it, or "
                        "write the file as UTF-8 text")


def _rows(path, form):
    """(where, text, label) of each line that is not blank."""
    for where, line in numbered_lines(path, form):
        text, *label = line.rsplit(None, 1)
        if not label or not re.fullmatch("[0-9]{1,9}", label[0]):
            raise UserError(f"{where}: {shown(line)} is not of the form '{form}'")
        refuse_odd_characters(where, text)
        yield where, text, int(label[0])


def _labelled_rows(path, form, n_classes):
    """`_rows` of labels that the class list has."""
    for where, text, label in _rows(path, form):
        if label >= n_classes:
            raise UserError(f"{where}: label {label} is outside the class list "
                            f"(0 to {n_classes - 1})")
        yield where, text, label


def _is_first(image, label, labels, where):
    """Note an image's label in `labels`; False if the same one is there already."""
    if image not in labels:
        labels[image] = label
        return True
    if labels[image] != label:
        raise UserError(f"{where}: {shown(image)} has another label above, {labels[image]}")
    return False


def find_image(name, folders, where):
    """The path of a listed image.

    Args:
        name: its path as the list has it.
        folders: where it may start, in this order, and which it may not leave.
        where: the place in the list, for the message.

    Raises:
        UserError: it is nowhere, or outside the folders.
    """
    shown_folders = ", ".join(map(os.path.normpath, folders))
    if os.path.isabs(name):
        candidates = [name] if any(_is_within(name, folder) for folder in folders) else []
    elif leaves_folder(name):
        candidates = []
    else:
        candidates = [path for folder in folders for path in _ways_to_write(name, folder)]
    if not candidates:
        raise UserError(f"{where}: {shown(name)} leaves the data's folders ({shown_folders})")
    for path in map(os.path.normpath, candidates):
        if os.path.isfile(path):
            return path
    raise UserError(f"{where}: no image {shown(name)}; looked in {shown_folders}")


def _ways_to_write(name, folder):
    """Where in a folder an image may lie that a list gives this relative path."""
    name = os.path.normpath(name)  # no '..' is left, which what is cut off below would set free
    # Lists write TrainSet once, twice or not at all, and so do the archives on disk.
    inside = re.sub(r"^(.*?/)?(TrainSet/)+", "", name)
    first, _, rest = name.partition("/")
    own = rest if first == os.path.basename(os.path.abspath(folder)) else name
    return [os.path.join(folder, way) for way in dict.fromkeys((name, inside, own)) if way]


def _is_within(path, folder):
    folder = os.path.abspath(folder)
    return os.path.commonpath([os.path.abspath(path), folder]) == folder
