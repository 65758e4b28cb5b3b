"""Own pictures from one end to the other: train.py, test.py and predict.py as users run them."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from models.jclip.model import CLIP
from system.files import read_pickle, write_pickle
from tests.conftest import SMALL, shapes_of
from tests.reference.weights import random_state
from tests.workplace import ROOT, picture

pytestmark = pytest.mark.slow

NAMES = ["red_fox", "tree_frog", "blue vase"]
FAST = ["prompt.epochs=1", "train.epochs=1", "head.epochs=5", "head.views=1", "mta.views=2",
        "prompts.enlarged=0", "prompts.descriptions=false", "workers=1", "data.shots=2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with the scripts' packages, weights and pictures, in training's state."""
    folder = tmp_path_factory.mktemp("own")
    for name in ("train.py", "test.py", "predict.py", "models", "data", "configs", "prompts"):
        os.symlink(os.path.join(ROOT, name), folder / name)
    write_pickle(str(folder / "ViT-B-32.pkl"), random_state(shapes_of(CLIP(SMALL))))
    for part, n in (("mine", 5), ("others", 2)):
        for label, name in enumerate(NAMES):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                picture(label, 10 * n + i).save(folder / part / name / f"{i}.jpg")
    picture(3, 0).save(folder / "others" / "loose.png")
    (folder / "new.txt").write_text("lemon pie\n")
    run(folder, "train.py", "--images", "mine", "--new-classes", "new.txt", *FAST)
    return folder


