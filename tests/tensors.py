"""Plain pickles of PyTorch tensors, written as PyTorch does, without PyTorch."""

import collections
import pickle
import struct
import sys
import types
from unittest import mock

import numpy as np

MAGIC, VERSION = 0x1950a86a20f9469cfc6c, 1001
_NUMPY_OF = {"FloatStorage": "<f4", "HalfStorage": "<f2", "DoubleStorage": "<f8",
             "BFloat16Storage": "<u2", "LongStorage": "<i8"}
STORAGE_OF = {np.dtype(kind): name for name, kind in _NUMPY_OF.items() if name[0] != "B"}


def _module(name, *functions):
    module = types.ModuleType(name)
    for each in functions:
        function = types.FunctionType((lambda *_: None).__code__, {}, each)
        function.__module__, function.__qualname__ = name, each
        setattr(module, each, function)
    return module


_UTILS = _module("torch._utils", "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
_STORAGE = _module("torch.storage", "_load_from_bytes")
_TORCH = _module("torch", *_NUMPY_OF)
for _name in _NUMPY_OF:
    setattr(_TORCH, _name, type(_name, (), {"__module__": "torch"}))


def dumps(value, protocol=4):
    """A pickle in which PyTorch's names stand for what makes tensors."""
    modules = {"torch": _TORCH, "torch._utils": _UTILS, "torch.storage": _STORAGE}
    with mock.patch.dict(sys.modules, modules):
        return pickle.dumps(value, protocol)


class Storage:
    """Values as a storage: pickles as the bytes of a file in PyTorch's old format."""

    def __init__(self, values, kind=None, length=None, content=None):
        self.values = np.float32(values) if isinstance(values, list) else values
        self.kind = kind or STORAGE_OF[self.values.dtype]
        self.length = self.values.size if length is None else length
        self.content = content

    def __reduce__(self):
        content = self.legacy_file() if self.content is None else self.content
        return _STORAGE._load_from_bytes, (content,)

    def legacy_file(self, key="94453848567392"):
        reference = ("storage", getattr(_TORCH, self.kind), key, "cpu", self.length, None)
        body = dumps(reference, 2)[:-1] + pickle.BINPERSID + pickle.STOP
        start = b"".join(pickle.dumps(part, 2) for part in (
            MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True}))
        return (start + body + pickle.dumps([key], 2) + struct.pack("<q", self.length)
                + self.values.tobytes())


class Tensor:
    """A view of a `Storage`, by default of all of it."""

    def __init__(self, storage, size=None, stride=None, offset=0, function="_rebuild_tensor_v2",
                 parameter=False):
        self.storage = storage if isinstance(storage, Storage) else Storage(storage)
        self.size = np.shape(self.storage.values) if size is None else size
        steps = np.cumprod((1, *self.size[:0:-1]))[::-1] if stride is None and self.size else ()
        self.stride = tuple(map(int, steps)) if stride is None else stride
        self.offset, self.function, self.parameter = offset, function, parameter

    def __reduce__(self):
        if self.parameter:
            plain = Tensor(self.storage, self.size, self.stride, self.offset)
            return _UTILS._rebuild_parameter, (plain, True, collections.OrderedDict())
        more = (False, collections.OrderedDict()) if self.function.endswith("v2") else ()
        return getattr(_UTILS, self.function), (self.storage, self.offset, self.size, self.stride,
                                                *more)
