"""Several runs side by side: those that differ in the seed alone are one row with a deviation."""

import os
import re

import numpy as np

from runs import figures
from runs.log import read_log
from runs.metrics import ABLATION_COLUMNS
from runs.page import render
from runs.record import read_record, summary_of
from runs.texts import format_table
from system.errors import UserError
from system.files import write_atomically

# Settings that tell one run from its repetition.
REPEATED = ("seed", "output.checkpoint_dir", "output.cache_dir", "output.shipped_dir")
_SEED_IN_A_NAME = re.compile(r"seed_?\d+")  # of data.shots_file, as 2SFS names its choices
ACCURACIES = {"base": "base", "new": "new", "harmonic_mean": "H", "auroc": "AUROC"}


def read_groups(folders):
    """The runs of folders, put together where their settings differ in the seed alone.

    Returns:
        {name: list of {value's name: float}}: the name tells the settings that differ between
        groups, or else the folder; the values are those of `ACCURACIES` that a run has, 'minutes'
        of training, and 'parts', `runs.metrics.ablation_table`'s.

    Raises:
        UserError: a folder without a run that was tested since it was trained.
    """
    groups = {}
    for folder in folders:
        record = read_record(folder)
        if record is None:
            raise UserError(f"{folder} holds no run that was tested since it was trained; run "
                            "test.py with its config first")
        settings = {key: repr(value) for key, value in flat(record["config"]).items()
                    if key not in REPEATED}
        settings["data.shots_file"] = _SEED_IN_A_NAME.sub("seed", settings["data.shots_file"])
        shares = summary_of(record)
        values = {name: shares[key] for key, name in ACCURACIES.items() if key in shares}
        values["parts"] = record["ablation"]
        trained = [line["time"] for line in read_log(folder) if line["stage"] != "test"]
        if trained:
            values["minutes"] = trained[-1] / 60
        groups.setdefault(tuple(sorted(settings.items())), (folder, []))[1].append(values)
    differing = {key for settings in groups for key, _ in settings
                 if len({dict(other).get(key) for other in groups}) > 1}
    return {", ".join(f"{key}={value}" for key, value in settings if key in differing)
            or os.path.normpath(folder): runs for settings, (folder, runs) in groups.items()}


def flat(config, prefix=""):
    """{'lora.rank': 4, …} of nested settings."""
    found = {}
    for key, value in config.items():
        found.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict)
                     else {f"{prefix}{key}": value})
    return found


def format_comparison(groups):
    """`table_of` the groups, and of each what its parts add, as lines."""
    tables = [format_table(table_of(groups))]
    for name, runs in groups.items():
        names = [name for name, _ in runs[0]["parts"]]
        if names and all([name for name, _ in run["parts"]] == names for run in runs):
            rows = [[part, *(_mean([run["parts"][i][1][column] for run in runs])
                             for column in ABLATION_COLUMNS)] for i, part in enumerate(names)]
            tables.append(f"{name}\n{format_table([['part', *ABLATION_COLUMNS], *rows])}")
    return "\n\n".join(tables)


def table_of(groups):
    """The groups as rows of texts, the first row names the columns.

    Accuracies are in %; of several runs it is their mean ± standard deviation.
    """
    rows = [["settings", "runs", *ACCURACIES.values(), "minutes"]]
    for name, runs in groups.items():
        rows.append([name, str(len(runs)), *(
            _mean([run[column] for run in runs if column in run],
                  *{"AUROC": (1, 4), "minutes": (1, 2)}.get(column, ()))
            for column in rows[0][2:])])
    return rows


def _mean(values, unit=100, digits=2):
    """'mean ± standard deviation' of some numbers, in a unit."""
    if not values:
        return "–"
    values = unit * np.array(values)
    return f"{values.mean():.{digits}f}" + (
        f" ± {values.std():.{digits}f}" if len(values) > 1 else "")


def write_comparison(groups, path):
    """Write a page that shows `read_groups`'s result."""
    accuracies = []
    for name in ("base", "new", "H"):
        values = {group: [run[name] for run in runs if name in run]
                  for group, runs in groups.items()}
        means = {group: np.mean(each) for group, each in values.items() if each}
        if means:
            group = max(means, key=means.get)
            accuracies.append({"name": name, "group": group, "best": means[group],
                               "drawing": figures.run_values(list(values), values.values())})
    columns, *rows = table_of(groups)
    write_atomically(path, render(
        "comparison.html.j2", name="Comparison", n_runs=sum(map(len, groups.values())),
        columns=columns, rows=rows, accuracies=accuracies).encode())
