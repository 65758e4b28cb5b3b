"""Tests with others' LoRA where nothing is trained: their additions, this project's prompts.

What a training would have made is not there: no learned prompt, no head and no temperature, and
base and new have even odds where zero-shot CLIP gives them so.
"""

import os
import zlib

import jittor as jt
import numpy as np

from data.sources import load_data
from models import lora
from models.lora_files import read_lora
from models.parameter_count import parameter_counts
from models.prompt import class_features, handcrafted_prompts
from pipeline.shards import kept_arrays
from pipeline.trained import Heads, Texts, Trained, numbers_of
from prompts import PromptLibrary
from system.errors import UserError, log
from system.places import beside_scripts


def borrows(config):
    """Whether a run takes `lora.init` as it is: nothing of its own is trained, or half trained."""
    folder = config.output.checkpoint_dir
    return config.lora.init is not None and not any(
        os.path.exists(os.path.join(folder, name))
        for name in ("head.pkl", "prompt_lora.pkl", "unfinished"))


def load_borrowed(config, original, preprocess, clip, listed):
    """`Trained` with the LoRA of `lora.init`, and a line on stderr that says what is whose.

    Args:
        config: the run's `Config`. original: CLIP, frozen. preprocess: `jclip`'s.
        clip: `fingerprint` of the original. listed: see `pipeline.trained.numbers_of`.

    Raises:
        UserError: a file that does not fit; or settings that need a training.
    """
    path, mode = beside_scripts(config.lora.init), config.transduction.mode
    found = read_lora(path, original.sizes)
    for setting, needs in ((f"transduction.mode={mode}", mode == "few-shot"),
                           ("aux.weights", config.aux.weights is not None)):
        if needs:
            raise UserError(f"{setting} needs a training, and {config.output.checkpoint_dir} holds "
                            "none; run train.py with lora.init, or leave it out")
    library = PromptLibrary(config.prompts.dir)
    challenge = load_data(config.data, config.seed, library)
    classes, base = challenge.classes, challenge.base
    tuned = lora.with_additions(original, found, path)
    prompts = handcrafted_prompts(library, classes, config.prompts)
    n_enlarged = config.prompts.enlarged
    enlarged = library.enlarged_prompts(classes, n_enlarged) if n_enlarged else []
    additions = {place: np.concatenate([down.ravel(), up.ravel()])
                 for place, (down, up) in found.additions.items()}
    log(f"LoRA: {path} ({found.format}); prompts: this project's handcrafted ones, averaged; no "
        f"learned prompt and no head, as nothing is trained in {config.output.checkpoint_dir}")

    def text_features():
        texts = {"zero_shot": class_features(original, prompts),
                 "tuned": class_features(tuned, [prompts[label] for label in base])}
        if enlarged:
            texts["enlarged"] = class_features(original, enlarged)
        return {name: features.numpy() for name, features in texts.items()}

    texts_from = (clip, [(*place, zlib.crc32(values)) for place, values in additions.items()],
                  prompts, enlarged, base.tolist())
    texts = kept_arrays(config.output.cache_dir, "text_features", texts_from, text_features)
    nothing = np.zeros((0, original.sizes.embed_dim), np.float32)
    return Trained(
        original, tuned, preprocess, original.scale(), classes, base, challenge.new,
        numbers_of(classes, listed),
        Texts(**{name: jt.array(features) for name, features in texts.items()}), Heads(),
        support=nothing, support_labels=np.zeros(0, int),
        identity=(*texts_from, config.ood.to_dict()),
        parameters=parameter_counts(original, additions, (), {}))

