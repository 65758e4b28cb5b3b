import subprocess
import sys

from tests.workplace import ROOT

# Products of one pair of matrices in all the ways that Jittor gives to oneDNN, compiled at once by
# its threads; then Jittor forgets what it has compiled, and so on.
PRODUCTS = r"""
from system import runtime
runtime.prepare()
import jittor as jt
from system.kernel_compiler import prepare_kernel_compiler
prepare_kernel_compiler()
a, b = jt.array([[1.0, 2.0], [3.0, 4.0]]), jt.array([[5.0, 6.0], [7.0, 8.0]])
jt.sync([a, b])
# The axis that a lacks, the one that b lacks, the one that is summed over; the product.
ways = [(2, 0, 1, [[19, 22], [43, 50]]), (2, 1, 0, [[26, 30], [38, 44]]),
        (1, 0, 2, [[17, 23], [39, 53]])]
for _ in range(100):
    products = []
    for of_a, of_b, summed, _ in ways:
        wide_a, wide_b = (x.broadcast([2, 2, 2], [axis]) for x, axis in ((a, of_a), (b, of_b)))
        products += [(wide_a * wide_b).sum(summed), (wide_b * wide_a).sum(summed)]
    jt.sync(products)
    for i, product in enumerate(products):
        assert product.numpy().tolist() == ways[i // 2][-1], i
    jt.code((1,), "int32", [], cpu_header='#include "fused_op.h"',
            cpu_src="jit_fused_ops = {}; jit_key_mapper = {}; out0_p[0] = 1;").sync()
"""


def test_threads_compile_products_of_the_same_matrices():
    done = subprocess.run([sys.executable, "-c", PRODUCTS], cwd=ROOT, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
