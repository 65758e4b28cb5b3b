"""LP++ (Huang et al. 2024, arXiv 2404.02285), with a learned scale and shift of each channel.

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
        {name: tensor} of weight, bias, alpha, scale, shift.
    """
    settings, C = inputs.HEAD, len(texts)
    with torch.no_grad():
        one_hot = F.one_hot(labels, C).float()  # (N, C)
        cosines = (features @ texts.T * one_hot).sum(dim=0) / one_hot.sum(dim=0)
        learned = {"weight": one_hot.T @ features,
                   "bias": torch.zeros_like(cosines),
                   "alpha": settings["alpha_init"] * cosines.mean().expand(C).clone(),
                   "scale": torch.ones_like(texts[0]), "shift": torch.zeros_like(texts[0])}
        steps = step_sizes(features, texts, learned["weight"] + learned["alpha"][:, None] * texts)
    weight, bias, alpha, scale, shift = (p.requires_grad_() for p in learned.values())
    optimizer = torch.optim.SGD(
        [{"params": [weight, bias], "lr": steps["classifier"]},
         {"params": [scale], "lr": steps["scale"]},
         {"params": [shift], "lr": steps["shift"]}], lr=0.0, momentum=settings["momentum"])
    for epoch in range(epochs):
        x = features * scale + shift
        if merged:
            logits = F.linear(x, weight + alpha[:, None] * texts, bias)  # (N, C)
        else:
            logits = F.linear(x, weight, bias) + alpha * (x @ texts.T)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # α's gradient adds up, as the optimizer does not know it
        optimizer.step()
        if (epoch + 1) % settings["alpha_every"] == 0:
            with torch.no_grad():
                alpha -= steps["alpha"] * alpha.grad
            alpha.grad = None
    return {name: p.detach() for name, p in learned.items()}


def step_sizes(features, texts, prototypes):
    """{name: step size} as derived in models/lp_plus_plus.py.

    Args:
        features: tensor (N, D). texts: tensor (C, D).
        prototypes: tensor (C, D), w + α t at the start.
    """
    N = len(features)
    largest = torch.linalg.eigvalsh((features.T @ features).double())[-1]
    spread = (prototypes - prototypes.mean(dim=0)) ** 2  # (C, D)
    steps = {"classifier": 4 * N / largest,
             "alpha": N / (4 * ((features @ texts.T) ** 2).sum(dim=0).max()),
             "scale": N / (features ** 2 @ spread.T).amax(dim=1).sum(),
             "shift": 1 / spread.sum(dim=1).max()}
    return {name: float(step) for name, step in steps.items()}


def head_logits(head, features, texts):
    """Logits (N, C) of features (N, D) by what `fit` returned."""
    x = features * head["scale"] + head["shift"]
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
