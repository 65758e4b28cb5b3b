"""CLIP weights that are not whole, or of no CLIP."""

import io
import json
import os
import zipfile

import numpy as np
from safetensors.numpy import save

from models import jclip
from system.files import write_pickle
from system.torch_writer import torch_archive
from tests.corpus import NO_FILES, OTHER_FORMATS, handled, refused
from tests.reference.weights import clip_shapes, random_state, to_transformers

IMAGE_SIZE = 16
STATE = random_state(clip_shapes(vocab_size=50, layers=1))
BLOCK = "transformer.resblocks.0."


def read(path):
    """The size of the images that the model in a file takes."""
    return jclip.load(path)[1].image_size


def read_beside(path):
    """`read` of the whole weights beside a config.json."""
    weights = os.path.join(os.path.dirname(path), "clip.pkl")
    write_pickle(weights, STATE)
    return read(weights)


def written(state):
    return lambda path: write_pickle(str(path), state)


def but(name, *values):
    """{what is other: file} of weights in which one array is another."""
    return {f"{name}, {i}": written({**STATE, name: value}) for i, value in enumerate(values)}


def without(name):
    return {f"without {name}": written({n: v for n, v in STATE.items() if n != name})}


def moved_blocks(number):
    """Weights whose only text block is called by another number."""
    return written({name.replace(BLOCK, BLOCK.replace("0", number))
                    if name.startswith(BLOCK) else name: value for name, value in STATE.items()})


def towers(**keys):
    """A config.json of transformers' with these keys for both encoders."""
    return json.dumps({"vision_config": keys, "text_config": keys})


def with_one(value, name):
    changed = STATE[name].copy()
    changed.flat[-1] = value
    return changed


OPEN_CLIP = {"model_cfg": {"quick_gelu": True}}


def zipped(name):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(name, b"x" * 99)
    return archive.getvalue()


def write_any(path, state):
    """Write a state as the ending of a name says."""
    if path.suffix == ".bin":
        path.write_bytes(torch_archive(dict(state)))
    elif path.suffix == ".safetensors":
        path.write_bytes(save({name: np.ascontiguousarray(v) for name, v in state.items()}))
    else:
        write_pickle(str(path), state)


def in_folder(name, config=None, **others):
    """A folder of a library's, with one file of weights, or more."""
    def write(folder):
        folder.mkdir()
        if config:
            (folder / "open_clip_config.json").write_text(json.dumps(config))
        else:
            (folder / "config.json").write_text(towers(num_attention_heads=1))
        for each in (name, *others.values()):
            write_any(folder / each, STATE if config else to_transformers(STATE))
        if name == "readme.md":
            (folder / "config.json").unlink()
    return write


def linked(folder):
    """As Hugging Face's cache has it: names that are links to contents."""
    folder.mkdir()
    (folder / "blobs").mkdir()
    (folder / "config.json").write_text(towers(num_attention_heads=1))
    write_any(folder / "blobs" / "x.safetensors", to_transformers(STATE))
    (folder / "model.safetensors").symlink_to("blobs/x.safetensors")


def cached(folder):
    (folder / "snapshots").mkdir(parents=True)
    in_folder("model.safetensors")(folder / "snapshots" / ("3d74acf9" * 5))


def sharded(name, n_missing=0):
    """A folder whose weights are in two files, with their index."""
    def write(folder):
        folder.mkdir()
        state, stem = to_transformers(STATE), name.partition(".")[0]
        files = [name.replace(stem, f"{stem}-{i}-of-2") for i in (1, 2)]
        place = {each: files[i % 2] for i, each in enumerate(state)}
        for file in files[n_missing:]:
            write_any(folder / file, {n: state[n] for n in state if place[n] == file})
        (folder / f"{name}.index.json").write_text(json.dumps(
            {"metadata": {"total_size": 1}, "weight_map": place}))
        (folder / "config.json").write_text(towers(num_attention_heads=1))
    return write


def index_of(*files):
    def write(folder):
        folder.mkdir()
        (folder / "model.safetensors.index.json").write_text(json.dumps(
            {"weight_map": dict(enumerate(files))}))
    return write


