"""A run's page: one HTML file that holds all it shows, in a light and a dark look."""

import os

import numpy as np

from configs import Config, format_config
from runs import figures
from runs.elements import (
    absent,
    figure,
    header,
    image_tag,
    section,
    table,
    text,
    write_html,
)
from runs.log import LOG_NAME, read_log
from runs.metrics import (
    ABLATION_COLUMNS,
    accuracy,
    by_domain,
    expected_calibration_error,
    harmonic_mean,
    sides_of,
    threshold_curve,
)
from runs.record import (
    RECORD_NAME,
    confused_pairs,
    read_record,
    summary_of,
    surest_mistakes,
    typical,
    worst_classes,
)
from runs.texts import duration, points
from system.errors import UserError

PAGE_NAME = "report.html"
NO_LABELS = "No labels of the test images are known: test.py --labels FILE takes them."


def write_run_page(folder, path=None):
    """Write the page of a run folder from its log and its record, into it or to another path.

    Returns:
        the page's path.

    Raises:
        UserError: the folder holds neither.
    """
    record, log = read_record(folder), read_log(folder)
    if record is None and not log:
        raise UserError(f"{folder} holds neither {LOG_NAME} nor {RECORD_NAME}; name a run's folder"
                        " (output.checkpoint_dir), or run train.py and test.py first")
    path = path or os.path.join(folder, PAGE_NAME)
    write_html(path, os.path.normpath(folder), run_page(os.path.normpath(folder), record, log))
    return path


def run_page(name, record, log):
    """The page's body.

    Args:
        name: of the run.
        record: `runs.record`'s, or None before the run was tested.
        log: the log's lines.
    """
    if record is None:
        return header(name, "trained, not tested yet", []) + learning(log)
    labels, base = record["labels"], record["base"]
    n_new = len(record["classes"]) - len(base)
    subtitle = (f"{len(base)} base and {n_new} new classes · {len(labels):,} test images · "
                f"seed {record['config']['seed']}")
    known = (labels >= 0).any()
    sections = [header(name, subtitle, headline(record, log) if known else []),
                ablation(record), learning(log)]
    if known:
        sections += [domains(record), confusions(record), base_or_new(record)]
    else:
        sections += [absent(title, NO_LABELS) for title in (
            "Where it is right", "What it confuses", "Base or new", "How sure it is")]
    sections.append(looked_at(record))
    if known:
        sections.append(calibration(record))
    return "".join(sections) + about(record, log)


def headline(record, log):
    shares = summary_of(record)
    sides = sides_of(record["base"], record["labels"])
    zero_shot = {name: accuracy(record["zero_shot_label"][rows, None], record["labels"][rows])
                 for name, rows in sides.items() if rows.any()}
    tiles = [(f"{name} images, top-1", points(shares[name]),
              f"zero-shot {points(zero_shot[name])}")
             for name in ("all", "base", "new") if name in shares]
    if "harmonic_mean" in shares:
        tiles[0] = ("harmonic mean", points(shares["harmonic_mean"]), "zero-shot "
                    f"{points(harmonic_mean(zero_shot['base'], zero_shot['new']))}")
        tiles.append(("base/new AUROC", f"{shares['auroc']:.3f}",
                      f"{points(shares['decided_right'])} decided right"))
    known, right = right_of(record)
    confidence = record["confidence"][known]
    tiles.append(("calibration error", points(expected_calibration_error(confidence, right)),
                  f"claims {points(confidence.mean())}"))
    trained = [line for line in log if line["stage"] != "test"]
    if trained:
        tiles.append(("training", duration(trained[-1]["time"]),
                      f"test {duration(record['seconds'])}"))
    return tiles


def ablation(record):
    title, parts = "What each part adds", record["ablation"]
    if not parts:
        return absent(title, "Not measured: test.py with labels measures it.")
    if np.isnan(parts[0][1]["base"]):
        return absent(title, "No labelled test image is of a base class.")
    gain, part = max((after["base"] - before["base"], name.lstrip("+ "))
                     for (_, before), (name, after) in zip(parts, parts[1:]))
    rows = [[text(name), *("–" if np.isnan(share) else f"{100 * share:.1f}"
                           for share in shares.values())] for name, shares in parts]
    return section(
        title, f"Base images: {points(parts[0][1]['base'])} with zero-shot CLIP, "
        f"{points(parts[-1][1]['base'])} with all parts. {part} adds most, {100 * gain:+.1f} "
        "points.",
        figure("Top-1 of base images in %", figures.ablation(parts)),
        figure("All numbers, top-1 in %", table(["part", *ABLATION_COLUMNS], rows),
               "base and new: among the classes of the image’s own side. … of all and H, their "
               "harmonic mean: among all classes.", kind="two"))


