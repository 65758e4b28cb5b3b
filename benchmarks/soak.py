"""Trains and tests on the sample set again and again, and watches what that leaves behind.

    python benchmarks/soak.py [--minutes 30] [key=value …]

A row a round: seconds, peak memory of both scripts, the most file handles that either had open,
files in the run's folders, temporary files beside them, and whether result.txt is the first
round's; where it is not, the exit code is 1.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = (["train.py", "--restart"], ["test.py", "--restart", "--output", "{folder}/result.txt"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    print("| round | s | train.py, MiB | test.py, MiB | handles | files | temporary | result |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- |")
    end, first, number = time.time() + 60 * arguments.minutes, None, 0
    with tempfile.TemporaryDirectory() as folder:
        temporary = os.path.join(folder, "tmp")
        os.mkdir(temporary)
        settings = ["--config", "configs/sample.yaml", f"output.checkpoint_dir={folder}/weights",
                    f"output.cache_dir={folder}/cache", *arguments.overrides]
        while time.time() < end:
            number, start = number + 1, time.time()
            peaks, handles = zip(*(
                run([part.format(folder=folder) for part in script] + settings, temporary)
                for script in SCRIPTS))
            with open(f"{folder}/result.txt", "rb") as file:
                result = file.read()
            first = first or result
            n_files = sum(len(files) for _, _, files in os.walk(folder))
            print(f"| {number} | {time.time() - start:.0f} | {peaks[0]:.0f} | {peaks[1]:.0f} | "
                  f"{max(handles)} | {n_files} | {len(os.listdir(temporary))} | "
                  f"{'the same' if result == first else 'another'} |", flush=True)
            if result != first:
                sys.exit("two runs with one seed gave different results")


def run(command, temporary):
    """Run a script to its end: its peak memory in MiB, and the most file handles it had."""
    child = subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": temporary})
    handles = 0
    while True:
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            break
        try:
            handles = max(handles, len(os.listdir(f"/proc/{child.pid}/fd")))
        except OSError:  # it has just ended
            pass
        time.sleep(0.2)
    if status:
        sys.exit(f"{command[0]} ended with status {status}")
    return usage.ru_maxrss / 1024, handles


if __name__ == "__main__":
    main()
