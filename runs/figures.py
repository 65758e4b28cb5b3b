"""A run's figures, as SVG that takes its colours and its font from the page around it.

Each function draws on the matplotlib `Figure` that `drawn` gives it, and is called without it.
"""

import functools
import io
import re
import warnings

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from runs.metrics import reliability, roc, threshold_curve
from runs.texts import duration

WIDTH = 336  # pixels, one of the page's three columns
# What stands for a colour in matplotlib is a variable of `style.css` in the page, where it has a
# light and a dark value.
COLOURS = {name: f"#{number:06x}" for number, name in enumerate(
    ("ink", "muted", "line", "paper", "base", "new", "prompt", "lora", "head"), start=0x10203)}
INK, MUTED, LINE, PAPER, BASE, NEW, *_ = COLOURS.values()
COLOUR_OF = {part: COLOURS[part.lower()] for part in ("prompt", "LoRA", "head")}
STYLE = {
    "figure.dpi": 72, "figure.constrained_layout.use": True,  # so that a point is a pixel
    "figure.constrained_layout.h_pad": 3 / 72, "figure.constrained_layout.w_pad": 2 / 72,
    "svg.fonttype": "none", "svg.hashsalt": "", "text.parse_math": False,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 11,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.labelsize": 11, "axes.edgecolor": LINE,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "axes.axisbelow": True, "axes.grid": True, "axes.grid.axis": "y", "grid.color": LINE,
    "grid.linewidth": 0.8, "axes.linewidth": 0.8,
    "xtick.color": LINE, "xtick.labelcolor": MUTED, "xtick.major.size": 3,
    "xtick.minor.size": 0, "ytick.major.size": 0, "ytick.minor.size": 0,
    "ytick.color": LINE, "ytick.labelcolor": MUTED,
    "lines.linewidth": 2, "lines.solid_capstyle": "round",
}


def drawn(height, per_row=0):
    """Makes a function that draws on a matplotlib `Figure` one that returns an SVG element.

    Args:
        height: pixels, and `per_row` for each item of the first argument after the figure.
    """
    def decorate(draw):
        @functools.wraps(draw)
        def as_svg(*arguments):
            n_rows = len(arguments[0]) if per_row else 0
            size = WIDTH, height + per_row * n_rows
            with matplotlib.rc_context(STYLE), warnings.catch_warnings():
                # NumPy's, when asked about floats in a process where Jittor flushes to zero.
                warnings.filterwarnings("ignore", "The value of the smallest subnormal")
                figure = Figure([pixels / 72 for pixels in size])
                draw(figure, *arguments)
                file = io.StringIO()
                figure.savefig(file, format="svg", metadata={"Date": None})
            return Markup(of_page(file.getvalue(), *size))
        return as_svg
    return decorate


def of_page(svg, width, height):
    """Matplotlib's file as an element of a page, whose variables its colours become."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "",
                 svg[svg.index("<svg"):], flags=re.S)
    used = set(re.findall(r"#([\w-]+)[\")]", svg))  # two figures' other ids would clash
    svg = re.sub(r' id="([\w.-]+)"', lambda m: m.group(0) if m.group(1) in used else "", svg)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"<svg [^>]*>", f'<svg viewBox="0 0 {width} {height}" role="img" '
                 f'style="max-width: {width * 1.1:.0f}px">', svg, count=1)
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


@drawn(12, per_row=26)
def ablation(figure, table):
    """Top-1 of base images as the parts are added, `runs.metrics.ablation_table`'s."""
    axes = figure.add_subplot()
    values = 100 * np.array([shares["base"] for _, shares in table])
    name_rows(axes, [name for name, _ in table])
    axes.barh(range(len(values)), values, height=0.62,
              color=[MUTED] + [BASE] * (len(values) - 1))
    for row, value in enumerate(values):
        note(axes, f"{value:.1f}", (value, row), (5, 0), weight="bold")
        if row:
            note(axes, f"{value - values[row - 1]:+.1f}", (1, row), (-1, 0), color=MUTED,
                 xycoords=("axes fraction", "data"))
    axes.set(xlim=(0, max(values.max(), 1) * 1.7), xticks=[])
    axes.grid(False)
    axes.spines.bottom.set_visible(False)


