"""Weights of every format: files that PyTorch wrote, other libraries' names, damaged ones."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import jittor as jt
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from models import jclip
from models.jclip.formats import read_content, read_weights
from models.jclip.model import CLIP
from models.jclip.parameters import fingerprint
from models.jclip.sizes import CLIPSizes, ResNetSizes, TowerSizes
from models.lora import apply_lora
from system.errors import UserError
from system.files import write_pickle
from system.torch_writer import torch_archive
from tests.corpus import weights as corpus
from tests.reference.weights import (
    TOKENS,
    clip_shapes,
    random_images,
    random_state,
    to_transformers,
)
from tests.test_unpickle import HOSTILE

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REFERENCE = os.path.join(ROOT, "tests", "reference")
SMALL = clip_shapes(width=16, vocab_size=20)
CONFIG = {"vision_config": {"hidden_act": "quick_gelu", "num_attention_heads": 1},
          "text_config": {"hidden_act": "quick_gelu", "num_attention_heads": 1}}


def half_state():
    return {name: value.astype(np.float16) for name, value in random_state(SMALL).items()}


def with_config(path, activation):
    config = json.loads(json.dumps(CONFIG).replace("quick_gelu", activation))
    (path.parent / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name, activation, form", [
    ("script.pt", None, "TorchScript archive"), ("state.pth", "gelu", "PyTorch state dict"),
    ("legacy.pth", "gelu", "PyTorch state dict"),
    ("checkpoint.pth.tar", "gelu", "PyTorch state dict"),
    ("bfloat16.pth", "quick_gelu", "PyTorch state dict")])
def test_files_that_pytorch_wrote(name, activation, form):
    weights = read_weights(os.path.join(REFERENCE, name), activation)
    assert weights.format == form and weights.activation == (activation or "quick_gelu")
    expected = half_state()
    assert weights.state.keys() == expected.keys()
    for key, value in expected.items():
        ours = np.asarray(weights.state[key], np.float32)
        # bfloat16 keeps 8 bits of the mantissa.
        np.testing.assert_allclose(ours, value.astype(np.float32), err_msg=key,
                                   rtol=2 ** -8 if "bfloat" in name else 0)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("names", ["transformers", "openai", "open_clip"])
def test_features_equal_the_reference(tmp_path, names, activation):
    """`reference/make_clip.py` computes them with transformers in PyTorch."""
    state = random_state(clip_shapes())
    path = tmp_path / "model.safetensors"
    if names == "transformers":
        state = to_transformers(state)
        with_config(path, activation)
    else:
        if names == "open_clip":
            state = {n if n.startswith(("visual", "logit")) else f"text.{n}": v
                     for n, v in state.items()}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(
            {"model_cfg": {"quick_gelu": activation == "quick_gelu"}}))
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, path)
    model, _ = jclip.load(str(path))
    reference = np.load(os.path.join(REFERENCE, f"clip_{activation}.npz"))
    images = jt.array(random_images(3, 16))
    for name, ours in (("image_features", model.encode_image(images)),
                       ("text_features", model.encode_text(TOKENS)),
                       ("logits_per_image", model(images, TOKENS)[0])):
        expected = reference[name]
        assert np.abs(ours.numpy() - expected).max() <= 1e-5 * np.abs(expected).max(), name


def test_encoders_of_unlike_sizes(tmp_path):
    """As TinyCLIP's: each encoder has its own width, depth and, told by the config, heads."""
    state = random_state(clip_shapes(width=96, layers=3, text_width=64, text_layers=1))
    path = tmp_path / "model.safetensors"
    save_file(to_transformers(state), path)
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "clip", "projection_dim": 16,
        "vision_config": {"num_attention_heads": 4, "hidden_act": "gelu"},
        "text_config": {"num_attention_heads": 8, "hidden_act": "gelu"}}))
    model, _ = jclip.load(str(path))
    assert model.sizes.vision == TowerSizes(96, 3, 4) and model.sizes.text == TowerSizes(64, 1, 8)
    assert {b.attn.heads for b in model.visual.transformer.resblocks} == {4}
    assert {b.attn.heads for b in model.transformer.resblocks} == {8}
    for features in (model.encode_image(jt.array(random_images(3, 16))),
                     model.encode_text(TOKENS)):
        assert features.shape == [3, 16] and np.isfinite(features.numpy()).all()


