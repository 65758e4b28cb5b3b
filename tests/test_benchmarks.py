"""What benchmarks/run.py decides itself: which pairs count, and how it reports."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.pairs import PAIRS
from benchmarks.run import difference, row

pytestmark = pytest.mark.slow

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
A = {"features": np.array([[1.0, 2.0], [3.0, -4.0]])}


def changed(by):
    return {"features": A["features"] + by}


def test_results_that_agree_and_results_that_do_not():
    pair = PAIRS["image-b32"]
    assert difference(pair, A, A) == 0
    assert difference(pair, changed(4e-5), A) == pytest.approx(1e-5)
    assert difference(pair, changed(4e-2), A) > pair.tolerance


@pytest.mark.parametrize("ours", [{"features": A["features"][:1]}, {}, {"others": A["features"]},
                                  changed(np.nan)])
def test_results_without_a_counterpart_never_agree(ours):
    assert difference(PAIRS["image-b32"], ours, A) == float("inf")


def test_a_row_reports_medians_and_the_spread():
    measured = {"name": "image-b32", "target": 1.2, "counts": True, "flops": 4e9,
                "ratios": [1.0, 3.0, 2.0],
                "seconds": {"ours": [0.1, 0.2, 0.4], "reference": [0.1, 0.6, 0.8]}}
    assert row(measured, limit=100) == (
        "| image-b32 | 1.2 | 2.00 | 1.00 … 3.00 | 3 | 200.0 | 600.0 | 20 % |")


def test_a_pair_that_disagrees_is_not_reported_as_a_speed():
    measured = {"name": "mta", "target": 10.0, "counts": False, "difference": 0.5,
                "unit": "of the largest value", "tolerance": 1e-3}
    assert "does not count" in row(measured, limit=100)


@pytest.mark.parametrize("arguments, message", [
    (["no-such-pair"], "no pair 'no-such-pair'"),
    (["mta", "--reference-python", "/no/python"], "/no/python.*benchmarks/README.md"),
    (["mta", "--size", "image=3"], "images, views, classes"),
    (["mta", "--pairs", "0"], "at least 1")])
def test_mistakes_end_in_one_line(arguments, message):
    done = subprocess.run([sys.executable, "benchmarks/run.py", *arguments], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
