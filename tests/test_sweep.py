"""A sweep's grid; the processes are stand-ins that note what they were asked."""

import os

import pytest
import yaml

from configs import load_config
from runs import sweep as sweep_module
from runs.record import write_record
from runs.sweep import read_axis, sweep
from system.errors import UserError
from tests.reference.run import example_record

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("axis, values", [
    ("seed=1,2,3", [1, 2, 3]), ("lora.positions=[1]", [[1]]),
    ("lora.positions=all,[0,1],top1", ["all", [0, 1], "top1"]),
    ("lora.lr=2e-4,0.001", [2e-4, 0.001]), ("prompts.max_tokens=null,24", [None, 24]),
    ("head.channel_reweighting=true,false", [True, False]),
    ("prompt.init=a photo of a,an image", ["a photo of a", "an image"])])
def test_an_axis_gives_each_value_as_an_override(axis, values):
    key = axis.partition("=")[0]
    for override, value in zip(read_axis(axis), values):
        config = load_config(None, [override]).to_dict()
        for part in key.split("."):
            config = config[part]
        assert config == value
    assert len(read_axis(axis)) == len(values)


@pytest.mark.parametrize("axis", ["seed", "seed=", "lora.positions=[1"])
def test_an_axis_that_cannot_be_read_is_named(axis):
    with pytest.raises(UserError, match="not of the form"):
        read_axis(axis)


@pytest.fixture
def processes(monkeypatch):
    """The (script, config) of each process; a test leaves a record, unless its rank is 13."""
    started = []

    class Done:
        def __init__(self, returncode):
            self.returncode = returncode

    def run(command):
        script = os.path.basename(command[1])
        settings = [word for word in command[2:] if "=" in word.partition("/")[0]]
        config = load_config(command[command.index("--config") + 1], settings)
        started.append((script, config.seed, config.lora.rank))
        if config.lora.rank == 13:
            return Done(2)
        if script == "test.py":
            output = command[command.index("--output") + 1]
            assert output == os.path.join(config.output.checkpoint_dir, "result.txt")
            write_record(config.output.checkpoint_dir,
                         {**example_record(config.seed), "config": config.to_dict()})
        return Done(0)

    monkeypatch.setattr(sweep_module.subprocess, "run", run)
    return started


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"output": {"checkpoint_dir": str(tmp_path / "runs")}}))
    return str(path)


def test_the_whole_grid_is_run_once(processes, config_file, tmp_path, capsys):
    sweep(config_file, ["train.epochs=3"], ["seed=1,2", "lora.rank=2,4"])
    assert processes == [(script, seed, rank) for seed in (1, 2) for rank in (2, 4)
                         for script in ("train.py", "test.py")]
    assert sorted(os.listdir(tmp_path / "runs")) == [
        f"seed={seed},lora.rank={rank}" for seed in (1, 2) for rank in (2, 4)]
    table = capsys.readouterr().out.split("\n\n")[0]
    assert table.count("±") == 2 * 4 and "lora.rank=2" in table and "lora.rank=4" in table
    processes.clear()
    sweep(config_file, ["train.epochs=3"], ["seed=1,2,3", "lora.rank=2,4"])  # goes on
    assert {seed for _, seed, _ in processes} == {3}
    processes.clear()
    sweep(config_file, ["train.epochs=4"], ["seed=1", "lora.rank=2"])  # other settings
    assert len(processes) == 2
    processes.clear()
    sweep(config_file, ["train.epochs=4"], ["seed=1", "lora.rank=2"], restart=True)
    assert len(processes) == 2


def test_a_failed_run_does_not_stop_the_others(processes, config_file, capsys):
    with pytest.raises(UserError, match=r"1 of 3 runs failed .*lora.rank=13"):
        sweep(config_file, [], ["lora.rank=2,13,4"])
    assert [(script, rank) for script, _, rank in processes] == [
        ("train.py", 2), ("test.py", 2), ("train.py", 13), ("train.py", 4), ("test.py", 4)]
    assert "lora.rank=4" in capsys.readouterr().out


def test_a_setting_that_no_run_could_have_stops_before_the_first(processes, config_file):
    with pytest.raises(UserError, match=r"lora\.rnak.*lora\.rank"):
        sweep(config_file, [], ["seed=1,2", "lora.rnak=2,4"])
    with pytest.raises(UserError, match="lora.rank"):
        sweep(config_file, [], ["seed=1,2", "lora.rank=2,0"])
    assert processes == []
