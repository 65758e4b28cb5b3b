"""Image files: formats, modes, sizes, orientations and names, and what is no image."""

import io
import os
import socket
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from tests.corpus import NO_FILES, OTHER_FORMATS, Case

WIDTH, HEIGHT = 24, 16
_CORNERS = [[(200, 40, 40), (40, 180, 60)], [(60, 80, 210), (230, 220, 60)]]
# Four colours, so that no rotation or mirror image is like it.
PICTURE = Image.fromarray(np.array(_CORNERS, np.uint8).repeat(HEIGHT // 2, 0).repeat(
    WIDTH // 2, 1))
GREY = PICTURE.convert("L")
ORIENTATION = 0x0112
# What each value of EXIF's orientation says to do, by its specification (CIPA DC-008, 4.6.4).
UPRIGHT = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1],
           4: lambda a: a[::-1], 5: lambda a: a.transpose(1, 0, 2),
           6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
           8: np.rot90}
UNREADABLE = "cannot be decoded"
MANY = 10 ** 6  # pixels, in the place of Pillow's 89 million


def saved(image, kind, **options):
    """The bytes of an image file."""
    if kind in ("JPEG", "MPO"):  # the best that these can
        options.update(quality=95, subsampling=0)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def shows(name, content, picture=PICTURE, warning=None):
    """A case that decodes to a picture, PIL."""
    return Case(name, content, np.asarray(picture.convert("RGB")), warning)


def undecodable(contents):
    """Cases that are no pictures: None, and a warning."""
    return [Case(name, content, None, UNREADABLE) for name, content in contents.items()]


def same(picture, expected):
    """Lossy formats may be off by 8 of 255 on average."""
    if expected is None:
        assert picture is None
        return
    pixels = np.asarray(picture)
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).mean() <= 8


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def turned(kind, orientation, **options):
    """The picture with an orientation, and upright."""
    upright = UPRIGHT[orientation](np.asarray(PICTURE))
    return shows(f"{kind}, orientation {orientation}",
                 saved(PICTURE, kind, exif=exif(orientation), **options), Image.fromarray(upright))


def xmp_orientation(value):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", f'<x tiff:Orientation="{value}"/>')
    return info


