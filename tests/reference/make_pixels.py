"""Makes pixels.npz: OpenAI's preprocessing, by torchvision, of the awkward images.

    pip install torch==2.13.0 torchvision numpy pillow==10.4.0  (an environment of its own)
    python -m tests.reference.make_pixels
"""

import os
import sys
import tempfile
from unittest import mock

import numpy as np
from PIL import Image

from tests.reference.pictures import write_pictures

# torchvision's compiled operators may not fit this torch; its transforms do not need them.
for name in ("_meta_registrations", "ops", "models", "datasets", "io"):
    sys.modules[f"torchvision.{name}"] = mock.MagicMock()

from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

SIZE = 32


def main():
    crop = Compose([Resize(SIZE, interpolation=InterpolationMode.BICUBIC), CenterCrop(SIZE),
                    lambda image: image.convert("RGB")])
    with tempfile.TemporaryDirectory() as folder:
        pixels = {}
        for name in write_pictures(folder):
            image = Image.open(os.path.join(folder, name))
            if image.mode == "I;16":  # which Pillow cannot resize; torchvision ends there
                image = image.convert("RGB")
            pixels[name] = np.asarray(crop(image))
    np.savez_compressed(os.path.join(os.path.dirname(__file__), "pixels.npz"), **pixels)


if __name__ == "__main__":
    main()
