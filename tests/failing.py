"""Runs one of the scripts as `mpirun` does, of which one process fails.

    mpirun … python -m tests.failing RANK NUMBER HOW python train.py …

The process of that rank fails at the NUMBER-th image it reads, from 1. HOW is 'mistake' (one of a
user's), 'crash' (an exception that none foresaw) or 'kill'.
"""

import os
import runpy
import signal
import sys

from data.views import Views
from system import parallel
from system.errors import UserError


def main():
    rank, number, how, _, script, *arguments = sys.argv[1:]
    read, left = Views.plan, [int(number)]

    def fail_at_last(views, *image):
        left[0] -= 1
        if left[0] == 0:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"mistake": UserError, "crash": RuntimeError}[how]("a process has failed")
        return read(views, *image)

    if parallel.rank() == int(rank):
        Views.plan = fail_at_last
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