def test_resnet_features_equal_the_reference(tmp_path):
    sizes = CLIPSizes(vision=ResNetSizes(8, (1, 2, 1, 1)), image_size=64, patch_size=0,
                      text=TowerSizes(64, 2, 1), context_length=24, vocab_size=20, embed_dim=16)
    shapes = {n: tuple(p.shape) for n, p in CLIP(sizes).named_parameters()}
    state = random_state(shapes)
    state["visual.bn1.num_batches_tracked"] = np.array(7)  # as OpenAI's files have it
    path = str(tmp_path / "RN.pkl")
    write_pickle(path, state)
    model, preprocess = jclip.load(path)
    assert model.sizes == sizes and preprocess.image_size == 64
    expected = np.load(os.path.join(REFERENCE, "resnet.npz"))["image_features"]
    ours = model.encode_image(jt.array(random_images(3, 64))).numpy()
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(UserError, match="ResNet"):
        apply_lora(model, "both")
    assert len(apply_lora(model, "text")) == 2


def test_bfloat16_is_widened(tmp_path):
    """What torch and safetensors 0.8 write of bfloat16: the upper halves of float32 values."""
    values = np.float32([[1.5, -2, 0.1], [3e38, 1e-40, 0]])
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    state = {"first": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
             "scale": {"dtype": "BF16", "shape": [], "data_offsets": [12, 14]},
             "other": {"dtype": "F32", "shape": [3], "data_offsets": [14, 26]}}
    header = json.dumps(state).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes()
                     + halves[0, :1].tobytes() + values[0].tobytes())
    read = read_weights(str(path), "gelu").state
    expected = (halves.astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(read["first"], expected)
    assert read["scale"].shape == () and read["scale"] == 1.5
    np.testing.assert_array_equal(read["other"], values[0])
    path.write_bytes(path.read_bytes()[:-8])
    assert "damaged" in refused(str(path))


def test_numbers_of_a_type_that_is_not_read_are_told(tmp_path):
    header = json.dumps({"visual.proj": {"dtype": "F8_E4M3", "shape": [2],
                                         "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    assert "it has visual.proj in F8_E4M3" in refused(str(path))


@pytest.mark.parametrize("prefix", ["model.", "clip.model.", "module._orig_mod."])
def test_a_prefix_of_transformers_names_is_taken_off(tmp_path, prefix):
    state, path = random_state(SMALL), tmp_path / "model.safetensors"
    save_file({prefix + n: v for n, v in to_transformers(state).items()}, path)
    with_config(path, "gelu")
    ours = read_weights(str(path)).state
    assert ours.keys() == state.keys()
    np.testing.assert_array_equal(ours["visual.proj"], state["visual.proj"])


def test_an_index_of_shards_and_a_folder_are_read(tmp_path):
    corpus.sharded("model.safetensors")(tmp_path / "shards")
    index = str(tmp_path / "shards" / "model.safetensors.index.json")
    for name, value in corpus.STATE.items():
        np.testing.assert_array_equal(read_weights(index).state[name], value, err_msg=name)
    done = command("info", str(tmp_path / "shards"))
    assert done.returncode == 0 and "in 2 files" in done.stdout, done.stderr
    assert command("convert", index, str(tmp_path / "whole.pkl")).returncode == 0
    assert read_weights(str(tmp_path / "whole.pkl")).state.keys() == corpus.STATE.keys()


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pickle(str(tmp_path / "x.pkl"), corpus.STATE)
    assert jclip.load("~/x.pkl")[1].image_size == 16


def test_a_config_beside_a_pickle_counts_more_than_the_habit(tmp_path):
    path = tmp_path / "clip.pkl"
    write_pickle(str(path), half_state())
    assert read_weights(str(path)).activation == "quick_gelu"
    with_config(path, "gelu")
    assert read_weights(str(path)).activation == "gelu"


def test_the_activation_is_part_of_what_was_trained_with(tmp_path):
    path = tmp_path / "clip.pth"
    path.write_bytes(torch_archive(corpus.STATE))
    assert "clip.activation" in refused_without_activation(path)
    quick, exact = (jclip.load(str(path), activation)[0] for activation in ("quick_gelu", "gelu"))
    write_pickle(str(tmp_path / "clip.pkl"), corpus.STATE)
    assert fingerprint(quick) == fingerprint(jclip.load(str(tmp_path / "clip.pkl"))[0])
    assert fingerprint(exact) != fingerprint(quick)


def refused_without_activation(path):
    with pytest.raises(UserError) as error:
        jclip.load(str(path))
    return str(error.value)


def test_what_is_written_for_pytorch_is_read_by_jittor(tmp_path):
    path = str(tmp_path / "x.pt")
    content = {"weights": {"layer_0": {"q_proj": {"w_lora_A": np.float32([[1, 2], [3, 4]])}}},
               "metadata": {"r": 4, "alpha": 1.0, "params": ["q", "k"], "encoder": "both"}}
    with open(path, "wb") as file:
        file.write(torch_archive(content))
    theirs, ours = jt.load(path), read_content(path)[0]
    assert theirs["metadata"] == ours["metadata"] == content["metadata"]
    for read in (theirs, ours):
        pair = read["weights"]["layer_0"]["q_proj"]
        np.testing.assert_array_equal(np.asarray(pair["w_lora_A"]), [[1, 2], [3, 4]])


def test_an_unknown_activation_is_no_guess(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(half_state(), path)
    with pytest.raises(UserError, match="does not tell which GELU"):
        read_weights(str(path))
    assert read_weights(str(path), "gelu").activation == "gelu"
    with pytest.raises(UserError, match="'relu'"):
        read_weights(str(path), "relu")
    with_config(path, "relu")
    with pytest.raises(UserError, match="relu"):
        read_weights(str(path))


def test_wrong_and_missing_names_are_told(tmp_path):
    state = to_transformers(random_state(SMALL))
    path = tmp_path / "model.safetensors"
    with_config(path, "quick_gelu")
    left_out = "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    save_file({n: v for n, v in state.items() if n != left_out}, path)
    with pytest.raises(UserError, match="missing visual.transformer.resblocks.1.attn.in_proj"):
        jclip.load(str(path))
    save_file({**state, "text_model.extra": np.zeros(2, np.float32)}, path)
    with pytest.raises(UserError, match="unknown text_model.extra"):
        jclip.load(str(path))


@pytest.mark.parametrize("ending", ["pkl", "safetensors"])
@pytest.mark.parametrize("source, activation", [("script.pt", "quick_gelu"),
                                                ("state.pth", "gelu")])
def test_convert_and_info(tmp_path, source, activation, ending):
    path, output = os.path.join(REFERENCE, source), str(tmp_path / f"out.{ending}")
    done = command("convert", path, output, "--activation", activation)
    assert done.returncode == 0, done.stderr
    again = read_weights(output)
    assert again.activation == activation
    for name, value in read_weights(path, activation).state.items():
        np.testing.assert_array_equal(again.state[name], value)
        assert again.state[name].dtype == value.dtype
    done = command("info", output)
    assert done.returncode == 0, done.stderr
    for text in ("float16", activation, "not a known one", "16 pixels", "patch 8",
                 "24 of 20 tokens", "width 16, 2 layers"):
        assert text in done.stdout


def command(*arguments):
    return subprocess.run([sys.executable, "-m", "models.jclip", *arguments], cwd=ROOT,
                          capture_output=True, text=True, timeout=100)


def test_commands_end_in_one_line(tmp_path):
    script = os.path.join(REFERENCE, "script.pt")
    for arguments, words in ((("info", str(tmp_path / "none")), "none"),
                             (("info", os.path.join(REFERENCE, "state.pth")), "which GELU"),
                             (("convert", script, str(tmp_path / "x.npz")), "x.npz must end")):
        done = command(*arguments)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and words in done.stderr
    assert os.listdir(tmp_path) == []


def rewritten(source, target, change, compression=zipfile.ZIP_STORED):
    """A copy of an archive with `change(name, content) -> (name, content)` of each entry."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(*change(entry.filename, old.read(entry)))
    return str(target)


def refused(path):
    with pytest.raises(UserError) as error:
        read_weights(path, "gelu")
    message = str(error.value)
    assert path in message and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize("source", ["state.pth", "script.pt"])
@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"pickle in pickle"}))
def test_hostile_archives(tmp_path, monkeypatch, source, name):
    content = pickle.dumps({"visual.proj": HOSTILE[name]}, 2)
    path = rewritten(os.path.join(REFERENCE, source), tmp_path / "x.pt", lambda n, old: (
        n, content if n.endswith("/data.pkl") else old))
    monkeypatch.chdir(tmp_path)
    assert "is refused: it" in refused(path)
    assert os.listdir(tmp_path) == ["x.pt"]


def test_code_in_a_torchscript_archive_is_not_run(tmp_path):
    path = rewritten(os.path.join(REFERENCE, "script.pt"), tmp_path / "x.pt", lambda n, old: (
        n, b"import os; os.abort()" if "/code/" in n else old))
    assert len(read_weights(path).state) == len(SMALL)


@pytest.mark.parametrize("damage, message", [
    (lambda n, old: (n, old[:-2] if "/data/" in n else old), "beyond its bytes"),
    (lambda n, old: (n, old[:-1] if "/data/" in n else old), "damaged"),
    (lambda n, old: (n.replace("/data/", "/../../data/"), old), "missing"),
    (lambda n, old: (n.replace("/data/1", "/data/x"), old), "missing"),
    (lambda n, old: (n.replace("data.pkl", "other.pkl"), old), "none of PyTorch's"),
    (lambda n, old: (n, b"" if n.endswith("data.pkl") else old), "damaged"),
])
def test_damaged_archives(tmp_path, damage, message):
    source = os.path.join(REFERENCE, "state.pth")
    assert message in refused(rewritten(source, tmp_path / "x.pt", damage))


def test_a_compressed_archive_is_refused_unread(tmp_path):
    bomb = b"\0" * 10 ** 8
    path = rewritten(os.path.join(REFERENCE, "state.pth"), tmp_path / "x.pt", lambda n, old: (
        n, bomb if n.endswith("/data/0") else old), zipfile.ZIP_DEFLATED)
    assert os.path.getsize(path) < 10 ** 6
    assert "compressed" in refused(path)


def tensor_pickle(numbers):
    """The instructions of {'x': tensor} with storage '0' and (offset, size, stride)."""
    body = b"".join(pickle.dumps(number, 2)[2:-1] for number in numbers)
    return (b"\x80\2}X\1\0\0\0xctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storage"
            b"ctorch\nFloatStorage\nX\1\0\0\0" + b"0X\3\0\0\0cpuK\2tQ" + body + b"tRs.")


def tensor_archive(path, numbers):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", tensor_pickle(numbers))
        archive.writestr("x/data/0", np.float32([1, 2, 3, 4]).tobytes())
    return str(path)


@pytest.mark.parametrize("numbers, expected", [
    ((0, (4,), (1,)), [1, 2, 3, 4]), ((1, (2,), (2,)), [2, 4]),
    ((0, (2, 2), (1, 2)), [[1, 3], [2, 4]]), ((3, (), ()), 4), ((0, (0, 3), (3, 1)), [])])
def test_tensors_are_views_of_their_storage(tmp_path, numbers, expected):
    weights = read_weights(tensor_archive(tmp_path / "x.pt", numbers), "gelu")
    assert weights.state["x"].shape == numbers[1]
    np.testing.assert_array_equal(weights.state["x"].ravel(), np.ravel(expected))


@pytest.mark.parametrize("numbers", [
    (0, (10 ** 12,), (1,)), (0, (10 ** 12,), (0,)), (0, (5,), (1,)), (1, (4,), (1,)),
    (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (1,)), (10 ** 30, (1,), (1,)),
    (0, "ab", (1, 1)), (0, (2.0,), (1,)), (0, (True,), (1,)), (0, 3, 1), ((0,), (1,), (1,))])
def test_tensors_that_leave_their_storage(tmp_path, numbers):
    refused(tensor_archive(tmp_path / "x.pt", numbers))


@pytest.mark.parametrize("numbers, storage, message", [
    ((0, (2,), (1,)), [2, 1, 2], None), ((0, (3,), (1,)), [2, 1, 2], "beyond its bytes"),
    ((0, (2,), (1,)), [3, 1, 2, 3], "damaged"), ((0, (2,), (1,)), [2, 1], "damaged"),
    ((0, (2,), (1,)), [], "damaged")])
def test_storages_behind_the_pickle(tmp_path, numbers, storage, message):
    """PyTorch's old format: what a tensor takes must be there, and as much as its storage tells."""
    content = b"".join(np.int64(n).tobytes() if i == 0 else np.float32(n).tobytes()
                       for i, n in enumerate(storage))
    path = tmp_path / "x.pth.tar"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (0x1950a86a20f9469cfc6c, 1001, {}))
                     + tensor_pickle(numbers) + pickle.dumps(["0"], 2) + content)
    if message:
        assert message in refused(str(path))
    else:
        np.testing.assert_array_equal(read_weights(str(path), "gelu").state["x"], storage[1:])


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"pickle in pickle"}))
@pytest.mark.parametrize("place", range(1, 5))
def test_hostile_pickles_in_the_old_format(tmp_path, monkeypatch, name, place):
    parts = [pickle.dumps(part, 2) for part in (0x1950a86a20f9469cfc6c, 1001, {}, {}, [])]
    parts[place] = pickle.dumps({"visual.proj": HOSTILE[name]}, 2)
    path = tmp_path / "x.pth.tar"
    path.write_bytes(b"".join(parts))
    monkeypatch.chdir(tmp_path)
    assert "is refused: it" in refused(str(path))
    assert os.listdir(tmp_path) == ["x.pth.tar"]


