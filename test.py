"""Classifies the test images; writes the five likeliest labels of each to result.txt.

    python test.py [--config configs/photos.yaml] [--output result.txt] [--labels FILE]
                   [--ablate] [key=value …]

Each image becomes V views, which MTA (Zanella and Ben Ayed 2024, arXiv 2405.02266) turns into
one feature. The original CLIP tells base images from new ones. Base images get the logits of
the tuned text, the zero-shot text and the head, new ones zero-shot labels.
"""

import argparse
import functools
import os
import sys
from typing import NamedTuple

from models import runtime
from models.errors import UserError, run_script, show_warnings_in_one_line

run_script(runtime.prepare)  # before the imports below, which need Jittor and its packages

import jittor as jt
import numpy as np

from configs import config_path, load_config
from data.challenge import list_images, read_classes, read_labels
from data.metrics import recall_threshold
from data.report import by_logit, print_ablation, print_report
from data.sample import ensure_sample
from data.submission import N_LABELS
from data.views import Views, view_batches
from models import jclip, lora
from models.checkpoint import fingerprint, load_checkpoint, made_with
from models.checkpoint_parts import check_parts
from models.features import encode_views, mta_features
from models.jclip.model import unit_norm
from models.jclip.weights import write_atomically
from models.lock import output_lock
from models.lp_plus_plus import LPPlusPlus
from models.ood import base_score
from models.prompt import PromptLearner, class_features, classifier_features, handcrafted_prompts
from models.shards import Shards, files_checksum
from prompts import PromptLibrary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", help="YAML file; by default what is here decides")
    parser.add_argument("--output", default="result.txt", help="file to write")
    parser.add_argument("--labels", help="lines 'image label': also print accuracies")
    parser.add_argument("--ablate", action="store_true", help="with --labels: part by part")
    parser.add_argument("--restart", action="store_true",
                        help="start over instead of going on from where a stopped run was")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
    arguments = parser.parse_intermixed_args()
    config = load_config(config_path(arguments.config), arguments.overrides)
    if min(config.fusion.to_dict().values()) < 0 or config.fusion.tuned_text <= 0:
        raise UserError("fusion's weights must not be negative, and tuned_text must be above 0")
    root = config.data.root
    labels_path = arguments.labels
    if labels_path is None and config.data.labels is not None:
        labels_path = os.path.join(root, config.data.labels)
    if arguments.ablate and labels_path is None:
        raise UserError("--ablate needs --labels FILE to measure on")
    runtime.use_accelerator()
    if config.data.sample:
        ensure_sample(root)
    classes = read_classes(os.path.join(root, config.data.classes))
    paths = list_images(os.path.join(root, config.data.test_dir))
    labels = labels_of(paths, labels_path, len(classes))
    trained = load_trained(config, classes)
    with output_lock(f"{arguments.output}.lock"):
        shards = Shards(config.output.cache_dir, "test_images",
                        [trained.origin, config.mta.to_dict(), config.seed, arguments.ablate],
                        paths, config.test.batch_size)
        if arguments.restart:
            shards.remove()
        seen = look_at(shards, trained, config, everything=arguments.ablate)
        rankings = rank(trained, seen, config.fusion)
        lines = [" ".join([os.path.basename(path), *map(str, ranking)]) + "\n"
                 for path, ranking in zip(paths, rankings)]
        write_atomically(arguments.output, "".join(lines).encode())
        shards.remove()
    n_base = int(seen.is_base.sum())
    log(f"{arguments.output}: {len(paths)} images, {n_base} taken for base classes")
    if labels is not None:
        print_report(classes, trained.base, rankings, seen.scores, seen.is_base, labels)
    if arguments.ablate:
        ablate(trained, seen, rankings, labels, config.fusion)


class Trained(NamedTuple):
    """Both models and everything that images are compared with.

    Attributes:
        original, tuned: CLIPs. preprocess: `jclip`'s. scale: factor on cosines.
        base, new: int arrays, labels of either side.
        zero_shot_text: Var (C, D), all classes, original CLIP.
        enlarged_text: Var (E, D) or None, further class names, original CLIP.
        prompt_text, queue_text: Var (C_base, D), original CLIP with the last learned prompt
            and with the queue's; for the ablation.
        tuned_text: Var (C_base, D), tuned CLIP with the queue's prompts.
        head, plain_head: `LPPlusPlus`, the second without channel re-weighting.
        threshold: base_score from which an image counts as base.
        origin: plain values that tell everything above.
    """

    original: object
    tuned: object
    preprocess: object
    scale: float
    base: np.ndarray
    new: np.ndarray
    zero_shot_text: object
    enlarged_text: object
    prompt_text: object
    queue_text: object
    tuned_text: object
    head: LPPlusPlus
    plain_head: LPPlusPlus
    threshold: float
    origin: tuple