@drawn(330)
def learning(figure, parts):
    """The loss over the training's time, and below it who learned when.

    Args:
        parts: {'prompt': …, 'LoRA': …, 'head': …}, lists of the log's lines while it learned.
    """
    longest = max(lines[-1]["time"] for lines in parts.values())
    unit, name = (60, "minutes") if longest > 300 else (1, "seconds")
    curves, lanes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    tuned = "LoRA" if "LoRA" in parts else "prompt"
    for part, text in ((tuned, "prompt and LoRA together"), ("head", "head")):
        if part in parts:
            times, losses = columns(parts[part], "time", "loss")
            curves.plot(times / unit, losses, color=COLOUR_OF[part])
            note(curves, text, (times[0] / unit, losses[0]),
                 (-6 if times[0] > longest / 2 else 6, 4), color=COLOUR_OF[part], weight="bold")
    curves.margins(y=0.12)
    curves.set(ylim=(0, None), ylabel="training loss")
    curves.tick_params(labelbottom=False)
    for row, (part, lines) in enumerate(parts.items()):
        start, end = lines[0]["time"] - lines[0]["seconds"], lines[-1]["time"]
        lanes.barh(row, max(end - start, 0.005 * longest) / unit, left=start / unit,
                   height=0.3, color=COLOUR_OF[part])
        late = start > longest / 2
        note(lanes, f"{part}: {lines[-1]['epoch']} epochs in {duration(end - start)}",
             ((end if late else start) / unit, row), (0, 5), ha="right" if late else "left")
    lanes.set(xlabel=f"{name} of training", ylim=(len(parts) - 0.7, -0.9), yticks=[])
    lanes.grid(False)


@drawn(330)
def paces(figure, parts):
    """How far each part is on its way, over the time that it has learned.

    Args:
        parts: as `learning` takes them, those whose last line has moved.
    """
    axes = figure.add_subplot()
    for part, lines in parts.items():
        times, way = columns(lines, "time", f"moved_{part.lower()}")
        times = times - times[0] + lines[0]["seconds"]
        share = 100 * way / way[-1]
        half = np.searchsorted(share, 50)
        axes.plot(times, share, color=COLOUR_OF[part])
        note(axes, part, (times[half], share[half]), (-7 if part == "prompt" else 7, 0),
             color=COLOUR_OF[part], weight="bold")
    axes.set(xscale="log", xlabel="seconds since the part began, log scale",
             ylabel="% of its way", ylim=(0, 108))
    # 1, 2 and 5 of each power of ten, written out: 0.5, 1, 2, 5, 10
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


@drawn(46, per_row=30)
def domains(figure, names, ours, zero_shot):
    """Top-1 by domain, of the run and of zero-shot CLIP.

    Args:
        names: list of texts. ours, zero_shot: shares.
    """
    axes = figure.add_subplot()
    name_rows(axes, names)
    ours, zero_shot, rows = 100 * np.array(ours), 100 * np.array(zero_shot), range(len(names))
    axes.hlines(rows, zero_shot, ours, color=LINE, linewidth=3)
    axes.scatter(zero_shot, rows, s=38, facecolor=PAPER, edgecolor=MUTED, linewidth=1.5, zorder=3)
    axes.scatter(ours, rows, s=48, color=BASE, zorder=3)
    for row, value, other in zip(rows, ours, zero_shot):
        note(axes, f"{value:.0f}", (value, row), (8 if value >= other else -8, 0), weight="bold")
    axes.set(xlim=(0, 108), xticks=[0, 25, 50, 75, 100], xlabel="top-1 in %")


@drawn(240)
def score_histogram(figure, scores, is_base, threshold):
    """How the base/new score is spread among the images of either side."""
    axes = figure.add_subplot()
    shown = central(scores)
    bins = np.linspace(*shown, 41)
    for side, colour, text in ((is_base, BASE, "base images"), (~is_base, NEW, "new images")):
        shares = 100 * np.histogram(np.clip(scores[side], *shown), bins)[0] / side.sum()
        axes.stairs(shares, bins, fill=True, color=colour, alpha=0.3)
        axes.stairs(shares, bins, color=colour, linewidth=1.5)
        peak = shares.argmax()
        note(axes, text, (bins[peak:peak + 2].mean(), shares[peak]), (0, 4), color=colour,
             weight="bold", annotation_clip=False)
    mark_even_odds(axes, threshold)
    axes.set(xlabel="score: new on the left, base on the right", ylabel="% of the side",
             xlim=shown)
    axes.margins(y=0.18)


@drawn(240)
def roc_curve(figure, scores, is_base, threshold, area):
    """Base images kept against new images taken for base, over all thresholds."""
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color=LINE, linewidth=1)
    axes.plot(*(100 * rate for rate in roc(scores, is_base)), color=BASE)
    here = [100 * (scores[side] >= threshold).mean() for side in (~is_base, is_base)]
    axes.scatter(*here, s=52, color=INK, zorder=3)
    note(axes, f"even odds: {here[1]:.1f} % of the base,\n{here[0]:.1f} % of the new images",
         here, (8, -9))
    note(axes, f"AUROC {area:.3f}", (97, 6), (-1, 1), weight="bold", color=BASE)
    axes.set(xlabel="% of new images taken for base", ylabel="% of base images kept",
             xlim=(-2, 102), ylim=(-2, 104))


