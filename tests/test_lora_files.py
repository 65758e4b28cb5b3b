"""LoRA weights of other libraries: read, converted, and what they do to the features."""

import json
import math
import os
import subprocess
import sys

import jittor as jt
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from models.lora import apply_lora, load_additions, lora_state, merge_lora
from models.lora_convert import convert, to_clip_lora, to_peft, to_state
from models.lora_files import read_lora
from system.errors import UserError
from system.files import read_pickle, write_pickle
from system.torch_writer import torch_archive
from tests.conftest import shapes_of
from tests.reference.weights import TOKENS, random_images, random_state
from tests.tensors import Tensor, dumps
from tests.test_unpickle import HOSTILE

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Unlike depths and widths, so that nothing can be taken for the other.
SIZES = CLIPSizes(vision=TowerSizes(64, 6, 1), image_size=16, patch_size=8,
                  text=TowerSizes(128, 3, 2), context_length=24, vocab_size=49408, embed_dim=16)
WIDTHS = {"text": 128, "vision": 64}
PARTS_OF_PROJ = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}


def pair(width, rank, seed):
    random = np.random.RandomState(seed)
    return (random.normal(0, 1 / math.sqrt(width), (rank, width)).astype(np.float32),
            random.normal(0, 0.3, (width, rank)).astype(np.float32))


def clip_lora(blocks, params="qkv", rank=4, alpha=1.0, **metadata):
    """CLIP-LoRA's structure, and {(encoder, block, part): B A times its scale}.

    Args:
        blocks: list of (encoder, block) in the order of its layers.
    """
    layers, products = {}, {}
    for i, (encoder, block) in enumerate(blocks):
        layer = layers[f"layer_{i}"] = {}
        for part in params:
            down, up = pair(WIDTHS[encoder], rank, seed=[i, ord(part)])
            layer[PARTS_OF_PROJ[part]] = {"w_lora_A": down, "w_lora_B": up}
            products[encoder, block, part] = alpha / math.sqrt(rank) * (
                up.astype(float) @ down.astype(float))
    return {"weights": layers, "metadata": {
        "r": rank, "alpha": alpha, "params": list(params), **metadata}}, products


def peft(modules, rank=4, alpha=8, **config):
    """PEFT's adapter of {(encoder, block, part)}: its arrays, config and products."""
    state, products = {}, {}
    for i, (encoder, block, part) in enumerate(modules):
        down, up = pair(WIDTHS[encoder], rank, seed=i)
        name = f"base_model.model.{encoder}_model.encoder.layers.{block}.self_attn." + (
            "out_proj" if part == "o" else f"{part}_proj")
        state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"] = down, up
        scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
        products[encoder, block, part] = scale * (up.astype(float) @ down.astype(float))
    return state, {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, **config}, products


def write_peft(folder, state, config):
    folder.mkdir()
    save_file(state, str(folder / "adapter_model.safetensors"))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


ALL = [*(("text", i) for i in range(3)), *(("vision", i) for i in range(6))]
EVERYWHERE = {"encoder": "both", "position": "all"}
FORMS = {
    "all": clip_lora(ALL, **EVERYWHERE),
    "q, k, v, o": clip_lora(ALL, "qkvo", **EVERYWHERE),
    "v and o alone": clip_lora(ALL, "vo", rank=2, alpha=3.0, **EVERYWHERE),
    "the upper third": clip_lora([("text", 2), ("vision", 4), ("vision", 5)], encoder="both",
                                 position="up"),
    "the lower half": clip_lora([("text", 0), *(("vision", i) for i in range(3))],
                                encoder="both", position="half-bottom"),
    "the last block": clip_lora([("vision", 5)], encoder="vision", position="top"),
    "the text encoder": clip_lora([("text", i) for i in range(3)], encoder="text",
                                  position="all"),
}


def same_products(lora, products):
    assert lora.additions.keys() == products.keys()
    for place, (down, up) in lora.additions.items():
        np.testing.assert_allclose(up @ down, products[place], atol=1e-6, err_msg=str(place))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("ending", ["pt", "pkl", "tensors.pkl"])
