"""Reads LoRA weights: this project's, CLIP-LoRA's and PEFT's for transformers' CLIP.

| file | scale of B A |
| --- | --- |
| this project's: `prompt_lora.pkl`, or what `convert` wrote | α / √R, `scaling` |
| CLIP-LoRA's `.pt`, or `.pkl` of the same structure | the same |
| PEFT's folder: `adapter_model.safetensors`, `adapter_config.json` | α / R, rsLoRA: α / √R |

CLIP-LoRA (Zanella and Ben Ayed 2024, arXiv 2405.18541) numbers the layers of the text encoder's
chosen blocks first, then those of the image encoder's. PEFT names them by transformers' modules.
All are read into `Lora`, in which the scale is in B.
"""

import math
import os
import re
from typing import NamedTuple

import numpy as np

from models.jclip.formats import read_content
from models.jclip.sizes import ResNetSizes
from system.errors import UserError
from system.unpickle import foreign_in
from system.untrusted import read_json, shown

PARTS = ("q", "k", "v", "o")
ENCODERS = ("text", "vision")  # in the order of CLIP-LoRA's layers
# Which blocks of n each name means: from, and up to.
POSITIONS = {
    "all": lambda n: (0, n), "bottom": lambda n: (0, n // 3), "mid": lambda n: (n // 3, n // 3 * 2),
    "up": lambda n: (n // 3 * 2, n), "half-bottom": lambda n: (0, n // 2),
    "half-up": lambda n: (n // 2, n), "top1": lambda n: (n - 1, n), "top2": lambda n: (n - 2, n),
    "top3": lambda n: (n - 3, n)}
NAMES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}  # in CLIP-LoRA
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PEFT_CONFIG = "adapter_config.json"
_PEFT_NAME = re.compile(r"(?:.*\.)?(text|vision)_model\.encoder\.layers\.(\d+)\.self_attn\."
                        r"(?:([qkv])_proj|out_proj)\.lora_([AB])(?:\.default)?\.weight$")


class Lora(NamedTuple):
    """Low-rank additions, wherever they come from.

    Attributes:
        additions: {(encoder, block, part): (A (R, W), B (W, R))}, float32, of a product
            W x + B A x; encoder 'text' or 'vision', part of q, k, v, o.
        alpha: the file's α. format: what the file is, for people.
    """

    additions: dict
    alpha: float
    format: str

    @property
    def rank(self):
        """The largest R."""
        return max(len(down) for down, _ in self.additions.values())

    @property
    def params(self):
        """Those of q, k, v, o that any block has an addition to."""
        return [part for part in PARTS if any(key[2] == part for key in self.additions)]

    @property
    def encoder(self):
        """'text', 'vision' or 'both'."""
        encoders = {encoder for encoder, _, _ in self.additions}
        return "both" if len(encoders) == 2 else encoders.pop()

    def positions(self, sizes):
        """What `lora.positions` must be to have room for all: a name, or block numbers."""
        n_blocks = {encoder: n for encoder, n in depths(sizes).items()
                    if self.encoder in (encoder, "both")}
        taken = {encoder: sorted({block for e, block, _ in self.additions if e == encoder})
                 for encoder in n_blocks}
        for name in POSITIONS:
            if all(taken[encoder] == block_numbers(name, n) for encoder, n in n_blocks.items()):
                return name
        first, *others = taken.values()
        return first if all(first == other for other in others) else "all"

    def settings(self, sizes):
        """The config's section `lora` as far as it tells where the additions are, a dict."""
        return {"encoder": self.encoder, "params": self.params, "rank": self.rank,
                "alpha": self.alpha, "positions": self.positions(sizes)}


def scaling(alpha, rank):
    """The factor on B A x, α / √R: CLIP-LoRA's (Kalajdzievski 2023, arXiv 2312.03732)."""
    return alpha / math.sqrt(rank)


def depths(sizes):
    """{encoder: number of its attention blocks}; none of a ResNet."""
    vision = 0 if isinstance(sizes.vision, ResNetSizes) else sizes.vision.layers
    return {"text": sizes.text.layers, "vision": vision}


def block_numbers(positions, n_blocks):
    """The numbers of the blocks that `lora.positions` means, ascending.

    Raises:
        UserError: an unknown name or a number that is not there.
    """
    if isinstance(positions, str):
        if positions not in POSITIONS:
            raise UserError(f"lora.positions is {positions!r}; it must be a list of block "
                            f"numbers or one of {', '.join(POSITIONS)}")
        first, end = POSITIONS[positions](n_blocks)
        return list(range(max(0, first), end))
    if not all(isinstance(i, int) and 0 <= i < n_blocks for i in positions):
        raise UserError(f"lora.positions is {positions}; block numbers must be 0 to "
                        f"{n_blocks - 1}")
    return sorted(set(positions))


def read_lora(path, sizes):
    """The `Lora` in a file or folder of any of the forms above.

    Args:
        path: file, or PEFT's folder.
        sizes: `CLIPSizes` of the model that it belongs to.

    Raises:
        UserError: no such file; one that holds no LoRA, or one of another model, or additions
            to other weights than attention's q, k, v and o.
    """
    if not os.path.exists(path):
        raise UserError(f"no LoRA weights at {path}; name the file")
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    if os.path.isdir(path):
        found = [name for name in PEFT_FILES if os.path.isfile(os.path.join(path, name))]
        if not found:
            raise UserError(f"{path} holds no {' or '.join(PEFT_FILES)}; name the file of the LoRA "
                            "weights")
        path = os.path.join(path, found[0])
    content = read_content(path)[0]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no LoRA weights")
    for foreign in foreign_in([content.get(key) for key in ("weights", "metadata", "lora")]):
        raise UserError(f"{path} is refused: {foreign.reason}")
    if isinstance(content.get("lora"), dict):
        lora = _of_state(path, content)
    elif isinstance(content.get("weights"), dict) and "metadata" in content:
        lora = _of_clip_lora(path, content, sizes)
    elif any("lora_A" in str(name) for name in content):
        lora = _of_peft(path, content, os.path.join(folder, PEFT_CONFIG))
    else:
        names = ", ".join(map(shown, list(content)[:5]))
        raise UserError(f"{path} holds no LoRA weights, only {names}")
    _check(path, lora, sizes)
    return lora


def _of_state(path, content):
    """Of this project's own files."""
    settings = content.get("settings", content.get("config", {}))
    settings = settings.get("lora", settings) if isinstance(settings, dict) else {}
    try:
        params, rank, alpha = (settings[key] for key in ("params", "rank", "alpha"))
        additions = {}
        for name, down in content["lora"].items():
            encoder, block, layer, key = name.split(".")
            if key != "down":
                continue
            parts = [p for p in params if p != "o"] if layer == "in_delta" else ["o"]
            up = content["lora"][name[:-len("down")] + "up"]
            for i, part in enumerate(sorted(parts, key=PARTS.index)):
                additions[encoder, int(block), part] = _pair(
                    path, down[i * rank:(i + 1) * rank], up[i], scaling(alpha, rank))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError,
            ZeroDivisionError) as error:
        raise UserError(f"{path} is damaged ({shown(error)}); train again") from error
    return Lora(additions, alpha, "this project's LoRA")


def _of_clip_lora(path, content, sizes):
    layers, said = content["weights"], content["metadata"]
    try:
        encoder, position = said["encoder"], said["position"]
        alpha, rank = float(said["alpha"]), int(said["r"])
        n_layers = {int(re.fullmatch(r"layer_(\d+)", name)[1]) for name in layers}
        if encoder not in (*ENCODERS, "both") or alpha <= 0 or rank <= 0:
            raise ValueError(encoder)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no whole file of CLIP-LoRA's ({shown(error)}): its metadata "
                        "must tell encoder, position, alpha and r") from error
    position = {"top": "top1"}.get(position, position)  # CLIP-LoRA calls the last block both ways
    places = [(each, block) for each in ENCODERS if encoder in (each, "both")
              for block in block_numbers(position, depths(sizes)[each])]
    if n_layers != set(range(len(places))):
        raise UserError(f"{path} has {len(n_layers)} layers, and its {encoder!r}, {position!r} "
                        f"means {len(places)} of this CLIP's; it belongs to another model")
    part_of = {**{name: part for part, name in NAMES.items()}, "o_proj": "o", "out_proj": "o"}
    additions = {}
    for i, place in enumerate(places):
        layer = layers[f"layer_{i}"]
        if not isinstance(layer, dict):
            raise UserError(f"{path}: layer_{i} is {shown(layer)}, not a dict of q_proj, …")
        for name, pair in layer.items():
            if name not in part_of:
                raise UserError(f"{path} adds to {shown(name)}, where LoRA here adds to "
                                f"{', '.join(NAMES.values())} alone")
            if not isinstance(pair, dict) or set(pair) != {"w_lora_A", "w_lora_B"}:
                raise UserError(f"{path}: layer_{i}.{name} has not w_lora_A and w_lora_B alone")
            additions[(*place, part_of[name])] = _pair(
                path, pair["w_lora_A"], pair["w_lora_B"], scaling(alpha, rank))
    return Lora(additions, alpha, "CLIP-LoRA's")


