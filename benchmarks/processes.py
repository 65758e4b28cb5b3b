"""Seconds with several processes, against one; needs OpenMPI (docs/scale.md).

    python benchmarks/processes.py [N …]
    mpirun --bind-to none -np N python benchmarks/processes.py step

The first: a short train.py and test.py on the sample set, with each number of processes in turn,
a first time so that all kernels are compiled. Prints their seconds, the processor's in all
processes, the largest difference of LoRA's weights from those of the first number, and how many
lines of result.txt are others. The second: a training step of ViT-B/32 with 374 classes and 32
images (benchmarks/pairs.py), with and without dropout, likewise, and the first process's peak
memory.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import parallel, runtime

runtime.prepare()

import numpy as np

from benchmarks import ours
from benchmarks.pairs import TRAINING
from configs import SAMPLE
from system.files import read_pickle
from tests.workplace import mpirun

REPEATS = 2
SHORT = ("train.epochs=3", "prompt.epochs=2", "head.views=4", "mta.views=4")


def scripts(numbers):
    """Print what the first command tells."""
    seconds, lora, lines = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 + REPEATS):
            for n in numbers:
                output = f"{folder}/{n}.txt"
                for script, *more in (["train.py"], ["test.py", "--output", output]):
                    took = run(n, script, "--config", SAMPLE, "--restart", *more, *SHORT,
                               f"output.checkpoint_dir={folder}/{n}",
                               f"output.cache_dir={folder}/{n}/cache")
                    if turn:
                        seconds.setdefault((script, n), []).append(took)
                lora[n] = read_pickle(f"{folder}/{n}/prompt_lora.pkl")["lora"]
                with open(output) as file:
                    lines[n] = file.readlines()
    for (script, n), times in sorted(seconds.items()):
        print(f"{script}, {n} processes: "
              + ", ".join(f"{took:.1f} s (the processor's {of_all:.1f})" for took, of_all in times))
    first, *others = numbers
    for n in others:
        largest = max(np.abs(lora[n][name] - lora[first][name]).max() for name in lora[first])
        unlike = sum(line != other for line, other in zip(lines[n], lines[first]))
        print(f"{n} processes: LoRA's weights differ by {largest:.1e} at most, "
              f"{unlike} of {len(lines[n])} lines")


def run(n, *command):
    """Run a script with n processes to its end; its seconds, and the processor's in all."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*([] if n == 1 else mpirun(n)), sys.executable, *command], cwd=ROOT,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    took, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def step():
    """Print what the second command tells."""
    for dropout in (0.0, 0.25):
        work = ours.training_step(TRAINING, None, dropout)
        work.run()
        times, processor = [], time.process_time()
        for _ in range(REPEATS):
            start = time.perf_counter()
            work.run()
            times.append(time.perf_counter() - start)
        processor = (time.process_time() - processor) / REPEATS
        processor = parallel.sum_all(np.array([processor], np.float32))[0]
        if parallel.is_first():
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** 20
            print(f"{parallel.size()} processes, dropout {dropout}: a step "
                  f"{', '.join(f'{took:.1f}' for took in times)} s, the processor's "
                  f"{processor:.1f} s, peak {peak:.2f} GiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["step"]:
        step()
    else:
        scripts([int(word) for word in sys.argv[1:]] or [1, 2])
