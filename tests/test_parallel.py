"""The real scripts under mpirun: what several processes make is what one makes."""

import os
import shutil
import sys

import numpy as np
import pytest

from system import parallel, runtime
from system.errors import UserError
from system.files import read_pickle
from tests.workplace import build, mpirun, picture, run

pytestmark = pytest.mark.slow

with_mpi = pytest.mark.skipif(
    not (shutil.which("mpirun") and shutil.which("mpicc")),
    reason="needs OpenMPI: apt-get install openmpi-bin libopenmpi-dev")
# 8 images in batches of 3 and 2, 4 classes and 3 shards of 4 test images: shares are unequal.
SETTINGS = ("train.epochs=3", "prompt.epochs=2", "train.batch_size=3", "test.batch_size=1",
            "lora.dropout=0.25", "data.val_shots=1")


def train_and_test(folder, n, name, *settings):
    """The folder of what both scripts write with n processes."""
    place = folder / f"{name}_{n}"
    settings = [*SETTINGS, *settings, f"output.checkpoint_dir={place}",
                f"output.cache_dir={place / 'cache'}"]
    for script, more in (("train.py", []), ("test.py", ["--output", place / "result.txt"])):
        done = run(script, folder, *settings, *more, before=[] if n == 1 else mpirun(n))
        assert done.returncode == 0, done.stderr[-2000:]
    return place


def largest_difference(ours, expected):
    """Between two checkpoints' arrays, below which everything else is equal."""
    if isinstance(expected, dict):
        assert ours.keys() == expected.keys()
        return max((largest_difference(ours[key], value) for key, value in expected.items()
                    if key != "config"), default=0)
    if isinstance(expected, np.ndarray) and expected.dtype == np.float32:
        assert ours.shape == expected.shape
        return np.abs(ours - expected).max()
    assert np.array_equal(ours, expected)
    return 0


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workplace with what one process makes in it."""
    folder = tmp_path_factory.mktemp("parallel")
    build(folder)
    few = folder / "few"
    few.mkdir()
    for label in range(3):
        picture(label, 90).save(few / f"{label}.png")
    train_and_test(folder, 1, "all")
    return folder


@with_mpi
@pytest.mark.parametrize("n", [2, 3])
def test_processes_make_what_one_makes(place, n):
    theirs, ours = place / "all_1", train_and_test(place, n, "all")
    for name in ("prompt_lora.pkl", "head.pkl"):
        difference = largest_difference(read_pickle(str(ours / name)),
                                        read_pickle(str(theirs / name)))
        assert difference < 1e-5, name
    moved = read_pickle(str(theirs / "prompt_lora.pkl"))["contexts"]
    assert np.abs(moved[-1] - moved[0]).max() > 1e-4  # so that equal is not 'untrained'
    assert (ours / "result.txt").read_bytes() == (theirs / "result.txt").read_bytes()
    assert sorted(os.listdir(ours)) == sorted(os.listdir(theirs))


@with_mpi
def test_the_auxiliary_head_is_one_processes(place):
    settings = [f"aux.weights={place / 'clip.pkl'}", "aux.epochs=5"]
    theirs, ours = (train_and_test(place, n, "auxiliary", *settings) for n in (1, 2))
    assert largest_difference(*(read_pickle(str(each / "head.pkl"))
                                for each in (ours, theirs))) < 1e-5
    assert (ours / "result.txt").read_bytes() == (theirs / "result.txt").read_bytes()


@with_mpi
def test_more_processes_than_images(place):
    settings = ["data.shots=1", "data.val_shots=0", f"data.test_dir={place / 'few'}"]
    theirs, ours = (train_and_test(place, n, "few", *settings) for n in (1, 5))
    difference = largest_difference(read_pickle(str(ours / "prompt_lora.pkl")),
                                    read_pickle(str(theirs / "prompt_lora.pkl")))
    assert difference < 1e-5
    assert (ours / "result.txt").read_bytes() == (theirs / "result.txt").read_bytes()


@with_mpi
@pytest.mark.parametrize("script, rank, number, how", [
    ("test.py", 1, 2, "mistake"),
    ("test.py", 0, 7, "kill"),  # its first shard, of 4 images, is written by then …
    ("train.py", 1, 20, "crash")])  # … and the first epoch, of 8, is saved
def test_one_that_fails_ends_all_and_another_number_goes_on(place, tmp_path, script, rank, number,
                                                            how):
    shutil.copytree(place / "all_1", tmp_path / "weights")
    result = tmp_path / "weights" / "result.txt"
    expected = result.read_bytes()
    result.write_text("of an earlier run\n")
    settings = [*SETTINGS, f"output.checkpoint_dir={tmp_path / 'weights'}",
                f"output.cache_dir={tmp_path / 'cache'}"]
    output = ["--output", result] if script == "test.py" else []
    failing = [*mpirun(2), sys.executable, "-m", "tests.failing", str(rank), str(number), how]
    done = run(script, place, *settings, *output, before=failing)
    assert done.returncode != 0
    assert done.stderr.lower().count("error: a process has failed") == (how != "kill")
    assert done.stderr.count("Traceback") == (how == "crash")
    assert result.read_text() == "of an earlier run\n"
    done = run(script, place, *settings, *output, before=mpirun(3))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "going on" in done.stderr or how == "mistake"
    if script == "test.py":
        assert result.read_bytes() == expected


@with_mpi
def test_what_all_see_is_said_once(place, tmp_path):
    done = run("train.py", place, "lora.rnak=3", before=mpirun(2))
    assert done.returncode == 2 and done.stderr.count("lora.rank") == 1
    data = tmp_path / "Dataset"
    shutil.copytree(place / "Dataset", data)
    for i in (1, 10):  # in shards of either process
        (data / "TestSetB" / f"image_{i}.png").write_bytes(b"no picture")
    done = run("test.py", place, *SETTINGS, "--output", tmp_path / "r.txt", f"data.root={data}",
               f"output.checkpoint_dir={place / 'all_1'}", f"output.cache_dir={tmp_path / 'cache'}",
               before=mpirun(2))
    assert done.returncode == 0, done.stderr[-2000:]
    for text in ("image_1.png cannot", "image_10.png cannot", "12 images"):
        assert done.stderr.count(text) == 1, text


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("n", [0, 1, 3, 10])
def test_each_row_is_one_process_s(monkeypatch, size, n):
    rows = []
    for rank in range(size):
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", str(size))
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        rows.append(list(range(n))[parallel.own_slice(n)])
    assert sum(rows, []) == list(range(n))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_mpirun_without_its_compiler_is_told(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("mpicc_path", "/nowhere/mpicc")
    monkeypatch.delenv("use_mpi", raising=False)
    with pytest.raises(UserError, match="libopenmpi-dev"):
        runtime._choose_mpi()


def test_one_process_does_without_mpi(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")  # mpirun -np 1
    monkeypatch.delenv("use_mpi", raising=False)
    runtime._choose_mpi()
    assert os.environ["use_mpi"] == "0" and "OMPI_COMM_WORLD_SIZE" not in os.environ
