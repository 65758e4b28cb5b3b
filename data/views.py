"""Crops of images, made from the decoded image once and read ahead by threads.

Pillow releases Python's lock while it decodes and resizes, so threads use all cores and hand
over arrays without copies.
"""

import collections
import math
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from tqdm import tqdm


def decode(path):
    """The image in a file, in RGB; None if it cannot be decoded, with a warning that names it."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        warnings.warn(f"{path} cannot be decoded ({error})", stacklevel=2)
        return None


def random_crop(image, size, scale, rng, flip=True):
    """A random part of an image, resized to a square (Inception's crop, Szegedy et al. 2014).

    Args:
        image: PIL image in RGB.
        size: side of the result, pixels.
        scale: (smallest, largest) share of the area.
        rng: `np.random.RandomState`.
        flip: mirror half of them.

    Returns:
        uint8 array (size, size, 3).
    """
    width, height = image.size
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = int(round(math.sqrt(area * ratio))), int(round(math.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = rng.randint(0, width - w + 1), rng.randint(0, height - h + 1)
    crop = image.resize((size, size), Image.BICUBIC, box=(left, top, left + w, top + h))
    pixels = np.asarray(crop)
    return pixels[:, ::-1] if flip and rng.randint(2) else pixels


class Views:
    """What is cut from each image: V views, the first one the whole image if asked for.

    The crops of an image depend on the seed and the image's own name alone: not on its
    place in the list, the batch or the number of threads.

    Args:
        preprocess: `models.jclip`'s, which makes the view of the whole image.
        n_views: V.
        scale: (smallest, largest) share of the area of a random crop.
        seed: int.
        whole_first: view 0 is the whole image; otherwise all views are random crops.
    """

    def __init__(self, preprocess, n_views, scale, seed, whole_first=True):
        self.preprocess = preprocess
        self.n_views = n_views
        self.scale = tuple(scale)
        self.seed = seed
        self.whole_first = whole_first

    @property
    def shape(self):
        """Shape of an image's views: (V, S, S, 3)."""
        S = self.preprocess.image_size
        return (self.n_views, S, S, 3)

    @property
    def identity(self):
        """All that the views of an image depend on beside the image: plain values."""
        return (*self.shape, self.scale, self.seed, self.whole_first)

    def of(self, path, key=None):
        """The views of an image file, uint8 (V, S, S, 3), or None if it cannot be decoded.

        Args:
            path: the image.
            key: what the crops depend on beside the seed; the file's name by default.
        """
        image = decode(path)
        if image is None:
            return None
        key = path.replace("\\", "/").rsplit("/", 1)[-1] if key is None else key
        rng = np.random.RandomState([self.seed, zlib.crc32(str(key).encode())])
        views = np.empty(self.shape, np.uint8)
        first = int(self.whole_first)
        if first:
            views[0] = self.preprocess.pixels(image)
        for v in range(first, self.n_views):
            views[v] = random_crop(image, self.preprocess.image_size, self.scale, rng)
        return views


def read_ahead(work, items, n_threads, ahead):
    """`work(item)` of each item in order, up to `ahead` of them computed beforehand.

    Args:
        work: function of one item.
        items: list.
        n_threads: 0 works in the caller's own thread.
        ahead: results kept ready at most.

    Yields:
        the results.
    """
    if n_threads == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = collections.deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def view_batches(views, paths, batch_size, n_threads, description, keys=None):
    """The views of images, batch by batch, with a bar.

    Args:
        views: `Views`.
        paths: list of image files.
        batch_size: images a batch.
        n_threads: see `read_ahead`.
        description: of the bar.
        keys: for each image what its crops depend on; see `Views.of`.

    Yields:
        indices: int array (B,), the places in `paths`; images that cannot be decoded are left
            out, each with a warning.
        pixels: uint8 array (B, V, S, S, 3).
        bar: the `tqdm` bar, to show more on.
    """
    keys = [None] * len(paths) if keys is None else keys
    arrays = read_ahead(lambda item: views.of(*item), list(zip(paths, keys)), n_threads,
                        ahead=2 * batch_size)
    with tqdm(total=len(paths), desc=description, unit="image") as bar:
        for start in range(0, len(paths), batch_size):
            indices = range(start, min(start + batch_size, len(paths)))
            decoded = [(i, array) for i, array in zip(indices, arrays) if array is not None]
            if decoded:
                yield np.array([i for i, _ in decoded]), np.stack([a for _, a in decoded]), bar
            bar.update(len(indices))
