"""Reads CLIP weights of any of the formats in use, without PyTorch.

| format | told by | activation |
| --- | --- | --- |
| OpenAI's `.pt`, a TorchScript archive | zip with a module in `data.pkl` | QuickGELU |
| PyTorch's state dict: `.pt`, `.pth`, `.bin` | zip with a dict in `data.pkl` | a config file's |
| the same of PyTorch before 1.6, such as `.pth.tar` | its magic number | a config file's |
| safetensors, names of transformers or open_clip | its header | a config file's, or our own |
| `.pkl` of jclip, Jittor, tensors | anything else | an entry's, a config file's, QuickGELU |

Where they lie is told in `models.jclip.places`: a file, a folder, or an index of several files. A
config file lies beside them: transformers' `config.json` or open_clip's `open_clip_config.json`.
Where nothing says which GELU the weights need, reading them is an
error, never a guess.

A file may leave out embedding rows of tokens that its model never saw: `token_embedding.rows`
then tells which token each row of `token_embedding.weight` is of.
"""

import json
import os
import warnings
from typing import NamedTuple, Optional

import numpy as np

from models.jclip.names import find_state, to_openai, told
from models.jclip.places import first_bytes, weights_files
from models.jclip.sizes import sizes_of
from models.jclip.weights import check_not_empty
from system.errors import UserError
from system.files import read_pickle
from system.torch_archive import (
    LEGACY_START,
    read_pickled_tensors,
    read_torch_archive,
    read_torch_legacy,
    widened,
)
from system.unpickle import Refused, foreign_in
from system.untrusted import read_json, shown

ACTIVATIONS = ("quick_gelu", "gelu")
EMBEDDING, EMBEDDING_ROWS = "token_embedding.weight", "token_embedding.rows"
_SAFETENSORS_NUMBERS = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8",
                        "BOOL"}
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
    """The weights at a path.

    Args:
        path: see `models.jclip.places.weights_files`.
        activation: 'quick_gelu' or 'gelu', for a file that nothing tells it of.

    Raises:
        UserError: no such file, a damaged or refused one, one without CLIP weights, or one
            whose activation is unknown.
    """
    if activation not in (None, *ACTIVATIONS):
        raise UserError(f"activation is {shown(activation)}; it must be one of "
                        f"{', '.join(ACTIVATIONS)}")
    state, known, kind = read_state(path)
    said, heads = _config_beside(weights_files(path)[0])
    by_default = "quick_gelu" if kind == "pickle" else None
    activation = next(each for each in (activation, known, said, by_default, False)
                      if each is not None)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UserError(
            f"{path} does not tell which GELU its model has; put the model's config.json beside "
            "it, or set clip.activation (jclip.load: activation=, convert: --activation) to "
            "quick_gelu, which OpenAI's models have, or gelu, which LAION's have")
    state = to_openai(state)
    if EMBEDDING_ROWS in state:
        _fill_embedding(path, state)
    return Weights(state, activation, heads, kind)


def sizes_of_weights(path, weights):
    """The `CLIPSizes` of `Weights` read from a path.

    Raises:
        UserError: they are no CLIP's.
    """
    check_not_empty(path, weights.state)
    try:
        return sizes_of(weights.state, weights.heads, weights.activation)
    except (KeyError, ValueError, IndexError) as error:
        names = ", ".join(map(shown, list(weights.state)[:5]))
        raise UserError(f"{path} holds no CLIP with a ViT or a ResNet ({error}); among its names "
                        f"are {names}") from error


def read_state(path):
    """The arrays of a model at a path, whatever model they are of.

    Returns:
        (state, activation, format): {name: array}, with the file's own names but for a prefix
        of all; the activation that the file itself tells, or None; what it is, for people.

    Raises:
        UserError: no such file, a damaged or refused one, or one without a dict of arrays.
    """
    merged = {}
    for file in weights_files(path):
        content, known, kind = read_content(file)
        merged = content if file == path or not isinstance(content, dict) else {**merged, **content}
    try:
        found = find_state(merged)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    what = told(merged)
    if found is None or what is not None and not found.is_model:
        raise UserError(f"{path} {_without_weights(merged, what)}")
    state = found.state
    if kind == "pickle":
        known = state.pop("activation", None)
    for name, value in state.items():
        if not hasattr(value, "dtype") or value.dtype.kind not in "fiu":
            for foreign in foreign_in(value):
                raise UserError(f"{path} is refused: {foreign.reason}, in the place of {name}")
            raise UserError(f"{path}: {name} is no array of numbers; these are no model's weights")
    _warn_of_others(path, found)
    return state, known, kind


def _without_weights(content, what):
    """What to say of a file in which no weights are found; `what` is `told`'s word."""
    if what:
        return f"is {what}"
    for foreign in foreign_in(content):
        return f"is refused: {foreign.reason}"
    if isinstance(content, dict) and content:
        keys = ", ".join(map(shown, list(content)[:8]))
        return f"holds no dict of weights, only {keys}; give CLIP's own weights"
    return "holds no dict of weights; give CLIP's own weights"


def read_content(path):
    """What a single file of weights holds.

    Returns:
        (content, activation, format): the object, with arrays for tensors; see `read_state`.

    Raises:
        UserError: no such file, or a damaged or refused one.
    """
    start = first_bytes(path)
    if start[:4] == b"PK\3\4":
        content, is_script = _guarded(path, read_torch_archive)
        return ((content, "quick_gelu", "TorchScript archive") if is_script
                else (content, None, "PyTorch state dict"))
    if start.startswith(LEGACY_START):
        return _guarded(path, read_torch_legacy), None, "PyTorch state dict"
    if start[8:9] == b"{":
        return (*_guarded(path, _read_safetensors), "safetensors")
    return read_pickle(path, read_pickled_tensors), None, "pickle"


def _warn_of_others(path, found):
    """Tell what of a checkpoint is a model's too and is not taken."""
    if found.others:
        warnings.warn(f"{path} holds several models; taken is {found.place!r}, not "
                      f"{', '.join(map(repr, found.others))}", stacklevel=3)
    if found.left_out:
        warnings.warn(f"{path}: {len(found.left_out)} entries beside the model's are left out, "
                      f"such as {shown(found.left_out[0])}", stacklevel=3)


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
        kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}
    state = {}
    for name, kind in kinds.items():  # opened for each: an open file keeps all in memory
        if kind == "BF16":
            state[name] = _read_bfloat16(path, name)
            continue
        if kind not in _SAFETENSORS_NUMBERS:
            raise Refused(f"it has {name} in {kind}; save it in float16 or float32")
        with safe_open(path, framework="numpy") as file:
            state[name] = file.get_tensor(name)
    return state, said


def _read_bfloat16(path, name):
    """A tensor of a safetensors file that NumPy has no type for, as float32.

    The file is whole, as safetensors itself has opened it.
    """
    with open(path, "rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(n_header))[name]
        start, end = entry["data_offsets"]
        file.seek(8 + n_header + start)
        return widened(np.frombuffer(file.read(end - start), "<u2")).reshape(entry["shape"])


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
