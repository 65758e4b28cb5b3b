"""A run's page: one HTML file that holds all it shows, in a light and a dark look.

What it says is in `templates/run.html.j2`; here is what it takes from the run's record and log.
"""

import base64
import os

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from configs import Config, format_config
from runs import figures
from runs.log import LOG_NAME, read_log
from runs.metrics import (
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
from runs.texts import duration, percent, points
from system.errors import UserError
from system.files import write_atomically

PAGE_NAME = "report.html"


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
    write_atomically(path, run_page(os.path.normpath(folder), record, log).encode())
    return path


def render(template, **shown):
    """A template filled in; what is shown is escaped unless it is `Markup`."""
    environment = Environment(
        loader=FileSystemLoader(os.path.join(os.path.dirname(__file__), "templates")),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        percent=percent, points=points, duration=duration,
        base64=lambda content: base64.b64encode(content).decode())
    return environment.get_template(template).render(shown)


def run_page(name, record, log):
    """The page as a text.

    Args:
        name: of the run.
        record: `runs.record`'s, or None before the run was tested.
        log: the log's lines.
    """
    shown = {"name": name, "record": record, "learning": learning(log), "tiles": []}
    if record is not None:
        shown.update(known=(record["labels"] >= 0).any(), ablation=ablation(record["ablation"]),
                     facts=facts(record, log), settings=format_config(Config(record["config"])))
        if shown["known"]:
            shares, sure = summary_of(record), calibration(record)
            shown.update(tiles=headline(record, log, shares, sure), domains=domains(record),
                         confusions=confusions(record), shares=shares,
                         base_or_new=base_or_new(record, shares), calibration=sure)
    return render("run.html.j2", **shown)


def headline(record, log, shares, sure):
    """The figures below the title, a list of (label, value, note)."""
    zero_shot = {name: accuracy(record["zero_shot_label"][rows, None], record["labels"][rows])
                 for name, rows in sides_of(record["base"], record["labels"]).items()}
    tiles = [(f"{name} images, top-1", points(shares[name]),
              f"zero-shot {points(zero_shot[name])}")
             for name in ("all", "base", "new") if name in shares]
    if "harmonic_mean" in shares:
        tiles[0] = ("harmonic mean", points(shares["harmonic_mean"]), "zero-shot "
                    f"{points(harmonic_mean(zero_shot['base'], zero_shot['new']))}")
        tiles.append(("base/new AUROC", f"{shares['auroc']:.3f}",
                      f"{points(shares['decided_right'])} decided right"))
    tiles.append(("calibration error", points(sure["error"]), f"claims {points(sure['claimed'])}"))
    trained = [line for line in log if line["stage"] != "test"]
    if trained:
        tiles.append(("training", duration(trained[-1]["time"]),
                      f"test {duration(record['seconds'])}"))
    return tiles


def ablation(table):
    """The part that adds most to the base images' top-1; None without a base image."""
    if not table or np.isnan(table[0][1]["base"]):
        return None
    gain, part = max((after["base"] - before["base"], name.lstrip("+ "))
                     for (_, before), (name, after) in zip(table, table[1:]))
    return {"most": part, "gain": gain, "drawing": figures.ablation(table)}


def learning(log):
    """How long each part took, and its curves; None where the log tells of no training."""
    parts = {"prompt": [line for line in log if "lr_prompt" in line],
             "LoRA": [line for line in log if "lr_lora" in line],
             "head": [line for line in log if line["stage"] == "head"]}
    parts = {part: lines for part, lines in parts.items() if lines}
    if not parts:
        return None
    moved = {part: lines for part, lines in parts.items()
             if lines[-1].get(f"moved_{part.lower()}")}
    return {"loss": figures.learning(parts), "paces": figures.paces(moved) if moved else None,
            "spent": [(part, lines[-1]["epoch"],
                       lines[-1]["time"] - lines[0]["time"] + lines[0]["seconds"])
                      for part, lines in parts.items()]}


def domains(record):
    """Top-1 by domain, the best and the worst of them, and the worst classes."""
    labels, first = record["labels"], record["rankings"][:, 0]
    rows = sorted(((domain or "no domain", *(accuracy(predicted[of_domain, None], labels[of_domain])
                                             for predicted in (first, record["zero_shot_label"])))
                   for domain, of_domain in by_domain(record["classes"], labels).items()),
                  key=lambda row: -row[1])
    return {"best": rows[0], "worst": rows[-1], "drawing": figures.domains(*zip(*rows)),
            "worst_classes": [
                {"label": label, "image": typical(first, labels, label), "n_right": n_right,
                 "n": n, "taken_for": taken_for}
                for label, n_right, n, taken_for in worst_classes(first, labels)]}


def confusions(record):
    """The most confused pairs of classes, with an image of either; None without a mistake."""
    labels, first = record["labels"], record["rankings"][:, 0]
    pairs = []
    for a, b, of_a, of_b in confused_pairs(first, labels):
        sides = [{"label": a, "image": of_a[0], "n_wrong": len(of_a)},
                 {"label": b, "image": of_b[0] if len(of_b) else typical(first, labels, b),
                  "n_wrong": len(of_b)}]
        pairs.append({"sides": sides, "n_wrong": len(of_a) + len(of_b),
                      "n": np.isin(labels, (a, b)).sum()})
    n_wrong = ((labels >= 0) & (first != labels)).sum()
    return {"pairs": pairs, "n_wrong": n_wrong} if pairs else None


def base_or_new(record, shares):
    """The scores and what they decide; None unless there are images of both sides."""
    if "auroc" not in shares:
        return None
    labels, threshold = record["labels"], record["threshold"]
    known, is_base, _ = sides_of(record["base"], labels).values()
    truth = (record["scores"][known], is_base[known],
             *((record[side] == labels)[known] for side in ("base_label", "new_label")))
    return {"best": threshold_curve(*truth)[-1].max(),
            "scores": figures.score_histogram(*truth[:2], threshold),
            "roc": figures.roc_curve(*truth[:2], threshold, shares["auroc"]),
            "thresholds": figures.threshold_sweep(*truth, threshold)}


def calibration(record):
    """Whether predictions are right as often as they claim to be."""
    known = record["labels"] >= 0
    right = (record["rankings"][:, 0] == record["labels"])[known]
    confidence, plain = (record[name][known] for name in ("confidence", "plain_confidence"))
    return {"claimed": confidence.mean(), "right": right.mean(),
            "error": expected_calibration_error(confidence, right),
            "plain_error": expected_calibration_error(plain, right),
            "drawing": figures.calibration(confidence, plain, right),
            "mistakes": surest_mistakes(record["rankings"][:, 0], record["labels"],
                                        record["confidence"])}


def facts(record, log):
    """{what: text}: versions, times by stage, and numbers of parameters."""
    rows = {**record["versions"], "test": duration(record["seconds"])}
    for stage in dict.fromkeys(line["stage"] for line in log if line["stage"] != "test"):
        rows[stage.replace("_", " ")] = duration(
            sum(line["seconds"] for line in log if line["stage"] == stage))
    for part, n in record.get("parameters", {}).items():  # older records have none
        rows[f"parameters, {part}"] = f"{n:,}"
    return rows
