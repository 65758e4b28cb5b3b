"""Jittor is made importable before any test module imports it; small models for all tests."""

import os
import shutil
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from system import runtime

runtime.prepare()

import jittor as jt
import numpy as np
import pytest

from models import mta
from models.jclip import attention, model
from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from system.kernel_compiler import prepare_kernel_compiler
from tests.reference.weights import TOKENS, random_images, random_state

runtime.use_accelerator(os.environ.get("TEST_DEVICE", "cpu"))
prepare_kernel_compiler()
# Jittor ends a process of which a child is killed, as tests do to scripts.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
# Before a command: what no one may read stays so for root; empty where that cannot be had.
WITHOUT_ROOTS_RIGHTS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if (
    os.geteuid() == 0 and shutil.which("setpriv")) else ()
SMALL = CLIPSizes(vision=TowerSizes(64, 2, 1), image_size=16, patch_size=8,
                  text=TowerSizes(64, 2, 1), context_length=24, vocab_size=49408, embed_dim=16)


def shapes_of(model):
    """{name: shape} of a model's parameters."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@pytest.fixture
def small_clip():
    """A CLIP of two blocks an encoder with random weights, the same in every test."""
    model = CLIP(SMALL)
    model.load_state_dict(random_state(shapes_of(model)))
    return model


@pytest.fixture
def unit_rows():
    """rows(n, …, D, seed): float32 arrays whose last axis has length 1."""
    def rows(*shape, seed=0):
        values = np.random.RandomState(seed).normal(size=shape).astype(np.float32)
        return values / np.linalg.norm(values, axis=-1, keepdims=True)
    return rows


@pytest.fixture
def images():
    """Preprocessed images for `small_clip`: Var (3, 3, 16, 16)."""
    return jt.array(random_images(3, 16))


@pytest.fixture
def tokens():
    """Tokens of texts of unlike length: int32 (3, 24)."""
    return TOKENS.copy()


@pytest.fixture(params=[True, False], ids=["kernels", "jittor"])
def kernels(request, monkeypatch):
    """With the kernels, and with Jittor's own operations in their place."""
    if request.param and jt.flags.use_cuda:
        pytest.skip("the CPU's kernels")
    for module in (attention, model, mta):
        monkeypatch.setattr(module, "has_kernels", lambda: request.param)
    return request.param


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """The folder of `tests.workplace`."""
    from tests.workplace import build  # it imports this module

    folder = tmp_path_factory.mktemp("workplace")
    build(folder)
    return folder


@pytest.fixture(scope="session")
def trained(workplace):
    """The workplace after training, and the lines of its first result."""
    from tests.workplace import run

    done = run("train.py", workplace)
    assert done.returncode == 0, done.stderr[-2000:]
    done = run("test.py", workplace, "--output", workplace / "first.txt")
    assert done.returncode == 0, done.stderr[-2000:]
    return workplace, (workplace / "first.txt").read_text().splitlines()
