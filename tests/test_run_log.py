"""A run's log: what is written is read, a resumed run has no epoch twice."""

import json

import numpy as np
import pytest

from pipeline.training_state import distance
from runs.log import RunLog, read_log
from system.errors import UserError


def write_epochs(folder, stage, first, last):
    log = RunLog(str(folder))
    log.begin(stage, epochs_done=first - 1)
    for epoch in range(first, last + 1):
        log.write(epoch=epoch, loss=1.0 / epoch)
    return log


def of_log(folder):
    return [(record["stage"], record.get("epoch")) for record in read_log(str(folder))]


def test_a_line_holds_what_was_written_and_its_time(tmp_path):
    log = RunLog(str(tmp_path / "run"))
    log.begin("tune")
    log.write(epoch=1, loss=0.123456789, images=50)
    log.write(epoch=2, loss=float("nan"))
    first, second = read_log(str(tmp_path / "run"))
    assert (first["stage"], first["epoch"], first["loss"]) == ("tune", 1, 0.123457)
    assert 0 < first["time"] < second["time"] and second["loss"] is None
    assert second["seconds"] == pytest.approx(second["time"] - first["time"], abs=1e-5)
    assert first["images_per_s"] == pytest.approx(50 / first["seconds"], rel=1e-4)


def test_no_log_is_no_lines(tmp_path):
    assert read_log(str(tmp_path)) == []


def test_a_resumed_run_goes_on_without_an_epoch_twice(tmp_path):
    write_epochs(tmp_path, "tune", 1, 5)
    before = read_log(str(tmp_path))
    write_epochs(tmp_path, "tune", 4, 6)  # the state of epoch 3 was the last that was kept
    assert of_log(tmp_path) == [("tune", epoch) for epoch in range(1, 7)]
    after = read_log(str(tmp_path))
    assert after[:3] == before[:3]
    times = [record["time"] for record in after]
    assert times == sorted(times) and times[3] >= before[2]["time"]


@pytest.mark.parametrize("stage, kept", [
    ("tune", []), ("head", ["tune", "tune", "features"]),
    ("test", ["tune", "tune", "features", "head", "head"])])
def test_a_stage_that_begins_again_drops_what_depends_on_it(tmp_path, stage, kept):
    write_epochs(tmp_path, "tune", 1, 2)
    log = RunLog(str(tmp_path))
    for later in ("features", "head", "test"):
        log.begin(later)
        if later == "head":
            log.write(epoch=10, loss=1.0)
            log.write(epoch=20, loss=0.5)
        else:
            log.write(images=3)
    RunLog(str(tmp_path)).begin(stage)
    assert [name for name, _ in of_log(tmp_path)] == kept


@pytest.mark.parametrize("rest", ['{"time": 3.0, "sta', "{}", '{"time": 3.0, "stage": "tu'])
def test_a_line_that_was_cut_off_is_left_out_and_then_replaced(tmp_path, rest):
    write_epochs(tmp_path, "tune", 1, 2)
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write(rest)
    assert of_log(tmp_path) == [("tune", 1), ("tune", 2)]
    write_epochs(tmp_path, "tune", 3, 3)
    for line in (tmp_path / "log.jsonl").read_text().splitlines():
        json.loads(line)
    assert of_log(tmp_path) == [("tune", 1), ("tune", 2), ("tune", 3)]


def test_damage_before_the_last_line_is_named(tmp_path):
    write_epochs(tmp_path, "tune", 1, 3)
    path = tmp_path / "log.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:20], lines[2]]) + "\n")
    with pytest.raises(UserError, match="log.jsonl, line 2 is damaged"):
        read_log(str(tmp_path))


def test_distance_is_that_of_one_long_vector():
    rng = np.random.RandomState(0)
    a, b = ([rng.normal(size=shape) for shape in ((3, 4), (5,))] for _ in range(2))
    joined = [np.concatenate([array.ravel() for array in arrays]) for arrays in (a, b)]
    assert distance(a, b) == pytest.approx(np.linalg.norm(joined[0] - joined[1]))