def load_trained(config, classes):
    """The original CLIP and what train.py left in the checkpoint folder."""
    files = []

    def checkpoint(name, keys, *parts):
        path = os.path.join(config.output.checkpoint_dir, name)
        if not os.path.isfile(path):
            raise UserError(f"no trained weights at {path}; run train.py with this config first")
        files.append(path)
        content = load_checkpoint(path, present, keys)
        check_parts(path, content, parts, original.sizes)
        return path, content

    original, preprocess = jclip.load(config.clip.weights)
    lora.freeze(original)
    present = made_with(config, fingerprint(original), classes)
    path, stage_1 = checkpoint("prompt_lora.pkl", ("prompts", "prompt", "lora", "train"),
                               "lora", "contexts")
    head_path, heads = checkpoint("head.pkl", ("prompts", "prompt", "lora", "train", "head"),
                                  "head", "plain_head")
    ood_path, noted = checkpoint("ood.pkl", ("prompts",), "features")
    for other_path, other in ((head_path, heads), (ood_path, noted)):
        if not np.array_equal(other["base"], stage_1["base"]):
            raise UserError(f"{other_path} has other base classes than {path}; train again")
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], path)

    library = PromptLibrary(config.prompts.dir)
    base = stage_1["base"]
    new = np.setdiff1d(np.arange(len(classes)), base)
    prompts = handcrafted_prompts(library, classes, config.prompts)
    base_prompts = [prompts[label] for label in base]
    learner = PromptLearner(original, [library.name(classes[label]) for label in base],
                            config.prompt.init)
    contexts, weight = stage_1["contexts"], config.prompt.queue_weight
    trained = Trained(
        original, tuned, preprocess, original.scale(), base, new,
        zero_shot_text=class_features(original, prompts),
        enlarged_text=enlarged_text(original, library, classes, config.prompts.enlarged),
        prompt_text=classifier_features(original, learner, contexts[-1:], base_prompts, weight),
        queue_text=classifier_features(original, learner, contexts, base_prompts, weight),
        tuned_text=classifier_features(tuned, learner, contexts, base_prompts, weight),
        head=LPPlusPlus.from_state(heads["head"]),
        plain_head=LPPlusPlus.from_state(heads["plain_head"]), threshold=0.0,
        origin=(present["clip"], files_checksum(files), prompts, config.prompt.to_dict(),
                config.ood.to_dict(), config.prompts.enlarged))
    return trained._replace(threshold=base_threshold(trained, noted["features"], config.ood))


def enlarged_text(model, library, classes, n_templates):
    """Features of the enlarged class list, or None where it is switched off."""
    if n_templates == 0:
        return None
    return class_features(model, library.enlarged_prompts(classes, n_templates))


def base_threshold(trained, features, settings):
    """The score from which an image counts as base: set, or found on the training images.

    Args:
        features: array (N, D), MTA features of the training images by the original CLIP.
        settings: the config's section `ood`.
    """
    if settings.threshold is not None:
        return float(settings.threshold)
    if settings.score == "winner":
        return 0.0  # the winning class's own side
    return recall_threshold(scores_of(trained, jt.array(features), settings), settings.recall)


def scores_of(trained, image_features, settings):
    """`base_score` (B,) of original CLIP's features (B, D)."""
    text = trained.zero_shot_text
    return base_score(image_features, text[jt.array(trained.base)], text[jt.array(trained.new)],
                      trained.scale, trained.enlarged_text, settings.score,
                      settings.negative_share)


class Seen(NamedTuple):
    """What the models made of the test images.

    Attributes:
        modes, tuned_modes: arrays (N, D), MTA's features by the original and the tuned CLIP.
        scores: array (N,), `base_score`. is_base: bool array (N,).
        whole, tuned_whole: arrays (N, D), view 0 by either; None unless `everything` is seen.
    """

    modes: np.ndarray
    tuned_modes: np.ndarray
    scores: np.ndarray
    is_base: np.ndarray
    whole: np.ndarray = None
    tuned_whole: np.ndarray = None


