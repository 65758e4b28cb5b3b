"""ResNets with bottleneck blocks as torchvision has them (He et al. 2015, arXiv 1512.03385).

MoCo v3's ResNet-50 (Chen et al. 2021, arXiv 2104.02057) is one. The stride is in a block's 3×3
convolution; the features are the last maps' means. Batch norms use their stored statistics: the
encoder is frozen. (CLIP's own ResNets, `models.jclip.resnet`, are others.)
"""

from typing import NamedTuple

from jittor import nn

from models.jclip.resnet import FrozenBatchNorm

N_STAGES = 4


class StageSizes(NamedTuple):
    """Blocks of a stage, channels within them and after them."""

    blocks: int
    width: int
    n_out: int


class ResNetSizes(NamedTuple):
    """Everything that decides the shapes of a ResNet's weights: the stem's channels, the stages."""

    stem: int
    stages: tuple

    def bytes_per_image(self, image_size):
        """Memory that an image (3, S, S) of a batch takes at most: a block's four maps at once."""
        maps = [self.stem / 4, *(stage.n_out / 16 / 4 ** i for i, stage in enumerate(self.stages))]
        return int(4 * image_size ** 2 * (3 + 4 * max(maps)))


def sizes_of(state):
    """The `ResNetSizes` of a state dict with torchvision's names.

    Args:
        state: {name: array}.

    Raises:
        KeyError: a name that every such ResNet has is missing.
    """
    def stage(number):
        prefix = f"layer{number}."
        n_blocks = len({name.split(".")[1] for name in state if name.startswith(prefix)})
        n_out, width = state[f"{prefix}0.conv3.weight"].shape[:2]
        return StageSizes(n_blocks, width, n_out)

    return ResNetSizes(state["conv1.weight"].shape[0],
                       tuple(stage(number) for number in range(1, N_STAGES + 1)))


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1, and a shortcut, which a stage's first block projects."""

    def __init__(self, n_in, width, n_out, stride, projects):
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, n_out, 1, bias=False)
        self.bn3 = FrozenBatchNorm(n_out)
        self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False),
                                        FrozenBatchNorm(n_out)) if projects else None

    def execute(self, x):
        y = nn.relu(self.bn1(self.conv1(x)))
        y = nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return nn.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Image encoder: (B, 3, S, S) -> (B, D), for any S."""

    def __init__(self, sizes):
        self.conv1 = nn.Conv2d(3, sizes.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(sizes.stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        n_in = sizes.stem
        for number, stage in enumerate(sizes.stages, start=1):
            blocks = [Bottleneck(n_in if i == 0 else stage.n_out, stage.width, stage.n_out,
                                 2 if number > 1 and i == 0 else 1, projects=i == 0)
                      for i in range(stage.blocks)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            n_in = stage.n_out

    def execute(self, images):
        x = self.maxpool(nn.relu(self.bn1(self.conv1(images))))
        for number in range(1, N_STAGES + 1):
            x = getattr(self, f"layer{number}")(x)
        return x.mean(dims=[2, 3])  # (B, D, H, W) -> (B, D)
