"""The real scripts, stopped at any moment and run again, leave the bytes of an unbroken run."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from system.lock import output_lock
from tests.workplace import ROOT, build, run

pytestmark = pytest.mark.slow

OUTPUTS = ("weights/prompt_lora.pkl", "weights/head.pkl", "result.txt")
# Small batches, so that there are many epochs and shards to be stopped in.
SETTINGS = ("train.epochs=5", "prompt.epochs=3", "train.batch_size=2", "test.batch_size=1",
            "lora.dropout=0.25", "workers=2")


@pytest.fixture
def workplace(tmp_path):
    """A workplace of the test's own, in the place of all tests'."""
    build(tmp_path)
    return tmp_path


def command(script, folder, *more):
    output = ["--output", str(folder / "result.txt")] if script == "test.py" else []
    return [os.path.join(ROOT, script), "--config", str(folder / "tiny.yaml"), *output, *SETTINGS,
            *more]


def finish(script, folder, *more):
    """Run a script to its end; the process."""
    done = subprocess.run([sys.executable, *command(script, folder, *more)], cwd=ROOT,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def outputs(folder):
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def start(script, folder, *more):
    return subprocess.Popen([sys.executable, *command(script, folder, *more)], cwd=ROOT, text=True,
                            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_for(process, text):
    """Read what a process says until a line holds `text`."""
    said = ""
    for line in process.stderr:
        said += line
        if text in line:
            return
    raise AssertionError(f"it ended ({process.wait()}) without saying {text!r}: {said[-2000:]}")


def test_killed_at_any_moment_it_ends_with_the_same_bytes(workplace):
    seconds = {}
    for script in ("train.py", "test.py"):
        started = time.time()
        finish(script, workplace)
        seconds[script] = time.time() - started
    expected = outputs(workplace)
    for name in OUTPUTS:
        os.remove(workplace / name)
    random, gone_on = np.random.RandomState(0), 0
    for script, n_kills, n_kills_in_writes in (("train.py", 10, 5), ("test.py", 4, 2)):
        killed = 0
        while killed < n_kills_in_writes:
            number, moment = 1 + random.randint(4), random.choice(["half", "whole", "renamed"])
            done = subprocess.run(
                [sys.executable, "-m", "tests.killed", str(number), moment,
                 *command(script, workplace)], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode in (0, -signal.SIGKILL), done.stderr[-2000:]
            killed += done.returncode != 0
            gone_on += "going on" in done.stderr
        killed = 0
        while killed < n_kills:
            process = start(script, workplace)
            time.sleep(seconds[script] * random.uniform(0.3, 0.9))
            if process.poll() is None:
                killed += 1
            else:  # the first run, which was timed, also compiled kernels
                seconds[script] *= 0.8
            process.kill()
            said = process.communicate()[1]
            assert "Traceback" not in said, said
            gone_on += "going on" in said
        finish(script, workplace)
    assert outputs(workplace) == expected
    assert gone_on >= 3
    # Nothing is left of the parts and temporary files.
    left = [name for _, folders, files in os.walk(workplace) for name in folders + files]
    assert not [name for name in left if name.endswith((".tmp", ".lock")) or name == "unfinished"
                or name.startswith("test_images_")]


@pytest.mark.parametrize("settings", [
    [], ["lora.encoder=none", "train.epochs=9", "prompt.epochs=5"], ["prompt.epochs=9"],
    ["precision=bfloat16", "train.class_batch_size=3"]],
    ids=["prompt first", "no LoRA", "LoRA first", "bfloat16 and drawn classes"])
def test_with_a_queue_that_is_not_full_it_goes_on_to_the_same_bytes(workplace, settings):
    settings = ["prompt.queue_every=2", "prompt.queue_length=5", *settings]

    def finished(*more):
        finish("train.py", workplace, "--stage", "1", *settings, *more)
        return (workplace / "weights/prompt_lora.pkl").read_bytes()

    expected = finished("--restart")
    process = start("train.py", workplace, "--stage", "1", *settings, "--restart")
    wait_for(process, "epoch 3: loss")
    process.kill()
    process.communicate()
    assert (workplace / "weights" / "unfinished").exists()
    assert finished() == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line_that_tells_how_to_go_on(workplace, number):
    process = start("train.py", workplace)
    wait_for(process, "epoch 2: loss")  # the first epoch is saved by now
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    last = said.splitlines()[-1]
    assert last.startswith("interrupted") and "run the same command again" in last
    assert "Traceback" not in said
    assert "going on after epoch" in finish("train.py", workplace, "--stage", "1").stderr


def test_a_damaged_state_is_left_out_with_a_warning(workplace):
    finish("train.py", workplace)
    expected = (workplace / "weights/prompt_lora.pkl").read_bytes()
    process = start("train.py", workplace)
    wait_for(process, "epoch 4: loss")
    process.kill()
    process.communicate()
    # Killed inside the next write, it also leaves a temporary file or the state before those two.
    states = sorted((workplace / "weights" / "unfinished").glob("epoch_*.pkl"))
    assert len(states) >= 2
    content = bytearray(states[-1].read_bytes())
    content[len(content) // 2] ^= 1
    states[-1].write_bytes(content)
    done = finish("train.py", workplace)
    assert f"warning: {states[-1]}" in done.stderr and "going on after epoch" in done.stderr
    assert (workplace / "weights/prompt_lora.pkl").read_bytes() == expected


def test_changed_settings_or_data_are_refused_until_it_starts_over(workplace):
    process = start("train.py", workplace)
    wait_for(process, "epoch 2: loss")
    process.kill()
    process.communicate()
    done = run("train.py", workplace, *SETTINGS, "lora.rank=2")
    assert done.returncode == 2
    assert "lora.rank: 4 when trained, 2 now" in done.stderr.splitlines()[-1]
    assert "--restart" in done.stderr.splitlines()[-1]
    done = run("train.py", workplace, "--stage", "2", *SETTINGS)
    assert done.returncode == 2 and "of 5; finish it first" in done.stderr.splitlines()[-1]
    image = next((workplace / "Dataset" / "TrainSet" / "TrainSet" / "1").iterdir())
    for other in image.parent.iterdir():  # all three, as the seed may not have chosen the first
        other.write_bytes(other.read_bytes() + b"\0")
    done = run("train.py", workplace, *SETTINGS)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and line.count("8 training images with checksum") == 2
    assert "going on" not in finish("train.py", workplace, "--restart").stderr


def test_a_second_run_on_the_same_output_is_refused(workplace):
    holder = str(os.getpid())
    with output_lock(str(workplace / "weights" / "train.lock")):
        done = run("train.py", workplace, *SETTINGS)
    assert done.returncode == 2 and f"process {holder} " in done.stderr.splitlines()[-1]
    (workplace / "weights").mkdir(exist_ok=True)
    (workplace / "weights" / "train.lock").write_text("1\n")  # as a killed process leaves it
    finish("train.py", workplace)
    with output_lock(str(workplace / "result.txt.lock")):
        done = run("test.py", workplace, *SETTINGS, "--output", workplace / "result.txt")
    assert done.returncode == 2 and f"process {holder} " in done.stderr.splitlines()[-1]
    assert not (workplace / "result.txt").exists()
    finish("test.py", workplace)
