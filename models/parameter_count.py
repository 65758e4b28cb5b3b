"""How many numbers the models of a run hold, part by part, counted from their arrays."""

import numpy as np

from models.lp_plus_plus import LEARNED


def parameter_counts(clip, lora, contexts, head, encoder=None, encoder_head=None):
    """The parameters of all models that judge an image.

    Args:
        clip: the original CLIP; what the tuned one has beside it is its LoRA.
        lora: {name: array}, `models.lora.lora_state`.
        contexts: array (K, M, W), the learned prompts of the queue.
        head: {name: array}, `LPPlusPlus.state`; empty without one.
        encoder: auxiliary `Encoder`, or None. encoder_head: array, its head's weight.

    Returns:
        {part: int}, the last of which is 'total'.
    """
    counts = {"CLIP": _of_module(clip), "LoRA": sum(np.size(array) for array in lora.values()),
              "learned prompts": np.size(contexts),
              "head": sum(np.size(head[name]) for name in LEARNED if name in head)}
    if encoder is not None:
        # A ResNet is its own function; of another CLIP the image encoder alone is used.
        owner = getattr(encoder.encode, "__self__", None)
        counts["auxiliary encoder"] = _of_module(encoder.encode if owner is None else owner.visual)
        counts["auxiliary head"] = np.size(encoder_head)
    return {**{part: int(n) for part, n in counts.items()}, "total": int(sum(counts.values()))}


def in_words(counts):
    """'CLIP 151,277,313 + LoRA 184,320 + … = 151,900,000'."""
    *parts, (_, total) = counts.items()
    return f"{' + '.join(f'{part} {n:,}' for part, n in parts)} = {total:,}"


def _of_module(module):
    return sum(parameter.numel() for parameter in module.parameters())
