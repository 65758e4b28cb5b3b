"""Random CLIP weights and inputs that tests and the reference script make alike."""

import re
import zlib

import numpy as np

_BLOCK = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
         "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


def random_state(shapes):
    """{name: float32 array}, each from its own name's seed.

    Args:
        shapes: {name: shape}. The sizes make attention and the MLPs matter.
    """
    state = {}
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        if name == "logit_scale":
            state[name] = np.full(shape, 2.5, np.float32)
        elif name.endswith("running_var"):
            state[name] = random.uniform(0.5, 1.5, shape).astype(np.float32)
        elif name.endswith("weight") and len(shape) == 1:  # of a norm
            state[name] = 1 + random.normal(0, 0.1, shape).astype(np.float32)
        else:
            if "embedding" in name:
                spread = 0.5
            elif len(shape) == 4:  # a convolution: deep stacks of them must not grow
                spread = np.sqrt(2 / np.prod(shape[1:]))
            else:
                spread = 2 / np.sqrt(shape[-1])
            state[name] = random.normal(0, spread, shape).astype(np.float32)
    return state


def clip_shapes(width=64, vocab_size=49408, embed_dim=16, image_size=16, patch_size=8,
                context_length=24, layers=2, text_width=None, text_layers=None):
    """{OpenAI's name: shape} of a CLIP; the text encoder has the image encoder's sizes unless
    it is given its own."""
    text_width, text_layers = text_width or width, text_layers or layers
    n_patches = (image_size // patch_size) ** 2
    shapes = {"logit_scale": (1,), "text_projection": (text_width, embed_dim),
              "visual.proj": (width, embed_dim), "visual.class_embedding": (width,),
              "visual.conv1.weight": (width, 3, patch_size, patch_size),
              "visual.positional_embedding": (n_patches + 1, width),
              "positional_embedding": (context_length, text_width),
              "token_embedding.weight": (vocab_size, text_width)}
    for norm, w in (("visual.ln_pre", width), ("visual.ln_post", width), ("ln_final", text_width)):
        shapes.update({f"{norm}.weight": (w,), f"{norm}.bias": (w,)})
    for tower, w, depth in (("visual.transformer", width, layers),
                            ("transformer", text_width, text_layers)):
        for i in range(depth):
            block = f"{tower}.resblocks.{i}."
            for name, rows, columns in (("attn.in_proj_", 3, 1), ("attn.out_proj.", 1, 1),
                                        ("mlp.c_fc.", 4, 1), ("mlp.c_proj.", 1, 4)):
                shapes[f"{block}{name}weight"] = (rows * w, columns * w)
                shapes[f"{block}{name}bias"] = (rows * w,)
            for norm in ("ln_1", "ln_2"):
                shapes[f"{block}{norm}.weight"] = shapes[f"{block}{norm}.bias"] = (w,)
    return shapes


def to_transformers(state):
    """A state with OpenAI's names under transformers': q, k, v apart, projections transposed."""
    renamed = {
        "logit_scale": state["logit_scale"].reshape(()),
        "text_projection.weight": state["text_projection"].T,
        "visual_projection.weight": state["visual.proj"].T,
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"]}
    for ours, theirs in (("visual.ln_pre", "vision_model.pre_layrnorm"),
                         ("visual.ln_post", "vision_model.post_layernorm"),
                         ("ln_final", "text_model.final_layer_norm")):
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    for name, value in state.items():
        match = re.match(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)$", name)
        if not match:
            continue
        vision, i, part, kind = match.groups()
        prefix = f"{'vision' if vision else 'text'}_model.encoder.layers.{i}"
        if part == "attn.in_proj":
            for letter, piece in zip("qkv", np.split(value, 3)):
                renamed[f"{prefix}.self_attn.{letter}_proj.{kind}"] = piece
        else:
            renamed[f"{prefix}.{_BLOCK[part]}.{kind}"] = value
    return {name: np.ascontiguousarray(value) for name, value in renamed.items()}


def random_images(n_images, size):
    """Preprocessed images, float32 (n_images, 3, size, size)."""
    return np.random.RandomState(7).normal(size=(n_images, 3, size, size)).astype(np.float32)


# "a cat", "a photo of a small brown dog.", "two birds" in OpenAI's tokens
TOKENS = np.zeros((3, 24), np.int32)
for row, ids in zip(TOKENS, ([320, 2368], [320, 1125, 539, 320, 2442, 2866, 1929, 269],
                             [1237, 4337])):
    row[:len(ids) + 2] = [49406, *ids, 49407]
