"""What train.py left, put together, and what it says of image features."""

import functools
import os
import warnings
from typing import NamedTuple

import jittor as jt
import numpy as np

from configs import Config, differences
from data.challenge import ClassName
from models import auxiliary, jclip, lora
from models.amu import AMUHead
from models.calibration import fit_temperature, recall_threshold
from models.jclip.parameters import fingerprint
from models.lp_plus_plus import LPPlusPlus
from models.ood import base_score
from models.parameter_count import parameter_counts
from models.prompt import PromptLearner, class_features, classifier_features, handcrafted_prompts
from pipeline.checkpoint import (
    load_checkpoint,
    made_with,
    other_classes,
    trained_folder,
)
from pipeline.checkpoint_parts import check_parts
from pipeline.look import first_views
from pipeline.shards import files_checksum, kept_arrays
from prompts import PromptLibrary
from system.errors import UserError
from system.places import beside_scripts


class Trained(NamedTuple):
    """Both models and everything that images are compared with.

    Attributes:
        original, tuned: CLIPs. preprocess: `jclip`'s. scale: factor on cosines.
        classes: list (C) of `ClassName` as trained; labels are places in it. base, new: int arrays,
            labels of either side.
        numbers: int array (C,), what the data's class list calls each label.
        zero_shot_text: Var (C, D), all classes, original CLIP.
        enlarged_text: Var (E, D) or None, further class names, original CLIP.
        prompt_text, queue_text: Var (C_base, D), original CLIP with the last learned prompt
            and with the queue's; for the ablation.
        tuned_text: Var (C_base, D), tuned CLIP with the queue's prompts.
        head, plain_head: `LPPlusPlus`, the second without channel re-weighting; None where nothing
            is trained (pipeline/borrowed.py), as are prompt_text and queue_text then.
        threshold: base_score of even odds between base and new.
        temperature, zero_shot_temperature: by which the base logits and the zero-shot logits are
            divided before the softmax.
        support: array (N, D), the training images as the original CLIP sees them.
        support_labels: int array (N,).
        origin: plain values that tell everything above.
        aux_encoder, aux_head: `auxiliary.Encoder` and `AMUHead`, or None.
        parameters: {part: int}, `parameter_counts`.
    """

    original: object
    tuned: object
    preprocess: object
    scale: float
    classes: list
    base: np.ndarray
    new: np.ndarray
    numbers: np.ndarray
    zero_shot_text: object
    prompt_text: object
    queue_text: object
    tuned_text: object
    head: LPPlusPlus
    plain_head: LPPlusPlus
    threshold: float
    temperature: float
    zero_shot_temperature: float
    support: np.ndarray
    support_labels: np.ndarray
    origin: tuple
    enlarged_text: object = None
    aux_encoder: object = None
    aux_head: object = None
    parameters: dict = None


