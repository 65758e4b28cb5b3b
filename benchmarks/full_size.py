"""Time and peak memory of both scripts at full size: ViT-B/32 with random weights.

    python benchmarks/full_size.py [--classes 20] [--new-classes 5] [--test-images 100]
        [key=value …]

Random weights and noise pictures, in configs/competition.yaml, one epoch: what is measured is
that everything runs through and what it costs, not what it learns.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import runtime

runtime.prepare()

from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from system.files import write_pickle

VIT_B_32 = CLIPSizes(vision=TowerSizes(768, 12, 12), image_size=224, patch_size=32,
                     text=TowerSizes(512, 12, 8), context_length=77, vocab_size=49408,
                     embed_dim=512)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--new-classes", type=int, default=5)
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory() as folder:
        weights = os.path.join(folder, "ViT-B-32.pkl")
        write_weights(weights)
        data = os.path.join(folder, "Dataset")
        write_pictures(data, arguments.classes, arguments.new_classes, arguments.test_images)
        settings = ["--config", "configs/competition.yaml", f"data.root={data}",
                    f"clip.weights={weights}", f"output.checkpoint_dir={folder}/weights",
                    f"output.cache_dir={folder}/cache", "train.epochs=1", "prompt.epochs=1",
                    "prompt.queue_every=1", *arguments.overrides]
        for script, more in (("train.py", []), ("test.py", ["--output", f"{folder}/result.txt"])):
            start = time.time()
            child = subprocess.Popen([sys.executable, script, *settings, *more], cwd=ROOT)
            _, status, usage = os.wait4(child.pid, 0)
            if status:
                sys.exit(f"{script} ended with status {status}")
            print(f"{script}: {time.time() - start:.0f} s, peak memory "
                  f"{usage.ru_maxrss / 2 ** 20:.2f} GiB", flush=True)
        with open(f"{folder}/result.txt") as file:
            print(f"result.txt: {len(file.readlines())} lines")


def write_weights(path):
    """Random weights in the spread that OpenAI's code starts from."""
    random = np.random.RandomState(0)
    state = {name: random.normal(0, 0.02, tuple(parameter.shape)).astype(np.float16)
             for name, parameter in CLIP(VIT_B_32).named_parameters()}
    for name in state:
        if "ln_" in name and name.endswith("weight"):
            state[name] += np.float16(1)
    state["logit_scale"] = np.float16([4.6052])
    write_pickle(path, state)


def write_pictures(data, n_base, n_new, n_test):
    """Noise of the size of photos, in the challenge's layout."""
    random = np.random.RandomState(1)

    def picture(*place):
        path = os.path.join(data, *place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        coarse = random.randint(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.BICUBIC).save(path)

    train = []
    for label in range(n_base):
        for i in range(4):
            picture("TrainSet", "Animal", f"class_{label}", f"{i}.jpg")
            train.append(f"TrainSet/Animal/class_{label}/{i}.jpg {label}\n")
    for i in range(n_test):
        picture("TestSetB", f"image_{i}.jpg")
    with open(os.path.join(data, "train.txt"), "w") as file:
        file.writelines(train)
    with open(os.path.join(data, "classes.txt"), "w") as file:
        file.writelines(f"{'Animal' if i < n_base else 'Car'}_class_{i} {i}\n"
                        for i in range(n_base + n_new))


if __name__ == "__main__":
    main()
