"""What must not matter to `result.txt`: names, orders, spellings, places, formats.

Each change is made to a copy of the workplace, and the real scripts run on it; the lines are the
first result's, but for what was renamed.
"""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from system.torch_writer import torch_archive
from tests.reference.weights import to_transformers
from tests.tensors import Tensor, dumps
from tests.workplace import CLASSES, ROOT, picture, random_weights, run

pytestmark = pytest.mark.slow


def labels_of(path):
    """{image: list of labels as text} of a result file."""
    lines = path.read_text().splitlines()
    rows = {line.rsplit(" ", 5)[0]: line.rsplit(" ", 5)[1:] for line in lines}
    assert len(rows) == len(lines)
    return rows


@pytest.fixture
def place(trained, tmp_path):
    """A copy of the workplace in a folder of its own, and the labels of the first result."""
    folder, _ = trained
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    return copy, labels_of(folder / "first.txt")


def result_of(place, *arguments, script_folder=ROOT, cwd=ROOT):
    """The labels that test.py finds in a copy of the workplace, trained as the first was."""
    done = subprocess.run(
        [sys.executable, os.path.join(script_folder, "test.py"), "--config",
         str(place / "tiny.yaml"), "--output", str(place / "again.txt"),
         f"data.root={place / 'Dataset'}", f"output.checkpoint_dir={place / 'weights'}",
         f"output.cache_dir={place / 'new cache'}", *map(str, arguments)],
        cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return labels_of(place / "again.txt")


def test_other_names_other_orders_and_the_same_picture_twice(place):
    folder, first = place
    images = folder / "Dataset" / "TestSetB"
    shuffled = random.Random(3).sample(sorted(first), len(first))
    odd = ["z.png", "a b.png", "0.png", "熊猫.png", "image_10_1.png", "UPPER.PNG", "-x.png",
           "é.png", "1.jpg", "2.jpeg", "_.png", "image_3 (1).png"]
    new_name = dict(zip(shuffled, odd))
    for old, new in new_name.items():
        (images / old).rename(images / f"{new}.tmp")
    for new in odd:
        (images / f"{new}.tmp").rename(images / new)
    twin = new_name["image_4.png"]
    shutil.copy(images / twin, images / "twin of it.png")
    for name in (".DS_Store", "._z.png", "Thumbs.db", "desktop.ini", ".hidden.png"):
        (images / name).write_bytes(b"Mac OS X" * 9)
    again = result_of(folder)
    assert again.pop("twin of it.png") == first["image_4.png"]
    assert again == {new: first[old] for old, new in new_name.items()}


def test_lists_that_are_written_otherwise_and_data_elsewhere(place):
    """Trained again from them: a BOM, CRLF, blank lines, backslashes, whole paths, another root."""
    folder, first = place
    data = folder / "elsewhere" / "my data"
    data.parent.mkdir()
    (folder / "Dataset").rename(data)
    listed = (data / "train.txt").read_text().split("\n")
    lines = [line.replace("/", "\\") if i % 3 == 0 else f"{data}/TrainSet/{line}" if i % 3 == 1
             else line for i, line in enumerate(line for line in listed if line.strip())]
    (data / "train.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n \r\n".join(lines).encode())
    (data / "classes.txt").write_text("".join(
        f"\t{name.replace(' ', '_')}\t{label}\n\n" for label, name in reversed(
            list(enumerate(CLASSES)))))
    (data / "TrainSet" / "TrainSet" / "0" / "._0.jpg").write_bytes(b"AppleDouble")
    for script, more in (("train.py", []), ("test.py", ["--output", folder / "again.txt"])):
        done = run(script, folder, f"data.root={data}", f"output.cache_dir={folder / 'c'}",
                   f"output.checkpoint_dir={folder / 'w'}", *more)
        assert done.returncode == 0, done.stderr[-2000:]
    assert labels_of(folder / "again.txt") == first


RENUMBERED = [3, 0, 5, 1, 4, 2]  # the new number of each class


def renumber(folder):
    data = folder / "Dataset"
    (data / "classes.txt").write_text("".join(
        f"{name} {RENUMBERED[label]}\n" for label, name in enumerate(CLASSES)))
    lines = (data / "train.txt").read_text().split()
    (data / "train.txt").write_text("".join(
        f"{path} {RENUMBERED[int(label)]}\n" for path, label in zip(lines[::2], lines[1::2])))
    labels = (folder / "labels.txt").read_text().split()
    (folder / "labels.txt").write_text("".join(
        f"{name} {RENUMBERED[int(label)]}\n" for name, label in zip(labels[::2], labels[1::2])))


def test_classes_that_are_numbered_otherwise(place):
    """Both with the weights of the first training and with weights of a new one."""
    folder, first = place
    expected = {name: [str(RENUMBERED[int(label)]) for label in labels]
                for name, labels in first.items()}
    renumber(folder)
    assert result_of(folder) == expected
    own = [f"output.checkpoint_dir={folder / 'w'}", f"output.cache_dir={folder / 'c'}"]
    done = run("train.py", folder, f"data.root={folder / 'Dataset'}", *own)
    assert done.returncode == 0, done.stderr[-2000:]
    assert result_of(folder, *own) == expected


def test_accuracies_of_classes_that_are_numbered_otherwise(place):
    folder, _ = place
    reports = []
    for change in (lambda folder: None, renumber):
        change(folder)
        done = run("test.py", folder, f"data.root={folder / 'Dataset'}", "--output",
                   folder / "r.txt", "--labels", folder / "labels.txt", "--ablate",
                   f"output.checkpoint_dir={folder / 'weights'}")
        assert done.returncode == 0, done.stderr[-2000:]
        reports.append(done.stdout)
    assert reports[0] == reports[1] and "top-1" in reports[0]


def as_tensors(path, state):
    path.write_bytes(dumps({"epoch": 3, "state_dict": {
        f"module.{name}": Tensor(value) for name, value in state.items()}}))


def as_archive(path, state):
    path.write_bytes(torch_archive(state))


def as_folder(path, state):
    path.mkdir()
    save_file(to_transformers(state), str(path / "model.safetensors"))
    tower = {"hidden_act": "quick_gelu", "num_attention_heads": 1}
    (path / "config.json").write_text(json.dumps({"vision_config": tower, "text_config": tower}))


@pytest.mark.parametrize("write, more", [
    (as_tensors, []), (as_archive, ["clip.activation=quick_gelu"]), (as_folder, [])])
def test_weights_in_another_format(place, write, more):
    folder, first = place
    write(folder / "weights.bin", random_weights())
    assert result_of(folder, f"clip.weights={folder / 'weights.bin'}", *more) == first


def test_scripts_that_are_started_elsewhere(place):
    """In a folder with nothing but a link to the data, by a path through a link."""
    folder, first = place
    elsewhere = folder / "else where"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(ROOT)
    (elsewhere / "Dataset").symlink_to(folder / "Dataset")
    config = yaml.safe_load((folder / "tiny.yaml").read_text())
    config["clip"]["weights"] = "../clip.pkl"
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    again = result_of(folder, "data.root=Dataset", script_folder=str(elsewhere / "link"),
                   cwd=str(elsewhere))
    assert again == first
    assert sorted(os.listdir(elsewhere)) == ["Dataset", "link"]


# The lists alone, in process, with any mixture of what people do to them


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """read(lines of train.txt, lines of classes.txt) -> what training sees of them."""
    from configs import load_config
    from data.challenge import load_challenge

    root = tmp_path_factory.mktemp("data") / "Dataset"
    for label in range(3):
        for i in range(4):
            path = root / "TrainSet" / "Animal" / f"c {label}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(label, i).save(path)
    data = load_config(None, [f"data.root={root}", "data.shots=2"]).data

    def challenge(train, classes):
        (root / "train.txt").write_bytes(train.encode())
        (root / "classes.txt").write_bytes(classes.encode())
        found = load_challenge(data, 1)
        return (found.classes, found.train, found.validation, found.base.tolist(),
                found.new.tolist())

    return root, challenge


PATHS = [(f"Animal/c {label}/{i}.png", label) for label in range(3) for i in range(4)]
SPELLINGS = ["{}", "TrainSet/{}", "TrainSet/TrainSet/{}", "Dataset/TrainSet/{}", "./{}", "{}/",
             "{root}/TrainSet/{}", "C:\\data\\TrainSet\\{}"]


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_mixture_of_spellings_is_read_alike(read, data):
    root, challenge = read
    names = [f"Animal_c {label}" for label in range(3)] + ["Animal_new one"]
    plain = challenge("".join(f"{path} {label}\n" for path, label in PATHS),
                      "".join(f"{name} {label}\n" for label, name in enumerate(names)))
    numbers = data.draw(st.permutations(range(4)))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    mark = data.draw(st.sampled_from(["", "\ufeff"]))

    def line(text, label):
        blank = data.draw(st.sampled_from(["", end, f" \t{end}", end * 3]))
        gap = data.draw(st.sampled_from([" ", "\t", "  \t "]))
        return f"{blank}{text}{gap}{numbers[label]}{data.draw(st.sampled_from(['', ' ']))}"

    def spelt(path):
        text = data.draw(st.sampled_from(SPELLINGS)).format(path, root=root)
        return text.replace("/", "\\") if data.draw(st.booleans()) and (
            not text.startswith("/")) else text

    train = end.join(line(spelt(path), label) for path, label in PATHS)
    classes = [line(name.replace(" ", data.draw(st.sampled_from([" ", "_"]))), label)
               for label, name in enumerate(names)]
    order = data.draw(st.permutations(range(4)))
    assert challenge(mark + train, mark + end.join(classes[i] for i in order)) == plain