@drawn(240)
def threshold_sweep(figure, scores, is_base, base_right, new_right, threshold):
    """The accuracies and their harmonic mean, did a threshold on the score alone decide."""
    axes = figure.add_subplot()
    thresholds, base, new, harmonic = threshold_curve(scores, is_base, base_right, new_right)
    shown = central(scores)
    inside = (thresholds >= shown[0]) & (thresholds <= shown[1])
    for curve, colour, width in ((base, BASE, 1.5), (new, NEW, 1.5), (harmonic, INK, 2.5)):
        axes.plot(thresholds[inside], 100 * curve[inside], color=colour, linewidth=width)
    for curve, colour, text, end, side in ((base, BASE, "base", 0, "left"),
                                           (new, NEW, "new", -1, "right")):
        note(axes, text, (thresholds[inside][end], 100 * curve[inside][end]), (0, 5),
             color=colour, ha=side, weight="bold")
    best = 100 * harmonic.max()
    axes.scatter(np.clip(thresholds[harmonic.argmax()], *shown), best, s=52, color=INK, zorder=3)
    plateau = np.clip(thresholds[100 * harmonic >= 0.95 * best], *shown)
    note(axes, f"harmonic mean,\nat best {best:.1f}", (plateau[[0, -1]].mean(), 0.6 * best),
         weight="bold")
    mark_even_odds(axes, threshold, 0.12)
    axes.set(xlabel="threshold on the score", ylabel="top-1 in %", ylim=(0, None), xlim=shown)
    axes.margins(y=0.15)


@drawn(330)
def calibration(figure, confidence, plain_confidence, right):
    """Reliability diagram: how often predictions are right against how often they claim it.

    Args:
        confidence, plain_confidence: with and without the temperature; equal without one.
        right: bool array.
    """
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if not np.array_equal(confidence, plain_confidence):
        counts, *plain = reliability(plain_confidence, right)
        x, y = (100 * each[counts > 0] for each in plain)
        axes.plot(x, y, color=MUTED, linewidth=1.2)
        note(axes, "without temperature", (x[-1], y[-1]), (-4, -3), color=MUTED)
    counts, claimed, accuracies = reliability(confidence, right)
    seen = counts > 0
    axes.plot(100 * claimed[seen], 100 * accuracies[seen], color=BASE, marker="o", markersize=6)
    note(axes, "right as often\nas it claims", (34, 36), (-4, 6), color=MUTED)
    axes.set(ylabel="% that are right", ylim=(0, 104), xlim=(0, 102))
    below.bar(10 * np.arange(10) + 5, counts, width=9, color=BASE, alpha=0.45)
    below.set(xlabel="confidence in %", ylabel="images", yticks=[])
    below.grid(False)


@drawn(46, per_row=30)
def run_values(figure, names, values):
    """Shares of several runs, each a dot, by group, whose mean is a line.

    Args:
        names: list (G) of texts. values: list (G) of lists of shares.
    """
    axes = figure.add_subplot()
    name_rows(axes, names)
    for row, group in enumerate(100 * np.array(group) for group in values):
        if len(group):
            axes.scatter(group, np.full(len(group), row), s=36, color=BASE, alpha=0.6, linewidth=0)
            axes.vlines(group.mean(), row - 0.28, row + 0.28, color=INK, linewidth=2)
            note(axes, f"{group.mean():.1f}", (group.max(), row), (8, 0), weight="bold")
    axes.margins(x=0.18)


def columns(lines, *names):
    """Arrays of what a log's lines hold under each name."""
    return [np.array([line[name] for line in lines], float) for name in names]


def central(scores):
    """The range that all but 1 % of the scores are in; of few scores, all."""
    low = np.quantile(scores, 0.005, method="lower")
    high = np.quantile(scores, 0.995, method="higher")
    return (low, high) if low < high else (low - 1, high + 1)


def note(axes, text, point, by=(0, 0), **look):
    """Write beside a point, on the side to which `by` moves the text from it, in pixels."""
    sides = {"ha": ("right", "center", "left")[int(np.sign(by[0])) + 1],
             "va": ("top", "center", "bottom")[int(np.sign(by[1])) + 1]}
    axes.annotate(text, point, by, textcoords="offset points", **{**sides, **look})


def name_rows(axes, names):
    """Rows from the top to the bottom, each with its name, in the place of a vertical scale."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")
    axes.grid(axis="y", visible=False)


def mark_even_odds(axes, threshold, height=1.0):
    """A line at the score of even odds, named at a height in shares of the axes."""
    axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (2, 2)))
    note(axes, "even odds", (threshold, height), (5, -1), xycoords=("data", "axes fraction"))
