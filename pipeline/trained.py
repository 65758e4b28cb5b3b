"""What train.py left, put together, and what it says of image features."""

import functools
import os
import warnings
from typing import NamedTuple

import jittor as jt
import numpy as np

from configs import Config, differences
from data.lists import ClassName
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

PARTS_OF_STAGE_2 = ("head", "plain_head", "features", "modes", "tuned_modes")
PARTS_OF_AUXILIARY = ("aux_features", "aux_weight")


class Texts(NamedTuple):
    """Features of what images are compared with.

    Attributes:
        zero_shot: Var (C, D), all classes, original CLIP.
        tuned: Var (C_base, D), tuned CLIP with the queue's prompts.
        enlarged: Var (E, D) or None, further class names, original CLIP.
        prompt, queue: Var (C_base, D), original CLIP with the last learned prompt and with the
            queue's, for the ablation; None where nothing is trained (pipeline/borrowed.py).
    """

    zero_shot: object
    tuned: object
    enlarged: object = None
    prompt: object = None
    queue: object = None


class Heads(NamedTuple):
    """What stage 2 has fitted.

    Attributes:
        head, plain_head: `LPPlusPlus`, the second without channel re-weighting; None where nothing
            is trained.
        aux_encoder, aux_head: `auxiliary.Encoder` and `AMUHead`, or None.
    """

    head: LPPlusPlus = None
    plain_head: LPPlusPlus = None
    aux_encoder: object = None
    aux_head: object = None


class Decision(NamedTuple):
    """How scores and logits become probabilities.

    Attributes:
        threshold: `base_score` of even odds between base and new.
        temperature, zero_shot_temperature: by which the base logits and the zero-shot logits are
            divided before the softmax.
    """

    threshold: float = 0.0
    temperature: float = 1.0
    zero_shot_temperature: float = 1.0


class Trained(NamedTuple):
    """Both models and everything that images are compared with.

    Attributes:
        original, tuned: CLIPs. preprocess: `jclip`'s. logit_scale: factor on cosines.
        classes: list (C) of `ClassName` as trained; labels are places in it. base, new: int arrays,
            labels of either side.
        numbers: int array (C,), what the data's class list calls each label.
        texts: `Texts`. heads: `Heads`. decision: `Decision`.
        support: array (N, D), the training images as the original CLIP sees them.
        support_labels: int array (N,).
        identity: plain values that tell everything above.
        parameters: {part: int}, `parameter_counts`.
    """

    original: object
    tuned: object
    preprocess: object
    logit_scale: float
    classes: list
    base: np.ndarray
    new: np.ndarray
    numbers: np.ndarray
    texts: Texts
    heads: Heads
    support: np.ndarray
    support_labels: np.ndarray
    identity: tuple
    parameters: dict
    decision: Decision = Decision()


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
    stage_1, stage_2 = read_checkpoints(folder, original.sizes, made_with(config, clip, None),
                                        encoder)
    files = [os.path.join(folder, name) for name in ("prompt_lora.pkl", "head.pkl")]
    listed, classes = classes, [ClassName(*c) for c in stage_1["classes"]]
    if listed is not None and sorted(listed) != sorted(classes):
        raise other_classes(files[0], len(classes), listed)
    base = stage_1["base"]
    new = np.setdiff1d(np.arange(len(classes)), base)
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], files[0])
    aux_head = None
    if encoder is not None:
        aux_head = AMUHead(config.aux.alpha, config.aux.power, weight=stage_2["aux_weight"])

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
        Texts(**{name: jt.array(features) for name, features in texts.items()}),
        Heads(LPPlusPlus.from_state(stage_2["head"]), LPPlusPlus.from_state(stage_2["plain_head"]),
              encoder, aux_head),
        stage_2["features"], stage_2["labels"],
        identity=(*texts_from, files_checksum(files), config.ood.to_dict(), config.aux.views),
        parameters=parameter_counts(
            original, stage_1["lora"], stage_1["contexts"], stage_2["head"], encoder,
            None if encoder is None else stage_2["aux_weight"]))
    return trained._replace(decision=decision_of(trained, stage_2, config.ood))


def numbers_of(classes, listed):
    """What a class list, of the same classes, calls each of them: int array (C,).

    Args:
        classes, listed: lists of `ClassName`; `listed` None numbers them as they come.
    """
    label_of = {c: label for label, c in enumerate(listed or classes)}
    return np.array([label_of[c] for c in classes])