def load_trained(config, classes=None):
    """The original CLIP and what train.py left in the checkpoint folder, or others' LoRA.

    Args:
        config: the run's `Config`.
        classes: list of `ClassName` that must be those trained with, in any order; None takes
            those.

    Raises:
        UserError: nothing was trained, or with other weights, classes or settings.
    """
    original, preprocess = jclip.load(beside_scripts(config.clip.weights), config.clip.activation)
    lora.freeze(original)
    clip = fingerprint(original)
    from pipeline.borrowed import borrows, load_borrowed  # here, as it imports this module
    if borrows(config):
        return load_borrowed(config, original, preprocess, clip, classes)
    folder = trained_folder(config.output)
    encoder = auxiliary.load_encoder(config.aux.weights, preprocess.image_size)
    saved = read_checkpoints(folder, original.sizes, made_with(config, clip, None), encoder)
    stage_1, heads = saved["prompt_lora.pkl"], saved["head.pkl"]
    files = [os.path.join(folder, name) for name in saved]
    listed, classes = classes, [ClassName(*c) for c in stage_1["classes"]]
    if listed is not None and sorted(listed) != sorted(classes):
        raise other_classes(files[0], len(classes), listed)
    base = stage_1["base"]
    new = np.setdiff1d(np.arange(len(classes)), base)
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], files[0])
    aux_head = None
    if encoder is not None:
        aux_head = AMUHead(config.aux.alpha, config.aux.power,
                           weight=saved["aux.pkl"]["aux_weight"])

    library = PromptLibrary(config.prompts.dir)
    prompts = handcrafted_prompts(library, classes, config.prompts)
    names = [library.name(c) for c in classes]
    n_enlarged = config.prompts.enlarged
    enlarged = library.enlarged_prompts(classes, n_enlarged) if n_enlarged else []
    texts_from = (clip, files_checksum(files[:1]), prompts, names, enlarged,
                  config.prompt.to_dict())
    texts = kept_arrays(config.output.cache_dir, "text_features", texts_from, functools.partial(
        text_features, original, tuned, prompts, names, base, enlarged, stage_1["contexts"],
        config.prompt))
    trained = Trained(
        original, tuned, preprocess, original.scale(), classes, base, new,
        numbers_of(classes, listed),
        **{name: jt.array(features) for name, features in texts.items()},
        head=LPPlusPlus.from_state(heads["head"]),
        plain_head=LPPlusPlus.from_state(heads["plain_head"]), threshold=0.0, temperature=1.0,
        zero_shot_temperature=1.0, support=heads["features"], support_labels=heads["labels"],
        origin=(*texts_from, files_checksum(files), config.ood.to_dict(), config.aux.views),
        aux_encoder=encoder, aux_head=aux_head, parameters=parameter_counts(
            original, stage_1["lora"], stage_1["contexts"], heads["head"], encoder,
            None if encoder is None else saved["aux.pkl"]["aux_weight"]))
    trained = trained._replace(threshold=base_threshold(trained, config.ood))
    return calibrated(trained, saved["calibration.pkl"])


def numbers_of(classes, listed):
    """What a class list, of the same classes, calls each of them: int array (C,).

    Args:
        classes, listed: lists of `ClassName`; `listed` None numbers them as they come.
    """
    label_of = {c: label for label, c in enumerate(listed or classes)}
    return np.array([label_of[c] for c in classes])


def read_checkpoints(folder, sizes, present, encoder):
    """What train.py left, checked: {file name: content}.

    Args:
        folder: where it lies.
        sizes: `CLIPSizes` of the original.
        present: `made_with` of the present run.
        encoder: auxiliary `Encoder`; None leaves out the last.

    Raises:
        UserError: one is missing or damaged, or does not fit the present run or the others.
    """
    present = dict(present)
    # Where LoRA started from need not be said again.
    tuned_by = ("prompts", "prompt", "train", *(
        f"lora.{key}" for key, value in present["config"]["lora"].items()
        if key != "init" or value is not None))
    held_back = ("modes", "tuned_modes", *(() if encoder is None else ("aux_features",)))
    wanted = [("prompt_lora.pkl", ("data.split", "data.setting", *tuned_by), ("lora", "contexts")),
              ("head.pkl", (*tuned_by, "head"), ("head", "plain_head", "features")),
              ("calibration.pkl", tuned_by, held_back)]
    if encoder is not None:
        wanted.append(("aux.pkl", ("prompts", *auxiliary.SETTINGS), ("aux_weight",)))
    saved = {}
    for name, keys, parts in wanted:
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise UserError(f"no trained weights at {path}; run train.py with this config first")
        content = saved[name] = load_checkpoint(path, present, keys)
        check_parts(path, content, parts, sizes, 0 if encoder is None else encoder.n_features)
        first = saved["prompt_lora.pkl"]
        # All are of one training, of whatever images it was.
        present.update((key, first[key]) for key in ("classes", "data") if key in first)
        if not np.array_equal(content["base"], first["base"]):
            raise UserError(f"{path} has other base classes than prompt_lora.pkl; train again")
        if name == "aux.pkl":
            auxiliary.check_encoder(path, content, encoder)
    _warn_of_other_views(saved["calibration.pkl"]["config"], present["config"])
    for name, described in (("head.pkl", saved["head.pkl"]["features"]),
                            ("calibration.pkl", saved["calibration.pkl"]["modes"])):
        labels = saved[name].get("labels")
        if (not isinstance(labels, np.ndarray) or labels.shape != described.shape[:1]
                or not np.isin(labels, first["base"]).all()):
            path = os.path.join(folder, name)
            raise UserError(f"{path} is damaged: its labels are no base classes; train again")
    return saved


