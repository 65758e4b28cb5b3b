"""Brings the parameter names of other CLIP libraries to OpenAI's.

OpenAI's are what jclip and `models.jclip.model` use. open_clip has the same ones (with
`text.` before the text encoder's in its newer models); transformers' CLIPModel has q, k and v
apart and its projections transposed.
"""

import re

import numpy as np

# Entries of archives that models do not need: OpenAI's three, masks, positions, counters.
_NOT_PARAMETERS = re.compile(
    r"(input_resolution|context_length|vocab_size|(.*\.)?(attn_mask|position_ids|num_batches_tracked))$")
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


def parameters_of(content):
    """The state dict in what a checkpoint holds.

    Args:
        content: dict of arrays, or one that holds it under 'state_dict' or 'model'; names may
            begin with 'module.'.

    Returns:
        {name: array}, without entries that are no parameters; None if there is no such dict.
    """
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        return None
    prefix = "module." if content and all(n.startswith("module.") for n in content) else ""
    return {name[len(prefix):]: value for name, value in content.items()
            if not _NOT_PARAMETERS.match(name[len(prefix):])}


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
