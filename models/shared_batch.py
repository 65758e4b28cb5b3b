"""Features of a batch of which each process encodes a share, with their gradients.

The loss is then computed from all features in every process. Its gradient reaches a process's
own rows only, times the number of processes: Jittor's optimizers take the mean of the processes'
gradients, which thus is the gradient that one process has for the whole batch.
"""

import functools

import jittor as jt

from models import lora, parallel


def encode_together(model, encode, n, length=None):
    """Features of n images or texts, as one process would compute them.

    Args:
        model: CLIP, whose dropout draws the same numbers for a row whoever encodes it.
        encode: function of rows, a slice of n, that returns their features, Var (…, D).
        n: how many; every process must call this with the same.
        length: tokens of the longest text of all; None where all are of one length.

    Returns:
        Var (n, D).
    """
    if parallel.size() == 1:
        return encode(slice(None))
    rows = parallel.share(n)
    # A process without a row encodes one for nothing: dropout's numbers are to be drawn there too.
    worked_on = rows if rows.start < rows.stop else slice(0, 1)
    lora.draw_dropout_with(model, functools.partial(_numbers_of_rows, worked_on, n, length))
    features = _Gather(n)(encode(worked_on))
    lora.draw_dropout_with(model, jt.random)
    return features


class _Gather(jt.Function):
    """A share's features (…, D) -> all (n, D)."""

    def __init__(self, n):
        self.n = n

    def execute(self, own):
        self.rows = parallel.share(self.n)
        self.shape = own.shape
        n_own = self.rows.stop - self.rows.start
        return jt.array(parallel.gather(own.numpy()[:n_own], self.n))

    def grad(self, gradient):
        if self.rows.start == self.rows.stop:
            return jt.zeros(self.shape)
        return gradient[self.rows] * parallel.size()


def _numbers_of_rows(rows, n, length, shape):
    """Random numbers for some rows, of those that are drawn for n: (rows, …)."""
    if len(shape) == 2:
        return jt.random((n, shape[1]))[rows]
    return jt.random((n, length or shape[1], shape[2]))[rows, :shape[1]]