@pytest.mark.parametrize("name", ["state.pth", "script.pt", "bfloat16.pth", "legacy.pth",
                                  "checkpoint.pth.tar", "model.safetensors", "model.pkl"])
def test_mutated_files_end_in_one_line(tmp_path, name):
    """500 damaged copies of each format: refused by name, or read as plain arrays."""
    if name == "model.safetensors":
        save_file(half_state(), tmp_path / name)
    elif name == "model.pkl":
        write_pickle(str(tmp_path / name), half_state())
        valid = (tmp_path / name).read_bytes()[:-28]  # without the checksum, which would tell
        (tmp_path / name).write_bytes(valid)
    path = tmp_path / name if name.startswith("model") else os.path.join(REFERENCE, name)
    with open(path, "rb") as file:
        valid = file.read()
    random = np.random.RandomState(1)
    mutated = tmp_path / "mutated"
    n_refused = 0
    # Half of the changes hit the parts that are read as structure.
    structure = [i for i in range(0, len(valid) - 2) if valid[i:i + 2] in (b"PK", b"X\1", b"\x8c\4")
                 ] or [0]
    for _ in range(500):
        content = bytearray(valid)
        for _ in range(random.randint(1, 5)):
            near = structure[random.randint(len(structure))] + random.randint(40)
            place = near % len(valid) if random.randint(2) else random.randint(len(valid))
            content[place] = random.randint(256)
        if random.randint(5) == 0:
            del content[random.randint(len(content)):]
        mutated.write_bytes(content)
        try:
            weights = read_weights(str(mutated), "gelu")
        except UserError as error:
            n_refused += 1
            assert "\n" not in str(error) and len(str(error)) < 600
        else:
            assert all(value.dtype.kind in "fiu" for value in weights.state.values())
    assert n_refused > 50