def learning(log):
    title = "How it learned"
    parts = {"prompt": [line for line in log if "lr_prompt" in line],
             "LoRA": [line for line in log if "lr_lora" in line],
             "head": [line for line in log if line["stage"] == "head"]}
    parts = {part: lines for part, lines in parts.items() if lines}
    if not parts:
        return absent(title, f"There is no {LOG_NAME} of the training in this folder; train.py "
                      "writes one.")
    moved = {part: lines for part, lines in parts.items() if figures.has_moved(part, lines)}
    paces = [figure("The paces", figures.paces(moved), "Way: distance of the part’s parameters "
                    "from where they began, in % of the last.")] if moved else []
    lead = "; ".join(f"{part} {lines[-1]['epoch']} epochs in {duration(spent(lines))}"
                     for part, lines in parts.items())
    return section(
        title, f"Each part at its own pace: {lead}.",
        f'<div class="two wide">{loss_figure(parts, figures.WIDE)}</div>'
        f'<div class="narrow">{loss_figure(parts, figures.COLUMN)}</div>',
        *paces)


def loss_figure(parts, width):
    return figure("Loss over the training’s time", figures.learning(parts, width))


def spent(lines):
    """Seconds from the start of a stage's first line to the end of its last."""
    return lines[-1]["time"] - lines[0]["time"] + lines[0]["seconds"]


def domains(record):
    labels, first = record["labels"], record["rankings"][:, 0]
    of_domain = by_domain(record["classes"], labels)
    names, values = list(of_domain), {}
    for of, predicted in (("ours", first), ("zero-shot", record["zero_shot_label"])):
        values[of] = [accuracy(predicted[r, None], labels[r]) for r in of_domain.values()]
    order = sorted(range(len(names)), key=lambda i: -values["ours"][i])
    named = [names[i] or "no domain" for i in order]
    best, worst = (f"{named[i]} ({points(values['ours'][order[i]])})" for i in (0, -1))
    lead = f"Top-1 among all classes is {best}." if len(named) == 1 else (
        f"Strongest on {best}, weakest on {worst}.")
    rows = [[pictured(record, typical(first, labels, label), label), f"{n_right} of {n}",
             text(class_name(record, mistaken_for))]
            for label, n_right, n, mistaken_for in worst_classes(first, labels)]
    return section(
        "Where it is right", lead,
        figure("Accuracy by domain",
               figures.domains(named, *([values[of][i] for i in order] for of in values)),
               "● this run   ○ zero-shot CLIP"),
        figure("The worst classes", table(["class", "right", "most often taken for"], rows, [2]),
               kind="two"))


def confusions(record):
    title, labels, first = "What it confuses", record["labels"], record["rankings"][:, 0]
    pairs = confused_pairs(first, labels)
    if not pairs:
        return absent(title, "No test image was classified wrongly.")
    n_wrong = int(((labels >= 0) & (first != labels)).sum())
    n_shown = sum(len(of_a) + len(of_b) for *_, of_a, of_b in pairs)
    return section(title, f"{n_shown} of the {n_wrong} mistakes are within the {len(pairs)} most "
                   "confused pairs.", *(pair(record, *each) for each in pairs))


def pair(record, a, b, of_a, of_b):
    first, labels = record["rankings"][:, 0], record["labels"]
    n_a, n_b = ((labels == label).sum() for label in (a, b))
    other = of_b[0] if len(of_b) else typical(first, labels, b)
    return (f'<div class="pair"><p class="count">{len(of_a) + len(of_b)} of {n_a + n_b} images</p>'
            f"{picture(record, of_a[0])}{picture(record, other)}"
            f"<p>{text(class_name(record, a))}<br>"
            f'<span class="quiet">{len(of_a)} taken for the other</span></p>'
            f"<p>{text(class_name(record, b))}<br>"
            f'<span class="quiet">{len(of_b) or "none"} taken for the other</span></p></div>')


