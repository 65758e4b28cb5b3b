"""Crops of images, made from the decoded image once and read ahead by threads.

Pillow releases Python's lock while it decodes and resizes, so threads use all cores and hand
over arrays without copies.
"""

import collections
import math
import os
import stat
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image
from tqdm import tqdm

from models import runtime
from models.errors import UserError

# What Pillow may open: others would start Ghostscript (EPS) or are no pictures.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM,
            5: Image.TRANSPOSE, 6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}


def decode(path):
    """The picture in a file as people see it, in RGB; None, with a warning, if there is none.

    Formats are told by content. An animation gives its first frame; what is transparent shows
    the colour that is stored under it, as in OpenAI's preprocessing. EXIF's orientation is
    applied, which OpenAI's preprocessing leaves to its caller: telephones store photos lying on
    their side, and whoever labelled one saw it upright. Greys of 16 bits keep their upper 8;
    floats and 32-bit integers have no range of their own and are stretched from their least to
    their greatest value, with a warning.

    Every warning names the file.

    Raises:
        UserError: the image's folder has vanished.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise OSError("it is no regular file")
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:  # Pillow refuses the double
                warnings.warn(f"{path} has {image.width} x {image.height} pixels; it is read, "
                              "but a smaller copy would do", stacklevel=2)
            image.load()
            upright = _UPRIGHT.get(_orientation(image))
            picture = _in_8_bits(image, path).convert("RGB")
            return picture if upright is None else picture.transpose(upright)
    except MemoryError:
        raise
    except Exception as error:  # a damaged image fails in any way
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise UserError(f"the folder {folder} is gone; put it back and run the same command "
                            "again") from error
        reason = getattr(error, "strerror", None) or error
        warnings.warn(f"{path} cannot be decoded ({reason})", stacklevel=2)
        return None


def _orientation(image):
    """EXIF's orientation, 1 to 8, or None; a damaged tag does not make the picture worse."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:
        return None


def _in_8_bits(image, path):
    """Greys of more than 8 bits in 8, where Pillow would clip them at 255; others as they are."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode not in ("I", "F"):
        return image
    values = np.asarray(image, np.float64)
    least, greatest = values.min(), values.max()
    if not np.isfinite(greatest - least):
        raise ValueError("its values are not finite")
    warnings.warn(f"{path} has values from {least:g} to {greatest:g}, which become black to white",
                  stacklevel=3)
    return Image.fromarray((255 * (values - least) / ((greatest - least) or 1)).astype(np.uint8))


def random_box(width, height, scale, rng, flip=True):
    """A random part of an image (Inception's crop, Szegedy et al. 2014).

    Args:
        width, height: the image's, pixels.
        scale: (smallest, largest) share of the area.
        rng: `np.random.RandomState`.
        flip: mirror half of them.

    Returns:
        left, top, width and height of the part, pixels; whether it is mirrored.
    """
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = int(round(math.sqrt(area * ratio))), int(round(math.sqrt(area / ratio)))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = rng.randint(0, width - w + 1), rng.randint(0, height - h + 1)
    return left, top, w, h, flip and bool(rng.randint(2))


def random_crop(image, size, scale, rng, flip=True):
    """A `random_box` of a PIL image in RGB, resized: uint8 array (size, size, 3)."""
    left, top, w, h, flipped = random_box(*image.size, scale, rng, flip)
    crop = image.resize((size, size), Image.BICUBIC, box=(left, top, left + w, top + h))
    pixels = np.asarray(crop)
    return pixels[:, ::-1] if flipped else pixels


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
        rng = self._random(path, key)
        views = np.empty(self.shape, np.uint8)
        first = int(self.whole_first)
        if first:
            views[0] = self.preprocess.pixels(image)
        for v in range(first, self.n_views):
            views[v] = random_crop(image, self.preprocess.image_size, self.scale, rng)
        return views

    def plan(self, path, key=None):
        """The image and where the views of `of` lie in it, for `data.device_views.resample`.

        Returns:
            pixels: uint8 array (H, W, 3).
            grids: float array (V, 4); the centres of a view's pixels are x₀ + (i + ½) dx across
                and y₀ + (i + ½) dy down the image, with dx < 0 where the view is mirrored.
            None if the image cannot be decoded.
        """
        image = decode(path)
        if image is None:
            return None
        rng, (width, height) = self._random(path, key), image.size
        S = self.preprocess.image_size
        grids = []
        if self.whole_first:
            size, (left, top) = self.preprocess.placed(width, height)
            x, y = width / size[0], height / size[1]
            grids.append((left * x, x, top * y, y))
        while len(grids) < self.n_views:
            left, top, w, h, flipped = random_box(width, height, self.scale, rng)
            across = (left + w, -w / S) if flipped else (left, w / S)
            grids.append((*across, top, h / S))
        return np.asarray(image), np.array(grids)

    def _random(self, path, key):
        key = path.replace("\\", "/").rsplit("/", 1)[-1] if key is None else key
        return np.random.RandomState([self.seed, zlib.crc32(str(key).encode())])


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
        pixels: uint8 array (B, V, S, S, 3); on a GPU, where they are cut there, a Var.
        bar: the `tqdm` bar, to show more on.
    """
    keys = [None] * len(paths) if keys is None else keys
    on_gpu = runtime.gpu_is_used()
    if on_gpu:
        from data.device_views import resample_all  # here, as it needs Jittor
    prepared = read_ahead(lambda item: (views.plan if on_gpu else views.of)(*item),
                          list(zip(paths, keys)), n_threads, ahead=2 * batch_size)
    with tqdm(total=len(paths), desc=description, unit="image") as bar:
        for start in range(0, len(paths), batch_size):
            indices = range(start, min(start + batch_size, len(paths)))
            decoded = [(i, made) for i, made in zip(indices, prepared) if made is not None]
            if decoded:
                made = [made for _, made in decoded]
                pixels = resample_all(made, views.shape[1]) if on_gpu else np.stack(made)
                yield np.array([i for i, _ in decoded]), pixels, bar
            bar.update(len(indices))
