"""Reads PyTorch's zip archives without PyTorch: state dicts and TorchScript modules.

Both hold `NAME/data.pkl`, a pickle in which each tensor is a view of a storage, and
`NAME/data/0`, `NAME/data/1`, …, the storages' bytes, never compressed. The pickle goes through
`models.jclip.unpickle`; the arrays are views of the file itself, mapped into memory. The code
of a TorchScript archive is not looked at.
"""

import collections
import math
import pickle
import zipfile
from typing import NamedTuple

import numpy as np

from models.jclip.unpickle import ADMITTED, Refused, StandInArray, StandInUnpickler, finished

_LOCAL_HEADER_BYTES = 30
_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8",
             "BFloat16Storage": "bfloat16", "LongStorage": "<i8", "IntStorage": "<i4",
             "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
             "BoolStorage": "?"}


class _StorageKind(NamedTuple):
    """Stand-in for a storage class of PyTorch."""

    dtype: str


class _Storage(NamedTuple):
    """The values of one entry of the archive."""

    values: np.ndarray
    kind: _StorageKind


class _ScriptModule:
    """Stand-in for a TorchScript module: its attributes."""

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise Refused("it has a module without attributes")
        self.attributes = state


def _rebuild_tensor(storage=None, offset=0, size=(), stride=(), *_):
    """A tensor: a view of a storage, which it may not leave."""
    numbers = (offset, *size, *stride)
    if (not isinstance(storage, _Storage) or len(size) != len(stride)
            or not all(type(n) is int and n >= 0 for n in numbers)):
        raise Refused("it has a malformed tensor")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    array = StandInArray()
    if 0 in size:
        array.value = np.zeros(size, storage.values.dtype)
        return array
    values, item = storage.values, storage.values.itemsize
    # Nor may it be larger than its storage: with a stride of 0 it could be of any size.
    if last >= len(values) or math.prod(size) > len(values):
        raise Refused(f"it has a tensor of shape {tuple(size)} beyond its bytes")
    array.value = np.lib.stride_tricks.as_strided(
        values[offset:], size, [step * item for step in stride], writeable=False)
    if storage.kind.dtype == "bfloat16":  # the upper half of a float32
        array.value = (array.value.astype(np.uint32) << 16).view(np.float32)
    return array


def _rebuild_parameter(tensor=None, *_):
    return tensor


def _first(value=None, *_):
    """TorchScript's typed lists: the list."""
    return value


_ADMITTED = {**ADMITTED, **{f"torch.{n}": _StorageKind(d) for n, d in _STORAGES.items()},
             "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
             "torch._utils._rebuild_tensor": _rebuild_tensor,
             "torch._utils._rebuild_parameter": _rebuild_parameter,
             "__torch__": _ScriptModule,
             **{f"torch.jit._pickle.{n}": _first for n in (
                 "build_intlist", "build_floatlist", "build_boollist", "build_tensorlist",
                 "restore_type_tag")}}


class _TorchUnpickler(StandInUnpickler):
    """Also knows storages, by their persistent id, and TorchScript's modules."""

    dispatch = {**StandInUnpickler.dispatch,
                pickle.BINPERSID[0]: pickle._Unpickler.load_binpersid}
    stateful = (*StandInUnpickler.stateful, _ScriptModule)

    def __init__(self, content, storages):
        super().__init__(content, _ADMITTED)
        self.storages = storages

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptModule
        return super().find_class(module, name)

    def persistent_load(self, reference):
        if (not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage"
                or not isinstance(reference[1], _StorageKind)):
            raise Refused("it has a malformed storage")
        kind, key = reference[1:3]
        dtype = np.dtype("<u2" if kind.dtype == "bfloat16" else kind.dtype)
        content = self.storages.get(str(key))
        if content is None or len(content) % dtype.itemsize:
            raise Refused(f"its storage {ascii(str(key)[:20])} is missing or damaged")
        return _Storage(content.view(dtype), kind)


def read_torch_archive(path):
    """What `torch.save` or `torch.jit.save` wrote.

    Args:
        path: a zip archive with `data.pkl`.

    Returns:
        (content, is_script): the saved object with arrays for tensors, views of the file; of a
        TorchScript archive {name: array}, its parameters and buffers.

    Raises:
        Refused: no such archive, or its pickle asks for something that is not admitted.
        Exception: of any kind, where the archive is damaged.
    """
    file = np.memmap(path, np.uint8, mode="r")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1:
        raise Refused("it is a zip archive, but none of PyTorch's")
    root = pickles[0][:-len("data.pkl")]
    storages = {name[len(root) + len("data/"):]: _content(file, entry)
                for name, entry in entries.items() if name.startswith(root + "data/")}
    loaded = _TorchUnpickler(_content(file, entries[pickles[0]]).tobytes(), storages).load()
    if isinstance(loaded, _ScriptModule):
        return _flattened(loaded), True
    return finished(loaded), False


def _content(file, entry):
    """The bytes of an archive's entry, in place."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise Refused(f"its entry {ascii(entry.filename[:40])} is compressed, which PyTorch's "
                      "never are")
    header = bytes(file[entry.header_offset:entry.header_offset + _LOCAL_HEADER_BYTES])
    start = (entry.header_offset + _LOCAL_HEADER_BYTES
             + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"))
    if header[:4] != b"PK\3\4" or start + entry.file_size > len(file):
        raise Refused("it is damaged")
    return file[start:start + entry.file_size]


def _flattened(module, deepest=50):
    """{dotted name: array} of a TorchScript module's tensors."""
    state = collections.OrderedDict()

    def walk(part, prefix, depth):
        if depth > deepest:
            raise Refused(f"its modules are nested more than {deepest} deep")
        for name, value in getattr(part, "attributes", {}).items():
            if isinstance(value, _ScriptModule):
                walk(value, f"{prefix}{name}.", depth + 1)
            elif isinstance(value, StandInArray):
                state[f"{prefix}{name}"] = finished(value)

    walk(module, "", 0)
    return state
