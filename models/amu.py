"""AMU-Tuning's head: a logit bias from the features of an auxiliary encoder.

Tang et al. 2024, arXiv 2404.08958; the constants are those of its authors' code. For an image
with unit-norm auxiliary features f (A,) and zero-shot logits s₀ (C,) of CLIP:

    b = W f, standardised: (W f − mean) / deviation over the classes
    s = s₀ + α u σ(s₀) b          u = (C / 4κ)^ρ, κ the kurtosis of softmax(s₀) over the classes

κ is large where one class stands out, so an image of which CLIP is sure gets less bias. W starts
as the mean feature of each class, and learns in two branches: λ CE(s) + (1 − λ) CE(b).

Ours: σ(s₀), the logits' deviation over the classes, so that one α suits any logit scale (the
authors' 0.5 is without it), and test images may add the bias to other logits than s₀; C / 4, the
code's 250 at ImageNet's 1,000 classes; all features in one batch, where the authors draw eight
images.
"""

import jittor as jt
import numpy as np
from jittor import nn
from tqdm import trange

_LEAST_VARIANCE = 1e-12  # so that features of zeros, an image that was not seen, give no bias


class AMUHead:
    """The auxiliary classifier: `fit` on frozen features, then `fused`.

    Args:
        alpha: α, the bias's weight, in deviations of the logits to which it is added.
        power: ρ; 0 weighs all images alike.
        merged_share: λ, the share of the fused logits' loss.
        weight: array (C, A), W of a fitted head.
    """

    def __init__(self, alpha=0.06, power=0.4, merged_share=0.35, weight=None):
        self.alpha = alpha
        self.power = power
        self.merged_share = merged_share
        self.weight = None if weight is None else jt.array(weight)

    def fit(self, features, labels, logits, epochs, lr, after_epoch=None):
        """Learn W with full-batch steps of Adam.

        Args:
            features: array (N, A), unit norm.
            labels: int array (N,), each class of 0 … C-1 at least once.
            logits: array (N, C), zero-shot.
            epochs, lr: steps, and their rate.
            after_epoch: called as after_epoch(epoch, loss) with the epoch's number from 0 and
                its loss before the step, float.

        Returns:
            self.
        """
        one_hot = np.eye(logits.shape[1], dtype=np.float32)[labels]
        self.weight = jt.array((one_hot / one_hot.sum(axis=0)).T @ features)  # (C, A)
        self.weight.start_grad()
        optimizer = jt.optim.Adam([self.weight], lr)
        features, labels, logits = (jt.array(values).stop_grad() for values in (
            features, labels.astype(np.int32), logits.astype(np.float32)))
        for epoch in trange(epochs, desc="auxiliary head"):
            loss = self.loss(features, labels, logits)
            optimizer.step(loss)
            if after_epoch is not None:
                after_epoch(epoch, float(loss.item()))
        self.weight.stop_grad()
        return self

    def loss(self, features, labels, logits):
        """Both branches' loss, Var (1,), of Vars (N, A), int32 (N,) and (N, C)."""
        own = standardised(nn.matmul_transpose(features, self.weight))
        fused = self._fused(logits, own, logits)
        return (self.merged_share * nn.cross_entropy_loss(fused, labels)
                + (1 - self.merged_share) * nn.cross_entropy_loss(own, labels))

    def fused(self, logits, features, zero_shot):
        """Logits with the bias added, array (B, C).

        Args:
            logits: array (B, C) of any scale.
            features: array (B, A), unit norm, or zeros for an image that was not seen.
            zero_shot: array (B, C), which tell how sure CLIP is.
        """
        with jt.no_grad():
            logits, features, zero_shot = (jt.array(values.astype(np.float32)) for values in (
                logits, features, zero_shot))
            own = standardised(nn.matmul_transpose(features, self.weight))
            return self._fused(logits, own, zero_shot).numpy()

    def _fused(self, logits, own, zero_shot):
        return logits + self.alpha * uncertainty(zero_shot, self.power) * deviation(logits) * own


def standardised(logits):
    """Logits (B, C) with mean 0 and deviation 1 over the classes."""
    return (logits - logits.mean(dim=1, keepdims=True)) / deviation(logits)


def deviation(logits):
    """The standard deviation over the classes, Var (B, 1), of logits (B, C)."""
    centred = logits - logits.mean(dim=1, keepdims=True)
    return jt.sqrt((centred ** 2).mean(dim=1, keepdims=True) + _LEAST_VARIANCE)


def uncertainty(logits, power):
    """(C / 4κ)^ρ of logits (B, C), Var (B, 1): greater where no class stands out."""
    shares = standardised(nn.softmax(logits, dim=1))
    kurtosis = (shares ** 4).mean(dim=1, keepdims=True)
    return (logits.shape[1] / (4 * jt.maximum(kurtosis, 1.0))) ** power  # 1 is the least there is
