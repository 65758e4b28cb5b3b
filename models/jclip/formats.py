"""Reads CLIP weights of any of the formats in use, without PyTorch.

| format | told by | activation |
| --- | --- | --- |
| OpenAI's `.pt`, a TorchScript archive | zip with a module in `data.pkl` | QuickGELU |
| PyTorch's state dict: `.pt`, `.pth`, `.bin` | zip with a dict in `data.pkl` | a config file's |
| the same of PyTorch before 1.6, such as `.pth.tar` | its magic number | a config file's |
| safetensors, names of transformers or open_clip | its header | a config file's, or our own |
| jclip's and Jittor's `.pkl` | anything else | QuickGELU, or the entry 'activation' |

A config file lies beside the weights: transformers' `config.json` or open_clip's
`open_clip_config.json`. Where nothing says which GELU the weights need, reading them is an
error, never a guess.

A file may leave out embedding rows of tokens that its model never saw: `token_embedding.rows`
then tells which token each row of `token_embedding.weight` is of.
"""

import os
from typing import NamedTuple, Optional

import numpy as np

from models.errors import UserError
from models.jclip.names import parameters_of, to_openai
from models.jclip.torch_archive import LEGACY_START, read_torch_archive, read_torch_legacy
from models.jclip.unpickle import Refused
from models.jclip.weights import read_pickle
from models.untrusted import read_json, shown

ACTIVATIONS = ("quick_gelu", "gelu")
EMBEDDING, EMBEDDING_ROWS = "token_embedding.weight", "token_embedding.rows"
_MOST_TOKENS, _MOST_VALUES = 1 << 20, 1 << 28  # of an embedding: 250,002 × 1,024 is in use


class Weights(NamedTuple):
    """A CLIP's weights as a file has them.

    Attributes:
        state: {OpenAI's name: array}, of the file's number type.
        activation: 'quick_gelu' or 'gelu'.
        heads: attention heads of the image and the text encoder, or None: 64 channels each.
        format: what the file is, for people.
    """

    state: dict
    activation: str
    heads: Optional[tuple]
    format: str


def read_weights(path, activation=None):
    """The weights in a file.

    Args:
        path: a file of one of the formats above.
        activation: 'quick_gelu' or 'gelu', for a file that nothing tells it of.

    Raises:
        UserError: no such file, a damaged or refused one, one without CLIP weights, or one
            whose activation is unknown.
    """
    if activation not in (None, *ACTIVATIONS):
        raise UserError(f"activation is {activation!r}; it must be one of "
                        f"{', '.join(ACTIVATIONS)}")
    state, known, kind = read_state(path)
    said, heads = _config_beside(path)
    activation = activation or (said if known is None else known)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UserError(
            f"{path} does not tell which GELU its model has; put the model's config.json beside "
            "it, or say activation='quick_gelu' (OpenAI's) or 'gelu' (LAION's)")
    state = to_openai(state)
    if EMBEDDING_ROWS in state:
        _fill_embedding(path, state)
    return Weights(state, activation, heads, kind)


def read_state(path):
    """The arrays in a file of one of the formats above, whatever model they are of.

    Returns:
        (state, activation, format): {name: array}, with the file's own names; the activation
        that the file itself tells, or None; what it is, for people.

    Raises:
        UserError: no such file, a damaged or refused one, or one without a dict of arrays.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(LEGACY_START))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if start[:4] == b"PK\3\4":
        content, is_script = _guarded(path, read_torch_archive)
        kind = "TorchScript archive" if is_script else "PyTorch state dict"
        known = "quick_gelu" if is_script else None
    elif start == LEGACY_START:
        content, kind, known = _guarded(path, read_torch_legacy), "PyTorch state dict", None
    elif start[8:9] == b"{":
        content, known = _guarded(path, _read_safetensors)
        kind = "safetensors"
    else:
        content, kind = read_pickle(path), "pickle"
        known = content.pop("activation", "quick_gelu") if isinstance(content, dict) else None
    state = parameters_of(content)
    if not state:
        raise UserError(f"{path} holds no dict of weights")
    for name, value in state.items():
        if not hasattr(value, "dtype") or value.dtype.kind not in "fiu":
            raise UserError(f"{path}: {name} is no array of numbers; these are no model's weights")
    return state, known, kind


def _fill_embedding(path, state):
    """Put zeros where a file has no row; end-of-text, the highest token, always has one."""
    rows, packed = state.pop(EMBEDDING_ROWS), state.get(EMBEDDING)
    if (packed is None or packed.ndim != 2 or rows.dtype.kind not in "iu"
            or rows.shape != packed.shape[:1] or not len(rows)
            or not 0 <= int(rows[0]) <= int(rows[-1]) < _MOST_TOKENS
            or (int(rows[-1]) + 1) * packed.shape[1] > _MOST_VALUES
            or not (rows[1:] > rows[:-1]).all()):
        raise UserError(f"{path}: {EMBEDDING_ROWS} does not fit {EMBEDDING}: it must hold an "
                        f"ascending token below {_MOST_TOKENS} for each row; get the file again")
    state[EMBEDDING] = np.zeros((int(rows[-1]) + 1, packed.shape[1]), packed.dtype)
    state[EMBEDDING][rows] = packed


def _guarded(path, read):
    """read(path), whose failures name the file."""
    try:
        return read(path)
    except Refused as error:
        raise UserError(f"{path} is refused: {error}") from error
    except Exception as error:  # a damaged file fails in any way
        raise UserError(f"{path} is damaged or of an unknown format "
                        f"({type(error).__name__}); get it again") from error


def _read_safetensors(path):
    """({name: array}, the activation that our own files name or None)."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        said = (file.metadata() or {}).get("activation")
        names = list(file.keys())
    state = {}
    for name in names:  # opened for each: an open file keeps all that was read in memory
        with safe_open(path, framework="numpy") as file:
            state[name] = file.get_tensor(name)
    return state, said


def _config_beside(path):
    """(activation, heads) that a config file in the weights' folder tells, None where none does."""
    folder = os.path.dirname(os.path.abspath(path))
    config = _read_json(os.path.join(folder, "config.json"))
    if isinstance(config.get("vision_config"), dict) and isinstance(
            config.get("text_config"), dict):
        vision, text = config["vision_config"], config["text_config"]
        # What transformers' CLIPConfig takes where its file is silent.
        activations = [part.get("hidden_act", "quick_gelu") for part in (vision, text)]
        heads = (vision.get("num_attention_heads", 12), text.get("num_attention_heads", 8))
        if activations not in [[known, known] for known in ACTIVATIONS]:
            raise UserError(f"{folder}/config.json asks for the activations "
                            f"{shown(activations)}; known is one of "
                            f"{', '.join(ACTIVATIONS)} for both encoders")
        if not all(type(n) is int and n > 0 for n in heads):
            raise UserError(f"{folder}/config.json: num_attention_heads is {shown(heads)}; it must "
                            "be a number above 0 for both encoders")
        return activations[0], heads
    model = _read_json(os.path.join(folder, "open_clip_config.json")).get("model_cfg")
    if isinstance(model, dict):
        return ("quick_gelu" if model.get("quick_gelu") else "gelu"), None
    return None, None


def _read_json(path):
    """The object in a JSON file; an empty dict if there is no such file."""
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return content if isinstance(content, dict) else {}
