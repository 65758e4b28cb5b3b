"""LP++: a linear probe that mixes visual and text prototypes, with computed step sizes.

Huang et al. 2024, arXiv 2404.02285. On unit-norm features f_i (N, D) and texts t_k (C, D):

    logits_k(f) = s ⊙ f · w_k + b_k + α_k s ⊙ f · t_k

By full-batch gradient descent with momentum on

    mean_i CE(logits(f_i), y_i) + λ/2 Σ_k ‖w_k‖² + λ_s/2 ‖s − 1‖²

The gradients are closed forms of one product. With G = (softmax(logits) − Y) / N (N, C),
U = w + α t (C, D), Z = Gᵀ F (C, D) and g = Gᵀ 1 (C,):

    ∂w = Z ⊙ s + λ w     ∂α_k = (Z ⊙ s)_k · t_k     ∂b = g     ∂s = Σ_k U_k ⊙ Z_k + λ_s (s − 1)

The step sizes are the reciprocals of bounds on the curvature (Q = diag(p) − p pᵀ is the softmax's):

    w: λ_max(FᵀF) / 4N + λ                  (the paper's, each block of which has Q_kk ≤ 1/4)
    b: λ_max(FᵀF) / 4N                      (the authors' code)
    α: 4 max_k Σ_i (f_i·t_k)² / N           (the authors' code; a sixteenth of it would do)
    s: Σ_i max_k Σ_d (U_kd − Ū_d)² f_id² / N + λ_s

The last: a direction v changes logit k by a_k = Σ_d U_kd f_id v_d, and vᵀHv = mean_i of
Var_p(a) ≤ (max_k a_k − min_k a_k)² / 4 ≤ max_k (a_k − ā)², which Cauchy-Schwarz bounds by
Σ_d (U_kd − Ū_d)² f_id² for a unit v.

Ours:
- λ: w is drawn to 0, that is the head to its text. LP++ has no such term, but takes the epoch that
  is best on validation images; few-shot users have none, and at its end the head overfits.
- Channel re-weighting: s, learned for each channel, is 1 in LP++. A channel's shift would be no
  gain, as b does all that it could. λ_s = 16 λ mean_d Σ_k U_kd² at the start: 16 times what the
  same change of the logits by w costs. With less s fits the training images alone; with that it
  neither gains nor loses on what was measured, so it is off unless asked for.
- Several random crops of an image, V, where the authors take one; w starts as each class's sum of
  its images' mean features, which for one crop is theirs, so that it does not grow with V.
- b starts at 0; the code leaves it at nn.Linear's random start.
- α's step takes the sum of its gradients since its last step. The code's sum, which is never
  cleared, is of all steps since the first; α moves by a few per cent either way.
"""

import jittor as jt
import numpy as np
from jittor import nn
from tqdm import trange

from models.kernels import transposed

LEARNED = ("w", "bias", "alpha", "scale")  # the names of w, b, α and s


