"""Pillow's bicubic resize of many parts of an image at once.

Pillow weighs the pixels of each line of the image, rounds the result to 8 bits, and then does the
same with the columns; its weights are whole numbers, in units of 2⁻²². On the CPU a kernel of our
own does just that, with the same bytes; 16 lines of the image lie side by side, so that one
instruction serves them all. On a GPU each of the two steps is a matrix product.
"""

from typing import NamedTuple

import jittor as jt
import numpy as np
from jittor import nn

from models.kernels import transposed
from system import runtime

_SHARPNESS = -0.5  # a of the cubic convolution (Keys 1981), as Pillow has it
_UNIT = 1 << 22  # Pillow's of the weights
_AT_ONCE_BYTES = 1 << 30  # on a GPU


class Places(NamedTuple):
    """Where the pixels of S × S views lie along an image's width or height.

    Attributes:
        centres: float64 array (V, S), of each pixel of a view; an image's first is at ½.
        steps: float64 array (V,), image pixels for each of a view, positive.
    """

    centres: np.ndarray
    steps: np.ndarray


def places(start, end, size, wanted=None):
    """Of the part from `start` to `end` of a side resized to `size` pixels: centres and step.

    Args:
        start, end: image pixels; Pillow takes them as float32.
        size: int.
        wanted: int array, which of the pixels; all by default.
    """
    start, end = np.float32(start), np.float32(end)
    step = float(end - start) / size
    return float(start) + ((np.arange(size) if wanted is None else wanted) + 0.5) * step, step


def resample(pixels, across, down):
    """Views of an image, as `PIL.Image.resize` with BICUBIC makes them.

    In float32 on a GPU also where products are of less (`system.runtime.mixed_precision`), so
    they are computed here and not later.

    Args:
        pixels: uint8 array (H, W, 3).
        across, down: `Places` of the views' pixels along W and H; a mirrored view's run backwards.

    Returns:
        uint8 array (V, S, S, 3); on a GPU a float32 Var of whole numbers from 0 to 255, some of
        which differ from Pillow's by 1.
    """
    if not runtime.gpu_is_used():
        return by_kernel(pixels, across, down)
    with jt.flag_scope(use_tensorcore=0):
        return by_products(pixels, across, down).sync()


def by_kernel(pixels, across, down):
    """`resample` on the CPU."""
    H, W = pixels.shape[:2]
    V, S = across.centres.shape
    taps = [*_taps(across, W), *_taps(down, H)]
    return jt.code((V, S, S, 3), "uint8", [jt.array(values) for values in (pixels, *taps)],
                   cpu_header=_HEADER, cpu_src=_RESAMPLE).numpy()


def _taps(line, length):
    """What Pillow weighs for each pixel of the views: neighbours in a row, by whole numbers.

    Args:
        line: `Places`. length: of the image's side.

    Returns:
        bounds: int32 array (V, S, 2), the first neighbour and their number.
        weights: int32 array (V, S, T), in units of 2⁻²²; beyond their number 0.
    """
    centres, spread = line.centres, np.maximum(line.steps, 1.0)[:, None]
    support = 2.0 * spread
    first = np.maximum((centres - support + 0.5).astype(np.int32), 0)
    last = np.minimum((centres + support + 0.5).astype(np.int32), length)
    # Neighbours outermost, so that their sum is Pillow's, one after the other.
    neighbours = np.arange((last - first).max())[:, None, None]
    weights = _cubic(np.abs((neighbours + first - centres + 0.5) * (1.0 / spread)))
    weights *= neighbours < last - first
    weights /= weights.sum(axis=0)
    weights = (weights * _UNIT + np.copysign(0.5, weights)).astype(np.int32)
    return (np.stack([first, last - first], axis=-1),
            np.ascontiguousarray(weights.transpose(1, 2, 0)))


def _cubic(x):
    """The cubic convolution's weight at a distance x >= 0, array or Var."""
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    return near * (x < 1) + far * ((x >= 1) & (x < 2))


