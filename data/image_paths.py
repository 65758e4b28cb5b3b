"""Finds the images that lists name, and those of a folder.

A list's path that leads out of the folders it may start in is refused.
"""

import os
import re
import warnings

from data.folders import inner_folder, natural_key, visible_names
from data.formats import IMAGE_SUFFIXES, is_image
from system.errors import UserError
from system.untrusted import leaves_folder, shown


def training_folders(root):
    """Where the image paths of `train.txt` may start, for a data folder `root`.

    'TrainSet/…' starts in it, 'Animal/…' in its TrainSet, which may lie in another TrainSet, and
    'Dataset/TrainSet/…' in the repository or, by its own name, in the folder.
    """
    train = os.path.join(root, "TrainSet")
    return [root, train, os.path.join(train, "TrainSet"), "."]


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


def with_slashes(path):
    """A path as Linux writes it, 'TrainSet/Animal/7.jpg' for Windows' with backslashes."""
    return path.replace("\\", "/")


def is_absolute(path):
    """Whether a path is absolute, on Windows too: 'C:\\…', '\\\\server\\…'."""
    return with_slashes(path).startswith("/") or re.match("[A-Za-z]:[/\\\\]", path) is not None


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
