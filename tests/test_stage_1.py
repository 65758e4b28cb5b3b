"""Stage 1's step: what it moves along is the loss's gradient."""

import functools

import jittor as jt
import numpy as np
import pytest

from models import lora
from models.prompt import PromptLearner, tokenize_prompts
from train import handcrafted_features, learned_features, training_step

NAMES = ["red fox", "blue vase", "black hat", "lemon pie"]
CLASSES, COUNTS = np.array([0, 1, 3]), np.float32([1, 1, 2])  # those of a step
TARGETS = np.array([0, 1, 2, 1, 0])  # among them


class World:
    """A small CLIP with a prompt and additions that are no longer zero, and a batch."""

    def __init__(self, clip):
        random = np.random.RandomState(0)
        np.random.seed(0)
        self.learner = PromptLearner(clip, NAMES, "a photo of a")
        self.tuned = clip
        layers = lora.apply_lora(clip, rank=2, alpha=4.0, dropout=0.3)
        for layer in layers:
            layer.up.update(jt.array(random.normal(0, 0.1, layer.up.shape).astype(np.float32)))
        self.parameters = [self.learner.context, *lora.parameters(layers)]
        self.images = jt.array(random.normal(size=(5, 3, 16, 16)).astype(np.float32))
        self.drawn = np.concatenate([tokenize_prompts(clip, [f"a drawing of a {name}."])
                                     for name in NAMES])[CLASSES]

    def step(self, kind, lr):
        """The loss before a step of plain gradient descent."""
        texts = functools.partial(*{
            "learned": (learned_features, self.tuned, self.learner, CLASSES),
            "handcrafted": (handcrafted_features, self.tuned, self.drawn)}[kind])
        loss, logits = training_step(
            jt.optim.SGD(self.parameters, lr=lr), self.tuned, self.images,
            (texts, COUNTS), TARGETS, 20.0, seed=[3, 7])
        assert logits.shape == [len(TARGETS), len(CLASSES)]
        return float(loss.item())

    def put(self, values):
        for parameter, value in zip(self.parameters, values):
            parameter.update(jt.array(value.astype(np.float32)))


@pytest.fixture
def world(small_clip):
    return World(small_clip)


@pytest.mark.parametrize("kind", ["learned", "handcrafted"])
def test_the_gradient_is_the_losss_by_finite_differences(world, kind):
    """(L(θ + h d) − L(θ − h d)) / 2h is g·d, for d in each parameter alone: the prompt, A and B."""
    start = [parameter.numpy() for parameter in world.parameters]
    world.step(kind, lr=1.0)
    gradients = [before - parameter.numpy()
                 for before, parameter in zip(start, world.parameters)]
    reached = [np.abs(gradient).max() > 1e-5 for gradient in gradients]
    assert reached == [kind == "learned"] + [True] * (len(start) - 1)
    random = np.random.RandomState(1)
    for i in np.flatnonzero(reached):
        # A direction that is the gradient's and a random one's, so that it is long along g.
        noise = random.normal(size=start[i].shape)
        way = gradients[i] / np.linalg.norm(gradients[i]) + noise / np.linalg.norm(noise)
        expected = (gradients[i] * way).sum()
        h = 0.02 / max(1.0, 20 * np.linalg.norm(gradients[i]))
        losses = []
        for sign in (1, -1):
            world.put([value + sign * h * way if j == i else value
                       for j, value in enumerate(start)])
            losses.append(world.step(kind, lr=0.0))
        assert (losses[0] - losses[1]) / (2 * h) == pytest.approx(expected, rel=0.03), i


@pytest.mark.parametrize("kind", ["learned", "handcrafted"])
def test_steps_lower_the_loss(world, kind):
    first = world.step(kind, lr=0.02)
    for _ in range(10):
        last = world.step(kind, lr=0.02)
    assert last < 0.9 * first
