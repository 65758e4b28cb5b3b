"""Own pictures: a folder of class folders, `DIR/cat/1.jpg`, or a CSV of paths and labels."""

import csv
import io
import os
import re
import warnings
from typing import NamedTuple

import numpy as np

from data.challenge import few_shot
from data.folders import is_hidden, natural_key
from data.formats import IMAGE_SUFFIXES, is_image, needs_package
from data.image_paths import check_names, with_slashes
from data.lists import Sample, numbered_lines, read_text, refuse_odd_characters
from data.names import without_numbers
from system.errors import UserError
from system.untrusted import shown

# Folders that part a data set, 'train', 'ValidSet', 'test_images': they are no classes.
_PART = re.compile(r"(train(ing)?|val(id(ation)?)?|dev|eval(uation)?|test(ing)?)"
                   r"([ _-]?(set|data|split|images?|imgs?))?([ _-]?[ab]|[ _-]?[0-9]+)?", re.I)


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
    pictures = _readable_here(read_pictures(settings.images), settings.images)
    for picture in pictures:
        if not picture.name:
            raise UserError(f"{picture.file} of {settings.images} has no class; put it into a "
                            "class's folder, or write its label into the CSV")
    names = list(dict.fromkeys(picture.name for picture in pictures))
    if len(names) < 2:
        raise UserError(f"{settings.images} has the one class {names[0]!r}; it needs two")
    label_of = {name: label for label, name in enumerate(names)}
    names = without_numbers(names, settings.images)
    new = [] if settings.new_classes is None else read_names(settings.new_classes)
    by_key = {}
    for name in names + new:
        if name.casefold() in by_key:
            raise UserError(f"the class {name!r} is there already, as "
                            f"{by_key[name.casefold()]!r}; name each in one way, and as new "
                            f"({settings.new_classes}) only what has no pictures")
        by_key[name.casefold()] = name
    samples = [Sample(picture.path, label_of[picture.name]) for picture in pictures]
    return few_shot(library.class_names(names + new), samples, settings, seed)


def _readable_here(pictures, path):
    """Pictures to train on, without those that need a package that is not installed.

    A warning names the first of them, and the classes of which none are left.
    """
    cures = {picture: needs_package(picture.file) for picture in pictures}
    lost = [picture for picture in pictures if cures[picture]]
    kept = [picture for picture in pictures if not cures[picture]]
    if not lost:
        return pictures
    if not kept:
        raise UserError(f"{path}: no picture can be read ({cures[lost[0]]})")
    names = {picture.name for picture in kept}
    gone = [name for name in dict.fromkeys(picture.name for picture in lost)
            if name and name not in names]
    classes = f", so that {_listed(gone)} are no classes" if gone else ""
    warnings.warn(f"{path}: {len(lost)} pictures are left out{classes}, such as {lost[0].file} "
                  f"({cures[lost[0]]})", stacklevel=3)
    return kept


def _listed(names):
    """The first names of a list, and how many there are."""
    return ", ".join(map(shown, names[:3])) + (f" … ({len(names)})" if len(names) > 3 else "")


def read_pictures(path, part="train"):
    """The images of a folder or of a CSV.

    Args:
        path: a folder: an image's class is the first folder below it, and unknown for images
            that lie in it directly. Or a CSV, whose first line names its columns: path
            (absolute, or relative to the CSV or the working folder) and, where known, label, a
            name.
            Underscores in names are spaces.
        part: which of a data set's parts is wanted, 'train' or 'test', for the message where the
            folder holds parts instead of classes.

    Returns:
        list of `Picture`, not empty; a folder's in natural order, a CSV's in its own.

    Raises:
        UserError: neither a folder nor a CSV, a folder of parts, a bad line, an image that is
            nowhere or listed twice, no image.
    """
    if os.path.isdir(path):
        files = files_below(path)
        inner = os.path.basename(os.path.abspath(path))
        if files and all(file.startswith(inner + os.sep) and file.count(os.sep) > 1
                         for file in files):  # an archive that was unpacked into its own name
            inner = os.path.join(path, inner)
            warnings.warn(f"{path}: what lies in {inner} is used", stacklevel=1)
            return read_pictures(inner, part)
        _refuse_parts(path, files, part)
        pictures = [Picture(os.path.join(path, file), file,
                            _readable(file.rpartition(os.sep)[0].split(os.sep)[0]))
                    for file in files]
    elif path.lower().endswith((".csv", ".tsv")):
        pictures = list(_rows_of_csv(path))
    else:
        cure = "; save a table as 'CSV UTF-8'" if os.path.isfile(path) else ""
        raise UserError(f"{path} is neither a folder of images nor a .csv file{cure}")
    if not pictures:
        raise UserError(f"no images in {path} ({', '.join(IMAGE_SUFFIXES)})")
    return pictures


