"""Peak memory of loading ViT-L/14, in units of its size in float32, by format.

    python benchmarks/loading.py

Random weights; each load is a process of its own. 1.0 is the model alone.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import zipfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import runtime

runtime.prepare()

from safetensors.numpy import save_file

from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from system.files import write_pickle
from tests.reference.weights import to_transformers

VIT_L_14 = CLIPSizes(vision=TowerSizes(1024, 24, 16), image_size=224, patch_size=14,
                     text=TowerSizes(768, 12, 12), context_length=77, vocab_size=49408,
                     embed_dim=768)
# Each as its library would write it; transformers' names have q, k and v apart.
FILES = ("openai.pkl", "openai.safetensors", "transformers.safetensors", "openai.pt")
LOAD = """
import resource, sys
from models import jclip
jclip.load(sys.argv[1], activation="quick_gelu")
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main():
    """Everything large happens in children: a child's peak counts its parent's at the start."""
    if len(sys.argv) == 3:
        write(*sys.argv[1:])
        return
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes_of_model().values())
    print(f"ViT-L/14: {n_bytes / 1e9:.2f} GB in float32")
    for dtype in ("float32", "float16"):
        for name in FILES:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, name)
                subprocess.run([sys.executable, __file__, path, dtype], cwd=ROOT, check=True)
                done = subprocess.run([sys.executable, "-c", LOAD, path], cwd=ROOT, check=True,
                                      stdout=subprocess.PIPE, text=True)
            peak = int(done.stdout)
            print(f"{dtype} {name}: peak {peak / 1e9:.2f} GB, {peak / n_bytes:.2f} times",
                  flush=True)


def shapes_of_model():
    return {name: tuple(p.shape) for name, p in CLIP(VIT_L_14).named_parameters()}


def write(path, dtype):
    random = np.random.default_rng(0)
    state = {name: (random.standard_normal(shape, np.float32) * np.float32(0.02)).astype(dtype)
             for name, shape in shapes_of_model().items()}
    if path.endswith("transformers.safetensors"):
        state = to_transformers(state)
    if path.endswith(".pkl"):
        write_pickle(path, state)
    elif path.endswith(".pt"):
        write_torch_archive(path, state)
    else:
        save_file(state, path)


def write_torch_archive(path, state):
    """A state dict as `torch.save` writes it, without PyTorch."""
    def push(value):  # the instructions of its pickle, without the first and the last
        return pickle.dumps(value, 2)[2:-1]

    with zipfile.ZipFile(path, "w") as archive:
        instructions = b"\x80\2}"
        for i, (name, value) in enumerate(state.items()):
            kind = {"float32": b"FloatStorage", "float16": b"HalfStorage"}[str(value.dtype)]
            strides = tuple(step // value.itemsize for step in value.strides)
            instructions += (
                push(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + push("storage")
                + b"ctorch\n" + kind + b"\n" + push(str(i)) + push("cpu") + push(value.size)
                + b"tQ" + push(0) + push(value.shape) + push(strides) + b"tRs")
            archive.writestr(f"model/data/{i}", value.tobytes())
        archive.writestr("model/data.pkl", instructions + b".")


if __name__ == "__main__":
    main()
