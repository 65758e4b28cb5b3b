"""Writes the page of a run, or compares runs.

    python report.py RUN            # writes RUN/report.html
    python report.py A B … [--output comparison.html]

RUN, A and B are folders with what train.py and test.py left (a config's
output.checkpoint_dir). Runs whose settings differ in the seed alone count as one, with the mean
and the standard deviation over the seeds.
"""

import argparse
import sys

from models.errors import run_script
from runs.compare import format_table, read_groups, table_of, write_comparison
from runs.page import write_run_page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument("--output", default="comparison.html", help="page of several runs")
    arguments = parser.parse_args()
    if len(arguments.runs) == 1:
        path = write_run_page(arguments.runs[0])
    else:
        groups = read_groups(arguments.runs)
        print(format_table(table_of(groups)))
        write_comparison(groups, arguments.output)
        path = arguments.output
    print(path, file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
