"""Short memory, a full or read-only disk, folders that vanish, processes that die."""

import os
import shutil
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

from models import features
from pipeline.shards import BATCHES, Shards
from sample import dataset as sample
from system import memory
from system.errors import UserError
from system.files import read_pickle
from system.lock import output_lock
from tests.workplace import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(trained):
    """The workplace after training, with first.txt."""
    return trained[0]


# Memory


@pytest.mark.parametrize("free, expected", [(10 ** 9, 64), (1000 * 40 / memory.USABLE, 32),
                                            (1000 * 3 / memory.USABLE, 2), (0, 1)])
def test_a_batch_is_halved_until_it_fits(monkeypatch, capsys, free, expected):
    monkeypatch.setattr(memory, "free_memory", lambda: free)
    assert memory.fitting(64, 1000, "views") == expected
    assert ("views at a time instead of 64" in capsys.readouterr().err) == (expected < 64)


def test_the_processes_own_limit_counts():
    code = ("import resource; from system.memory import free_memory; before = free_memory(); "
            "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
            "after = free_memory(); assert after < 1 << 30 < before, (after, before)")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_halved_batches_give_the_same_features(small_clip, monkeypatch):
    pixels = np.random.RandomState(0).randint(0, 256, (3, 5, 16, 16, 3), np.uint8)
    whole = features.encode_views(small_clip, pixels).numpy()
    monkeypatch.setattr(features, "_at_once", lambda n_views, bytes_per_view: 4)
    np.testing.assert_allclose(features.encode_views(small_clip, pixels).numpy(), whole,
                               atol=1e-6)


def test_with_little_memory_the_result_stays_the_same(folder, tmp_path):
    code = ("import runpy, sys; from system import memory; memory.free_memory = lambda: 200_000; "
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")

    def run(script, *more):
        done = subprocess.run(
            [sys.executable, "-c", code, script, "--config", str(folder / "tiny.yaml"), *more,
             f"output.checkpoint_dir={tmp_path}/weights", f"output.cache_dir={tmp_path}/cache"],
            cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stderr

    assert "0.0 GB of memory are free: 1 images (and texts likewise) at a time instead of 4" in (
        run("train.py"))
    assert "views at a time instead of" in run("test.py", "--output", str(tmp_path / "r.txt"))
    assert (tmp_path / "r.txt").read_bytes() == (folder / "first.txt").read_bytes()
    # Sums of fewer rows at a time round otherwise, by no more than this.
    lora, in_parts = (read_pickle(str(path / "prompt_lora.pkl"))["lora"]
                      for path in (folder / "weights", tmp_path / "weights"))
    assert max(np.abs(lora[name] - in_parts[name]).max() for name in lora) < 3e-6


def test_a_training_step_takes_no_more_memory_than_planned_with():
    """And not much less, or batches would be halved for nothing: in a process of its own."""
    planned, taken = map(int, subprocess.run(
        [sys.executable, "-m", "tests.step_memory"], cwd=ROOT, check=True, capture_output=True,
        text=True).stdout.split())
    assert 0.5 * planned < taken < planned


# Disks and folders


def on_a_disk(place, options, script):
    """Command that runs a shell script where `place` is a disk of its own."""
    mount = ["unshare", "-rm", "sh", "-c",
             f"mount -t tmpfs -o {options} none {place} && {script}", "sh"]
    if not shutil.which("unshare") or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(place)]).returncode:
        pytest.skip("nothing can be mounted here")
    return mount


