"""Writes arrays as PyTorch's archives of tensors, without PyTorch; `torch_archive` reads them."""

import collections
import io
import pickle
import zipfile
from typing import NamedTuple

import numpy as np


class _Global:
    """Pickles as the name of something of PyTorch's, which is not here."""

    def __init__(self, name):
        self.name = name

    def __call__(self):
        raise NotImplementedError  # a pickle's functions must be callable


class _Tensors(pickle._Pickler):
    """Writes arrays as PyTorch writes tensors; their values are `stored` apart."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.stored = []

    def save_array(self, array):
        strides = [stride // array.itemsize for stride in array.strides]
        self.save_reduce(_Global("torch._utils _rebuild_tensor_v2"), (
            _ToStore(array), 0, array.shape, tuple(strides), False, collections.OrderedDict()),
            obj=array)

    def save_name(self, value):
        module, name = value.name.split()
        self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())

    dispatch[np.ndarray] = save_array
    dispatch[_Global] = save_name

    def persistent_id(self, value):
        if not isinstance(value, _ToStore):
            return None
        self.stored.append(value.array.tobytes())
        return ("storage", _Global("torch FloatStorage"), str(len(self.stored) - 1), "cpu",
                value.array.size)


class _ToStore(NamedTuple):
    array: np.ndarray


def torch_archive(content):
    """What `torch.save` would write of a dict of float32 tensors and plain containers: bytes."""
    body, archive = io.BytesIO(), io.BytesIO()
    pickler = _Tensors(body)
    pickler.dump(content)
    entries = {"data.pkl": body.getvalue(), "byteorder": b"little",
               **{f"data/{i}": values for i, values in enumerate(pickler.stored)},
               "version": b"3\n"}
    with zipfile.ZipFile(archive, "w") as file:
        for name, values in entries.items():
            file.writestr(zipfile.ZipInfo(f"archive/{name}"), values)
    return archive.getvalue()
