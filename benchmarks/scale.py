"""Cost against size: classes, views, test images, and images judged together.

    python benchmarks/scale.py [images] [images-together] [classes] [views] [--plot FILE]

images: seconds and peak memory of test.py with 2 views, with copies of the sample set's test
images. images-together: seconds and peak memory of few-shot TransCLIP alone, on random features of
the size of two ViT-B/32 with the challenge's classes. classes: seconds of the text features of all
classes, and of the labels of 1,000 images, with ViT-B/32's sizes. views: seconds to encode and
merge (MTA) the views of 8 images, with the sample set's CLIP. Prints a table each; the last
column is the cost per unit against the first row's, 1.0 or less where the cost is linear or better.
--plot draws them.
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import runtime

runtime.prepare()

import jittor as jt
import numpy as np

from benchmarks.inputs import LOGIT_SCALE, unit_rows
from benchmarks.ours import clip
from configs import SAMPLE, load_config
from models import jclip
from models.features import encode_views, mta_features
from models.prompt import class_features
from models.transclip import transclip
from prompts import PromptLibrary
from sample.dataset import ensure_sample

CLASSES = (50, 200, 1000, 4000)
VIEWS = (1, 4, 16, 64, 256, 512)
IMAGES = (100, 1000, 10000)
TOGETHER = (1000, 10000, 100000)
REPEATS = 3


def main():
    # Memory first: a process's peak counts that of the process which started it, as far as it got.
    parts = {"images": by_images, "images-together": by_images_together, "classes": by_classes,
             "views": by_views}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; by default all")
    parser.add_argument("--plot", metavar="FILE", help="an image of the curves")
    arguments = parser.parse_args()
    if not set(arguments.parts) <= set(parts):
        parser.error(f"the parts are {', '.join(parts)}")
    measured = {part: table(part, parts[part]()) for part in parts
                if part in (arguments.parts or parts)}
    if arguments.plot:
        plot(measured, arguments.plot)


def by_classes():
    """(C, seconds, what else) for each number of classes."""
    model = clip("ViT-B/32")
    library = PromptLibrary(os.path.join(ROOT, "prompts"))
    texts = [text for both in library.enlarged_prompts([], 2) for text in both]
    images = jt.array(unit_rows(np.random.RandomState(0).normal(size=(1000, 512))))
    for C in CLASSES:
        prompts = [[text] for text in texts[:C]]

        def run(prompts=prompts):
            text = class_features(model, prompts)
            jt.sync([jt.nn.matmul_transpose(images, text)], True)

        yield C, median_seconds(run), ""


def by_views():
    """(V, seconds, what else) for each number of views."""
    model, preprocess = jclip.load(load_config(os.path.join(ROOT, SAMPLE)).clip.weights)
    settings, S, random = load_config().mta, preprocess.image_size, np.random.RandomState(0)
    text = jt.array(unit_rows(random.normal(size=(403, model.sizes.embed_dim))))
    for V in VIEWS:
        pixels = random.randint(0, 256, (8, V, S, S, 3), np.uint8)
        yield V, median_seconds(lambda pixels=pixels: mta_features(
            encode_views(model, pixels), text, LOGIT_SCALE, settings)), ""


def by_images():
    """(N, seconds, peak memory) for each number of test images."""
    sample = load_config(os.path.join(ROOT, SAMPLE)).data.root
    ensure_sample(sample)
    pictures = sorted(os.listdir(os.path.join(sample, "TestSetB")))
    for i, N in enumerate((IMAGES[0], *IMAGES)):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(N):
                shutil.copy(os.path.join(sample, "TestSetB", pictures[number % len(pictures)]),
                            os.path.join(folder, f"{number}.jpg"))
            seconds, peak = run_test(folder)
        if i > 0:  # the first may have compiled
            yield N, seconds, f"{peak / 2 ** 20:.2f} GiB"


def run_test(folder):
    """Seconds of test.py on a folder of images, and its peak memory in KiB."""
    start = time.time()
    child = subprocess.Popen(
        [sys.executable, "test.py", "--config", SAMPLE, "--output", f"{folder}.txt",
         f"data.test_dir={folder}", "data.labels=null", "mta.views=2"], cwd=ROOT,
        stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.time() - start
    if status:
        sys.exit(f"test.py ended with status {status}")
    os.remove(f"{folder}.txt")
    return seconds, usage.ru_maxrss


def by_images_together():
    """(N, seconds, peak memory) for each number of images, in a process of its own each."""
    for N in TOGETHER:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(judge_together, (N,))
        yield N, seconds, f"{peak / 2 ** 20:.2f} GiB"


def judge_together(N):
    """Seconds of TransCLIP on N images, and this process's peak memory in KiB."""
    random = np.random.default_rng(0)
    C, D, shots = 403, 1024, 4

    def features(labels):
        rows = centres[labels] + random.standard_normal((len(labels), D), np.float32)
        return np.divide(rows, np.linalg.norm(rows, axis=1, keepdims=True), out=rows)

    centres = random.standard_normal((C, D), np.float32)
    prior = random.standard_normal((N, C), np.float32)
    prior -= np.logaddexp.reduce(prior, axis=1, keepdims=True)
    support_labels = np.repeat(np.arange(374), shots)
    images, support = features(random.integers(0, C, N)), features(support_labels)
    start = time.perf_counter()
    transclip(images, prior, support, support_labels)
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def median_seconds(run):
    """Of some runs, after one that compiles."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def table(what, rows):
    """Print rows (size, seconds, more) with the cost per unit against the first row's.

    Returns:
        list of (size, seconds).
    """
    print(f"\n| {what} | seconds | peak memory | cost per unit |\n| --- | --- | --- | --- |")
    measured = []
    for size, seconds, more in rows:
        measured.append((size, seconds))
        first_size, first_seconds = measured[0]
        print(f"| {size} | {seconds:.3g} | {more} | "
              f"{seconds / size * first_size / first_seconds:.2f} |", flush=True)
    return measured


def plot(measured, path):
    """Draw seconds against size, a panel each, with the line of linear cost.

    Args:
        measured: {what: list of (size, seconds)}.
        path: image file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(measured), 2.9), layout="constrained")
    for axes, (what, rows) in zip(np.atleast_1d(figure.subplots(1, len(measured))),
                                  measured.items()):
        sizes, seconds = map(np.array, zip(*rows))
        axes.loglog(sizes, seconds[0] * sizes / sizes[0], color="0.7", label="linear")
        axes.loglog(sizes, seconds, marker="o", color="#1f6fb4", label="measured")
        axes.set(xlabel=what, ylabel="seconds")
        axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
