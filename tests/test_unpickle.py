"""Pickles that are no plain arrays: each refused in one line, and nothing of them is run."""

import builtins
import collections
import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest

from system.errors import UserError
from system.files import read_pickle
from system.unpickle import load

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def loads(content):
    return load(io.BytesIO(content))


class Calls:
    """Pickles as a call: `function(*arguments)`, perhaps with a state given to its result."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class Made:
    """Pickles as an instance of a class that is none of ours."""


def stack_global(module, name):
    """The instructions that push module.name."""
    return b"".join(pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()
                    for text in (module, name)) + pickle.STACK_GLOBAL


def call(module, name, arguments=b")"):
    return pickle.PROTO + b"\4" + stack_global(module, name) + arguments + pickle.REDUCE + b"."


def array_state(shape, dtype=b"f4", content=b"\0" * 8):
    """numpy.ndarray with a state of our own making."""
    numpy_dtype = stack_global("numpy", "dtype") + pickle.SHORT_BINUNICODE + bytes(
        [len(dtype)]) + dtype + pickle.TUPLE1 + pickle.REDUCE
    return (pickle.PROTO + b"\4" + stack_global("numpy.core.multiarray", "_reconstruct")
            + stack_global("numpy", "ndarray") + b"K\0\x85C\1b\x87R"
            + b"(K\1" + pickle.dumps(shape, 2)[2:-1] + numpy_dtype
            + b"\x89C" + bytes([len(content)]) + content + b"tb.")


HERE = "was_run"
MKDIR = (os.mkdir, HERE)
HOSTILE = {
    "os.system": Calls(os.system, f"mkdir {HERE}"),
    "os.mkdir": Calls(*MKDIR),
    "eval": Calls(eval, f"__import__('os').mkdir('{HERE}')"),
    "exec": Calls(exec, f"import os; os.mkdir('{HERE}')"),
    "compile": Calls(compile, "1", "x", "eval"),
    "open": Calls(open, HERE, "w"),
    "getattr": Calls(getattr, "text", "format"),
    "setattr": Calls(setattr, collections.OrderedDict, "x", 1),
    "import": Calls(__import__, "os"),
    "subprocess": Calls(subprocess.call, ["mkdir", HERE]),
    "Popen": Calls(subprocess.Popen, ["mkdir", HERE]),
    "in a list": [1, [2, Calls(*MKDIR)]],
    "in a dict's value": {"visual.proj": {"x": Calls(*MKDIR)}},
    "in a tuple": (1, (2, Calls(*MKDIR))),
    "as a call's argument": collections.OrderedDict([("a", Calls(*MKDIR))]),
    "as a state": Calls(collections.OrderedDict, state={"x": Calls(*MKDIR)}),
    "as a call's result": Calls(map, os.mkdir, [HERE]),
    "np.load": Calls(np.load, HERE),
    "np.fromfile": Calls(np.fromfile, "/dev/zero"),
    "np.memmap": Calls(np.memmap, HERE, "f4", "w+", 0, (4,)),
    "object array": np.array([{}, []], dtype=object),
    "object array with a call": np.array([Calls(*MKDIR)], dtype=object),
    "structured array": np.zeros(2, [("a", "f4"), ("b", "O")]),
    "text array": np.array(["a", "b"]),
    "datetime array": np.zeros(2, "M8[s]"),
    "complex array": np.zeros(2, "c8"),
    "an instance": Made(),
    "a class": Made,
    "a function": len,
    "a builtin type": int,
    "bytearray": Calls(bytearray, 10),
    "range": range(10 ** 12),
    "complex": 1j,
    "defaultdict": collections.defaultdict(list),
    "deque": collections.deque([1]),
    "partial": Calls(__import__("functools").partial, os.mkdir, HERE),
    "attrgetter": Calls(__import__("operator").attrgetter, "system"),
    "methodcaller": Calls(__import__("operator").methodcaller, "mkdir", HERE),
    "copyreg": Calls(__import__("copyreg")._reconstructor, Made, object, None),
    "logging": Calls(__import__("logging").FileHandler, HERE),
    "shutil": Calls(__import__("shutil").rmtree, HERE),
    "pickle in pickle": Calls(pickle.loads, pickle.dumps(Calls(*MKDIR))),
}
RAW = {
    "dotted name": call("os", "path.os.system", b"\x8c\x07mkdir x\x85"),
    "our own stand-in": call("system.unpickle", "StandInUnpickler"),
    "numpy.ndarray called": pickle.PROTO + b"\4" + stack_global("numpy", "ndarray")
    + b"J\xff\xff\xff\x7f\x85R.",
    "numpy.ndarray alone": pickle.PROTO + b"\4" + stack_global("numpy", "ndarray") + b".",
    "a dtype alone": pickle.PROTO + b"\4" + stack_global("numpy", "dtype") + b"\x8c\2f4\x85R.",
    "a huge _reconstruct": pickle.PROTO + b"\4"
    + stack_global("numpy.core.multiarray", "_reconstruct")
    + stack_global("numpy", "ndarray") + b"\x8a\x06\0\0\0\0\0\1\x85C\1b\x87R.",
    "10^12 values": array_state((10 ** 12,)),
    "a negative side": array_state((-2, -1)),
    "too few bytes": array_state((3,)),
    "too many bytes": array_state((1,)),
    "an empty side and a huge one": array_state((2, 0, 10 ** 30)),
    "a list as shape": array_state([2]),
    "an object dtype": array_state((1,), b"O"),
    "a void dtype": array_state((2,), b"V4"),
    "a state for a function": pickle.PROTO + b"\4" + stack_global("_codecs", "encode")
    + b"}\x8c\1x\x8c\1ysb.",
    "a state for a class": pickle.PROTO + b"\4" + stack_global("numpy", "ndarray")
    + b"N}\x8c\x0c__setstate__K\1s\x86b.",
    "another encoding": call("_codecs", "encode", b"\x8c\1a\x8c\3zip\x86"),
    "the extension registry": pickle.PROTO + b"\4" + pickle.EXT1 + b"\1.",
    "INST": b"(S'x'\nios\nmkdir\n.",
    "OBJ": b"(cos\nmkdir\nS'x'\no.",
    "NEWOBJ of a number": pickle.PROTO + b"\4K\1)\x81.",
    "REDUCE of a text": pickle.PROTO + b"\4\x8c\1a)R.",
    "a persistent id": pickle.PROTO + b"\4\x8c\1aQ.",
    "a memo of 2^31 places": pickle.PROTO + b"\4K\1r\xff\xff\xff\x7fcos\nsystem\n.",
    "a pop of nothing": b"0.", "no stop": pickle.PROTO + b"\4K\1", "nothing": b"",
    "a mark that was not set": pickle.PROTO + b"\4t.",
    "an unhashable key": pickle.PROTO + b"\4}]]s.",
    "a length of 2^63": pickle.PROTO + b"\4" + pickle.BINUNICODE8 + b"\xff" * 7 + b"\x7f.",
    "bytes of 2^62": pickle.PROTO + b"\4" + pickle.BINBYTES8 + b"\0" * 7 + b"\x40.",
    "protocol 200": pickle.PROTO + b"\xc8K\1.",
    "100,000 lists in each other": b"]" * 100_000 + b"a" * 99_999 + b".",
    "noise": bytes(range(256)),
}


def refused(content, tmp_path, monkeypatch):
    """Read as a file in a folder of its own; the message of the refusal."""
    path = tmp_path / "hostile.pkl"
    path.write_bytes(content)
    monkeypatch.chdir(tmp_path)
    before = dict(vars(builtins))
    with pytest.raises(UserError) as error:
        read_pickle(str(path))
    message = str(error.value)
    assert str(path) in message and len(message) < 400 and "\n" not in message
    assert os.listdir(tmp_path) == ["hostile.pkl"]
    assert before == dict(vars(builtins))
    return message


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_objects(name, protocol, tmp_path, monkeypatch):
    content = pickle.dumps(HOSTILE[name], protocol)
    assert "is refused: it" in refused(content, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", RAW)
def test_hostile_instructions(name, tmp_path, monkeypatch):
    refused(RAW[name], tmp_path, monkeypatch)


def refused_in_2_gib(names, contents, read):
    """Assert that a process that may have 2 GiB refuses all contents and takes little of it.

    Args:
        names: import statement of what the others name. contents: expression of a list.
        read: expression of `content` that fails, or is true, where it is refused.
    """
    script = (f"import pickle, re, resource; {names}; contents = {contents};"
              "resource.setrlimit(resource.RLIMIT_AS, (2 ** 31, 2 ** 31));"
              "n = 0\n"
              "for content in contents:\n"
              f"    try: n += bool({read})\n"
              "    except MemoryError: raise SystemExit('memory')\n"
              "    except Exception: n += 1\n"
              # ru_maxrss would count what this process had when it made the other.
              "status = open('/proc/self/status').read()\n"
              "print(n == len(contents), re.search(r'VmHWM:\\s*(\\d+)', status)[1])")
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.stdout.startswith("True"), done.stdout + done.stderr[-500:]
    assert int(done.stdout.split()[1]) < 2 ** 20  # KiB


def test_nothing_asks_for_much_memory():
    refused_in_2_gib("from tests.test_unpickle import HOSTILE, RAW, loads",
                     "[pickle.dumps(v) for v in HOSTILE.values()] + list(RAW.values())",
                     "not [loads(content)]")


def test_the_instructions_above_are_well_formed():
    """What the hostile ones are changes of is read."""
    np.testing.assert_array_equal(loads(array_state((2,))), [0, 0])
    assert loads(call("_codecs", "encode", b"\x8c\1a\x8c\6latin1\x86")) == b"a"
    assert loads(call("collections", "OrderedDict")) == {}


@pytest.mark.parametrize("protocol", range(6))
def test_what_checkpoints_hold_survives(protocol):
    shared = np.arange(6, dtype=np.float32).reshape(2, 3)
    value = {"a": shared, "again": shared, "f": np.asfortranarray(shared), "half": np.float16(
        [1.5]), "scalar": np.float64(2.5), "no axis": np.array(3), "bool": np.array([True]),
        "big": shared.astype(">f8"), "empty": np.zeros((0, 4), np.int64), "text": "äöü",
        "bytes": b"\0\xff", "none": None, "tuple": (1, 2.5, [True]), "long": 10 ** 30,
        "ordered": collections.OrderedDict([("x", shared)])}
    again = loads(pickle.dumps(value, protocol))
    assert again.keys() == value.keys() and type(again["ordered"]) is collections.OrderedDict
    for key in value:
        np.testing.assert_equal(again[key], value[key], err_msg=key)
        if isinstance(value[key], np.ndarray):
            assert again[key].dtype == value[key].dtype and again[key].shape == value[key].shape


def test_a_list_that_holds_itself_ends():
    value = [1]
    value.append(value)
    again = loads(pickle.dumps(value))
    assert again[0] == 1 and again[1] is again


def test_mutated_files_end_in_one_line_or_in_plain_values(tmp_path):
    """2,000 changes of one to three bytes of a valid file."""
    valid = pickle.dumps({"a": np.arange(4, dtype=np.float32), "b": [1, "text", (2.5, None)]}, 4)
    random = np.random.RandomState(0)
    path = tmp_path / "mutated.pkl"
    n_refused = 0
    for _ in range(2000):
        content = bytearray(valid)
        for _ in range(random.randint(1, 4)):
            content[random.randint(len(content))] = random.randint(256)
        path.write_bytes(content[:random.randint(1, len(content) + 1)]
                         if random.randint(4) == 0 else content)
        try:
            plain = read_pickle(str(path))
        except UserError as error:
            n_refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            pickletools.optimize(pickle.dumps(plain))
    assert 500 < n_refused < 2000
