"""Folders as people have them: what is hidden in them, what lies one deeper, what may be meant."""

import difflib
import os
import re
import warnings

from system.errors import UserError

# What operating systems and tools leave in folders, beside what begins with a point.
_LEFT_BY_SYSTEMS = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx",
    "$recycle.bin", "#recycle", "system volume information", "lost+found", "@eadir"}


def is_hidden(name):
    """Whether a file or folder of this name is hidden or an operating system's own.

    Such are no images and no classes, and nothing is said of them: '._1.jpg' is what a Mac leaves
    beside '1.jpg'.
    """
    return name.startswith(".") or name.casefold() in _LEFT_BY_SYSTEMS


def visible_names(folder):
    """Names in a folder that are not hidden, list; none where it cannot be read."""
    try:
        return [name for name in os.listdir(folder) if not is_hidden(name)]
    except OSError:
        return []


def named_alike(root, name):
    """What else lies in a folder that may be meant by a name that is not there.

    Args:
        root: the folder.
        name: of a list in it ('classes.txt': 'classes_b.txt', 'Classes.txt') or of a folder of
            images ('TestSetB': 'TestSetA').

    Returns:
        list of names as `name` is written, relative to `root`, the likest first.
    """
    folder, wanted = os.path.split(os.path.normpath(name))
    place, ending = os.path.join(root, folder), os.path.splitext(wanted)[1].casefold()
    # The first word tells the kind: 'Test' of 'TestSetB', 'class' of 'classes' and 'class_names'.
    kind = re.match("[A-Za-z][a-z]*|", wanted)[0].casefold()[:5]
    found = []
    for other in sorted(visible_names(place), key=natural_key):
        same_ending = os.path.splitext(other)[1].casefold() == ending
        is_kind = os.path.isfile if ending else os.path.isdir
        if (other != wanted and same_ending and is_kind(os.path.join(place, other))
                and (kind and other.casefold().startswith(kind)
                     or other.casefold() == wanted.casefold())):
            found.append(other)
    found.sort(key=lambda other: -difflib.SequenceMatcher(
        None, other.casefold(), wanted.casefold()).ratio())
    return [os.path.join(folder, other) for other in found]


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
