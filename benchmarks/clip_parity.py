"""Features of full-size CLIPs with random weights: ours against transformers' and open_clip's.

In an environment with torch==2.13.0, transformers and open_clip_torch:
    python -m benchmarks.clip_parity reference FOLDER
In the project's own:
    python -m benchmarks.clip_parity compare FOLDER
"""

import os
import sys

import numpy as np

from tests.reference.weights import TOKENS, clip_shapes, random_images, random_state

TEXT = {"text_width": 512, "text_layers": 12, "embed_dim": 512}
VITS = {
    "ViT-B/32": dict(width=768, layers=12, patch_size=32, image_size=224, **TEXT),
    "ViT-B/16": dict(width=768, layers=12, patch_size=16, image_size=224, **TEXT),
    "ViT-L/14": dict(width=1024, layers=24, patch_size=14, image_size=224, text_width=768,
                     text_layers=12, embed_dim=768),
}
RN50 = {"layers": (3, 4, 6, 3), "output_dim": 1024, "heads": 32, "image_size": 224, "width": 64}


def reference(folder):
    import torch
    from transformers import CLIPConfig, CLIPModel

    from tests.reference.make_clip import open_clip_resnet
    from tests.reference.weights import to_transformers

    for name, sizes in VITS.items():
        def tower(width, layers):
            return {"hidden_size": width, "intermediate_size": 4 * width, "hidden_act":
                    "quick_gelu", "num_hidden_layers": layers, "num_attention_heads": width // 64}
        model = CLIPModel(CLIPConfig(
            vision_config={**tower(sizes["width"], sizes["layers"]),
                           "image_size": sizes["image_size"], "patch_size": sizes["patch_size"]},
            text_config={**tower(sizes["text_width"], sizes["text_layers"]),
                         "vocab_size": 49408, "eos_token_id": 49407},
            projection_dim=sizes["embed_dim"])).eval()
        state = to_transformers(random_state(clip_shapes(context_length=77, **sizes)))
        model.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()}, strict=False)
        with torch.no_grad():
            vision = model.vision_model(torch.from_numpy(random_images(2, 224)))
            text = model.text_model(torch.from_numpy(np.int64(TOKENS)))
            write(folder, name, image=model.visual_projection(vision.pooler_output).numpy(),
                  text=model.text_projection(text.pooler_output).numpy())
    model, shapes = open_clip_resnet(**RN50)
    state = random_state(shapes)
    model.load_state_dict({n[len("visual."):]: torch.from_numpy(v) for n, v in state.items()},
                          strict=False)
    with torch.no_grad():
        write(folder, "RN50", image=model(torch.from_numpy(random_images(2, 224))).numpy())


def compare(folder):
    from system import runtime
    runtime.prepare()
    import jittor as jt

    from models.jclip.model import CLIP
    from models.jclip.resnet import ModifiedResNet
    from models.jclip.sizes import sizes_of

    for name, sizes in VITS.items():
        state = random_state(clip_shapes(context_length=77, **sizes))
        model = CLIP(sizes_of(state))
        model.load_state_dict(state)
        with jt.no_grad():
            show(folder, name, image=model.encode_image(jt.array(random_images(2, 224))).numpy(),
                 text=model.encode_text(TOKENS).numpy())
    model = ModifiedResNet(RN50["width"], RN50["layers"], RN50["image_size"], RN50["output_dim"])
    names = [n for n, _ in model.named_parameters()]
    state = random_state({f"visual.{n}": tuple(p.shape) for n, p in model.named_parameters()})
    model.load_state_dict({n: state[f"visual.{n}"] for n in names})
    with jt.no_grad():
        show(folder, "RN50", image=model(jt.array(random_images(2, 224))).numpy())


def path_of(folder, name):
    return os.path.join(folder, name.replace("/", "-") + ".npz")


def write(folder, name, **features):
    os.makedirs(folder, exist_ok=True)
    np.savez(path_of(folder, name), **features)
    print(name, {kind: array.shape for kind, array in features.items()}, flush=True)


def show(folder, name, **features):
    expected = np.load(path_of(folder, name))
    for kind, ours in features.items():
        error = np.abs(ours - expected[kind]).max() / np.abs(expected[kind]).max()
        print(f"{name} {kind}: largest difference {error:.1e} of the largest value", flush=True)


if __name__ == "__main__":
    {"reference": reference, "compare": compare}[sys.argv[1]](sys.argv[2])
