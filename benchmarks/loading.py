"""Peak memory of loading ViT-L/14, in units of its size in float32, by format.

    python benchmarks/loading.py

Random weights; each load is a process of its own. 1.0 is the model alone.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from models import runtime

runtime.prepare()

from safetensors.numpy import save_file

from models.jclip.model import CLIP
from models.jclip.sizes import CLIPSizes, TowerSizes
from models.jclip.weights import write_pickle

VIT_L_14 = CLIPSizes(vision=TowerSizes(1024, 24, 16), image_size=224, patch_size=14,
                     text=TowerSizes(768, 12, 12), context_length=77, vocab_size=49408,
                     embed_dim=768)
LOAD = """
import resource, sys
from models import jclip
jclip.load(sys.argv[1], activation="quick_gelu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main():
    shapes = {name: tuple(p.shape) for name, p in CLIP(VIT_L_14).named_parameters()}
    n_bytes = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    random = np.random.RandomState(0)
    print(f"ViT-L/14: {n_bytes / 1e9:.2f} GB in float32")
    for dtype in ("float16", "float32"):
        state = {name: random.normal(0, 0.02, shape).astype(dtype)
                 for name, shape in shapes.items()}
        for ending, write in (("pkl", lambda path, s: write_pickle(path, s)),
                              ("safetensors", lambda path, s: save_file(s, path))):
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, f"model.{ending}")
                write(path, state)
                done = subprocess.run([sys.executable, "-c", LOAD, path], cwd=ROOT, check=True,
                                      stdout=subprocess.PIPE, text=True)
            peak = json.loads(done.stdout)
            print(f"{dtype} .{ending}: peak {peak / 1e9:.2f} GB, {peak / n_bytes:.2f} times")


if __name__ == "__main__":
    main()