def _warn_of_other_views(trained, present):
    """Tell that the threshold and the temperatures are of other views than the test's."""
    mta = trained.get("mta")
    if not isinstance(mta, dict) or not all(
            type(mta.get(key)) is int for key in ("views", "zero_shot_views")):
        return  # damaged; nothing else is taken from there

    def looked_at(mta):
        return {"mta": {**mta, "zero_shot_views": first_views(Config(mta))}}

    changed = differences(looked_at(mta), looked_at(present["mta"]), ("mta",))
    if changed:
        warnings.warn(f"the threshold of base and new and the temperatures are of training's views "
                      f"({'; '.join(changed)}); train.py --stage 2 makes them anew", stacklevel=2)


def text_features(original, tuned, prompts, names, base, enlarged, contexts, settings):
    """Features of everything that images are compared with: {attribute of `Trained`: array}.

    Args:
        original, tuned: CLIPs.
        prompts: list (C) of lists of texts. names: list (C) of texts.
        base: int array (C_base,), labels.
        enlarged: list (E) of lists of texts.
        contexts: array (K, M, W) of the prompt queue.
        settings: the config's section `prompt`.
    """
    def learned(model, contexts):
        learner = PromptLearner(original, [names[label] for label in base], settings.init)
        return classifier_features(model, learner, contexts, [prompts[label] for label in base],
                                   settings.queue_weight)

    texts = {"zero_shot_text": class_features(original, prompts),
             "prompt_text": learned(original, contexts[-1:]),
             "queue_text": learned(original, contexts), "tuned_text": learned(tuned, contexts)}
    if enlarged:
        texts["enlarged_text"] = class_features(original, enlarged)
    return {name: features.numpy() for name, features in texts.items()}


def calibrated(trained, held_back):
    """`trained` with the temperatures that suit the images that were not trained on.

    New classes have none, so that their zero-shot logits get the temperature which suits the
    zero-shot logits of base images among base classes.

    Args:
        held_back: {'modes', 'tuned_modes': arrays (N, D), 'labels': int array (N,)}, and with an
            auxiliary head 'aux_features': array (N, A); with no images both temperatures are 1.
    """
    if not len(held_back["labels"]):
        return trained
    columns = np.searchsorted(trained.base, held_back["labels"])
    logits = base_logits(trained, held_back["modes"], held_back["tuned_modes"], trained.head,
                         held_back.get("aux_features"))
    zero_shot = text_logits(trained, held_back["modes"], trained.zero_shot_text)
    return trained._replace(
        temperature=fit_temperature(logits, columns),
        zero_shot_temperature=fit_temperature(zero_shot[:, trained.base], columns))


def base_threshold(trained, settings):
    """The score that a share `recall` of the training images reaches: there the odds are even.

    Args:
        settings: the config's section `ood`.
    """
    return recall_threshold(scores_of(trained, jt.array(trained.support), settings),
                            settings.recall)


def scores_of(trained, image_features, settings):
    """`base_score` (B,) of original CLIP's features (B, D)."""
    text = trained.zero_shot_text
    return base_score(image_features, text[jt.array(trained.base)], text[jt.array(trained.new)],
                      trained.scale, trained.enlarged_text, settings.score,
                      settings.negative_share)


def base_logits(trained, features, tuned_features, head, aux_features=None):
    """Logits (N, C_base) of the base classes.

    The head's; where there is none, the mean of the tuned model's text's and, with half the weight,
    the original's. The auxiliary head's bias is added if it and the features that it takes are
    there.
    """
    zero_shot = text_logits(trained, features, trained.zero_shot_text)[:, trained.base]
    if head is None:
        tuned = text_logits(trained, tuned_features, trained.tuned_text)
        logits = (tuned + zero_shot / 2) / 1.5
    else:
        logits = head.logits(tuned_features).numpy()
    if trained.aux_head is None or aux_features is None:
        return logits
    return trained.aux_head.fused(logits, aux_features, zero_shot)


def base_logits_of(trained, features):
    """`base_logits` by `pipeline.classifier.ImageFeatures`."""
    return base_logits(trained, features.modes, features.tuned_modes, trained.head,
                       features.aux_features)


def text_logits(trained, features, text):
    """Logits (N, C) of features (N, D) against texts (C, D), arrays."""
    return trained.scale * features @ text.numpy().T
