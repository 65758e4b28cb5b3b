"""PyTorch's tensors in plain pickles, as `jt.save` of a state dict of PyTorch's leaves them."""

import argparse
import collections
import io
import os
import pathlib
import pickle
import warnings

import numpy as np
import pytest

from models import jclip
from models.auxiliary import load_encoder
from models.jclip.formats import read_weights
from system.errors import UserError
from system.files import write_pickle
from system.torch_archive import read_pickled_tensors
from system.unpickle import foreign_in
from tests.reference.weights import clip_shapes, random_state
from tests.tensors import MAGIC, VERSION, Storage, Tensor, dumps
from tests.test_auxiliary import resnet_weights
from tests.test_unpickle import HERE, HOSTILE, RAW, refused_in_2_gib

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STATE = random_state(clip_shapes(vocab_size=50, layers=1))
TENSORS = {name: Tensor(value) for name, value in STATE.items()}


def loads(content):
    return read_pickled_tensors(io.BytesIO(content))


def read(tmp_path, content):
    path = tmp_path / "ViT-B-32.pkl"
    path.write_bytes(content)
    return read_weights(str(path))


def same(state, expected=STATE):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)
        assert state[name].dtype == value.dtype


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_state_dict_of_tensors_is_read_bit_for_bit(tmp_path, protocol):
    weights = read(tmp_path, dumps(collections.OrderedDict(TENSORS), protocol))
    same(weights.state)
    assert weights.activation == "quick_gelu"


def test_what_pytorch_itself_wrote():
    """`reference/make_clip.py`: views, shared storages, parameters, half precision."""
    state = read_weights(os.path.join(ROOT, "tests/reference/tensors.pkl")).state
    expected = {name: value.astype(np.float16)
                for name, value in random_state(clip_shapes(width=16, vocab_size=20)).items()}
    halves = state.pop("positional_embedding")  # bfloat16, which has 8 bits of mantissa
    wide = expected.pop("positional_embedding").astype(np.float32)
    same(state, expected)
    assert halves.dtype == np.float32 and np.allclose(halves, wide, rtol=2 ** -8, atol=0)


def test_views_types_and_parameters():
    values = np.arange(24, dtype=np.float32)
    shared = Storage(values)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    read = loads(dumps({
        "whole": Tensor(shared), "turned": Tensor(shared, (4, 6), (1, 4)),
        "part": Tensor(shared, (2, 3), (12, 2), 5),
        "old": Tensor(shared, function="_rebuild_tensor"),
        "parameter": Tensor(shared, parameter=True), "one": Tensor(shared, (), (), 7),
        "none": Tensor(shared, (0, 4), (4, 1)), "half": Tensor(np.float16([1.5, -2])),
        "bfloat16": Tensor(Storage(bits, "BFloat16Storage")),
        "part of bfloat16": Tensor(Storage(bits, "BFloat16Storage"), (3,), (2,), 1),
        "long": Tensor(np.array([2 ** 40])), "double": Tensor(np.array([0.1]))}))
    expected = {
        "whole": values, "turned": values.reshape(6, 4).T,
        "part": np.stack([values[5:11:2], values[17:23:2]]), "old": values, "parameter": values,
        "one": values[7], "none": np.zeros((0, 4), "f4"), "half": np.float16([1.5, -2]),
        "bfloat16": values, "part of bfloat16": values[1:7:2], "long": np.array([2 ** 40]),
        "double": np.array([0.1])}
    for name, value in expected.items():
        np.testing.assert_array_equal(read[name], value, err_msg=name)
        assert read[name].dtype == value.dtype and read[name].shape == value.shape


class Settings:
    """An object of a class that no reader knows."""

    def __init__(self):
        self.lr = 1e-3


BESIDE = {"args": argparse.Namespace(arch="x"), "place": pathlib.PurePosixPath("/x"),
          "kept": {1, 2}, "counter": collections.Counter("aab"), "settings": Settings(),
          "kind": np.dtype("U5"), "names": np.array(["a", "b"]), "random": np.random.RandomState(0),
          "default": collections.defaultdict(list, a=[1]), "waiting": collections.deque([1]),
          "a class": Settings, "complex": 1j, "scheduler": {"last": [Settings()], "lrs": [0.1]}}


@pytest.mark.parametrize("where", [
    lambda state: {"epoch": 3, "arch": "x", "state_dict": state,
                   "optimizer": {"state": {0: {"step": 3, "exp_avg": Tensor(np.float32([1]))}}}},
    lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}},
                   "loss": np.float32(0.5)},
    lambda state: {"net": state}, lambda state: {"model": state, "acc": 0.9},
    lambda state: {"state_dict": {"clip_model": state}}, lambda state: [state, {"epoch": 3}],
    lambda state: (3, state), lambda state: {"model": [state]},
    lambda state: {**BESIDE, "state_dict": state},
    *(lambda state, prefix=prefix: {prefix + name: value for name, value in state.items()}
      for prefix in ("_orig_mod.", "module._orig_mod.", "model.", "clip_model.", "clip.",
                     "module.", "my.own_prefix."))])
