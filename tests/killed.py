"""Runs one of the scripts and kills it, as a power cut would, inside the writing of a file.

    python -m tests.killed N MOMENT train.py …

N counts the files that `write_atomically` writes, from 1. MOMENT is 'half' (half of the temporary
file is on disk), 'whole' (all of it, not yet renamed) or 'renamed'.
"""

import os
import runpy
import signal
import sys

from system import files


def main():
    number, moment, script, *arguments = sys.argv[1:]
    left, renamed = [int(number)], [False]

    class Disk:
        """`os` with a power cut in it."""

        def __getattr__(self, name):
            return getattr(os, name)

        def fsync(self, file):
            if not renamed[0]:  # of the temporary file, not of its folder
                left[0] -= 1
                if left[0] == 0 and moment == "half":
                    os.ftruncate(file, os.fstat(file).st_size // 2)
                    cut()
            os.fsync(file)
            renamed[0] = False

        def replace(self, source, target):
            if left[0] == 0 and moment == "whole":
                cut()
            os.replace(source, target)
            if left[0] == 0:
                cut()
            renamed[0] = True

    def cut():
        os.kill(os.getpid(), signal.SIGKILL)

    files.os = Disk()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
