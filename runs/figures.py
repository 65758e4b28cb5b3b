"""A run's figures, as SVG that takes its colours and its font from the page around it."""

import io
import re
import warnings

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from runs.metrics import reliability, roc, threshold_curve
from runs.texts import duration

COLUMN, WIDE = 336, 708  # pixels: one and two of the page's three columns
# What stands for a colour in matplotlib is a variable of `style.css` in the page, where it has a
# light and a dark value.
COLOURS = {name: f"#{number:06x}" for number, name in enumerate(
    ("ink", "muted", "line", "paper", "base", "new", "prompt", "lora", "head"), start=0x10203)}
INK, MUTED, LINE, PAPER, BASE, NEW, PROMPT, LORA, HEAD = COLOURS.values()
STYLE = {
    "figure.dpi": 72, "figure.constrained_layout.use": True,  # so that a point is a pixel
    "figure.constrained_layout.h_pad": 3 / 72, "figure.constrained_layout.w_pad": 2 / 72,
    "svg.fonttype": "none", "svg.hashsalt": "",
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


def svg(draw, height, width=COLUMN):
    """Draw a figure.

    Args:
        draw: function of a matplotlib `Figure`.
        height, width: pixels.

    Returns:
        text of an SVG element whose colours are the page's variables.
    """
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # NumPy's, when asked about floats in a process where Jittor has set flush-to-zero.
        warnings.filterwarnings("ignore", "The value of the smallest subnormal")
        figure = Figure((width / 72, height / 72))
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    used = set(re.findall(r"#([\w-]+)[\")]", text))  # two figures' other ids would clash
    text = re.sub(r' id="([\w.-]+)"', lambda m: m.group(0) if m.group(1) in used else "", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"<svg [^>]*>", f'<svg viewBox="0 0 {width} {height}" role="img" '
                  f'style="max-width: {width * 1.1:.0f}px">', text, count=1)
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def ablation(table):
    """Top-1 of base images as the parts are added.

    Args:
        table: `runs.metrics.ablation_table`'s.
    """
    names = [name for name, _ in table]
    values = 100 * np.array([shares["base"] for _, shares in table])

    def draw(figure):
        axes = figure.add_subplot()
        axes.barh(names, values, height=0.62, color=[MUTED] + [BASE] * (len(names) - 1))
        for row, value in enumerate(values):
            axes.annotate(f"{value:.1f}", (value, row), (5, 0), textcoords="offset points",
                          va="center", weight="bold")
            if row:
                axes.annotate(f"{value - values[row - 1]:+.1f}", (1, row), va="center", ha="right",
                              xycoords=("axes fraction", "data"), color=MUTED)
        axes.set(xlim=(0, max(values.max(), 1) * 1.7), xticks=[])
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(False)
        axes.spines.bottom.set_visible(False)

    return svg(draw, 26 * len(names) + 12)


def learning(parts, width):
    """The loss over the training's time, and below it who learned when.

    Args:
        parts: {'prompt': …, 'LoRA': …, 'head': …}, lists of the log's lines while it learned.
        width: pixels.
    """
    colours = dict(zip(parts, (PROMPT, LORA, HEAD)))
    longest = max(lines[-1]["time"] for lines in parts.values())
    unit, name = (60, "minutes") if longest > 300 else (1, "seconds")

    def draw(figure):
        curves, lanes = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        tuned = "LoRA" if "LoRA" in parts else "prompt"
        for part, text in ((tuned, "prompt and LoRA together"), ("head", "head")):
            if part in parts:
                times, losses = columns(parts[part], "time", "loss")
                curves.plot(times / unit, losses, color=colours[part])
                late = times[0] > longest / 2
                curves.annotate(text, (times[0] / unit, losses[0]), (-6 if late else 6, 4),
                                textcoords="offset points", ha="right" if late else "left",
                                color=colours[part], weight="bold")
        curves.margins(y=0.12)
        curves.set(ylim=(0, None), ylabel="training loss")
        curves.tick_params(labelbottom=False)
        for row, (part, lines) in enumerate(parts.items()):
            start, end = lines[0]["time"] - lines[0]["seconds"], lines[-1]["time"]
            lanes.barh(row, max(end - start, 0.005 * longest) / unit, left=start / unit,
                       height=0.3, color=colours[part])
            late = start > longest / 2
            lanes.annotate(f"{part}: {lines[-1]['epoch']} epochs in {duration(end - start)}",
                           ((end if late else start) / unit, row), (0, 5),
                           textcoords="offset points", va="bottom",
                           ha="right" if late else "left")
        lanes.set(xlabel=f"{name} of training", ylim=(len(parts) - 0.7, -0.9), yticks=[])
        lanes.grid(False)

    return svg(draw, 330, width)


def paces(parts):
    """How far each part is on its way, over the time that it has learned.

    Args:
        parts: as `learning` takes them, those that `has_moved`.
    """
    def draw(figure):
        axes = figure.add_subplot()
        colours = {"prompt": PROMPT, "LoRA": LORA, "head": HEAD}
        for part, lines in parts.items():
            colour = colours[part]
            times, way = columns(lines, "time", f"moved_{part.lower()}")
            times = times - times[0] + lines[0]["seconds"]
            share = 100 * way / way[-1]
            axes.plot(times, share, color=colour)
            half = np.searchsorted(share, 50)
            axes.annotate(part, (times[half], share[half]),
                          (-7 if part == "prompt" else 7, 0), textcoords="offset points",
                          ha="right" if part == "prompt" else "left", va="center",
                          color=colour, weight="bold")
        axes.set(xscale="log", xlabel="seconds since the part began, log scale",
                 ylabel="% of its way", ylim=(0, 108))
        plain_log_ticks(axes.xaxis)

    return svg(draw, 330)


def has_moved(part, lines):
    """Whether the log's last line of 'prompt', 'LoRA' or 'head' has it elsewhere than it began."""
    return bool(lines[-1].get(f"moved_{part.lower()}"))


def domains(names, ours, zero_shot):
    """Top-1 by domain, of the run and of zero-shot CLIP.

    Args:
        names: list of texts. ours, zero_shot: shares.
    """
    ours, zero_shot = 100 * np.array(ours), 100 * np.array(zero_shot)
    rows = np.arange(len(names))

    def draw(figure):
        axes = figure.add_subplot()
        axes.hlines(rows, zero_shot, ours, color=LINE, linewidth=3)
        axes.scatter(zero_shot, rows, s=38, facecolor=PAPER, edgecolor=MUTED, linewidth=1.5,
                     zorder=3)
        axes.scatter(ours, rows, s=48, color=BASE, zorder=3)
        for row, value, other in zip(rows, ours, zero_shot):
            above = value >= other
            axes.annotate(f"{value:.0f}", (value, row), (8 if above else -8, 0),
                          textcoords="offset points", va="center",
                          ha="left" if above else "right", weight="bold")
        axes.set_yticks(rows, names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(xlim=(0, 108), xticks=[0, 25, 50, 75, 100], xlabel="top-1 in %",
                 ylim=(len(names) - 0.5, -0.5))
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)

    return svg(draw, 30 * len(names) + 46)


def score_histogram(scores, is_base, threshold):
    """How the base/new score is spread among the images of either side."""
    shown = central(scores)
    bins = np.linspace(*shown, 41)

    def draw(figure):
        axes = figure.add_subplot()
        for side, colour, text in ((is_base, BASE, "base images"), (~is_base, NEW, "new images")):
            shares = np.histogram(np.clip(scores[side], *shown), bins)[0] / side.sum()
            axes.stairs(100 * shares, bins, fill=True, color=colour, alpha=0.3)
            axes.stairs(100 * shares, bins, color=colour, linewidth=1.5)
            peak = shares.argmax()
            axes.annotate(text, (bins[peak:peak + 2].mean(), 100 * shares[peak]), (0, 4),
                          textcoords="offset points", ha="center", color=colour, weight="bold",
                          annotation_clip=False)
        mark_even_odds(axes, threshold)
        axes.set(xlabel="score: new on the left, base on the right", ylabel="% of the side",
                 xlim=shown)
        axes.margins(y=0.18)

    return svg(draw, 240)


def roc_curve(scores, is_base, threshold, area):
    """Base images kept against new images taken for base, over all thresholds."""
    def draw(figure):
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=LINE, linewidth=1)
        axes.plot(*(100 * rate for rate in roc(scores, is_base)), color=BASE)
        here = [100 * (scores[side] >= threshold).mean() for side in (~is_base, is_base)]
        axes.scatter(*here, s=52, color=INK, zorder=3)
        axes.annotate(f"even odds: {here[1]:.1f} % of the base,\n{here[0]:.1f} % of the new images",
                      here, (8, -9), textcoords="offset points", va="top")
        axes.annotate(f"AUROC {area:.3f}", (97, 6), ha="right", weight="bold", color=BASE)
        axes.set(xlabel="% of new images taken for base", ylabel="% of base images kept",
                 xlim=(-2, 102), ylim=(-2, 104))

    return svg(draw, 240)


