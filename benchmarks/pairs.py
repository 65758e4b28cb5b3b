"""The pairs that benchmarks/run.py measures: their sizes, targets and how far results may differ.

Their inputs are in benchmarks/inputs.py. Both sides import it, so it needs nothing but NumPy.
"""

from typing import Callable, NamedTuple

import numpy as np


def relative_difference(ours, reference):
    """Largest difference over all arrays, each in units of its largest value.

    Args:
        ours, reference: {name: array}.
    """
    return max(np.abs(ours[name] - reference[name]).max() / np.abs(reference[name]).max()
               for name in reference)


def mean_difference(ours, reference):
    """Mean absolute difference of the array 'pixels', in its own units."""
    return np.abs(ours["pixels"] - reference["pixels"]).mean()


def share_unlike(ours, reference):
    """Share of the entries of the array 'labels' that differ."""
    return (ours["labels"] != reference["labels"]).mean()


class Pair(NamedTuple):
    """The same work done by both sides.

    Attributes:
        target: how many times as fast ours is to be.
        sizes: {name: value} that decides the work.
        quick: the sizes that differ in a trial run.
        tolerance: a larger `difference` of the results makes the pair not count.
        difference: function of both sides' {name: array}.
        unit: of the difference, in words.
        warm_ups: runs of each side that are not counted, beside the one whose results are
            compared.
    """

    target: float
    sizes: dict
    quick: dict
    tolerance: float
    difference: Callable = relative_difference
    unit: str = "of the largest value"
    warm_ups: int = 1


# Where both sides round factors to bfloat16. At random weights features are 0.05 apart then, and
# a training step's gradients 0.18 (ours) and 0.24 (PyTorch's) from those in float32.
BFLOAT16_TOLERANCE = 0.3

IMAGE = {"model": "ViT-B/32", "batch": 32}
TRAINING = {"model": "ViT-B/32", "classes": 374, "batch": 32, "rank": 4}
HEAD = {"classes": 374, "shots": 4, "views": 16, "width": 512, "epochs": 300,
        "merged": 0}  # 1: PyTorch's side adds the text to the weights, and needs one product
MTA = {"images": 256, "views": 64, "classes": 403, "width": 512}

PAIRS = {
    "image-b32": Pair(1.2, IMAGE, {"model": "tiny", "batch": 4}, 1e-4, warm_ups=2),
    "image-b32-one": Pair(1.2, {**IMAGE, "batch": 1}, {"model": "tiny"}, 1e-4, warm_ups=5),
    "image-b16": Pair(1.1, {"model": "ViT-B/16", "batch": 16}, {"model": "tiny", "batch": 4},
                      1e-4),
    "text": Pair(3.0, {"model": "ViT-B/32", "classes": 403, "prompts": 8},
                 {"model": "tiny", "classes": 12, "prompts": 3}, 1e-4, warm_ups=0),
    "train-step": Pair(3.0, TRAINING, {"model": "tiny", "classes": 12, "batch": 4}, 2e-3),
    "head": Pair(3.0, HEAD, {"classes": 12, "views": 2, "width": 32, "epochs": 40}, 1e-3),
    "mta": Pair(10.0, MTA, {"images": 6, "views": 16, "classes": 20, "width": 32}, 1e-3),
    # The reference cuts before it resizes, so that at a crop's edge it repeats what ours reads
    # from the picture around it.
    "crops": Pair(3.0, {"images": 8, "views": 64, "side": 224},
                  {"images": 2, "views": 4, "side": 32}, 0.2,
                  mean_difference, "grey levels of 255 on average"),
    "test": Pair(1.5, {"model": "ViT-B/32", "classes": 403, "new": 29, "images": 500,
                       "views": 32, "batch": 16, "enlarged": 2},
                 {"model": "tiny", "classes": 12, "new": 3, "images": 6, "views": 4, "batch": 2,
                  "enlarged": 1},
                 0.01, share_unlike, "of the likeliest labels", warm_ups=0),
}
