"""Writes the page of a run, or compares runs.

    python report.py RUN [--output RUN/report.html]
    python report.py A B … [--output comparison.html]

RUN, A and B are folders with what train.py and test.py left (a config's
output.checkpoint_dir). Runs whose settings differ in the seed alone count as one, with the mean
and the standard deviation over the seeds.
"""

import os
import sys

from configs.command_line import Parser
from runs.compare import format_comparison, read_groups, write_comparison
from runs.page import PAGE_NAME, write_run_page
from system.errors import run_script
from system.places import home, require_writable


def main():
    parser = Parser(__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=home, metavar="RUN", help="a run's folder")
    parser.add_argument("--output", type=home, help="page to write; by default report.html in the "
                        "run's folder, of several runs comparison.html here")
    arguments = parser.read()
    if len(arguments.runs) == 1:
        path = arguments.output or os.path.join(arguments.runs[0], PAGE_NAME)
        require_writable({"--output": os.path.dirname(path)})
        write_run_page(arguments.runs[0], path)
    else:
        path = arguments.output or "comparison.html"
        require_writable({"--output": os.path.dirname(path)})
        groups = read_groups(arguments.runs)
        print(format_comparison(groups))
        write_comparison(groups, path)
    print(path, file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
