"""A generated picture world: things of seven domains with attributes.

A thing is a domain and one value of each of its attributes, such as a ('striped', 'round')
Fish. `draw` paints it as `sample.painting` renders a style.
"""

import math
from typing import Callable, NamedTuple

import numpy as np

from sample.painting import ellipse, picture, random_colours, turned

PATTERNS = ("plain", "striped", "banded", "spotted", "checkered")
COUNTS = {"three": 3, "four": 4, "six": 6, "nine": 9}


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
        style: `sample.painting.Style`.
        size: side, pixels.
        rng: `np.random.Generator`.
        colours: (main, second) colour words, where they are not the attributes; drawn by
            chance if None.

    Returns:
        PIL image in RGB.
    """
    kind = DOMAINS[domain]
    if kind.coloured:
        colours = values
    elif colours is None:
        colours = random_colours(rng)
    return picture(lambda canvas: kind.paint(canvas, *values), colours, style, size, rng)