def threshold_sweep(scores, is_base, base_right, new_right, threshold):
    """The accuracies and their harmonic mean, did a threshold on the score alone decide."""
    thresholds, *curves = threshold_curve(scores, is_base, base_right, new_right)
    shown = central(scores)
    inside = (thresholds >= shown[0]) & (thresholds <= shown[1])
    best = np.argmax(curves[-1])

    def draw(figure):
        axes = figure.add_subplot()
        rows = np.flatnonzero(inside)
        for curve, colour, width in zip(curves, (BASE, NEW, INK), (1.5, 1.5, 2.5)):
            axes.plot(thresholds[rows], 100 * curve[rows], color=colour, linewidth=width)
        for curve, colour, text, place, align in ((curves[0], BASE, "base", rows[0], "left"),
                                                  (curves[1], NEW, "new", rows[-1], "right")):
            axes.annotate(text, (thresholds[place], 100 * curve[place]), (0, 5), color=colour,
                          textcoords="offset points", ha=align, weight="bold")
        top = (np.clip(thresholds[best], *shown), 100 * curves[-1][best])
        axes.scatter(*top, s=52, color=INK, zorder=3)
        plateau = np.clip(thresholds[curves[-1] >= 0.95 * curves[-1][best]], *shown)
        axes.annotate(f"harmonic mean,\nat best {top[1]:.1f}",
                      ((plateau[0] + plateau[-1]) / 2, 0.6 * top[1]), ha="center", va="center",
                      weight="bold")
        mark_even_odds(axes, threshold, 0.12)
        axes.set(xlabel="threshold on the score", ylabel="top-1 in %", ylim=(0, None),
                 xlim=shown)
        axes.margins(y=0.15)

    return svg(draw, 240)


