"""What train.py left, put together: looks at images, decides base or new, and names classes.

Each image becomes V views, which MTA (Zanella and Ben Ayed 2024, arXiv 2405.02266) turns into
one feature. The original CLIP tells base images from new ones. Base images get the logits of
the tuned text, the zero-shot text and the head, and the auxiliary head's bias where there is one;
new ones get zero-shot labels.
"""

import functools
import os
from typing import NamedTuple

import jittor as jt
import numpy as np

from data.challenge import ClassName
from data.metrics import recall_threshold
from data.report import by_logit
from data.submission import N_LABELS
from data.views import Views, view_batches
from models import auxiliary, jclip, lora
from models.amu import AMUHead
from models.calibration import fit_temperature, probabilities
from models.checkpoint import fingerprint, load_checkpoint, made_with
from models.checkpoint_parts import check_parts
from models.errors import UserError
from models.features import encode_views, mta_features
from models.jclip.model import unit_norm
from models.lp_plus_plus import LPPlusPlus
from models.ood import base_score
from models.prompt import PromptLearner, class_features, classifier_features, handcrafted_prompts
from models.shards import files_checksum, kept_arrays
from prompts import PromptLibrary


class Trained(NamedTuple):
    """Both models and everything that images are compared with.

    Attributes:
        original, tuned: CLIPs. preprocess: `jclip`'s. scale: factor on cosines.
        classes: list (C) of `ClassName`. base, new: int arrays, labels of either side.
        zero_shot_text: Var (C, D), all classes, original CLIP.
        enlarged_text: Var (E, D) or None, further class names, original CLIP.
        prompt_text, queue_text: Var (C_base, D), original CLIP with the last learned prompt
            and with the queue's; for the ablation.
        tuned_text: Var (C_base, D), tuned CLIP with the queue's prompts. tuned_new_text: Var
            (C_new, D), the same of the new classes, or None where they are not asked for.
        head, plain_head: `LPPlusPlus`, the second without channel re-weighting.
        threshold: base_score from which an image counts as base.
        temperature, zero_shot_temperature: by which the fused and the zero-shot logits are
            divided before the softmax.
        support, tuned_support: arrays (N, D), the training images as the original and the
            tuned CLIP see them. support_labels: int array (N,).
        origin: plain values that tell everything above.
        aux_encoder, aux_head: `auxiliary.Encoder` and `AMUHead`, or None.
    """

    original: object
    tuned: object
    preprocess: object
    scale: float
    classes: list
    base: np.ndarray
    new: np.ndarray
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
    tuned_support: np.ndarray
    support_labels: np.ndarray
    origin: tuple
    enlarged_text: object = None
    tuned_new_text: object = None
    aux_encoder: object = None
    aux_head: object = None


def load_trained(config, classes=None):
    """The original CLIP and what train.py left in the checkpoint folder.

    Args:
        config: the run's `Config`.
        classes: list of `ClassName` that must be those trained with; None takes those.

    Raises:
        UserError: nothing was trained, or with other weights, classes or settings.
    """
    if min(config.fusion.to_dict().values()) < 0 or config.fusion.tuned_text <= 0:
        raise UserError("fusion's weights must not be negative, and tuned_text must be above 0")
    files = []

    def checkpoint(name, keys, *parts):
        path = os.path.join(config.output.checkpoint_dir, name)
        if not os.path.isfile(path):
            raise UserError(f"no trained weights at {path}; run train.py with this config first")
        files.append(path)
        content = load_checkpoint(path, present, keys)
        check_parts(path, content, parts, original.sizes,
                    0 if encoder is None else encoder.n_features)
        return path, content

    original, preprocess = jclip.load(config.clip.weights)
    lora.freeze(original)
    encoder = auxiliary.load_encoder(config.aux.weights, preprocess.image_size)
    present = made_with(config, fingerprint(original), classes)
    path, stage_1 = checkpoint("prompt_lora.pkl", ("data.split", "data.setting", "prompts",
                                                   "prompt", "lora", "train"), "lora", "contexts")
    classes = [ClassName(*c) for c in stage_1["classes"]]
    present["classes"], base = stage_1["classes"], stage_1["base"]
    heads_path, heads = checkpoint("head.pkl", ("prompts", "prompt", "lora", "train", "head"),
                                   "head", "plain_head", "features")
    _, noted = checkpoint("ood.pkl", ("prompts",), "features")
    saved, aux_head, held_back_parts = [stage_1, heads, noted], None, ["modes", "tuned_modes"]
    if encoder is not None:
        aux_path, aux = checkpoint("aux.pkl", ("prompts", *auxiliary.SETTINGS), "aux_weight")
        auxiliary.check_encoder(aux_path, aux, encoder)
        aux_head = AMUHead(config.aux.alpha, config.aux.power, weight=aux["aux_weight"])
        saved.append(aux)
        held_back_parts.append("aux_features")
    last_path, held_back = checkpoint("calibration.pkl", ("prompts", "prompt", "lora", "train"),
                                      *held_back_parts)
    for other_path, other in zip(files, (*saved, held_back)):
        if not np.array_equal(other["base"], base):
            raise UserError(f"{other_path} has other base classes than {path}; train again")
    for other_path, content, n_images in ((last_path, held_back, len(held_back["modes"])),
                                          (heads_path, heads, len(noted["features"]))):
        labels = content.get("labels")
        if (not isinstance(labels, np.ndarray) or labels.shape != (n_images,)
                or not np.isin(labels, base).all()):
            raise UserError(f"{other_path} is damaged: its labels are no base classes; train "
                            "again")
    tuned = lora.tuned_clip(original, config.lora, stage_1["lora"], path)

    library = PromptLibrary(config.prompts.dir)
    prompts = handcrafted_prompts(library, classes, config.prompts)
    names = [library.name(c) for c in classes]
    new = np.setdiff1d(np.arange(len(classes)), base)
    wanted_new = new if config.transduction.mode == "selective" else new[:0]
    n_enlarged = config.prompts.enlarged
    enlarged = library.enlarged_prompts(classes, n_enlarged) if n_enlarged else []
    texts_from = (present["clip"], files_checksum([path]), prompts, names, enlarged,
                  config.prompt.to_dict(), wanted_new.tolist())
    texts = kept_arrays(config.output.cache_dir, "text_features", texts_from, functools.partial(
        text_features, original, tuned, prompts, names, base, wanted_new, enlarged,
        stage_1["contexts"], config.prompt))
    trained = Trained(
        original, tuned, preprocess, original.scale(), classes, base, new,
        **{name: jt.array(features) for name, features in texts.items()},
        head=LPPlusPlus.from_state(heads["head"]),
        plain_head=LPPlusPlus.from_state(heads["plain_head"]), threshold=0.0, temperature=1.0,
        zero_shot_temperature=1.0, support=noted["features"], tuned_support=heads["features"],
        support_labels=heads["labels"],
        origin=(*texts_from, files_checksum(files), config.ood.to_dict()),
        aux_encoder=encoder, aux_head=aux_head)
    trained = trained._replace(threshold=base_threshold(trained, noted["features"], config.ood))
    return calibrated(trained, held_back, config.fusion)


