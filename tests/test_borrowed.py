"""Others' LoRA: tested as it is, and started from."""

import os

import numpy as np
import pytest

from runs.record import read_record
from system.files import read_pickle, write_pickle
from tests.conftest import SMALL
from tests.workplace import run

pytestmark = pytest.mark.slow

N_LAYERS = SMALL.text.layers + SMALL.vision.layers  # both 64 channels wide


def clip_lora(seed=0, size=0.5):
    """An entry's file for the workplace's CLIP."""
    random = np.random.RandomState(seed)

    def matrix(*shape):
        return (size * random.normal(size=shape)).astype(np.float32)

    layers = {f"layer_{i}": {name: {"w_lora_A": matrix(4, 64), "w_lora_B": matrix(64, 4)}
                             for name in ("q_proj", "k_proj", "v_proj")} for i in range(N_LAYERS)}
    return {"weights": layers, "metadata": {"r": 4, "alpha": 1, "encoder": "both",
                                            "params": ["q", "k", "v"], "position": "all"}}


@pytest.fixture
def lora(tmp_path):
    write_pickle(str(tmp_path / "lora_weights.pkl"), clip_lora())
    return tmp_path / "lora_weights.pkl"


def test_an_entrys_lora_is_tested_as_it_is(workplace, tmp_path, lora):
    own = tmp_path / "own"
    settings = [f"lora.init={lora}", f"output.checkpoint_dir={own}", "--output",
                tmp_path / "r.txt", "--ablate", "--labels", workplace / "labels.txt"]
    done = run("test.py", workplace, *settings)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (f"LoRA: {lora} (CLIP-LoRA's); prompts: this project's handcrafted ones, averaged; no "
            f"learned prompt and no head, as nothing is trained in {own}") in done.stderr
    lines = (tmp_path / "r.txt").read_text().splitlines()
    assert len(lines) == 12 and all(len(set(line.split()[1:])) == 5 for line in lines)
    assert "+ LoRA" in done.stdout and "+ MTA" in done.stdout
    assert "+ head" not in done.stdout and "learned prompt" not in done.stdout
    counts = read_record(str(own))["parameters"]
    assert counts["LoRA"] == N_LAYERS * 3 * 2 * 4 * 64
    assert counts["learned prompts"] == counts["head"] == 0

    # Additions of zero are the original CLIP, and others are not.
    write_pickle(str(lora), clip_lora(size=0))
    assert run("test.py", workplace, *settings, "mta.views=1").returncode == 0
    record = read_record(str(own))
    told = np.isin(record["rankings"][:, 0], record["base"]) & np.isin(
        record["zero_shot_label"], record["base"])
    np.testing.assert_array_equal(record["base_label"][told], record["zero_shot_label"][told])
    assert told.any()
    assert lines != (tmp_path / "r.txt").read_text().splitlines()


@pytest.mark.parametrize("settings, words", [
    (["transduction.mode=few-shot"], ["needs a training"]),
    (["lora.init=none.pkl"], ["none.pkl"])])
def test_what_needs_a_training_is_told(workplace, tmp_path, lora, settings, words):
    done = run("test.py", workplace, f"lora.init={lora}",
               f"output.checkpoint_dir={tmp_path / 'own'}", "--output", tmp_path / "r.txt",
               *settings)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ")
    assert all(word in last for word in words) and not os.path.exists(tmp_path / "r.txt")


def test_a_training_starts_from_it(workplace, tmp_path, lora):
    own = tmp_path / "own"
    settings = [f"output.checkpoint_dir={own}", f"output.cache_dir={tmp_path / 'cache'}"]
    done = run("train.py", workplace, *settings, f"lora.init={lora}", "lora.lr=0", "lora.min_lr=0",
               "train.epochs=1")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"LoRA starts from {lora} (CLIP-LoRA's)" in done.stderr
    state, content = read_pickle(str(own / "prompt_lora.pkl"))["lora"], clip_lora()
    layer = content["weights"][f"layer_{SMALL.text.layers}"]  # the image encoder's first
    np.testing.assert_allclose(state["vision.0.in_delta.down"][:4], layer["q_proj"]["w_lora_A"])
    np.testing.assert_allclose(state["vision.0.in_delta.up"][2], layer["v_proj"]["w_lora_B"],
                               rtol=1e-6)
    # To test, it need not be said again; another one is refused.
    test = [*settings, "--output", tmp_path / "r.txt", "train.epochs=1", "lora.lr=0",
            "lora.min_lr=0"]
    assert run("test.py", workplace, *test).returncode == 0
    done = run("test.py", workplace, *test, "lora.init=other.pkl")
    assert done.returncode == 2 and "lora.init" in done.stderr.splitlines()[-1]
