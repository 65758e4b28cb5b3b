"""The sample set: the generated world of `sample.world` as a few-shot data set.

    python -m sample.dataset FOLDER [--sheet sheet.jpg]

72 base classes in six domains and 14 new ones in a seventh, in the challenge's layout:
`classes.txt`, `train.txt`, `TrainSet/`, `TestSetB/`, and `labels.txt` for the test images.
"""

import itertools
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from PIL import Image
from tqdm import tqdm

from configs import SAMPLE
from configs.command_line import Parser
from data.lists import ClassName
from sample.painting import PAINTING
from sample.world import BIRD_COLOURS, DOMAINS, draw
from system.errors import UserError, run_script
from system.places import home

NEW_DOMAIN = "Vehicle"
N_TRAIN, N_TEST = 12, 14  # images a class; training takes 4 of the 12 by seed
SIZE, SEED = 96, 2024     # pixels
# Raised when the pictures change: an older folder is then drawn again.
VERSION, VERSION_NAME = "2", "version.txt"


def sample_classes():
    """[(domain, values)] by label: twelve combinations of each base domain, then the new ones."""
    chosen = []
    for domain, kind in DOMAINS.items():
        for places in itertools.product(*(range(len(v)) for v in kind.attributes)):
            values = tuple(options[i] for options, i in zip(kind.attributes, places))
            if domain == "Bird":
                kept = (places[1] - places[0]) % len(BIRD_COLOURS) in (1, 3)
            elif domain in ("Fish", "Vase"):
                kept = sum(places) % len(kind.attributes[0]) > 0
            else:
                kept = True
            if kept:
                chosen.append((domain, values))
    return sorted(chosen, key=lambda c: c[0] == NEW_DOMAIN)


def class_name(domain, values):
    """'spotted round fish'."""
    return DOMAINS[domain].phrases[0].format(*values)


def class_names():
    """`ClassName`s by label, as `classes.txt` has them."""
    return [ClassName(domain, class_name(domain, values)) for domain, values in sample_classes()]


def is_sample(settings):
    """Whether the data set of the config's section `data` is this one."""
    return settings.sample and settings.images is None and settings.split is None


def to_draw(settings):
    """Where the sample set is still to be drawn, for `system.places.require_writable`; {} if not.

    data.root alone would choose the challenge's config.
    """
    if not is_sample(settings) or _is_drawn(settings.root):
        return {}
    return {f"--config {SAMPLE} data.root": os.path.dirname(os.path.normpath(settings.root))}


def ensure_sample(root, n_processes=2):
    """Draw the sample set into a folder, unless it is there; it appears whole or not at all.

    Args:
        root: the folder.
        n_processes: that draw at once; the pictures do not depend on it.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    if _is_drawn(root):
        return
    if os.path.isdir(root) and os.listdir(root) and not _is_ours(root):
        raise UserError(f"{root} holds something else than the sample set; move it away, or set "
                        "data.root to a new folder")
    temporary = f"{os.path.normpath(root)}.{os.getpid()}.tmp"
    try:
        _write(temporary, n_processes)
        if os.path.isdir(root):
            shutil.rmtree(root)
        os.rename(temporary, root)
    except BrokenProcessPool as error:
        raise UserError("a process that draws the sample set was ended, by hand or for want of "
                        "memory; run the same command again") from error
    except OSError as error:
        raise UserError(f"cannot write the sample set to {root}: {error.strerror}; make the "
                        "folder writable, or set data.root to another") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _version(root):
    """What a folder's version file says; None without one."""
    try:
        with open(os.path.join(root, VERSION_NAME), encoding="utf-8") as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _is_drawn(root):
    return _version(root) == VERSION


def _is_ours(root):
    """Whether an earlier version of the sample set was drawn there, which may be removed."""
    return (_version(root) or "").isdigit() and all(
        os.path.exists(os.path.join(root, name)) for name in ("TrainSet", "TestSetB", "labels.txt"))


def _write(root, n_processes):
    classes = sample_classes()
    lines, tasks = [], []
    for label, (domain, values) in enumerate(classes):
        folder = f"TrainSet/{domain}/{class_name(domain, values).replace(' ', '_')}"
        n_train = 0 if domain == NEW_DOMAIN else N_TRAIN
        for i in range(n_train):
            lines.append(f"{folder}/{i + 1}.jpg {label}\n")
            tasks.append((os.path.join(root, folder, f"{i + 1}.jpg"), label, i))
    # Test images in an order that tells nothing of their labels.
    places = [(label, N_TRAIN + i) for label in range(len(classes)) for i in range(N_TEST)]
    order = np.random.default_rng(SEED).permutation(len(places))
    labels = []
    for number, place in enumerate(order):
        name = f"image_{number + 1}.jpg"
        labels.append(f"{name} {places[place][0]}\n")
        tasks.append((os.path.join(root, "TestSetB", name), *places[place]))
    for folder in {os.path.dirname(path) for path, _, _ in tasks}:
        os.makedirs(folder)
    with ProcessPoolExecutor(n_processes) as pool:
        for _ in tqdm(pool.map(_draw_file, tasks, chunksize=32), "drawing the sample set",
                      len(tasks), unit="image"):
            pass
    names = [f"{domain}_{class_name(domain, values).replace(' ', '_')} {label}\n"
             for label, (domain, values) in enumerate(classes)]
    for name, text in (("classes.txt", names), ("train.txt", lines), ("labels.txt", labels),
                       (VERSION_NAME, [VERSION + "\n"])):
        with open(os.path.join(root, name), "w", encoding="utf-8") as file:
            file.writelines(text)


def _draw_file(task):
    path, label, i = task
    picture(label, i).save(path, quality=90)


def picture(label, i):
    """Image number i of a class, PIL; training and test images count on."""
    domain, values = sample_classes()[label]
    return draw(domain, values, PAINTING, SIZE, np.random.default_rng([SEED, label, i]))


def contact_sheet(columns=12):
    """One picture of twelve classes of each domain, as one PIL image; a row a domain."""
    classes = sample_classes()
    rows = []
    for domain in DOMAINS:
        labels = [i for i, c in enumerate(classes) if c[0] == domain]
        shown = [labels[i] for i in np.linspace(0, len(labels) - 1, columns).astype(int)]
        rows.append(np.concatenate([np.asarray(picture(i, 0)) for i in shown], axis=1))
    return Image.fromarray(np.concatenate(rows))


def main():
    parser = Parser(__doc__.splitlines()[0], prog="python -m sample.dataset")
    parser.add_argument("root", type=home, metavar="FOLDER", help="where to draw it")
    parser.add_argument("--sheet", type=home, help="also write a contact sheet")
    arguments = parser.read()
    ensure_sample(arguments.root)
    if arguments.sheet:
        contact_sheet().save(arguments.sheet, quality=88)


if __name__ == "__main__":
    run_script(main)