def base_or_new(record):
    title, labels, threshold = "Base or new", record["labels"], record["threshold"]
    known, is_base, is_new = sides_of(record["base"], labels).values()
    if not is_base.any() or not is_new.any():
        return absent(title, f"The labelled test images are all of "
                      f"{'base' if is_base.any() else 'new'} classes.")
    scores, labels = record["scores"][known], labels[known]
    shares = summary_of(record)
    truth = (scores, is_base[known], record["base_label"][known] == labels,
             record["new_label"][known] == labels)
    best = threshold_curve(*truth)[-1].max()
    return section(
        title, f"{points(shares['decided_right'])} of the images are put on the right side; "
        f"harmonic mean {points(shares['harmonic_mean'])}. A threshold on the score alone would "
        f"give {points(best)} at best.",
        figure("Scores", figures.score_histogram(*truth[:2], threshold)),
        figure("ROC", figures.roc_curve(*truth[:2], threshold, shares["auroc"])),
        figure("Accuracy against a threshold on the score",
               figures.threshold_sweep(*truth, threshold)))


def looked_at(record):
    title = "What MTA looks at"
    if not record["crops"]:
        return absent(title, "MTA is switched off (mta.views=1), or no image was taken for a base "
                      "class.")
    return section(
        title, "A few images and their crops, by inlierness, in %: how much a crop counts in "
        "the image’s feature. The answer from the whole image alone, and from all crops.",
        *(crops(record, each) for each in record["crops"]), layout="halves")


def crops(record, looked):
    label = record["labels"][looked["image"]]

    def answer(when, predicted, confidence):
        kind = "" if label < 0 else "right" if predicted == label else "wrong"
        return (f'<p><span class="quiet">{when}</span> <span class="{kind}">'
                f"{text(class_name(record, predicted))}</span> {points(confidence)}</p>")

    shown = "".join(
        f'<div class="{"inlier" if share >= 0.005 else "outlier"}">'
        f"{image_tag(jpeg, 'a crop')}{100 * share:.0f}</div>"
        for jpeg, share in zip(looked["crops"], looked["inlierness"]))
    truth = f"<h3>{text(class_name(record, label))}</h3>" if label >= 0 else ""
    return (f'<div class="looked-at">{image_tag(looked["whole"], "the whole image", 96)}'
            f"<div>{truth}{answer('whole image', *looked['before'])}"
            f'{answer("all crops", *looked["after"])}</div><div class="crops">{shown}</div></div>')


def calibration(record):
    known, right = right_of(record)
    confidence, plain = (record[name][known] for name in ("confidence", "plain_confidence"))
    error, plain_error = (expected_calibration_error(each, right) for each in (confidence, plain))
    return section(
        "How sure it is", f"It claims {points(confidence.mean())} on average and is right in "
        f"{points(right.mean())}. Expected calibration error: {points(error)}, without the "
        f"temperature of {record['temperature']:.2f} {points(plain_error)}.",
        figure("Reliability", figures.calibration(confidence, plain, right),
               "Below the dashed line it claims more than it holds. The bars tell how many images "
               "claim how much."),
        figure("The surest mistakes",
               table(["class", "confidence", "taken for"], mistakes(record), [2]), kind="two"))


def mistakes(record):
    labels, first = record["labels"], record["rankings"][:, 0]
    return [[pictured(record, i, labels[i]), points(record["confidence"][i]),
             text(class_name(record, first[i]))]
            for i in surest_mistakes(first, labels, record["confidence"])]


def about(record, log):
    rows = {**record["versions"], "test": duration(record["seconds"])}
    for stage in dict.fromkeys(line["stage"] for line in log if line["stage"] != "test"):
        rows[stage.replace("_", " ")] = duration(
            sum(line["seconds"] for line in log if line["stage"] == stage))
    for part, n in record.get("parameters", {}).items():  # older records have none
        rows[f"parameters, {part}"] = f"{n:,}"
    config = text(format_config(Config(record["config"])))
    return section("The run", "What computed it, for how long, and with which settings.",
                   table([], [[text(name), text(value)] for name, value in rows.items()]),
                   f'<div class="two"><details><summary>All settings</summary><pre>{config}</pre>'
                   "</details></div>")


def right_of(record):
    """(known, right): bool (N,), which images have a label; and of those, which are right."""
    known = record["labels"] >= 0
    return known, record["rankings"][known, 0] == record["labels"][known]


def class_name(record, label):
    """A class's name; a dash for None."""
    return "–" if label is None else record["classes"][label][1]


def picture(record, image, side=None):
    """An image of the test by its place, if the record has it."""
    jpeg = record["pictures"].get(image if image is None else int(image))
    return image_tag(jpeg, record["names"][image], side) if jpeg else ""


def pictured(record, image, label):
    """A class's name beside a small picture."""
    return (f'<div class="class">{picture(record, image, 40)}'
            f"{text(class_name(record, label))}</div>")
