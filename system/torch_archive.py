"""Reads PyTorch's files without PyTorch: state dicts and TorchScript modules.

Zip archives of both hold `NAME/data.pkl`, a pickle in which each tensor is a view of a storage, and
`NAME/data/0`, `NAME/data/1`, …, the storages' bytes, never compressed. The pickle goes through
`system.unpickle`; each storage is read when the pickle asks for it, into memory of its
own. The code of a TorchScript archive is not looked at.

What PyTorch wrote before 1.6, and since with `_use_new_zipfile_serialization=False`, is a row of
pickles (a magic number, a version, the machine, the object, the storages' keys), behind which each
storage lies: its length, 8 bytes, and its values.

A plain pickle of tensors, such as `jt.save` makes of a PyTorch state dict, has for each tensor the
bytes of such a file in the old format, which holds the tensor's storage alone.
"""

import collections
import io
import math
import os
import pickle
import zipfile
from typing import NamedTuple

import numpy as np

from system.unpickle import (
    ADMITTED,
    Foreign,
    Refused,
    StandInArray,
    StandInUnpickler,
    finished,
)

_LOCAL_HEADER_BYTES = 30
LEGACY_START = pickle.dumps(0x1950a86a20f9469cfc6c, protocol=2)
_BFLOAT16 = "bfloat16"  # which NumPy does not know: the upper half of a float32
_STORAGES = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8",
             "BFloat16Storage": _BFLOAT16, "LongStorage": "<i8", "IntStorage": "<i4",
             "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1",
             "BoolStorage": "?", "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16",
             "QInt8Storage": "i1", "QUInt8Storage": "u1", "QInt32Storage": "<i4",
             "UntypedStorage": "u1", "storage.UntypedStorage": "u1"}
_DTYPES = {"float32": "<f4", "float16": "<f2", "float64": "<f8", "bfloat16": _BFLOAT16,
           "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1", "uint8": "u1",
           "uint16": "<u2", "uint32": "<u4", "uint64": "<u8", "bool": "?"}


class _Kind(NamedTuple):
    """Stand-in for a storage class or a number type of PyTorch."""

    dtype: str

    def as_stored(self):
        """NumPy's type for the values as they lie in a file."""
        return np.dtype("<u2" if self.dtype == _BFLOAT16 else self.dtype)


class _Storage:
    """The values of a storage: as many as `length` tells, perhaps filled in later."""

    def __init__(self, kind, length, values=None):
        self.kind = kind
        self.length = length
        self.values = values


class _Tensor(StandInArray):
    """A view of a storage, made when it is asked for: by then its storage is filled."""

    def __init__(self, storage, offset, size, stride, kind):
        self.view = storage, offset, size, stride, kind

    @property
    def value(self):
        storage, offset, size, stride, kind = self.view
        values = storage.values.view(kind.as_stored())
        if 0 in size:
            array = np.zeros(size, values.dtype)
        else:
            array = np.lib.stride_tricks.as_strided(
                values[offset:], size, [step * values.itemsize for step in stride],
                writeable=False)
        return widened(array) if kind.dtype == _BFLOAT16 else array


def widened(halves):
    """float32 of bfloat16 values, given as uint16."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


class _ScriptModule:
    """Stand-in for a TorchScript module: its attributes."""

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise Refused("it has a module without attributes")
        self.attributes = state


def _rebuild_tensor(storage=None, offset=0, size=(), stride=(), *_, kind=None):
    """A tensor: a view of a storage, which it may not leave."""
    if (not isinstance(storage, _Storage) or not isinstance(size, tuple)
            or not isinstance(stride, tuple) or len(size) != len(stride)
            or not all(type(n) is int and n >= 0 for n in (offset, *size, *stride))):
        raise Refused("it has a malformed tensor")
    kind = kind or storage.kind
    n_values = storage.length * storage.kind.as_stored().itemsize // kind.as_stored().itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    # Nor may it be larger than its storage: with a stride of 0 it could be of any size.
    if 0 not in size and (last >= n_values or math.prod(size) > n_values):
        raise Refused(f"it has a tensor of shape {size} beyond its bytes")
    return _Tensor(storage, offset, size, stride, kind)


def _rebuild_tensor_v3(storage=None, offset=0, size=(), stride=(), _grad=None, _hooks=None,
                       kind=None, *_):
    """The same over a storage of bytes, with a number type of its own."""
    if not isinstance(kind, _Kind):
        raise Refused("it has a tensor of an unknown number type")
    return _rebuild_tensor(storage, offset, size, stride, kind=kind)


def _rebuild_parameter(tensor=None, *_):
    return tensor


def _rebuild_from_type(function=None, _type=None, arguments=(), *_):
    """A tensor that has attributes, which are left out."""
    if function not in (_rebuild_tensor, _rebuild_tensor_v3) or not isinstance(arguments, tuple):
        raise Refused("it has a tensor of an unknown type")
    return function(*arguments)


def _size(numbers=(), *_):
    return tuple(numbers)


def _first(value=None, *_):
    """TorchScript's typed lists: the list."""
    return value


