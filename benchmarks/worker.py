"""The loop of a worker process of benchmarks/run.py: commands in, answers out, each a line of JSON.

Both sides run it, so it needs nothing but NumPy. A command is {"do": …} with:

    about                          what computes here, in words
    rates, repeats                 matrix products' best rates: {name: GFLOP/s}
    prepare, name, sizes, folder   make a pair's work ready; answers its {"flops"}
    check, path                    write the work's results to `path`, an .npz file
    time                           do the work once: {"seconds"}
    release                        forget the work
"""

import gc
import json
import os
import sys
import time
import traceback
from typing import Callable, NamedTuple, Optional

import numpy as np

# Shapes (M, K, N) of the products whose best rate is the machine's limit.
PRODUCTS = ((1024, 1024, 1024), (2048, 2048, 2048), (4096, 768, 3072))


class Work(NamedTuple):
    """One side of a pair, ready to be timed.

    Attributes:
        run: does the work once and returns when its result is there.
        result: {name: array} to compare with the other side's.
        flops: floating-point operations that one run cannot do without, or None.
    """

    run: Callable
    result: Callable
    flops: Optional[float] = None


def take_stdout():
    """Keep stdout for answers: what libraries print goes to stderr from now on.

    Returns:
        the file for `serve`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def serve(answers, works, about, products):
    """Answer commands until stdin ends.

    Args:
        answers: `take_stdout`'s.
        works: {name: function (sizes, folder) -> `Work`}.
        about: text.
        products: {library: function of two float32 arrays that returns a function, which
            computes their matrix product}.
    """
    work = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if command["do"] == "about":
                answer = {"about": about}
            elif command["do"] == "rates":
                answer = {"rates": {
                    f"{library} {'x'.join(map(str, shape))}":
                        rate(product, *shape, command["repeats"])
                    for library, product in products.items() for shape in PRODUCTS}}
            elif command["do"] == "prepare":
                work = works[command["name"]](command["sizes"], command["folder"])
                answer = {"flops": work.flops}
            elif command["do"] == "check":
                np.savez(command["path"], **work.result())
                answer = {}
            elif command["do"] == "time":
                answer = {"seconds": seconds(work.run)}
            elif command["do"] == "release":
                work = None
                gc.collect()
                answer = {}
            else:
                raise ValueError(f"unknown command {command['do']!r}")
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def seconds(run):
    """How long one call takes; garbage is collected before it, not in it."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    finally:
        gc.enable()


def rate(product, M, K, N, repeats):
    """Best GFLOP/s of a product (M, K) x (K, N) over some calls after a first one."""
    random = np.random.RandomState(0)
    run = product(random.normal(size=(M, K)).astype(np.float32),
                  random.normal(size=(K, N)).astype(np.float32))
    return 2e-9 * M * K * N / min([seconds(run) for _ in range(1 + repeats)][1:])
