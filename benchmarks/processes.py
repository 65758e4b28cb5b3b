"""Seconds of train.py and test.py with several processes, against one.

    python benchmarks/processes.py [--config configs/sample.yaml] [N …]

Needs OpenMPI (docs/scale.md). Each number of processes trains stage 1 and tests in folders of its
own, a first time so that all kernels are compiled; then all numbers take turns. Prints the times
of each, the largest difference of the weights from those that one process has made, and how many
of the images' lines in result.txt are others.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from configs import SAMPLE
from models.jclip.weights import read_pickle
from tests.workplace import mpirun

REPEATS = 2
SHORT = ("train.epochs=3", "prompt.epochs=2")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default=SAMPLE)
    parser.add_argument("numbers", nargs="*", type=int, default=[1, 2])
    arguments = parser.parse_args()
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 + REPEATS):
            for n in arguments.numbers:
                for script, *more in (("train.py",), ("test.py", "--output", f"{folder}/{n}.txt")):
                    took = run(n, script, "--config", arguments.config, *more, *SHORT,
                               f"output.checkpoint_dir={folder}/{n}",
                               f"output.cache_dir={folder}/{n}/cache", "--restart")
                    if turn:
                        seconds.setdefault((script, n), []).append(took)
        for (script, n), times in sorted(seconds.items()):
            print(f"{script}, {n} processes: {', '.join(f'{took:.1f}' for took in times)} s")
        first = arguments.numbers[0]
        for n in arguments.numbers[1:]:
            ours, expected = (read_pickle(f"{folder}/{m}/prompt_lora.pkl")["lora"]
                              for m in (n, first))
            largest = max(np.abs(ours[name] - expected[name]).max() for name in expected)
            lines, theirs = (open(f"{folder}/{m}.txt").readlines() for m in (n, first))
            others = sum(line != their for line, their in zip(lines, theirs))
            print(f"{n} processes: LoRA's weights differ by {largest:.1e} at most, "
                  f"{others} of {len(lines)} lines")


def run(n, *command):
    """Seconds of a script with n processes."""
    start = time.perf_counter()
    done = subprocess.run([*([] if n == 1 else mpirun(n)), sys.executable, *command], cwd=ROOT,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
