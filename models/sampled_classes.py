"""A step's loss on some of the classes in the place of all: sampled softmax.

Jean et al. 2015, arXiv 1412.2007. A softmax over C classes is a sum of exponentials, of which those
of the batch's own classes are known and the others' sum is estimated by some drawn ones:

    Σ_c exp(z_c) ≈ Σ_own exp(z_c) + (C − |own|) / |drawn| Σ_drawn exp(z_c)

which is the sum's expectation, and the factor is a number added to a drawn class's logit.

Ours: classes are drawn evenly, without return, as all of them are equally frequent.
"""

import numpy as np


def drawn_classes(targets, n_classes, n_wanted, random):
    """The classes that a batch is compared with: its own, and as many others as are wanted.

    Args:
        targets: int array (B,), in 0 … n_classes − 1.
        n_classes: C.
        n_wanted: K, how many classes in all; more than C are C, and the batch's own are all there.
        random: `numpy.random.RandomState`, from which nothing is drawn where all are wanted.

    Returns:
        classes: int array (K,), ascending.
        counts: float32 array (K,), how many classes each stands for; their sum is C.
    """
    counts = np.ones(n_classes, np.float32)
    own = np.unique(targets)
    others = np.setdiff1d(np.arange(n_classes), own)
    n_drawn = max(n_wanted - len(own), 1)
    if n_drawn >= len(others):
        return np.arange(n_classes), counts
    drawn = random.choice(others, n_drawn, replace=False)
    counts[drawn] = len(others) / n_drawn
    classes = np.union1d(own, drawn)
    return classes, counts[classes]
