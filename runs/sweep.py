"""Trains and tests with every combination of some settings, one after the other.

    python train.py [--config CONFIG] [key=value …] --sweep seed=1,2,3 lora.rank=2,4,8

Each combination is two processes, train.py and test.py, with a run folder of its own below the
config's output.checkpoint_dir. What is done is skipped, so that a sweep that was stopped, or has
got further values, goes on.
"""

import itertools
import json
import os
import subprocess
import sys
from urllib.parse import quote

import yaml

from configs import load_config
from runs.compare import format_comparison, read_groups
from runs.record import read_record
from system.errors import UserError
from system.places import MAIN_FOLDER


def sweep(config_path, overrides, axes, restart=False):
    """Run the grid and print its table.

    Args:
        config_path: the YAML file of all runs.
        overrides: list of 'key=value', of all runs.
        axes: list of 'key=value,value,…'.
        restart: run again what is done, too.

    Raises:
        UserError: an axis that cannot be read, a setting that no run could have (before the
            first one starts), or runs that failed (after the last one and the table).
    """
    folder = load_config(config_path, overrides).output.checkpoint_dir
    folders, failed = [], []
    runs = []
    for values in itertools.product(*map(read_axis, axes)):
        name = ",".join(quote(value, safe='=[],."') for value in values).replace('"', "")
        settings = [*overrides, *values,
                    f"output.checkpoint_dir={json.dumps(os.path.join(folder, name))}"]
        runs.append((load_config(config_path, settings), settings))
    for number, (config, settings) in enumerate(runs, start=1):
        run_folder = config.output.checkpoint_dir
        print(f"run {number} of {len(runs)}: {run_folder}", file=sys.stderr, flush=True)
        if (not restart and is_done(config)) or run_scripts(config_path, settings, run_folder,
                                                            restart):
            folders.append(run_folder)
        else:
            failed.append(run_folder)
    if folders:
        print(format_comparison(read_groups(folders)))
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed ({', '.join(failed)}); their "
                        "errors are above; run the same command again when they are mended")


def read_axis(axis):
    """'lora.rank=2,4' -> ['lora.rank=2', 'lora.rank=4']; a value may be a list, '[1,2]'."""
    key, equals, values = axis.partition("=")
    try:
        values = yaml.safe_load(f"[{values}]")
    except yaml.YAMLError:
        values = None
    if not equals or not values:
        raise UserError(f"--sweep {axis!r} is not of the form key=value,value,…")
    return [f"{key}={json.dumps(value, separators=(',', ':'))}" for value in values]


def is_done(config):
    """Whether the run folder holds a test's record with exactly these settings."""
    record = read_record(config.output.checkpoint_dir)
    return record is not None and record["config"] == config.to_dict()


def run_scripts(config_path, settings, folder, restart):
    """Train and test; whether both succeeded."""
    common = ["--config", config_path, *settings, *(["--restart"] if restart else [])]
    output = ["--output", os.path.join(folder, "result.txt")]
    return not any(
        subprocess.run([sys.executable, os.path.join(MAIN_FOLDER, script), *arguments]).returncode
        for script, arguments in (("train.py", common), ("test.py", common + output)))