def test_clip_loras_files(tmp_path, name, ending):
    content, products = FORMS[name]
    path = tmp_path / f"lora_weights.{ending}"
    if ending == "pt":
        path.write_bytes(torch_archive(content))
    elif ending == "pkl":
        write_pickle(str(path), content)
    else:
        path.write_bytes(dumps({**content, "weights": {
            layer: {name: {key: Tensor(value) for key, value in each.items()}
                    for name, each in parts.items()}
            for layer, parts in content["weights"].items()}}))
    same_products(read_lora(str(path), SIZES), products)


SOME = [("text", 0, "q"), ("text", 1, "v"), ("vision", 3, "o"), ("vision", 5, "k")]


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": 3, "alpha_pattern": {
    r"layers\.\d+\.self_attn\.(out_proj|k_proj)": 8, "text_model.*": 8}}])
def test_pefts_adapters(tmp_path, config):
    state, saved, products = peft(SOME, **{k: v for k, v in config.items() if k == "use_rslora"})
    place = write_peft(tmp_path / "adapter", state, {**saved, **config})
    for path in (place, os.path.join(place, "adapter_model.safetensors")):
        same_products(read_lora(path, SIZES), products)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "clip.pkl"
    write_pickle(str(path), random_state(shapes_of(CLIP(SIZES))))
    return str(path)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same(tmp_path, weights, name):
    content, products = FORMS[name]
    source = str(tmp_path / "theirs.pkl")
    write_pickle(source, content)
    for ending in ("ours.pkl", "theirs.pt", "peft"):
        output = str(tmp_path / ending)
        assert output in convert(source, weights, output)
        lora = read_lora(output, SIZES)
        for place, (down, up) in lora.additions.items():  # those that are not there are zeros
            expected = products.get(place, np.zeros_like(up @ down))
            np.testing.assert_allclose(up @ down, expected, atol=1e-6, err_msg=ending)
        assert products.keys() <= lora.additions.keys()
        again = convert(output, weights, str(tmp_path / "again.pkl"))
        assert "lora.rank" in again
    metadata = read_lora_metadata(tmp_path / "theirs.pt")
    assert metadata["r"] == content["metadata"]["r"]
    assert metadata["encoder"] == content["metadata"]["encoder"]


def read_lora_metadata(path):
    return jt.load(str(path))["metadata"]  # Jittor's own reader of PyTorch's files


def test_an_adapter_of_single_modules_becomes_ours(tmp_path, weights):
    state, config, products = peft(SOME)
    output = str(tmp_path / "ours.pkl")
    said = convert(write_peft(tmp_path / "adapter", state, config), weights, output)
    assert "lora.positions=all" in said and "lora.params=[q,k,v,o]" in said
    lora = read_lora(output, SIZES)
    assert {place for place, (_, up) in lora.additions.items() if up.any()} == set(products)
    same_products(lora._replace(additions={p: lora.additions[p] for p in products}), products)
    content = read_pickle(output)
    model = CLIP(SIZES)
    settings = content["settings"]
    apply_lora(model, settings["encoder"], settings["params"], settings["rank"],
               settings["alpha"], 0.0, settings["positions"])
    assert lora_state(model).keys() == content["lora"].keys()


def features(model):
    return (model.encode_image(jt.array(random_images(3, 16))).numpy(),
            model.encode_text(TOKENS).numpy())


def merged_by_hand(products):
    """Features of a CLIP whose weights have the products added in NumPy."""
    state = random_state(shapes_of(CLIP(SIZES)))
    for (encoder, block, part), product in products.items():
        prefix = "visual." if encoder == "vision" else ""
        attention = f"{prefix}transformer.resblocks.{block}.attn."
        if part == "o":
            state[f"{attention}out_proj.weight"] += product.astype(np.float32)
        else:
            width, row = WIDTHS[encoder], "qkv".index(part)
            state[f"{attention}in_proj_weight"][row * width:(row + 1) * width] += (
                product.astype(np.float32))
    model = CLIP(SIZES)
    model.load_state_dict(state)
    return features(model)


@pytest.mark.parametrize("name", ["all", "q, k, v, o", "the upper third", "v and o alone"])
def test_the_tuned_encoders_features(tmp_path, name):
    content, products = FORMS[name]
    path = str(tmp_path / "lora_weights.pkl")
    write_pickle(path, content)
    lora, model = read_lora(path, SIZES), CLIP(SIZES)
    model.load_state_dict(random_state(shapes_of(model)))
    plain, expected = features(model), merged_by_hand(products)
    apply_lora(model, lora.encoder, lora.params, lora.rank, 2.0, 0.25, lora.positions(SIZES))
    load_additions(model, lora.additions, path)
    for _ in ("apart", "merged"):
        for ours, theirs, before in zip(features(model), expected, plain):
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
            assert np.abs(before - theirs).max() > 1e-2 * np.abs(theirs).max()
        merge_lora(model)


