"""Crops on a GPU: Pillow's bicubic resize as two matrix products, all views of an image at once.

On the CPU Pillow itself is faster (data/views.py), which also decodes for both.
"""

import jittor as jt
import numpy as np
from jittor import nn

_SHARPNESS = -0.5  # a of the cubic convolution (Keys 1981), as Pillow has it


def resample_all(plans, size):
    """Views of some images, each cut by its `data.views.Views.plan`: Var (B, V, S, S, 3).

    In float32 also where products are of less (`models.runtime.mixed_precision`), so they are
    computed here and not later.
    """
    with jt.flag_scope(use_tensorcore=0):
        return jt.stack([resample(pixels, grids, size) for pixels, grids in plans]).sync()


def resample(pixels, grids, size):
    """Views of an image, as `PIL.Image.resize` with BICUBIC makes them.

    Args:
        pixels: uint8 array (H, W, 3).
        grids: float array (V, 4), `data.views.Views.plan`'s.
        size: S, the side of a view.

    Returns:
        Var (V, S, S, 3), float32 with whole numbers from 0 to 255. Beside Pillow's, which
        rounds its weights to 22 bits, some values differ by 1.
    """
    H, W = pixels.shape[:2]
    V, S = len(grids), size
    columns = jt.array(pixels).permute(1, 0, 2).reshape(W, H * 3).float32()
    x = _in_8_bits(jt.matmul(_weights(grids[:, :2], S, W), columns))  # -> (V * S, H * 3)
    x = x.reshape(V, S, H, 3).permute(0, 2, 1, 3).reshape(V, H, S * 3)
    x = _in_8_bits(nn.bmm(_weights(grids[:, 2:], S, H).reshape(V, S, H), x))  # -> (V, S, S * 3)
    return x.reshape(V, S, S, 3)


def _weights(grid, size, length):
    """What each pixel of a line counts in each of the resized lines.

    Args:
        grid: float array (V, 2), the line's start and step of each view.

    Returns:
        Var (V * size, length), rows sum to 1.
    """
    start, step = grid[:, :1], grid[:, 1:]
    centres = (start + (np.arange(size) + 0.5) * step).reshape(-1, 1) - 0.5  # as pixel numbers
    # Whole and rest apart: float32 does not hold both of a large image's.
    whole = np.floor(centres)
    spread = np.maximum(np.abs(step), 1.0).repeat(size, axis=1).reshape(-1, 1)
    whole, rest, spread = (jt.array(values.astype(np.float32))
                           for values in (whole, centres - whole, spread))
    x = jt.abs(jt.arange(length).float32().unsqueeze(0) - whole - rest) / spread
    near = ((_SHARPNESS + 2) * x - (_SHARPNESS + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _SHARPNESS
    weights = near * (x < 1) + far * jt.logical_and(x >= 1, x < 2)
    return weights / weights.sum(dim=1, keepdims=True)


def _in_8_bits(x):
    return jt.clamp(jt.floor(x + 0.5), 0, 255)
