"""Writes LoRA weights in this project's form, CLIP-LoRA's or PEFT's.

    python -m models.lora convert IN --weights ViT-B-32.pkl [OUT.pkl|OUT.pt|FOLDER]

The forms are told in `models.lora_files`, which reads them.
"""

import json
import os

import numpy as np

from configs.command_line import Parser
from models.jclip.formats import read_weights, sizes_of_weights
from models.lora_files import (
    NAMES,
    PEFT_CONFIG,
    PEFT_FILES,
    block_numbers,
    depths,
    read_lora,
    scaling,
)
from system.errors import UserError
from system.files import write_atomically, write_pickle
from system.places import home
from system.torch_writer import torch_archive

# What CLIP-LoRA calls the positions that it has in both encoders.
_OF_CLIP_LORA = ("all", "bottom", "mid", "up", "half-bottom", "half-up", "top3")


def padded(lora, sizes, positions):
    """{(encoder, block): {part: (A (R, W), B (W, R))}} with zeros where `lora` has nothing.

    All have the same rank and the same parts then, which CLIP-LoRA's and our own form ask for.
    """
    found = {}
    for encoder, n_blocks in depths(sizes).items():
        if lora.encoder not in (encoder, "both"):
            continue
        width = sizes.text.width if encoder == "text" else sizes.vision.width
        for block in block_numbers(positions, n_blocks):
            found[encoder, block] = {}
            for part in lora.params:
                down, up = (np.zeros((lora.rank, width), np.float32),
                            np.zeros((width, lora.rank), np.float32))
                if (encoder, block, part) in lora.additions:
                    a, b = lora.additions[encoder, block, part]
                    down[:len(a)], up[:, :len(a)] = a, b
                found[encoder, block][part] = down, up
    return found


def to_state(lora, sizes):
    """`models.lora.lora_state` of the model that `apply_lora` makes with `Lora.settings`."""
    state, factor = {}, np.float32(scaling(lora.alpha, lora.rank))
    for (encoder, block), parts in padded(lora, sizes, lora.positions(sizes)).items():
        for layer, members in (("in_delta", "qkv"), ("out_delta", "o")):
            pairs = [parts[part] for part in members if part in parts]
            if pairs:
                name = f"{encoder}.{block}.{layer}"
                state[f"{name}.down"] = np.concatenate([down for down, _ in pairs])
                state[f"{name}.up"] = np.stack([up for _, up in pairs]) / factor
    return state


def to_clip_lora(lora, sizes):
    """The structure that CLIP-LoRA saves."""
    position = lora.positions(sizes)
    if position not in _OF_CLIP_LORA:  # it has no lists: the other blocks get zeros
        position = "all"
    factor = np.float32(scaling(lora.alpha, lora.rank))
    layers = {f"layer_{i}": {NAMES[part]: {"w_lora_A": down, "w_lora_B": up / factor}
                             for part, (down, up) in parts.items()}
              for i, parts in enumerate(padded(lora, sizes, position).values())}
    return {"weights": layers, "metadata": {
        "r": lora.rank, "alpha": lora.alpha, "encoder": lora.encoder, "params": lora.params,
        "position": position}}


def to_peft(lora):
    """(state, config) of PEFT's adapter for transformers' CLIPModel."""
    state, modules = {}, []
    for (encoder, block, part), (down, up) in lora.additions.items():
        name = f"{encoder}_model.encoder.layers.{block}.self_attn." + (
            "out_proj" if part == "o" else f"{part}_proj")
        modules.append(name)
        rank = len(down)  # of which each may have its own; the config has one
        full = np.zeros((lora.rank, down.shape[1]), np.float32)
        wide = np.zeros((len(up), lora.rank), np.float32)
        full[:rank], wide[:, :rank] = down, up
        state[f"base_model.model.{name}.lora_A.weight"] = full
        state[f"base_model.model.{name}.lora_B.weight"] = wide
    return state, {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None,
        "inference_mode": True, "r": lora.rank, "lora_alpha": lora.rank, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": False, "target_modules": modules}


def convert(path, weights_path, output):
    """Write the LoRA of a file in another form, which the ending of `output` tells.

    Args:
        path: see `read_lora`. weights_path: of the CLIP that it belongs to.
        output: '.pkl' for this project's, '.pt' for CLIP-LoRA's, a folder for PEFT's.

    Returns:
        text that tells what was written.
    """
    sizes = sizes_of_weights(weights_path, read_weights(weights_path, "quick_gelu"))
    lora = read_lora(path, sizes)
    settings = lora.settings(sizes)
    ending = os.path.splitext(output)[1]
    if ending == ".pkl":
        write_pickle(output, {"lora": to_state(lora, sizes), "settings": settings})
    elif ending == ".pt":
        write_atomically(output, torch_archive(to_clip_lora(lora, sizes)))
    elif not ending or os.path.isdir(output):
        from safetensors.numpy import save
        state, config = to_peft(lora)
        write_atomically(os.path.join(output, PEFT_FILES[0]), save(state))
        write_atomically(os.path.join(output, PEFT_CONFIG),
                         (json.dumps(config, indent=2) + "\n").encode())
    else:
        raise UserError(f"{output} must end in .pkl (this project's) or .pt (CLIP-LoRA's), or be a "
                        "folder (PEFT's)")
    of_all = ", ".join(f"lora.{key}={value}".replace(" ", "").replace("'", "")
                       for key, value in settings.items())
    return f"{output}: {lora.format} {path}, with {of_all}"


def main():
    """`python -m models.lora`."""
    parser = Parser("Writes LoRA weights in another form.", prog="python -m models.lora")
    parser.add_argument("command", choices=["convert"])
    parser.add_argument("path", metavar="IN", help="CLIP-LoRA's .pt or .pkl, PEFT's folder, or "
                        "this project's prompt_lora.pkl")
    parser.add_argument("output", metavar="OUT", nargs="?", default="lora.pkl",
                        help="what to write: .pkl is this project's form, .pt CLIP-LoRA's, a "
                        "folder PEFT's")
    parser.add_argument("--weights", type=home, required=True,
                        help="of the CLIP that it belongs to")
    arguments = parser.read()  # OUT may stand behind --weights
    print(convert(arguments.path, arguments.weights, arguments.output))
