"""open_clip's encoders: images, and the zero-shot classifier of CLIP's notebook.

Radford et al. 2021, arXiv 2103.00020, section 3.1.4.
"""

import os

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from benchmarks import inputs
from benchmarks.reference.device import (
    DEVICE,
    LIBRARY,
    PRECISION,
    arrays,
    in_precision,
    synchronise,
    tensor,
)
from benchmarks.worker import Work


def clip(model, state=None):
    """open_clip's CLIP with OpenAI's activation, frozen, in inference mode.

    Args:
        model: name in `inputs.MODELS`.
        state: {OpenAI's name: float32 array}; `inputs.clip_state`'s by default.
    """
    sizes = inputs.MODELS[model]
    built = CLIP(
        sizes["embed_dim"],
        CLIPVisionCfg(sizes["layers"], sizes["width"], patch_size=sizes["patch_size"],
                      image_size=sizes["image_size"]),
        CLIPTextCfg(inputs.CONTEXT_LENGTH, width=sizes["text_width"],
                    heads=sizes["text_width"] // 64, layers=sizes["text_layers"]),
        quick_gelu=True)
    state = inputs.clip_state(model) if state is None else state
    built.load_state_dict({name: torch.from_numpy(value.reshape(()) if name == "logit_scale"
                                                  else value) for name, value in state.items()})
    return built.requires_grad_(False).eval().to(DEVICE)


@torch.inference_mode()
def zero_shot_classifier(model, prompts):
    """The mean feature of each class's prompts, class by class.

    Args:
        model: open_clip's CLIP.
        prompts: list (C) of lists of texts.

    Returns:
        tensor (C, D), unit norm.
    """
    features = []
    for texts in prompts:
        tokens = open_clip.tokenize(texts).to(DEVICE)  # (P, 77)
        mean = model.encode_text(tokens, normalize=True).mean(dim=0)  # (P, D) -> (D,)
        features.append(F.normalize(mean, dim=-1))
    return torch.stack(features)


def images(sizes, folder):
    """`Work` of the pairs image-…: features of a batch of images, by the library that is asked."""
    encode = LIBRARIES[LIBRARY](clip(sizes["model"]),
                                tensor(inputs.images(sizes["model"], sizes["batch"])), folder)
    return Work(encode, lambda: arrays(features=torch.as_tensor(encode()).float()))


def _pytorch(model, batch, folder, compiled=False):
    encode_image = torch.compile(model.encode_image) if compiled else model.encode_image

    @torch.inference_mode()
    def encode():
        with in_precision():
            features = encode_image(batch)
        synchronise()
        return features
    return encode


def _compiled(model, batch, folder):
    return _pytorch(model, batch, folder, compiled=True)


def _openvino(model, batch, folder):
    import openvino
    network = openvino.Core().compile_model(
        openvino.convert_model(model.visual, example_input=batch), "CPU",
        {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[PRECISION],
         "INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"})
    request = network.create_infer_request()
    return lambda: request.infer({0: batch.numpy()})[0].copy()


def _onnxruntime(model, batch, folder):
    import onnxruntime
    path = os.path.join(folder, "images.onnx")
    torch.backends.mha.set_fastpath_enabled(False)  # it has no name in ONNX
    torch.onnx.export(model.visual, (batch,), path, input_names=["images"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": batch.numpy()})[0]


LIBRARIES = {"pytorch": _pytorch, "torch.compile": _compiled, "openvino": _openvino,
             "onnxruntime": _onnxruntime}


def text(sizes, folder):
    """`Work` of the pair text: features of all classes."""
    model = clip(sizes["model"])
    prompts = inputs.class_prompts(sizes["classes"], sizes["prompts"])

    def run():
        features = zero_shot_classifier(model, prompts)
        synchronise()
        return features

    return Work(run, lambda: arrays(features=run()))
