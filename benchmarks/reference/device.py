"""Where PyTorch's side computes: the CPU, or what BENCHMARK_DEVICE names."""

import os

import numpy as np
import torch

DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")
PRECISION = os.environ.get("BENCHMARK_PRECISION", "float32")
LIBRARY = os.environ.get("BENCHMARK_LIBRARY", "pytorch")  # of the image encoder


def in_precision():
    """A context in which PyTorch computes products in bfloat16 if that is asked."""
    return torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bfloat16")


def tensor(array):
    """An array on the device."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(DEVICE)


def synchronise():
    """Wait until the device has finished."""
    if DEVICE != "cpu":
        torch.cuda.synchronize()


def arrays(**tensors):
    """{name: array} of tensors."""
    return {name: value.detach().cpu().numpy() for name, value in tensors.items()}