def _refuse_parts(path, files, wanted):
    """Refuse a folder whose folders are parts of a data set with the classes' folders in them."""
    depths = {}  # of each folder's images, the least
    for file in files:
        first, *rest = file.split(os.sep)
        if rest:
            depths[first] = min(len(rest), depths.get(first, len(rest)))
    if not all(map(_PART.fullmatch, depths)) or max(depths.values(), default=1) == 1:
        return
    order = ("train",) if wanted == "train" else ("test", "val", "dev", "eval")
    names = sorted(depths, key=lambda name: next(
        (i for i, start in enumerate(order) if name.lower().startswith(start)), len(order)))
    raise UserError(f"{path} holds {', '.join(sorted(depths))}, which are no classes but hold the "
                    f"classes' folders; name one of them: --images {os.path.join(path, names[0])}")


def labels_of_pictures(pictures, classes):
    """The label of each picture, int array (N,), -1 for none of `classes`, list of `ClassName`."""
    label_of = {c.name.casefold(): label for label, c in enumerate(classes)}
    names = list(dict.fromkeys(picture.name for picture in pictures))
    found = {name: label_of.get(name.casefold(), -1) for name in names}
    # As in training, the number before a name may be left out.
    unknown = [name for name in names if found[name] < 0]
    if unknown:
        for name, without in zip(unknown, without_numbers(unknown, "the pictures")):
            found[name] = label_of.get(without.casefold(), -1)
    return np.array([found[picture.name] for picture in pictures])


def files_below(folder):
    """Images in a folder and in those below it, relative to it, in natural order.

    Hidden files and folders are left out, and, with a warning, files without an image's ending.
    Another tells of folders in it that hold no image.

    Raises:
        UserError: a name that no result file can hold.
    """
    files, others, kinds = [], [], []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        kinds = kinds or list(folders)
        for name in names:
            if not is_hidden(name):
                kind = files if is_image(name) else others
                kind.append(os.path.relpath(os.path.join(place, name), folder))
    check_names(folder, files, left_out=others)
    empty = sorted(set(kinds) - {file.split(os.sep)[0] for file in files}, key=natural_key)
    if empty:
        warnings.warn(f"{folder}: {len(empty)} folders hold no image and are no classes: "
                      f"{_listed(empty)}", stacklevel=2)
    return sorted(files, key=lambda file: [natural_key(part) for part in file.split(os.sep)])


def read_names(path):
    """The class names of a file, one a line; underscores are spaces."""
    names = []
    for where, line in numbered_lines(path, "class name"):
        refuse_odd_characters(where, line)
        names.append(_readable(line))
    return without_numbers(names, path)


def _rows_of_csv(path):
    """The `Picture`s of a CSV, as programs write them: with commas, semicolons or tabs."""
    lines = list(io.StringIO(_text_of_table(path), newline=None))
    between = None
    if lines and re.fullmatch(r"sep=.\s*", lines[0]):  # Excel's own
        between, lines[0] = lines[0][4], "\n"
    header = next((line for line in lines if line.strip()), "")
    between = between or max(",;\t", key=header.count)
    reader = csv.reader(lines, delimiter=between, skipinitialspace=True)
    try:
        rows = [(f"{path}, line {reader.line_num}", row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num} is not CSV: {error}") from error
    rows = [(where, row) for where, row in rows if "".join(row).strip()]  # Excel has ',,'
    columns = [name.strip().casefold() for name in rows[0][1]] if rows else []
    if "path" not in columns:
        raise UserError(f"{path}, line 1: the columns must be named: path,label")
    for name in ("path", "label"):
        if columns.count(name) > 1:
            raise UserError(f"{path}, line 1: two columns are named {name}")
    while not columns[-1]:
        columns.pop()
    seen = set()
    for where, row in rows[1:]:
        if len(row) < len(columns) or "".join(row[len(columns):]).strip():
            raise UserError(f"{where}: not as many columns as line 1 names; put a text with a "
                            'comma into "quotes"')
        values = dict(zip(columns, row))
        file, label = values["path"], values.get("label", "")
        refuse_odd_characters(where, file + label)
        image = _image_of_row(file, os.path.dirname(path))
        if image is None:
            file = file.strip()
            image = _image_of_row(file, os.path.dirname(path))
        if image is None:
            raise UserError(f"{where}: no image {shown(file)}")
        if image in seen:
            raise UserError(f"{where}: {shown(file)} is listed twice; remove one of its lines")
        seen.add(image)
        yield Picture(image, file, _readable(label))


def _text_of_table(path):
    """The text of a CSV in UTF-8, or in UTF-16, which Excel calls Unicode."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        return read_text(path)  # which tells what is wrong
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); convert it, in Excel by "
                        "saving it as 'CSV UTF-8'") from error


def _image_of_row(file, folder):
    """Where the image of a user's own list lies, None if nowhere: anywhere, as its path says.

    A relative path starts at the list's folder or in the working folder; Windows' separators
    count as ours where nothing is called so.
    """
    for way in dict.fromkeys((file, with_slashes(file))):
        for start in (folder, "."):
            path = os.path.normpath(os.path.join(start, way))
            if way and os.path.isfile(path):
                return path
    return None


def _readable(name):
    return name.replace("_", " ").strip()
