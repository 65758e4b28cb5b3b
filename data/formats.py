"""Which files are images: their endings, and the formats that Pillow may open."""

import functools
import importlib
import os

from PIL import Image

# What Pillow may open: other formats would start Ghostscript (EPS) or are no pictures.
_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "PNG": (".png", ".apng"),
    "BMP": (".bmp",), "WEBP": (".webp",), "GIF": (".gif",), "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "HEIF": (".heic", ".heif", ".hif"), "AVIF": (".avif",)}
IMAGE_SUFFIXES = tuple(ending for endings in _ENDINGS.values() for ending in endings)
# The two that Pillow may need a package for, and their brands (ISO/IEC 23008-12 and AV1's).
_PACKAGES = {"HEIF": "pillow-heif", "AVIF": "pillow-avif-plugin"}
_BRANDS = {"AVIF": (b"avif", b"avis"), "HEIF": (
    b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")}


@functools.lru_cache(maxsize=1)
def readable_formats():
    """Names of the formats that Pillow may open here; HEIC's and AVIF's packages are used."""
    Image.init()
    for module, register in (("pillow_heif", "register_heif_opener"), ("pillow_avif", None)):
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            continue
        if register is not None:
            getattr(plugin, register)()
    return tuple(name for name in _ENDINGS if name in Image.OPEN)


def is_image(name):
    """Whether a file's ending is an image's."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def needs_package(name):
    """The cure where no file of this ending can be read here; None where they can."""
    ending = os.path.splitext(name)[1].lower()
    return next((_cure(each) for each in _PACKAGES if ending in _ENDINGS[each]), None)


def needs_package_by_content(path):
    """`needs_package` of an image file, whatever its ending."""
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return None
    with open(path, "rb") as file:
        start = file.read(12)
    return next((_cure(each) for each in _PACKAGES
                 if start[4:8] == b"ftyp" and start[8:] in _BRANDS[each]), None)


def _cure(name):
    if name in readable_formats():
        return None
    kind = "HEIC" if name == "HEIF" else name
    return f"{kind}: convert to JPEG, or pip install {_PACKAGES[name]}"
