"""Trains as a GPU would with train.amp, on the CPU: factors of products rounded to bfloat16.

    python benchmarks/mixed_precision.py [--config …] [key=value …]

This is train.py --stage 1; stage 2 and test.py follow as ever. It does not tell a GPU's speed, nor
what cuDNN makes of the patch convolution, which stays float32 here.
"""

import os
import runpy
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from system import runtime

runtime.prepare()

import jittor as jt
from jittor import nn

from models.jclip import attention, model

# To the nearest, to an even one where two are as near.
_ROUND = """
    const uint32_t* x = (const uint32_t*)in0_p;
    uint32_t* rounded = (uint32_t*)out0_p;
    #pragma omp parallel for
    for (int64_t i = 0; i < in0->num; i++)
        rounded[i] = (x[i] + 0x7FFF + (x[i] >> 16 & 1)) & 0xFFFF0000;
"""


def to_bfloat16(x):
    return jt.code(x.shape, x.dtype, [x], cpu_src=_ROUND)


class Factor(jt.Function):
    """What goes into a product is rounded; its gradient comes out of one in float32."""

    def execute(self, x):
        return to_bfloat16(x)

    def grad(self, gradient):
        return gradient


class Product(jt.Function):
    """What comes out of a product is float32; its gradient is a factor of two more products."""

    def execute(self, x):
        return x

    def grad(self, gradient):
        return to_bfloat16(gradient)


def rounded(multiply):
    def multiply_rounded(a, b):
        return Product.apply(multiply(Factor.apply(a), Factor.apply(b)))
    return multiply_rounded


def main():
    # Every product of stage 1 but the patch convolution; attention through Jittor's operations,
    # as on a GPU, its heads' products too.
    attention.has_kernels = model.has_kernels = lambda: False
    attention.nn.bmm, attention.nn.bmm_transpose = rounded(nn.bmm), rounded(nn.bmm_transpose)
    nn.matmul_transpose, jt.matmul = rounded(nn.matmul_transpose), rounded(jt.matmul)
    script = os.path.join(ROOT, "train.py")
    sys.argv = [script, "--stage", "1", *sys.argv[1:]]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
