"""A generated picture world: things of seven domains with attributes, drawn in a style.

A thing is a domain and one value of each of its attributes, such as a ('striped', 'round')
Fish. `draw` paints it in a random pose with the nuisances of photos; how strong these are, the
palette and the rendering come from a `Style`. `SKETCH` and `PAINTING` differ as the pictures
that a model was trained on differ from those it meets.
"""

import colorsys
import math
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

PATTERNS = ("plain", "striped", "banded", "spotted", "checkered")
COUNTS = {"three": 3, "four": 4, "six": 6, "nine": 9}
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
PAINTING = Style(hue=0.06, saturation=0.6, value=0.85, colour_jitter=0.03, outline=0.0,
                 clutter=(5, 10), hatching=0.12, brush=0.35, light=0.6, blur=1.2, noise=12,
                 occlusion=0.3, scale=(0.34, 0.48), turn=20)


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


def _fish(canvas, pattern, body):
    rx, ry, power = {"round": (0.62, 0.54, 2.2), "slender": (0.74, 0.26, 2.0),
                     "diamond": (0.66, 0.62, 1.15)}[body]
    canvas.shape([(-0.5, 0), (-0.98, -0.36), (-0.86, 0), (-0.98, 0.36)], canvas.second)
    canvas.shape([(-0.1, -0.8 * ry), (0.15, -ry - 0.25), (0.35, -0.7 * ry)], canvas.second)
    canvas.shape(ellipse(0.08, 0, rx, ry, power), canvas.main, pattern)
    canvas.disc(0.08 + 0.68 * rx, -0.18 * ry, 0.085, (245, 245, 240))
    canvas.disc(0.08 + 0.71 * rx, -0.18 * ry, 0.045, (20, 20, 25))


def _butterfly(canvas, pattern, wings):
    for side in (-1, 1):
        upper, lower = {
            "round": (ellipse(0.5, -0.36, 0.44, 0.42), ellipse(0.4, 0.38, 0.34, 0.36)),
            "pointed": ([(0.05, -0.1), (0.95, -0.85), (0.85, -0.1), (0.3, 0.1)],
                        [(0.05, 0.0), (0.75, 0.15), (0.6, 0.8), (0.1, 0.3)]),
            "tailed": (ellipse(0.48, -0.36, 0.42, 0.38),
                       [(0.05, 0.0), (0.6, 0.05), (0.62, 0.4), (0.5, 0.5), (0.55, 0.98),
                        (0.4, 0.98), (0.3, 0.6), (0.08, 0.35)]),
        }[wings]
        for wing in (upper, lower):
            wing = np.asarray(wing) * (side, 1)
            centre = wing.mean(axis=0)
            if pattern == "bordered":
                canvas.shape(wing, canvas.second)
                canvas.shape((wing - centre) * 0.62 + centre, canvas.main)
            elif pattern == "eyed":
                canvas.shape(wing, canvas.main)
                canvas.disc(*centre, 0.19, canvas.second)
                canvas.disc(*centre, 0.09, canvas.main)
            else:
                canvas.shape(wing, canvas.main, pattern)
    canvas.shape(ellipse(0, 0, 0.07, 0.55), (45, 38, 35))


def _flower(canvas, count, petals):
    n = COUNTS[count]
    canvas.shape([(-0.04, -0.1), (0.04, -0.1), (0.06, 1.0), (-0.02, 1.0)], (70, 120, 60))
    canvas.shape(turned(ellipse(0.3, 0.75, 0.26, 0.1), -30, (0.02, 0.75)), (80, 140, 70))
    rx = {"round": 0.30, "pointed": 0.26, "narrow": 0.11}[petals]
    if petals == "round":
        rx = min(rx, 1.6 / n)
    elif petals == "pointed":
        rx = min(rx, 1.4 / n)
    petal = ellipse(0, -0.42, rx, 0.34, 1.15 if petals == "pointed" else 2.0)
    for i in range(n):
        canvas.shape(turned(petal, 360 * i / n) + (0, -0.2), canvas.main)
    canvas.disc(0, -0.2, 0.17, canvas.second)


def _vase(canvas, decoration, form):
    # Half widths of the outline at heights from the rim to the foot.
    profile = {"tall": [(-0.95, 0.36), (-0.85, 0.28), (0, 0.32), (0.95, 0.26)],
               "round": [(-0.7, 0.3), (-0.6, 0.22), (-0.3, 0.62), (0.1, 0.75), (0.5, 0.6),
                         (0.75, 0.3)],
               "slim": [(-0.98, 0.16), (-0.9, 0.1), (-0.25, 0.1), (0.05, 0.45), (0.5, 0.52),
                        (0.85, 0.34)],
               "handled": [(-0.85, 0.34), (-0.75, 0.24), (-0.5, 0.24), (-0.2, 0.5), (0.2, 0.46),
                           (0.9, 0.2)]}[form]
    if form == "handled":
        for side in (-1, 1):
            canvas.shape(ellipse(0.46 * side, -0.42, 0.26, 0.32), canvas.main)
            canvas.shape(ellipse(0.46 * side, -0.42, 0.16, 0.22), canvas.second)
    right = [(w, y) for y, w in profile]
    canvas.shape(right + [(-x, y) for x, y in right[::-1]], canvas.main, decoration)


