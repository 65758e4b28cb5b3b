"""MTA (Zanella and Ben Ayed 2024, arXiv 2405.02266), image by image, with its authors' settings.

Over the mode m and the inlierness y of an image's views it maximises the density around m,
weighted by y, plus λ_q times the agreement of the views' predictions plus λ_y times y's entropy,
by turns of a fixed-point iteration for y and mean shift for m.
"""

import torch

from benchmarks import inputs
from benchmarks.reference.device import arrays, synchronise, tensor
from benchmarks.worker import Work

LAMBDA_Y, LAMBDA_Q, NEAREST = 0.2, 4.0, 0.3
MAX_ITERATIONS, THRESHOLD = 5, 1e-6


@torch.inference_mode()
def solve_mta(views, texts, logit_scale):
    """The mode of an image's views.

    Args:
        views: tensor (V, D), unit norm; the first is the whole image.
        texts: tensor (C, D), unit norm.
        logit_scale: float.

    Returns:
        tensor (D,), unit norm.
    """
    V = len(views)
    distances = torch.cdist(views, views).sort(dim=1).values ** 2
    n_nearest = max(1, int(NEAREST * (V - 1)))
    bandwidth = distances[:, 1:1 + n_nearest].mean(dim=1)  # h², (V,)
    predictions = (logit_scale * views @ texts.T).softmax(dim=1)  # (V, C)
    agreement = predictions @ predictions.T

    def density(mode):
        return torch.exp(-((views - mode) ** 2).sum(dim=1) / bandwidth)

    mode, inlierness = views[0], torch.full_like(bandwidth, 1 / V)
    for _ in range(MAX_ITERATIONS):
        around = density(mode)
        for _ in range(MAX_ITERATIONS):
            before = inlierness
            support = agreement @ inlierness
            inlierness = ((around + LAMBDA_Q * support) / LAMBDA_Y).softmax(dim=0)
            if torch.norm(inlierness - before) < THRESHOLD:
                break
        for _ in range(MAX_ITERATIONS):
            before = mode
            weights = density(mode) * inlierness
            mode = weights @ views / weights.sum()
            mode = mode / mode.norm()
            if torch.norm(mode - before) < THRESHOLD:
                break
    return mode


def modes(sizes, folder):
    """`Work` of the pair mta."""
    views, texts = (tensor(part) for part in inputs.mta_data(sizes))

    def run():
        found = torch.stack([solve_mta(each, texts, inputs.LOGIT_SCALE) for each in views])
        synchronise()
        return found

    return Work(run, lambda: arrays(modes=run()))
