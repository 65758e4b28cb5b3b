"""One step on a batch of which each process encodes a share, where memory is short in parts.

A loss needs the features of all images and texts, but not how they came to be. So they are encoded
first; then come the loss and its gradient at the features, in every process; and then that gradient
is carried on to the parameters, part by part (GradCache: Gao et al. 2021, arXiv 2101.06983). Where
there are several parts, each is encoded twice: first without what its gradient needs, of which
there is so never more than one part's.
"""

import contextlib

import jittor as jt
import numpy as np

from models import lora
from system import parallel
from system.memory import fitting


def fitting_batch(n, n_bytes):
    """How many of a batch's n images, and with them of its texts, can be encoded at a time.

    Args:
        n_bytes: memory that a step on the whole batch takes at once.
    """
    if parallel.size() > 1:  # what is encoded before the loss is known leaves up to twice as much
        n_bytes = 2 * n_bytes // parallel.size()
    return fitting(n, n_bytes // n, "images (and texts likewise)")


def step(optimizer, model, passes, loss_of, seed, n_parts=1):
    """One step of an optimizer on a loss of features.

    Args:
        optimizer: Jittor's, with the trainable parameters.
        model: CLIP, whose dropout is on.
        passes: list of (n, encode): n images or texts, and a function of rows, a slice of n, that
            returns their features, Var (…, D). Every process must call this with the same n.
        loss_of: function of the features, Vars (n, D), that returns the loss, the mean over the
            batch, and something more.
        seed: list of integers, of dropout's numbers in this step.
        n_parts: parts, one encoded after the other.

    Returns:
        What `loss_of` does. All is under way then; a GPU may not have finished.
    """
    def encode(i, rows):
        with lora.dropout_drawn(model, [*seed, i], rows):
            return passes[i][1](rows)

    if parallel.size() == n_parts == 1:
        loss, more = loss_of(*(encode(i, slice(0, n)) for i, (n, _) in enumerate(passes)))
        optimizer.step(loss)  # at once, which takes less memory than to encode first
        jt.sync_all()
        return loss, more

    parts = [_parts(n, n_parts) for n, _ in passes]
    with jt.no_grad() if n_parts > 1 else contextlib.nullcontext():
        encoded = [[encode(i, rows).sync() for rows in each] for i, each in enumerate(parts)]
    features = [_together(own, n, model.sizes.embed_dim)
                for own, (n, _) in zip(encoded, passes)]
    loss, more = loss_of(*features)
    gradients = _gradients(loss, features)

    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]
                  if not parameter.is_stop_grad()]
    total = [jt.zeros(parameter.shape).stop_grad() for parameter in parameters]
    for i, each in enumerate(parts):
        for rows in each:
            again = encoded[i].pop() if n_parts == 1 else encode(i, rows)
            own = _gradients((again * gradients[i][rows]).sum(), parameters)
            total = [a + b for a, b in zip(total, own)]
            del again
            jt.sync(total)  # now, so that what this part needed is free before the next
    # A loss with just this gradient. The optimizer takes the mean over the processes, of which
    # each has the sum over its own rows.
    optimizer.step(parallel.size() * sum((p * g).sum()
                                         for p, g in zip(parameters, total)))
    jt.sync_all()  # also, processes take the gradients' sums before the next features'
    return loss, more


def _parts(n, n_parts):
    """Slices of n: this process's share in parts, none of them empty."""
    own = parallel.own_slice(n)
    return [slice(own.start + rows.start, own.start + rows.stop)
            for rows in parallel.slices(own.stop - own.start, n_parts) if rows.start < rows.stop]


def _gradients(loss, variables):
    """Without what a gradient of theirs would need, which is everything they came from."""
    return [gradient.stop_grad() for gradient in jt.grad(loss, variables, retain_graph=False)]


def _together(own, n, width):
    """All processes' features, Var (n, D), of which the gradient can be taken."""
    if parallel.size() == 1:
        return jt.concat(own).detach().start_grad()
    rows = np.concatenate([np.zeros((0, width), np.float32), *(part.numpy() for part in own)])
    return jt.array(parallel.gather(rows, n))
