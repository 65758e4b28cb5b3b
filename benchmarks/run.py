"""Speed of this project against PyTorch on this machine: pairs of the same work, run in turn.

    python benchmarks/run.py [NAME …] [--pairs 5] [--reference-python PATH] [--threads 2]
        [--json FILE] [--quick] [--size KEY=VALUE …] [--device cpu|cuda] [--list]
        [--precision float32|bfloat16] [--library pytorch|torch.compile|openvino|onnxruntime]

benchmarks/README.md says what each pair is, how to set up PyTorch's side, and what the numbers
mean. A pair whose results differ by more than its tolerance is not timed, and the exit code is 1.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np
from tqdm import tqdm, trange

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from benchmarks.pairs import BFLOAT16_TOLERANCE, PAIRS
from system.errors import UserError, run_script

TABLE = """
| pair | target | times as fast | spread | pairs | ours, ms | PyTorch, ms | share of limit |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def main():
    arguments = parse()
    if arguments.list:
        for name, pair in PAIRS.items():
            print(f"{name:<14} at least {pair.target}x   {sizes_text(pair.sizes)}")
        return
    chosen = {name: sizes_of(name, arguments) for name in arguments.names or PAIRS}
    environment = {
        **os.environ, "BENCHMARK_DEVICE": arguments.device,
        "BENCHMARK_PRECISION": arguments.precision, "BENCHMARK_LIBRARY": arguments.library,
        **{f"{kind}_NUM_THREADS": str(arguments.threads) for kind in ("OMP", "OPENBLAS", "MKL")}}
    sides = {"ours": [sys.executable, "-m", "benchmarks.ours"],
             "reference": [reference_python(arguments), "-m", "benchmarks.reference"]}
    workers = {side: Worker(side, command, environment) for side, command in sides.items()}
    try:
        report = {"machine": machine(), "threads": arguments.threads, "device": arguments.device,
                  "precision": arguments.precision, "library": arguments.library, "pairs": [],
                  **limits(workers, repeats=2 if arguments.quick else 5)}
        print(f"{report['machine']}\n{report['ours']}\n{report['reference']}\nlimit: "
              f"{report['limit']:.0f} GFLOP/s, {report['limit_by']}\n{TABLE}", flush=True)
        for name, sizes in chosen.items():
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(name, sizes, workers, folder, arguments)
            print(row(measured, report["limit"]), flush=True)
            report["pairs"].append(measured)
            write(arguments.json, report)
    finally:
        for worker in workers.values():
            worker.end()
    if not all(measured["counts"] for measured in report["pairs"]):
        sys.exit(1)


def parse():
    """The command line's arguments, checked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="pairs; by default all")
    parser.add_argument("--pairs", type=int, default=5, help="how often each side runs")
    parser.add_argument("--reference-python", metavar="PATH", help="interpreter with PyTorch; by "
                        "default $REFERENCE_PYTHON, else .venv-reference/bin/python")
    parser.add_argument("--threads", type=int, default=2, help="of either side")
    parser.add_argument("--json", metavar="FILE", help="also write everything measured to it")
    parser.add_argument("--quick", action="store_true", help="small sizes: only try that it runs")
    parser.add_argument("--size", action="append", default=[], metavar="KEY=VALUE",
                        help="another size in all chosen pairs, as in --size images=50")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32",
                        help="of both sides' products; bfloat16 for the encoders and training")
    parser.add_argument("--library", default="pytorch", choices=(
        "pytorch", "torch.compile", "openvino", "onnxruntime"), help="the other side's, in image-…")
    parser.add_argument("--list", action="store_true", help="the pairs and their sizes")
    arguments = parser.parse_intermixed_args()
    unknown = [name for name in arguments.names if name not in PAIRS]
    if unknown:
        raise UserError(f"no pair {unknown[0]!r}; there are {', '.join(PAIRS)}")
    if arguments.pairs < 1 or arguments.threads < 1:
        raise UserError("--pairs and --threads must be at least 1")
    return arguments


def reference_python(arguments):
    """The interpreter of PyTorch's side.

    Raises:
        UserError: there is none.
    """
    path = (arguments.reference_python or os.environ.get("REFERENCE_PYTHON")
            or os.path.join(ROOT, ".venv-reference", "bin", "python"))
    found = shutil.which(path)
    if found is None:
        raise UserError(f"no interpreter for PyTorch's side at {path}; set it up as "
                        "benchmarks/README.md says, or name one with --reference-python")
    return os.path.abspath(found)


def sizes_of(name, arguments):
    """A pair's sizes as the command line wants them."""
    pair = PAIRS[name]
    sizes = {**pair.sizes, **(pair.quick if arguments.quick else {})}
    for setting in arguments.size:
        key, _, value = setting.partition("=")
        if key not in sizes:
            raise UserError(f"--size {setting}: {name} has the sizes {', '.join(sizes)}")
        try:
            sizes[key] = type(sizes[key])(value)
        except ValueError:
            raise UserError(f"--size {setting}: {key} is a whole number") from None
    return sizes


