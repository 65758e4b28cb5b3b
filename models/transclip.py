"""TransCLIP: all images classified together, by their own structure and the texts.

Zanella, Gérin and Ben Ayed 2024, arXiv 2406.01837. Over the assignments z_i (on the simplex) of the
images i ∈ Q, the classes' means μ_k and one diagonal covariance Σ, it minimises

    − 1/τ Σ_{i∈Q} z_i · log p_i − γ |Q|/|S| Σ_{i∈S} y_i · log p_i
    − 1/2k Σ_{i∈Q} (½ Σ_{j∈Q} + Σ_{j∈S}) w_ij z_i · z_j + Σ_{i∈Q} (z_i · log z_i − λ z_i · log ŷ_i)

with log p_ik = −½ (f_i − μ_k)ᵀ Σ⁻¹ (f_i − μ_k), a Gaussian's up to a constant; ŷ_i the prediction
without the other images; S the images with known labels y (few-shot), none of them in the
zero-shot form; w_ij = n_ij + n_ji, where n_ij is the cosine if j is among the k nearest others of
i ∈ Q, else 0 (so an image and its mutual neighbour count twice for each other). By turns:

    z_i ∝ ŷ_i^λ exp(log p_i / τ + Σ_j w_ij z_j / 2k)   some steps, all images at once; z = y in S
    μ_k = Σ_Q z_ik f_i + γ' Σ_S y_ik f_i, brought to unit norm                  γ' = τ γ |Q|/|S|
    Σ = diag(Σ_Q Σ_k z_ik (f_i − μ_k)² + γ' Σ_S Σ_k y_ik (f_i − μ_k)²) / (|Q| + γ' |S|)

τ = 50, 1 / 2k, the unit norm and τ in γ' are the authors' code's; the paper has none of them.
Without τ a likelihood over hundreds of channels drowns the prediction, and z is 0 or 1.

Ours:
- An image's neighbours are found among the test images and the support, both by the same rule, and
  a negative cosine counts as 0. The code lets a support image choose test images, without the first
  of them, and adds its rows up in another order than the columns'.
- A class without support starts at the mean of the images with the largest ŷ, as the code's
  zero-shot form does, which weighs them by ŷ.
- z comes last, with the last μ and Σ, as in the code; a class that no image is of keeps its mean,
  and no variance is below 1e-6.
- λ and γ are settings; the code takes λ = 0.5 with support and 1 without, and γ by a validation
  set.
- The features' Gram matrix is never whole in memory: it is worked on by blocks of rows, of which
  the nearest alone are kept.
"""

import jittor as jt
import numpy as np
from jittor import nn

_TEMPERATURE = 50.0  # τ
_BLOCK_BYTES = 128 << 20
_SMALLEST = 1e-6  # variance; a class's mass, below which its mean stays


def transclip(features, log_prior, support=None, support_labels=None, kl_weight=1.0,
              support_weight=0.02, nearest=3, n_confident=8, n_rounds=10, n_steps=5):
    """Each image's assignment to the classes.

    Args:
        features: float32 array (N, D), unit norm.
        log_prior: float32 array (N, C), log ŷ.
        support: float32 array (S, D), unit norm, images of known classes; None for none.
        support_labels: int array (S,); a class may have no such image.
        kl_weight: λ, how much ŷ counts.
        support_weight: γ, of which τ times is what all of the support counts for beside all of
            the images.
        nearest: k.
        n_confident: a class without support starts at the mean of as many images, those with
            the largest ŷ.
        n_rounds: turns of z, μ and Σ.
        n_steps: steps of z a turn.

    Returns:
        float32 array (N, C), log z.
    """
    (N, D), C = features.shape, log_prior.shape[1]
    if support is None:
        support, support_labels = np.zeros((0, D), np.float32), np.zeros(0, int)
    known = np.zeros((len(support), C), np.float32)
    known[np.arange(len(support)), support_labels] = 1.0
    weight = _TEMPERATURE * support_weight * N / max(1, len(support))  # γ'
    # What the support adds to the sums over all images.
    known_mass, known_sum = weight * known.sum(axis=0), weight * known.T @ support  # (C,), (C, D)
    squares = _sum_of_squares(features) + weight * _sum_of_squares(support)  # (D,)
    pairs = Affinity(features, support, nearest)

    means = starting_means(features, log_prior, support, support_labels, n_confident)
    variance = np.full(D, 1.0 / D, np.float32)
    assigned = np.concatenate([np.exp(log_prior), known])  # z, and y
    for turn in range(n_rounds + 1):
        if turn:
            mass = assigned[:N].sum(axis=0, dtype=np.float64) + known_mass
            sums = known_sum + _weighted_sums(assigned[:N], features)
            means = _unit(np.where(mass[:, None] > _SMALLEST, sums, means))
            spread = (squares - 2 * (means * sums).sum(axis=0)
                      + (mass[:, None] * means ** 2).sum(axis=0))
            variance = np.maximum(spread / mass.sum(), _SMALLEST).astype(np.float32)
        # λ log ŷ + log p / τ, but for what is the same for all classes
        precise = means / (_TEMPERATURE * variance)
        fixed = kl_weight * log_prior - (means * precise).sum(axis=1) / 2
        _add_product(fixed, features, precise)  # (N, C)
        for _ in range(n_steps):
            log_assigned = pairs.sums(assigned)
            log_assigned /= 2 * nearest
            log_assigned += fixed
            _log_normalise(log_assigned)
            np.exp(log_assigned, out=assigned[:N])
    return log_assigned