_ADMITTED = {**ADMITTED, **{f"torch.{n}": _Kind(d) for n, d in {**_STORAGES, **_DTYPES}.items()},
             "torch.Size": _size,
             "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
             "torch._utils._rebuild_tensor": _rebuild_tensor,
             "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
             "torch._utils._rebuild_parameter": _rebuild_parameter,
             "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
             "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
             "__torch__": _ScriptModule,
             **{f"torch.jit._pickle.{n}": _first for n in (
                 "build_intlist", "build_floatlist", "build_boollist", "build_tensorlist",
                 "restore_type_tag")}}


class _TorchUnpickler(StandInUnpickler):
    """Also knows storages, by their persistent id, and TorchScript's modules.

    Args:
        file: binary file at the pickle's start.
        storage: function of a persistent id, a tuple, that returns the `_Storage`.
        foreign: see `StandInUnpickler`.
        storages_apart: whether each storage can be found without the others.
    """

    dispatch = {**StandInUnpickler.dispatch,
                pickle.BINPERSID[0]: pickle._Unpickler.load_binpersid}
    stateful = (*StandInUnpickler.stateful, _ScriptModule)

    def __init__(self, file, storage, foreign, storages_apart):
        super().__init__(file, _ADMITTED, foreign)
        self.storage = storage
        self.storages = {}
        self.storages_apart = storages_apart

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptModule
        return super().find_class(module, name)

    def persistent_load(self, reference):
        if isinstance(reference, tuple) and reference[:1] == ("module",) and isinstance(
                reference[1], Foreign):
            return reference[1]  # the class of a whole model, in the old format with its source
        if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
            raise Refused("it has a malformed storage")
        if not isinstance(reference[1], _Kind):
            return self.unknown_storage(reference[1])
        key = str(reference[2])
        if key not in self.storages:
            self.storages[key] = self.storage(reference)
        return self.storages[key]


    def unknown_storage(self, kind):
        """In the place of a storage whose values have a type that is not known.

        In the old format, where those behind it lie would not be known either.
        """
        if self.foreign is None or not self.storages_apart:
            raise Refused("it has a storage of an unknown type")
        return self._not_admitted(f"it has a storage of the type {getattr(kind, 'name', None)}")


class _Archive:
    """The entries of a zip archive of PyTorch's."""

    def __init__(self, file):
        self.file = file
        with zipfile.ZipFile(file) as archive:
            self.entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in self.entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("it is a zip archive, but none of PyTorch's; unpack it")
        self.pickle = pickles[0]
        self.root = self.pickle[:-len("data.pkl")]

    def storage(self, reference):
        """A storage, by its persistent id."""
        kind, key = reference[1], str(reference[2])
        content = self.read(f"{self.root}data/{key}").getbuffer()
        if len(content) % kind.as_stored().itemsize:
            raise Refused(f"its storage {ascii(key[:20])} is damaged")
        values = np.frombuffer(content, kind.as_stored())
        return _Storage(kind, len(values), values)

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
        if header[:4] != b"PK\3\4" or not 0 <= entry.file_size <= _n_left(self.file):
            raise Refused("it is damaged")
        return io.BytesIO(self.file.read(entry.file_size))