def sizes_text(sizes):
    return ", ".join(f"{key} {value}" for key, value in sizes.items())


class Worker:
    """A side's process; see benchmarks/worker.py for the commands it takes.

    Args:
        side: its name, for messages.
        command: list of its words.
        environment: dict.
    """

    def __init__(self, side, command, environment):
        self.side = side
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, do, **more):
        """The answer to a command.

        Raises:
            UserError: the worker failed; it has said on stderr how.
        """
        try:
            print(json.dumps({"do": do, **more}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UserError(f"the process of the side '{self.side}' ended with code "
                            f"{self.process.wait()}; what it said is above")
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"the side '{self.side}' failed at {do} {more.get('name', '')}: "
                            f"{answer['error']}")
        return answer

    def end(self):
        """Let the process end, and wait for it."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already
        self.process.wait()


def machine():
    """The processor's name and number of cores."""
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def limits(workers, repeats):
    """What computes on either side, and the best rate of a matrix product.

    Returns:
        dict with 'ours' and 'reference' (texts), 'limit' (GFLOP/s), 'limit_by' (where) and all
        'rates'.
    """
    report = {side: worker.ask("about")["about"] for side, worker in workers.items()}
    rates = {f"{name} ({side})": rate for side, worker in workers.items()
             for name, rate in worker.ask("rates", repeats=repeats)["rates"].items()}
    best = max(rates, key=rates.get)
    return {**report, "limit": rates[best], "limit_by": best, "rates": rates}


def measure(name, sizes, workers, folder, arguments):
    """Prepare, compare and time one pair.

    Args:
        name: of the pair.
        sizes: {name: value}.
        workers: {'ours': `Worker`, 'reference': `Worker`}, asked in this order.
        folder: where the sides write.
        arguments: the command line's.

    Returns:
        dict of everything measured.
    """
    pair = PAIRS[name]
    measured = {"name": name, "sizes": sizes, "target": pair.target, "unit": pair.unit,
                "tolerance": (pair.tolerance if arguments.precision == "float32"
                              else BFLOAT16_TOLERANCE)}
    results = {}
    for side, worker in tqdm(workers.items(), f"{name}, first run", unit="side"):
        answer = worker.ask("prepare", name=name, sizes=sizes, folder=folder)
        measured.setdefault("flops", answer["flops"])  # ours comes first
        path = os.path.join(folder, f"{side}.npz")
        worker.ask("check", name=name, path=path)
        with np.load(path) as arrays:
            results[side] = dict(arrays)
    measured["difference"] = difference(pair, **results)
    measured["counts"] = measured["difference"] <= measured["tolerance"]
    if measured["counts"]:
        for worker in workers.values():
            for _ in range(pair.warm_ups):
                worker.ask("time")
        seconds = {side: [] for side in workers}
        for _ in trange(arguments.pairs, desc=name, unit="pair"):
            for side, worker in workers.items():
                seconds[side].append(worker.ask("time", name=name)["seconds"])
        measured["seconds"] = seconds
        measured["ratios"] = [b / a for a, b in zip(seconds["ours"], seconds["reference"])]
    for worker in workers.values():
        worker.ask("release")
    return measured


def difference(pair, ours, reference):
    """`pair.difference` as a float; infinite where names or shapes are not the same."""
    shapes = [{name: array.shape for name, array in side.items()} for side in (ours, reference)]
    if shapes[0] != shapes[1]:
        unlike = sorted(dict(shapes[0].items() ^ shapes[1].items()))
        print(f"results are not of the same names and shapes: {', '.join(unlike)}",
              file=sys.stderr)
        return float("inf")
    value = float(pair.difference(ours, reference))
    return value if value == value else float("inf")  # NaN is no agreement


def row(measured, limit):
    """A row of the table."""
    name, target = measured["name"], measured["target"]
    if not measured["counts"]:
        return (f"| {name} | {target} | does not count: results differ by "
                f"{measured['difference']:.1e} {measured['unit']}, more than "
                f"{measured['tolerance']:.0e} | | | | | |")
    ratios, seconds = measured["ratios"], measured["seconds"]
    ours, reference = (statistics.median(seconds[side]) for side in ("ours", "reference"))
    share = f"{100 * measured['flops'] / ours / 1e9 / limit:.0f} %" if measured["flops"] else "–"
    return (f"| {name} | {target} | {statistics.median(ratios):.2f} | {min(ratios):.2f} … "
            f"{max(ratios):.2f} | {len(ratios)} | {1000 * ours:.1f} | {1000 * reference:.1f} | "
            f"{share} |")


def write(path, report):
    """The report as JSON, if a file is wanted."""
    if path:
        with open(path, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    run_script(main)