def look_at(shards, trained, config, everything):
    """Features and base/new decision of the test images.

    An image that cannot be decoded is seen as the mean of all texts: its labels come from the
    text alone. The tuned model sees base images only, unless `everything` is asked for.
    """
    zero_shot, tuned = (unit_norm(text.mean(dim=0, keepdims=True)).numpy()
                        for text in (trained.zero_shot_text, trained.tuned_text))
    otherwise = {"modes": zero_shot, "tuned_modes": tuned,
                 "scores": scores_of(trained, jt.array(zero_shot), config.ood)}
    if everything:
        otherwise.update(whole=zero_shot, tuned_whole=tuned)

    def look(pixels):
        """A batch's rows of what `otherwise` has."""
        B = len(pixels)
        seen = {name: np.repeat(row, B, axis=0) for name, row in otherwise.items()}
        features = encode_views(trained.original, pixels[:, :config.mta.zero_shot_views])
        seen["modes"] = mta_features(features, trained.zero_shot_text, trained.scale, config.mta)
        seen["scores"] = scores_of(trained, jt.array(seen["modes"]), config.ood)
        wanted = everything | (seen["scores"] >= trained.threshold)
        if wanted.any():
            tuned_features = encode_views(trained.tuned, pixels[wanted])
            seen["tuned_modes"][wanted] = mta_features(tuned_features, trained.tuned_text,
                                                       trained.scale, config.mta)
        if everything:
            seen.update(whole=features[:, 0].numpy(), tuned_whole=tuned_features[:, 0].numpy())
        return seen

    views = Views(trained.preprocess, config.mta.views, config.mta.scale, config.seed)
    batches = functools.partial(view_batches, views, batch_size=config.test.batch_size,
                                n_threads=config.workers, description="test images")
    found = shards.compute(batches, look, {name: row[0] for name, row in otherwise.items()})
    return Seen(is_base=found["scores"] >= trained.threshold, **found)


def base_logits(trained, features, tuned_features, fusion, head):
    """Fused logits (N, C_base) of the base classes; without a head, of the texts alone."""
    zero_shot = text_logits(trained, features, trained.zero_shot_text)[:, trained.base]
    tuned = text_logits(trained, tuned_features, trained.tuned_text)
    parts = [(fusion.zero_shot_text, zero_shot), (fusion.tuned_text, tuned)]
    if head is not None:
        parts.append((fusion.head, head.logits(tuned_features).numpy()))
    return sum(weight * logits for weight, logits in parts) / sum(w for w, _ in parts)


def text_logits(trained, features, text):
    """Logits (N, C) of features (N, D) against texts (C, D), arrays."""
    return trained.scale * features @ text.numpy().T


def rank(trained, seen, fusion):
    """The likeliest labels of each image, int array (N, min(5, C)).

    A base image's labels begin with base classes, a new one's with new classes.
    """
    zero_shot = text_logits(trained, seen.modes, trained.zero_shot_text)
    fused = base_logits(trained, seen.modes, seen.tuned_modes, fusion, trained.head)
    base_first = [trained.base[by_logit(fused)], trained.new[by_logit(zero_shot[:, trained.new])]]
    new_first = [base_first[1], trained.base[by_logit(zero_shot[:, trained.base])]]
    rankings = np.where(seen.is_base[:, None], np.concatenate(base_first, axis=1),
                        np.concatenate(new_first, axis=1))
    return rankings[:, :N_LABELS]


def labels_of(paths, labels_path, n_classes):
    """The label of each image, int array (N,), -1 where the file has none; None without file."""
    if labels_path is None:
        return None
    by_name = read_labels(labels_path, n_classes)
    labels = np.array([by_name.get(os.path.basename(path), -1) for path in paths])
    if (labels < 0).all():
        raise UserError(f"{labels_path} names none of the images in "
                        f"{os.path.dirname(paths[0])}; set data.test_dir to their folder")
    return labels


def ablate(trained, seen, rankings, labels, fusion):
    """Print top-1 as the parts are added, all from the same features."""
    zero_shot, zero_shot_mta = (text_logits(trained, features, trained.zero_shot_text)
                                for features in (seen.whole, seen.modes))
    base, new = zero_shot[:, trained.base], zero_shot[:, trained.new]

    def fused(head):
        return base_logits(trained, seen.whole, seen.tuned_whole, fusion, head)

    print_ablation([
        ("zero-shot", base, new),
        ("+ learned prompt", text_logits(trained, seen.whole, trained.prompt_text), new),
        ("+ queue average", text_logits(trained, seen.whole, trained.queue_text), new),
        ("+ LoRA", fused(None), new),
        ("+ head", fused(trained.plain_head), new),
        ("+ channel re-weighting", fused(trained.head), new),
        ("+ MTA", base_logits(trained, seen.modes, seen.tuned_modes, fusion, trained.head),
         zero_shot_mta[:, trained.new])], rankings, trained.base, trained.new, labels)


def log(text):
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    show_warnings_in_one_line()
    run_script(main, "run the same command again; it goes on after the last finished part")