def _n_left(file):
    """Bytes from a file's place to its end."""
    place = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(place)
    return end - place


def read_torch_archive(path):
    """What `torch.save` or `torch.jit.save` wrote.

    Args:
        path: a zip archive with `data.pkl`.

    Returns:
        (content, is_script): the saved object with arrays for tensors, and `unpickle.Foreign` for
        what is neither; of a TorchScript archive {name: array}, its parameters and buffers.

    Raises:
        Refused: no such archive, or its tensors are malformed.
        Exception: of any kind, where the archive is damaged.
    """
    with open(path, "rb") as file:
        archive, foreign = _Archive(file), []
        loaded = _TorchUnpickler(archive.read(archive.pickle), archive.storage, foreign,
                                True).load()
    if isinstance(loaded, _ScriptModule):
        return _flattened(loaded), True
    return finished(loaded, foreign), False


class _LateStorages:
    """Storages that lie behind the pickle: made when it names them, filled afterwards.

    Args:
        file: binary file, of the length that all of them together may have.
    """

    def __init__(self, file):
        self.file = file
        self.n_left = _n_left(file)
        self.storages = {}

    def storage(self, reference):
        """A storage without its values, by its persistent id."""
        kind, length = reference[1], reference[4]
        if reference[5:] not in ((), (None,)) or type(length) is not int or length < 0:
            raise Refused("it has a malformed storage")
        self.n_left -= length * kind.as_stored().itemsize
        if self.n_left < 0:
            raise Refused("its storages are larger than the file")
        self.storages[str(reference[2])] = storage = _Storage(kind, length)
        return storage

    def fill(self, keys):
        """Read the storages, which lie in the order of their keys, a list."""
        if not isinstance(keys, list) or set(keys) != set(self.storages):
            raise Refused("its storages are not those that it names")
        for key in keys:
            storage, dtype = self.storages[key], self.storages[key].kind.as_stored()
            length = int.from_bytes(self.file.read(8), "little")
            content = self.file.read(storage.length * dtype.itemsize)
            if length != storage.length or len(content) != length * dtype.itemsize:
                raise Refused(f"its storage {ascii(key[:20])} is damaged")
            storage.values = np.frombuffer(content, dtype)


def read_torch_legacy(path):
    """What `torch.save` wrote in its old format, of which a file's start is `LEGACY_START`.

    Returns:
        the saved object, as `read_torch_archive` returns it.

    Raises:
        Refused: its tensors or storages are malformed.
        Exception: of any kind, where the file is damaged.
    """
    foreign = []
    with open(path, "rb") as file:
        return finished(_read_legacy(file, foreign), foreign)


def _read_legacy(file, foreign):
    storages = _LateStorages(file)
    for _ in range(3):  # magic number, version, machine
        StandInUnpickler(file, {}).load()
    loaded = _TorchUnpickler(file, storages.storage, foreign, False).load()
    storages.fill(finished(StandInUnpickler(file, {}).load()))
    return loaded


def read_pickled_tensors(file):
    """The object in a plain pickle of tensors or arrays.

    Args:
        file: binary file at the pickle's start.

    Returns:
        the object, as `read_torch_archive` returns it.

    Raises:
        Refused: its tensors or storages are malformed.
        Exception: of any kind, where the pickle is damaged.
    """
    foreign = []
    return finished(StandInUnpickler(file, _ADMITTED_IN_PICKLES, foreign).load(), foreign)


def _storage_from_bytes(content=b""):
    """How a pickle has a storage: as the bytes of a file in the old format."""
    if not isinstance(content, bytes) or not content.startswith(LEGACY_START):
        raise Refused("it has a malformed storage")
    # Storages in storages are not admitted: in there the name of this function is unknown.
    storage = _read_legacy(io.BytesIO(content), None)
    if not isinstance(storage, _Storage):
        raise Refused("it has something else than a storage in a storage's place")
    return storage


_ADMITTED_IN_PICKLES = {**_ADMITTED, "torch.storage._load_from_bytes": _storage_from_bytes}


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