def starting_means(features, log_prior, support, support_labels, n_confident):
    """Where the classes' means start, float32 array (C, D); the arguments are `transclip`'s."""
    means = np.empty((log_prior.shape[1], features.shape[1]), np.float32)
    for k in range(len(means)):
        own = support[support_labels == k]
        if not len(own):
            own = features[np.argsort(-log_prior[:, k], kind="stable")[:n_confident]]
        means[k] = own.mean(axis=0)
    return _unit(means)


def _unit(rows):
    """Rows (N, D) of unit norm, float32."""
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(
        np.float32)


class Affinity:
    """The matrix w of images among themselves and with the support, of which few are not 0.

    Args:
        features: float32 array (N, D), unit norm.
        support: float32 array (S, D), unit norm.
        nearest: others, of either kind, that each image keeps.
    """

    def __init__(self, features, support, nearest):
        N = len(features)
        near, cosines = nearest_others(features, support, nearest)  # (N, k)
        rows = np.repeat(np.arange(N, dtype=np.int32), near.shape[1])
        columns, weights = near.ravel(), cosines.ravel()
        both = columns < N  # the support's own assignments are known
        rows, columns = (np.concatenate([rows, columns[both]]),
                         np.concatenate([columns, rows[both]]))
        order = np.argsort(rows, kind="stable")
        self._columns = columns[order]
        self._weights = np.concatenate([weights, weights[both]])[order]
        self._starts = np.searchsorted(rows[order], np.arange(N + 1))

    def sums(self, assigned):
        """Σ_j w_ij z_j of each image, float32 array (N, C); z: (N + S, C)."""
        N = len(self._starts) - 1
        sums = np.zeros((N, assigned.shape[1]), np.float32)
        if not len(self._columns):  # one image, alone
            return sums
        rows = max(1, _BLOCK_BYTES // (16 * assigned.itemsize * assigned.shape[1]))
        for start in range(0, N, rows):
            first, last = self._starts[start], self._starts[min(start + rows, N)]
            terms = assigned[self._columns[first:last]]
            terms *= self._weights[first:last, None]
            sums[start:start + rows] = np.add.reduceat(
                terms, self._starts[start:min(start + rows, N)] - first, axis=0)
        return sums


def nearest_others(features, support, n_nearest):
    """The most similar others of each image.

    Args:
        features: float32 array (N, D), unit norm. support: float32 array (S, D).
        n_nearest: k; fewer where there are fewer others.

    Returns:
        indices: int32 array (N, k), those of the support from N on.
        cosines: float32 array (N, k), negative ones as 0.
    """
    N, n_others = len(features), len(features) + len(support) - 1
    k = min(n_nearest, n_others)
    indices, cosines = np.empty((N, k), np.int32), np.empty((N, k), np.float32)
    everything = jt.array(np.concatenate([features, support]))  # once, not for each block
    size = max(1, _BLOCK_BYTES // (4 * (N + len(support))))
    for start in range(0, N, size):
        block = _product(features[start:start + size], everything)
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        for i in range(k):  # the largest k times over: faster than sorting
            largest = block.argmax(axis=1)
            indices[start + rows, i], cosines[start + rows, i] = largest, block[rows, largest]
            block[rows, largest] = -np.inf
    return indices, np.maximum(cosines, 0.0)


def _product(a, b):
    """a bᵀ of arrays or Vars, on Jittor's device."""
    with jt.no_grad():
        return nn.matmul_transpose(jt.array(a), jt.array(b)).numpy()


def _add_product(total, a, b):
    """Add a bᵀ to `total` in place, by blocks of rows."""
    size = max(1, _BLOCK_BYTES // total[:1].nbytes)
    for start in range(0, len(a), size):
        total[start:start + size] += _product(a[start:start + size], b)


def _weighted_sums(weights, features):
    """weightsᵀ features, float64 array (C, D), by blocks of rows."""
    size = max(1, _BLOCK_BYTES // features[:1].nbytes)
    return sum(_product(weights[start:start + size].T, features[start:start + size].T).astype(
        np.float64) for start in range(0, len(features), size))


def _sum_of_squares(features):
    return np.einsum("nd,nd->d", features, features, dtype=np.float64)


def _log_normalise(logits):
    """Subtract log Σ exp of each row, in place."""
    logits -= logits.max(axis=1, keepdims=True)
    size = max(1, _BLOCK_BYTES // logits[:1].nbytes)
    for start in range(0, len(logits), size):
        block = logits[start:start + size]
        block -= np.log(np.exp(block).sum(axis=1, keepdims=True))
