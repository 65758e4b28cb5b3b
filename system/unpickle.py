"""Reads pickles of arrays and plain containers without running anything from them.

A pickle is a program: it can name any function and call it. `load` is Python's own unpickler
with a few of its instructions narrowed. A name is looked up in a short list of our own
stand-ins, never in a module; only those can be called, and only what they made can be given a
state. The stand-ins for arrays take the bytes that are in the file, so that a shape cannot ask
for memory that the file does not fill. Python's version of the unpickler is used, not C's: its
memo is a dict, which a hostile index cannot make large.

Where a file may hold more than what is wanted of it, as others' checkpoints do (an
argparse.Namespace, an optimizer's state), `StandInUnpickler` can put a `Foreign` in the place of
each thing that is not admitted: its name, of which nothing is run either.
"""

import collections
import math
import pickle
import re

import numpy as np

_DEEPEST = 100
_SIMPLE_DTYPE = re.compile(r"[<>=|]?(f[248]|[iu][1248]|b1|\?|[bBhHiIlLqQefd])$")


class Refused(Exception):
    """The pickle asks for something that is not admitted."""


class Foreign:
    """What a pickle asks for and is not admitted: by name, inert.

    Attributes:
        reason: why it is not admitted, after "it".
        name: the class or function that was asked for; None of a malformed array.
        content: what the pickle puts into it.
    """

    def __init__(self, reason, name=None):
        self.reason = reason
        self.name = name
        self.content = []

    def take(self, *content):
        self.content.extend(content)

    # By these an unpickler fills what it has made: lists, dicts, sets, objects.
    append = add = __setstate__ = __setitem__ = take

    def extend(self, items):
        self.take(*items)


def foreign_in(value):
    """Each `Foreign` in a value of plain containers."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Foreign):
            yield part
        elif isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            waiting += part.values() if isinstance(part, dict) else part


class _DType:
    """Stand-in for `numpy.dtype`: numbers and booleans alone."""

    def __init__(self, code="f4", *_):
        if not isinstance(code, str) or not _SIMPLE_DTYPE.match(code):
            raise Refused(f"it has an array of {str(code)[:40]!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise Refused("it has a malformed dtype")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


class StandInArray:
    """Stand-in for `numpy.ndarray`: filled by `__setstate__`, as NumPy's pickles are."""

    value = None

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("it has a malformed array")
        _, shape, dtype, fortran, content = state
        self.value = _filled(content, dtype, shape, "F" if fortran else "C")


def _filled(content, dtype, shape, order="C"):
    """An array over bytes of the file."""
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, _DType):
        raise Refused("it has an array of something else than bytes")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise Refused(f"it has an array of shape {str(shape)[:60]}")
    if math.prod(shape) * dtype.dtype.itemsize != len(content):
        raise Refused(f"it has an array of shape {shape} with {len(content)} bytes")
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)


def _reconstruct(kind=None, *_):
    if kind is not StandInArray:
        raise Refused("it has a malformed array")
    return StandInArray()


def _scalar(dtype=None, content=b""):
    return _filled(content, dtype, ())[()]


def _frombuffer(content=b"", dtype=None, shape=(), order="C"):
    if order not in ("C", "F"):
        raise Refused("it has a malformed array")
    array = StandInArray()
    array.value = _filled(bytes(content), dtype, shape, order)
    return array


def _encode(text="", encoding="latin1"):
    """How pickles of protocol 2 write bytes."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise Refused(f"it asks for the encoding {str(encoding)[:40]!r}")
    return text.encode("latin1")


def _no_bytes():
    """How pickles of protocol 2 write bytes of length 0."""
    return b""


def _jittor_var(array=None, *_):
    """How `jt.save` writes Jittor's own arrays."""
    if not isinstance(array, StandInArray):
        raise Refused("it has a malformed array")
    return array


def _ordered_dict(*items):
    return collections.OrderedDict(*items)


ADMITTED = {"collections.OrderedDict": _ordered_dict, "_codecs.encode": _encode,
             "__builtin__.bytes": _no_bytes,
             "numpy.dtype": _DType, "numpy.ndarray": StandInArray,
             "jittor.jittor_core.Var": _jittor_var, "jittor_core.Var": _jittor_var}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    ADMITTED[f"{_core}.multiarray._reconstruct"] = _reconstruct
    ADMITTED[f"{_core}.multiarray.scalar"] = _scalar
    ADMITTED[f"{_core}.numeric._frombuffer"] = _frombuffer


