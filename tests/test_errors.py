"""The end of a script: with its exit code, and without Jittor's own ending."""

import subprocess
import sys

import pytest

from tests.workplace import ROOT

# Jittor's ending hangs; what others have registered is still to be done.
SCRIPT = """
import atexit, sys, time
sys.path.insert(0, {root!r})
from system import runtime
runtime.prepare()
import jittor as jt
from system.errors import UserError, run_to_the_end

def hang():
    time.sleep(1000)

atexit.unregister(jt.jittor_exit)
jt.jittor_exit = hang
atexit.register(hang)
atexit.register(print, "done at exit")

def main():
    print("worked")
    {end}

run_to_the_end(main)
"""


@pytest.mark.parametrize("end, code, told", [
    ("pass", 0, ""), ("raise UserError('no such thing')", 2, "error: no such thing\n"),
    ("sys.exit(3)", 3, ""), ("sys.exit()", 0, ""), ("1 / 0", 1, "ZeroDivisionError")])
def test_the_end_does_not_wait_for_jittor(end, code, told):
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(root=ROOT, end=end)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == code and told in done.stderr, done.stderr
    assert done.stdout.split("\n") == ["worked", "done at exit", ""]


def test_what_cannot_be_printed_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", SCRIPT.format(root=ROOT, end="pass")],
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2 and "No space left on device" in done.stderr


# A pool puts a new process in the place of each that ends; here it has time to, as under load.
POOL = """
import io, multiprocessing, os, signal, sys, threading, time
sys.path.insert(0, {root!r})
from system.errors import run_script

class SlowToFlush(io.StringIO):
    def flush(self):
        if threading.current_thread() is threading.main_thread():
            time.sleep(1)

pool = multiprocessing.get_context("fork").Pool(2)  # as Jittor's, which nobody closes

def main():
    sys.stdout = SlowToFlush()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

run_script(main)
"""


def test_a_pool_leaves_no_process_behind_that_holds_the_output():
    done = subprocess.run([sys.executable, "-c", POOL.format(root=ROOT)], capture_output=True,
                          text=True, timeout=30)
    assert done.returncode == 128 + 15 and done.stderr == "interrupted\n"
