"""Keeps two runs from writing the same output."""

import contextlib
import fcntl
import os

from system import parallel
from system.errors import UserError


@contextlib.contextmanager
def output_lock(path):
    """Hold the lock of an output; released when the process ends, however it ends.

    The first of several processes holds it for all.

    Args:
        path: the lock file. It holds the process's number and is removed at the end, with its
            folder where that is still as empty as it was made; one that a killed process left
            is taken over.

    Raises:
        UserError: another run holds it.
    """
    if not parallel.is_first():
        yield
        return
    folder = os.path.dirname(os.path.abspath(path))
    made = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    file = _locked(path)
    try:
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):  # the folder may have vanished
            os.remove(path)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(folder)
        file.close()


def _locked(path):
    while True:
        file = open(path, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise UserError(f"process {holder} is writing the same output and holds {path}; wait "
                            "until it has ended, or name another output") from None
        # The last holder may have removed the file after it was opened here.
        if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            return file
        file.close()