def test_a_full_disk_leaves_the_older_files(folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    for script, file, what in (
            ("test.py", "first.txt", f"--output {disk}/first.txt"),
            ("train.py", "prompt_lora.pkl", f"output.checkpoint_dir={disk}")):
        source = folder / ("weights" if script == "train.py" else "") / file
        done = subprocess.run(on_a_disk(disk, "size=256k", (
            f"cp {source} {disk}/{file} && (cat /dev/zero > {disk}/full; true) 2> /dev/null; "
            f"{sys.executable} {script} --config {folder}/tiny.yaml {what}; code=$?; "
            f"cmp {source} {disk}/{file} && exit $code")), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr[-2000:]
        assert "No space left on device" in done.stderr.splitlines()[-1]
        assert "make room" in done.stderr.splitlines()[-1]


def test_a_read_only_folder_is_told(folder, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(on_a_disk(disk, "ro", (
        f"exec {sys.executable} test.py --config {folder}/tiny.yaml --output {disk}/result.txt")),
        cwd=ROOT, capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and f"cannot write to {disk}; make that writable" in line
    assert "--output FILE" in line


def test_a_data_folder_that_vanishes_is_told_and_the_older_result_stays(folder, tmp_path):
    shutil.copytree(folder / "Dataset", tmp_path / "Dataset")
    (tmp_path / "result.txt").write_text("older\n")
    code = ("import runpy, shutil, sys; from data import views; plan = views.Views.plan\n"
            "def vanish(self, path, key=None):\n"
            "    if 'image_7' in path: shutil.rmtree(sys.argv[-1].partition('=')[2])\n"
            "    return plan(self, path, key)\n"
            "views.Views.plan = vanish; sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run(
        [sys.executable, "-c", code, "test.py", "--config", str(folder / "tiny.yaml"), "--output",
         str(tmp_path / "result.txt"), f"data.root={tmp_path / 'Dataset'}"], cwd=ROOT,
        capture_output=True, text=True)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and "TestSetB" in line and "put it back" in line, done.stderr
    assert (tmp_path / "result.txt").read_text() == "older\n"


def test_a_cache_folder_that_vanishes_is_made_again(tmp_path):
    paths = images(tmp_path, 10)
    shards = Shards(str(tmp_path / "cache"), "kind", [], paths, batch_size=1)

    def compute(pixels):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        return {"x": pixels}
    np.testing.assert_array_equal(shards.compute(batches_of(paths), compute)["x"], numbers(10))


# Processes


def die(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_drawing_process_that_dies_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sample, "_draw_file", die)
    with pytest.raises(UserError, match="was ended"):
        sample.ensure_sample(str(tmp_path / "Dataset"))
    assert os.listdir(tmp_path) == []


# Shards and locks


def images(folder, n):
    paths = [str(folder / f"{i}.jpg") for i in range(n)]
    for i, path in enumerate(paths):
        with open(path, "w") as file:
            file.write(str(i))
    return paths


def numbers(n):
    return np.arange(n, dtype=np.float32)[:, None]


def batches_of(all_paths, broken=(), seen=None):
    """As `view_batches`: an image's pixels are its place in `all_paths`; batches of one."""
    def batches(paths):
        for i, path in enumerate(paths):
            place = all_paths.index(path)
            if seen is not None:
                seen.append(place)
            if place not in broken:
                yield np.array([i]), np.float32([[place]]), None
    return batches


def test_a_stopped_computation_goes_on_at_the_last_shard(tmp_path):
    paths = images(tmp_path, 3 * BATCHES + 1)
    shards = Shards(str(tmp_path), "kind", [1], paths, batch_size=1)

    def stop(pixels):
        if pixels[0, 0] == 2 * BATCHES + 1:
            raise KeyboardInterrupt
        return {"x": pixels}
    with pytest.raises(KeyboardInterrupt):
        shards.compute(batches_of(paths), stop)
    seen = []
    found = shards.compute(batches_of(paths, seen=seen), lambda pixels: {"x": pixels})
    np.testing.assert_array_equal(found["x"], numbers(len(paths)))
    assert seen == list(range(2 * BATCHES, len(paths)))
    # All is there now; other settings or another batch size start anew.
    seen.clear()
    shards.compute(batches_of(paths, seen=seen), None)
    assert seen == []
    other = Shards(str(tmp_path), "kind", [2], paths, batch_size=1)
    other.compute(batches_of(paths, seen=seen), lambda pixels: {"x": pixels})
    assert seen == list(range(len(paths)))
    shards.remove()
    assert not os.path.exists(shards.folder)


@pytest.mark.parametrize("change", ["image", "truncated", "flipped"])
def test_what_has_changed_is_computed_again(tmp_path, change):
    paths = images(tmp_path, 3 * BATCHES)
    shards = Shards(str(tmp_path), "kind", [], paths, batch_size=1)
    shards.compute(batches_of(paths), lambda pixels: {"x": pixels})
    if change == "image":
        with open(paths[BATCHES], "w") as file:
            file.write("changed")
    else:
        file = os.path.join(shards.folder, sorted(os.listdir(shards.folder))[1])
        with open(file, "rb") as saved:
            content = bytearray(saved.read())
        content[-120 if change == "truncated" else 140] ^= 1
        with open(file, "wb") as saved:
            saved.write(content[:len(content) // 2] if change == "truncated" else content)
    seen = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = shards.compute(batches_of(paths, seen=seen), lambda pixels: {"x": pixels})
    np.testing.assert_array_equal(found["x"], numbers(len(paths)))
    assert seen == list(range(BATCHES, 2 * BATCHES))
    assert bool(told) == (change != "image")


def test_images_that_cannot_be_decoded_get_what_is_given_for_them(tmp_path):
    paths = images(tmp_path, 2 * BATCHES)
    broken = {0, *range(BATCHES, 2 * BATCHES)}
    shards = Shards(str(tmp_path), "kind", [], paths, batch_size=1)
    for _ in range(2):  # computed, then read
        found = shards.compute(batches_of(paths, broken), lambda pixels: {"x": pixels},
                               {"x": np.float32([-1])})["x"]
        expected = numbers(len(paths))
        expected[sorted(broken)] = -1
        np.testing.assert_array_equal(found, expected)


def test_a_lock_is_held_once_and_removed(tmp_path):
    path = str(tmp_path / "made" / "a.lock")
    with output_lock(path):
        with pytest.raises(UserError, match=f"process {os.getpid()} "):
            with output_lock(path):
                pass
        assert os.path.exists(path)
    assert not (tmp_path / "made").exists()
    with output_lock(path):
        (tmp_path / "made" / "output").write_text("x")
    assert os.listdir(tmp_path / "made") == ["output"]
