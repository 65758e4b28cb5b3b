"""CLIP weights that are not whole, or of no CLIP."""

import json
import os

import numpy as np

from models import jclip
from models.jclip.weights import write_pickle
from tests.corpus import NO_FILES, OTHER_FORMATS, handled, refused
from tests.reference.weights import clip_shapes, random_state

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
    *refused("not a readable .pkl file|is refused|damaged or of an unknown format", OTHER_FORMATS),
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