def _of_peft(path, state, config_path):
    try:
        config = read_json(config_path)
    except FileNotFoundError:
        raise UserError(f"{config_path} is missing, which tells the scale of {path}; put it "
                        "there") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {config_path}: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise UserError(f"{config_path} is of another kind than LoRA: its peft_type is not 'LORA'")
    for key in ("use_dora", "fan_in_fan_out", "lora_bias"):
        if config.get(key):
            raise UserError(f"{config_path} asks for {key}, which LoRA here has not; merge it with "
                            "PEFT (merge_and_unload) and give the merged weights as clip.weights")
    halves = {}
    for name, value in state.items():
        match = _PEFT_NAME.match(name)
        if not match:
            raise UserError(f"{path} has {shown(name)}, where LoRA here adds to attention's q, "
                            "k, v and out_proj alone; merge it with PEFT (merge_and_unload) and "
                            "give the merged weights as clip.weights")
        encoder, block, part, half = match.groups()
        halves.setdefault((encoder, int(block), part or "o"), {})[half] = value, name
    additions = {}
    try:
        for place, pair in halves.items():
            (down, name), (up, _) = pair["A"], pair["B"]
            module = name[:name.index(".lora_")]
            alpha = float(_of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
            rank = len(down)
            factor = scaling(alpha, rank) if config.get("use_rslora") else alpha / rank
            additions[place] = _pair(path, down, up, factor)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError,
            re.error) as error:
        raise UserError(f"{path} and {config_path} do not fit each other ({shown(error)}); get "
                        "them again") from error
    return Lora(additions, float(config["lora_alpha"]), "PEFT's")


