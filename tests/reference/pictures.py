"""Awkward images, the same from every run: modes, shapes, rotations, animations."""

import os

import numpy as np
from PIL import Image


def write_pictures(folder):
    """Write them; returns their names, sorted."""
    random = np.random.RandomState(5)

    def noise(width, height, channels=3):
        coarse = random.randint(0, 256, (4, 5, channels), np.uint8)
        image = Image.fromarray(coarse if channels > 1 else coarse[:, :, 0])
        return image.resize((width, height), Image.BICUBIC)

    def save(image, name, **options):
        image.save(os.path.join(folder, name), **options)

    for mode in ("1", "L", "P", "RGB", "RGBA", "LA"):
        save(noise(50, 37).convert(mode), f"mode_{mode}.png")
    for mode in ("CMYK", "L", "RGB", "YCbCr"):
        save(noise(41, 64).convert(mode), f"mode_{mode}.jpg", quality=90)
    save(noise(40, 40).convert("P"), "transparent_palette.png", transparency=3)
    save(noise(45, 33).quantize(7), "seven_colours.gif")
    sixteen = random.randint(0, 2 ** 16, (40, 30)).astype(np.uint16)
    save(Image.fromarray(sixteen), "sixteen_bit.png")
    save(Image.fromarray((sixteen.astype(np.int32) - 1000) * 3), "thirty_two_bit.tif")
    save(Image.fromarray(sixteen.astype(np.float32) / 300), "float.tif")
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(noise(48, 36), f"rotated_{orientation}.jpg", exif=exif)
    for width, height in ((1, 40), (40, 1), (1, 1), (2, 3), (31, 33), (33, 32), (63, 32),
                          (32, 32), (600, 3), (2000, 1500)):
        save(noise(width, height), f"size_{width}x{height}.png")
    frames = [noise(36, 30).quantize(16) for _ in range(3)]
    save(frames[0], "animated.gif", save_all=True, append_images=frames[1:])
    return sorted(os.listdir(folder))
