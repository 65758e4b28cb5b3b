"""How pictures of the generated world are rendered: colours, poses and the nuisances of photos.

How strong the nuisances are, the palette and the rendering come from a `Style`. `SKETCH` and
`PAINTING` differ as the pictures that a model was trained on differ from those it meets.
"""

import colorsys
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# Hue, saturation and value of each colour word in `SKETCH`.
COLOURS = {
    "red": (0.00, 0.85, 0.88), "orange": (0.075, 0.90, 0.97), "yellow": (0.145, 0.85, 0.98),
    "green": (0.34, 0.75, 0.65), "blue": (0.60, 0.80, 0.85), "purple": (0.77, 0.65, 0.65),
    "pink": (0.92, 0.40, 0.98), "brown": (0.07, 0.65, 0.45), "white": (0.10, 0.04, 0.97),
    "black": (0.65, 0.20, 0.16)}


class Style(NamedTuple):
    """How pictures are rendered, and how strong the nuisances are.

    Attributes:
        hue, saturation, value: what the palette is turned and multiplied by.
        colour_jitter: spread of a colour around its palette entry.
        outline: share of the pictures with outlines.
        clutter: (fewest, most) shapes behind the thing.
        hatching: strength of pencil strokes over everything, 0 … 1.
        brush: strength of blotches, 0 … 1.
        light: strength of light that falls off across the picture, 0 … 1.
        blur: largest radius, in hundredths of the picture's side.
        noise: largest deviation, grey levels.
        occlusion: share of the pictures with something in front.
        scale: (smallest, largest) half size of the thing, in picture sides.
        turn: largest rotation, degrees.
    """

    hue: float
    saturation: float
    value: float
    colour_jitter: float
    outline: float
    clutter: tuple
    hatching: float
    brush: float
    light: float
    blur: float
    noise: float
    occlusion: float
    scale: tuple
    turn: float


SKETCH = Style(hue=0.0, saturation=1.0, value=1.0, colour_jitter=0.03, outline=0.5,
               clutter=(0, 2), hatching=0.0, brush=0.08, light=0.2, blur=0.6, noise=5,
               occlusion=0.05, scale=(0.38, 0.5), turn=15)
PAINTING = Style(hue=0.045, saturation=0.65, value=0.85, colour_jitter=0.03, outline=0.0,
                 clutter=(4, 9), hatching=0.1, brush=0.28, light=0.6, blur=1.2, noise=12,
                 occlusion=0.25, scale=(0.34, 0.48), turn=20)


def picture(paint, colours, style, size, rng):
    """A picture of one thing in a random pose.

    Args:
        paint: function that draws the thing on a `Canvas`.
        colours: (main, second), keys of `COLOURS`.
        style: `Style`.
        size: side, pixels.
        rng: `np.random.Generator`.

    Returns:
        PIL image in RGB.
    """
    side = 2 * size  # drawn twice as large, then averaged
    main, second = (_tint(COLOURS[name], style, rng) for name in colours)
    image = _background(style, side, rng)

    scale = side * rng.uniform(*style.scale)
    angle = math.radians(rng.uniform(-style.turn, style.turn))
    stretch = np.array([[rng.choice([-1, 1]) * rng.uniform(0.88, 1.12), rng.uniform(-0.1, 0.1)],
                        [0, 1]])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    room = max(0.0, side / 2 - scale)
    offset = side / 2 + rng.uniform(-room, room, 2)
    ink = (30, 28, 32) if rng.random() < style.outline else None
    paint(Canvas(image, scale * turn @ stretch, offset, main, second, ink))
    if rng.random() < style.occlusion:
        # Something in front, at the thing's edge.
        away = rng.uniform(0, 2 * math.pi)
        place = offset + scale * 0.85 * np.array([math.cos(away), math.sin(away)])
        _blob(ImageDraw.Draw(image), place, scale * rng.uniform(0.2, 0.4),
              _tint(_random_entry(rng), style, rng), rng)
    image = image.resize((size, size), Image.BOX)
    blur = rng.uniform(0, style.blur) * size / 100
    if blur > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    return _weather(image, style, rng)


