"""How much memory is free, so that a batch is chosen that fits.

Jittor ends the process where memory runs out, so it has to be known before.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

from system import parallel
from system.runtime import gpu_is_used

# Of what is free, the share that one pass may plan with.
USABLE = 0.8
_CGROUPS = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes",
             "/sys/fs/cgroup/memory/memory.usage_in_bytes"))


def free_memory():
    """Bytes that this process can still take: the GPU's where one computes, else the machine's,
    its container's or its own limit."""
    if gpu_is_used():
        return _of_gpu()
    free = [_of_machine(), _of_address_space()]
    free += [limit - used for limit, used in map(_of_cgroup, _CGROUPS) if limit is not None]
    return max(0, min(free))


def fitting(n, bytes_each, what):
    """n, halved until n pieces of `bytes_each` bytes fit into the free memory; at least 1.

    The processes of one run share a machine's memory, or its GPU's, evenly.

    Args:
        n: pieces that are worked on at once.
        bytes_each: what each takes at most.
        what: a piece's name in the plural, for the line on stderr that tells of the halving.
    """
    sharing = parallel.local_size()
    if gpu_is_used() and os.environ.get("CUDA_VISIBLE_DEVICES", ",").isdigit():
        sharing = 1  # a GPU each
    free, fits = USABLE * free_memory() / sharing, n
    while fits > 1 and fits * bytes_each > free:
        fits = (fits + 1) // 2
    if fits < n:
        print(f"{free / 2**30:.1f} GB of memory are free: {fits} {what} at a time instead of "
              f"{n}; the result stays the same", file=sys.stderr, flush=True)
    return fits


def _of_gpu():
    import jittor as jt
    jt.gc()  # gives back what Jittor keeps for arrays to come
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    ctypes.CDLL(None).cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
    return free.value


def _of_machine():
    with open("/proc/meminfo") as file:
        values = dict(line.split(":") for line in file)
    return int(values["MemAvailable"].split()[0]) * 1024


def _of_address_space():
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    with open("/proc/self/statm") as file:
        return limit - int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _of_cgroup(paths):
    """(limit, used) in bytes; (None, None) without a limit."""
    try:
        limit, used = (Path(path).read_text().strip() for path in paths)
    except OSError:
        return None, None
    return (None, None) if limit == "max" else (int(limit), int(used))
