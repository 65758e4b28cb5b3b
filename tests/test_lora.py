"""LoRA: inserted it changes nothing, merged it equals unmerged, and nothing else moves."""

import jittor as jt
import numpy as np
import pytest

from models import jclip
from models.lora import (
    apply_lora,
    dropout_drawn,
    freeze,
    load_lora_state,
    lora_state,
    merge_lora,
    parameters,
    tuned_clip,
)
from system.errors import UserError
from system.files import write_pickle
from tests.conftest import shapes_of
from tests.reference.weights import random_state


def features_of(model, images, tokens):
    with jt.no_grad():
        return np.concatenate([model.encode_image(images).numpy(),
                               model.encode_text(tokens).numpy()])


def randomise(layers, seed=0):
    """Give the additions weights, as training would."""
    random = np.random.RandomState(seed)
    for layer in layers:
        layer.up.update(jt.array(random.normal(0, 0.2, layer.up.shape).astype(np.float32)))


@pytest.mark.parametrize("params", [("q", "k", "v"), ("q", "v"), ("o",), ("k", "o")])
@pytest.mark.parametrize("encoder", ["vision", "text", "both"])
def test_starts_as_nothing_and_merges_to_the_same(small_clip, images, tokens, encoder, params):
    before = features_of(small_clip, images, tokens)
    layers = apply_lora(small_clip, encoder, params, rank=3, alpha=2.0)
    np.testing.assert_allclose(features_of(small_clip, images, tokens), before, atol=1e-5)
    randomise(layers)
    unmerged = features_of(small_clip, images, tokens)
    moved = np.abs(unmerged - before).max(axis=1) > 1e-2
    assert moved[:3].all() == (encoder != "text") and moved[3:].all() == (encoder != "vision")
    names = shapes_of(small_clip)
    merge_lora(small_clip)
    merged = features_of(small_clip, images, tokens)
    assert np.abs(merged - unmerged).max() <= 1e-5 * np.abs(unmerged).max()
    assert not any("delta" in name for name in shapes_of(small_clip)) and len(names) > len(
        shapes_of(small_clip))


def test_addition_is_scaled_b_a_x():
    jt.set_global_seed(0)
    from models.lora import LowRank
    layer = LowRank(8, [True, False, True], rank=2, alpha=3.0, dropout=0.5)
    randomise([layer])
    x = np.random.RandomState(1).normal(size=(4, 8)).astype(np.float32)
    down, up = layer.down.numpy(), layer.up.numpy()
    expected = 3 / np.sqrt(2) * np.concatenate(
        [x @ down[:2].T @ up[0].T, np.zeros((4, 8)), x @ down[2:].T @ up[1].T], axis=1)
    np.testing.assert_allclose(layer(jt.array(x)).numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(x @ layer.weight().numpy().T, expected, atol=1e-5)


def test_only_the_additions_are_trained(small_clip, images, tokens):
    frozen = {n: p.numpy().copy() for n, p in small_clip.named_parameters()}
    layers = apply_lora(small_clip, dropout=0.5)
    optimizer = jt.optim.AdamW(parameters(layers), lr=1e-2)
    starts = [p.numpy().copy() for p in parameters(layers)]
    for i in range(3):
        with dropout_drawn(small_clip, [i], slice(0, 3)):
            image, text = small_clip(images, tokens)
        optimizer.step((image - text).abs().mean() + image[:, 0].mean())
    after = dict(small_clip.named_parameters())
    for name, value in frozen.items():
        np.testing.assert_array_equal(after[name].numpy(), value, err_msg=name)
    moved = [np.abs(p.numpy() - s).max() for p, s in zip(parameters(layers), starts)]
    assert min(moved) > 1e-4


def test_gradients_are_those_of_finite_differences(small_clip, images):
    layers = apply_lora(small_clip, "vision", dropout=0.0)
    randomise(layers)
    direction = np.random.RandomState(2).normal(size=(3, 16)).astype(np.float32)

    def loss():
        return (small_clip.encode_image(images) * jt.array(direction)).sum()

    for variable in (layers[0].down, layers[1].up):
        gradient = jt.grad(loss(), [variable])[0].numpy()
        values = variable.numpy().copy()
        step = np.random.RandomState(3).normal(size=values.shape).astype(np.float32) * 1e-3
        either = []
        for sign in (1, -1):
            variable.update(jt.array(values + sign * step))
            either.append(float(loss().item()))
        variable.update(jt.array(values))
        slope = (either[0] - either[1]) / 2
        np.testing.assert_allclose((gradient * step).sum(), slope, rtol=2e-2)


def test_dropout_is_on_inside_alone_and_drawn_by_place(small_clip, images, tokens):
    randomise(apply_lora(small_clip, dropout=0.5))
    calm = features_of(small_clip, images, tokens)

    def dropped(seed, rows):
        with dropout_drawn(small_clip, seed, rows):
            return features_of(small_clip, images[rows], tokens[rows])

    whole = dropped([7], slice(0, 3))
    assert np.abs(whole - calm).max() > 1e-3
    np.testing.assert_array_equal(features_of(small_clip, images, tokens), calm)
    assert np.abs(dropped([8], slice(0, 3)) - whole).max() > 1e-3
    # The rows from the second on, alone; the kernels' sums may go another way.
    np.testing.assert_allclose(dropped([7], slice(1, 3)), whole[[1, 2, 4, 5]], atol=1e-5)


@pytest.mark.parametrize("positions, blocks", [
    ("all", {0, 1}), ("half-up", {1}), ("half-bottom", {0}), ("top1", {1}), ("top3", {0, 1}),
    ([0], {0}), ("up", {0, 1})])
def test_positions(small_clip, positions, blocks):
    apply_lora(small_clip, positions=positions)
    assert {int(name.split(".")[1]) for name in lora_state(small_clip)} == blocks


@pytest.mark.parametrize("wrong, message", [
    ({"encoder": "audio"}, "audio"), ({"params": ["q", "z"]}, "'z'"), ({"params": []}, "params"),
    ({"rank": 0}, "rank is 0"), ({"dropout": 1.0}, "dropout"),
    ({"positions": "middle"}, "middle"), ({"positions": [2]}, "0 to 1")])
def test_wrong_settings_are_named(small_clip, wrong, message):
    with pytest.raises(UserError, match=message):
        apply_lora(small_clip, **wrong)


def test_saved_and_loaded_merged(small_clip, images, tokens, tmp_path):
    from types import SimpleNamespace
    path = str(tmp_path / "clip.pkl")
    write_pickle(path, random_state(shapes_of(small_clip)))
    randomise(apply_lora(small_clip, rank=2))
    state = lora_state(small_clip)
    expected = features_of(small_clip, images, tokens)
    settings = SimpleNamespace(encoder="both", params=["q", "k", "v"], rank=2, alpha=1.0,
                               dropout=0.25, positions="all")
    original, _ = jclip.load(path)
    before = features_of(original, images, tokens)
    tuned = tuned_clip(original, settings, state, "here.pkl")
    np.testing.assert_allclose(features_of(tuned, images, tokens), expected, atol=1e-4)
    # The original is as it was, and shares what LoRA did not change.
    np.testing.assert_array_equal(features_of(original, images, tokens), before)
    assert tuned.visual.conv1.weight is original.visual.conv1.weight
    other, _ = jclip.load(path)
    freeze(other)
    apply_lora(other, rank=3)
    with pytest.raises(UserError, match="here.pkl .*misshapen"):
        load_lora_state(other, state, "here.pkl")
