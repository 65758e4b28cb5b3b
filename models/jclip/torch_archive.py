"""Reads PyTorch's files without PyTorch: state dicts and TorchScript modules.

Zip archives of both hold `NAME/data.pkl`, a pickle in which each tensor is a view of a storage, and
`NAME/data/0`, `NAME/data/1`, …, the storages' bytes, never compressed. The pickle goes through
`models.jclip.unpickle`; each storage is read when the pickle asks for it, into memory of its
own. The code of a TorchScript archive is not looked at.

What PyTorch wrote before 1.6, and since with `_use_new_zipfile_serialization=False`, is a row of
pickles (a magic number, a version, the machine, the object, the storages' keys), behind which each
storage lies: its length, 8 bytes, and its values.
"""

import collections
import io
import math
import os
import pickle
import zipfile
from typing import NamedTuple

import numpy as np

from models.jclip.unpickle import ADMITTED, Refused, StandInArray, StandInUnpickler, finished

_LOCAL_HEADER_BYTES = 30
LEGACY_START = pickle.dumps(0x1950a86a20f9469cfc6c, protocol=2)
_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8",
             "BFloat16Storage": "bfloat16", "LongStorage": "<i8", "IntStorage": "<i4",
             "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
             "BoolStorage": "?"}


class _StorageKind(NamedTuple):
    """Stand-in for a storage class of PyTorch."""

    dtype: str


def _dtype_of(kind):
    """NumPy's type for the values of a `_StorageKind` as they lie in a file."""
    return np.dtype("<u2" if kind.dtype == "bfloat16" else kind.dtype)


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
    """Also knows storages, by their persistent id, and TorchScript's modules.

    Args:
        file: binary file at the pickle's start.
        storage: function of a persistent id, a tuple, that returns the storage's values, an array
            of as many bytes as the file holds for it.
    """

    dispatch = {**StandInUnpickler.dispatch,
                pickle.BINPERSID[0]: pickle._Unpickler.load_binpersid}
    stateful = (*StandInUnpickler.stateful, _ScriptModule)

    def __init__(self, file, storage):
        super().__init__(file, _ADMITTED)
        self.storage = storage
        self.storages = {}

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptModule
        return super().find_class(module, name)

    def persistent_load(self, reference):
        if (not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage"
                or not isinstance(reference[1], _StorageKind)):
            raise Refused("it has a malformed storage")
        kind, key = reference[1], str(reference[2])
        if key not in self.storages:
            self.storages[key] = _Storage(self.storage(reference), kind)
        return self.storages[key]


class _Archive:
    """The entries of a zip archive of PyTorch's."""

    def __init__(self, file):
        self.file = file
        with zipfile.ZipFile(file) as archive:
            self.entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in self.entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but none of PyTorch's")
        self.pickle = pickles[0]
        self.root = self.pickle[:-len("data.pkl")]

    def storage(self, reference):
        """The values of a storage, by its persistent id."""
        dtype, key = _dtype_of(reference[1]), str(reference[2])
        content = self.read(f"{self.root}data/{key}").getbuffer()
        if len(content) % dtype.itemsize:
            raise Refused(f"its storage {ascii(key[:20])} is damaged")
        return np.frombuffer(content, dtype)

    def read(self, name):
        """An entry's content, `io.BytesIO`; never more than the file itself holds."""
        entry = self.entries.get(name)
        if entry is None:
            raise Refused(f"its entry {ascii(name[:40])} is missing")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise Refused(f"its entry {ascii(name[:40])} is compressed, which PyTorch's never are")
        self.file.seek(entry.header_offset)
        header = self.file.read(_LOCAL_HEADER_BYTES)
        # Behind the header come the name and, of the length that it tells, padding.
        self.file.seek(int.from_bytes(header[26:28], "little")
                       + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
        n_left = os.fstat(self.file.fileno()).st_size - self.file.tell()
        if header[:4] != b"PK\3\4" or not 0 <= entry.file_size <= n_left:
            raise Refused("it is damaged")
        return io.BytesIO(self.file.read(entry.file_size))


def read_torch_archive(path):
    """What `torch.save` or `torch.jit.save` wrote.

    Args:
        path: a zip archive with `data.pkl`.

    Returns:
        (content, is_script): the saved object with arrays for tensors; of a TorchScript archive
        {name: array}, its parameters and buffers.

    Raises:
        Refused: no such archive, or its pickle asks for something that is not admitted.
        Exception: of any kind, where the archive is damaged.
    """
    with open(path, "rb") as file:
        archive = _Archive(file)
        loaded = _TorchUnpickler(archive.read(archive.pickle), archive.storage).load()
    if isinstance(loaded, _ScriptModule):
        return _flattened(loaded), True
    return finished(loaded), False


class _LateStorages:
    """Storages that lie behind the pickle: made when it names them, filled afterwards.

    Args:
        file: binary file, of the length that all of them together may have.
    """

    def __init__(self, file):
        self.file = file
        self.n_left = os.fstat(file.fileno()).st_size
        self.values = {}

    def storage(self, reference):
        """Zeros in the place of a storage's values, by its persistent id."""
        dtype, n = _dtype_of(reference[1]), reference[4]
        if reference[1].dtype == "bfloat16":  # would be turned into float32 before it is filled
            raise Refused("it is in PyTorch's old format and has bfloat16; save it again")
        if reference[5:] not in ((), (None,)) or type(n) is not int or n < 0:
            raise Refused("it has a malformed storage")
        self.n_left -= n * dtype.itemsize
        if self.n_left < 0:
            raise Refused("its storages are larger than the file")
        self.values[str(reference[2])] = values = np.zeros(n, dtype)
        return values

    def fill(self, keys):
        """Read the storages, which lie in the order of their keys, a list."""
        if not isinstance(keys, list) or set(keys) != set(self.values):
            raise Refused("its storages are not those that it names")
        for key in keys:
            values = self.values[key]
            n = int.from_bytes(self.file.read(8), "little")
            if n != len(values) or self.file.readinto(values.view(np.uint8)) != values.nbytes:
                raise Refused(f"its storage {ascii(key[:20])} is damaged")


def read_torch_legacy(path):
    """What `torch.save` wrote in its old format, of which a file's start is `LEGACY_START`.

    Returns:
        the saved object with arrays for tensors.

    Raises:
        Refused: its pickle asks for something that is not admitted.
        Exception: of any kind, where the file is damaged.
    """
    with open(path, "rb") as file:
        storages = _LateStorages(file)
        for _ in range(3):  # magic number, version, machine
            StandInUnpickler(file, {}).load()
        loaded = finished(_TorchUnpickler(file, storages.storage).load())
        storages.fill(finished(StandInUnpickler(file, {}).load()))
    return loaded


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
