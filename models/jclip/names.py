"""Finds a model's parameters in a checkpoint, and brings other CLIP libraries' names to OpenAI's.

OpenAI's are what jclip and `models.jclip.model` use. open_clip has the same ones (with
`text.` before the text encoder's in its newer models); transformers' CLIPModel has q, k and v
apart and its projections transposed.
"""

import re
from typing import NamedTuple

import numpy as np

from system.unpickle import Foreign

# Entries of archives that models do not need: OpenAI's three, masks, positions, counters.
_NOT_PARAMETERS = re.compile(
    r"(input_resolution|context_length|vocab_size|(.*\.)?(attn_mask|position_ids|num_batches_tracked))$")
# Names that every CLIP has, of which the first that occurs tells the prefix before all.
_MARKS = ("visual.conv1.weight", "visual.proj", "visual.attnpool.positional_embedding",
          "vision_model.embeddings.class_embedding",
          "vision_model.embeddings.patch_embedding.weight", "token_embedding.weight",
          "text_projection", "text_projection.weight", "transformer.resblocks.0.ln_1.weight")
_RESNET = re.compile(r"(^|\.)layer1\.0\.conv\d\.weight$")
_AVERAGED = re.compile("ema|momentum|teacher", re.IGNORECASE)
_TOWERS = {"vision": "visual.transformer", "text": "transformer"}
_BLOCK = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2",
          "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_SINGLE = {
    "logit_scale": "logit_scale",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_TRANSPOSED = {"visual_projection.weight": "visual.proj",
               "text_projection.weight": "text_projection"}
_LAYER = re.compile(r"(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")


class Found(NamedTuple):
    """A model's arrays in a checkpoint.

    Attributes:
        state: {name: value}, without a prefix and without entries that are no parameters.
        place: the keys that lead to it, joined by dots; '' for the whole.
        others: list of places that hold a model too.
        left_out: list of names beside it, which do not begin with its prefix.
        is_model: whether it has names of a CLIP or a ResNet.
    """

    state: dict
    place: str
    others: list
    left_out: list
    is_model: bool


def find_state(content):
    """The arrays of a model in what a checkpoint holds.

    They may lie in dicts and lists that hold each other, and have a prefix before every name.

    Args:
        content: what a file of weights holds.

    Returns:
        `Found`; where no model is known in it, of the whole if that is a dict of arrays, else
        None.

    Raises:
        ValueError: two models have prefixes of their own.
    """
    dicts = list(_dicts_in(content))
    models = [(place, each) for place, each in dicts
              if _prefixes(each) or any(map(_RESNET.search, each))]
    # Averaged over the training: beside the weights themselves.
    models.sort(key=lambda model: _AVERAGED.search(model[0]) is not None)
    is_model = bool(models)
    if not models:
        models = [(place, each) for place, each in dicts[:1] if not place and each and all(
            hasattr(value, "dtype") for value in each.values())]
    if not models:
        return None
    (place, state), *others = models
    prefixes = _prefixes(state) or {""}
    if len(prefixes) > 1 and "" not in prefixes:
        raise ValueError(f"it holds several models, {', '.join(sorted(prefixes))}; save the one "
                         "that is meant by itself")
    prefix = min(prefixes, key=len)
    return Found({name[len(prefix):]: value for name, value in state.items()
                  if name.startswith(prefix) and not _NOT_PARAMETERS.match(name[len(prefix):])},
                 place, [place for place, _ in others],
                 [name for name in state if not name.startswith(prefix)], is_model)


def _dicts_in(content, deepest=4):
    """(place, dict) of every dict whose keys are texts, the outer ones first."""
    level, seen = [("", content)], set()
    for _ in range(deepest + 1):
        inner = []
        for place, value in level:
            if id(value) in seen or not isinstance(value, (dict, list, tuple)):
                continue
            seen.add(id(value))
            if isinstance(value, dict):
                if not all(isinstance(name, str) for name in value):
                    continue
                yield place, value
                items = value.items()
            else:
                items = enumerate(value)
            inner += [(f"{place}.{name}" if place else str(name), item) for name, item in items]
        level = inner


def _prefixes(names):
    """What stands before a name that every CLIP has, wherever that one occurs; a set of texts."""
    for mark in _MARKS:
        found = {name[:-len(mark)] for name in names if name.endswith(mark)}
        found = {prefix for prefix in found if not prefix or prefix.endswith(".")}
        if found:
            return found
    return set()


def told(content):
    """What else than a model's weights a file holds and what to give instead; None if unknown.

    Args:
        content: as for `find_state`.
    """
    if isinstance(content, Foreign):
        return _of_foreign(content)
    names = set()
    for _, each in _dicts_in(content):
        names |= set(each)
        for value in each.values():
            what = _of_foreign(value) if isinstance(value, Foreign) else None
            if what is not None:
                return what
    if {"config", "clip", "classes"} <= names:
        return ("a checkpoint of train.py, not CLIP's weights; its folder is "
                "output.checkpoint_dir, or --run of test.py")
    if any("lora" in name.lower() for name in names):
        return ("LoRA weights alone, which add to CLIP's own; give CLIP's weights here, and this "
                "file as lora.init")
    if any(re.search(r"(^|\.)ctx$", name) for name in names):
        return ("a learned prompt alone (CoOp's), which stands beside CLIP's own weights; give "
                "those")
    return None


def _of_foreign(value):
    """What to say of an object that was pickled, if it is a model."""
    if not any(isinstance(part, dict) and "_modules" in part for part in value.content):
        return None
    return (f"a whole model pickled ({value.name}), of which nothing is run; save its weights "
            "alone: torch.save(model.state_dict(), 'weights.pt')")


def to_openai(state):
    """The state with OpenAI's names, whichever library's it had; unknown names stay.

    Args:
        state: {name: array}; perhaps emptied, so that what is joined is not held twice.

    Returns:
        {name: array}; arrays are joined and transposed where the libraries differ.
    """
    if "vision_model.embeddings.class_embedding" in state:
        return _from_transformers(state)
    return {re.sub(r"^text\.", "", name): value for name, value in state.items()}


def _from_transformers(state):
    renamed, apart = {}, {}
    for name in list(state):
        value = state.pop(name)
        layer = _LAYER.match(name)
        if name in _SINGLE:
            renamed[_SINGLE[name]] = value
        elif name in _TRANSPOSED:
            renamed[_TRANSPOSED[name]] = np.asarray(value).T
        elif layer is None:
            renamed[name] = value
        else:
            tower, number, part, kind = layer.groups()
            prefix = f"{_TOWERS[tower]}.resblocks.{number}"
            projection = re.match(r"self_attn\.([qkv])_proj$", part)
            if projection:
                joined = f"{prefix}.attn.in_proj_{kind}"
                parts = apart.setdefault(joined, {})
                parts[projection[1]] = value
                if len(parts) == 3:  # with fewer, the name stays missing and is reported
                    renamed[joined] = np.concatenate([parts.pop(letter) for letter in "qkv"])
            elif part in _BLOCK:
                renamed[f"{prefix}.{_BLOCK[part]}.{kind}"] = value
            else:
                renamed[name] = value
    return renamed
