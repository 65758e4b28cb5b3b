"""The auxiliary encoder: its files and features, and the scripts with one."""

import os
import re
import shutil

import jittor as jt
import numpy as np
import pytest

from models import auxiliary
from models.auxiliary import load_encoder
from models.resnet import ResNet, ResNetSizes, StageSizes, sizes_of
from system.errors import UserError
from system.files import read_pickle, write_pickle
from tests.conftest import shapes_of
from tests.reference.weights import random_images, random_state
from tests.workplace import N_BASE, build, random_weights, run

pytestmark = pytest.mark.slow

SIZES = ResNetSizes(8, (StageSizes(2, 4, 16), StageSizes(1, 6, 24), StageSizes(2, 8, 32),
                        StageSizes(1, 8, 40)))


def resnet_weights():
    """{torchvision's name: array} of a small ResNet, with its classifier."""
    state = random_state(shapes_of(ResNet(SIZES)))
    state["bn1.num_batches_tracked"] = np.array(7)  # as torchvision's have it
    return {**state, "fc.weight": np.ones((3, 40), np.float32), "fc.bias": np.ones(3, np.float32)}


def moco_checkpoint(state):
    """What MoCo v3 saves: a projector in the classifier's place, both encoders, a predictor."""
    base = {name: value for name, value in state.items() if not name.startswith("fc.")}
    base.update({"fc.0.weight": np.ones((6, 40), np.float32), "fc.1.running_var": np.ones(6)})
    content = {f"module.{encoder}.{name}": value if encoder == "base_encoder" else 0 * value
               for encoder in ("momentum_encoder", "base_encoder") for name, value in base.items()}
    content["module.predictor.0.weight"] = np.ones((6, 6), np.float32)
    return {"epoch": 1000, "arch": "resnet50", "state_dict": content,
            "optimizer": {"state": {}, "param_groups": [{"lr": 0.6, "params": [0, 1]}]}}