def text_features(original, tuned, prompts, names, base, new, enlarged, contexts, settings):
    """Features of everything that images are compared with: {attribute of `Trained`: array}.

    Args:
        original, tuned: CLIPs.
        prompts: list (C) of lists of texts. names: list (C) of texts.
        base: int array (C_base,), labels. new: the same of those for which the tuned CLIP's
            are wanted too, may be empty.
        enlarged: list (E) of lists of texts.
        contexts: array (K, M, W) of the prompt queue.
        settings: the config's section `prompt`.
    """
    def learned(model, contexts, labels=base):
        learner = PromptLearner(original, [names[label] for label in labels], settings.init)
        return classifier_features(model, learner, contexts, [prompts[label] for label in labels],
                                   settings.queue_weight)

    texts = {"zero_shot_text": class_features(original, prompts),
             "prompt_text": learned(original, contexts[-1:]),
             "queue_text": learned(original, contexts), "tuned_text": learned(tuned, contexts)}
    if enlarged:
        texts["enlarged_text"] = class_features(original, enlarged)
    if len(new):
        texts["tuned_new_text"] = learned(tuned, contexts, new)
    return {name: features.numpy() for name, features in texts.items()}


def calibrated(trained, held_back, fusion):
    """`trained` with the temperatures that suit the images that were not trained on.

    New classes have none, so that their zero-shot logits get the temperature which suits the
    zero-shot logits of base images among base classes.

    Args:
        held_back: {'modes', 'tuned_modes': arrays (N, D), 'labels': int array (N,)}, and with an
            auxiliary head 'aux_features': array (N, A); with no images both temperatures are 1.
        fusion: the config's section.
    """
    if not len(held_back["labels"]):
        return trained
    columns = np.searchsorted(trained.base, held_back["labels"])
    fused = base_logits(trained, held_back["modes"], held_back["tuned_modes"], fusion,
                        trained.head, held_back.get("aux_features"))
    zero_shot = text_logits(trained, held_back["modes"], trained.zero_shot_text)
    return trained._replace(
        temperature=fit_temperature(fused, columns),
        zero_shot_temperature=fit_temperature(zero_shot[:, trained.base], columns))


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
        aux_features: array (N, A), zeros of an image that was not seen; None without an auxiliary
            encoder.
    """

    modes: np.ndarray
    tuned_modes: np.ndarray
    scores: np.ndarray
    is_base: np.ndarray
    whole: np.ndarray = None
    tuned_whole: np.ndarray = None
    aux_features: np.ndarray = None


def look_at(shards, trained, config, everything):
    """What the models make of the images of `Shards`.

    An image that cannot be decoded is seen as the mean of all texts: its labels come from the
    text alone.

    Returns:
        `Seen`; None in all processes but the first.
    """
    views = Views(trained.preprocess, config.mta.views, config.mta.scale, config.seed)
    batches = functools.partial(view_batches, views, batch_size=config.test.batch_size,
                                n_threads=config.workers, description="test images")
    otherwise = unseen(trained, config, everything)
    found = shards.compute(batches, functools.partial(look, trained, config, otherwise),
                           {name: row[0] for name, row in otherwise.items()})
    return None if found is None else judged(trained, found)


def judged(trained, found):
    """`Seen` of `look`'s arrays: with the decision between base and new."""
    return Seen(is_base=found["scores"] >= trained.threshold, **found)


