"""Crops of images, all cut from the image that was decoded once, and read ahead by threads.

Pillow releases Python's lock while it decodes, so threads use all cores and hand over arrays
without copies.
"""

import collections
import io
import math
import os
import stat
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import jittor as jt
import numpy as np
from PIL import Image
from tqdm import tqdm

from data.formats import needs_package_by_content, readable_formats
from data.resampling import Places, places, resample
from system import parallel
from system.errors import UserError

_ORIENTATION = 0x0112  # EXIF's tag
_READY_BYTES = 256 << 20  # of decoded images that wait for their turn
_UPRIGHT = {2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM,
            5: Image.TRANSPOSE, 6: Image.ROTATE_270, 7: Image.TRANSVERSE, 8: Image.ROTATE_90}


def decode(path):
    """The picture in a file as people see it, in RGB; None, with a warning, if there is none.

    Formats are told by content. An animation gives its first frame; what is transparent shows
    the colour that is stored under it, as in OpenAI's preprocessing. EXIF's orientation is
    applied, which OpenAI's preprocessing leaves to its caller: telephones store photos lying on
    their side, and whoever labelled one saw it upright. Greys of 16 bits keep their upper 8;
    floats and 32-bit integers have no range of their own and are stretched from their least to
    their greatest value, with a warning. A JPEG that breaks off gives what is there, with a
    warning too, and grey for the rest.

    Every warning names the file.

    Raises:
        UserError: the image's folder has vanished.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise OSError("it is no regular file")
        with Image.open(path, formats=readable_formats()) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:  # Pillow refuses the double
                warnings.warn(f"{path} has {image.width} x {image.height} pixels; it is read, "
                              "but a smaller copy would do", stacklevel=2)
            try:
                image.load()
                pixels = image
            except OSError as error:
                if image.format not in ("JPEG", "MPO") or "truncated" not in str(error):
                    raise
                pixels = _without_its_end(path)
            upright = _UPRIGHT.get(_orientation(image))
            picture = _in_8_bits(pixels, path).convert("RGB")
            return picture if upright is None else picture.transpose(upright)
    except MemoryError:
        raise
    except Exception as error:  # a damaged image fails in any way
        folder = os.path.dirname(os.path.abspath(path))
        if not os.path.isdir(folder):
            raise UserError(f"the folder {folder} is gone; put it back and run the same command "
                            "again") from error
        reason = getattr(error, "strerror", None) or _needed(path) or error
        warnings.warn(f"{path} cannot be decoded ({reason})", stacklevel=2)
        return None


def _without_its_end(path):
    """The picture of a JPEG that breaks off, PIL, what is missing grey; with a warning.

    Raises:
        ValueError: less than a tenth of it is there.
    """
    with open(path, "rb") as file:
        content = file.read()
    scan = content.index(b"\xff\xda")
    try:
        image = _ended(content)
    except OSError:  # it breaks off in the tables of a later scan
        image = _ended(content[:content.rindex(b"\xff\xc4", scan)])
    pixels = np.asarray(image.convert("RGB"))
    share = (pixels != pixels[-1, -1]).any(axis=-1).mean()
    # The first block is made of nothing, which is much of a tiny picture.
    if share < 0.1 or len(content) <= scan + 2 + int.from_bytes(content[scan + 2:scan + 4], "big"):
        raise ValueError(f"it breaks off, with {100 * share:.0f} % of it there")
    warnings.warn(f"{path} breaks off after {len(content)} bytes; what is there is used",
                  stacklevel=3)
    return image


def _ended(content):
    """A JPEG's bytes with a marker of the end, PIL: libjpeg takes what is missing for zeros."""
    with Image.open(io.BytesIO(content + b"\xff\xd9"), formats=("JPEG",)) as image:
        image.load()
    return image


def _needed(path):
    """What an image needs to be decoded here, None where that is not what is wrong."""
    try:
        return needs_package_by_content(path)
    except OSError:
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

    The crops of an image depend on the seed and the picture alone: not on its name, its place in
    the list, the batch or the number of threads.

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
        return (*self.shape, self.scale, self.seed, self.whole_first, "by the picture")

    def of(self, path, key=None):
        """The views of an image file, (V, S, S, 3) as `data.resampling.resample` has them.

        Args:
            path: the image.
            key: what the crops depend on beside the seed; the picture itself by default.

        Returns:
            None if the image cannot be decoded.
        """
        plan = self.plan(path, key)
        return None if plan is None else resample(*plan)

    def plan(self, path, key=None):
        """The image of `of`, and where its views lie: arguments of `data.resampling.resample`."""
        image = decode(path)
        if image is None:
            return None
        S, across, down = self.preprocess.image_size, [], []
        if self.whole_first:
            size, corner = self.preprocess.placed(*image.size)
            for lines, length, whole, first in zip((across, down), image.size, size, corner):
                lines.append(places(0, length, whole, wanted=first + np.arange(S)))
        for left, top, w, h, flipped in self.boxes(image, key):
            centres, step = places(left, left + w, S)
            across.append((centres[::-1] if flipped else centres, step))
            down.append(places(top, top + h, S))
        return np.asarray(image), *(Places(*map(np.array, zip(*line))) for line in (across, down))

    def boxes(self, image, key=None):
        """The crops of a PIL image in RGB, a list of what `random_box` returns; see `of`."""
        if key is None:  # every eighth row tells pictures apart well enough
            key = zlib.crc32(np.ascontiguousarray(np.asarray(image)[::8]))
        rng = np.random.RandomState([self.seed, zlib.crc32(str(key).encode())])
        return [random_box(*image.size, self.scale, rng)
                for _ in range(self.n_views - self.whole_first)]


def read_ahead(work, items, n_threads, ahead, n_bytes=lambda result: 0):
    """`work(item)` of each item in order, some of them computed beforehand.

    Args:
        work: function of one item.
        items: list.
        n_threads: 0 works in the caller's own thread; None is one for each of the process' cores.
        ahead: results kept ready at most; fewer where they are large, but one a thread.
        n_bytes: function of a result, the memory that it takes.

    Yields:
        the results.
    """
    if n_threads is None:
        n_threads = max(1, len(os.sched_getaffinity(0)) // parallel.local_size())
    if n_threads == 0:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = collections.deque()
        kept = min(ahead, n_threads)  # until the first has told how large they are
        for item in items:
            waiting.append(pool.submit(work, item))
            while len(waiting) > kept:
                result = waiting.popleft().result()
                fitting = _READY_BYTES // max(1, n_bytes(result))
                kept = min(ahead, max(n_threads, fitting))
                yield result
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
        pixels: (B, V, S, S, 3), uint8 array, or on a GPU a Var.
        bar: the `tqdm` bar, to show more on.
    """
    keys = [None] * len(paths) if keys is None else keys
    plans = read_ahead(lambda item: views.plan(*item), list(zip(paths, keys)), n_threads,
                       ahead=2 * batch_size, n_bytes=lambda plan: plan[0].nbytes if plan else 0)
    with tqdm(total=len(paths), desc=description, unit="image") as bar:
        for start in range(0, len(paths), batch_size):
            indices = range(start, min(start + batch_size, len(paths)))
            cut = [(i, resample(*plan)) for i, plan in zip(indices, plans) if plan is not None]
            if cut:
                indices_cut, pixels = zip(*cut)
                stack = np.stack if isinstance(pixels[0], np.ndarray) else jt.stack
                yield np.array(indices_cut), stack(pixels), bar
            bar.update(len(indices))
