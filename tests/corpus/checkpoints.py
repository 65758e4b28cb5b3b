"""Checkpoints: of other runs, damaged in every way, or made to do harm."""

import pickle

import numpy as np

from configs import load_config
from data.lists import ClassName
from models.jclip.sizes import CLIPSizes, TowerSizes
from pipeline.checkpoint import load_checkpoint, made_with
from pipeline.checkpoint_parts import check_parts
from system.files import write_pickle
from tests.corpus import NO_FILES, OTHER_FORMATS, handled, refused
from tests.test_unpickle import HOSTILE

CLIP = 123456789
CLASSES = [ClassName("Animal", "cat"), ClassName("Animal", "dog"), ClassName("Food", "pie")]
C, K, M, W, N, D = 2, 3, 4, 8, 5, 6  # base classes, contexts, tokens, widths, images, features
SIZES = CLIPSizes(vision=TowerSizes(4, 1, 1), image_size=8, patch_size=4,
                  text=TowerSizes(W, 1, 1), context_length=9, vocab_size=50, embed_dim=D)
PARTS = ("lora", "contexts", "head", "plain_head", "features")
KEYS = ("prompts", "prompt", "lora", "train", "data.shots")


def array(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def content():
    """All that checkpoints hold, in one."""
    head = {"w": array(C, D), "bias": array(C), "alpha": array(C), "scale": array(D),
            "text": array(C, D)}
    return {"config": load_config().to_dict(), "clip": CLIP, "base": np.array([0, 2]),
            "classes": [list(name) for name in CLASSES], "lora": {"vision.0.in_delta.up": array(3)},
            "contexts": array(K, M, W), "head": head, "plain_head": dict(head),
            "features": array(N, D)}


def read(path):
    """The names in a checkpoint that test.py would take."""
    content = load_checkpoint(path, made_with(load_config(), CLIP, CLASSES), KEYS)
    check_parts(path, content, PARTS, SIZES)
    return sorted(content)


def written(value):
    """Writes a value as train.py does, with a checksum that is right."""
    return lambda path: write_pickle(str(path), value)


def but(dotted, *values):
    """{what is other: file} of checkpoints in which one part is another."""
    files = {}
    for i, value in enumerate(values):
        whole = part = content()
        *path, last = dotted.split("/")
        for name in path:
            part = part[name]
        part[last] = value
        files[f"{dotted}, {i}"] = written(whole)
    return files


def without(*dotted):
    files = {}
    for each in dotted:
        whole = part = content()
        *path, last = each.split("/")
        for name in path:
            part = part[name]
        del part[last]
        files[f"without {each}"] = written(whole)
    return files


def damaged(change):
    """A function of the path that writes a checkpoint and changes its bytes."""
    def write(path):
        write_pickle(str(path), content())
        path.write_bytes(change(path.read_bytes()))
    return write


def flipped(place):
    """The bytes with one bit of them turned, at a share of the length."""
    def change(whole):
        i = int(place * len(whole))
        return whole[:i] + bytes([whole[i] ^ 4]) + whole[i + 1:]
    return change


def with_one(value, *shape):
    """Zeros, the last of which is another value."""
    changed = np.zeros(shape, np.float32)
    changed.flat[-1] = value
    return changed


HOLDS_ITSELF = [1]
HOLDS_ITSELF.append(HOLDS_ITSELF)
NAMES = content()["classes"]
# Read with `read`.
CHECKPOINTS = [
    *handled(sorted(content()), {
        "plain": written(content()), "without its checksum": damaged(lambda whole: whole[:-28]),
        "with more behind it": damaged(lambda whole: whole + b"more"),
        "a flip in the marker": damaged(flipped(0.99999)),
        **{f"protocol {i}": pickle.dumps(content(), i) for i in (2, 3, 5)},
        **but("lora", {}), **but("base", np.array([0, 1], np.uint8)),
        **but("config/data", {"shots": 4}),
        # A setting that did not exist in training was as its default is.
        **but("config/lora", {}),
        **without("config/lora/rank", "config/lora", "config/data/shots")}),
    *refused("is no (whole )?checkpoint of train.py", {
        **{f"a {type(value).__name__}": written(value) for value in (
            [], None, 3, "checkpoint", (1, 2), array(3), {}, b"bytes", 1.5)},
        "a list that holds itself": written(HOLDS_ITSELF),
        **without("clip", "classes", "config", "base", *PARTS),
        **but("config", None, [], "x", 3, array(3))}),
    *refused("other CLIP weights", but("clip", CLIP + 1, None, float(CLIP), str(CLIP), array(3),
                                       [CLIP], True, {}, 16 ** 5000, -1)),
    *refused("another class list", but(
        "classes", [], None, "x", 3, {}, array(3), [array(2)] * 3, HOLDS_ITSELF, NAMES[:2],
        NAMES[::-1], NAMES * 2, [*NAMES[:2], ["Food", "cake"]], [*NAMES[:2], ["Fruit", "pie"]],
        [["cat"], ["dog"], ["pie"]], [[0, 1], [0, 2], [0, 3]], ("Animal", "cat"))),
    *refused("other settings", {
        **but("config/lora/rank", 2, 4.0, None, "4", [4], array(2), {"x": 1}, 16 ** 5000),
        **but("config/lora", None, [], 3, "x"), **but("config/prompt/init", "a"),
        **but("config/data", None, [4]), **but("config/data/shots", 1),
        **but("config/lora/other", 1),
        **but("config/train/scale", [0.5], array(2), [array(2), array(2)],
              HOLDS_ITSELF)}),
    *refused("its base classes are no ascending labels below 3", but(
        "base", [0, 2], None, 3, "02", np.array([0.0, 2.0]), np.array([[0, 2]]), np.array(0),
        np.zeros(0, int), np.array([-1, 2]), np.array([0, 3]), np.array([2, 0]), np.array([0, 0]),
        np.array([False, True]), np.array([0, 2 ** 63], np.uint64))),
    *refused("is no array of float32", {
        **but("contexts", None, [], 3, "x", {}, np.zeros((K, M, W)), np.zeros((K, M, W), "f2"),
              np.zeros((K, M, W), int)),
        **but("features", None, array(N, D).tolist(), np.zeros((N, D), bool)),
        **but("head/w", None, [1], array(C, D).astype(">f8"), {"w": 1}),
        **but("lora/vision.0.in_delta.up", None, 1.0, [1], np.zeros(3, int), HOLDS_ITSELF)}),
    *refused("has the shape", {
        **but("contexts", array(K, M), array(K, M, W + 1), array(K, M + 1, W),
              array(K, M, W, 1), array(0, M, W), array(K, 0, W), array(1)),
        **but("features", array(N), array(N, D + 1), array(0, D), array(D, N)),
        **but("head/w", array(C + 1, D), array(D, C), array(C), array(C, D, 1)),
        **but("head/bias", array(1), array(C, 1)), **but("head/scale", array(C), array(D + 1)),
        **but("plain_head/text", array(C, D - 1)), **but("head/alpha", array(0)),
        **but("base", np.array([0]), np.array([0, 1, 2]))}),
    *refused("has values that are not finite", {
        **but("contexts", *(with_one(value, K, M, W) for value in (np.nan, np.inf, -np.inf))),
        **but("features", with_one(np.nan, N, D)), **but("head/w", with_one(np.inf, C, D)),
        **but("plain_head/bias", with_one(np.nan, C)),
        **but("lora/vision.0.in_delta.up", with_one(np.nan, 3))}),
    *refused("is no dict with", {
        **but("head", None, [], array(C, D), {}, {"w": array(C, D)}), **but("lora", None, [], 3),
        **but("plain_head/more", array(1)), **without("head/w", "plain_head/text", "head/alpha")}),
    *refused("lora has the name", but(
        "lora", {3: array(3)}, {16 ** 5000: array(3)}, {None: array(3)})),
    *refused("its checksum does not match", {
        f"a flip at {place}": damaged(flipped(place)) for place in (0.001, 0.3, 0.6, 0.9, 0.99)}),
    *refused("not a readable .pkl file", {
        f"its first {n} of 100": damaged(lambda whole, n=n: whole[:n * len(whole) // 100])
        for n in (0, 1, 10, 50, 95)}),
    *refused("is refused: it", {
        f"harm: {name}": pickle.dumps({**content(), "lora": HOSTILE[name]}) for name in (
            "os.system", "eval", "open", "getattr", "in a list", "object array", "an instance",
            "np.memmap", "pickle in pickle", "a class")}),
    *refused("nested more than 100 deep", {
        "deep lists": b"\x80\4" + b"]" * 500 + b"a" * 499 + b"."}),
    *refused("cannot read", NO_FILES),
    *refused("not a readable .pkl file|is refused: it", OTHER_FORMATS),
]