def png(width, height, depth, colour, rows, *chunks):
    """A PNG of our own making; `rows` is packed as it is."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in (
        (b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))


def png_rows(values):
    """Rows of an array as PNG has them, without a filter."""
    return b"".join(b"\0" + row.tobytes() for row in values)


# 16 bits a channel, the lower 8 of which tell nothing.
WIDE = (np.asarray(PICTURE, np.uint16) * 256 + 99).astype(">u2")
WIDE_GREY = np.asarray(GREY, np.uint16) * 256 + 99
# From 0 to 255, as a picture is that is stretched to black and white.
RAMP = np.linspace(0, 255, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
SEE_THROUGH = PICTURE.convert("RGBA")
SEE_THROUGH.putalpha(Image.fromarray(np.asarray(GREY)))
PALETTE = PICTURE.convert("P", palette=Image.ADAPTIVE, colors=8)
BILEVEL = GREY.point(lambda value: 255 * (value > 110)).convert("1")
PAIR = {"save_all": True, "append_images": [GREY.convert("RGB")]}
FRAMES = {"save_all": True, "append_images": [GREY.convert("RGB"), PICTURE.rotate(180)]}
JPEG, PNG = saved(PICTURE, "JPEG"), saved(PICTURE, "PNG")
WEBP, TIFF = saved(PICTURE, "WEBP"), saved(PICTURE, "TIFF")
GIF, BMP = saved(PICTURE, "GIF"), saved(PICTURE, "BMP")
ROWS = JPEG.index(b"\xff\xda") + 14  # where they begin, behind the header of the scan
# A TIFF whose list of tags leads to itself.
LOOP = b"II*\0\x08\0\0\0\0\0\x08\0\0\0"


def line(width, height):
    """A row or column of pixels, half of them dark."""
    values = np.full((height, width), 30, np.uint8)
    values[height // 2:, width // 2:] = 220
    return Image.fromarray(values)


def make_socket(path):
    # Its path may have 108 bytes, so it is bound where a shorter one leads.
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


# Read with `decode`; the file ends in .jpg whatever it holds.
FILES = [
    shows("JPEG", JPEG), shows("progressive", saved(PICTURE, "JPEG", progressive=True)),
    shows("grey JPEG", saved(GREY, "JPEG"), GREY),
    shows("CMYK JPEG", saved(PICTURE.convert("CMYK"), "JPEG")),
    shows("a JPEG without its marker of the end", JPEG[:-2], warning="breaks off"),
    shows("a JPEG without its last byte", JPEG[:-1], warning="breaks off"),
    shows("a progressive JPEG without its end", saved(PICTURE, "JPEG", progressive=True)[:-20],
          warning="breaks off"),
    shows("a grey JPEG without its end", saved(GREY, "JPEG")[:-3], GREY, "breaks off"),
    shows("a turned JPEG without its end", saved(PICTURE, "JPEG", exif=exif(3))[:-2],
          Image.fromarray(UPRIGHT[3](np.asarray(PICTURE))), "breaks off"),
    shows("JPEG with more behind it", JPEG + b"PK\3\4 an archive"),
    shows("JPEG with a profile", saved(PICTURE, "JPEG", icc_profile=b"no profile")),
    shows("JPEG with a comment", saved(PICTURE, "JPEG", comment=b"\0\xff\n")),
    shows("two pictures in a JPEG", saved(PICTURE, "MPO", **PAIR)),
    shows("PNG", PNG), shows("palette", saved(PALETTE, "PNG")),
    shows("palette, one colour clear", saved(PALETTE, "PNG", transparency=1)),
    shows("palette, half clear", saved(PALETTE, "PNG", transparency=bytes([0, 128, 255]))),
    shows("alpha", saved(SEE_THROUGH, "PNG")),
    shows("grey with alpha", saved(SEE_THROUGH.convert("LA"), "PNG"), GREY),
    shows("a clear colour", saved(PICTURE, "PNG", transparency=_CORNERS[0][0])),
    shows("nothing but clear", saved(Image.new("RGBA", (3, 2), (9, 99, 199, 0)), "PNG"),
          Image.new("RGB", (3, 2), (9, 99, 199))),
    shows("grey PNG", saved(GREY, "PNG"), GREY), shows("1 bit", saved(BILEVEL, "PNG"), BILEVEL),
    shows("16 bits of grey", saved(Image.fromarray(WIDE_GREY), "PNG"), GREY),
    shows("16 bits a colour", png(WIDTH, HEIGHT, 16, 2, png_rows(WIDE))),
    shows("16 bits of grey with alpha", png(WIDTH, HEIGHT, 16, 4, png_rows(
        np.stack([WIDE_GREY, WIDE_GREY], -1).astype(">u2"))), GREY),
    shows("2 bits", png(4, 1, 2, 0, b"\0\x1b"), Image.fromarray(np.uint8([[0, 85, 170, 255]]))),
    shows("animated PNG", saved(PICTURE, "PNG", **FRAMES)),
    shows("PNG with a text of 10^6 letters", png(WIDTH, HEIGHT, 8, 2, png_rows(
        np.asarray(PICTURE)), (b"tEXt", b"Comment\0" + b"x" * 10 ** 6))),
    shows("GIF", GIF), shows("animated GIF", saved(PICTURE, "GIF", **FRAMES)),
    shows("GIF with a clear colour", saved(PALETTE, "GIF", transparency=0)),
    shows("BMP", BMP), shows("BMP of a palette", saved(PALETTE, "BMP")),
    shows("BMP of 1 bit", saved(BILEVEL, "BMP"), BILEVEL),
    shows("WebP", WEBP), shows("lossless WebP", saved(PICTURE, "WEBP", lossless=True)),
    shows("animated WebP", saved(PICTURE, "WEBP", **FRAMES)),
    shows("WebP with alpha", saved(SEE_THROUGH, "WEBP", exact=True)),
    shows("TIFF", TIFF), shows("TIFF, LZW", saved(PICTURE, "TIFF", compression="tiff_lzw")),
    shows("TIFF, CMYK", saved(PICTURE.convert("CMYK"), "TIFF")),
    shows("TIFF, fax", saved(BILEVEL, "TIFF", compression="group4"), BILEVEL),
    shows("TIFF, several pages", saved(PICTURE, "TIFF", **FRAMES)),
    shows("TIFF, palette", saved(PALETTE, "TIFF")),
    shows("TIFF, JPEG inside", saved(PICTURE, "TIFF", compression="jpeg", quality=95)),
    shows("TIFF, 16 bits", saved(Image.fromarray(WIDE_GREY), "TIFF"), GREY),
    shows("TIFF, floats", saved(Image.fromarray(RAMP.astype(np.float32) / 255 - 3), "TIFF"),
          Image.fromarray(RAMP.astype(np.uint8)), "values from -3 to -2"),
    shows("TIFF, one float", saved(Image.new("F", (3, 2), 0.5), "TIFF"), Image.new("L", (3, 2)),
          "values from 0.5 to 0.5"),
    shows("TIFF, 32-bit integers", saved(Image.fromarray(
        (RAMP * 10 ** 6).astype(np.int32)), "TIFF"), Image.fromarray(RAMP.astype(np.uint8)),
        "values from 0 to"),
    shows("TIFF, LAB", saved(Image.new("LAB", (4, 4)), "TIFF"),
          Image.new("RGB", (4, 4), (0, 59, 195))),
    shows("PPM", saved(PICTURE, "PPM")), shows("PBM", saved(BILEVEL, "PPM"), BILEVEL),
    shows("PPM in letters", b"P3 2 1 255\n9 99 199 0 0 0\n",
          Image.fromarray(np.uint8([[[9, 99, 199], [0, 0, 0]]]))),
    shows("JPEG 2000", saved(PICTURE, "JPEG2000")),
    *[turned("JPEG", orientation) for orientation in range(1, 9)],
    *[turned(kind, orientation) for kind in ("PNG", "WEBP", "TIFF") for orientation in (3, 6)],
    turned("MPO", 8, **PAIR),
    *[shows(f"orientation {value}", saved(PICTURE, "JPEG", exif=exif(value)))
      for value in (0, 9, 65535)],
    shows("orientation in words", saved(PICTURE, "JPEG", exif=b"Exif\0\0" + struct.pack(
        "<2sHIHHHI4sI", b"II", 42, 8, 1, ORIENTATION, 2, 3, b"up", 0))),
    shows("damaged EXIF", saved(PICTURE, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")),
    shows("half of EXIF", saved(PICTURE, "JPEG", exif=exif(6).tobytes()[:-9])),
    shows("no EXIF in EXIF", saved(PICTURE, "JPEG", exif=b"Exif\0\0no tags")),
    shows("orientation by XMP", saved(PICTURE, "PNG", pnginfo=xmp_orientation(3)),
          Image.fromarray(UPRIGHT[3](np.asarray(PICTURE)))),
    *[shows(f"{width} x {height}", saved(line(width, height), "PNG"), line(width, height))
      for width, height in ((1, 1), (2, 1), (1, 2), (20_000, 1), (1, 20_000), (20_000, 3))],
    shows("more pixels than MANY", saved(line(1500, 1000), "PNG"), line(1500, 1000),
          "1500 x 1000 pixels"),
    *undecodable({
        "empty": b"", "one byte": b"\xff", "the start of a JPEG": JPEG[:2],
        "a JPEG's header": JPEG[:300], "a JPEG up to its rows": JPEG[:ROWS],
        "a PNG's header": PNG[:33], "half a PNG": PNG[:len(PNG) // 2],
        "a PNG of noise": PNG[:45] + bytes(range(40)) + PNG[85:],
        "a PNG without rows": png(WIDTH, HEIGHT, 8, 2, b""),
        "half a GIF": GIF[:len(GIF) // 3], "half a BMP": BMP[:len(BMP) // 2],
        "half a WebP": WEBP[:len(WEBP) // 2], "half a TIFF": TIFF[:len(TIFF) // 2],
        "a GIF's header": b"GIF89a", "no JPEG's content": JPEG[:20] + b"x" * 500,
        "a TIFF without an end": LOOP, "no size": png(0, 0, 8, 2, b""),
        "floats that are not finite": saved(Image.fromarray(
            np.float32([[np.nan, 1], [2, np.inf]])), "TIFF"),
        "a bomb of a PNG": png(60_000, 60_000, 1, 0, bytes(10 ** 5)),
        "a bomb of a GIF": b"GIF89a\xff\xff\xff\xff" + GIF[10:],
        "a bomb of a BMP": BMP[:18] + struct.pack("<ii", 10 ** 5, 10 ** 5) + BMP[26:],
        "a bomb of text": png(WIDTH, HEIGHT, 8, 2, png_rows(np.asarray(PICTURE)), (
            b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10 ** 7)))),
        "a size of 2^32 - 1": png(2 ** 32 - 1, 2 ** 32 - 1, 8, 2, b""),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "PDF": b"%PDF-1.4\n1 0 obj <<>> endobj\n", "SVG": b"<svg xmlns='x' width='9'/>",
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a pickle": b"\x80\4K\1.",
        "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "Windows' icon": saved(
            PICTURE.resize((16, 16)), "ICO"), "a Mac's second half": b"\0\5\x16\7" + bytes(80),
        **{f"file: {name}": content for name, content in {**OTHER_FORMATS, **NO_FILES}.items()},
        "a pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero"),
        "a socket": make_socket}),
]


# Names in a folder of images; each is listed and decoded.
NAMES = [
    "plain.jpg", "two words.jpg", " before.jpg", "熊猫.jpg", "e\u0301.jpg", "-rf.jpg", "--help.png",
    "'quotes\".jpg", "$(true).jpg", "%s {0}.jpg", "back\\slash.jpg", "UPPER.JPG", "x.jfif",
    "tab\t.jpg", "escape\x1b[31m.jpg", "no\u202fbreak.jpg", "\u202ert.jpg", "a.b.c.jpeg",
    "x" * 250 + ".jpg", "1" * 200 + ".jpg", "separator\u2028.jpg",
    "\U0001f415\u200d\U0001f9ba.gif", "image 1 2 3 4 5.jpg", "x.jpe", "x.JP2"]
# Hidden, or an operating system's: none is listed, and nothing is said of them.
HIDDEN_NAMES = [".hidden.jpg", ".jpg", "._plain.jpg", ".DS_Store", "Thumbs.db", "thumbs.db",
                "desktop.ini", "Desktop.ini", "ehthumbs.db", "Icon\r"]
HIDDEN_FOLDERS = ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN",
                  "System Volume Information", ".Trash-1000", "lost+found"]
BAD_NAMES = ["a\nb.jpg", "a\rb.jpg", "\n.jpg", os.fsdecode("é.jpg".encode("latin-1")),
             os.fsdecode(b"\xed\xa0\x80.jpg")]
