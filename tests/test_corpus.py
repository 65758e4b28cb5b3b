"""The corpus: every bad or odd input ends as it is documented to."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from configs import load_config
from data.image_paths import list_images, training_folders
from data.lists import ClassName, read_classes, read_labels, read_samples
from data.pictures import files_below
from data.views import decode
from prompts import PromptLibrary
from runs.submission import check_entry
from system.errors import UserError
from system.files import read_pickle, write_pickle
from tests.conftest import WITHOUT_ROOTS_RIGHTS
from tests.corpus import check, checkpoints, images, lists, prompts, settings, weights
from tests.workplace import CLASSES, ROOT, run

pytestmark = pytest.mark.slow

CORPUS = {"classes": lists.CLASSES, "train": lists.TRAIN, "labels": lists.LABELS,
          "classes without domains": lists.CLASSES_WITHOUT_DOMAINS,
          "entries": lists.ENTRIES, "configs": settings.CONFIGS, "prompts": prompts.PROMPTS,
          "images": images.FILES, "checkpoints": checkpoints.CHECKPOINTS,
          "weights": weights.WEIGHTS, "configs beside weights": weights.CONFIGS_BESIDE}


def each(cases):
    """Parametrise a test by cases."""
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def what_is_there(path):
    """What a case wrote: the bytes, or the kind of what is no file."""
    if path.is_symlink():
        return os.readlink(path).replace(path.name, "itself")
    if path.is_dir():
        return tuple(sorted((str(each.relative_to(path)), each.stat().st_size)
                            for each in path.rglob("*")))
    if not path.is_file():
        return path.stat().st_mode if path.exists() else None
    return hashlib.sha1(path.read_bytes()).digest()


@pytest.mark.parametrize("kind", CORPUS)
def test_no_two_cases_of_a_kind_are_the_same_file(kind, tmp_path):
    seen = {}
    for i, case in enumerate(CORPUS[kind]):
        path = tmp_path / str(i)
        case.write(path)
        other = seen.setdefault(what_is_there(path), case.name)
        assert other == case.name, f"{other} is {case.name}"


def test_the_corpus_is_large():
    assert sum(map(len, CORPUS.values())) >= 300


@each(lists.CLASSES)
def test_class_lists(case, tmp_path):
    check(case, tmp_path / "classes.txt", read_classes)


@pytest.fixture(scope="module")
def training_images(tmp_path_factory):
    place = tmp_path_factory.mktemp("outside") / "place"
    lists.training_images(place)
    return place


@each(lists.CLASSES_WITHOUT_DOMAINS)
def test_class_lists_that_may_have_no_domains(case, tmp_path):
    check(case, tmp_path / "classes.txt",
          lambda path: read_classes(path, None, {"animal", "food-101", "dog"}))


@each(lists.TRAIN)
def test_training_lists(case, tmp_path, training_images, monkeypatch):
    monkeypatch.chdir(training_images)
    check(case, tmp_path / "train.txt",
          lambda path: read_samples(path, training_folders("Dataset"), 3))


@each(lists.LABELS)
def test_label_files(case, tmp_path):
    check(case, tmp_path / "labels.txt", lambda path: read_labels(path, 3))


@each(lists.ENTRIES)
def test_entries(case, tmp_path):
    check(case, tmp_path / "result.txt", lambda path: check_entry(path, lists.IMAGES, 10))


def differences_of(path):
    """The settings of a file that differ from the defaults, as {section: {key: value}}."""
    ours, defaults = load_config(path).to_dict(), load_config().to_dict()
    found = {}
    for section, values in ours.items():
        if isinstance(values, dict):
            values = {key: v for key, v in values.items() if v != defaults[section][key]}
        if values != defaults[section] and values != {}:
            found[section] = values
    return found


@each(settings.CONFIGS)
def test_config_files(case, tmp_path):
    check(case, tmp_path / "config.yaml", differences_of)


@each(prompts.PROMPTS)
def test_prompt_files(case, tmp_path):
    (tmp_path / "general.json").write_text(json.dumps(
        {"domain": "general", "templates": ["a photo of a {}."], "classes": {}}))
    check(case, tmp_path / "pets.json",
          lambda path: PromptLibrary(os.path.dirname(path)).prompts(ClassName("Pet", "cat")))


@each(images.FILES)
def test_images(case, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", images.MANY)
    check(case, tmp_path / "x.jpg", decode, images.same)


def test_image_names(tmp_path):
    for name in images.NAMES:
        (tmp_path / name).write_bytes(images.JPEG)
    for name in images.HIDDEN_NAMES:
        (tmp_path / name).write_bytes(images.JPEG)
    for name in images.HIDDEN_FOLDERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(images.JPEG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = list_images(str(tmp_path))
        assert sorted(files_below(str(tmp_path))) == sorted(images.NAMES)
    assert sorted(map(os.path.basename, paths)) == sorted(images.NAMES)
    for path in paths:
        images.same(decode(path), np.asarray(images.PICTURE))


@pytest.mark.parametrize("name", images.BAD_NAMES, ids=ascii)
def test_names_that_no_line_can_hold(name, tmp_path):
    (tmp_path / name).write_bytes(images.JPEG)
    with pytest.raises(UserError, match="image name .* rename the image") as error:
        list_images(str(tmp_path))
    assert ascii(name) in str(error.value) and len(str(error.value).splitlines()) == 1


@each(checkpoints.CHECKPOINTS)
def test_checkpoints(case, tmp_path):
    check(case, tmp_path / "head.pkl", checkpoints.read)


@each(weights.WEIGHTS)
def test_weights(case, tmp_path):
    check(case, tmp_path / "clip.pkl", weights.read)


@each(weights.CONFIGS_BESIDE)
def test_configs_beside_weights(case, tmp_path):
    check(case, tmp_path / "config.json", weights.read_beside)


@pytest.mark.parametrize("n_heads", [5, 128])
def test_heads_that_do_not_divide_the_channels_are_refused(tmp_path, n_heads):
    (tmp_path / "config.json").write_text(weights.towers(num_attention_heads=n_heads))
    with pytest.raises(UserError, match=f"64 channels do not go into {n_heads} heads"):
        weights.read_beside(tmp_path / "config.json")


def test_a_test_folder_of_everything_odd(trained, tmp_path):
    """Every image has its line and the same pixels the same labels; what is none is named."""
    workplace, _ = trained
    folder = tmp_path / "Dataset" / "TestSetB"
    shutil.copytree(workplace / "Dataset", folder.parent)
    shutil.rmtree(folder)
    folder.mkdir()
    for case in images.FILES:
        case.write(folder / f"{case.name}.jpg")
    for name in (*images.NAMES, *images.HIDDEN_NAMES):
        (folder / name).write_bytes(images.PNG)
    (folder / "no rights.jpg").write_bytes(images.PNG)
    (folder / "no rights.jpg").chmod(0)
    (folder / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match="2 names are left out, such as 'file: a folder.jpg'"):
        paths = list_images(str(folder))
    unreadable = {str(folder / f"{case.name}.jpg") for case in images.FILES
                  if case.warning == images.UNREADABLE} & set(paths)
    if WITHOUT_ROOTS_RIGHTS or os.geteuid() != 0:
        unreadable.add(str(folder / "no rights.jpg"))

    # One view, since crops depend on the name.
    done = run("test.py", workplace, "--output", tmp_path / "result.txt", "mta.views=1",
               f"data.root={folder.parent}", before=WITHOUT_ROOTS_RIGHTS)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    check_entry(str(tmp_path / "result.txt"), [os.path.basename(path) for path in paths],
                len(CLASSES))
    warned = re.findall(f"warning: ({re.escape(str(folder))}/.*) cannot be decoded", done.stderr)
    assert sorted(warned) == sorted(unreadable)
    assert "warning: cannot" not in done.stderr and done.stderr.count("left out") == 1

    lines = (tmp_path / "result.txt").read_bytes().decode().split("\n")[:-1]
    labels_of = {}
    for path, line in zip(paths, lines):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = None if path in unreadable else decode(path)
        pixels = image and (image.size, image.tobytes())
        labels_of.setdefault(pixels, set()).add(line[len(os.path.basename(path)):])
    assert len(paths) == len(lines) > 2 * len(labels_of)
    assert all(len(labels) == 1 for labels in labels_of.values())


READ_ALL = """
import os, sys
from configs import load_config
from data.image_paths import list_images
from data.lists import read_classes, read_labels, read_samples
from runs.submission import check_entry
from system.errors import UserError
from models.jclip.formats import read_weights
from system.files import read_pickle
from prompts import PromptLibrary
os.chdir(sys.argv[1])
for read, path in ((load_config, "file"), (read_classes, "file"), (read_pickle, "file"),
                   (lambda path: read_labels(path, 9), "file"), (read_weights, "file"),
                   (lambda path: read_samples(path, ["."], 9), "file"),
                   (lambda path: check_entry(path, [], 9), "file"), (list_images, "folder"),
                   (lambda path: PromptLibrary("."), "general.json")):
    try:
        read(path)
    except UserError as error:
        print(path in str(error) and "Permission denied" in str(error), error)