# C++. A band is 16 lines of the image: of each pixel and channel the 16 bytes lie side by side, 48
# a pixel.
_HEADER = r"""
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
// 48 weighted sums of bytes in 8 bits, those of the k-th neighbour at from + k * step.
static inline void weigh(const uint8_t* from, int64_t step, const int32_t* weights, int64_t n,
                         uint8_t* to) {
    int32_t sums[48];
    for (int i = 0; i < 48; i++) sums[i] = 1 << 21;
    for (int64_t k = 0; k < n; k++)
        for (int i = 0; i < 48; i++) sums[i] += from[k * step + i] * weights[k];
    for (int i = 0; i < 48; i++) to[i] = std::min(std::max(sums[i] >> 22, 0), 255);
}
"""
_RESAMPLE = r"""
    const int64_t H = in0_shape0, W = in0_shape1, V = out0_shape0, S = out0_shape1;
    const int64_t across_taps = in2_shape2, down_taps = in4_shape2;
    const int64_t n_bands = (H + 15) / 16, line = (S + 15) / 16 * 48;
    std::vector<uint8_t> bands(n_bands * W * 48);
    #pragma omp parallel
    {
        #pragma omp for
        for (int64_t b = 0; b < n_bands; b++)
            for (int64_t r = 0; r < std::min<int64_t>(16, H - 16 * b); r++)
                for (int64_t i = 0; i < 3 * W; i++)
                    bands[(b * W * 3 + i) * 16 + r] = in0_p[(16 * b + r) * W * 3 + i];
        uint8_t made[48];
        std::vector<uint8_t> lines;  // the image's that a view needs, in the view's width
        #pragma omp for
        for (int64_t v = 0; v < V; v++) {
            const int32_t *columns = in1_p + v * S * 2, *rows = in3_p + v * S * 2;
            int64_t top = H, bottom = 0;
            for (int64_t y = 0; y < S; y++) {
                top = std::min<int64_t>(top, rows[2 * y]);
                bottom = std::max<int64_t>(bottom, rows[2 * y] + rows[2 * y + 1]);
            }
            top = top / 16 * 16;
            lines.resize((bottom - top + 15) / 16 * 16 * line);
            for (int64_t y = top; y < bottom; y += 16)
                for (int64_t x = 0; x < S; x++) {
                    weigh(&bands[(y / 16 * W + columns[2 * x]) * 48], 48,
                          in2_p + (v * S + x) * across_taps, columns[2 * x + 1], made);
                    uint8_t* to = &lines[(y - top) * line + 3 * x];
                    for (int64_t r = 0; r < 16; r++, to += line)
                        for (int64_t c = 0; c < 3; c++) to[c] = made[16 * c + r];
                }
            for (int64_t y = 0; y < S; y++)
                for (int64_t i = 0; i < 3 * S; i += 48) {
                    weigh(&lines[(rows[2 * y] - top) * line + i], line,
                          in4_p + (v * S + y) * down_taps, rows[2 * y + 1], made);
                    std::memcpy(out0_p + (v * S + y) * S * 3 + i, made,
                                std::min<int64_t>(48, 3 * S - i));
                }
        }
    }
"""


def by_products(pixels, across, down):
    """`resample` on a GPU; of a large image some views at a time, so that it fits."""
    H, W = pixels.shape[:2]
    V, S = across.centres.shape
    columns = transposed(jt.array(pixels), (1, 0, 2)).reshape(W, H * 3).float32()
    at_once = max(1, _AT_ONCE_BYTES // (4 * S * (W + 6 * H)))
    views = [_views(columns, *(Places(line.centres[i:i + at_once], line.steps[i:i + at_once])
                               for line in (across, down))) for i in range(0, V, at_once)]
    return views[0] if len(views) == 1 else jt.concat([each.sync() for each in views])


def _views(columns, across, down):
    V, S = across.centres.shape
    W, H = columns.shape[0], columns.shape[1] // 3
    x = _in_8_bits(jt.matmul(_all_weights(across, W), columns))  # -> (V * S, H * 3)
    x = transposed(x.reshape(V, S, H, 3), (0, 2, 1, 3)).reshape(V, H, S * 3)
    x = _in_8_bits(nn.bmm(_all_weights(down, H).reshape(V, S, H), x))  # -> (V, S, S * 3)
    return x.reshape(V, S, S, 3)


def _all_weights(line, length):
    """What each pixel of a side counts for each of the views' pixels, Var (V * S, length)."""
    centres = line.centres.reshape(-1, 1) - 0.5  # as pixel numbers
    # Whole and rest apart: float32 does not hold both of a large image's.
    whole = np.floor(centres)
    spread = np.maximum(line.steps, 1.0).repeat(line.centres.shape[1])[:, None]
    whole, rest, spread = (jt.array(values.astype(np.float32))
                           for values in (whole, centres - whole, spread))
    x = jt.abs(jt.arange(length).float32().unsqueeze(0) - whole - rest) / spread
    weights = _cubic(x)
    return weights / weights.sum(dim=1, keepdims=True)


def _in_8_bits(x):
    return jt.clamp(jt.floor(x + 0.5), 0, 255)