def test_a_higher_rank_starts_with_room(tmp_path):
    """What the file does not fill learns from zero: B is zero, A is not."""
    content, products = FORMS["the upper third"]
    path = str(tmp_path / "lora_weights.pkl")
    write_pickle(path, content)
    model = CLIP(SIZES)
    model.load_state_dict(random_state(shapes_of(model)))
    layers = apply_lora(model, "both", "qkvo", 6, 1.0, 0.0, "all")
    load_additions(model, read_lora(path, SIZES).additions, path)
    for ours, theirs in zip(features(model), merged_by_hand(products)):
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert all(np.abs(layer.down.numpy()).min(axis=1).max() > 0 for layer in layers)
    assert all((layer.up.numpy()[..., 4:] == 0).all() for layer in layers)


@pytest.mark.parametrize("settings, words", [
    (("both", "qk", 4, 1.0, 0.0, "all"), "adds to v of the text"),
    (("both", "qkv", 2, 1.0, 0.0, "all"), "with rank 4"),
    (("text", "qkv", 4, 1.0, 0.0, "all"), "the vision encoder's block 0"),
    (("both", "qkv", 4, 1.0, 0.0, "bottom"), "block 1")])
def test_a_model_without_room_is_told(tmp_path, settings, words):
    path = str(tmp_path / "lora_weights.pkl")
    write_pickle(path, FORMS["all"][0])
    model = CLIP(SIZES)
    apply_lora(model, *settings)
    with pytest.raises(UserError, match=f"lora_weights.pkl.*{words}.*set them to the file's"):
        load_additions(model, read_lora(path, SIZES).additions, path)


def changed(**changes):
    content, _ = clip_lora(ALL, **EVERYWHERE)
    content["metadata"].update(changes)
    return content


def with_layer(name, value):
    content, _ = clip_lora(ALL, **EVERYWHERE)
    content["weights"][name] = value
    return content


ODD = {"w_lora_A": np.ones((4, 64), "f4"), "w_lora_B": np.ones((64, 4), "f4")}


@pytest.mark.parametrize("content, words", [
    (changed(position="up"), "has 9 layers, and its 'both', 'up' means 3"),
    (changed(encoder="text"), "has 9 layers"), (changed(position="x"), "lora.positions is 'x'"),
    (changed(encoder="image"), "metadata must tell"), (changed(alpha=None), "metadata must tell"),
    (changed(r=0), "metadata must tell"), (with_layer("layer_x", {}), "metadata must tell"),
    (with_layer("layer_9", {}), "has 10 layers"),
    (with_layer("layer_0", {"q_proj": ODD}), "text encoder's block 0 .*128 channels"),
    (with_layer("layer_8", {"c_fc": ODD}), "adds to 'c_fc'"),
    (with_layer("layer_8", {"q_proj": {"w_lora_A": np.ones((4, 64))}}), "not w_lora_A and w_lor"),
    (with_layer("layer_8", {"q_proj": {**ODD, "w_lora_B": np.full((64, 4), np.nan)}}), "finite"),
    (with_layer("layer_8", {"q_proj": {**ODD, "w_lora_B": np.ones((64, 3), "f4")}}), "shapes"),
    (with_layer("layer_8", {"q_proj": {"w_lora_A": np.float32(1), "w_lora_B": 3}}), "two matrices"),
    (with_layer("layer_8", {"q_proj": {**ODD, "w_lora_B": ["x"]}}), "two matrices"),
    (with_layer("layer_8", 3), "layer_8 is 3"),
    ({"a": np.ones(3)}, "holds no LoRA weights, only 'a'"), ([1], "holds no LoRA"),
    ({"lora": {}, "settings": {"params": ["q"], "rank": 4, "alpha": 1.0}}, "holds no additions"),
    ({"lora": {"text.0.in_delta.down": np.ones((4, 128), "f4"),
               "text.0.in_delta.up": np.float32(1)},
      "settings": {"params": ["q"], "rank": 4, "alpha": 1.0}}, "is damaged"),
    ({"lora": {"text.0.in_delta.down": np.ones((4, 128), "f4")}, "config": {}}, "is damaged")])
