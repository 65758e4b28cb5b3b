"""Whether our own kernels, which are there for speed, change a label of test.py.

    python benchmarks/same_labels.py --config configs/photos.yaml data.test_dir=ValidSet

Takes test.py's arguments but --output; runs it with the kernels and with Jittor's own operations in
their place, and exits with 1 if a line of result.txt differs.
"""

import itertools
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLAIN = """
import runpy
from system import runtime
runtime.prepare()
from models import kernels
kernels.has_kernels = lambda: False  # before the modules that import it
runpy.run_path("test.py", run_name="__main__")
"""


def main():
    lines, plain = results(sys.argv[1:])
    unlike = sum(a != b for a, b in itertools.zip_longest(lines, plain))
    print(f"{unlike} of {len(lines)} lines differ")
    sys.exit(unlike > 0)


def results(arguments):
    """The lines of result.txt with our kernels and without, two lists.

    Raises:
        subprocess.CalledProcessError: test.py failed.
    """
    found = []
    for how in (["test.py"], ["-c", PLAIN]):
        with tempfile.TemporaryDirectory() as folder:
            output = os.path.join(folder, "result.txt")
            subprocess.run([sys.executable, *how, *arguments, "--output", output,
                            f"output.cache_dir={folder}"], cwd=ROOT, check=True)
            with open(output, encoding="utf-8") as file:
                found.append(file.read().splitlines())
    return found


if __name__ == "__main__":
    main()
