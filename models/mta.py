"""MTA: the mode of an image's views, weighted by how much each view belongs to them.

Zanella and Ben Ayed 2024, arXiv 2405.02266. Over the mode m and the inlierness y of the views
f_p (y on the simplex) it maximises

    Σ_p y_p K(f_p − m) + λ_q/2 Σ_pq w_pq y_p y_q + λ_y H(y),   K(d) = exp(−‖d‖² / h_p²)

with w_pq the agreement of two views' predictions, by turns:

    y_p ∝ exp((K(f_p − m) + λ_q Σ_q w_pq y_q) / λ_y)        (fixed point of the y-step)
    m = Σ_p y_p K(f_p − m) f_p / Σ_p y_p K(f_p − m)          (mean shift, then unit norm)

with five turns of at most five steps each, as in the authors' code; h_p² is the mean ‖f_p − f_q‖²
over a view's nearest others, as its exp(−d² / 2σ²) comes to.

Ours: all five steps, where the code stops below a change of 1e-6, so that images of any kind share
each; floors under h² and the weights, so that equal views and a single one give no NaN. The scripts
take 32 views of scale 0.5 to 1 (the code 64 of 0.08 to 1) and texts that are means over prompts.
"""

import jittor as jt
from jittor import nn

from models.jclip.model import unit_norm
from models.kernels import has_kernels, softmax
from models.kernels import mta as kernels


def mta(image_features, text_features, logit_scale, lambda_y=0.2, lambda_q=4.0, nearest=0.3,
        n_rounds=5, n_steps=5):
    """One feature for each image from its views, all images at once.

    Args:
        image_features: Var (B, V, D), unit norm; view 0 is the whole image, where the mode
            starts. The order of the others is irrelevant.
        text_features: Var (C, D), unit norm, for the views' predictions.
        logit_scale: factor on the cosines in the predictions' softmax, float.
        lambda_y: the paper's λ_y, weight of the entropy.
        lambda_q: the paper's λ (λ_q in the code), weight of the views' agreement.
        nearest: share of the other views whose mean squared distance is a view's h².
        n_rounds: turns of inlierness and mode.
        n_steps: fixed-point and mean-shift steps a turn.

    Returns:
        mode: Var (B, D), unit norm.
        inlierness: Var (B, V), each row sums to 1.
    """
    B, V, D = image_features.shape
    if V == 1:
        return image_features[:, 0], jt.ones((B, 1))
    n_nearest = max(1, int(nearest * (V - 1)))
    if has_kernels():
        return kernels.modes(image_features, text_features, logit_scale, lambda_y, lambda_q,
                             n_nearest, n_rounds, n_steps)
    cosines = nn.matmul_transpose(image_features.reshape(B * V, D), text_features)  # (B*V, C)
    predictions = softmax(cosines, logit_scale).reshape(B, V, -1)
    agreement = nn.bmm_transpose(predictions, predictions)  # (B, V, V)
    # The mode is a weighted sum of the views, so its cosines with them need their Gram matrix
    # alone: no step below works on D channels.
    gram = nn.bmm_transpose(image_features, image_features)  # (B, V, V)
    if jt.flags.use_cuda:
        weights, inlierness = kernels.weights_of_views(agreement, gram, lambda_y, lambda_q,
                                                       n_nearest, n_rounds, n_steps)
        return unit_norm(nn.bmm(weights.unsqueeze(1), image_features)[:, 0]), inlierness
    _, distances = jt.argsort((2 - 2 * gram).maximum(0.0), dim=-1)
    # Each view's own distance, 0, comes first. Equal views would make h² zero.
    bandwidth = distances[:, :, 1:1 + n_nearest].mean(dim=-1).maximum(1e-6)  # (B, V)

    def kernel(cosines):
        return jt.exp(-(2 - 2 * cosines).maximum(0.0) / bandwidth)  # (B, V)

    cosines = gram[:, 0]  # of the mode with each view
    inlierness = jt.ones((B, V)) / V
    for _ in range(n_rounds):
        closeness = kernel(cosines)
        for _ in range(n_steps):
            support = (agreement * inlierness.unsqueeze(1)).sum(dim=-1)
            inlierness = softmax((closeness + lambda_q * support) / lambda_y)
        for _ in range(n_steps):
            weights = (inlierness * kernel(cosines)).maximum(1e-30)
            weights = weights / weights.sum(dim=-1, keepdims=True)
            products = (gram * weights.unsqueeze(1)).sum(dim=-1)
            cosines = products / jt.sqrt((weights * products).sum(dim=-1, keepdims=True))
    mode = unit_norm((weights.unsqueeze(-1) * image_features).sum(dim=1))
    return mode, inlierness
