"""Text features of classes: from handcrafted prompts, and from a learned context.

The context is CoOp's (Zhou et al. 2021, arXiv 2109.01134), M token embeddings shared by all
classes; a queue keeps its states of some epochs apart, whose features are averaged with those
of the handcrafted prompts.

Ours (the queue and the handcrafted prompts are the challenge entry's):
- The context learns beside LoRA for a few epochs and is then frozen, by AdamW at 2e-4 with a cosine
  schedule that ends at 0, as embeddings are about 0.01 large; the authors train it alone, by SGD at
  2e-3 for 50 to 200 epochs. Longer or faster, it was worse than the handcrafted prompts.
- A step's loss is the cross-entropy with the learned prompt of each class, or, by turns, with a
  handcrafted one that is drawn for each, so that LoRA learns for both (train.py). The mean of both
  in every step gives the same accuracy for twice the texts (benchmarks/RESULTS.md). Of many classes
  a step takes some (models/sampled_classes.py), where CoOp takes all.
- It starts from words, of which M is the number of tokens; their default is 16 random vectors.
- The classifier is a mean of features over contexts and handcrafted prompts, not the last context.
- A text that is too long for the model is cut, with a warning where classes become alike by it.
"""

import collections
import warnings

import jittor as jt
import numpy as np
from jittor import nn

from models import jclip
from models.jclip.model import unit_norm
from system import parallel
from system.errors import UserError
from system.runtime import mixed_precision
from system.untrusted import shown


def tokenize_prompts(model, texts):
    """Tokens int32 (N, context_length) for this model; a text that is too long is cut."""
    return jclip.tokenize(texts, context_length=model.sizes.context_length, truncate=True)


def encode_texts(model, texts, batch_size=256):
    """Unit-norm features of texts, without gradient.

    Equal texts are encoded once, texts of like length together: each batch works on its own
    longest text. The batches are shared among the processes, each of which must call this.

    Returns:
        Var (N, D).
    """
    distinct = list(dict.fromkeys(texts))
    tokens = tokenize_prompts(model, distinct)
    _warn_of_alike(distinct, tokens)
    order = np.argsort(tokens.argmax(axis=1), kind="stable")
    features = np.zeros((len(distinct), model.sizes.embed_dim), np.float32)
    with jt.no_grad(), mixed_precision():
        starts = range(0, len(order), batch_size)
        for start in starts[parallel.rank()::parallel.size()]:
            rows = order[start:start + batch_size]
            features[rows] = unit_norm(model.encode_text(tokens[rows])).numpy()
    features = parallel.sum_all(features)
    place = {text: i for i, text in enumerate(distinct)}
    return jt.array(features[[place[text] for text in texts]])


def _warn_of_alike(texts, tokens):
    """Warn of texts that are cut before they differ; tokens: int32 (N, L)."""
    first = {}
    for i in np.flatnonzero(tokens.argmax(axis=1) == tokens.shape[1] - 1):
        other = first.setdefault(tokens[i].tobytes(), i)
        if other != i:
            warnings.warn(f"the model reads {tokens.shape[1] - 2} tokens of a text, and up to "
                          f"there {shown(texts[other])} and {shown(texts[i])} are alike; shorten "
                          "the names of such classes", stacklevel=3)
            return


def class_features(model, prompts, batch_size=256):
    """The unit-norm mean of the features of each class's prompts.

    Args:
        model: CLIP.
        prompts: list (C) of lists of texts, none empty.

    Returns:
        Var (C, D).
    """
    features = encode_texts(model, [t for texts in prompts for t in texts], batch_size).numpy()
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([rows.mean(axis=0) for rows in np.split(features, ends[:-1])])
    return unit_norm(jt.array(means))


def handcrafted_prompts(library, class_names, settings):
    """The handcrafted prompts of classes.

    Args:
        library: `prompts.PromptLibrary`.
        class_names: list (C) of `data.lists.ClassName`.
        settings: the config's section `prompts`.

    Returns:
        list (C) of lists of texts, none empty.
    """
    return without_long_prompts(
        [library.prompts(c, settings.general, settings.domain, settings.descriptions)
         for c in class_names], settings.max_tokens)


