"""The few-shot benchmarks, as CoOp's users have them on disk.

Folders and splits are CoOp's (Zhou et al. 2021, arXiv 2109.01134); few-shot choices are read as
CoOp keeps them and as 2SFS publishes them (Farina et al. 2025, arXiv 2503.11609).
"""

import json
import math
import os
from typing import NamedTuple

from data.challenge import few_shot
from data.folders import data_folder, data_path
from data.image_paths import find_image, with_slashes
from data.lists import ClassName, Sample, is_pickle, numbered_lines, require_text
from data.pictures import files_below
from system.errors import UserError
from system.files import read_pickle
from system.torch_archive import read_pickled_tensors
from system.untrusted import leaves_folder, read_json, shown

SETTINGS = ("all-to-all", "base-to-new")
PARTS = ("train", "val", "test")


class Benchmark(NamedTuple):
    """A benchmark's classes by label, list of names, and its parts, lists of `Sample`."""

    names: list
    train: list
    val: list
    test: list


def load_benchmark(settings, seed):
    """The `Challenge` of a benchmark.

    In the setting base-to-new the first half of the classes, rounded up, are trained on and
    the others new (Zhou et al. 2022, arXiv 2203.05557). Validation images are from the
    benchmark's own validation part where it has one.

    Args:
        settings: the config's section `data`. `shots_file` may be 2SFS's
            'shot_4-seed_1_train.jsonl', with the validation images in '…_val.jsonl' beside it, or
            CoOp's 'shot_4-seed_1.pkl', which has both.
        seed: chooses the shots.
    """
    if settings.setting not in SETTINGS:
        raise UserError(f"data.setting is {settings.setting!r}; it must be one of "
                        f"{', '.join(SETTINGS)}")
    benchmark = read_benchmark(settings)
    n_base = C = len(benchmark.names)
    if settings.setting == "base-to-new":
        n_base = math.ceil(C / 2)

    def of_base(samples):
        return [sample for sample in samples if sample.label < n_base]

    train, validation = None, of_base(benchmark.val) or None
    if settings.shots_file is not None and is_pickle(settings.shots_file):
        train, found = (of_base(each) for each in read_coop_shots(
            settings.shots_file, settings, benchmark.names))
        validation = found or validation
    elif settings.shots_file is not None:
        require_text(settings.shots_file, "2SFS's .jsonl or CoOp's .pkl")
        train = of_base(read_jsonl(settings.shots_file, settings, benchmark.names))
        beside = settings.shots_file.replace("_train.jsonl", "_val.jsonl")
        if beside != settings.shots_file and os.path.exists(beside):
            validation = of_base(read_jsonl(beside, settings, benchmark.names))
    challenge = few_shot(benchmark_classes(settings, benchmark.names), of_base(benchmark.train),
                         settings, seed, train, validation)
    for sample in challenge.train + challenge.validation:
        require_image(sample.path, settings)
    return challenge


def benchmark_classes(settings, names):
    """The `ClassName`s of a benchmark, all in the domain that the settings give."""
    return [ClassName(settings.domain or "", name.replace("_", " ")) for name in names]


def require_image(path, settings):
    """Refuse a path that a benchmark's split lists and that is no file."""
    if not os.path.isfile(path):
        raise UserError(f"no image {path}, which {settings.split} lists; set data.root and "
                        "data.split_images to where the images are")


def read_benchmark(settings):
    """A benchmark as its split file tells it; whether the images are there is not looked at.

    Args:
        settings: the config's section `data`: `split` in `root` is CoOp's JSON with lists
            'train', 'val' and 'test' of [path, label, class name]; or FGVC-Aircraft's
            variants.txt beside its images_variant_*.txt; or CoOp's classnames.txt of ImageNet
            ('n01440764 tench') beside folders train and val, whose val is the test part.

    Returns:
        `Benchmark`.

    Raises:
        UserError: a file that is missing or of another form.
    """
    path = data_path(settings, "split")
    root = data_folder(settings.root, settings.split)
    images = os.path.normpath(os.path.join(root, settings.split_images))
    kind = os.path.basename(path)
    if kind == "variants.txt":
        return _read_aircraft(path, images)
    if kind == "classnames.txt":
        return _read_imagenet(path, images)
    return _read_split(path, images)


def _read_split(path, images):
    try:
        content = read_json(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; set data.root to the benchmark's "
                        "folder") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); get it again") from error
    if not isinstance(content, dict) or not all(
            isinstance(content.get(part), list) for part in PARTS):
        raise UserError(f"{path} is no split: it needs the lists {', '.join(PARTS)}")
    name_of, parts = {}, []
    for part in PARTS:
        samples = []
        for i, row in enumerate(content[part]):
            if not isinstance(row, list) or [type(v) for v in row] != [str, int, str]:
                raise UserError(f"{path}: {part}[{i}] is {shown(row)}, not [path, label, class "
                                "name]")
            file, label, name = row
            image = _image_path(images, file, f"{path}: {part}[{i}]")
            if name_of.setdefault(label, name) != name:
                raise UserError(f"{path}: {part}[{i}] calls label {label} {shown(name)}, a row "
                                f"before it {shown(name_of[label])}")
            samples.append(Sample(image, label))
        parts.append(samples)
    if sorted(name_of) != list(range(len(name_of))):
        raise UserError(f"{path}: the labels are not 0 to {len(name_of) - 1}")
    return Benchmark([name_of[label] for label in range(len(name_of))], *parts)


