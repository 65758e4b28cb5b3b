"""PyTorch's side of benchmarks/run.py, which starts it: python -m benchmarks.reference."""

import os

from benchmarks.worker import serve, take_stdout

if __name__ == "__main__":
    answers = take_stdout()  # before anything is imported that may print

import numpy as np
import open_clip
import torch
import torchvision

from benchmarks.reference import crops, encoders, head, mta, pipeline, tuning
from benchmarks.reference.device import DEVICE, LIBRARY, PRECISION, synchronise, tensor

WORKS = {"image-b32": encoders.images, "image-b32-one": encoders.images,
         "image-b16": encoders.images, "text": encoders.text, "train-step": tuning.training_step,
         "head": head.fitting, "mta": mta.modes, "crops": crops.crops, "test": pipeline.script}


def numpy_product(a, b):
    return lambda: a @ b


def torch_product(a, b):
    a, b = tensor(a), tensor(b)
    if PRECISION == "bfloat16":
        a, b = a.bfloat16(), b.bfloat16()

    def run():
        torch.matmul(a, b)
        synchronise()
    return run


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.backends.cudnn.allow_tf32 = False  # float32 on a GPU too
    serve(answers, WORKS, f"PyTorch {torch.__version__}, open_clip {open_clip.__version__}, "
          f"torchvision {torchvision.__version__}, NumPy {np.__version__}, "
          f"{torch.get_num_threads()} threads, {DEVICE}, {PRECISION}; images by {LIBRARY}",
          {"NumPy": numpy_product, "PyTorch": torch_product})
