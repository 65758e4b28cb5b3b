"""Reads the challenge's class, image and label lists and its folders as they are.

`classes.txt` has a line `Prefix_name label` a class: the prefix is the domain, underscores
are spaces; or `name label`. `train.txt` and label files have a line `path label` an image.
Byte-order marks, CRLF line ends, blank lines, tabs before the label, spaces in names and paths
and Windows' backslashes are accepted. A path in them that leads out of the folder it starts in is
refused.
"""

import os
import re
import warnings
from typing import NamedTuple

import numpy as np

from data.folders import data_folder, data_path, inner_folder, natural_key, visible_names
from data.formats import IMAGE_SUFFIXES, is_image
from data.names import domains_of, tell_reading, without_numbers
from system import untrusted
from system.errors import UserError
from system.untrusted import leaves_folder, odd_character, shown

N_LABELS = 5  # a line of an entry
_LAYOUT = "see the README for the layout of the data"
_PICKLE = re.compile(rb"\x80([\0-\5]|\Z)")


class ClassName(NamedTuple):
    """A class as `classes.txt` names it: 'Animal_polar_bear' -> ('Animal', 'polar bear')."""

    domain: str
    name: str


class Sample(NamedTuple):
    """An image file and its label."""

    path: str
    label: int


def read_classes(path, domains=True, known_domains=()):
    """The classes by label.

    Args:
        path: file with a line `Prefix_name label` or `name label` a class.
        domains: whether what is before the first underscore is a domain; None lets the list
            decide (`data.names.domains_of`), with a warning where it could be taken otherwise.
        known_domains: lower-case names of domains (`PromptLibrary.domains`), for that.

    Returns:
        list of `ClassName`; the index is the label.

    Raises:
        UserError: a bad row, a label or name given twice, or labels that are not 0 … C-1.
            Names that differ in case alone are the same: they would get the same prompts.
    """
    rows = list(_rows(path, "Prefix_name label"))
    texts = without_numbers([text for _, text, _ in rows], path)
    prefixes = [text.partition("_")[0].lower() if "_" in text else None for text in texts]
    if domains is None:
        taken = domains_of(prefixes, known_domains)
        tell_reading(path, texts, prefixes, taken, known_domains)
    else:
        taken = set(prefixes) if domains else set()
    by_label, seen = {}, set()
    for (where, _, label), text, prefix in zip(rows, texts, prefixes):
        domain, _, name = text.partition("_")
        if prefix is not None and not name.replace("_", " ").strip():
            raise UserError(f"{where}: {shown(text)} has no name after the prefix")
        if prefix is None or prefix not in taken:
            domain, name = "", text
        name = name.replace("_", " ").strip()
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


def challenge_classes(settings, known_domains=()):
    """The classes of the challenge's layout, as all scripts read them.

    Args:
        settings: the config's section `data`. known_domains: see `read_classes`, as for errors.
    """
    return read_classes(data_path(settings, "classes"), settings.domains, known_domains)


def read_samples(path, folders, n_classes):
    """The images of a list with their labels.

    Args:
        path: file with a line `image label` an image.
        folders: where a relative image path may start, in this order, and which it may not
            leave.
        n_classes: labels must be below it.

    Returns:
        list of `Sample` in the file's order, each with the path of a file that exists. An
        image that is listed again counts once, with a warning; another tells of paths that start
        on another machine.

    Raises:
        UserError: a bad row, a label outside the class list, an image that is nowhere, outside
            the folders, or listed with two labels.
    """
    labels, found, repeated, moved = {}, {}, [], []
    for where, text, label in _labelled_rows(path, "path label", n_classes):
        if text not in found:
            found[text] = find_image(text, folders, where)
            if is_absolute(text) and found[text] != os.path.normpath(text):
                moved.append(text)
        if not _is_first(found[text], label, labels, where):
            repeated.append(where)
    if repeated:
        warnings.warn(f"{path}: {len(repeated)} lines name an image again, such as "
                      f"{repeated[0]}; it counts once", stacklevel=2)
    if moved:
        warnings.warn(f"{path}: {len(moved)} paths start where nothing is, such as "
                      f"{shown(moved[0])}; what follows TrainSet in them is looked for in the data "
                      "folder", stacklevel=2)
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


