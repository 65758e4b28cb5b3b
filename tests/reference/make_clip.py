"""Makes clip.npz: what transformers' CLIP computes in PyTorch with the tests' random weights.

    pip install torch==2.13.0 transformers  (an environment of its own)
    python -m tests.reference.make_clip
"""

import os
import re

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from tests.reference.weights import TOKENS, random_images, random_state

WIDTH, EMBED_DIM, IMAGE_SIZE, PATCH_SIZE, CONTEXT_LENGTH, VOCAB_SIZE = 64, 16, 16, 8, 24, 49408
BLOCK = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
         "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


def openai_shapes():
    """{OpenAI's name: shape} of the tests' model."""
    n_patches = (IMAGE_SIZE // PATCH_SIZE) ** 2
    shapes = {"logit_scale": (), "text_projection": (WIDTH, EMBED_DIM),
              "visual.proj": (WIDTH, EMBED_DIM), "visual.class_embedding": (WIDTH,),
              "visual.conv1.weight": (WIDTH, 3, PATCH_SIZE, PATCH_SIZE),
              "visual.positional_embedding": (n_patches + 1, WIDTH),
              "positional_embedding": (CONTEXT_LENGTH, WIDTH),
              "token_embedding.weight": (VOCAB_SIZE, WIDTH)}
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        shapes.update({f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)})
    for tower in ("visual.transformer", "transformer"):
        for i in range(2):
            for name, rows, columns in (("attn.in_proj_", 3, 1), ("attn.out_proj.", 1, 1),
                                        ("mlp.c_fc.", 4, 1), ("mlp.c_proj.", 1, 4)):
                prefix = f"{tower}.resblocks.{i}.{name}"
                shapes[prefix + "weight"] = (rows * WIDTH, columns * WIDTH)
                shapes[prefix + "bias"] = (rows * WIDTH,)
            for norm in ("ln_1", "ln_2"):
                shapes[f"{tower}.resblocks.{i}.{norm}.weight"] = (WIDTH,)
                shapes[f"{tower}.resblocks.{i}.{norm}.bias"] = (WIDTH,)
    return shapes


def to_transformers(state):
    """OpenAI's names to transformers': q, k and v apart, projections transposed."""
    renamed = {
        "logit_scale": state["logit_scale"],
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
            renamed[f"{prefix}.{BLOCK[part]}.{kind}"] = value
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in renamed.items()}


def main():
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2,
             "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    model = CLIPModel(CLIPConfig(
        vision_config={**tower, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
        text_config={**tower, "vocab_size": VOCAB_SIZE, "eos_token_id": 49407,
                     "max_position_embeddings": CONTEXT_LENGTH},
        projection_dim=EMBED_DIM)).eval()
    missing, unknown = model.load_state_dict(to_transformers(random_state(openai_shapes())),
                                             strict=False)
    assert not unknown and all("position_ids" in name for name in missing), (missing, unknown)
    with torch.no_grad():
        output = model(input_ids=torch.from_numpy(np.int64(TOKENS)),
                       pixel_values=torch.from_numpy(random_images(3, IMAGE_SIZE)))
        vision = model.vision_model(torch.from_numpy(random_images(3, IMAGE_SIZE)))
        text = model.text_model(torch.from_numpy(np.int64(TOKENS)))
        np.savez(os.path.join(os.path.dirname(__file__), "clip.npz"),
                 image_features=model.visual_projection(vision.pooler_output).numpy(),
                 text_features=model.text_projection(text.pooler_output).numpy(),
                 logits_per_image=output.logits_per_image.numpy())


if __name__ == "__main__":
    main()
