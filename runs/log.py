"""A run's log: `log.jsonl` in its folder, one JSON object a line.

Every line has `time`, seconds of work since the run began (pauses between processes do not
count), `seconds`, those since the line before, and `stage`; then what the stage has to tell:

    tune         epoch, step, loss, accuracy, lr_prompt, lr_lora, moved_prompt, moved_lora,
                 images, images_per_s
    features, base_features, held_back_features
    head, plain_head    epoch, loss, moved_head
    auxiliary_features, and auxiliary    epoch, loss: where aux.weights is set
    test         images, images_per_s, and of accuracies what is known

`lr_…` is there while that part learns; `moved_…` is the distance of its parameters from where
they began (the head's: from where its first step led).
"""

import contextlib
import json
import math
import os
import time

from system import parallel
from system.errors import UserError
from system.files import write_atomically

LOG_NAME = "log.jsonl"
STAGES = ("tune", "features", "base_features", "held_back_features", "auxiliary_features", "head",
          "plain_head", "auxiliary", "test")  # in their order


class RunLog:
    """Appends to the log of a run folder, in the first process.

    Args:
        folder: the run's; it is made with the first line.
    """

    def __init__(self, folder):
        self.folder = folder
        self.path = os.path.join(folder, LOG_NAME)

    def begin(self, stage, epochs_done=0):
        """Start a stage, or go on with it after some epochs.

        What the log holds of its later epochs and of the stages after it is dropped, as it is
        made again; so is a last line that was cut off.

        Args:
            stage: one of `STAGES`.
            epochs_done: epochs of it that are kept.
        """
        if not parallel.is_first():
            return
        done = (STAGES.index(stage), epochs_done)
        kept = [record for record in read_log(self.folder)
                if (STAGES.index(record["stage"]), record.get("epoch", 1)) <= done]
        if os.path.exists(self.path):
            write_atomically(self.path, "".join(map(_line, kept)).encode())
        self.stage = stage
        self._last = kept[-1]["time"] if kept else 0.0
        self._start = time.perf_counter() - self._last

    def write(self, seconds=None, **values):
        """Add a line to the stage that began last.

        Args:
            seconds: since the line before, where they were measured elsewhere.
            values: numbers by name.
        """
        if not parallel.is_first():
            return
        now = time.perf_counter() - self._start if seconds is None else self._last + seconds
        record = {"time": now, "stage": self.stage, **values, "seconds": now - self._last}
        if "images" in values:
            record["images_per_s"] = values["images"] / max(record["seconds"], 1e-9)
        self._last = now
        os.makedirs(self.folder, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(record))

    @contextlib.contextmanager
    def timed(self, stage):
        """A stage of one line, the time of the `with` block."""
        self.begin(stage)
        yield
        self.write()


def read_log(folder):
    """The lines of a run folder's log as dicts; none where there is no log.

    A last line that was cut off is left out.

    Raises:
        UserError: a line before the last one is damaged.
    """
    path = os.path.join(folder, LOG_NAME)
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    records = list(map(_parsed, lines))
    if None in records[:-1]:
        raise UserError(f"{path}, line {records.index(None) + 1} is damaged; delete that line")
    return records if records[-1] else records[:-1]


def _parsed(line):
    try:
        record = json.loads(line)
        return record if record["time"] >= 0 and record["stage"] in STAGES else None
    except (ValueError, TypeError, KeyError):
        return None


def _line(record):
    """JSON with six digits a number; what is no number any more becomes null."""
    def short(value):
        if not isinstance(value, float):
            return value
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return json.dumps({name: short(value) for name, value in record.items()}) + "\n"
