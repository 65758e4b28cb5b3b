"""Views as Pillow's resize makes them: its bytes on the CPU; on a GPU, whose way is tried here with
the CPU's operations, but for values that round the other way."""

import subprocess
import sys

import jittor as jt
import numpy as np
import pytest
from PIL import Image

from data import resampling
from data.resampling import by_kernel, by_products, resample
from data.views import Views, view_batches
from models.jclip.preprocess import Preprocess
from system import runtime
from tests.workplace import ROOT


def picture(height, width, seed=0):
    """Waves and a little noise: of all frequencies, as photos are."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / 3 + y / 17), np.sin(y / 2), np.cos((x + y) / 5)], axis=2)
    noise = np.random.RandomState(seed).normal(0, 20, waves.shape)
    return np.clip(128 + 100 * waves + noise, 0, 255).astype(np.uint8)


def hard_edges(height, width, seed=0):
    """Black and white at random: the filter overshoots both ends of the range."""
    return 255 * np.random.RandomState(seed).randint(0, 2, (height, width, 3)).astype(np.uint8)


def views_of(tmp_path, pixels, size=24, n_views=12, whole_first=True):
    """`Views` and the path of an image."""
    path = str(tmp_path / "a.png")
    Image.fromarray(pixels).save(path)
    return Views(Preprocess(size), n_views, (0.3, 1.0), 1, whole_first), path


def by_pillow(views, path):
    """The views of an image, uint8 (V, S, S, 3)."""
    image, S = Image.open(path), views.preprocess.image_size
    made = [views.preprocess.pixels(image)] if views.whole_first else []
    for left, top, w, h, flipped in views.boxes(image):
        crop = image.resize((S, S), Image.BICUBIC, box=(left, top, left + w, top + h))
        made.append(np.asarray(crop)[:, ::-1] if flipped else np.asarray(crop))
    return np.stack(made)


def alike(ours, pillows):
    difference = np.abs(np.asarray(ours, float) - pillows)
    return difference.max() <= 1 and (difference > 0).mean() < 5e-3  # where halves are rounded


SIZES = [(90, 120), (64, 40), (17, 300), (24, 24), (1, 50), (50, 1), (1, 1), (375, 500), (16, 33),
         (400, 3)]  # 100 times as tall as wide, which Pillow 12.2 resizes otherwise


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("whole_first", [True, False])
@pytest.mark.parametrize("made", [picture, hard_edges])
def test_views_have_pillows_bytes(tmp_path, height, width, whole_first, made):
    views, path = views_of(tmp_path, made(height, width), whole_first=whole_first)
    pillows = by_pillow(views, path)
    flips = [flipped for *_, flipped in views.boxes(Image.open(path))]
    assert 0 < sum(flips) < len(flips)
    ours = by_kernel(*views.plan(path))
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, pillows)
    assert alike(by_products(*views.plan(path)).numpy(), pillows)


def test_a_large_images_views_are_made_some_at_a_time(tmp_path, monkeypatch):
    views, path = views_of(tmp_path, picture(64, 90))
    whole = by_products(*views.plan(path)).numpy()
    monkeypatch.setattr(resampling, "_AT_ONCE_BYTES", 4 * whole.shape[1] * (90 + 6 * 64) * 5)
    np.testing.assert_array_equal(by_products(*views.plan(path)).numpy(), whole)
    assert len(whole) == 12  # 5, 5 and 2


@pytest.mark.parametrize("size", [1, 5, 32, 224])
def test_views_of_any_side_have_pillows_bytes(tmp_path, size):
    views, path = views_of(tmp_path, picture(70, 90), size)
    np.testing.assert_array_equal(by_kernel(*views.plan(path)), by_pillow(views, path))


def test_a_large_image_keeps_its_places(tmp_path):
    """Where float32 alone would blur the places of pixels."""
    views, path = views_of(tmp_path, picture(30, 9000), n_views=3, whole_first=False)
    np.testing.assert_array_equal(by_kernel(*views.plan(path)), by_pillow(views, path))
    assert alike(by_products(*views.plan(path)).numpy(), by_pillow(views, path))


def test_the_whole_of_a_line_differs_from_pillows_by_one_at_most(tmp_path):
    """`Preprocess` asks Pillow for a part of it, whose place Pillow keeps as float32."""
    views, path = views_of(tmp_path, picture(2, 6000), n_views=1)
    assert alike(by_kernel(*views.plan(path)), by_pillow(views, path))


def test_batches_are_cut_on_the_gpu_where_one_is_used(tmp_path, monkeypatch):
    for i in range(3):
        Image.fromarray(picture(30 + i, 40, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    views = Views(Preprocess(24), 2, (0.3, 1.0), 1)
    pillows = np.stack([by_pillow(views, paths[0]), by_pillow(views, paths[2])])
    monkeypatch.setattr(runtime, "gpu_is_used", lambda: True)
    with pytest.warns(UserWarning, match="1.png"):
        (indices, pixels, _), = view_batches(views, paths, 3, 0, "images")
    assert list(indices) == [0, 2] and isinstance(pixels, jt.Var)
    assert alike(pixels.numpy(), pillows)


def test_they_are_cut_in_float32_whatever_training_takes(tmp_path, monkeypatch):
    seen = []

    def product(a, b):
        seen.append(jt.flags.use_tensorcore)
        return a @ b

    views, path = views_of(tmp_path, picture(12, 12), n_views=1)
    monkeypatch.setattr(resampling.jt, "matmul", product)
    monkeypatch.setattr(runtime, "gpu_is_used", lambda: True)
    monkeypatch.setattr(runtime, "_PRECISION", "bfloat16")
    with runtime.mixed_precision():
        pixels = resample(*views.plan(path))
        assert jt.flags.use_tensorcore == 2
    assert seen == [0] and pixels.shape == [1, 24, 24, 3]
    monkeypatch.setattr(runtime, "_PRECISION", "float32")
    with runtime.mixed_precision():
        assert jt.flags.use_tensorcore == 0


@pytest.mark.slow
def test_scripts_give_the_same_labels_with_them(trained, tmp_path):
    """train.py and test.py, an auxiliary encoder too: whatever takes pixels takes Vars."""
    folder, _ = trained
    labels = []
    for on_gpu in (False, True):
        code = ("import runpy, sys; from system import memory, runtime; "
                f"runtime.gpu_is_used = lambda: {on_gpu}; sys.argv = sys.argv[1:]; "
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
