"""Crops as a GPU makes them, here on the CPU: Pillow's, but for values that round the other way."""

import subprocess
import sys

import jittor as jt
import numpy as np
import pytest
from PIL import Image

from data import device_views
from data import views as views_module
from data.device_views import resample
from data.views import Views, view_batches
from models import runtime
from models.jclip.preprocess import Preprocess
from tests.workplace import ROOT


def picture(height, width, seed=0):
    """Waves and a little noise: of all frequencies, as photos are."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 3 + y / 17), np.sin(y / 2), np.cos((x + y) / 5)], axis=2)
    noise = np.random.RandomState(seed).normal(0, 20, waves.shape)
    return np.clip(128 + 100 * waves + noise, 0, 255).astype(np.uint8)


def alike(ours, pillows):
    difference = np.abs(np.asarray(ours, float) - pillows)
    return difference.max() <= 1 and (difference > 0).mean() < 2e-3


@pytest.mark.parametrize("height, width", [(90, 120), (64, 40), (17, 300), (24, 24), (1, 50)])
@pytest.mark.parametrize("whole_first", [True, False])
def test_views_are_pillows(tmp_path, height, width, whole_first):
    path = str(tmp_path / "a.png")
    Image.fromarray(picture(height, width)).save(path)
    views = Views(Preprocess(24), 8, (0.3, 1.0), 1, whole_first)
    pixels, grids = views.plan(path)
    mirrored = (grids[:, 1] < 0).sum()
    assert grids.shape == (8, 4) and 0 < mirrored < 8
    ours = resample(pixels, grids, 24)
    assert ours.shape == [8, 24, 24, 3] and alike(ours.numpy(), views.of(path))


def test_a_large_image_keeps_its_places(tmp_path):
    """Where float32 alone would blur the places of pixels."""
    path = str(tmp_path / "a.png")
    Image.fromarray(picture(30, 9000)).save(path)
    views = Views(Preprocess(24), 3, (0.3, 1.0), 1, whole_first=False)
    assert alike(resample(*views.plan(path), 24).numpy(), views.of(path))


def test_batches_are_cut_on_the_gpu_where_one_is_used(tmp_path, monkeypatch):
    for i in range(3):
        Image.fromarray(picture(30 + i, 40, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    views = Views(Preprocess(24), 2, (0.3, 1.0), 1)
    monkeypatch.setattr(views_module.runtime, "gpu_is_used", lambda: True)
    with pytest.warns(UserWarning, match="1.png"):
        (indices, pixels, _), = view_batches(views, paths, 3, 0, "images")
    assert list(indices) == [0, 2]
    assert alike(pixels.numpy(), np.stack([views.of(paths[0]), views.of(paths[2])]))


def test_they_are_cut_in_float32_whatever_training_takes(monkeypatch):
    seen = []

    def product(a, b):
        seen.append(jt.flags.use_tensorcore)
        return a @ b

    monkeypatch.setattr(device_views.jt, "matmul", product)
    grids = np.array([[0, 0.5, 0, 0.5]])
    monkeypatch.setattr(runtime, "gpu_is_used", lambda: True)
    with runtime.mixed_precision(True):
        views = device_views.resample_all([(picture(12, 12), grids)], 24)
        assert jt.flags.use_tensorcore == 2
    assert seen == [0] and views.shape == [1, 1, 24, 24, 3]
    with runtime.mixed_precision(False):
        assert jt.flags.use_tensorcore == 0


@pytest.mark.skipif(runtime.gpu_is_used(), reason="there is a GPU")
def test_without_a_gpu_mixed_precision_changes_nothing_and_says_so(capsys):
    with runtime.mixed_precision(True):
        assert jt.flags.use_tensorcore == 0
    assert "train.amp: no GPU is in use" in capsys.readouterr().err


def test_scripts_give_the_same_labels_with_them(trained, tmp_path):
    """train.py and test.py, an auxiliary encoder too: whatever takes pixels takes Vars."""
    folder, _ = trained
    labels = []
    for on_gpu in (False, True):
        code = (f"import runpy, sys; from models import runtime; runtime.gpu_is_used = lambda: "
                f"{on_gpu}; sys.argv = sys.argv[1:]; "
                "runpy.run_path(sys.argv[0], run_name='__main__')")
        place, result = tmp_path / str(on_gpu), tmp_path / "r.txt"
        for script, more in (("train.py", []), ("test.py", ["--output", str(result)])):
            subprocess.run(
                [sys.executable, "-c", code, script, "--config", str(folder / "tiny.yaml"), *more,
                 f"aux.weights={folder}/clip.pkl", f"output.checkpoint_dir={place}/weights",
                 f"output.cache_dir={place}/cache"], cwd=ROOT, check=True, capture_output=True)
        labels.append([line.split()[1] for line in result.read_text().splitlines()])
    assert len(labels[0]) == 12 and np.mean(np.array(labels[0]) == labels[1]) > 0.9


def test_a_gpu_is_used_where_jittor_says_so():
    assert runtime.gpu_is_used() == bool(jt.flags.use_cuda)
