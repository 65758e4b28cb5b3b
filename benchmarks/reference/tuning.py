"""One training step of a learned prompt and LoRA.

CoOp (Zhou et al. 2021, arXiv 2109.01134): M token embeddings in front of each class's name.
LoRA (Hu et al. 2021, arXiv 2106.09685) on q, k and v of every block of both encoders, as in
CLIP-LoRA (Zanella and Ben Ayed 2024, arXiv 2405.18541), with PyTorch's fused attention.
"""

import open_clip
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import inputs
from benchmarks.reference.device import DEVICE, arrays, in_precision, synchronise, tensor
from benchmarks.reference.encoders import clip
from benchmarks.worker import Work

ALPHA = 1.0


class LoRAAttention(nn.Module):
    """In the place of a block's `nn.MultiheadAttention`, with additions to q, k and v.

    Args:
        attention: the frozen `nn.MultiheadAttention`.
        down: array (3, R, W).
        up: array (3, W, R).
    """

    def __init__(self, attention, down, up):
        super().__init__()
        self.attention = attention
        self.down = nn.Parameter(tensor(down))
        self.up = nn.Parameter(tensor(up))
        self.scaling = ALPHA / down.shape[1] ** 0.5

    def forward(self, x, key, value, need_weights=False, attn_mask=None):
        attention = self.attention
        qkv = F.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (part + F.linear(F.linear(x, down), up) * self.scaling
                   for part, down, up in zip(qkv, self.down, self.up))
        B, L, W = x.shape
        q, k, v = (part.view(B, L, attention.num_heads, -1).transpose(1, 2)
                   for part in (q, k, v))  # (B, L, W) -> (B, H, L, d)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=attn_mask is not None)
        mixed = mixed.transpose(1, 2).reshape(B, L, W)  # (B, H, L, d) -> (B, L, W)
        return attention.out_proj(mixed), None


def apply_lora(model, weights):
    """Put `LoRAAttention` into every block.

    Args:
        model: open_clip's CLIP, frozen.
        weights: `inputs.lora_weights`'.

    Returns:
        {'vision.0', …: layer}.
    """
    layers = {}
    for tower, transformer in (("vision", model.visual.transformer),
                               ("text", model.transformer)):
        for i, block in enumerate(transformer.resblocks):
            down, up = (part[i] for part in weights[tower])
            layers[f"{tower}.{i}"] = block.attn = LoRAAttention(block.attn, down, up)
    return layers


class PromptLearner(nn.Module):
    """CoOp's learned context, shared by all classes: '[v_1] … [v_M] name.'"""

    def __init__(self, model, names):
        super().__init__()
        words = inputs.CONTEXT_WORDS
        self.tokens = open_clip.tokenize([f"{words} {name}." for name in names]).to(DEVICE)
        M = int(open_clip.tokenize(words).argmax()) - 1
        embeddings = model.token_embedding(self.tokens)  # (C, L, W)
        self.context = nn.Parameter(embeddings[0, 1:1 + M].clone())
        self.prefix, self.suffix = embeddings[:, :1], embeddings[:, 1 + M:]

    def forward(self, model):
        """Unit-norm features (C, D) of the classes."""
        context = self.context.expand(len(self.tokens), -1, -1)  # (M, W) -> (C, M, W)
        x = torch.cat([self.prefix, context, self.suffix], dim=1) + model.positional_embedding
        x = model.transformer(x, attn_mask=model.attn_mask)
        # The end-of-text token has the highest id.
        x = model.ln_final(x[torch.arange(len(x)), self.tokens.argmax(dim=-1)])
        return F.normalize(x @ model.text_projection, dim=-1)


def training_step(sizes, folder):
    """`Work` of the pair train-step: a step on the learned, and one on handcrafted prompts."""
    model = clip(sizes["model"])
    learner = PromptLearner(model, inputs.class_names(sizes["classes"]))
    layers = apply_lora(model, inputs.lora_weights(sizes["model"], sizes["rank"]))
    batch = tensor(inputs.images(sizes["model"], sizes["batch"]))
    labels = tensor(inputs.targets(sizes["classes"], sizes["batch"]))
    drawn = open_clip.tokenize(inputs.drawn_prompts(sizes["classes"])).to(DEVICE)
    scale = float(model.logit_scale.exp())
    optimizer = torch.optim.AdamW(
        [{"params": [learner.context], "weight_decay": 0.0},
         {"params": [p for layer in layers.values() for p in (layer.down, layer.up)],
          "weight_decay": inputs.WEIGHT_DECAY}], lr=inputs.LEARNING_RATE)

    def step(encode):
        optimizer.zero_grad()
        with in_precision():
            logits = scale * model.encode_image(batch, normalize=True) @ encode().T
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        synchronise()
        return loss.item()

    def learned():
        return step(lambda: learner(model))

    def handcrafted():
        return step(lambda: model.encode_text(drawn, normalize=True))

    def result():
        loss = torch.tensor(learned())
        gradients = {name: p.grad.clone() for name, p in
                     [("context", learner.context)] +
                     [(f"{name}.{kind}", getattr(layer, kind)) for name, layer in layers.items()
                      for kind in ("down", "up")]}
        return arrays(loss=loss, second_loss=torch.tensor(handcrafted()),
                      third_loss=torch.tensor(learned()), **gradients)

    return Work(lambda: (learned(), handcrafted()), result)