"""


@pytest.mark.skipif(os.geteuid() == 0 and not WITHOUT_ROOTS_RIGHTS, reason="root may read all")
def test_what_may_not_be_read_is_named(tmp_path):
    for name in ("file", "general.json"):
        (tmp_path / name).touch(0)
    (tmp_path / "folder").mkdir(0)
    done = subprocess.run([*WITHOUT_ROOTS_RIGHTS, sys.executable, "-c", READ_ALL, str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 9 and all(line.startswith("True ") for line in lines), lines


def spoil_head(content):
    content["head"]["w"] = np.full_like(content["head"]["w"], np.nan)


def cut_contexts(content):
    content["contexts"] = content["contexts"][..., :-1]


def forget_features(content):
    del content["features"]


def forget_a_layer(content):
    content["lora"].popitem()


def move_base(content):
    content["base"] = np.arange(len(content["base"]))  # ascending labels, but others


def label_otherwise(content):
    content["held_back_labels"] = content["held_back_labels"] + 1000


def train_on_others(content):
    content["data"] = "8 training images with checksum 00000001"


def test_settings_that_nothing_is_taken_from_may_be_damaged(trained, tmp_path):
    workplace, lines = trained
    shutil.copytree(workplace / "weights", tmp_path / "weights")
    path = str(tmp_path / "weights" / "head.pkl")
    content = read_pickle(path)
    content["config"]["mta"] = {"views": "many"}
    write_pickle(path, content)
    done = run("test.py", workplace, "--output", tmp_path / "result.txt",
               f"output.checkpoint_dir={tmp_path / 'weights'}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "result.txt").read_text().splitlines() == lines


@pytest.mark.parametrize("name, change, words", [
    ("head.pkl", spoil_head, "head.w has values that are not finite"),
    ("prompt_lora.pkl", cut_contexts, "contexts has the shape"),
    ("head.pkl", forget_features, "is no whole checkpoint of train.py"),
    ("prompt_lora.pkl", forget_a_layer, "does not fit: missing"),
    ("head.pkl", move_base, "has other base classes than"),
    ("head.pkl", label_otherwise, "its held_back_labels are no base classes"),
    ("head.pkl", train_on_others, "images with checksum 00000001' then, 8 training images with"),
])
def test_a_damaged_checkpoint_ends_in_one_line(trained, tmp_path, name, change, words):
    workplace, _ = trained
    shutil.copytree(workplace / "weights", tmp_path / "weights")
    path = str(tmp_path / "weights" / name)
    content = read_pickle(path)
    change(content)
    write_pickle(path, content)
    done = run("test.py", workplace, "--output", tmp_path / "result.txt",
               f"output.checkpoint_dir={tmp_path / 'weights'}")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and words in last and path in last
    assert not (tmp_path / "result.txt").exists()
