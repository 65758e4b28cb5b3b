"""LoRA: low-rank additions to the attention of a frozen CLIP.

    python -m models.lora convert IN --weights ViT-B-32.pkl [OUT]     (models/lora_convert.py)

Hu et al. 2021, arXiv 2106.09685: W x becomes W x + (α / √R) B A dropout(x), A (R, D) random,
B (D, R) zero. The factor is CLIP-LoRA's (Zanella and Ben Ayed 2024, arXiv 2405.18541), as is on
which weights of CLIP; Hu et al. have α / R, whose additions shrink as the rank grows.

Ours: q, k and v of a block share one dropout mask, which is one pass over x, not three. Training
(train.py) takes 30 epochs where CLIP-LoRA takes 500 steps a shot, rank 4 for 2, and by turns a
learned and a drawn handcrafted prompt for its one template; position names are shares of any
model's blocks.
"""

import contextlib
import copy
import functools
import math

if __name__ == "__main__":  # the command looks at files alone, which needs no Jittor
    import sys

    from models.lora_convert import main
    from system.errors import run_script

    sys.exit(run_script(main))

import jittor as jt
import numpy as np
from jittor import nn

from models.jclip.weights import check_state
from models.kernels import transposed
from models.lora_files import PARTS, block_numbers, scaling
from models.streams import streams, uniform
from system.errors import UserError

_INPUTS = PARTS[:3]  # q, k and v come from one product, o from another


class LowRank(nn.Module):
    """x (…, D) -> (α / √R) B A dropout(x), for some of the output parts of one product.

    Args:
        width: D, channels of x and of each part.
        parts: for each output part whether it gets an addition (q, k, v; or o alone).
        rank: R.
        alpha: the paper's α.
        dropout: share of the channels of x set to zero in training.
    """

    def __init__(self, width, parts, rank, alpha, dropout):
        self.width = width
        self.parts = tuple(parts)
        self.rank = rank
        self.scaling = scaling(alpha, rank)
        self.dropout = dropout
        self.streams = None  # `dropout_drawn` puts a function of a shape here
        n_active = sum(self.parts)
        bound = 1 / math.sqrt(width)  # Kaiming uniform with a = √5, as in the authors' code
        self.down = jt.array(np.random.uniform(
            -bound, bound, (n_active * rank, width)).astype(np.float32))
        self.up = jt.zeros((n_active, width, rank))

    def execute(self, x):
        if self.streams is not None and self.dropout > 0:
            numbers = uniform(self.streams(x.shape[:-1]), x.shape[-1])
            x = x * (numbers >= self.dropout) / (1 - self.dropout)
        low = nn.matmul_transpose(x, self.down)  # (…, D) -> (…, n_active * R)
        return nn.matmul_transpose(low, self._up_blocks()) * self.scaling

    def place(self, part):
        """Which of the active parts a part is, by its number; None if it gets no addition."""
        return sum(self.parts[:part]) if self.parts[part] else None

    def weight(self):
        """The addition as one weight, (n_parts * D, D)."""
        return jt.matmul(self._up_blocks(), self.down) * self.scaling

    def _up_blocks(self):
        """`up` as block rows: part i reads its own R of the low channels, or none."""
        n_active, D, R = self.up.shape
        own = np.zeros((len(self.parts), 1, n_active, 1), np.float32)
        for part, active in enumerate(self.parts):
            if active:
                own[part, 0, self.place(part)] = 1
        blocks = transposed(self.up, (1, 0, 2)).unsqueeze(0) * jt.array(own)  # (n, D, n_active, R)
        return blocks.reshape(-1, n_active * R)  # (n_parts * D, n_active * R)


def freeze(module):
    """Stop the gradient of every parameter; a frozen weight costs no backward pass."""
    for parameter in module.parameters():
        parameter.stop_grad()


def apply_lora(model, encoder="both", params=("q", "k", "v"), rank=4, alpha=1.0, dropout=0.25,
               positions="all"):
    """Freeze a CLIP and insert trainable low-rank additions, which change nothing yet.

    Args:
        model: `models.jclip.model.CLIP`.
        encoder: 'vision', 'text' or 'both'.
        params: which of q, k, v, o.
        rank: R, at least 1.
        alpha: the paper's α; the addition is scaled by α / √R.
        dropout: share in [0, 1) of the input channels dropped in training.
        positions: which blocks of each encoder: 'all', 'bottom', 'mid', 'up' (thirds),
            'half-bottom', 'half-up', 'top1', 'top2', 'top3', or a list of block numbers.

    Returns:
        list of the `LowRank` layers; `parameters(layers)` are the trainable Vars.

    Raises:
        UserError: an unknown encoder, param or position; rank or dropout out of range.
    """
    if encoder not in ("vision", "text", "both"):
        raise UserError(f"lora.encoder is {encoder!r}; it must be vision, text or both")
    if not params or not set(params) <= set(PARTS):
        raise UserError(f"lora.params is {list(params)}; it must name some of q, k, v, o")
    if rank < 1 or not 0 <= dropout < 1:
        raise UserError(f"lora.rank is {rank} and lora.dropout {dropout}; rank must be at least "
                        "1 and dropout in [0, 1)")
    freeze(model)
    layers = []
    for name in ("vision", "text") if encoder == "both" else [encoder]:
        blocks = _towers(model)[name]
        if not blocks:
            raise UserError(f"lora.encoder is {encoder!r}, but this CLIP's image encoder is a "
                            "ResNet, which LoRA does not change; set it to text")
        for i in block_numbers(positions, len(blocks)):
            attention = blocks[i].attn
            width = attention.in_proj_weight.shape[1]
            if set(params) & set(_INPUTS):
                attention.in_delta = LowRank(width, [p in params for p in _INPUTS],
                                             rank, alpha, dropout)
                layers.append(attention.in_delta)
            if "o" in params:
                attention.out_delta = LowRank(width, [True], rank, alpha, dropout)
                layers.append(attention.out_delta)
    return layers


