"""open_clip's encoders: images, and the zero-shot classifier of CLIP's notebook.

Radford et al. 2021, arXiv 2103.00020, section 3.1.4.
"""

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

from benchmarks import inputs
from benchmarks.reference.device import DEVICE, arrays, synchronise, tensor
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
    """`Work` of the pairs image-…: features of a batch of images."""
    model = clip(sizes["model"])
    batch = tensor(inputs.images(sizes["model"], sizes["batch"]))

    @torch.inference_mode()
    def run():
        features = model.encode_image(batch)
        synchronise()
        return features

    return Work(run, lambda: arrays(features=run()))


def text(sizes, folder):
    """`Work` of the pair text: features of all classes."""
    model = clip(sizes["model"])
    prompts = inputs.class_prompts(sizes["classes"], sizes["prompts"])

    def run():
        features = zero_shot_classifier(model, prompts)
        synchronise()
        return features

    return Work(run, lambda: arrays(features=run()))
