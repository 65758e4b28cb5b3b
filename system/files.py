"""Reads and writes `.pkl` files of arrays and plain containers.

Jittor's own files end in a SHA-1 of the pickle and eight marker bytes; they are written so and
checked so here. What a pickle may hold is decided in `system.unpickle`.
"""

import contextlib
import glob
import hashlib
import os
import pickle

from system import unpickle
from system.errors import DamagedFile, UserError

JITTOR_MARKER = b"HCAJSLHD"
_TRAILER_BYTES = 20 + len(JITTOR_MARKER)


def read_pickle(path, load=unpickle.load):
    """The object in a `.pkl` file: arrays, numbers, strings, lists, tuples, dicts.

    Args:
        path: a plain pickle, or Jittor's (`jt.save`) with its checksum.
        load: function of a binary file at the pickle's start; what it admits decides.

    Raises:
        DamagedFile: a file that is not whole.
        UserError: no such file, or one that asks for code to be run.
    """
    try:
        with open(path, "rb") as file:
            _check_sum(path, file)
            return load(file)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except unpickle.Refused as error:
        raise UserError(f"{path} is refused: {error}") from error
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise DamagedFile(f"{path} is not a readable .pkl file ({type(error).__name__}); "
                          "get it again") from error


def _check_sum(path, file):
    """Hold the content against the checksum at the file's end, where there is one."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _TRAILER_BYTES))
    trailer = file.read()
    file.seek(0)
    if not trailer.endswith(JITTOR_MARKER):
        return
    checksum, left = hashlib.sha1(), length - _TRAILER_BYTES
    while left > 0:
        block = file.read(min(left, 1 << 20))
        checksum.update(block)
        left -= len(block)
    file.seek(0)
    if checksum.digest() != trailer[:-len(JITTOR_MARKER)]:
        raise DamagedFile(f"{path} is damaged (its checksum does not match); get it again")


def write_pickle(path, content):
    """Write arrays and plain containers as Jittor does (`jt.load` reads it), atomically."""
    body = pickle.dumps(content, protocol=4)
    write_atomically(path, body + hashlib.sha1(body).digest() + JITTOR_MARKER)


def write_atomically(path, content):
    """Write bytes to a temporary name beside `path`, sync, and rename it to `path`."""
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    _remove_leftovers(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
    entries = os.open(folder, os.O_RDONLY)  # the new name is to survive a power cut too
    try:
        os.fsync(entries)
    finally:
        os.close(entries)


def _remove_leftovers(path):
    """Remove the temporary files of processes that were killed while they wrote `path`."""
    for temporary in glob.glob(f"{glob.escape(path)}.*.tmp"):
        pid = temporary[len(path) + 1:-len(".tmp")]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
