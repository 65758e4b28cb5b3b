"""Skips tests where the stubs of .ci/cuda are not in place, and reads what they count."""

import ctypes

import pytest


class Counts(ctypes.Structure):
    """What runtime.c counts: kernels, copies to the GPU that wait, copies back, and waits."""

    _fields_ = [(name, ctypes.c_long) for name in ("launches", "to_device", "to_host", "waits")]

    def now(self):
        return {name: getattr(self, name) for name, _ in self._fields_}


@pytest.fixture(autouse=True)
def counts():
    """counts(function, …): how often the function makes the GPU do each, {name: number}."""
    try:
        counted = Counts.in_dll(ctypes.CDLL(None), "null_gpu")
    except ValueError:
        pytest.skip("needs the stubs of CUDA's libraries: bash .ci/cuda")

    def of(function, *arguments):
        before = counted.now()
        function(*arguments)
        return {name: after - before[name] for name, after in counted.now().items()}
    return of
