"""A folder with weights, a data set of coloured squares and a config, for the real scripts."""

import os
import subprocess
import sys

import numpy as np
import yaml
from PIL import Image

from models.jclip.model import CLIP
from system.files import write_pickle
from tests.conftest import SMALL, shapes_of
from tests.reference.weights import random_state

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 220), (230, 220, 40), (200, 40, 210),
           (40, 210, 210)]
N_BASE = 4
CLASSES = ["Animal_red_fox", "Animal_tree frog", "Object_blue_vase", "Food_lemon_pie",
           "Car_pink_coupe", "Car_cyan_van"]


def picture(label, seed):
    random = np.random.RandomState([label, seed])
    pixels = np.clip(np.array(COLOURS[label]) + random.normal(0, 25, (20, 24, 3)), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def random_weights():
    """{name: array} of the model that the workplace's weights are of."""
    return random_state(shapes_of(CLIP(SMALL)))


def build(folder):
    """Fill a folder; training with its tiny.yaml takes seconds."""
    write_pickle(str(folder / "clip.pkl"), random_weights())
    data = folder / "Dataset"
    train = data / "TrainSet" / "TrainSet"
    lines = []
    for label in range(N_BASE):
        (train / str(label)).mkdir(parents=True)
        for i in range(3):
            picture(label, i).save(train / str(label) / f"{i}.jpg")
            lines.append(f"TrainSet/{label}/{i}.jpg {label}\r\n")
    (data / "train.txt").write_bytes("".join(lines).encode())
    (data / "classes.txt").write_bytes(b"\xef\xbb\xbf" + "\n\n".join(
        f"{name} {i}" for i, name in enumerate(CLASSES)).encode())
    (data / "TestSetB").mkdir()
    labels = []
    for i in range(12):
        picture(i % 6, 50 + i).save(data / "TestSetB" / f"image_{i}.png")
        labels.append(f"image_{i}.png {i % 6}\n")
    (folder / "labels.txt").write_text("".join(labels))
    (folder / "tiny.yaml").write_text(yaml.safe_dump({
        "data": {"root": str(data), "shots": 2}, "workers": 1, "precision": "float32",
        "clip": {"weights": str(folder / "clip.pkl")},
        "output": {"checkpoint_dir": str(folder / "weights"), "cache_dir": str(folder / "cache")},
        "prompts": {"dir": os.path.join(ROOT, "prompts"), "descriptions": False, "enlarged": 0},
        "prompt": {"epochs": 1, "queue_every": 1}, "train": {"epochs": 2, "batch_size": 4},
        "head": {"views": 2, "epochs": 20, "channel_reweighting": True}, "mta": {"views": 3}}))


def mpirun(n):
    """The words before a command that start it n times."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    # The processes decide about MPI themselves, whatever this one has decided.
    return ["env", "-u", "use_mpi", "mpirun", *root, "--oversubscribe", "--bind-to", "none", "-np",
            str(n)]


def run(script, folder, *arguments, config="tiny.yaml", before=()):
    """The finished process of a script with a workplace's config; `before` it stands a command."""
    return subprocess.run(
        [*before, sys.executable, os.path.join(ROOT, script), "--config", str(folder / config),
         *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=500)
