"""The sizes of a CLIP, read from its weights; needs no Jittor."""

import math
from typing import NamedTuple

from system.runtime import gpu_is_used

# OpenAI's models all have 64 channels a head; weights do not tell the number of heads.
HEAD_WIDTH = 64


class TowerSizes(NamedTuple):
    """One transformer: channels, blocks, attention heads."""

    width: int
    layers: int
    heads: int


class ResNetSizes(NamedTuple):
    """A ResNet image encoder: channels after the stem, blocks of its four stages."""

    width: int
    layers: tuple


class CLIPSizes(NamedTuple):
    """Everything that decides the shapes of a CLIP's weights.

    `vision` is `TowerSizes` or `ResNetSizes`; a ResNet has no patches (`patch_size` 0).
    """

    vision: tuple
    image_size: int
    patch_size: int
    text: TowerSizes
    context_length: int
    vocab_size: int
    embed_dim: int
    activation: str = "quick_gelu"

    @property
    def bytes_per_image(self):
        """Memory that the image encoder takes at most for an image of a batch, without gradients.

        In a ViT's block x, its norm, q, k and v, their mix and the 4-fold hidden layer before and
        after its activation live at once; in a ResNet the stem's maps of half the image's side.
        """
        pixels = self.image_size ** 2
        if isinstance(self.vision, ResNetSizes):
            values = 3 * pixels + 8 * self.vision.width * pixels // 4
        else:
            n_tokens = 1 + pixels // self.patch_size ** 2
            values = 3 * pixels + 16 * n_tokens * self.vision.width + 2 * self._attention_shares
        return 4 * values

    @property
    def _attention_shares(self):
        """Of an image in a block; the CPU's kernels keep those of one head a thread."""
        n_tokens = 1 + (self.image_size // self.patch_size) ** 2
        return self.vision.heads * n_tokens ** 2 if gpu_is_used() else 0

    def bytes_to_train(self, n_images, n_text_tokens):
        """Memory that a step of LoRA's training takes at most for its images and texts.

        Of a token each block of a transformer leaves for the gradient at most 13 times its
        width (measured: 11, in bfloat16 9); a ResNet has no LoRA, and so no gradient.

        Args:
            n_images: images of the batch.
            n_text_tokens: texts times their tokens.
        """
        values = n_text_tokens * self.text.layers * self.text.width
        if not isinstance(self.vision, ResNetSizes):
            n_tokens = 1 + (self.image_size // self.patch_size) ** 2
            values += n_images * n_tokens * self.vision.layers * self.vision.width
            values += n_images * self.vision.layers * self._attention_shares // 13
        return n_images * self.bytes_per_image + 4 * 13 * values


def sizes_of(state, heads=None, activation="quick_gelu"):
    """The `CLIPSizes` of a state dict with OpenAI's names.

    Args:
        state: {name: array}.
        heads: attention heads of the image and the text encoder; by default 64 channels each.
        activation: 'quick_gelu' or 'gelu'.

    Raises:
        KeyError: a name that every CLIP has is missing.
        ValueError: an array has too few axes, or a block between others is missing.
    """
    def depth(prefix):
        names = [n[len(prefix):] for n in state if n.startswith(prefix)]
        blocks = {int(n.split(".")[0]) for n in names}
        if blocks != set(range(len(blocks))):
            raise ValueError(f"the blocks of {prefix} are not numbered 0 to {len(blocks) - 1}")
        return len(blocks)

    def tower(width, prefix, n_heads):
        n_heads = n_heads or max(1, width // HEAD_WIDTH)
        if width % n_heads:
            raise ValueError(f"{width} channels do not go into {n_heads} heads; a config.json "
                             "beside it tells its num_attention_heads")
        return TowerSizes(width, depth(prefix), n_heads)

    vision_heads, text_heads = heads or (None, None)
    if "visual.attnpool.positional_embedding" in state:
        places = state["visual.attnpool.positional_embedding"].shape[0] - 1
        vision = ResNetSizes(state["visual.layer1.0.conv1.weight"].shape[0],
                             tuple(depth(f"visual.layer{stage}.") for stage in range(1, 5)))
        image_size, patch_size = 32 * math.isqrt(places), 0
    else:
        width, _, patch_size, _ = state["visual.conv1.weight"].shape
        grid = math.isqrt(state["visual.positional_embedding"].shape[0] - 1)
        vision = tower(width, "visual.transformer.resblocks.", vision_heads)
        image_size = grid * patch_size
    vocab_size, text_width = state["token_embedding.weight"].shape
    return CLIPSizes(
        vision=vision, image_size=image_size, patch_size=patch_size,
        text=tower(text_width, "transformer.resblocks.", text_heads),
        context_length=state["positional_embedding"].shape[0], vocab_size=vocab_size,
        embed_dim=state["text_projection"].shape[1], activation=activation)