def _read_aircraft(path, images):
    names = [line for _, line in numbered_lines(path, "class name")]
    label_of = {name: label for label, name in enumerate(names)}
    parts = []
    for part in PARTS:
        listing = os.path.join(os.path.dirname(path), f"images_variant_{part}.txt")
        samples = []
        for where, line in numbered_lines(listing, "image class name"):
            image, _, name = line.partition(" ")
            if name not in label_of:
                raise UserError(f"{where}: {shown(line)} names no class of {path}")
            samples.append(Sample(_image_path(images, f"{image}.jpg", where), label_of[name]))
        parts.append(samples)
    return Benchmark(names, *parts)


def _read_imagenet(path, images):
    name_of = dict(line.partition(" ")[::2] for _, line in numbered_lines(path, "folder name"))
    parts = []
    for part in ("train", "val"):
        folder = os.path.join(images, part)
        if not os.path.isdir(folder):
            raise UserError(f"no folder {folder}; set data.root and data.split_images")
        parts.append(files_below(folder))
    folders, test_folders = (sorted({file.split(os.sep)[0] for file in files})
                             for files in parts)
    unknown = next((f for f in folders if f not in name_of), None)
    if unknown is not None:
        raise UserError(f"{path} has no name for the folder {unknown} of {images}")
    unknown = next((f for f in test_folders if f not in folders), None)
    if unknown is not None:
        raise UserError(f"{os.path.join(images, 'val', unknown)} is in no class that "
                        f"{os.path.join(images, 'train')} has; sort val into train's folders")
    label_of = {folder: label for label, folder in enumerate(folders)}
    train, test = ([Sample(os.path.join(images, part, file), label_of[file.split(os.sep)[0]])
                    for file in files] for part, files in zip(("train", "val"), parts))
    return Benchmark([name_of[folder] for folder in folders], train, [], test)


def read_jsonl(path, settings, names):
    """A few-shot choice as 2SFS publishes it.

    Args:
        path: file with a JSON object a line: `_impath`, which starts at the folder that holds
            all data sets ('caltech-101/101_ObjectCategories/…'), `_label` and `_classname`.
        settings: the config's section `data`.
        names: list of the benchmark's class names by label, which must agree.

    Returns:
        list of `Sample`.

    Raises:
        UserError: a bad line, or an image that is nowhere.
    """
    folders = [os.path.join(data_folder(settings.root, settings.split), folder)
               for folder in (os.pardir, os.curdir, settings.split_images)]
    samples = []
    for where, line in numbered_lines(path, '{"_impath": …}'):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = line
        file, label = _row_of_a_choice(row, where, settings, names)
        samples.append(Sample(find_image(file, folders, where), label))
    return samples


def read_coop_shots(path, settings, names):
    """A few-shot choice as CoOp keeps it: a pickle of objects with the same three attributes.

    The paths are those of the machine that chose; of each counts the longest end that lies in the
    data's folders here.

    Args:
        path: file of {'train': [Datum, …], 'val': [Datum, …]}. settings, names: see `read_jsonl`.

    Returns:
        (train, val): lists of `Sample`.

    Raises:
        UserError: a file of another kind, or an image that is nowhere.
    """
    content = read_pickle(path, read_pickled_tensors)
    if not isinstance(content, dict) or not all(
            isinstance(content.get(part, []), list) for part in ("train", "val")):
        raise UserError(f"data.shots_file {path} is a pickle of another kind than CoOp's, which "
                        "has the lists train and val; give 2SFS's .jsonl, or leave it out")
    root = data_folder(settings.root, settings.split)
    folders = [os.path.join(root, settings.split_images), root]
    parts = []
    for part in ("train", "val"):
        samples = []
        for i, datum in enumerate(content.get(part, [])):
            where = f"{path}: {part}[{i}]"
            state = next((each for each in getattr(datum, "content", ())
                          if isinstance(each, dict)), datum)
            file, label = _row_of_a_choice(state, where, settings, names)
            words = [word for word in with_slashes(file).split("/") if word not in ("", ".", "..")]
            ends = (os.path.join(folder, *words[start:]) for start in range(len(words))
                    for folder in folders)
            found = next(filter(os.path.isfile, ends), None)
            if found is None:
                raise UserError(f"{where}: no image {shown(file)}, nor an end of that path in "
                                f"{' or '.join(map(os.path.normpath, folders))}")
            samples.append(Sample(os.path.normpath(found), label))
        parts.append(samples)
    return tuple(parts)


def _row_of_a_choice(row, where, settings, names):
    """(path, label) of an image that was chosen, a dict; its class must be the benchmark's."""
    try:
        file, label, name = (row[key] for key in ("_impath", "_label", "_classname"))
    except (TypeError, KeyError):
        raise UserError(f"{where}: {shown(row)} is no object with _impath, _label and "
                        "_classname") from None
    if [type(v) for v in (file, label, name)] != [str, int, str] or (
            not 0 <= label < len(names) or names[label] != name):
        raise UserError(f"{where}: label {shown(label)} and name {shown(name)} are no class of "
                        f"{settings.split}")
    return file, label


def _image_path(images, file, where):
    """Where an image that a list names lies, whether it is there or not.

    Windows' separators count as ours, unless a file is really called so.
    """
    path = os.path.join(images, file)
    if "\\" in file and not os.path.isfile(path):
        file = with_slashes(file)
        path = os.path.join(images, file)
    if leaves_folder(file):
        raise UserError(f"{where}: {shown(file)} leaves the benchmark's folder")
    return path
