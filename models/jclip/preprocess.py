"""Images as CLIP takes them, as OpenAI's preprocessing makes them."""

import jittor as jt
import numpy as np
from PIL import Image

from models.kernels import transposed

# Channel mean and standard deviation of the pictures CLIP was trained on (OpenAI's clip.py).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_LONGEST = 50  # how many times the crop's side a resized image may be long


class Preprocess:
    """Shorter side to `image_size` (bicubic), centre crop, RGB, OpenAI's mean and deviation.

    Args:
        image_size: side of the square that the model takes, in pixels.
    """

    def __init__(self, image_size):
        self.image_size = image_size

    def __call__(self, image):
        """PIL image -> Var (3, S, S), float32."""
        return normalise(self.pixels(image)[None])[0]

    def placed(self, width, height):
        """Where the crop of an image lies: the size that it is resized to, and left and top."""
        S = self.image_size
        if width <= height:
            size = (S, int(S * height / width))
        else:
            size = (int(S * width / height), S)
        return size, tuple(int(round((side - S) / 2.0)) for side in size)

    def pixels(self, image):
        """PIL image -> uint8 array (S, S, 3), the crop before normalisation."""
        S = self.image_size
        if image.mode.startswith("I;16"):  # Pillow cannot resize these
            image = image.convert("RGB")
        width, height = image.size
        size, (left, top) = self.placed(width, height)
        if max(size) <= _LONGEST * S:
            image = image.resize(size, Image.BICUBIC)
            image = image.crop((left, top, left + S, top + S))
        else:
            # Only what the crop keeps, from where it lies in the image: the same pixels but for
            # the last bit, where 20,000 x 1 pixels would first become gigabytes.
            x, y = width / size[0], height / size[1]
            image = image.resize((S, S), Image.BICUBIC, box=(
                left * x, top * y, min(width, (left + S) * x), min(height, (top + S) * y)))
        return np.asarray(image.convert("RGB"))


def normalise(pixels, mean=MEAN, std=STD):
    """Pixels 0 to 255 (B, S, S, 3), array or Var -> float32 Var (B, 3, S, S) for the model."""
    mean, std = (np.reshape(c, (3, 1, 1)) for c in (mean, std))
    # A product and a sum: compilers approximate a division, each processor in its way.
    factor, shift = (jt.array(np.float32(c)) for c in (1 / (255 * std), -mean / std))
    if not isinstance(pixels, jt.Var):
        pixels = jt.array(np.ascontiguousarray(pixels))
    images = transposed(pixels, (0, 3, 1, 2)).float32()  # first, for loops along a row of pixels
    return images * factor + shift
