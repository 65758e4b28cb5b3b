"""The states of a stopped training: taken back whole, or refused in a line with the cure."""

import jittor as jt
import numpy as np
import pytest

from configs import load_config
from models import lora
from pipeline.checkpoint import made_with, save_checkpoint
from pipeline.training_state import EpochStates, load_optimizer_state, optimizer_state
from system.errors import UserError
from tests.conftest import SMALL

ORIGIN = {**made_with(load_config(None, ()), 7, []), "classes": [["Animal_cat", "x"]] * 3,
          "base": np.arange(2)}


@pytest.fixture
def optimizer(small_clip):
    parameters = lora.parameters(lora.apply_lora(small_clip, rank=2))
    return jt.optim.AdamW([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=0.1)


@pytest.fixture
def state(small_clip, optimizer):
    context = np.ones((4, SMALL.text.width), np.float32)
    return {"n_epochs": 3, "context": context, "queue": context[None].repeat(2, axis=0),
            "lora": lora.lora_state(small_clip), "optimizer": optimizer_state(optimizer)}


def states_of(folder):
    return EpochStates(str(folder), ORIGIN, ("seed", "prompt"), SMALL)


def test_the_newest_comes_back_and_two_are_kept(tmp_path, state):
    states = states_of(tmp_path)
    assert states.newest() is None
    for epoch in (1, 2, 3):
        states.save(epoch, state)
    newest = states_of(tmp_path).newest()
    assert newest["epoch"] == 3 and len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(newest["queue"], state["queue"])


@pytest.mark.parametrize("name, value", [
    ("context", np.ones((4, 5), np.float32)), ("context", np.ones((3, 64), np.float32)),
    ("context", [1.0]), ("queue", np.ones((2, 4, 3), np.float32)),
    ("queue", np.full((2, 4, 64), np.nan, np.float32)), ("lora", None), ("n_epochs", "3"),
    ("n_epochs", True), ("base", np.arange(9))])
def test_a_state_that_training_does_not_leave_is_refused(tmp_path, state, name, value):
    states_of(tmp_path).save(1, {**state, name: value})
    with pytest.raises(UserError, match="epoch_00001.pkl .*--restart"):
        states_of(tmp_path).newest()


@pytest.mark.parametrize("name", ["context", "queue", "lora", "n_epochs"])
def test_a_missing_part_is_refused(tmp_path, state, name):
    del state[name]
    states_of(tmp_path).save(1, state)
    with pytest.raises(UserError, match="epoch_00001.pkl .*--restart"):
        states_of(tmp_path).newest()


def test_a_state_without_an_epoch_is_refused(tmp_path, state):
    save_checkpoint(str(tmp_path / "epoch_00001.pkl"), ORIGIN, state)
    with pytest.raises(UserError, match="does not tell its epoch"):
        states_of(tmp_path).newest()


def test_another_precision_is_told(tmp_path, state, capsys):
    saved = {**state, "epoch": 1, "precision": "bfloat16"}
    save_checkpoint(str(tmp_path / "epoch_00001.pkl"), ORIGIN, saved)
    assert states_of(tmp_path).newest()["epoch"] == 1
    assert capsys.readouterr().err.count("in 'bfloat16', and they are in float32 now") == 1


def test_settings_of_before_the_precision_are_understood(tmp_path, state):
    config = {**ORIGIN["config"], "train": {**ORIGIN["config"]["train"], "amp": True}}
    saved = {**state, "epoch": 1, "config": {k: v for k, v in config.items() if k != "precision"}}
    save_checkpoint(str(tmp_path / "epoch_00001.pkl"), ORIGIN, saved)
    assert EpochStates(str(tmp_path), ORIGIN, ("train",), SMALL).newest()["epoch"] == 1


def test_an_optimizers_state_comes_back(optimizer, state):
    group = optimizer.param_groups[1]
    optimizer.step(sum((p * p).sum() for each in optimizer.param_groups for p in each["params"]))
    saved = optimizer_state(optimizer)
    load_optimizer_state(optimizer, state["optimizer"], "here")
    assert optimizer.n_step == 0 and not group["m"][0].numpy().any()
    load_optimizer_state(optimizer, saved, "here")
    assert optimizer.n_step == 1
    np.testing.assert_array_equal(group["m"][1].numpy(), saved["m"][1][1])


@pytest.mark.parametrize("change", [
    lambda s: None, lambda s: {**s, "n_step": 1.0}, lambda s: {**s, "m": s["m"][:1]},
    lambda s: {**s, "values": 3}, lambda s: {"n_step": 1},
    lambda s: {**s, "m": [s["m"][0], [a.T for a in s["m"][1]]]},
    lambda s: {**s, "m": [s["m"][0], [a.astype(np.float64) for a in s["m"][1]]]}])
def test_another_optimizers_state_is_refused(optimizer, state, change):
    with pytest.raises(UserError, match="here is damaged.*--restart"):
        load_optimizer_state(optimizer, change(state["optimizer"]), "here")
