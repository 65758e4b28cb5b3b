"""What both sides of benchmarks/run.py work on: weights, images, texts, features, from seeds.

Needs NumPy alone (and Pillow to write pictures), and gives both sides the same arrays.
"""

import json
import os

import numpy as np

from tests.reference.weights import clip_shapes, random_images, random_state

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_TEXT = {"text_width": 512, "text_layers": 12, "embed_dim": 512}
MODELS = {
    "ViT-B/32": dict(width=768, layers=12, patch_size=32, image_size=224, **_TEXT),
    "ViT-B/16": dict(width=768, layers=12, patch_size=16, image_size=224, **_TEXT),
    "tiny": dict(width=64, layers=2, patch_size=16, image_size=32, text_width=64, text_layers=2,
                 embed_dim=32)}
CONTEXT_LENGTH = 77
CONTEXT_WORDS = "a photo of a"  # the learned context starts from them
LOGIT_SCALE = 100.0
# The challenge's 374 base classes by domain, then its 29 new ones.
DOMAINS = {"Animal": 52, "Caltech-101": 91, "Food-101": 101, "Thu-dog": 130, "Stanford-Cars": 29}
# LP++'s settings, those of its paper.
HEAD = {"momentum": 0.9, "alpha_every": 10, "alpha_init": 250.0, "weight_decay": 3e-4}
# AdamW's, of one training step.
LEARNING_RATE, WEIGHT_DECAY = 2e-4, 1e-2


def clip_state(model):
    """{OpenAI's name: float32 array} of a model of `MODELS`."""
    return random_state(clip_shapes(context_length=CONTEXT_LENGTH, **MODELS[model]))


def images(model, n_images):
    """Preprocessed images, float32 (n_images, 3, S, S)."""
    return random_images(n_images, MODELS[model]["image_size"])


def classes(n_classes):
    """The first classes of the challenge's kind.

    Returns:
        list of (domain, key in its prompt file, entry there, templates there).
    """
    found = []
    for domain, n_domain in DOMAINS.items():
        with open(os.path.join(ROOT, "prompts", f"{domain}.json"), encoding="utf-8") as file:
            content = json.load(file)
        found += [(domain, key, entry, content["templates"])
                  for key, entry in list(content["classes"].items())[:n_domain]]
    return found[:n_classes]


def class_names(n_classes):
    """Names as a caption has them."""
    return [entry.get("name", key.replace("_", " ")) for _, key, entry, _ in classes(n_classes)]


def class_prompts(n_classes, n_prompts):
    """List (C) of lists of texts: each class's descriptions, then its domain's templates."""
    return [(entry.get("descriptions", []) + [template.format(name) for template in templates])
            [:n_prompts] for name, (_, _, entry, templates)
            in zip(class_names(n_classes), classes(n_classes))]


def drawn_prompts(n_classes):
    """One handcrafted prompt of each class, as a training step draws them."""
    random = np.random.RandomState(3)
    return [prompts[random.randint(len(prompts))] for prompts in class_prompts(n_classes, 12)]


def targets(n_classes, batch):
    """Labels of a batch, int64 (batch,)."""
    return np.random.RandomState(4).randint(0, n_classes, batch)


def lora_weights(model, rank):
    """LoRA's matrices as after some training, for q, k and v of every block.

    Returns:
        {'vision' or 'text': (down, up)}: float32 (layers, 3, R, W) and (layers, 3, W, R).
    """
    sizes, random, weights = MODELS[model], np.random.RandomState(5), {}
    for tower, prefix in (("vision", ""), ("text", "text_")):
        W, layers = sizes[prefix + "width"], sizes[prefix + "layers"]
        down = random.uniform(-1, 1, (layers, 3, rank, W)) / np.sqrt(W)
        up = random.normal(0, 0.01, (layers, 3, W, rank))
        weights[tower] = down.astype(np.float32), up.astype(np.float32)
    return weights


def head_data(sizes):
    """Features, labels and texts to fit a head on; zero-shot, about half would be right.

    Classes overlap as CLIP's do: they differ in a few directions alone.

    Returns:
        features (N, D), unit norm, labels int64 (N,), texts (C, D), unit norm.
    """
    random, C, D, n_directions = np.random.RandomState(6), sizes["classes"], sizes["width"], 24
    directions = random.normal(size=(n_directions, D)) / np.sqrt(n_directions)

    def around(centres, spread):
        return centres + spread * random.normal(size=centres.shape)

    def features(places):  # images and texts lie apart
        return unit_rows(places @ directions + 1.5 * random.normal(size=D))

    centres = random.normal(size=(C, n_directions))
    texts = features(around(centres, 0.5))
    labels = np.repeat(np.arange(C), sizes["shots"])
    pictures = around(centres[labels], 1.0)
    views = around(np.repeat(pictures, sizes["views"], axis=0), 0.3)
    return features(views), np.repeat(labels, sizes["views"]), texts


def mta_data(sizes):
    """Views' features and texts; some views of each image lie far from the others.

    An image is near enough to its class's text that its views' predictions are mixed.

    Returns:
        views (B, V, D) and texts (C, D), both unit norm.
    """
    random, D = np.random.RandomState(8), sizes["width"]
    texts = unit_rows(random.normal(size=(sizes["classes"], D)) + random.normal(size=D))
    own = texts[random.randint(0, len(texts), sizes["images"])]
    own = unit_rows(0.15 * own + unit_rows(random.normal(size=own.shape)))[:, None]
    spread = random.choice([0.01, 0.02, 0.05], (sizes["images"], sizes["views"], 1))
    return unit_rows(own + spread * random.normal(size=(*spread.shape[:2], D))), texts


def unit_rows(values):
    """float32, the last axis of length 1."""
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def write_photo(path, seed, size=(500, 375)):
    """A JPEG with coarse and fine detail, as photos have: noise of every scale."""
    from PIL import Image

    random, pixels = np.random.RandomState(seed), 0
    for cells in (3, 6, 12, 25, 50, 125, 375):
        grid = random.randint(0, 256, (cells, cells * 4 // 3, 3), np.uint8)
        grown = Image.fromarray(grid).resize(size, Image.BICUBIC)
        pixels = pixels + (np.asarray(grown, np.float32) - 128) / cells ** 0.6
    pixels = np.clip(128 + pixels, 0, 255).astype(np.uint8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Image.fromarray(pixels).save(path, quality=90)


def transformer_flops(width, layers, lengths):
    """Of the products of a transformer for rows of these lengths.

    A token costs 12 width² products in a block (4 around attention, 8 in the MLP), each a
    multiplication and an addition; attention 2 width for each pair of tokens.
    """
    lengths = np.asarray(lengths, np.float64)
    return float(layers * (24 * width ** 2 * lengths.sum() + 4 * width * (lengths ** 2).sum()))


def image_flops(model, n_images):
    """Of the image encoder."""
    sizes = MODELS[model]
    n_patches = (sizes["image_size"] // sizes["patch_size"]) ** 2
    patches = 2 * n_patches * 3 * sizes["patch_size"] ** 2 * sizes["width"]
    tokens = transformer_flops(sizes["width"], sizes["layers"], [n_patches + 1])
    return n_images * (patches + tokens)


def text_flops(model, lengths):
    """Of the text encoder for texts of these numbers of tokens, with start and end."""
    return transformer_flops(MODELS[model]["text_width"], MODELS[model]["text_layers"], lengths)
