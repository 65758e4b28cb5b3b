"""Random numbers that depend on their place alone: one stream for each token of each row.

The numbers of a stream are SplitMix's (Steele et al. 2014, "Fast splittable pseudorandom number
generators"), here with 32 bits: a start, to which a constant is added again and again, mixed. So
any of them is had without those before it, in any process and in any order, and nothing is kept
for the backward pass.
"""

import jittor as jt
import numpy as np

_STEP = 0x9E3779B9  # 2³² / the golden ratio


def streams(seed, rows, shape):
    """The starts of the streams of some rows.

    Args:
        seed: list of integers.
        rows: slice of the batch, which rows they are.
        shape: (B,) or (B, L), the number of rows and of tokens.

    Returns:
        uint32 array of this shape.
    """
    key = np.random.SeedSequence(seed).generate_state(1)
    places = np.arange(rows.start, rows.start + shape[0], dtype=np.uint32)
    starts = _mix(key + _mix(places + np.uint32(1)))
    if len(shape) == 1:
        return starts
    tokens = np.arange(shape[1], dtype=np.uint32)
    return _mix(starts[:, None] + tokens * np.uint32(_STEP))  # (B, L)


def uniform(starts, n):
    """The first n numbers of each stream.

    Args:
        starts: uint32 array (...) of `streams`.
        n: how many.

    Returns:
        Var (..., n), float32 in [0, 1).
    """
    steps = jt.array(np.arange(1, n + 1, dtype=np.uint32) * np.uint32(_STEP))
    mixed = _mix(jt.array(starts).unsqueeze(-1) + steps)
    return (mixed >> 8).float32() / (1 << 24)  # 24 bits, all that a float32 holds


def _mix(x):
    """A permutation of 32-bit integers, array or Var, that changes about half of the bits."""
    x = x ^ (x >> 16)
    x = x * 0x21F0AAAD
    x = x ^ (x >> 15)
    x = x * 0x735A2D97
    return x ^ (x >> 15)