def look(trained, config, otherwise, pixels):
    """Features and scores of a batch's views, uint8 (B, V, S, S, 3): {attribute of `Seen`: array}.

    Args:
        otherwise: `unseen`'s, which tells what is wanted. The tuned model and the auxiliary
            encoder see base images only, unless everything is; the others have what `unseen` has.
    """
    everything = "whole" in otherwise
    seen = {name: np.repeat(row, len(pixels), axis=0) for name, row in otherwise.items()}
    features = encode_views(trained.original, pixels[:, :config.mta.zero_shot_views])
    seen["modes"] = mta_features(features, trained.zero_shot_text, trained.scale, config.mta)
    seen["scores"] = scores_of(trained, jt.array(seen["modes"]), config.ood)
    wanted = everything | (seen["scores"] >= trained.threshold)
    if wanted.any():
        tuned_features = encode_views(trained.tuned, pixels[wanted])
        seen["tuned_modes"][wanted] = mta_features(tuned_features, trained.tuned_text,
                                                   trained.scale, config.mta)
        if trained.aux_encoder is not None:
            seen["aux_features"][wanted] = trained.aux_encoder.image_features(
                pixels[wanted, :config.aux.views])
    if everything:
        seen.update(whole=features[:, 0].numpy(), tuned_whole=tuned_features[:, 0].numpy())
    return seen


def unseen(trained, config, everything):
    """The row (1, …) of each of `look`'s arrays for an image that was not looked at."""
    zero_shot, tuned = (unit_norm(text.mean(dim=0, keepdims=True)).numpy()
                        for text in (trained.zero_shot_text, trained.tuned_text))
    row = {"modes": zero_shot, "tuned_modes": tuned,
           "scores": scores_of(trained, jt.array(zero_shot), config.ood)}
    if trained.aux_encoder is not None:
        row["aux_features"] = np.zeros((1, trained.aux_encoder.n_features), np.float32)
    return {**row, "whole": zero_shot, "tuned_whole": tuned} if everything else row


def base_logits(trained, features, tuned_features, fusion, head, aux_features=None):
    """Fused logits (N, C_base) of the base classes.

    Without a head, of the texts alone; the auxiliary head's bias is added if it and the features
    that it takes are there.
    """
    zero_shot = text_logits(trained, features, trained.zero_shot_text)[:, trained.base]
    tuned = text_logits(trained, tuned_features, trained.tuned_text)
    parts = [(fusion.zero_shot_text, zero_shot), (fusion.tuned_text, tuned)]
    if head is not None:
        parts.append((fusion.head, head.logits(tuned_features).numpy()))
    fused = sum(weight * logits for weight, logits in parts) / sum(w for w, _ in parts)
    if trained.aux_head is None or aux_features is None:
        return fused
    return fused + trained.aux_head.bias(aux_features, zero_shot)


def text_logits(trained, features, text):
    """Logits (N, C) of features (N, D) against texts (C, D), arrays."""
    return trained.scale * features @ text.numpy().T


class Answers(NamedTuple):
    """The likeliest labels of images.

    A base image's labels begin with base classes, a new one's with new classes; where they
    were judged jointly (models/transduction.py), all classes are in one order.

    Attributes:
        labels: int array (N, min(5, C)), the likeliest first.
        probabilities: array of that shape, calibrated: among the classes of the image's side,
            0 for those of the other; or among all, where they were judged jointly.
        plain: the same without the temperatures.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    plain: np.ndarray


def answer(trained, seen, fusion):
    """`Answers` on the images that were `Seen`; `fusion` is the config's section."""
    base, new = trained.base, trained.new
    zero_shot = text_logits(trained, seen.modes, trained.zero_shot_text)
    fused = base_logits(trained, seen.modes, seen.tuned_modes, fusion, trained.head,
                        seen.aux_features)
    base_first = [base[by_logit(fused)], new[by_logit(zero_shot[:, new])]]
    new_first = [base_first[1], base[by_logit(zero_shot[:, base])]]
    labels = np.where(seen.is_base[:, None], np.concatenate(base_first, axis=1),
                      np.concatenate(new_first, axis=1))[:, :N_LABELS]

    def of_labels(temperature, zero_shot_temperature):
        shares = np.zeros(zero_shot.shape)
        shares[np.ix_(seen.is_base, base)] = probabilities(fused[seen.is_base], temperature)
        shares[np.ix_(~seen.is_base, new)] = probabilities(
            zero_shot[np.ix_(~seen.is_base, new)], zero_shot_temperature)
        return np.take_along_axis(shares, labels, axis=1)

    return Answers(labels, of_labels(trained.temperature, trained.zero_shot_temperature),
                   of_labels(1.0, 1.0))