def test_a_file_that_does_not_fit_is_told(tmp_path, content, words):
    path = str(tmp_path / "lora.pkl")
    write_pickle(path, content)
    with pytest.raises(UserError, match=words) as error:
        read_lora(path, SIZES)
    assert "\n" not in str(error.value)


def test_nothing_hostile_is_run_and_what_lies_beside_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, products = FORMS["all"]
    path = tmp_path / "lora.pkl"
    for name in ("os.system", "eval", "deque", "an instance"):
        path.write_bytes(dumps({**content, "args": HOSTILE[name]}))
        same_products(read_lora(str(path), SIZES), products)
        path.write_bytes(dumps({**content, "weights": {**content["weights"],
                                                       "layer_0": {"q_proj": HOSTILE[name]}}}))
        with pytest.raises(UserError, match="is refused: it"):
            read_lora(str(path), SIZES)
    assert os.listdir(tmp_path) == ["lora.pkl"]


@pytest.mark.parametrize("config, words", [
    ({"peft_type": "LOHA"}, "another kind than LoRA"), ({"use_dora": True}, "use_dora"),
    ({"lora_alpha": "x"}, "do not fit"), ({"alpha_pattern": {"(a+)+$": 3}}, "do not fit"),
    ({"alpha_pattern": {"(": 3}}, "do not fit"), ({"alpha_pattern": [3]}, "do not fit"),
    (None, "adapter_config.json is missing")])
def test_an_adapter_that_does_not_fit_is_told(tmp_path, config, words):
    state, saved, _ = peft(SOME)
    path = write_peft(tmp_path / "adapter", state, {**saved, **(config or {})})
    if config is None:
        os.remove(os.path.join(path, "adapter_config.json"))
    with pytest.raises(UserError, match=words):
        read_lora(path, SIZES)


def test_an_adapter_on_other_weights_is_told(tmp_path):
    state, saved, _ = peft(SOME)
    state["base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"] = np.ones((4, 128))
    with pytest.raises(UserError, match="mlp.fc1.*merge"):
        read_lora(write_peft(tmp_path / "adapter", state, saved), SIZES)


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "models.lora", *map(str, arguments)], cwd=ROOT,
                          capture_output=True, text=True, timeout=100)


def test_the_command(tmp_path, weights):
    write_pickle(str(tmp_path / "theirs.pkl"), FORMS["q, k, v, o"][0])
    output = tmp_path / "peft"
    done = command("convert", tmp_path / "theirs.pkl", "--weights", weights, output)
    assert done.returncode == 0 and "lora.params=[q,k,v,o]" in done.stdout, done.stderr
    assert len(load_file(str(output / "adapter_model.safetensors"))) == 2 * 9 * 4
    done = command("convert", tmp_path / "none.pkl", "--weights", weights, tmp_path / "x.pkl")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.pkl" in done.stderr
    done = command("convert", tmp_path / "theirs.pkl", "--weights", weights, tmp_path / "x.npz")
    assert done.returncode == 2 and "x.npz must end in" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["peft", "theirs.pkl"]


def test_what_is_written_has_the_files_own_numbers(tmp_path):
    """CLIP-LoRA's and PEFT's own loaders multiply by their scale; then it is the same product."""
    content, products = FORMS["v and o alone"]
    write_pickle(str(tmp_path / "x.pkl"), content)
    lora = read_lora(str(tmp_path / "x.pkl"), SIZES)
    theirs = to_clip_lora(lora, SIZES)
    scale = theirs["metadata"]["alpha"] / math.sqrt(theirs["metadata"]["r"])
    layer = theirs["weights"]["layer_4"]["proj"]  # the image encoder's second block
    np.testing.assert_allclose(scale * layer["w_lora_B"] @ layer["w_lora_A"],
                               products["vision", 1, "o"], atol=1e-6)
    state, config = to_peft(lora)
    name = "base_model.model.vision_model.encoder.layers.1.self_attn.out_proj"
    np.testing.assert_allclose(
        config["lora_alpha"] / config["r"] * state[f"{name}.lora_B.weight"]
        @ state[f"{name}.lora_A.weight"], products["vision", 1, "o"], atol=1e-6)
    assert to_state(lora, SIZES)["text.0.in_delta.down"].shape == (2, 128)