def without_long_prompts(prompts, max_tokens):
    """Leave out prompts of more than `max_tokens` tokens, but each class's shortest stays.

    Args:
        prompts: list (C) of lists of texts.
        max_tokens: longest prompt to keep, counted with start and end; None keeps all.
    """
    if max_tokens is None:
        return prompts

    def length(text):
        return len(jclip.tokenizer.encode(text)) + 2

    return [[t for t in texts if length(t) <= max_tokens] or [min(texts, key=length)]
            for texts in prompts]


class PromptLearner(nn.Module):
    """A learned context in front of each class's name: '[v_1] … [v_M] name.'

    Args:
        model: CLIP, whose embeddings of `init` the context starts from.
        class_names: list (C) of texts.
        init: words whose tokens' number is M.

    Attributes:
        context: Var (M, W), the parameter.
    """

    def __init__(self, model, class_names, init="a photo of a"):
        n_context = len(jclip.tokenizer.encode(init))
        if n_context == 0:
            raise UserError("prompt.init is empty; it must hold the words to start from")
        self._tokens = tokenize_prompts(model, [f"{init} {name}." for name in class_names])
        self._ends = self._tokens.argmax(axis=1)
        start = jt.array(self._tokens[:1, 1:1 + n_context])
        self.context = model.token_embedding(start)[0].detach().clone()

    @property
    def length(self):
        """Tokens of the longest text."""
        return int(self._ends.max()) + 1

    def text_features(self, model, context=None, rows=None):
        """Unit-norm features of classes.

        Args:
            model: CLIP, tuned or not; gradients reach what of it is not frozen.
            context: Var or array (M, W) in the parameter's place.
            rows: which classes, a slice or integers; all by default.

        Returns:
            Var (C, D).
        """
        context = self.context if context is None else jt.array(context)
        rows = slice(None) if rows is None else rows
        tokens, ends = self._tokens[rows], self._ends[rows]
        C, (M, W) = len(tokens), context.shape
        words = model.token_embedding(jt.array(tokens[:, :int(ends.max()) + 1]))  # (C, L, W)
        shared = context.unsqueeze(0).broadcast((C, M, W))
        embeddings = jt.concat([words[:, :1], shared, words[:, 1 + M:]], dim=1)
        return unit_norm(model.encode_embeddings(embeddings, ends))


class PromptQueue:
    """The learned contexts of some epochs apart; a new one pushes out the oldest.

    Args:
        length: K, contexts kept.
    """

    def __init__(self, length):
        if length < 1:
            raise UserError(f"prompt.queue_length is {length}; it must be at least 1")
        self._contexts = collections.deque(maxlen=length)

    def push(self, context):
        """Take a context, array or Var (M, W), as it is now."""
        if isinstance(context, jt.Var):
            context = context.numpy()
        self._contexts.append(np.array(context, np.float32))

    def contexts(self):
        """Array (k, M, W) with k ≤ K, oldest first."""
        return np.stack(self._contexts)

    def __len__(self):
        return len(self._contexts)


def queue_features(model, learner, contexts):
    """The mean over contexts of each class's features, with the model as it is now.

    Args:
        model: CLIP.
        learner: `PromptLearner` of the classes.
        contexts: array (k, M, W).

    Returns:
        Var (C, D), unit norm, without gradient.
    """
    with jt.no_grad(), mixed_precision():
        features = [learner.text_features(model, context) for context in contexts]
        return unit_norm(sum(features) / len(features))


def classifier_features(model, learner, contexts, handcrafted, queue_weight):
    """The classifier's text features: learned and handcrafted by weight, renormalised.

    Args:
        model: CLIP, as tuned as it is now.
        learner: `PromptLearner` of the classes.
        contexts: array (k, M, W) of the queue.
        handcrafted: list (C) of lists of texts.
        queue_weight: share of the learned prompts in [0, 1].

    Returns:
        Var (C, D), unit norm, without gradient.
    """
    with jt.no_grad():
        return unit_norm(queue_weight * queue_features(model, learner, contexts)
                         + (1 - queue_weight) * class_features(model, handcrafted))
