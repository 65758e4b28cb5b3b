"""Trains the sample set's small CLIP from scratch on generated pictures and captions.

    python -m sample.pretrain [--seed 1] [--steps 2500] [--output FILE]

Pictures come from `sample.world` in the style SKETCH; captions tell their domain, attributes and
sometimes colours. Several pictures of a batch may fit a caption, so the loss is UniCL's (Yang
et al. 2022, arXiv 2204.03610): the target of a row is shared by all that fit.
"""

import itertools
import math
import multiprocessing
import re
import time

from system import runtime
from system.errors import log, run_script, run_to_the_end

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import jittor as jt
import numpy as np
from jittor import nn
from tqdm import trange

from configs.command_line import Parser
from data.views import random_crop
from models import jclip
from models.jclip.model import CLIP, unit_norm
from models.jclip.preprocess import normalise
from models.jclip.sizes import CLIPSizes, TowerSizes
from models.jclip.tokenizer import END_OF_TEXT, START_OF_TEXT, encode
from sample.painting import COLOURS, SKETCH, random_colours
from sample.world import DOMAINS, draw
from system.files import write_pickle
from system.places import home

IMAGE_SIZE, CONTEXT_LENGTH = 56, 24
PICTURE_SIZE = 64          # what is drawn; crops of it are resized to IMAGE_SIZE
SCALE = (0.6, 1.0)         # area of the crops
POOL, FRESH = 8192, 48     # pictures kept, and how many of them each step draws anew
BATCH = 128
LR, WEIGHT_DECAY, WARM_UP = 1e-3, 0.05, 100  # AdamW, cosine; steps of warm-up
TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}.", "a photo of the {}", "a picture of a {}",
             "a drawing of a {}", "a painting of a {}.", "an image of a {}", "a small {}",
             "a large {}", "this is a {}.", "one {} in a picture", "a sketch of a {}",
             "a blurry photo of a {}", "a bright photo of a {}", "a dark painting of a {}")


def main():
    parser = Parser(__doc__.splitlines()[0], prog="python -m sample.pretrain")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--output", type=home, default="cache/sample/clip.pkl",
                        help="the shipped file is test_pkl/sample/clip.pkl")
    arguments = parser.read()
    with multiprocessing.get_context("fork").Pool(2) as workers:  # before Jittor computes
        runtime.use_accelerator()
        np.random.seed(arguments.seed)
        jt.set_global_seed(arguments.seed)
        rows = known_tokens()
        model = CLIP(CLIPSizes(vision=TowerSizes(128, 5, 2), image_size=IMAGE_SIZE, patch_size=8,
                               text=TowerSizes(128, 3, 2), context_length=CONTEXT_LENGTH,
                               vocab_size=len(rows), embed_dim=128))
        initialise(model)
        train(model, rows, workers, arguments.seed, arguments.steps, arguments.output)


def save(path, model, rows):
    """Weights in float16 with OpenAI's names; of the embedding only the rows of known tokens."""
    state = {name: p.numpy().astype(np.float16) for name, p in model.named_parameters()}
    write_pickle(path, {**state, "token_embedding.rows": rows})


def known_tokens():
    """The ids that captions can hold, ascending: the model has embeddings for these alone."""
    texts = [START_OF_TEXT, END_OF_TEXT, "a and ,", *COLOURS, *TEMPLATES]
    for kind in DOMAINS.values():
        texts += [*kind.phrases, *itertools.chain(*kind.attributes)]
    ids = itertools.chain(*(encode(re.sub(r"{.?}", "", text)) for text in texts))
    return np.array(sorted(set(ids)), np.int32)


def initialise(model):
    """OpenAI's initial values (`CLIP.initialize_parameters`)."""
    for tower, width in ((model.visual, model.sizes.vision.width),
                         (model, model.sizes.text.width)):
        n_layers = len(tower.transformer.resblocks)
        for name, p in tower.transformer.named_parameters():
            if name.endswith("bias"):
                jt.init.constant_(p, 0.0)
            elif ".ln_" not in name:
                std = {"in_proj_weight": width ** -0.5, "c_fc.weight": (2 * width) ** -0.5}.get(
                    name.split(".", 3)[-1].replace("attn.", "").replace("mlp.", ""),
                    width ** -0.5 * (2 * n_layers) ** -0.5)
                jt.init.gauss_(p, 0.0, std)
    visual, width = model.visual, model.sizes.vision.width
    for p in (visual.class_embedding, visual.positional_embedding, visual.proj):
        jt.init.gauss_(p, 0.0, width ** -0.5)
    jt.init.gauss_(model.token_embedding.weight, 0.0, 0.02)
    jt.init.gauss_(model.positional_embedding, 0.0, 0.01)
    jt.init.gauss_(model.text_projection, 0.0, model.sizes.text.width ** -0.5)