class Canvas:
    """A picture being drawn, in the thing's own frame: x, y from -1 to 1, y downwards.

    Args:
        image: PIL image in RGB, drawn on in place.
        matrix: array (2, 2), frame to pixels.
        offset: array (2,), the frame's origin in pixels.
        main, second: the thing's colours, RGB.
        ink: outline colour, or None.
    """

    def __init__(self, image, matrix, offset, main, second, ink):
        self.image, self.matrix, self.offset = image, matrix, offset
        self.main, self.second, self.ink = main, second, ink
        self.pen = ImageDraw.Draw(image)
        self._frame = None

    def shape(self, points, colour, pattern="plain", pattern_colour=None):
        """Fill a polygon (n, 2) with a colour, or with a pattern of two."""
        corners = [tuple(p) for p in (np.asarray(points) @ self.matrix.T + self.offset).tolist()]
        if pattern == "plain":
            self.pen.polygon(corners, fill=colour)
        else:
            mask = Image.new("1", self.image.size)
            ImageDraw.Draw(mask).polygon(corners, fill=1)
            inside = np.asarray(mask) & _pattern(pattern, *self._coordinates())
            self.pen.polygon(corners, fill=colour)
            self.image.paste(self.second if pattern_colour is None else pattern_colour,
                             mask=Image.fromarray(inside))
        if self.ink is not None:
            self.pen.line([*corners, corners[0]], fill=self.ink,
                          width=max(1, self.image.width // 64))

    def disc(self, x, y, radius, colour, *pattern):
        self.shape(ellipse(x, y, radius, radius), colour, *pattern)

    def _coordinates(self):
        """Frame coordinates of every pixel: two arrays (S, S)."""
        if self._frame is None:
            inverse = np.linalg.inv(self.matrix)
            y, x = np.mgrid[:self.image.height, :self.image.width].astype(np.float32)
            x, y = x - self.offset[0], y - self.offset[1]
            self._frame = (inverse[0, 0] * x + inverse[0, 1] * y,
                           inverse[1, 0] * x + inverse[1, 1] * y)
        return self._frame


def _pattern(name, x, y):
    """Where a pattern's second colour goes: bool array like x and y."""
    def wave(t, period):
        return (t / period) % 1 < 0.5

    if name == "striped":
        return wave(x, 0.34)
    if name in ("banded", "ringed"):
        return wave(y, 0.34)
    if name == "checkered":
        return wave(x, 0.48) ^ wave(y, 0.48)
    if name in ("spotted", "dotted"):
        row = np.floor(y / 0.34)
        dx = (x / 0.40 + 0.5 * (row % 2)) % 1 - 0.5
        dy = (y / 0.34) % 1 - 0.5
        return (0.40 * dx) ** 2 + (0.34 * dy) ** 2 < 0.115 ** 2
    if name == "zigzag":
        return wave(y + np.abs((x / 0.6) % 1 - 0.5) * 0.7, 0.46)
    raise ValueError(f"no pattern {name!r}")


def ellipse(x, y, rx, ry, power=2.0, n=28):
    """Corners (n, 2) of an ellipse; `power` below 2 makes it a diamond."""
    t = np.linspace(0, 2 * math.pi, n, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    return np.stack([x + rx * np.sign(c) * np.abs(c) ** (2 / power),
                     y + ry * np.sign(s) * np.abs(s) ** (2 / power)], axis=1)


def turned(points, degrees, centre=(0.0, 0.0)):
    """Points (n, 2) turned around a centre."""
    a = math.radians(degrees)
    matrix = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    return (np.asarray(points) - centre) @ matrix.T + centre


def random_colours(rng):
    """Two colour words whose brightness or hue is well apart."""
    names = list(COLOURS)
    while True:
        main, second = rng.choice(len(names), 2, replace=False)
        a, b = (np.array(colorsys.hsv_to_rgb(*COLOURS[names[i]])) for i in (main, second))
        if np.abs(a - b).max() > 0.45:
            return names[main], names[second]


def _random_entry(rng):
    return list(COLOURS.values())[rng.integers(len(COLOURS))]


def _tint(entry, style, rng):
    """A palette entry (hue, saturation, value) as the style has it, RGB."""
    h, s, v = entry
    jitter = rng.normal(0, style.colour_jitter, 3)
    rgb = colorsys.hsv_to_rgb((h + style.hue + jitter[0] / 3) % 1,
                              min(1, max(0, s * style.saturation + jitter[1])),
                              min(1, max(0, v * style.value + jitter[2])))
    return tuple(int(round(255 * c)) for c in rgb)


def _background(style, side, rng):
    """A plain or graded ground with clutter."""
    def ground():
        h, s, v = _random_entry(rng)
        return _tint((h, 0.35 * s, 0.45 + 0.5 * v), style, rng)

    top, bottom = ground(), ground()
    if rng.random() < 0.5:
        bottom = top
    column = np.linspace(0, 1, 16)[:, None]
    ramp = (np.array(top) * (1 - column) + np.array(bottom) * column).astype(np.uint8)
    image = Image.fromarray(ramp[:, None]).resize((side, side), Image.BILINEAR)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(style.clutter[0], style.clutter[1] + 1)):
        h, s, v = _random_entry(rng)
        _blob(pen, rng.uniform(0, side, 2), side * rng.uniform(0.04, 0.16),
              _tint((h, 0.5 * s, 0.3 + 0.6 * v), style, rng), rng)
    return image


def _blob(pen, place, radius, colour, rng):
    """A leaf, stone or box."""
    points = (ellipse(0, 0, 1, rng.uniform(0.3, 1), rng.choice([1.2, 2.0, 5.0]), 16)
              * radius)
    pen.polygon([tuple(p) for p in (turned(points, rng.uniform(0, 180)) + place).tolist()],
                fill=colour)


def _weather(image, style, rng):
    """Light, brush, pencil strokes and sensor noise over the whole picture."""
    size = image.width
    pixels = np.asarray(image).astype(np.float32)
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    away = rng.uniform(0, 2 * math.pi)
    shade = 1 + rng.uniform(0, style.light) * (math.cos(away) * x + math.sin(away) * y)
    blotches = rng.normal(0, 1, (12, 12)).astype(np.float32)
    blotches = Image.fromarray(blotches).resize((size, size), Image.BICUBIC)
    shade += 0.5 * rng.uniform(0, style.brush) * np.asarray(blotches)
    if style.hatching:
        away = rng.uniform(0, math.pi)
        along = math.cos(away) * x + math.sin(away) * y
        shade += rng.uniform(0, style.hatching) * np.sin(2 * math.pi * rng.uniform(9, 14) * along)
    pixels = pixels * shade[:, :, None]
    pixels += rng.normal(0, 1, pixels.shape).astype(np.float32) * rng.uniform(0, style.noise)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