# Read with `read`.
WEIGHTS = [
    *handled(IMAGE_SIZE, {
        "plain": written(STATE), "in a state_dict": written({"state_dict": STATE, "epoch": 3}),
        "of module": written({f"module.{name}": value for name, value in STATE.items()}),
        "half": written({name: value.astype("f2") for name, value in STATE.items()}),
        "double": written({name: value.astype("f8") for name, value in STATE.items()}),
        "big-endian": written({name: value.astype(">f4") for name, value in STATE.items()}),
        "OpenAI's further entries": written({**STATE, "input_resolution": 224})}),
    *refused("holds no dict of weights", {
        f"a {type(value).__name__}": written(value) for value in (
            [], None, 3, "clip", {}, {1: np.zeros(3)}, {"state_dict": {}}, np.zeros(3))}),
    *refused("is no array of numbers", but(
        "visual.proj", None, 3, "x", [1.0], {}, np.zeros(3, bool), [[1.0, 2.0]])),
    *refused("is an empty array", {
        **but("visual.proj", np.zeros((0, 16), "f4")),
        **but("visual.conv1.weight", np.zeros((64, 3, 0, 0), "f4"))}),
    *refused("has values that are not finite", {
        **but("visual.proj", *(with_one(v, "visual.proj") for v in (np.nan, np.inf, -np.inf))),
        **but("token_embedding.weight", with_one(np.nan, "token_embedding.weight")),
        "double beyond single": written({**STATE, "visual.proj": np.full((64, 16), 1e300)})}),
    *refused("does not fit|holds no CLIP with a ViT or a ResNet", {
        **{name: file for missing in ("visual.proj", "visual.conv1.weight", "text_projection",
                                      "token_embedding.weight", "logit_scale",
                                      f"{BLOCK}attn.in_proj_weight")
           for name, file in without(missing).items()},
        **but("more", np.ones(3, "f4")), **but("visual.proj", np.ones((64, 17), "f4")),
        **but("text_projection", np.ones(16, "f4")), **but("positional_embedding", np.float32(1)),
        **but("visual.conv1.weight", np.ones((64, 3), "f4")),
        **but("visual.positional_embedding", np.ones((7, 64), "f4")),
        **{f"a block called {number}": moved_blocks(number) for number in (
            "1", "999999999", "x", "-1", "\u0661")}}),
    *refused("does not tell which GELU", {
        **but("activation", "relu", 3, np.zeros(2), ["gelu"])}),
    *refused("no weights at", NO_FILES),
    *refused("not a readable .pkl file|is refused|damaged or of an unknown format|is a web page|"
             "is compressed by gzip", OTHER_FORMATS),
    *refused("is empty; download it again", {"empty": b""}),
    *refused("is a Git LFS pointer.*git lfs pull", {
        "an LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:"
        + b"4d7a21" * 10 + b"\nsize 605247071\n"}),
    *refused("is a web page or XML.*download it again", {
        "HTML": b"\n<html lang='en'><head><title>Sign in</title>", "capitals":
        b"<!DOCTYPE HTML PUBLIC>", "an error of a store": b"<?xml version='1.0'?><Error>"}),
    *refused("is JSON, not the weights", {
        "JSON": b'{"error": "Repository not found"}', "a list in JSON": b'[{"a": 1}]',
        "JSON with lines": b'{\n  "metadata": {"total_size": 3}\n}'}),
    *refused("unpack it", {
        "bzip2": b"BZh91AY&SY" + bytes(99), "xz": b"\xfd7zXZ\0" + bytes(99),
        "7-Zip": b"7z\xbc\xaf\x27\x1c" + bytes(99), "RAR": b"Rar!\x1a\7\1\0" + bytes(99),
        "tar": b"ViT-B-32.pkl".ljust(257, b"\0") + b"ustar\00000" + bytes(250),
        "a zip archive of something": zipped("ViT-B-32.pkl")}),
    *refused("is a format of other libraries", {
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99), "GGUF": b"GGUF\3\0\0\0" + bytes(99)}),
    *handled(IMAGE_SIZE, {
        "a folder of transformers'": in_folder("model.safetensors"),
        "a folder with a .bin": in_folder("pytorch_model.bin"),
        "open_clip's folder": in_folder("open_clip_model.safetensors", OPEN_CLIP),
        "open_clip's folder with a .bin": in_folder("open_clip_pytorch_model.bin", OPEN_CLIP),
        "a folder with one file": in_folder("my own.pkl"),
        "links into blobs": linked, "a folder of Hugging Face's cache": cached,
        "shards": sharded("model.safetensors"), "shards in .bin": sharded("pytorch_model.bin")}),
    *refused("no weights at .*it holds 'readme.md'", {"a folder without": in_folder("readme.md")}),
    *refused("several files of weights", {"a folder with two": in_folder("a.pkl", b="b.pkl")}),
    *refused("names 2 files, of which .* is missing", {
        "a shard that is missing": sharded("model.safetensors", n_missing=1)}),
    *refused("is no index of weights", {"an index that leaves": index_of("../x.safetensors"),
                                        "an index of nothing": index_of(),
                                        "an index of numbers": index_of(3)}),
]

# Read with `read_beside`.
CONFIGS_BESIDE = [
    *handled(IMAGE_SIZE, {
        "of something else": '{"model": 3}', "a list": "[1]", "that fits":
        towers(num_attention_heads=1),
        "with a mark": "\ufeff" + towers(num_attention_heads=1)}),
    *refused("asks for the activations", {
        f"hidden_act {value}": towers(hidden_act=value) for value in (
            "relu", None, ["gelu"], {}, 3, "GELU")}),
    *refused("must be a number above 0", {
        f"heads {value}": towers(num_attention_heads=value) for value in (
            0, -1, "twelve", None, 1.0, True, [1])}),
    *refused("cannot read .*config.json", {
        "half of it": '{"vision_config": ', "empty": "", "deep": "[" * 10 ** 5,
        "latin-1": '{"é": 1}'.encode("latin-1"), "UTF-16": "{}".encode("utf-16"),
        "5,000 digits": "9" * 5000, "a folder": NO_FILES["a folder"],
        "a link to itself": NO_FILES["a link to itself"], **OTHER_FORMATS}),
]