@pytest.fixture
def packed():
    """(a state without the embedding rows of four tokens, the dense state)."""
    state = random_state(SMALL)
    rows = np.array([0, 1, 2, 3, 5, 6, 7, 10, 11, 12, 13, 14, 15, 17, 18, 19])
    dense = np.zeros_like(state["token_embedding.weight"])
    dense[rows] = state["token_embedding.weight"][rows]
    return ({**state, "token_embedding.weight": dense[rows], "token_embedding.rows": rows},
            {**state, "token_embedding.weight": dense})


@pytest.mark.parametrize("ending", ["pkl", "safetensors"])
def test_embedding_rows_that_are_not_stored_are_zero(tmp_path, packed, ending):
    state, dense = packed
    path = str(tmp_path / f"model.{ending}")
    if ending == "pkl":
        write_pickle(path, state)
    else:
        save_file(state, path)
    read = read_weights(path, "quick_gelu").state
    assert read.keys() == dense.keys()
    for name, value in dense.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)


def test_converted_weights_have_all_embedding_rows(tmp_path, packed):
    state, dense = packed
    path, output = str(tmp_path / "packed.pkl"), str(tmp_path / "dense.safetensors")
    write_pickle(path, state)
    assert command("convert", path, output).returncode == 0
    with safe_open(output, framework="numpy") as file:
        assert set(file.keys()) == dense.keys()
        np.testing.assert_array_equal(file.get_tensor("token_embedding.weight"),
                                      dense["token_embedding.weight"])
    for file in (path, output):
        text = command("info", file).stdout
        assert "24 of 20 tokens" in text
        assert f"{sum(value.size for value in dense.values()):,}" in text


@pytest.mark.parametrize("rows", [
    np.arange(15), np.arange(16)[::-1], np.arange(16) - 1, np.arange(16.0),
    np.full(16, 3), np.append(np.arange(15), 10 ** 12), np.arange(16).reshape(4, 4)])
def test_rows_that_do_not_fit_the_embedding_are_refused(tmp_path, packed, rows):
    path = str(tmp_path / "model.pkl")
    write_pickle(path, {**packed[0], "token_embedding.rows": rows})
    with pytest.raises(UserError, match=r"model.pkl: token_embedding.rows does not fit"):
        read_weights(path)


@pytest.mark.parametrize("embedding", [
    None, np.zeros(2), np.float32(0), np.zeros((3, 4)), np.zeros((2, 2000))])
def test_an_embedding_that_does_not_fit_its_rows_is_refused(tmp_path, embedding):
    """The last one would take 2^20 × 2,000 values from 32 kB."""
    state = {"token_embedding.rows": np.array([0, (1 << 20) - 1]),
             **({} if embedding is None else {"token_embedding.weight": embedding})}
    path = str(tmp_path / "model.pkl")
    write_pickle(path, state)
    with pytest.raises(UserError, match="token_embedding.rows does not fit"):
        read_weights(path)
