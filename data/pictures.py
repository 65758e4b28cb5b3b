"""Own pictures: a folder of class folders, `DIR/cat/1.jpg`, or a CSV of paths and labels."""

import csv
import io
import os
from typing import NamedTuple

import numpy as np

from data.challenge import (
    IMAGE_SUFFIXES,
    Sample,
    check_names,
    few_shot,
    find_image,
    natural_key,
    numbered_lines,
    read_text,
    refuse_odd_characters,
)
from models.errors import UserError
from models.untrusted import shown


class Picture(NamedTuple):
    """An image of one's own.

    Attributes:
        path: where it is. file: how results call it, relative to the folder or as in the CSV.
        name: of its class, '' where it is not known.
    """

    path: str
    file: str
    name: str


def load_pictures(settings, seed, library):
    """The `Challenge` of own pictures.

    Args:
        settings: the config's section `data`. `images`: see `read_pictures`; `new_classes`: a
            file of names of classes without pictures, one a line, or None.
        seed: chooses the shots.
        library: `prompts.PromptLibrary`, which knows the domains of class names.

    Returns:
        `Challenge`; labels count the classes as they come, then the new ones.

    Raises:
        UserError: a `shots_file`, a picture without a class, fewer than two classes, a class
            named twice; see `read_pictures` and `few_shot`.
    """
    if settings.shots_file is not None:
        raise UserError(f"data.shots_file is {settings.shots_file}; the shots of own pictures are "
                        "chosen by seed, so leave it out, or leave out --images")
    pictures = read_pictures(settings.images)
    for picture in pictures:
        if not picture.name:
            raise UserError(f"{picture.file} of {settings.images} has no class; put it into a "
                            "class's folder, or write its label into the CSV")
    names = list(dict.fromkeys(picture.name for picture in pictures))
    if len(names) < 2:
        raise UserError(f"{settings.images} has the one class {names[0]!r}; it needs two")
    new = [] if settings.new_classes is None else read_names(settings.new_classes)
    by_key = {}
    for name in names + new:
        if name.casefold() in by_key:
            raise UserError(f"the class {name!r} is there already, as "
                            f"{by_key[name.casefold()]!r}; name each in one way, and as new "
                            f"({settings.new_classes}) only what has no pictures")
        by_key[name.casefold()] = name
    label_of = {name: label for label, name in enumerate(names)}
    samples = [Sample(picture.path, label_of[picture.name]) for picture in pictures]
    return few_shot(library.class_names(names + new), samples, settings, seed)


def read_pictures(path):
    """The images of a folder or of a CSV.

    Args:
        path: a folder: an image's class is the first folder below it, and unknown for images
            that lie in it directly. Or a CSV, whose first line names its columns: path
            (absolute, or relative to the CSV or the working folder) and, where known, label, a
            name.
            Underscores in names are spaces.

    Returns:
        list of `Picture`, not empty; a folder's in natural order, a CSV's in its own.

    Raises:
        UserError: neither a folder nor a CSV, a bad line, an image that is nowhere or listed
            twice, no image.
    """
    if os.path.isdir(path):
        pictures = [Picture(os.path.join(path, file), file,
                            _readable(file.rpartition(os.sep)[0].split(os.sep)[0]))
                    for file in files_below(path)]
    elif path.lower().endswith(".csv"):
        pictures = list(_rows_of_csv(path))
    else:
        raise UserError(f"{path} is neither a folder of images nor a .csv file")
    if not pictures:
        raise UserError(f"no images in {path} ({', '.join(IMAGE_SUFFIXES)})")
    return pictures


def labels_of_pictures(pictures, classes):
    """The label of each picture, int array (N,), -1 for none of `classes`, list of `ClassName`."""
    label_of = {c.name.casefold(): label for label, c in enumerate(classes)}
    return np.array([label_of.get(picture.name.casefold(), -1) for picture in pictures])


def files_below(folder):
    """Images in a folder and in those below it, relative to it, in natural order.

    Hidden files and folders are left out, and, with a warning, files without an image's ending.

    Raises:
        UserError: a name that no result file can hold.
    """
    files, others = [], []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if not name.startswith("."):
                kind = files if name.lower().endswith(IMAGE_SUFFIXES) else others
                kind.append(os.path.relpath(os.path.join(place, name), folder))
    check_names(folder, files, left_out=others)
    return sorted(files, key=lambda file: [natural_key(part) for part in file.split(os.sep)])


def read_names(path):
    """The class names of a file, one a line; underscores are spaces."""
    names = []
    for where, line in numbered_lines(path, "class name"):
        refuse_odd_characters(where, line)
        names.append(_readable(line))
    return names


def _rows_of_csv(path):
    reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
    try:
        columns = reader.fieldnames or ()
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not CSV: {error}") from error
    if "path" not in columns:
        raise UserError(f"{path}, line 1: the columns must be named: path,label")
    seen = set()
    for where, row in rows:
        if None in row or None in row.values():
            raise UserError(f"{where}: not as many columns as line 1 names; put a text with a "
                            'comma into "quotes"')
        file, label = row["path"], row.get("label", "")
        refuse_odd_characters(where, file + label)
        # The user's own list, which may name images anywhere by their whole path.
        image = file if os.path.isabs(file) else find_image(
            file, (os.path.dirname(path), "."), where)
        if not os.path.isfile(image):
            raise UserError(f"{where}: no image {shown(file)}")
        if image in seen:
            raise UserError(f"{where}: {shown(file)} is listed twice; remove one of its lines")
        seen.add(image)
        yield Picture(image, file, _readable(label))


def _readable(name):
    return name.replace("_", " ").strip()
