"""Text features of classes: learned context, queue, and handcrafted prompts."""

import warnings

import jittor as jt
import numpy as np
import pytest

from models.jclip.model import unit_norm
from models.lora import freeze
from models.prompt import (
    PromptLearner,
    PromptQueue,
    class_features,
    classifier_features,
    encode_texts,
    queue_features,
    tokenize_prompts,
    without_long_prompts,
)
from system.errors import UserError

NAMES = ["cat", "Shiba Inu dog", "kite"]


def test_the_untrained_context_is_the_prompt_it_starts_from(small_clip):
    learner = PromptLearner(small_clip, NAMES, "a photo of a")
    assert tuple(learner.context.shape) == (4, 64)
    expected = encode_texts(small_clip, [f"a photo of a {name}." for name in NAMES]).numpy()
    np.testing.assert_allclose(learner.text_features(small_clip).numpy(), expected, atol=1e-5)
    rows = learner.text_features(small_clip, rows=[2, 0]).numpy()
    np.testing.assert_allclose(rows, expected[[2, 0]], atol=1e-5)


def test_only_the_context_learns(small_clip):
    freeze(small_clip)
    learner = PromptLearner(small_clip, NAMES)
    assert learner.parameters() == [learner.context] or len(learner.parameters()) == 1
    before = {n: p.numpy().copy() for n, p in small_clip.named_parameters()}
    start = learner.context.numpy().copy()
    learner.context.start_grad()
    optimizer = jt.optim.AdamW([learner.context], lr=1e-2)
    for _ in range(2):
        optimizer.step(learner.text_features(small_clip)[0].sum())
    assert np.abs(learner.context.numpy() - start).min() > 1e-4
    for name, parameter in small_clip.named_parameters():
        np.testing.assert_array_equal(parameter.numpy(), before[name], err_msg=name)


def test_the_embeddings_it_started_from_do_not_move_with_it(small_clip):
    learner = PromptLearner(small_clip, NAMES)
    embeddings = small_clip.token_embedding.weight.numpy().copy()
    learner.context.update(learner.context + 1)
    jt.sync_all()
    np.testing.assert_array_equal(small_clip.token_embedding.weight.numpy(), embeddings)


@pytest.mark.parametrize("names, n_told", [
    (["cat", "dog"], 0), ([f"cat {'of the house ' * 20} {i}" for i in range(5)], 1),
    ([f"{i} cat {'of the house ' * 20}" for i in range(2)], 0)])
def test_names_alike_as_far_as_the_model_reads_are_named(small_clip, names, n_told):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        class_features(small_clip, [[f"a photo of a {name}."] for name in names])
    said = [str(w.message) for w in caught if "alike" in str(w.message)]
    assert len(said) == n_told and all("reads 22 tokens" in text for text in said)


def test_the_queue_drops_its_oldest():
    queue = PromptQueue(2)
    for value in range(3):
        queue.push(jt.ones((4, 8)) * value)
    assert len(queue) == 2
    np.testing.assert_array_equal(queue.contexts()[:, 0, 0], [1, 2])
    with pytest.raises(UserError, match="queue_length is 0"):
        PromptQueue(0)


def test_the_queue_keeps_a_context_as_it_was():
    queue, context = PromptQueue(2), jt.zeros((1, 2))
    queue.push(context)
    context.update(context + 1)
    np.testing.assert_array_equal(queue.contexts(), np.zeros((1, 1, 2)))