@pytest.mark.parametrize("tensors", [True, False])
def test_the_weights_are_found_in_a_checkpoint(tmp_path, where, tensors):
    content = where(TENSORS if tensors else STATE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing that matters is left out
        same(read(tmp_path, dumps(content)).state)


def test_the_auxiliary_encoder_is_found_in_a_checkpoint_of_tensors(tmp_path):
    state = {f"module.base_encoder.{name}": Tensor(value)
             for name, value in resnet_weights().items()}
    path = tmp_path / "r-50-1000ep.pkl"
    path.write_bytes(dumps({"epoch": 1000, "arch": "resnet50", "state_dict": state,
                            "optimizer": {"state": {}, "args": argparse.Namespace()}}))
    write_pickle(str(tmp_path / "plain.pkl"), resnet_weights())
    assert load_encoder(str(path), 32).fingerprint == load_encoder(
        str(tmp_path / "plain.pkl"), 32).fingerprint


def test_which_of_several_models_is_taken_is_said(tmp_path):
    averaged = {name: value + 1 for name, value in STATE.items()}
    with pytest.warns(UserWarning, match="taken is 'model', not 'model_ema'"):
        same(read(tmp_path, dumps({"model_ema": averaged, "model": STATE})).state)
    beside = {f"clip.{name}": value for name, value in STATE.items()}
    with pytest.warns(UserWarning, match="2 entries beside the model's are left out"):
        same(read(tmp_path, dumps({**beside, "head.weight": np.ones(2), "head.bias": 1.0})).state)
    two = {f"{prefix}.{name}": value for prefix in ("student", "teacher")
           for name, value in STATE.items()}
    with pytest.raises(UserError, match="several models, student., teacher."):
        read(tmp_path, dumps(two))


def test_without_a_model_the_keys_are_listed(tmp_path):
    with pytest.raises(UserError, match="only 'epoch', 'optimizer'"):
        read(tmp_path, dumps({"epoch": 3, "optimizer": {"state": {0: {"x": Tensor([1.0])}}}}))


@pytest.mark.parametrize("content, words", [
    ({"state_dict": {"ctx": np.ones((4, 8), "f4"), "token_prefix": np.ones((2, 1, 8), "f4")}},
     "a learned prompt alone.*give those"),
    ({"weights": {"layer_0": {"q_proj": {"w_lora_A": np.ones((4, 8), "f4")}}}, "metadata": {}},
     "LoRA weights alone.*lora.init"),
    ({"base_model.model.x.lora_A.weight": np.ones((4, 8), "f4")}, "LoRA weights alone.*lora.init"),
    ({"config": {}, "clip": 3, "classes": [], "contexts": np.ones(3, "f4")},
     "a checkpoint of train.py")])
def test_other_files_are_told_for_what_they_are(tmp_path, content, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, dumps(content))


class Model:
    """Pickles like a module of PyTorch's: an instance with the parts as its state."""

    def __init__(self):
        self._modules = {"visual": Settings()}
        self._parameters = dict(STATE)


@pytest.mark.parametrize("content", [Model(), {"model": Model(), "epoch": 3}])
def test_a_whole_model_is_told(tmp_path, content):
    with pytest.raises(UserError, match=r"a whole model pickled \(.*Model\).*state_dict\(\)"):
        read(tmp_path, dumps(content))


@pytest.mark.parametrize("name", sorted(HOSTILE))
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_hostile_is_run_or_taken_for_weights(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    beside = loads(dumps({"state_dict": TENSORS, "beside": HOSTILE[name]}, protocol))
    same(beside["state_dict"])
    with pytest.raises(UserError, match="is refused: it|is no array of numbers"):
        read(tmp_path, dumps({**TENSORS, "visual.proj": HOSTILE[name]}, protocol))
    assert os.listdir(tmp_path) == ["ViT-B-32.pkl"]


def in_each_other(depth):
    storage = Storage([1.0])
    for _ in range(depth):
        storage = Storage([1.0], content=legacy(storage, []))
    return storage


def legacy(*parts, values=b""):
    """A file in the old format of parts of our own making."""
    start = [pickle.dumps(part, 2) for part in (MAGIC, VERSION, {})]
    return b"".join([*start, *(part if isinstance(part, bytes) else dumps(part)
                               for part in parts)]) + values


FOUR = Storage(np.arange(4, dtype=np.float32))
HOSTILE_TENSORS = {
    "bytes that are a hostile pickle": Tensor(Storage([1.0], content=dumps(HOSTILE["os.mkdir"]))),
    **{f"{name} in a storage": Tensor(Storage([1.0], content=legacy(HOSTILE[name], [])))
       for name in ("os.mkdir", "eval", "pickle in pickle", "as a state")},
    **{f"{name} in a storage's keys": Tensor(Storage([1.0], content=legacy([], HOSTILE[name])))
       for name in ("os.mkdir", "getattr")},
    "raw harm in a storage": Tensor(Storage([1.0], content=legacy(RAW["INST"]))),
    "a tensor for a storage": Tensor(Storage([1.0], content=legacy(Tensor([1.0]), []))),
    "a list for a storage": Tensor(Storage([1.0], content=legacy([1], []))),
    "no bytes": Tensor(Storage([1.0], content=b"")),
    "a text": Tensor(Storage([1.0], content="x")), "a number": Tensor(Storage([1.0], content=3)),
    "half a storage": Tensor(Storage([1.0], content=FOUR.legacy_file()[:-20])),
    "a storage without its key": Tensor(Storage([1.0], content=legacy(
        dumps(("storage", 1, "0", "cpu", 4, None), 2)[:-1] + b"Q.", ["0"]))),
    **{f"size {size}, stride {stride}, offset {offset}": Tensor(FOUR, size, stride, offset)
       for size, stride, offset in (
           ((5,), (1,), 0), ((10 ** 12,), (1,), 0), ((10 ** 12,), (0,), 0), ((2, 2), (3, 1), 0),
           ((2,), (2 ** 62,), 0), ((2,), (-1,), 3), ((1,), (1,), -1), ((1,), (1,), 4),
           ((-1,), (1,), 0), ([4], [1], 0), ((2, 2), (1,), 0), ((4.0,), (1,), 0))},
    "a storage of 10^12 values": Tensor(Storage([1.0], length=10 ** 12, kind="FloatStorage")),
    "a storage of -1 values": Tensor(Storage([1.0], length=-1, kind="FloatStorage")),
    "more values than it names": Tensor(Storage([1.0, 2.0], length=3, kind="FloatStorage")),
    "storages 1 deep": Tensor(in_each_other(1)), "storages 100 deep": Tensor(in_each_other(100)),
}


@pytest.mark.parametrize("name", HOSTILE_TENSORS)
def test_hostile_tensors(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        read(tmp_path, dumps({**TENSORS, "visual.proj": HOSTILE_TENSORS[name]}))
    message = str(error.value)
    assert "ViT-B-32.pkl" in message and len(message) < 400 and "\n" not in message
    assert os.listdir(tmp_path) == ["ViT-B-32.pkl"] and not os.path.exists(HERE)


def test_hostile_tensors_ask_for_little_memory():
    refused_in_2_gib("from system.unpickle import foreign_in; "
                     "from tests.test_pickled_tensors import HOSTILE_TENSORS, dumps, loads",
                     "[dumps(value) for value in HOSTILE_TENSORS.values()]",
                     "list(foreign_in(loads(content)))")


def test_mutated_pickles_of_tensors_end_in_one_line(tmp_path):
    """500 changes of one to four bytes of what PyTorch wrote."""
    with open(os.path.join(ROOT, "tests/reference/tensors.pkl"), "rb") as file:
        valid = file.read()[:-28]  # without the checksum, which would tell
    random, n_refused = np.random.RandomState(2), 0
    names = [i for i in range(len(valid) - 5) if valid[i:i + 5] == b"torch"]
    for _ in range(500):
        content = bytearray(valid)
        for _ in range(random.randint(1, 5)):
            place = names[random.randint(len(names))] + random.randint(-20, 200)
            content[place % len(content)] = random.randint(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                state = read(tmp_path, bytes(content)).state
            except UserError as error:
                n_refused += 1
                assert "\n" not in str(error) and len(str(error)) < 600
            else:
                assert all(value.dtype.kind in "fiu" for value in state.values())
    assert n_refused > 100


def test_the_model_of_a_file_of_tensors_is_that_of_the_arrays(tmp_path):
    (tmp_path / "tensors.pkl").write_bytes(dumps(TENSORS))
    write_pickle(str(tmp_path / "arrays.pkl"), STATE)
    ours, expected = (dict(jclip.load(str(tmp_path / name))[0].named_parameters())
                      for name in ("tensors.pkl", "arrays.pkl"))
    for name, value in expected.items():
        np.testing.assert_array_equal(ours[name].numpy(), value.numpy(), err_msg=name)
    assert not list(foreign_in(loads(dumps(TENSORS))))
