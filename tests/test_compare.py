"""Comparing runs: seeds become mean and deviation, other settings rows of their own."""

import numpy as np
import pytest

from runs.compare import format_comparison, read_groups, table_of, write_comparison
from runs.metrics import ABLATION_COLUMNS
from runs.record import summary_of
from runs.texts import format_table
from system.errors import UserError
from tests.reference.run import example_record, write_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [write_run(place / f"{rank}_{seed}", seed, **{
        "lora.rank": rank, "output.checkpoint_dir": place / f"{rank}_{seed}"})
        for rank in (2, 4) for seed in (1, 2, 3)]


def test_runs_that_differ_in_the_seed_alone_are_one_group(folders):
    groups = read_groups(folders)
    assert list(groups) == ["lora.rank=2", "lora.rank=4"]
    expected = [100 * summary_of(example_record(seed))["base"] for seed in (1, 2, 3)]
    assert [100 * run["base"] for run in groups["lora.rank=2"]] == pytest.approx(expected)
    row = table_of(groups)[1]
    assert row[:3] == ["lora.rank=2", "3", f"{np.mean(expected):.2f} ± {np.std(expected):.2f}"]


def test_one_group_is_named_by_its_folder_and_one_run_has_no_deviation(folders):
    head, row = table_of(read_groups(folders[:1]))
    assert row[0] == folders[0] and row[1] == "1" and not any("±" in cell for cell in row)
    assert head == ["settings", "runs", "base", "new", "H", "AUROC", "minutes"]


def test_2sfs_choices_are_one_group_for_each_number_of_shots(tmp_path):
    files = [f"shot_{shots}-seed_{seed}_train.jsonl" for shots in (1, 4) for seed in (1, 2)]
    groups = read_groups([write_run(tmp_path / file, **{"data.shots_file": file})
                          for file in files])
    assert [len(runs) for runs in groups.values()] == [2, 2]
    assert all("shot_1-seed" in name or "shot_4-seed" in name for name in groups)


def test_the_table_is_aligned(folders):
    lines = format_table(table_of(read_groups(folders))).splitlines()
    assert len(lines) == 3 and len(set(map(len, lines))) == 1


def test_what_each_part_adds_is_the_mean_over_the_seeds(folders):
    lines = format_comparison(read_groups(folders[:3])).splitlines()
    rows = {line.split("  ")[0]: line for line in lines[3:]}
    tables = [dict(example_record(seed)["ablation"]) for seed in (1, 2, 3)]
    assert len(rows) == len(tables[0]) + 2  # and the folder's name, and the columns'
    for part in tables[0]:
        for column in ABLATION_COLUMNS:
            values = [100 * table[part][column] for table in tables]
            assert f"{np.mean(values):.2f} ± {np.std(values):.2f}" in rows[part]


def test_a_run_without_labels_has_no_accuracies(folders, tmp_path):
    write_run(tmp_path / "run", labelled=False)
    rows = table_of(read_groups([str(tmp_path / "run")]))
    assert rows[1][2:6] == ["–"] * 4
    write_comparison(read_groups([str(tmp_path / "run"), folders[0]]), str(tmp_path / "c.html"))


def test_an_untested_folder_is_named(folders, tmp_path):
    with pytest.raises(UserError, match="run test.py"):
        read_groups([folders[0], str(tmp_path)])