class StandInUnpickler(pickle._Unpickler):
    """Python's unpickler over an allow-list of stand-ins.

    Args:
        file: binary file at the pickle's start.
        admitted: {full name: stand-in}.
        foreign: a list, which gets each `Foreign` that is put in the place of something that is
            not admitted; None refuses that.
    """

    dispatch = dict(pickle._Unpickler.dispatch)
    stateful = (_DType, StandInArray, Foreign)  # what may be given a state

    def __init__(self, file, admitted, foreign=None):
        super().__init__(file)
        self.admitted = admitted
        self.foreign = foreign

    def load(self):
        value = super().load()
        self.memo.clear()  # it would keep every array for as long as this object lives
        return value

    def find_class(self, module, name):
        full_name = f"{module}.{name}"
        if full_name in self.admitted:
            return self.admitted[full_name]
        return self._not_admitted(f"it asks for {ascii(full_name[:80])}", full_name)

    def _not_admitted(self, reason, name=None):
        if self.foreign is None:
            raise Refused(reason)
        self.foreign.append(Foreign(reason, name))
        return self.foreign[-1]

    def load_reduce(self):
        arguments = self.stack.pop()
        function = self.stack[-1]
        if isinstance(function, Foreign):  # an object of a class that is not admitted
            self.stack[-1] = made = Foreign(function.reason, function.name)
            made.take(*arguments)
            return
        if not any(function is admitted for admitted in self.admitted.values()):
            raise Refused(f"it calls a {type(function).__name__}")
        try:
            self.stack[-1] = function(*arguments)
        except Refused as error:
            self.stack[-1] = self._not_admitted(str(error))

    def load_newobj_ex(self):
        named = self.stack.pop()
        self.load_reduce()
        if not isinstance(self.stack[-1], Foreign):
            self.refuse()
        self.stack[-1].take(named)

    def load_build(self):
        state = self.stack.pop()
        if type(self.stack[-1]) is collections.OrderedDict:
            # Attributes of a state dict, such as PyTorch's _metadata, are not needed.
            self.stack[-1] = next(foreign_in(state), self.stack[-1])
            return
        if not isinstance(self.stack[-1], self.stateful):
            raise Refused(f"it gives a state to a {type(self.stack[-1]).__name__}")
        try:
            self.stack[-1].__setstate__(state)
        except Refused as error:
            self.stack[-1] = self._not_admitted(str(error))

    def refuse(self):
        raise Refused("it makes objects in a way that arrays do not need")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce  # our stand-ins are made by calling them
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    for _code in (pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2,
                  pickle.EXT4, pickle.PERSID, pickle.BINPERSID):
        dispatch[_code[0]] = refuse


def load(file):
    """The object in a pickle: arrays, numbers, strings, bytes and plain containers.

    Args:
        file: binary file at the pickle's start. Each array gets memory of its own, so that
            who takes them one by one can let go of each.

    Raises:
        Refused: it asks for anything else.
        Exception: of any kind, where the pickle is damaged.
    """
    return finished(StandInUnpickler(file, ADMITTED).load())


def finished(value, foreign=None):
    """What an unpickler made, with arrays in the place of their stand-ins.

    Args:
        value: of `StandInUnpickler.load`. foreign: that unpickler's.
    """
    return _with_arrays(value, {}, foreign is not None)


def _with_arrays(value, done, keeps_foreign, depth=0):
    """The value with arrays in the place of their stand-ins.

    Args:
        value: what the unpickler made.
        keeps_foreign: whether what is no array may stay, as `Foreign`.
        done: {id: (original, result)} of what was met before: shared parts stay shared, and
            a structure that holds itself ends.
        depth: how many containers it is in.
    """
    if depth > _DEEPEST:
        raise Refused(f"its containers are nested more than {_DEEPEST} deep")
    array = value.value if isinstance(value, StandInArray) else None
    if array is not None:
        return array
    if isinstance(value, (StandInArray, _DType)) or callable(value):
        reason = ("it has an array without content" if isinstance(value, StandInArray)
                  else "it holds something that is no array")
        if not keeps_foreign:
            raise Refused(reason)
        return Foreign(reason)
    if not isinstance(value, (list, tuple, dict)):
        return value
    if id(value) in done:
        return done[id(value)][1]
    if isinstance(value, dict):
        result = type(value)()
        done[id(value)] = value, result
        for key, item in value.items():
            result[key] = _with_arrays(item, done, keeps_foreign, depth + 1)
        return result
    result = []
    done[id(value)] = value, result
    result.extend(_with_arrays(item, done, keeps_foreign, depth + 1) for item in value)
    if isinstance(value, tuple):
        result = tuple(result)
        done[id(value)] = value, result
    return result