def calibration(confidence, plain_confidence, right):
    """Reliability diagram: how often predictions are right against how often they claim it.

    Args:
        confidence, plain_confidence: with and without the temperature; equal without one.
        right: bool array.
    """
    counts, claimed, accuracies = reliability(confidence, right)
    seen = counts > 0

    def draw(figure):
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        if not np.array_equal(confidence, plain_confidence):
            plain_counts, *plain = reliability(plain_confidence, right)
            x, y = (100 * each[plain_counts > 0] for each in plain)
            axes.plot(x, y, color=MUTED, linewidth=1.2)
            axes.annotate("without temperature", (x[-1], y[-1]), (-4, -12), color=MUTED,
                          ha="right", textcoords="offset points")
        axes.plot(100 * claimed[seen], 100 * accuracies[seen], color=BASE, marker="o",
                  markersize=6)
        axes.annotate("right as often\nas it claims", (34, 36), (-4, 6), ha="right",
                      textcoords="offset points", color=MUTED)
        axes.set(ylabel="% that are right", ylim=(0, 104), xlim=(0, 102))
        below.bar(10 * np.arange(10) + 5, counts, width=9, color=BASE, alpha=0.45)
        below.set(xlabel="confidence in %", ylabel="images", yticks=[])
        below.grid(False)

    return svg(draw, 330)


def run_values(names, values):
    """Shares of several runs, each a dot, by group, whose mean is a line.

    Args:
        names: list (G) of texts. values: list (G) of lists of shares.
    """
    def draw(figure):
        axes = figure.add_subplot()
        for row, group in enumerate(values):
            if not len(group):
                continue
            group = 100 * np.array(group)
            axes.scatter(group, np.full(len(group), row), s=36, color=BASE, alpha=0.6,
                         linewidth=0)
            axes.vlines(group.mean(), row - 0.28, row + 0.28, color=INK, linewidth=2)
            axes.annotate(f"{group.mean():.1f}", (group.max(), row), (8, 0),
                          textcoords="offset points", va="center", weight="bold")
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set(ylim=(len(names) - 0.5, -0.5))
        axes.margins(x=0.18)
        axes.grid(axis="x")
        axes.grid(axis="y", visible=False)

    return svg(draw, 30 * len(names) + 46)


def columns(lines, *names):
    """Arrays of what a log's lines hold under each name."""
    return [np.array([line[name] for line in lines], float) for name in names]


def central(scores):
    """The range that all but 1 % of the scores are in; of few scores, all."""
    low = np.quantile(scores, 0.005, method="lower")
    high = np.quantile(scores, 0.995, method="higher")
    return (low, high) if low < high else (low - 1, high + 1)


def mark_even_odds(axes, threshold, height=1.0):
    """A line at the score of even odds, named at a height in shares of the axes."""
    axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate("even odds", (threshold, height), (5, 0), xycoords=("data", "axes fraction"),
                  textcoords="offset points", va="top")


def plain_log_ticks(axis):
    """1, 2 and 5 of each power of ten, written out: 0.5, 1, 2, 5, 10."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())
