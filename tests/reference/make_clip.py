"""Makes the references: what transformers' CLIP computes in PyTorch with random weights of
tests/reference/weights.py (clip_quick_gelu.npz, clip_gelu.npz), open_clip's ResNet
(resnet.npz), and small files that PyTorch itself wrote (script.pt, state.pth, bfloat16.pth,
legacy.pth in its format before 1.6, checkpoint.pth.tar with all that one may hold beside the
weights, and tensors.pkl, tensors in a plain pickle).

    pip install torch==2.13.0 transformers open_clip_torch  (an environment of its own)
    python -m tests.reference.make_clip
"""

import argparse
import importlib
import os
import pathlib
import sys
import types
from unittest import mock

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from system.files import write_pickle
from tests.reference.weights import (
    TOKENS,
    clip_shapes,
    random_images,
    random_state,
    to_transformers,
)

HERE = os.path.dirname(os.path.abspath(__file__))

def main():
    write_resnet_features()
    write_features("quick_gelu")
    write_features("gelu")
    state = {n: torch.from_numpy(v).half() for n, v in random_state(
        clip_shapes(width=16, vocab_size=20)).items()}
    checkpoint = {"state_dict": {f"module.{n}": v for n, v in state.items()}, "epoch": 3}
    torch.save(checkpoint, os.path.join(HERE, "state.pth"))
    torch.save(checkpoint, os.path.join(HERE, "legacy.pth"),
               _use_new_zipfile_serialization=False)
    torch.save({n: v.bfloat16() for n, v in state.items()}, os.path.join(HERE, "bfloat16.pth"))
    torch.save({**checkpoint, **beside_weights()}, os.path.join(HERE, "checkpoint.pth.tar"),
               _use_new_zipfile_serialization=False)
    write_pickle(os.path.join(HERE, "tensors.pkl"), as_people_have_them(state))
    tree = Tree(state)
    tree.register_buffer("input_resolution", torch.tensor(16))
    torch.jit.save(torch.jit.trace(tree, torch.zeros(1)), os.path.join(HERE, "script.pt"))


def beside_weights():
    """What a training may leave in a checkpoint, in classes that no reader of weights knows."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {"args": argparse.Namespace(arch="ViT", place=pathlib.PurePosixPath("/data")),
            "optimizer": optimizer.state_dict(), "dtype": torch.float16, "size": torch.Size([2]),
            "scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
            "layer": torch.nn.Linear(2, 2), "complex": torch.ones(2, dtype=torch.complex64),
            "sparse": torch.eye(2).to_sparse(), "kept": {1, 2}}


def as_people_have_them(state):
    """The same tensors as views of larger ones, turned, sharing memory, and as parameters."""
    odd = dict(state)
    wide = torch.stack([state["visual.proj"], -state["visual.proj"]], dim=2)
    odd["visual.proj"] = wide[:, :, 0]  # every second value of its storage
    odd["text_projection"] = state["text_projection"].T.contiguous().T
    both = torch.cat([state["ln_final.weight"], state["ln_final.bias"]])
    odd["ln_final.weight"], odd["ln_final.bias"] = both[:16], both[16:]
    odd["visual.conv1.weight"] = torch.nn.Parameter(state["visual.conv1.weight"])
    odd["positional_embedding"] = state["positional_embedding"].bfloat16()
    odd["token_embedding.weight"].told_by = "a user"  # attributes of a tensor are kept by PyTorch
    return odd


class Tree(torch.nn.Module):
    """Modules in each other that hold the parameters of a state dict under their names."""

    def __init__(self, state):
        super().__init__()
        for name in state:
            head, _, rest = name.partition(".")
            if not rest:
                self.register_parameter(head, torch.nn.Parameter(state[name]))
            elif not hasattr(self, head):
                self.add_module(head, Tree({n.partition(".")[2]: v for n, v in state.items()
                                            if n.startswith(head + ".")}))

    def forward(self, x):
        return x + 1


def open_clip_resnet(**sizes):
    """open_clip's ModifiedResNet and its {OpenAI's name: shape}.

    open_clip asks for torchvision, of which the ResNet needs nothing.
    """
    for name in ("torchvision", "torchvision.ops", "torchvision.ops.misc",
                 "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules[name] = mock.MagicMock()
    spec = importlib.util.find_spec("open_clip")
    package = types.ModuleType("open_clip")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["open_clip"] = package
    module = importlib.import_module("open_clip.modified_resnet")
    model = module.ModifiedResNet(**sizes).eval()
    return model, {f"visual.{n}": tuple(v.shape) for n, v in model.state_dict().items()
                   if not n.endswith("num_batches_tracked")}


def write_resnet_features():
    model, shapes = open_clip_resnet(layers=(1, 2, 1, 1), output_dim=16, heads=4, image_size=64,
                                     width=8)
    model.load_state_dict({n[len("visual."):]: torch.from_numpy(v)
                           for n, v in random_state(shapes).items()}, strict=False)
    with torch.no_grad():
        np.savez(os.path.join(HERE, "resnet.npz"),
                 image_features=model(torch.from_numpy(random_images(3, 64))).numpy())


def write_features(activation):
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
             "num_attention_heads": 1, "hidden_act": activation}
    model = CLIPModel(CLIPConfig(
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        text_config={**tower, "vocab_size": 49408, "eos_token_id": 49407,
                     "max_position_embeddings": 24}, projection_dim=16)).eval()
    state = to_transformers(random_state(clip_shapes()))
    missing, unknown = model.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()},
                                             strict=False)
    assert not unknown and all("position_ids" in name for name in missing), (missing, unknown)
    images, tokens = torch.from_numpy(random_images(3, 16)), torch.from_numpy(np.int64(TOKENS))
    with torch.no_grad():
        vision, text = model.vision_model(images), model.text_model(tokens)
        np.savez(os.path.join(HERE, f"clip_{activation}.npz"),
                 image_features=model.visual_projection(vision.pooler_output).numpy(),
                 text_features=model.text_projection(text.pooler_output).numpy(),
                 logits_per_image=model(input_ids=tokens, pixel_values=images)
                 .logits_per_image.numpy())


if __name__ == "__main__":
    main()
