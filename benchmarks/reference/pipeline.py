"""The papers' pipeline on the files of the pair test, from the weights to result.txt.

    python -m benchmarks.reference.pipeline FOLDER MODEL

FOLDER is what benchmarks/generated.py wrote, MODEL a name in benchmarks/inputs.py. Every image's
views are read ahead by a DataLoader's processes; then image by image: zero-shot CLIP's features,
MTA, the base/new score; where base classes are possible the tuned CLIP's features, MTA and the
head; then the probability of either side times the class's among its side.
"""

import copy
import importlib.util
import os
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import inputs
from benchmarks.reference.crops import Views, loader
from benchmarks.reference.device import DEVICE, tensor
from benchmarks.reference.encoders import clip, zero_shot_classifier
from benchmarks.reference.head import head_logits
from benchmarks.reference.mta import solve_mta
from benchmarks.reference.tuning import ALPHA, PromptLearner
from benchmarks.worker import Work
from data.image_paths import list_images
from data.lists import read_classes
from models.calibration import fit_temperature, recall_threshold
from prompts import PromptLibrary


@torch.inference_mode()
def main(folder, model_name):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tuning, heads = (read(folder, f"{name}.pkl") for name in ("prompt_lora", "head"))
    config = tuning["config"]
    classes = read_classes(os.path.join(config["data"]["root"], config["data"]["classes"]))
    paths = list_images(os.path.join(config["data"]["root"], config["data"]["test_dir"]))
    base = np.asarray(tuning["base"])
    new = np.setdiff1d(np.arange(len(classes)), base)
    original = clip(model_name, read(folder, "clip.pkl"))
    tuned = merged(original, tuning["lora"])
    scale = float(original.logit_scale.exp())

    library, settings = PromptLibrary(os.path.join(inputs.ROOT, "prompts")), config["prompts"]
    prompts = [library.prompts(c, settings["general"]) for c in classes]
    text = zero_shot_classifier(original, prompts)
    further = text[:0]
    if settings["enlarged"]:
        further = zero_shot_classifier(original, library.enlarged_prompts(classes,
                                                                          settings["enlarged"]))
    base_side, new_side = sides(text[base], text[new], further)
    tuned_text = tuned_classifier(original, tuned, [library.name(classes[c]) for c in base],
                                  [prompts[c] for c in base], tuning["contexts"],
                                  config["prompt"]["queue_weight"])
    head = {name: tensor(value) for name, value in heads["head"].items()}
    head["weight"] = head.pop("w")

    def score(features):  # (..., D) -> (...)
        return (torch.logsumexp(scale * features @ base_side.T, dim=-1)
                - torch.logsumexp(scale * features @ new_side.T, dim=-1))

    threshold = recall_threshold(score(tensor(heads["features"])).cpu().numpy(),
                                 config["ood"]["recall"])
    columns = np.searchsorted(base, heads["held_back_labels"])
    temperature = fit_temperature(head_logits(
        head, tensor(heads["tuned_modes"]), head["text"]).cpu().numpy(), columns)
    zero_shot_temperature = fit_temperature(
        (scale * tensor(heads["modes"]) @ text[base].T).cpu().numpy(), columns)
    views = Views(paths, np.load(os.path.join(folder, "boxes.npy")),
                  inputs.MODELS[model_name]["image_size"], whole_first=True)
    lines = []
    for path, pixels in zip(paths, loader(views, config["workers"])):
        pixels = pixels.to(DEVICE)  # (V, 3, S, S)
        mode = solve_mta(original.encode_image(pixels, normalize=True), text, scale)
        zero_shot = scale * text @ mode / zero_shot_temperature  # (C,)
        odds = (score(mode) - threshold) / zero_shot_temperature
        base_logits = zero_shot[base]
        if odds > -np.log(99):
            mode = solve_mta(tuned.encode_image(pixels, normalize=True), tuned_text, scale)
            base_logits = head_logits(head, mode[None], head["text"])[0] / temperature
        log_p = torch.empty_like(zero_shot)
        log_p[base] = F.log_softmax(base_logits, dim=0) + F.logsigmoid(odds)
        log_p[new] = F.log_softmax(zero_shot[new], dim=0) + F.logsigmoid(-odds)
        lines.append(" ".join([os.path.basename(path), *map(str, order(log_p)[:5])]) + "\n")
    with open(os.path.join(folder, "reference.txt"), "w") as file:
        file.writelines(lines)


def read(folder, name):
    """The object in one of the files that our own side has written, nothing of which is run."""
    # By its path, as the package around it needs what PyTorch's environment lacks.
    spec = importlib.util.spec_from_file_location(
        "unpickle", os.path.join(inputs.ROOT, "models", "jclip", "unpickle.py"))
    unpickle = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpickle)
    with open(os.path.join(folder, name), "rb") as file:
        return unpickle.load(file)


def merged(model, lora):
    """A copy of the model with LoRA added to its weights; `lora` as models/lora.py saves it."""
    tuned = copy.deepcopy(model)
    for tower, transformer in (("vision", tuned.visual.transformer), ("text", tuned.transformer)):
        for i, block in enumerate(transformer.resblocks):
            down, up = (tensor(lora[f"{tower}.{i}.in_delta.{kind}"]) for kind in ("down", "up"))
            R = up.shape[-1]
            addition = up @ down.view(3, R, -1)  # (3, W, R), (3, R, W) -> (3, W, W)
            block.attn.in_proj_weight += addition.flatten(0, 1) * (ALPHA / R ** 0.5)
    return tuned


def sides(base_text, new_text, further):
    """The texts of either side: each further name joins the side of its nearest class."""
    to_new = (further @ new_text.T).amax(dim=1) > (further @ base_text.T).amax(dim=1)
    return torch.cat([base_text, further[~to_new]]), torch.cat([new_text, further[to_new]])


def tuned_classifier(original, tuned, names, prompts, contexts, queue_weight):
    """Texts (C, D) of the tuned model: learned contexts and handcrafted prompts by weight."""
    learner, features = PromptLearner(original, names), 0.0
    for context in contexts:
        learner.context.copy_(tensor(context))
        features = features + learner(tuned)
    queue = F.normalize(features, dim=-1)
    handcrafted = zero_shot_classifier(tuned, prompts)
    return F.normalize(queue_weight * queue + (1 - queue_weight) * handcrafted, dim=-1)


def order(logits):
    """Indices from the largest logit to the smallest."""
    return torch.argsort(logits, descending=True, stable=True).cpu().numpy()


def script(sizes, folder):
    """`Work` of the pair test: this script as a process."""
    command = [sys.executable, "-m", "benchmarks.reference.pipeline", folder, sizes["model"]]

    def run():
        subprocess.run(command, cwd=inputs.ROOT, stdin=subprocess.DEVNULL, check=True)

    def result():
        run()
        with open(os.path.join(folder, "reference.txt")) as file:
            return {"labels": np.array([int(line.split()[1]) for line in file])}

    return Work(run, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