def test_weights_of_queue_and_handcrafted(small_clip):
    learner = PromptLearner(small_clip, NAMES)
    contexts = np.stack([learner.context.numpy(), learner.context.numpy() + 0.3])
    prompts = [[f"a {name}", f"a drawing of a {name}"] for name in NAMES]
    queue = queue_features(small_clip, learner, contexts).numpy()
    each = [learner.text_features(small_clip, c).numpy() for c in contexts]
    mean = (each[0] + each[1]) / 2
    np.testing.assert_allclose(queue, mean / np.linalg.norm(mean, axis=1, keepdims=True),
                               atol=1e-6)
    handcrafted = class_features(small_clip, prompts).numpy()
    for weight, expected in ((0.0, handcrafted), (1.0, queue), (0.3, unit_norm(
            jt.array(0.3 * queue + 0.7 * handcrafted)).numpy())):
        ours = classifier_features(small_clip, learner, contexts, prompts, weight).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_class_features_are_means_of_unit_features(small_clip):
    prompts = [["a cat", "a small photo of a cat"], ["a dog"], ["a cat", "a kite", "a dog"]]
    ours = class_features(small_clip, prompts, batch_size=2).numpy()
    for row, texts in zip(ours, prompts):
        each = unit_norm(small_clip.encode_text(tokenize_prompts(small_clip, texts))).numpy()
        mean = each.mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-5)


def hidden_world(small_clip, seed=0):
    """Eight classes of names that say nothing, whose images show what a context unknown to us says.

    Returns:
        (learner, hidden, images): the `PromptLearner` that starts from "a photo of a"; the context
        (M, W) under which the texts are the images' centres; images(noise, seed), which draws
        16 images a class: features (128, D) and labels (128,).
    """
    learner = PromptLearner(small_clip, [f"qzx{letter}" for letter in "abcdefgh"])
    random = np.random.RandomState(seed)
    hidden = random.normal(size=learner.context.shape).astype(np.float32)
    centres = learner.text_features(small_clip, hidden).numpy()
    centres -= centres.mean(axis=0)  # what differs between the classes, which few channels show
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(8), 16)

    def images(noise, seed):
        drawn = centres[labels] + noise * np.random.RandomState([7, seed]).normal(
            size=(len(labels), centres.shape[1])) / np.sqrt(centres.shape[1])
        return unit_norm(jt.array(drawn.astype(np.float32))), labels

    return learner, hidden, images


def accuracy(image_features, text_features, labels):
    logits = image_features.numpy() @ (text_features - text_features.mean(dim=0)).numpy().T
    return (logits.argmax(axis=1) == labels).mean()


def test_a_learned_prompt_tells_classes_whose_names_do_not(small_clip):
    freeze(small_clip)
    learner, _, images = hidden_world(small_clip)
    training, labels = images(0.5, seed=1)
    fresh, _ = images(0.5, seed=2)
    before = accuracy(fresh, learner.text_features(small_clip), labels)
    learner.context.start_grad()
    optimizer = jt.optim.AdamW([learner.context], lr=0.1)
    for _ in range(100):
        text = learner.text_features(small_clip)
        logits = 20 * jt.nn.matmul_transpose(training, text - text.mean(dim=0))
        optimizer.step(jt.nn.cross_entropy_loss(logits, jt.array(labels)))
    after = accuracy(fresh, learner.text_features(small_clip), labels)
    assert before < 0.4 and after > 0.65


def test_the_mean_over_the_queue_is_steadier_than_contexts_that_jump_about(small_clip):
    learner, hidden, images = hidden_world(small_clip)
    features, labels = images(0.5, seed=2)
    alone, together = [], []
    for seed in range(20):
        queue = PromptQueue(3)
        for epoch in range(4):  # of which the last three are kept
            jump = np.random.RandomState([seed, epoch]).normal(size=hidden.shape)
            queue.push(hidden + 0.15 * jump.astype(np.float32))
        alone.append(accuracy(features, queue_features(small_clip, learner,
                                                       queue.contexts()[-1:]), labels))
        together.append(accuracy(features, queue_features(small_clip, learner, queue.contexts()),
                                 labels))
    assert np.mean(together) > np.mean(alone) + 0.1
    assert np.std(together) < 0.6 * np.std(alone)


def test_long_prompts_are_left_out_but_never_all():
    prompts = [["a cat", "a cat on the mat"], ["a very long text", "a longer text by far"]]
    assert without_long_prompts(prompts, 5) == [["a cat"], ["a very long text"]]
    assert without_long_prompts(prompts, None) == prompts


def test_an_empty_start_is_refused(small_clip):
    with pytest.raises(UserError, match="prompt.init"):
        PromptLearner(small_clip, NAMES, " ")
