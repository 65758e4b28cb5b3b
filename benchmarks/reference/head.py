"""LP++ (Huang et al. 2024, arXiv 2404.02285), with a learned scale of each channel
and penalties on the classifier and the scales.

As the authors' code does it: logits, cross-entropy, gradients by autograd, gradient descent with
momentum on the classifier, a step of α every tenth epoch with its gradients since the last.
The step sizes are those that models/lp_plus_plus.py derives.
"""

import torch
import torch.nn.functional as F

from benchmarks import inputs
from benchmarks.reference.device import arrays, synchronise, tensor
from benchmarks.worker import Work


def fit(features, labels, texts, epochs, merged=False):
    """Learn the head.

    Args:
        features: tensor (N, D), unit norm.
        labels: int64 tensor (N,).
        texts: tensor (C, D), unit norm.
        epochs: full-batch steps.
        merged: one product with w + α t, which the authors' code does not do, in the place of
            two, with w and with t.

    Returns:
        {name: tensor} of weight, bias, alpha, scale.
    """
    settings, C = inputs.HEAD, len(texts)
    with torch.no_grad():
        one_hot = F.one_hot(labels, C).float()  # (N, C)
        cosines = (features @ texts.T * one_hot).sum(dim=0) / one_hot.sum(dim=0)
        learned = {"weight": one_hot.T @ features,
                   "bias": torch.zeros_like(cosines),
                   "alpha": settings["alpha_init"] * cosines.mean().expand(C).clone(),
                   "scale": torch.ones_like(texts[0])}
        prototypes = learned["weight"] + learned["alpha"][:, None] * texts
        decay = settings["weight_decay"]
        scale_decay = 16 * decay * float((prototypes ** 2).sum()) / texts.shape[1]
        steps = step_sizes(features, texts, prototypes, decay, scale_decay)
    weight, bias, alpha, scale = (p.requires_grad_() for p in learned.values())
    optimizer = torch.optim.SGD(
        [{"params": [parameter], "lr": steps[name]} for name, parameter in (
            ("weight", weight), ("bias", bias), ("scale", scale))],
        lr=0.0, momentum=settings["momentum"])
    for epoch in range(epochs):
        x = features * scale
        if merged:
            logits = F.linear(x, weight + alpha[:, None] * texts, bias)  # (N, C)
        else:
            logits = F.linear(x, weight, bias) + alpha * (x @ texts.T)
        loss = (F.cross_entropy(logits, labels) + decay / 2 * (weight ** 2).sum()
                + scale_decay / 2 * ((scale - 1) ** 2).sum())
        optimizer.zero_grad()
        loss.backward()  # α's gradient adds up, as the optimizer does not know it
        optimizer.step()
        if (epoch + 1) % settings["alpha_every"] == 0:
            with torch.no_grad():
                alpha -= steps["alpha"] * alpha.grad
            alpha.grad = None
    return {name: p.detach() for name, p in learned.items()}


def step_sizes(features, texts, prototypes, decay, scale_decay):
    """{name: step size} as derived in models/lp_plus_plus.py.

    Args:
        features: tensor (N, D). texts: tensor (C, D).
        prototypes: tensor (C, D), w + α t at the start.
        decay, scale_decay: λ and λ_s.
    """
    N = len(features)
    curvature = torch.linalg.eigvalsh((features.T @ features).double())[-1] / (4 * N)
    spread = (prototypes - prototypes.mean(dim=0)) ** 2  # (C, D)
    worst = (features ** 2 @ spread.T).amax(dim=1).mean()
    steps = {"weight": 1 / (curvature + decay), "bias": 1 / curvature,
             "alpha": N / (4 * ((features @ texts.T) ** 2).sum(dim=0).max()),
             "scale": 1 / (worst + scale_decay)}
    return {name: float(step) for name, step in steps.items()}


def head_logits(head, features, texts):
    """Logits (N, C) of features (N, D) by what `fit` returned."""
    x = features * head["scale"]
    return F.linear(x, head["weight"], head["bias"]) + head["alpha"] * (x @ texts.T)


def fitting(sizes, folder):
    """`Work` of the pair head."""
    features, labels, texts = (tensor(part) for part in inputs.head_data(sizes))

    def run():
        head = fit(features, labels, texts, sizes["epochs"], bool(sizes["merged"]))
        synchronise()
        return head

    def result():
        head = run()
        return arrays(logits=head_logits(head, features[::50], texts), **head)

    return Work(run, result)