def plain_resnet(state, images):
    """Features of images (B, 3, S, S), in float64 and plain NumPy."""
    def windows(x, size, stride):
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[
            :, :, ::stride, ::stride]

    def convolved(x, name, bn, stride=1):
        weight = state[f"{name}.weight"].astype(np.float64)
        margin = weight.shape[2] // 2
        x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
        y = np.einsum("bchwij,ocij->bohw", windows(x, weight.shape[2], stride), weight)
        scale = state[f"{bn}.weight"] / np.sqrt(state[f"{bn}.running_var"] + 1e-5)
        shift = state[f"{bn}.bias"] - state[f"{bn}.running_mean"] * scale
        return y * scale[:, None, None] + shift[:, None, None]

    x = np.maximum(convolved(images.astype(np.float64), "conv1", "bn1", 2), 0)
    x = windows(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf), 3, 2)
    x = x.max(axis=(4, 5))
    for stage in range(1, 5):
        blocks = sorted({re.match(rf"layer{stage}\.\d+", n)[0] for n in state
                         if n.startswith(f"layer{stage}.")})
        for block in blocks:
            first = block.endswith(".0")
            stride = 2 if first and stage > 1 else 1
            y = np.maximum(convolved(x, f"{block}.conv1", f"{block}.bn1"), 0)
            y = np.maximum(convolved(y, f"{block}.conv2", f"{block}.bn2", stride), 0)
            y = convolved(y, f"{block}.conv3", f"{block}.bn3")
            if first:
                x = convolved(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            x = np.maximum(x + y, 0)
    return x.mean(axis=(2, 3))


@pytest.mark.parametrize("image_size", [32, 45])
def test_features_equal_a_plain_version(tmp_path, image_size):
    state = resnet_weights()
    write_pickle(str(tmp_path / "r.pkl"), state)
    encoder = load_encoder(str(tmp_path / "r.pkl"), image_size)
    images = random_images(2, image_size)
    expected = plain_resnet(state, images)
    ours = encoder.encode(jt.array(images)).numpy()
    assert ours.shape == (2, encoder.n_features) == (2, 40)
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


def test_views_are_normalised_as_on_imagenet(tmp_path):
    state = resnet_weights()
    write_pickle(str(tmp_path / "r.pkl"), state)
    pixels = np.random.RandomState(1).randint(256, size=(2, 3, 16, 16, 3)).astype(np.uint8)
    images = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    views = plain_resnet(state, images.reshape(6, 16, 16, 3).transpose(0, 3, 1, 2))
    views = (views / np.linalg.norm(views, axis=1, keepdims=True)).reshape(2, 3, 40)
    encoder = load_encoder(str(tmp_path / "r.pkl"), 16)
    np.testing.assert_allclose(encoder.view_features(pixels).numpy(), views, atol=1e-5)
    means = views.mean(axis=1)
    np.testing.assert_allclose(encoder.image_features(pixels),
                               means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("layout", [
    lambda state: {"state_dict": state}, moco_checkpoint,
    lambda state: {f"base_encoder.{name}": value for name, value in state.items()},
    lambda state: {f"module.encoder_q.{name}": value for name, value in state.items()}])
def test_names_of_checkpoints_are_known(tmp_path, layout):
    state = resnet_weights()
    write_pickle(str(tmp_path / "plain.pkl"), state)
    write_pickle(str(tmp_path / "r.pkl"), layout(state))
    ours, plain = (load_encoder(str(tmp_path / name), 32) for name in ("r.pkl", "plain.pkl"))
    assert ours.fingerprint == plain.fingerprint and ours.n_features == 40


def test_sizes_are_read_from_the_weights():
    assert sizes_of(resnet_weights()) == SIZES


def test_a_clip_serves_at_its_own_size(tmp_path, small_clip):
    write_pickle(str(tmp_path / "clip.pkl"), random_weights())
    encoder = load_encoder(str(tmp_path / "clip.pkl"), 24)
    assert encoder.image_size == 16 and encoder.n_features == 16
    pixels = np.full((1, 2, 24, 24, 3), 90, np.uint8)  # one colour looks the same at any size
    ours = encoder.view_features(pixels).numpy()
    expected = load_encoder(str(tmp_path / "clip.pkl"), 16).view_features(pixels[:, :, :16, :16])
    np.testing.assert_allclose(ours, expected.numpy(), atol=1e-5)


def without(name):
    state = resnet_weights()
    del state[name]
    return state


@pytest.mark.parametrize("content, words", [
    ({"a": np.ones(3, np.float32)}, "no ResNet with bottlenecks and no CLIP.*r-50-1000ep.pth.tar"),
    (without("layer2.0.bn1.bias"), "missing layer2.0.bn1.bias"),
    (without("conv1.weight"), "no whole ResNet"),
    ({**resnet_weights(), "layer4.0.conv2.bias": np.ones(8, "f4")}, "unknown layer4.0.conv2.bias"),
    ({**resnet_weights(), "layer3.0.conv3.weight": np.float32(1)}, "no whole ResNet"),
    ({**resnet_weights(), "layer1.0.conv3.weight": np.zeros((0, 4, 1, 1), "f4")}, "empty array"),
    ({**resnet_weights(), "bn1.weight": np.full(8, np.nan, "f4")}, "not finite"),
    ({"state_dict": 3}, "no dict of weights, only 'state_dict'"), ([], "no dict of weights")])
def test_other_files_are_refused(tmp_path, content, words):
    path = str(tmp_path / "w.pkl")
    write_pickle(path, content)
    with pytest.raises(UserError, match=words) as error:
        load_encoder(path, 32)
    assert path in str(error.value)


def test_no_path_is_no_encoder():
    assert load_encoder(None, 32) is None


@pytest.fixture(scope="module")
def with_auxiliary(trained, tmp_path_factory):
    """A workplace trained with a small ResNet beside its CLIP, from the other's first stage."""
    folder = tmp_path_factory.mktemp("auxiliary")
    build(folder)
    shutil.copytree(trained[0] / "weights", folder / "weights")
    write_pickle(str(folder / "resnet.pkl"), moco_checkpoint(resnet_weights()))
    done = run("train.py", folder, "--stage", "2", f"aux.weights={folder / 'resnet.pkl'}")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def test_the_scripts_fit_and_use_the_auxiliary_head(with_auxiliary, trained, tmp_path):
    folder, on = with_auxiliary, f"aux.weights={with_auxiliary / 'resnet.pkl'}"
    saved = read_pickle(str(folder / "weights" / "head.pkl"))
    assert saved["aux_weight"].shape == (N_BASE, 40)
    labelled = ["--labels", folder / "labels.txt", "--ablate"]
    done = run("test.py", folder, on, *labelled, "--output", tmp_path / "on.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "+ auxiliary" in done.stdout
    # Without labels new images are seen by fewer models, with the same result.
    done = run("test.py", folder, on, "--output", tmp_path / "again.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "on.txt").read_bytes() == (tmp_path / "again.txt").read_bytes()
    # Switched off, it is as if it had never been.
    done = run("test.py", folder, "--output", tmp_path / "off.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "off.txt").read_text().splitlines() == trained[1]
    done = run("predict.py", folder, on, *sorted((folder / "Dataset" / "TestSetB").iterdir())[:2])
    assert done.returncode == 0 and done.stdout.count("%") == 10, done.stderr[-2000:]


def test_an_image_that_cannot_be_decoded_gets_no_bias(with_auxiliary, tmp_path):
    shutil.copytree(with_auxiliary / "Dataset", tmp_path / "Dataset")
    (tmp_path / "Dataset" / "TestSetB" / "image_5.png").write_bytes(b"no picture")
    done = run("test.py", with_auxiliary, f"aux.weights={with_auxiliary / 'resnet.pkl'}",
               "--output", tmp_path / "r.txt", f"data.root={tmp_path / 'Dataset'}")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len((tmp_path / "r.txt").read_text().splitlines()) == 12


def other_weights(folder):
    state = resnet_weights()
    state["conv1.weight"] = 2 * state["conv1.weight"]
    write_pickle(str(folder / "resnet.pkl"), state)


def no_weights(folder):
    (folder / "resnet.pkl").unlink()


def a_head_for_other_features(folder):
    path = str(folder / "weights" / "head.pkl")
    content = read_pickle(path)
    write_pickle(path, {**content, "aux_weight": content["aux_weight"][:, 1:]})


def trained_without(folder):
    path = str(folder / "weights" / "head.pkl")
    write_pickle(path, {name: part for name, part in read_pickle(path).items()
                        if not name.startswith("aux_")})


@pytest.mark.parametrize("change, settings, words", [
    (other_weights, [], ["head.pkl was trained with other auxiliary weights", "aux.weights"]),
    (no_weights, [], ["no auxiliary weights at", "r-50-1000ep.pth.tar", "res1000epoch.pkl",
                      "aux.weights=null"]),
    (a_head_for_other_features, [], ["head.pkl is damaged", "aux_weight"]),
    (trained_without, [], ["head.pkl was trained without aux.weights", "train.py --stage 2"]),
    (None, ["aux.alpha=2"], ["aux.alpha: 0.06 when trained, 2.0 now"])])
def test_what_does_not_fit_ends_testing_in_one_line(with_auxiliary, tmp_path, change, settings,
                                                    words):
    folder = tmp_path / "changed"
    shutil.copytree(with_auxiliary, folder)
    if change:
        change(folder)
    done = run("test.py", with_auxiliary, f"aux.weights={folder / 'resnet.pkl'}",
               f"output.checkpoint_dir={folder / 'weights'}", "--output", tmp_path / "r.txt",
               *settings)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and error.startswith("error: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in error
    assert not os.path.exists(tmp_path / "r.txt")


def test_training_without_the_file_ends_before_it_begins(workplace, tmp_path):
    done = run("train.py", workplace, "aux.weights=/nowhere/res1000epoch.pkl",
               f"output.checkpoint_dir={tmp_path / 'w'}")
    assert done.returncode == 2 and not os.path.exists(tmp_path / "w")
    assert done.stderr.splitlines()[-1].startswith(
        "error: no auxiliary weights at /nowhere/res1000epoch.pkl; put MoCo v3's")


def test_settings_of_the_head_are_config_keys():
    from configs import load_config
    keys = {f"aux.{key}" for key in load_config().to_dict()["aux"]}
    assert set(auxiliary.SETTINGS) == keys - {"aux.weights", "aux.views"}
