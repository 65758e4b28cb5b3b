"""A step on a batch: the gradient of the whole, in however many parts it is encoded."""

import jittor as jt
import numpy as np
import pytest
from jittor import nn

from models import lora, shared_batch
from models.jclip.model import unit_norm


@pytest.fixture
def batch():
    random = np.random.RandomState(0)
    images = jt.array(random.normal(size=(5, 3, 16, 16)).astype(np.float32))
    tokens = random.randint(1, 90, (7, 12))
    tokens[np.arange(7), random.randint(3, 12, 7)] = 99
    return images, tokens, jt.array(random.randint(0, 7, 5))


def build(model):
    """Additions that are no longer zero, and their optimizer."""
    np.random.seed(0)
    layers = lora.apply_lora(model, rank=2, alpha=4.0, dropout=0.3)
    for layer in layers:
        layer.up.update(jt.array(np.random.normal(0, 0.1, layer.up.shape).astype(np.float32)))
    return lora.parameters(layers), jt.optim.SGD(lora.parameters(layers), lr=1.0)


def passes(model, batch):
    images, tokens, _ = batch
    return [(len(images), lambda rows: unit_norm(model.encode_image(images[rows]))),
            (len(tokens), lambda rows: unit_norm(model.encode_text(tokens[rows])))]


def loss_of(targets):
    def of(image_features, text_features):
        logits = 10 * nn.matmul_transpose(image_features, text_features)
        return nn.cross_entropy_loss(logits, targets), logits
    return of


def moved(model, batch, n_parts):
    """Loss, logits and how far a step of rate 1 moves each parameter; all is put back."""
    parameters, optimizer = build(model)
    start = [parameter.numpy() for parameter in parameters]
    loss, logits = shared_batch.step(optimizer, model, passes(model, batch), loss_of(batch[2]),
                                     [4, 2], n_parts)
    return float(loss.item()), logits.numpy(), [
        parameter.numpy() - before for parameter, before in zip(parameters, start)]


@pytest.mark.parametrize("n_parts", [2, 3, 5, 7, 9])  # 9: more than there are rows
def test_parts_give_the_step_of_the_whole(small_clip, batch, n_parts):
    loss, logits, whole = moved(small_clip, batch, 1)
    other_loss, other_logits, parts = moved(small_clip, batch, n_parts)
    assert other_loss == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(other_logits, logits, atol=1e-5)
    largest = max(np.abs(each).max() for each in whole)
    assert largest > 1e-4
    for a, b in zip(whole, parts):
        np.testing.assert_allclose(b, a, atol=1e-5 * largest)


def test_the_whole_is_the_step_on_the_loss_itself(small_clip, batch):
    _, _, ours = moved(small_clip, batch, 1)
    parameters, optimizer = build(small_clip)
    start = [parameter.numpy() for parameter in parameters]
    features = []
    for i, (n, encode) in enumerate(passes(small_clip, batch)):
        with lora.dropout_drawn(small_clip, [4, 2, i], slice(0, n)):
            features.append(encode(slice(0, n)))
    optimizer.step(loss_of(batch[2])(*features)[0])
    largest = max(np.abs(each).max() for each in ours)
    for parameter, before, step in zip(parameters, start, ours):
        np.testing.assert_allclose(parameter.numpy() - before, step, atol=1e-5 * largest)


def test_what_learns_nothing_stays(small_clip, batch):
    parameters, optimizer = build(small_clip)
    parameters[0].stop_grad()
    before = parameters[0].numpy()
    shared_batch.step(optimizer, small_clip, passes(small_clip, batch), loss_of(batch[2]), [1], 2)
    np.testing.assert_array_equal(parameters[0].numpy(), before)
