"""What test.py needs at full size, for the pair test of benchmarks/run.py: photos, random weights
and checkpoints, and where the crops lie, so that PyTorch's side can cut the same.

As everything is random, the pair says what the pipeline costs, not how well it classifies. Ours
takes the default of mta.zero_shot_views; PyTorch's side looks at all views with both models.
"""

import glob
import os
import subprocess
import sys

import jittor as jt
import numpy as np

from benchmarks import inputs
from benchmarks.worker import Work
from configs import load_config
from data.image_paths import list_images
from data.lists import Sample, read_classes
from data.views import Views, decode
from models import jclip, lora
from models.features import encode_views
from models.jclip.parameters import fingerprint
from models.jclip.preprocess import Preprocess
from pipeline.checkpoint import made_with, save_checkpoint
from pipeline.look import first_views
from system.files import write_pickle

CONFIG = "configs/competition.yaml"
N_NOTED = 64  # images that set the temperatures


def script(sizes, folder):
    """`Work` of the pair test: the whole of test.py, as a process."""
    settings = write_inputs(sizes, folder)
    result = os.path.join(folder, "ours.txt")
    command = [sys.executable, "test.py", "--config", CONFIG, *settings, "--output", result]

    def run():
        for path in glob.glob(os.path.join(folder, "text_features_*.npz")):
            os.remove(path)  # kept by the run before; the other side computes them too
        run_logged(command, os.path.join(folder, "ours.log"))

    def labels():
        run()
        return read_labels(result)

    mta = load_config(os.path.join(inputs.ROOT, CONFIG), settings).mta
    n_views = mta.views + first_views(mta)  # of an image that is taken for base
    return Work(run, labels, inputs.image_flops(sizes["model"], sizes["images"] * n_views))


def run_logged(command, log_path):
    """Run a command in the repository, its output in a file.

    Raises:
        RuntimeError: it failed; with the file's end.
    """
    with open(log_path, "w") as log:
        done = subprocess.run(command, cwd=inputs.ROOT, stdin=subprocess.DEVNULL, stdout=log,
                              stderr=subprocess.STDOUT)
    if done.returncode:
        with open(log_path) as log:
            raise RuntimeError(f"exit code {done.returncode}: {log.read()[-500:]}")


def read_labels(path):
    """The likeliest label of each line of a result.txt, as {'labels': int array (N,)}."""
    with open(path) as file:
        return {"labels": np.array([int(line.split()[1]) for line in file])}


def write_inputs(sizes, folder):
    """Write the data, the weights, the checkpoints and the crops' boxes.

    Returns:
        list of settings 'key=value' for test.py.
    """
    root, weights = os.path.join(folder, "Dataset"), os.path.join(folder, "clip.pkl")
    settings = [f"data.root={root}", f"clip.weights={weights}",
                f"output.checkpoint_dir={folder}", f"output.cache_dir={folder}",
                f"mta.views={sizes['views']}", f"test.batch_size={sizes['batch']}",
                f"prompts.enlarged={sizes['enlarged']}",
                f"workers={os.environ['OMP_NUM_THREADS']}"]
    config = load_config(os.path.join(inputs.ROOT, CONFIG), settings)
    for i in range(sizes["images"]):
        inputs.write_photo(os.path.join(root, "TestSetB", f"image_{i}.jpg"), seed=i)
    with open(os.path.join(root, "classes.txt"), "w") as file:
        file.writelines(f"{domain}_{key} {label}\n" for label, (domain, key, _, _)
                        in enumerate(inputs.classes(sizes["classes"])))
    write_pickle(weights, inputs.clip_state(sizes["model"]))
    write_checkpoints(sizes, config, folder)
    side = inputs.MODELS[sizes["model"]]["image_size"]
    random_views = Views(Preprocess(side), sizes["views"] - 1, config.mta.scale, config.seed,
                         whole_first=False)
    paths = list_images(os.path.join(root, config.data.test_dir))
    np.save(os.path.join(folder, "boxes.npy"), boxes_of(random_views, paths))
    return settings


def write_checkpoints(sizes, config, folder):
    """What train.py would leave, from random numbers of the same spread."""
    random = np.random.RandomState(9)
    model, preprocess = jclip.load(config.clip.weights)
    lora.freeze(model)
    classes = read_classes(os.path.join(config.data.root, config.data.classes))
    C, D = len(classes) - sizes["new"], model.sizes.embed_dim
    origin = made_with(config, fingerprint(model), classes, [Sample("", i) for i in range(C)])
    words = jclip.tokenize(inputs.CONTEXT_WORDS)[0]
    start = model.token_embedding(jt.array(words[1:words.argmax()])).numpy()  # (M, W)
    contexts = start + random.normal(0, 0.01, (config.prompt.queue_length, *start.shape))
    text = inputs.unit_rows(random.normal(size=(C, D)))
    head = {"w": random.normal(size=(C, D)), "bias": np.zeros(C), "alpha": np.full(C, 30.0),
            "scale": random.normal(1, 0.05, D), "text": text}
    head = {name: values.astype(np.float32) for name, values in head.items()}
    paths = list_images(os.path.join(config.data.root, config.data.test_dir))[:N_NOTED]
    whole = np.stack([preprocess.pixels(decode(path)) for path in paths])[:, None]
    noted = encode_views(model, whole)[:, 0].numpy()  # (N, 1, S, S, 3) -> (N, D)
    tuned = {"lora": lora_state(sizes["model"], config.lora.rank),
             "contexts": contexts.astype(np.float32)}
    labels = np.arange(len(noted)) % C
    heads = {"head": head, "plain_head": head, "features": noted, "labels": labels,
             "modes": noted, "tuned_modes": noted, "held_back_labels": labels}
    for name, content in (("prompt_lora.pkl", tuned), ("head.pkl", heads)):
        save_checkpoint(os.path.join(folder, name), origin, content)


def lora_state(model, rank):
    """`inputs.lora_weights` as `models.lora.load_lora_state` takes them."""
    state = {}
    for tower, (down, up) in inputs.lora_weights(model, rank).items():
        for i in range(len(down)):
            W = down.shape[-1]
            state[f"{tower}.{i}.in_delta.down"] = down[i].reshape(-1, W)  # (3, R, W) -> (3R, W)
            state[f"{tower}.{i}.in_delta.up"] = up[i]
    return state


def boxes_of(views, paths):
    """Where `Views` cuts its crops: int array (N, V, 5) of left, top, width, height, flip.

    Args:
        views: `Views` without the whole image. paths: of images.
    """
    return np.array([views.boxes(decode(path)) for path in paths], int)