def _of_pattern(patterns, module, otherwise):
    """PEFT's value for a module: that of the pattern which the end of its name has."""
    for pattern, value in (patterns or {}).items():
        if re.search(r"\)[*+?{]", pattern):  # repeated groups could be matched for ever
            raise ValueError(pattern)
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return otherwise


def _pair(path, down, up, factor):
    """(A, B) as float32, B times a factor, of what a file holds for them."""
    if not all(isinstance(half, np.ndarray) and half.ndim == 2 and half.dtype.kind == "f"
               for half in (down, up)):
        raise UserError(f"{path} holds {shown(down)} and {shown(up)} where LoRA has two matrices; "
                        "get it again")
    return down.astype(np.float32), up.astype(np.float32) * np.float32(factor)


def _check(path, lora, sizes):
    """Hold additions against the model's sizes."""
    if not lora.additions:
        raise UserError(f"{path} holds no additions")
    widths = {"text": sizes.text.width, "vision": getattr(sizes.vision, "width", 0)}
    n_blocks = depths(sizes)
    for (encoder, block, part), (down, up) in lora.additions.items():
        where = f"{path}: {part} of the {encoder} encoder's block {block}"
        if encoder not in n_blocks or block >= n_blocks[encoder]:
            raise UserError(f"{where} is not in this CLIP; it belongs to another model")
        W, shapes = widths[encoder], (np.shape(down), np.shape(up))
        if shapes != ((len(down), W), (W, len(down))):
            raise UserError(f"{where} has the shapes {shapes[0]} and {shapes[1]}, where this CLIP "
                            f"has {W} channels; it belongs to another model")
        if not (np.isfinite(down).all() and np.isfinite(up).all()):
            raise UserError(f"{where} has values that are not finite; get the file again")
