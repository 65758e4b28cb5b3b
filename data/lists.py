"""Reads class, image and label lists as they are.

`classes.txt` has a line `Prefix_name label` a class: the prefix is the domain, underscores
are spaces; or `name label`. `train.txt` and label files have a line `path label` an image.
Byte-order marks, CRLF line ends, blank lines, tabs before the label, spaces in names and paths
and Windows' backslashes are accepted.
"""

import os
import re
import warnings
from typing import NamedTuple

from data.image_paths import find_image, is_absolute
from data.names import domains_of, tell_reading, without_numbers
from system import untrusted
from system.errors import UserError
from system.untrusted import leaves_folder, odd_character, shown

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