def run(folder, script, *arguments, code=0):
    """The finished process of a script in `folder`."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], cwd=folder,
                          capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done.stderr[-2000:]
    return done


def test_training_names_its_folder_and_keeps_what_testing_needs(place):
    saved = read_pickle(str(place / "test_pkl/own/mine/head.pkl"))
    assert [name for _, name in saved["classes"]] == ["blue vase", "red fox", "tree frog",
                                                      "lemon pie"]
    assert saved["base"].tolist() == [0, 1, 2]
    assert saved["held_back_labels"].tolist() == [0, 0, 1, 1, 2, 2]
    assert saved["modes"].shape == saved["tuned_modes"].shape == (6, SMALL.embed_dim)


def test_training_goes_on_with_what_can_be_read_and_says_what_cannot(place, tmp_path):
    shutil.copytree(place / "mine", tmp_path / "spoilt")
    first = np.random.RandomState([1, 1]).permutation(5)[0]  # label 1's first shot
    (tmp_path / "spoilt" / "red_fox" / f"{first}.jpg").write_bytes(b"no picture")
    (tmp_path / "spoilt" / "empty").mkdir()
    (tmp_path / "spoilt" / "red_fox" / "._1.jpg").write_bytes(b"of a Mac")
    done = run(place, "train.py", "--images", tmp_path / "spoilt", *FAST, "--stage", "1",
               f"output.checkpoint_dir={tmp_path / 'weights'}")
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(said) == 3 and "1 folders hold no image and are no classes: 'empty'" in said[0]
    assert f"red_fox/{first}.jpg cannot be decoded" in said[1]
    assert "1 training images that cannot be decoded are replaced" in said[2]
    assert "3 base classes with 6 images" in done.stderr


def test_a_run_on_other_pictures_of_that_name_is_kept(place):
    os.makedirs(place / "elsewhere")
    shutil.copytree(place / "mine", place / "elsewhere" / "mine")
    before = (place / "test_pkl/own/mine/head.pkl").read_bytes()
    done = run(place, "train.py", "--images", "elsewhere/mine", *FAST, code=2)
    assert "test_pkl/own/mine holds what was trained on mine" in done.stderr.splitlines()[-1]
    assert (place / "test_pkl/own/mine/head.pkl").read_bytes() == before


def test_other_pictures_are_classified_without_the_training_data(place, tmp_path):
    os.rename(place / "mine", tmp_path / "away")
    try:
        done = run(place, "test.py", "--images", "others")
    finally:
        os.rename(tmp_path / "away", place / "mine")
    assert os.path.join("test_pkl", "own", "mine") in done.stderr
    files = ["blue vase/0.jpg", "blue vase/1.jpg", "loose.png", "red_fox/0.jpg", "red_fox/1.jpg",
             "tree_frog/0.jpg", "tree_frog/1.jpg"]
    lines = (place / "result.txt").read_text().splitlines()
    assert [line.rsplit(" ", 4)[0] for line in lines] == files
    with open(place / "result.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == files
    names = ["blue vase", "red fox", "tree frog", "lemon pie"]
    for line, row in zip(lines, rows):
        labels = [int(label) for label in line.rsplit(" ", 4)[1:]]
        assert [row[f"name_{i}"] for i in range(1, 5)] == [names[label] for label in labels]
        shares = [float(row[f"probability_{i}"]) for i in range(1, 5)]
        assert sum(shares) == pytest.approx(1, abs=3e-4)
        assert shares[0] == max(shares) and np.isfinite(float(row["base_score"]))
    assert "all        6 images" in done.stdout  # the loose one has no label
    assert "calibration error (15 bins)" in done.stdout


def test_a_label_file_names_the_pictures_as_the_result_does(place):
    (place / "labels.txt").write_text("red_fox/0.jpg 1\nblue vase/0.jpg 0\n")
    done = run(place, "test.py", "--images", "others", "--labels", "labels.txt")
    assert "all        2 images" in done.stdout  # and not every class's 0.jpg


def test_an_image_is_named_with_probabilities(place):
    done = run(place, "predict.py", "others/blue vase/0.jpg", "others/loose.png", "mta.views=1")
    assert "the temperatures are of training's views (mta.views: 2" in done.stderr
    images = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert images == ["others/blue vase/0.jpg", "others/loose.png"]
    answers = [line.split(" %  ") for line in done.stdout.splitlines() if line.startswith(" ")]
    assert len(answers) == 8 and {name for _, name in answers[:4]} == {
        "blue vase", "red fox", "tree frog", "lemon pie"}
    assert sum(float(share) for share, _ in answers[:4]) == pytest.approx(100, abs=0.3)


def test_predictions_are_those_of_the_test(place):
    run(place, "test.py", "--images", "others", "--run", "test_pkl/own/mine")
    with open(place / "result.csv", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    done = run(place, "predict.py", os.path.join("others", row["file"]))
    share, name = done.stdout.splitlines()[1].split(" %  ")
    assert name == row["name_1"]
    assert float(share) == pytest.approx(100 * float(row["probability_1"]), abs=0.06)


def test_classes_with_no_picture_to_spare_leave_the_probabilities_as_they_are(place, tmp_path):
    settings = [f"output.checkpoint_dir={tmp_path}", "data.shots=5"]
    run(place, "train.py", "--images", "mine", *FAST, *settings)
    saved = read_pickle(str(tmp_path / "head.pkl"))
    assert len(saved["held_back_labels"]) == 0 and "lemon pie" not in str(saved["classes"])
    done = run(place, "test.py", "--images", "others", "--run", tmp_path, "--ablate",
               "--output", tmp_path / "r.txt")
    before, after = done.stdout.split("bins) ")[1].split(" before, ")
    assert after.startswith(f"{before} after temperature 1.00")
    # All classes are base ones, and there is no score to tell base from new by.
    with open(tmp_path / "r.csv", newline="") as file:
        assert {row["base_score"] for row in csv.DictReader(file)} == {""}
    written = (tmp_path / "log.jsonl").read_text() + (tmp_path / "report.html").read_text("utf-8")
    assert "Infinity" not in written and "NaN" not in written
    assert "nan" not in done.stdout and "inf" not in done.stdout


@pytest.mark.parametrize("script, arguments, words", [
    ("train.py", ["--images", "nowhere"], ["nowhere", ".csv"]),
    ("train.py", ["--images", "others"], ["loose.png", "no class"]),
    ("train.py", ["--images", "mine", "--new-classes", "none.txt"], ["none.txt"]),
    ("train.py", ["--new-classes", "new.txt"], ["--images"]),
    ("test.py", ["--images", "nowhere"], ["nowhere"]),
    ("test.py", ["--run", "test_pkl/own/mine"], ["mine", "--images"]),
    ("test.py", ["--run", "nowhere", "--images", "others"], ["nowhere/head.pkl", "train.py"]),
    ("test.py", ["--images", "others", "--output", "r.csv"], ["r.csv"]),
    ("test.py", ["--images", "others", "lora.rank=2"], ["lora.rank: 4 when trained, 2 now"]),
    ("test.py", ["--run=~/nowhere"], [os.path.expanduser("~/nowhere/head.pkl")]),
    ("predict.py", ["none.jpg"], ["none.jpg"]),
    ("predict.py", ["others"], ["others is a folder", "test.py --images others"]),
    ("predict.py", ["new.txt", "others/loose.png"], ["1 of 2 images cannot be decoded"]),
])
def test_a_mistake_ends_in_one_line(place, script, arguments, words):
    before = sorted(os.listdir(place / "test_pkl" / "own"))
    done = run(place, script, *arguments, code=2)
    last = done.stderr.splitlines()[-1]
    assert "error: " in last and "Traceback" not in done.stderr
    for word in words:
        assert word in last
    assert sorted(os.listdir(place / "test_pkl" / "own")) == before
    assert not os.path.exists(place / "r.csv")


def test_without_a_run_the_cure_is_named(place, tmp_path):
    shutil.move(place / "test_pkl", tmp_path / "test_pkl")
    try:
        done = run(place, "test.py", "--images", "others", code=2)
    finally:
        shutil.move(tmp_path / "test_pkl", place / "test_pkl")
    assert "train.py --images DIR" in done.stderr.splitlines()[-1]