def train(model, rows, workers, seed, n_steps, output):
    """Contrastive training; row i of the model's embedding is token rows[i]."""
    numbers = itertools.count()

    def paint(n):
        return workers.imap(picture, [(seed, next(numbers)) for _ in range(n)], chunksize=16)

    pool = list(paint(POOL))
    fresh = paint(FRESH)
    optimizer = jt.optim.AdamW(list(model.parameters()), lr=0.0, weight_decay=WEIGHT_DECAY,
                               betas=(0.9, 0.98))
    random = np.random.default_rng([seed, 0])
    crops_random = np.random.RandomState([seed, 1])
    losses, hits, started = [], [], time.time()
    with trange(n_steps, desc="pre-training", unit="step") as bar:
        for step in bar:
            arriving, fresh = fresh, paint(FRESH)
            pool[step * FRESH % POOL:step * FRESH % POOL + FRESH] = list(arriving)
            chosen = [pool[i] for i in random.choice(POOL, BATCH, replace=False)]
            pixels = np.stack([random_crop(image, IMAGE_SIZE, SCALE, crops_random)
                               for image, _ in chosen])
            captions, said = zip(*[caption(facts, random) for _, facts in chosen])
            # Padding, which nothing sees, becomes row 0.
            tokens = jclip.tokenize(list(captions), CONTEXT_LENGTH)
            tokens = np.searchsorted(rows, tokens).astype(np.int32)
            fits = np.array([[claim <= facts for claim in said] for _, facts in chosen])
            optimizer.lr = LR * min((step + 1) / WARM_UP,
                                    (1 + math.cos(math.pi * step / n_steps)) / 2)
            loss, logits = contrast(model, pixels, tokens, fits)
            optimizer.step(loss)
            losses.append(float(loss.item()))
            hits.append(fits[np.arange(BATCH), logits.numpy().argmax(axis=1)].mean())
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}",
                            accuracy=f"{100 * np.mean(hits[-50:]):.1f}")
            if (step + 1) % 200 == 0:
                log(f"step {step + 1}: loss {np.mean(losses[-200:]):.3f}, "
                    f"{100 * np.mean(hits[-200:]):.1f} % of {BATCH} pictures matched")
                save(output, model, rows)
    log(f"{n_steps} steps in {(time.time() - started) / 60:.1f} minutes")


def contrast(model, pixels, tokens, fits):
    """UniCL's loss of a batch, and its logits (B images, B texts); `fits` bool, likewise."""
    images = unit_norm(model.encode_image(normalise(pixels)))
    # All of the context, where encode_text would compile kernels for each batch's longest text.
    texts = unit_norm(model.encode_embeddings(model.token_embedding(jt.array(tokens)),
                                              tokens.argmax(axis=1)))
    logits = model.logit_scale.exp().clamp(max_v=100.0) * nn.matmul_transpose(images, texts)
    loss = 0
    for axis in (0, 1):
        target = jt.array((fits / fits.sum(axis=axis, keepdims=True)).astype(np.float32))
        shifted = logits - logits.max(dim=axis, keepdims=True)
        log_p = shifted - jt.log(shifted.exp().sum(dim=axis, keepdims=True))
        loss = loss - (target * log_p).sum() / len(pixels) / 2
    return loss, logits


def picture(key):
    """(PIL image, facts) number `key` = (seed, i) of the training pictures."""
    rng = np.random.default_rng([*key, 2])
    domain = list(DOMAINS)[rng.integers(len(DOMAINS))]
    kind = DOMAINS[domain]
    values = tuple(options[rng.integers(len(options))] for options in kind.attributes)
    if kind.coloured:
        while len(set(values)) < 2:
            values = tuple(options[rng.integers(len(options))] for options in kind.attributes)
        colours = values
    else:
        colours = random_colours(rng)
    facts = {("domain", domain), ("main", colours[0]), ("second", colours[1]),
             *enumerate(values)}
    return draw(domain, values, SKETCH, PICTURE_SIZE, rng, colours), facts


def caption(facts, random):
    """A caption of a picture, and the facts that it claims."""
    known = dict(facts)
    domain = known["domain"]
    kind = DOMAINS[domain]
    phrases = kind.phrases
    text = phrases[random.integers(len(phrases))].format(
        *(known[i] for i in range(len(kind.attributes))))
    claim = {("domain", domain), *((i, known[i]) for i in range(len(kind.attributes)))}
    if not kind.coloured and random.random() < 0.35:
        text = f"{known['main']} {text}" if random.random() < 0.5 else f"{text}, {known['main']}"
        claim.add(("main", known["main"]))
        if random.random() < 0.4:
            text = f"{text} and {known['second']}"
            claim.add(("second", known["second"]))
    return TEMPLATES[random.integers(len(TEMPLATES))].format(text), claim


if __name__ == "__main__":
    run_to_the_end(main)