def with_slashes(path):
    """A path as Linux writes it, 'TrainSet/Animal/7.jpg' for Windows' with backslashes."""
    return path.replace("\\", "/")


def is_absolute(path):
    """Whether a path is absolute, on Windows too: 'C:\\…', '\\\\server\\…'."""
    return with_slashes(path).startswith("/") or re.match("[A-Za-z]:[/\\\\]", path) is not None


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
    result too; a warning tells of what else is in the folder, but for what is hidden. Where the
    images lie a folder deeper, that is taken: see `inner_folder`.

    Raises:
        UserError: no such folder, no image in it, or an image whose name cannot stand in the
            result file: with a line break, or not UTF-8.
    """
    def images_in(place):
        return (name for name in visible_names(place)
                if is_image(name) and not os.path.isdir(os.path.join(place, name)))

    try:
        os.listdir(folder)
    except OSError as error:
        raise UserError(f"cannot read the image folder {folder}: {error.strerror}") from error
    folder = inner_folder(folder, lambda place: next(images_in(place), None) is not None)
    images = sorted(images_in(folder), key=natural_key)
    if not images:
        raise UserError(f"no images in {folder} ({', '.join(IMAGE_SUFFIXES)})")
    check_names(folder, images, left_out=set(visible_names(folder)) - set(images))
    return [os.path.join(folder, name) for name in images]


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


def read_text(path):
    """The text of a UTF-8 file, without a byte-order mark; a `UserError` names what is wrong."""
    return untrusted.read_text(path, _LAYOUT).lstrip("\ufeff")


def require_text(path, wanted):
    """Refuse a file of shots that is no text, such as the pickles of CoOp's runs.

    Args:
        path: data.shots_file. wanted: what it must be, for the message.
    """
    start = _first_bytes(path)
    pickled = _PICKLE.match(start)
    if pickled or b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
        kind = "a pickle, as CoOp's runs keep their few-shot choices" if pickled else "no text"
        raise UserError(f"data.shots_file {path} is {kind}; give {wanted}, or leave it out and set "
                        "data.shots and seed")


def is_pickle(path):
    """Whether a file begins as pickles of protocol 2 and above do; False where there is none."""
    return _PICKLE.match(_first_bytes(path)) is not None


def _first_bytes(path):
    """The first bytes of a file; none where it cannot be read, as its reader tells."""
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""


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
    ways, inside = [name], with_slashes(name)
    if inside != name:  # Windows' separators, unless a file is really called so
        ways.append(inside)
    if is_absolute(name) and not os.path.lexists(name) and "/TrainSet/" in os.path.normpath(inside):
        ways.append(_below_train_set(inside))  # of another machine
    candidates = [path for way in ways for path in _candidates(way, folders)]
    for path in map(os.path.normpath, candidates):
        if os.path.isfile(path):
            return path
    if not candidates or not _candidates(ways[-1], folders):
        raise UserError(f"{where}: {shown(name)} leaves the data's folders ({shown_folders})")
    raise UserError(f"{where}: no image {shown(name)}; looked in {shown_folders}")


def _candidates(name, folders):
    """Where an image may lie, of which a list gives this path; none if that leaves the folders."""
    if os.path.isabs(name):
        return [name] if any(_is_within(name, folder) for folder in folders) else []
    if leaves_folder(name) or re.match("[A-Za-z]:/", name):
        return []
    return [path for folder in folders for path in _ways_to_write(name, folder)]


def _ways_to_write(name, folder):
    """Where in a folder an image may lie that a list gives this relative path."""
    name = os.path.normpath(name)  # no '..' is left, which what is cut off below would set free
    inside = _below_train_set(name)
    first, _, rest = name.partition("/")
    own = rest if first == os.path.basename(os.path.abspath(folder)) else name
    return [os.path.join(folder, way) for way in dict.fromkeys((name, inside, own)) if way]


def _below_train_set(path):
    """What follows TrainSet: lists write it once, twice or not at all, and so do archives."""
    return re.sub(r"^(.*?/)?(TrainSet/)+", "", os.path.normpath(path))


def _is_within(path, folder):
    folder = os.path.abspath(folder)
    return os.path.commonpath([os.path.abspath(path), folder]) == folder
