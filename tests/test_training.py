"""What surrounds a training: the learning rates, the freezing of the prompt, loss and accuracy."""

import jittor as jt
import numpy as np
import pytest

from configs import load_config
from pipeline.training import EpochMeter, Paces, cosine

STEPS = 4  # of an epoch


def paces(lora):
    config = load_config(None, ["train.epochs=5", "prompt.epochs=2", "prompt.lr=2", "lora.lr=3",
                                "lora.min_lr=0.5"])
    context = jt.zeros((2, 3))
    return Paces(context, [jt.ones((2, 2))] if lora else [], config, STEPS), context


def rates(of, step):
    of.set_rates(step)
    return [group["lr"] for group in of.optimizer.param_groups]


def test_the_cosine_schedule_goes_from_its_start_to_its_end_and_stays_there():
    values = [cosine(step, 11, 2.0, 0.5) for step in range(15)]
    assert values[0] == 2.0 and values[10:] == [0.5] * 5
    assert values[5] == pytest.approx((2.0 + 0.5) / 2)
    assert all(a > b for a, b in zip(values[:10], values[1:]))
    assert cosine(0, 1, 2.0, 0.5) == 2.0  # one step learns


def test_prompt_and_lora_have_schedules_of_their_own():
    both, _ = paces(lora=True)
    assert rates(both, 0) == [2, 3]
    assert rates(both, 2 * STEPS - 1) == [0, pytest.approx(cosine(7, 20, 3, 0.5))]
    assert rates(both, 5 * STEPS - 1) == [0, 0.5] and both.n_epochs == 5
    # Weight decay is LoRA's alone.
    assert [group["weight_decay"] for group in both.optimizer.param_groups] == [0, 0.01]


def test_the_prompt_is_frozen_after_its_epochs():
    both, context = paces(lora=True)
    for epoch, learns in enumerate([True, True, False, False]):
        both.begin_epoch(epoch)
        assert context.is_stop_grad() != learns
        both.set_rates(epoch * STEPS)
        assert ("lr_prompt" in both.report(epoch)) == learns and "lr_lora" in both.report(epoch)


def test_without_lora_nothing_learns_after_the_prompt():
    alone, _ = paces(lora=False)
    assert alone.n_epochs == 2 and len(alone.optimizer.param_groups) == 1


def test_the_way_of_each_part_is_told():
    both, context = paces(lora=True)
    both.set_rates(0)
    context.update(jt.full((2, 3), 2.0))
    report = both.report(0)
    assert report["moved_prompt"] == pytest.approx(2 * np.sqrt(6)) and report["moved_lora"] == 0


class Loss:
    """A loss that tells when it is waited for."""

    def __init__(self, value, read):
        self.value, self.read = value, read

    def item(self):
        self.read.append(self.value)
        return self.value


class Bar:
    def set_postfix(self, loss):
        self.loss = loss


def test_a_steps_loss_is_read_when_the_next_is_under_way():
    meter, bar, read = EpochMeter(), Bar(), []
    right = jt.array(np.float32([[1, 0], [0, 1], [1, 0]]))
    for value, targets in ((1.0, [0, 1, 0]), (3.0, [1, 1, 1]), (5.0, [0, 0, 0])):
        meter.add(Loss(value, read), right, np.array(targets), bar)
    assert read == [1, 3] and bar.loss == "2.000"
    meter.end()
    assert read == [1, 3, 5] and meter.loss() == 3 and meter.n_correct() == 3 + 1 + 2
