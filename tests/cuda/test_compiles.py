"""On a machine without a GPU: kernels compile with CUDA, and a step hardly waits for the GPU.

No kernel runs, so what is computed means nothing; .ci/cuda tells how it comes about.
"""

import functools

import jittor as jt
import numpy as np
import pytest

from configs import load_config
from data.views import Views, view_batches
from models.jclip.preprocess import Preprocess, normalise
from models.lp_plus_plus import LPPlusPlus, with_ones
from models.ood import base_score
from models.prompt import class_features, queue_features
from pipeline.look import Look
from pipeline.training import EpochMeter, Paces
from tests.test_stage_1 import CLASSES, COUNTS, NAMES, TARGETS, World
from tests.workplace import picture
from train import handcrafted_features, learned_features, training_step

pytestmark = pytest.mark.slow


class Steps:
    """Stage 1's steps as train.py makes them."""

    def __init__(self, clip):
        world = World(clip)
        self.tuned, self.paces = world.tuned, Paces(
            world.learner.context, world.parameters[1:], load_config(), epoch_steps=10)
        self.encoders = {
            "learned": functools.partial(learned_features, clip, world.learner, CLASSES),
            "handcrafted": functools.partial(handcrafted_features, clip, world.drawn)}
        self.pixels = jt.array(np.zeros((len(TARGETS), 1, 16, 16, 3), np.float32))
        self.scale = clip.scale()
        jt.sync_all()

    def __call__(self, kind, beside=None):
        """A step, and its outcome; `beside` is a function of the images that comes before it."""
        images = normalise(self.pixels[:, 0])
        if beside is not None:
            images = beside(images)
        self.paces.set_rates(0)
        loss, logits = training_step(self.paces.optimizer, self.tuned, images,
                                     (self.encoders[kind], COUNTS), TARGETS, self.scale, seed=[0])
        meter = EpochMeter()
        meter.add(loss, logits, TARGETS, bar=None)
        meter.end()


def waits_little(counted):
    """Whether loss and logits are all that a step waits for."""
    return counted["to_device"] == 0 and counted["to_host"] <= 2 and counted["waits"] <= 1


@pytest.fixture
def steps(small_clip):
    return Steps(small_clip)


@pytest.mark.parametrize("kind", ["learned", "handcrafted"])
def test_a_step_copies_and_waits_for_loss_and_logits_alone(steps, counts, kind):
    steps(kind)  # the first compiles
    counted = counts(steps, kind)
    assert counted["launches"] > 100 and waits_little(counted), counted


def transposed(images):
    """Jittor's own transposition of the last axis, which has no CUDA kernel."""
    return images.permute(0, 1, 3, 2)


def looked_at(images):
    """An array that the host has looked at lies there from then on."""
    images.numpy()
    return images


@pytest.mark.parametrize("beside", [transposed, looked_at])
def test_what_waits_is_counted(steps, counts, beside):
    steps("learned", beside)
    assert not waits_little(counts(steps, "learned", beside))


def test_what_is_made_of_test_images(small_clip, counts, tmp_path):
    """Texts, views, features, MTA, scores and the head's logits, as in test.py."""
    prompts = [[f"a photo of a {name}.", f"a {name}."] for name in NAMES]
    config = load_config(None, ["mta.views=4", "mta.zero_shot_views=2"])
    paths = [str(tmp_path / f"{i}.png") for i in range(2)]
    for i, path in enumerate(paths):
        picture(i, seed=i).save(path)
    views = Views(Preprocess(16), 4, (0.5, 1.0), seed=1)

    def classified():
        text = class_features(small_clip, prompts)
        look = Look(small_clip, small_clip, None, text, text, config)
        for _, pixels, _ in view_batches(views, paths, 2, 1, "images"):
            first = look.first_views(pixels)
            modes = jt.array(look.modes(jt.concat([first, look.further_views(pixels)], dim=1)))
            base_score(modes, text[:2], text[2:], look.logit_scale, text)
            head = LPPlusPlus.from_state({"w": text.numpy(), "bias": np.zeros(4, np.float32),
                                          "alpha": np.ones(4, np.float32), "text": text.numpy(),
                                          "scale": np.ones(16, np.float32)})
            head.logits(modes).numpy()

    assert counts(classified)["launches"] > 100


def test_what_stage_2_fits(small_clip, counts):
    """The queue's texts and an epoch of LP++, whose step sizes would be divisions by zero here."""
    world, head = World(small_clip), LPPlusPlus(channel_reweighting=True)
    F, T = jt.array(np.ones((8, 16), np.float32)), jt.array(np.ones((4, 16), np.float32))
    labels = jt.array(np.arange(8, dtype=np.int32) % 4)

    def fitted():
        queue_features(world.tuned, world.learner, [np.ones((4, 64), np.float32)]).sync()
        with jt.no_grad():
            head._start(F, labels, T, 1)
            jt.sync([*head.gradients(with_ones(F), labels, T)[1].values()])

    assert counts(fitted)["launches"] > 20


def test_a_kernel_that_does_not_compile_is_an_error():
    with pytest.raises(RuntimeError):
        jt.code((1,), "float32", [], cuda_src="no_such_name;").sync()
