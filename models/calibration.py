"""Probabilities that mean what they say: temperature scaling.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 4.2.

Ours: the minimum by bisection, where the authors' code takes steps of L-BFGS from 1.5.
"""

import numpy as np

TEMPERATURES = (1e-2, 1e2)  # looked through; outside it no image's probability would be left


def probabilities(logits, temperature=1.0):
    """Softmax of logits (N, C) divided by a temperature; float64 array (N, C)."""
    scaled = np.asarray(logits, np.float64) / temperature
    odds = np.exp(scaled - scaled.max(axis=1, keepdims=True, initial=-np.inf))
    return odds / odds.sum(axis=1, keepdims=True)


def fit_temperature(logits, labels):
    """The temperature with the smallest negative log-likelihood of images not trained on.

    With β = 1/T, the likelihood's L(β) = mean over images of log Σ_c exp(β z_c) − β z_y is
    convex, and its derivative mean(Σ_c p_c z_c − z_y) rises with β: so halving an interval of
    log T finds where it changes sign. Where it does not (all images right by far, or no
    better than chance), the nearer end of `TEMPERATURES` is what is left.

    Args:
        logits: array (N, C).
        labels: int array (N,), columns of the right classes.

    Returns:
        float; 1.0 for no images.
    """
    if len(labels) == 0:
        return 1.0
    logits = np.asarray(logits, np.float64)
    right = logits[np.arange(len(labels)), labels]
    low, high = np.log(TEMPERATURES)
    for _ in range(50):
        middle = (low + high) / 2
        expected = (probabilities(logits, np.exp(middle)) * logits).sum(axis=1)
        if (expected - right).mean() > 0:  # too sure: T must grow
            low = middle
        else:
            high = middle
    return float(np.exp((low + high) / 2))


def by_logit(logits):
    """Columns of logits (N, C) from the largest to the smallest; equal ones by number."""
    return np.argsort(-logits, axis=1, kind="stable")


def recall_threshold(scores, recall):
    """The highest score that a share `recall` of the scores (N,) reaches."""
    n_reaching = max(1, int(np.ceil(recall * len(scores) - 1e-9)))
    return float(np.sort(scores)[-n_reaching])
