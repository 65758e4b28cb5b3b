"""What each part adds, over seeds: trains and tests with several, and prints the mean table.

    python benchmarks/ablation.py --config configs/sample.yaml [--labels LABELS]
        --seeds 1 2 3 [key=value …]

Each seed chooses other shots. LABELS is a file with lines 'image label' for data.test_dir; by
default the config's data.labels.
Checkpoints go to a folder for each seed below --work-dir, so a run that was stopped goes on.
"""

import argparse
import os
import re
import subprocess
import sys
import time

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--labels", help="by default the config's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--work-dir", default="cache/ablation")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()

    tables, lines, minutes = [], [], []
    for seed in arguments.seeds:
        folder = os.path.join(arguments.work_dir, f"seed_{seed}")
        settings = ["--config", arguments.config, f"seed={seed}",
                    f"output.checkpoint_dir={folder}", f"output.cache_dir={folder}",
                    *arguments.overrides]
        start = time.time()
        if not os.path.exists(os.path.join(folder, "head.pkl")):
            run("train.py", *settings)
            minutes.append((time.time() - start) / 60)
        labels = ["--labels", arguments.labels] if arguments.labels else []
        output = run("test.py", *settings, *labels, "--ablate", "--output",
                     os.path.join(folder, "result.txt"))
        report, _, table = output.partition("\npart ")
        lines += [f"seed {seed}: {line}" for line in report.splitlines()
                  if re.match(r"base/new|harmonic|all|base|new", line)]
        tables.append({name: numbers for name, numbers in map(parse, table.splitlines()[1:])})
    print("| part | base top-1 | new top-1 | base of all | new of all | H |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in tables[0]:
        values = np.array([table[name] for table in tables])
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(
            values.mean(axis=0), values.std(axis=0))]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\nbase top-1, seed by seed:")
    for name in tables[0]:
        print(f"  {name:<24}" + "".join(f"{table[name][0]:8.2f}" for table in tables))
    print(*lines, sep="\n")
    if minutes:
        print(f"train.py: {', '.join(f'{m:.1f}' for m in minutes)} minutes")


def run(script, *arguments):
    """A script's standard output; its failure ends the benchmark."""
    done = subprocess.run([sys.executable, os.path.join(ROOT, script), *arguments], cwd=ROOT,
                          stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{script} ended with code {done.returncode}")
    return done.stdout


def parse(line):
    """('+ head', [21.5, …]) of a row of test.py's table."""
    match = re.match(r"(.*?)((?:\s+[\d.]+){5})$", line)
    return match.group(1).strip(), [float(number) for number in match.group(2).split()]


if __name__ == "__main__":
    main()
