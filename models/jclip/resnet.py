"""CLIP's ResNet image encoders (Radford et al. 2021, section 2.4), with OpenAI's names.

A ResNet with three stem convolutions, average pooling before each strided convolution, and
attention pooling at the end. Batch norms use their stored statistics: the encoder is frozen.
"""

import jittor as jt
from jittor import nn

from models.jclip.attention import AttentionMix
from models.jclip.sizes import HEAD_WIDTH
from models.kernels import transposed


class FrozenBatchNorm(nn.Module):
    """Batch norm over (B, C, H, W) with stored mean and variance."""

    def __init__(self, channels):
        self.weight = jt.ones((channels,))
        self.bias = jt.zeros((channels,))
        self.running_mean = jt.zeros((channels,))
        self.running_var = jt.ones((channels,))

    def execute(self, x):
        scale = self.weight / jt.sqrt(self.running_var + 1e-5)
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Downsample(nn.Module):
    """The shortcut of a block that changes size; parameters '0' and '1' as in OpenAI's."""

    def __init__(self, n_in, n_out, stride):
        self.stride = stride
        setattr(self, "0", nn.Conv2d(n_in, n_out, 1, bias=False))
        setattr(self, "1", FrozenBatchNorm(n_out))

    def execute(self, x):
        return getattr(self, "1")(getattr(self, "0")(pooled(x, self.stride)))


class Bottleneck(nn.Module):
    """1×1, 3×3, pooling, 1×1 to four times the channels, and a shortcut."""

    def __init__(self, n_in, planes, stride):
        self.stride = stride
        self.conv1 = nn.Conv2d(n_in, planes, 1, bias=False)
        self.bn1 = FrozenBatchNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * planes)
        changes = stride > 1 or n_in != 4 * planes
        self.downsample = Downsample(n_in, 4 * planes, stride) if changes else None

    def execute(self, x):
        y = nn.relu(self.bn1(self.conv1(x)))
        y = pooled(nn.relu(self.bn2(self.conv2(y))), self.stride)
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """Attention from the mean of all places to the places and itself: (B, C, H, W) -> (B, D)."""

    def __init__(self, n_places, width, embed_dim):
        self.heads = width // HEAD_WIDTH
        self.positional_embedding = jt.zeros((n_places + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def execute(self, x):
        B, C = x.shape[:2]
        x = transposed(x.reshape(B, C, -1), (0, 2, 1))  # (B, C, H, W) -> (B, L, C)
        x = jt.concat([x.mean(dim=1, keepdims=True), x], dim=1) + self.positional_embedding

        def by_head(y):  # (B, L, C) -> (B*heads, L, d)
            y = transposed(y.reshape(B, y.shape[1], self.heads, -1), (0, 2, 1, 3))
            return y.reshape(B * self.heads, y.shape[2], -1)

        mixed = AttentionMix.apply(by_head(self.q_proj(x[:, :1])), by_head(self.k_proj(x)),
                                   by_head(self.v_proj(x)), None)
        return self.c_proj(mixed.reshape(B, C))  # (B*heads, 1, d) -> (B, C) -> (B, D)


class ModifiedResNet(nn.Module):
    """Image encoder: (B, 3, S, S) -> (B, D).

    Args:
        width: channels after the stem.
        layers: blocks of the four stages.
        image_size: S, a multiple of 32.
        embed_dim: D.
    """

    def __init__(self, width, layers, image_size, embed_dim):
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = FrozenBatchNorm(width)
        n_in = width
        for stage, n_blocks in enumerate(layers):
            planes = width * 2 ** stage
            blocks = [Bottleneck(n_in if i == 0 else 4 * planes, planes,
                                 2 if stage and i == 0 else 1) for i in range(n_blocks)]
            setattr(self, f"layer{stage + 1}", nn.ModuleList(blocks))
            n_in = 4 * planes
        self.attnpool = AttentionPool((image_size // 32) ** 2, n_in, embed_dim)

    def execute(self, images):
        x = nn.relu(self.bn1(self.conv1(images)))
        x = nn.relu(self.bn2(self.conv2(x)))
        x = pooled(nn.relu(self.bn3(self.conv3(x))), 2)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x)
        return self.attnpool(x)


def pooled(x, size):
    """Means of size × size squares: (B, C, H, W) -> (B, C, H / size, W / size)."""
    if size == 1:
        return x
    B, C, H, W = x.shape
    x = x[:, :, :H // size * size, :W // size * size]
    return x.reshape(B, C, H // size, size, W // size, size).mean(dims=[3, 5])