def parameters(layers):
    """The trainable Vars of `apply_lora`'s layers."""
    return [p for layer in layers for p in (layer.down, layer.up)]


@contextlib.contextmanager
def dropout_drawn(model, seed, rows):
    """Switch the dropout of all additions on, for what is encoded inside.

    Its numbers depend on the seed, the addition and the place in the batch alone (models/
    streams.py): whoever encodes a row, alone or again, drops the same.

    Args:
        seed: list of integers, of this step and encoder.
        rows: slice, which rows of the batch are encoded.
    """
    layers = _layers(model).values()
    for i, layer in enumerate(layers):
        layer.streams = functools.partial(streams, [*seed, i], rows)
    try:
        yield
    finally:
        for layer in layers:
            layer.streams = None


def merge_lora(model):
    """Put the low-rank products into the weights and remove the additions.

    The weights are new ones: those of before may be another model's too.
    """
    for attention in (block.attn for blocks in _towers(model).values() for block in blocks):
        if attention.in_delta is not None:
            attention.in_proj_weight = attention.in_proj_weight + attention.in_delta.weight()
            attention.in_delta = None
        if attention.out_delta is not None:
            projection = attention.out_proj
            projection.weight = projection.weight + attention.out_delta.weight()
            attention.out_delta = None
    freeze(model)
    jt.sync_all()


def lora_state(model):
    """{name: float32 array} of all additions."""
    return {f"{name}.{key}": value.numpy() for name, layer in _layers(model).items()
            for key, value in (("down", layer.down), ("up", layer.up))}


def load_lora_state(model, state, path="LoRA weights"):
    """Fill the additions of `apply_lora` from `lora_state`.

    Raises:
        UserError: names or shapes differ; `path` is named in it.
    """
    variables = {f"{name}.{key}": value for name, layer in _layers(model).items()
                 for key, value in (("down", layer.down), ("up", layer.up))}
    check_state(path, state, {n: v.shape for n, v in variables.items()})
    for name, variable in variables.items():
        variable.update(jt.array(state[name]))


def load_additions(model, additions, path="LoRA weights"):
    """Let the additions of `apply_lora` be those of a file; those that it has not stay as they are.

    A rank above the file's has rows of A that are random and columns of B that are zero, as at the
    start of a training.

    Args:
        model: with additions.
        additions: `models.lora_files.Lora.additions`. path: of the file, for messages.

    Raises:
        UserError: the model has no room for one of them.
    """
    layers = _layers(model)
    for (encoder, block, part), (down, up) in additions.items():
        layer = layers.get(f"{encoder}.{block}.{'out' if part == 'o' else 'in'}_delta")
        place = None if layer is None else layer.place(0 if part == "o" else _INPUTS.index(part))
        if place is None or len(down) > layer.rank:
            raise UserError(f"{path} adds to {part} of the {encoder} encoder's block {block} with "
                            f"rank {len(down)}, for which lora.encoder, lora.params, "
                            "lora.positions and lora.rank leave no room; set them to the file's")
        rows, columns = layer.down.numpy(), layer.up.numpy()
        start = place * layer.rank
        rows[start:start + len(down)] = down
        columns[place] = 0
        columns[place, :, :len(down)] = up / layer.scaling
        layer.down.update(jt.array(rows))
        layer.up.update(jt.array(columns))


def tuned_clip(model, settings, state, path):
    """A CLIP with trained additions merged into its weights, frozen.

    Args:
        model: the original CLIP, which stays as it is; all weights without additions are shared
            with it.
        settings: the config's section `lora`.
        state: `lora_state` of the trained model.
        path: of the file that holds `state`, for messages.
    """
    tuned, _ = with_layers(model, settings)
    load_lora_state(tuned, state, path)
    merge_lora(tuned)
    return tuned


def with_additions(model, lora, path):
    """The same with the additions of a file, `models.lora_files.Lora`."""
    tuned = _sharing_weights(model)
    apply_lora(tuned, lora.encoder, lora.params, lora.rank, lora.alpha, 0.0,
               lora.positions(model.sizes))
    load_additions(tuned, lora.additions, path)
    merge_lora(tuned)
    return tuned


def with_layers(model, settings):
    """A copy of a CLIP that shares its weights, with additions: (CLIP, list of `LowRank`).

    Args:
        settings: the config's section `lora`; encoder 'none' gives none.
    """
    tuned = _sharing_weights(model)
    if settings.encoder == "none":
        return tuned, []
    return tuned, apply_lora(tuned, settings.encoder, settings.params, settings.rank,
                             settings.alpha, settings.dropout, settings.positions)


def _sharing_weights(model):
    return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})


def _towers(model):
    """{encoder: its attention blocks}; none of a ResNet."""
    vision = getattr(model.visual, "transformer", None)
    return {"vision": [] if vision is None else list(vision.resblocks),
            "text": list(model.transformer.resblocks)}


def _layers(model):
    """{name: `LowRank`}, in the order of the blocks."""
    layers = {}
    for tower, blocks in _towers(model).items():
        for i, block in enumerate(blocks):
            for part in ("in_delta", "out_delta"):
                if getattr(block.attn, part) is not None:
                    layers[f"{tower}.{i}.{part}"] = getattr(block.attn, part)
    return layers
