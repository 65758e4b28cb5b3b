"""Random CLIP weights and inputs that tests and the reference script make alike."""

import zlib

import numpy as np


def random_state(shapes):
    """{name: float32 array}, each from its own name's seed.

    Args:
        shapes: {name: shape}. The sizes make attention and the MLPs matter.
    """
    state = {}
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        if name == "logit_scale":
            state[name] = np.full(shape, 2.5, np.float32)
        elif "ln_" in name and name.endswith("weight"):
            state[name] = 1 + random.normal(0, 0.1, shape).astype(np.float32)
        else:
            spread = 0.5 if "embedding" in name else 2 / np.sqrt(shape[-1])
            state[name] = random.normal(0, spread, shape).astype(np.float32)
    return state


def random_images(n_images, size):
    """Preprocessed images, float32 (n_images, 3, size, size)."""
    return np.random.RandomState(7).normal(size=(n_images, 3, size, size)).astype(np.float32)


# "a cat", "a photo of a small brown dog.", "two birds" in OpenAI's tokens
TOKENS = np.zeros((3, 24), np.int32)
for row, ids in zip(TOKENS, ([320, 2368], [320, 1125, 539, 320, 2442, 2866, 1929, 269],
                             [1237, 4337])):
    row[:len(ids) + 2] = [49406, *ids, 49407]