def _cake(canvas, count, arrangement):
    n = COUNTS[count]
    canvas.disc(0, 0, 0.97, (236, 234, 228))
    canvas.disc(0, 0, 0.8, canvas.main)
    t = np.arange(n)
    if arrangement == "row":
        places = np.stack([(t - (n - 1) / 2) * min(0.4, 1.25 / (n - 1)), 0 * t], axis=1)
    elif arrangement == "ring":
        places = 0.5 * np.stack([np.cos(2 * math.pi * t / n), np.sin(2 * math.pi * t / n)], 1)
    elif arrangement == "heap":
        rows = [(0, 0), (0.24, 0), (0.12, -0.21), (-0.12, -0.21), (0.12, 0.21), (0.36, -0.21)]
        places = np.array(rows[:n]) - (0.1, 0)
    else:  # two lines
        places = np.stack([(t // 2 - (n - 1) // 2 / 2) * 0.42, (t % 2 - 0.5) * 0.62], axis=1)
    for x, y in places:
        canvas.disc(x, y, 0.14, canvas.second)


def _bird(canvas, body, wings):
    canvas.shape([(-0.45, 0.0), (-1.0, -0.15), (-0.95, 0.2)], canvas.second)
    for x in (-0.1, 0.12):
        canvas.shape([(x, 0.4), (x + 0.05, 0.4), (x + 0.07, 0.85), (x + 0.02, 0.85)],
                     (120, 90, 50))
    canvas.shape(turned(ellipse(0, 0.08, 0.58, 0.42), -12), canvas.main)
    canvas.disc(0.5, -0.38, 0.28, canvas.main)
    canvas.shape([(0.72, -0.48), (1.0, -0.34), (0.72, -0.26)], (225, 165, 60))
    canvas.disc(0.58, -0.44, 0.055, (20, 20, 25))
    canvas.shape(turned(ellipse(-0.2, 0.04, 0.46, 0.26, 1.6), 14, (-0.2, 0.0)), canvas.second)


def _vehicle(canvas, marking, kind):
    glass, rubber = (190, 215, 225), (35, 35, 40)
    wheels, windows = [(-0.5, 0.42, 0.2), (0.5, 0.42, 0.2)], []
    if kind == "car":
        side = [(-0.95, 0.4), (-0.95, 0.0), (-0.6, -0.08), (-0.35, -0.45), (0.3, -0.45),
                (0.55, -0.05), (0.95, 0.05), (0.95, 0.4)]
        windows = [[(-0.48, -0.08), (-0.3, -0.36), (-0.03, -0.36), (-0.03, -0.08)],
                   [(0.05, -0.08), (0.05, -0.36), (0.26, -0.36), (0.42, -0.08)]]
        area = (0.0, 0.16)
    elif kind == "van":
        side = [(-0.9, 0.42), (-0.9, -0.62), (0.45, -0.62), (0.75, -0.1), (0.92, 0.0),
                (0.92, 0.42)]
        windows = [[(0.3, -0.1), (0.3, -0.5), (0.42, -0.5), (0.64, -0.1)]]
        area = (-0.3, -0.1)
    elif kind == "bus":
        side = [(-1, 0.42), (-1, -0.5), (1, -0.5), (1, 0.42)]
        windows = [[(x, -0.12), (x, -0.4), (x + 0.26, -0.4), (x + 0.26, -0.12)]
                   for x in (-0.9, -0.54, -0.18, 0.18, 0.54)]
        area = (0.0, 0.14)
    elif kind == "truck":
        canvas.shape([(0.4, 0.42), (0.4, -0.25), (0.75, -0.25), (0.95, 0.1), (0.95, 0.42)],
                     canvas.second)
        side = [(-0.98, 0.3), (-0.98, -0.65), (0.34, -0.65), (0.34, 0.3)]
        windows = [[(0.52, 0.08), (0.52, -0.16), (0.7, -0.16), (0.82, 0.08)]]
        area = (-0.3, -0.18)
    elif kind == "tractor":
        canvas.shape([(-0.55, -0.2), (-0.5, -0.85), (0.1, -0.85), (0.15, -0.2)], canvas.second)
        windows = [[(-0.4, -0.25), (-0.37, -0.72), (0.0, -0.72), (0.03, -0.25)]]
        side = [(-0.7, 0.35), (-0.7, -0.2), (0.95, -0.2), (0.95, 0.35)]
        wheels = [(-0.45, 0.35, 0.48), (0.68, 0.58, 0.26)]
        area = (0.45, 0.06)
    elif kind == "train":
        canvas.shape([(-0.95, 0.35), (-0.95, -0.75), (-0.4, -0.75), (-0.4, 0.35)], canvas.second)
        canvas.shape([(0.5, -0.2), (0.42, -0.85), (0.82, -0.85), (0.74, -0.2)], canvas.second)
        windows = [[(-0.82, -0.25), (-0.82, -0.6), (-0.53, -0.6), (-0.53, -0.25)]]
        side = [(-0.42, 0.35), (-0.42, -0.3), (0.9, -0.3), (0.95, 0.35)]
        wheels = [(x, 0.45, 0.17) for x in (-0.7, -0.3, 0.1, 0.5, 0.82)]
        area = (0.2, 0.0)
    else:  # boat
        canvas.shape([(-0.04, 0.2), (-0.04, -0.98), (0.04, -0.98), (0.04, 0.2)], (110, 80, 50))
        canvas.shape([(-0.95, 0.2), (0.95, 0.2), (0.6, 0.7), (-0.65, 0.7)], canvas.second)
        side = [(0.1, 0.1), (0.1, -0.92), (0.85, 0.1)]
        canvas.shape([(-0.1, 0.1), (-0.1, -0.7), (-0.65, 0.1)], canvas.main)
        wheels, area = [], (0.33, -0.2)
    canvas.shape(side, canvas.main, "striped" if marking == "striped" else "plain")
    for corners in windows:
        canvas.shape(corners, glass)
    for x, y, radius in wheels:
        canvas.disc(x, y, radius, rubber)
        canvas.disc(x, y, 0.45 * radius, (150, 150, 150))
    if marking == "starred":
        angle = np.arange(10) * math.pi / 5 - math.pi / 2
        radius = np.where(np.arange(10) % 2, 0.1, 0.24)
        canvas.shape(np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None] + area,
                     canvas.second)


class Domain(NamedTuple):
    """A kind of thing.

    Attributes:
        attributes: for each attribute, its values.
        phrases: texts with {0}, {1} for them; the first one names a class.
        paint: function (Canvas, values…).
        coloured: the attributes are themselves the colours.
    """

    attributes: tuple
    phrases: tuple
    paint: Callable
    coloured: bool = False


BIRD_COLOURS = ("red", "yellow", "green", "blue", "white", "black")
DOMAINS = {
    "Fish": Domain(
        (PATTERNS, ("round", "slender", "diamond")),
        ("{0} {1} fish", "fish with a {1} body, {0}", "{1} fish, {0}",
         "{1} fish with a {0} skin"), _fish),
    "Butterfly": Domain(
        (("bordered", "eyed", "striped", "spotted"), ("round", "pointed", "tailed")),
        ("{0} butterfly with {1} wings", "butterfly with {0} {1} wings",
         "butterfly, {1} wings, {0}", "butterfly whose {1} wings are {0}"), _butterfly),
    "Flower": Domain(
        (("three", "four", "six", "nine"), ("round", "pointed", "narrow")),
        ("flower with {0} {1} petals", "flower of {0} petals, {1}", "{0} {1} petals on a flower",
         "flower whose {0} petals are {1}"), _flower),
    "Vase": Domain(
        (("zigzag", "dotted", "ringed", "checkered"), ("tall", "round", "slim", "handled")),
        ("{0} {1} vase", "{1} vase, {0}", "{1} vase with a {0} pattern",
         "vase that is {1} and {0}"), _vase),
    "Cake": Domain(
        (("three", "four", "six"), ("row", "ring", "heap", "pair of lines")),
        ("cake with {0} cherries in a {1}", "{0} cherries in a {1} on a cake",
         "cake, {0} cherries, in a {1}", "{1} of {0} cherries on a cake"), _cake),
    "Bird": Domain(
        (BIRD_COLOURS, BIRD_COLOURS),
        ("{0} bird with {1} wings", "bird with a {0} body and {1} wings",
         "{0} bird, {1} wings", "{1} wings on a {0} bird"), _bird, coloured=True),
    "Vehicle": Domain(
        (("striped", "starred"), ("car", "van", "bus", "truck", "tractor", "train", "boat")),
        ("{0} {1}", "{1} with a {0} side", "{1}, {0}", "{1} that is {0}"), _vehicle)}


def draw(domain, values, style, size, rng, colours=None):
    """A picture of a thing.

    Args:
        domain: key of `DOMAINS`.
        values: one value of each of its attributes.
        style: `Style`.
        size: side, pixels.
        rng: `np.random.Generator`.
        colours: (main, second) colour words, where they are not the attributes; drawn by
            chance if None.

    Returns:
        PIL image in RGB.
    """
    side = 2 * size  # drawn twice as large, then averaged
    kind = DOMAINS[domain]
    if kind.coloured:
        colours = values
    elif colours is None:
        colours = random_colours(rng)
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
    kind.paint(Canvas(image, scale * turn @ stretch, offset, main, second, ink), *values)
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
