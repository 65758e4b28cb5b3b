"""Random numbers by place: SplitMix's with 32 bits, the same whoever draws them."""

import numpy as np
import pytest

from models.streams import streams, uniform


def mixed(x):
    """The mixing of 32 bits with Python's integers."""
    x ^= x >> 16
    x = x * 0x21F0AAAD % 2 ** 32
    x ^= x >> 15
    x = x * 0x735A2D97 % 2 ** 32
    return x ^ x >> 15


def test_a_stream_is_its_start_stepped_and_mixed():
    starts = np.array([[0, 1], [0x12345678, 0xFFFFFFFF]], np.uint32)
    numbers = uniform(starts, 5).numpy()
    expected = [[[(mixed((int(start) + i * 0x9E3779B9) % 2 ** 32) >> 8) / 2 ** 24
                  for i in range(1, 6)] for start in row] for row in starts]
    np.testing.assert_array_equal(numbers, np.array(expected, np.float32))
    assert numbers.dtype == np.float32 and 0 <= numbers.min() and numbers.max() < 1


@pytest.mark.parametrize("more", [(), (6,)])
def test_some_rows_alone_are_those_of_the_whole(more):
    whole = streams([3, 1], slice(0, 9), (9, *more))
    np.testing.assert_array_equal(streams([3, 1], slice(4, 7), (3, *more)), whole[4:7])
    if more:  # and a shorter text's are the first of a longer one's
        np.testing.assert_array_equal(streams([3, 1], slice(0, 9), (9, 2)), whole[:, :2])
    assert len(np.unique(whole)) == whole.size
    assert not np.isin(streams([3, 2], slice(0, 9), (9, *more)), whole).any()


def test_numbers_are_even_and_neighbours_unlike():
    drawn = np.stack([uniform(streams([1, layer], slice(0, 40), (40, 30)), 64).numpy()
                      for layer in range(4)])  # (4, 40, 30, 64)
    n = drawn.size
    counts = np.histogram(drawn, bins=50, range=(0, 1))[0]
    assert ((counts - n / 50) ** 2 / (n / 50)).sum() < 86  # χ², 49 degrees: 1 in 1,000 is above
    centred = (drawn - drawn.mean()) / drawn.std()
    for axis in range(4):
        for apart in (1, 2):
            pairs = np.roll(centred, apart, axis) * centred
            assert abs(pairs.mean()) < 4 / np.sqrt(n)
