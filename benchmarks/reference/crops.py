"""torchvision's RandomResizedCrop, flip, ToTensor and Normalize, in a DataLoader's processes."""

import os

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from benchmarks.worker import Work


class Views(Dataset):
    """The views of each image: the whole one first if asked for, then random crops.

    Args:
        paths: image files.
        boxes: int array (N, V, 5): left, top, width, height and flip of each crop, in the place
            of the random ones, so that both sides cut the same.
        side: of the views, pixels.
        whole_first: view 0 is the whole image, its shorter side resized, its centre cut out.
    """

    def __init__(self, paths, boxes, side, whole_first):
        self.paths = paths
        self.boxes = boxes
        self.side = side
        self.whole_first = whole_first

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        """float32 tensor (V, 3, S, S)."""
        with Image.open(self.paths[i]) as file:
            image = file.convert("RGB")
        views, size, bicubic = [], [self.side, self.side], InterpolationMode.BICUBIC
        if self.whole_first:
            views.append(F.center_crop(F.resize(image, self.side, bicubic), size))
        for left, top, width, height, flip in self.boxes[i].tolist():
            crop = F.resized_crop(image, top, left, height, width, size, bicubic)
            views.append(F.hflip(crop) if flip else crop)
        return torch.stack([F.normalize(F.to_tensor(view), OPENAI_DATASET_MEAN,
                                        OPENAI_DATASET_STD) for view in views])


def loader(views, n_workers):
    """An image's views at a time, read ahead by processes that stay between two passes."""
    return DataLoader(views, batch_size=None, num_workers=n_workers,
                      persistent_workers=n_workers > 0)


def crops(sizes, folder):
    """`Work` of the pair crops: all views of some photos."""
    boxes = np.load(os.path.join(folder, "boxes.npy"))
    paths = [os.path.join(folder, f"{i}.jpg") for i in range(sizes["images"])]
    views = Views(paths, boxes, sizes["side"], whole_first=False)
    batches = loader(views, int(os.environ["OMP_NUM_THREADS"]))

    def run():
        for _ in batches:
            pass

    def result():
        std = np.float32(OPENAI_DATASET_STD).reshape(3, 1, 1)
        return {"pixels": views[0].numpy() * std * 255}  # without the mean, in grey levels

    return Work(run, result)