class LPPlusPlus:
    """The classification head: `fit` on frozen features, then `logits`.

    Args:
        epochs: full-batch steps.
        channel_reweighting: learn s; off is LP++'s own form.
        weight_decay: λ.
        momentum: of the steps for w, b and s.
        alpha_every: epochs between two steps of α.
        alpha_init: factor on the mean of f·t of the own class from which all α start.
        progress: show a bar.
    """

    def __init__(self, epochs=300, channel_reweighting=False, weight_decay=3e-4, momentum=0.9,
                 alpha_every=10, alpha_init=250.0, progress=False):
        self.epochs = epochs
        self.channel_reweighting = channel_reweighting
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.alpha_every = alpha_every
        self.alpha_init = alpha_init
        self.progress = progress

    def fit(self, features, labels, text_features, after_epoch=None):
        """Learn the head.

        Args:
            features: array or Var (N, D), unit norm; or (N, V, D), V crops of each image.
            labels: int array (N,), each class of 0 … C-1 at least once.
            text_features: array or Var (C, D), unit norm.
            after_epoch: called as after_epoch(epoch, loss) with the epoch's number from 0 and
                its mean cross-entropy before the step, Var (1,); self is then as after the step.

        Returns:
            self.

        Raises:
            ValueError: a label outside the texts, or a class without features.
        """
        F, T = _var(features), _var(text_features)
        labels = np.asarray(labels)
        C = T.shape[0]
        counts = np.bincount(labels, minlength=C)
        if len(counts) > C or counts.min() == 0:
            raise ValueError(f"labels must cover 0 to {C - 1}; counts are {counts.tolist()}")
        n_crops = F.shape[1] if F.ndim == 3 else 1
        with jt.no_grad():
            F = F.reshape(-1, F.shape[-1])  # (N * V, D)
            F1 = with_ones(F)
            labels = jt.array(np.repeat(labels, n_crops).astype(np.int32))
            self._start(F, labels, T, n_crops)
            steps = self._step_sizes(F, T)
            velocity = {name: jt.zeros_like(getattr(self, name)) for name in steps}
            alpha_gradient = jt.zeros((C,))
            bar = trange(self.epochs, desc="head", disable=not self.progress)
            for epoch in bar:
                loss, gradients, along_text = self.gradients(F1, labels, T)
                for name, step in steps.items():
                    velocity[name] = self.momentum * velocity[name] + gradients[name]
                    setattr(self, name, getattr(self, name) - step * velocity[name])
                alpha_gradient = along_text + alpha_gradient
                if (epoch + 1) % self.alpha_every == 0:
                    self.alpha = self.alpha - self._alpha_step * alpha_gradient
                    alpha_gradient = jt.zeros((C,))
                    bar.set_postfix(loss=f"{loss.item():.4f}")
                jt.sync([self.w, self.bias, self.alpha, self.scale, alpha_gradient,
                         *velocity.values()])
                if after_epoch is not None:
                    after_epoch(epoch, loss)
        self._text = T
        return self

    def logits(self, features):
        """Logits (B, C) of features (B, D), unit norm."""
        with jt.no_grad():
            U = self._prototypes(self._text)
            return nn.matmul_transpose(_var(features), U * self.scale) + self.bias

    def reweights(self):
        """Whether channels were re-weighted."""
        return bool((self.scale != 1).any().item())

    def state(self):
        """{name: float32 array} of everything learned, and the texts."""
        names = (*LEARNED, "_text")
        return {name.strip("_"): getattr(self, name).numpy() for name in names}

    @classmethod
    def from_state(cls, state):
        """A fitted head from `state()`."""
        head = cls()
        for name in LEARNED:
            setattr(head, name, jt.array(state[name]))
        head._text = jt.array(state["text"])
        return head

    def gradients(self, F1, labels, T):
        """Loss and gradients at the present state.

        Args:
            F1: Var (N, D + 1), `with_ones` of the features.
            labels: int32 Var (N,).
            T: Var (C, D).

        Returns:
            loss: Var (1,), mean cross-entropy.
            gradients: {name: Var} of w, bias, scale, of the loss and the penalties.
            alpha: Var (C,), the gradient of α.
        """
        N, D = F1.shape[0], F1.shape[1] - 1
        U = self._prototypes(T)
        weights = jt.concat([U * self.scale, self.bias.unsqueeze(1)], dim=1)  # (C, D + 1)
        losses, sums = _residual_sums(F1, weights, labels)
        Z, g = sums[:, :D] / N, sums[:, D] / N
        along_w = Z * self.scale
        gradients = {"w": along_w + self.weight_decay * self.w, "bias": g,
                     "scale": (U * Z).sum(dim=0) + self._scale_decay * (self.scale - 1)}
        return losses.mean(), gradients, (along_w * T).sum(dim=1)

    def _prototypes(self, T):
        return self.w + self.alpha.unsqueeze(1) * T  # U, (C, D)

    def _start(self, F, labels, T, n_crops):
        """w from the class sums, one shared α, no re-weighting; and λ_s."""
        Y = (labels.unsqueeze(1) == jt.arange(T.shape[0])).float32()  # (N * V, C), one-hot
        cosines = (nn.matmul_transpose(F, T) * Y).sum(dim=0) / Y.sum(dim=0)
        self.w = jt.matmul(transposed(Y, (1, 0)), F) / n_crops
        self.bias = jt.zeros((T.shape[0],))
        self.alpha = self.alpha_init * cosines.mean().broadcast((T.shape[0],))
        self.scale = jt.ones((T.shape[1],))
        each = float((self._prototypes(T) ** 2).sum().item()) / T.shape[1]
        self._scale_decay = 16 * self.weight_decay * each

    def _step_sizes(self, F, T):
        """{name: step} of the parameters learned every epoch; α's step beside it."""
        N = F.shape[0]
        gram = jt.matmul(transposed(F, (1, 0)), F).numpy().astype(np.float64)
        curvature = float(np.linalg.eigvalsh(gram)[-1]) / (4 * N)
        along_text = nn.matmul_transpose(F, T)
        self._alpha_step = N / (4 * float((along_text ** 2).sum(dim=0).max().item()))
        steps = {"w": 1 / (curvature + self.weight_decay), "bias": 1 / curvature}
        if self.channel_reweighting:
            spread = self._prototypes(T)
            spread = (spread - spread.mean(dim=0, keepdims=True)) ** 2  # (C, D)
            worst = nn.matmul_transpose(F ** 2, spread).max(dim=1)  # (N, C) -> (N,)
            # One class alone has no spread; nothing is to be learned then.
            steps["scale"] = 1 / max(float(worst.sum().item()) / N + self._scale_decay, 1e-12)
        return steps


def _var(values):
    return values if isinstance(values, jt.Var) else jt.array(np.asarray(values, np.float32))


def with_ones(F):
    """F (N, D) and a channel of ones, (N, D + 1): products with it carry the offsets along."""
    return jt.concat([F, jt.ones((F.shape[0], 1))], dim=1)


def _residual_sums(F1, weights, labels):
    """Cross-entropies (N,) and (softmax(logits) − Y)ᵀ F1 (C, D + 1).

    Args:
        F1: Var (N, D + 1). weights: Var (C, D + 1), the logits are F1 weightsᵀ.
        labels: int32 Var (N,).
    """
    N, shape = F1.shape[0], weights.shape
    log_p = nn.log_softmax(nn.matmul_transpose(F1, weights), dim=1)
    Y = (labels.unsqueeze(1) == jt.arange(shape[0])).float32()
    # The form in which Jittor knows a product.
    residuals, rows = ((jt.exp(log_p) - Y).broadcast([N, *shape], [2]),
                       F1.broadcast([N, *shape], [1]))
    return -(Y * log_p).sum(dim=1), (residuals * rows).sum(dim=0)