def read_checkpoints(folder, sizes, present, encoder):
    """What train.py left: the contents of stage 1 and of stage 2, checked.

    Args:
        folder: where they lie.
        sizes: `CLIPSizes` of the original.
        present: `made_with` of the present run.
        encoder: auxiliary `Encoder`, or None.

    Raises:
        UserError: one is missing or damaged, or does not fit the present run or the other.
    """
    def read(name, settings, parts):
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            raise UserError(f"no trained weights at {path}; run train.py with this config first")
        content = load_checkpoint(path, present, settings)
        check_parts(path, content, parts, sizes, 0 if encoder is None else encoder.n_features)
        return content

    present = dict(present)
    # Where LoRA started from need not be said again.
    tuned_by = ("prompts", "prompt", "train", *(
        f"lora.{key}" for key, value in present["config"]["lora"].items()
        if key != "init" or value is not None))
    stage_1 = read("prompt_lora.pkl", ("data.split", "data.setting", *tuned_by),
                   ("lora", "contexts"))
    # Both are of one training, of whatever images it was.
    present.update((key, stage_1[key]) for key in ("classes", "data") if key in stage_1)
    path = os.path.join(folder, "head.pkl")
    stage_2 = read("head.pkl", (*tuned_by, "head"), PARTS_OF_STAGE_2)
    if not np.array_equal(stage_2["base"], stage_1["base"]):
        raise UserError(f"{path} has other base classes than prompt_lora.pkl; train again")
    if encoder is not None:
        auxiliary.check_encoder(path, stage_2, encoder)
        read("head.pkl", auxiliary.SETTINGS, PARTS_OF_AUXILIARY)
    _warn_of_other_views(stage_2["config"], present["config"])
    for name, described in (("labels", "features"), ("held_back_labels", "modes")):
        labels = stage_2.get(name)
        if (not isinstance(labels, np.ndarray) or labels.shape != stage_2[described].shape[:1]
                or not np.isin(labels, stage_1["base"]).all()):
            raise UserError(f"{path} is damaged: its {name} are no base classes; train again")
    return stage_1, stage_2


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
    """{attribute of `Texts`: array}.

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

    texts = {"zero_shot": class_features(original, prompts),
             "prompt": learned(original, contexts[-1:]),
             "queue": learned(original, contexts), "tuned": learned(tuned, contexts)}
    if enlarged:
        texts["enlarged"] = class_features(original, enlarged)
    return {name: features.numpy() for name, features in texts.items()}


def decision_of(trained, held_back, settings):
    """`Decision` by the training images, and by images that were not trained on.

    The odds are even at the score that a share `recall` of the training images reaches. New classes
    have no images, so that their zero-shot logits get the temperature which suits the zero-shot
    logits of base images among base classes.

    Args:
        held_back: {'modes', 'tuned_modes': arrays (N, D), 'held_back_labels': int array (N,)},
            and with an auxiliary head 'aux_features': array (N, A); with no images both
            temperatures are 1.
        settings: the config's section `ood`.
    """
    threshold = base_threshold(trained, settings)
    if not len(held_back["held_back_labels"]):
        return Decision(threshold)
    columns = np.searchsorted(trained.base, held_back["held_back_labels"])
    logits = base_logits(trained, held_back["modes"], held_back["tuned_modes"], trained.heads.head,
                         held_back.get("aux_features"))
    zero_shot = text_logits(trained, held_back["modes"], trained.texts.zero_shot)
    return Decision(threshold, fit_temperature(logits, columns),
                    fit_temperature(zero_shot[:, trained.base], columns))


def base_threshold(trained, settings):
    """The score that a share `recall` of the training images reaches; `settings`: the section
    `ood`."""
    return recall_threshold(scores_of(trained, jt.array(trained.support), settings),
                            settings.recall)


def scores_of(trained, image_features, settings):
    """`base_score` (B,) of original CLIP's features (B, D)."""
    text = trained.texts.zero_shot
    return base_score(image_features, text[jt.array(trained.base)], text[jt.array(trained.new)],
                      trained.logit_scale, trained.texts.enlarged, settings.score,
                      settings.negative_share)


def base_logits(trained, features, tuned_features, head, aux_features=None):
    """Logits (N, C_base) of the base classes.

    The head's; where there is none, the mean of the tuned model's text's and, with half the weight,
    the original's. The auxiliary head's bias is added if it and the features that it takes are
    there.
    """
    zero_shot = text_logits(trained, features, trained.texts.zero_shot)[:, trained.base]
    if head is None:
        tuned = text_logits(trained, tuned_features, trained.texts.tuned)
        logits = (tuned + zero_shot / 2) / 1.5
    else:
        logits = head.logits(tuned_features).numpy()
    if trained.heads.aux_head is None or aux_features is None:
        return logits
    return trained.heads.aux_head.fused(logits, aux_features, zero_shot)


def base_logits_of(trained, features):
    """`base_logits` by `pipeline.classifier.ImageFeatures`."""
    return base_logits(trained, features.modes, features.tuned_modes, trained.heads.head,
                       features.aux_features)


def text_logits(trained, features, text):
    """Logits (N, C) of features (N, D) against texts (C, D), arrays."""
    return trained.logit_scale * features @ text.numpy().T
