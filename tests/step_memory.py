"""Prints what bytes a training step was planned with, and what it took; see test_resources.py."""

import functools
from pathlib import Path

from system import runtime

runtime.prepare()

import jittor as jt
import numpy as np

from models import lora
from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from models.prompt import PromptLearner, tokenize_prompts
from tests.conftest import shapes_of
from tests.reference.weights import random_images, random_state
from train import handcrafted_features, training_step

SIZES = CLIPSizes(vision=TowerSizes(128, 6, 2), image_size=32, patch_size=8,
                  text=TowerSizes(128, 6, 2), context_length=77, vocab_size=49408, embed_dim=32)
N_IMAGES, N_CLASSES = 128, 400


def peak():
    """Bytes, at most, of this program; `getrusage` would count the one that started it."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def main():
    model = CLIP(SIZES)
    model.load_state_dict(random_state(shapes_of(model)))
    parameters = lora.parameters(lora.apply_lora(model))
    learner = PromptLearner(model, [f"a thing with number {i}" for i in range(N_CLASSES)])
    drawn = tokenize_prompts(model, ["it is a thing of a kind"] * N_CLASSES)
    images = jt.array(random_images(N_IMAGES, SIZES.image_size))
    jt.sync_all()
    n_tokens = N_CLASSES * max(learner.length, int(drawn.argmax(axis=1).max()) + 1)
    before = peak()
    training_step(jt.optim.AdamW(parameters, lr=1e-3), model, images,
                  (functools.partial(handcrafted_features, model, drawn), np.ones(N_CLASSES)),
                  np.zeros(N_IMAGES, np.int32), 1.0, seed=[0])
    jt.sync_all()
    print(SIZES.bytes_to_train(N_IMAGES, n_tokens), peak() - before)


if __name__ == "__main__":
    main()
