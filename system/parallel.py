"""The processes of one run: mpirun starts them, Jittor's MPI joins them.

    mpirun --bind-to none -np N python train.py …
    mpirun --bind-to none -np N python test.py …

Each process does its share of the work; the first alone speaks and writes results. They share
their files, so on several machines the folders must be the same ones. Without mpirun there is one
process, and everything here is trivial.

Importing this needs nothing but Python; what calls MPI needs `system.runtime.prepare` before it.
"""

import contextlib
import os
import signal
import sys
import time
import warnings

# How long the first process has to tell a mistake that all of them have met.
_FIRST_TELLS_S = 3.0


def size():
    """How many processes run together."""
    return int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))


def rank():
    """This process's number, from 0."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", 0))


def is_first():
    """Whether this is the process that speaks and writes."""
    return rank() == 0


def local_size():
    """How many of the processes run on this machine."""
    return int(os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", 1))


def environment_alone():
    """The environment for a child that is no process of the run."""
    return {**{name: value for name, value in os.environ.items()
               if not name.startswith(("OMPI_", "PMIX_"))}, "use_mpi": "0"}


def own_slice(n):
    """The rows of n, as a slice, that this process works on; none where n is too small."""
    return slices(n, size())[rank()]


def slices(n, k):
    """The rows of n as k slices, one after the other and as even as can be."""
    each, more = divmod(n, k)
    ends = [i * each + min(i, more) for i in range(k + 1)]
    return [slice(start, end) for start, end in zip(ends, ends[1:])]


def sum_all(array):
    """The sum of an array over the processes, the same bytes in each of them.

    Args:
        array: float32 or int32, of the same shape in every process, each of which must call this.
    """
    if size() == 1 or array.size == 0:
        return array
    import jittor as jt
    with jt.flag_scope(use_cuda=0):  # MPI sums in the machine's memory, not in the GPU's
        total = jt.array(array)
        total.sync()
        jt.mpi.var_reduce(total)
        jt.mpi.var_broadcast(total)
        return total.numpy()


def gather(rows, n):
    """What each process has made of its `share` of n, put together in all: (…) -> (n, …)."""
    import numpy as np
    whole = np.zeros((n, *rows.shape[1:]), rows.dtype)
    whole[own_slice(n)] = rows
    return sum_all(whole)


def from_first(array):
    """The first process's array, int32, in all of them."""
    return sum_all(array * int(is_first()))


def barrier():
    """Wait until all processes are here."""
    if size() > 1:
        import jittor as jt
        jt.mpi.mpi_barrier()


def first_then_others(work):
    """`work()` in the first process, and when it is done there, in the others."""
    if not is_first():
        barrier()
    result = work()
    if is_first():
        barrier()
    return result


def let_first_speak():
    """Silence the other processes, but for what only they know: `own_work` and `end`."""
    if not is_first():
        sys.stdout = sys.stderr = open(os.devnull, "w")


@contextlib.contextmanager
def own_work():
    """Show the warnings of what no other process does, in this process too."""
    if is_first():
        yield
        return
    show = warnings.showwarning

    def show_really(message, category, *place, **_):
        sys.__stderr__.write(warnings.formatwarning(message, category, *place[:2]))

    warnings.showwarning = show_really
    try:
        yield
    finally:
        warnings.showwarning = show


def end(line, code):
    """End this process in a way that has mpirun end the others.

    MPI's own ending would wait for them, and they may be waiting for this one. A mistake that all
    have met is told by the first: it has ended the others before they speak.
    """
    if not is_first():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_FIRST_TELLS_S)
    print(line, file=sys.__stderr__, flush=True)
    sys.stdout.flush()
    os._exit(code)
