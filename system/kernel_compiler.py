"""Has Jittor's kernels compiled from headers that are read once."""

import contextlib
import os
import shlex
import subprocess

import jittor as jt

# What nearly every kernel that Jittor writes includes, and what it defines before it does.
_HEADER = """\
#define JIT 1
#define JIT_cpu 1
#include <algorithm>
#include <cmath>
#include <vector>
#include "var.h"
#include "fused_op.h"
#include "executor.h"
#include "ops/op_register.h"
"""


def prepare_kernel_compiler():
    """Make the kernels that Jittor compiles from now on compile faster.

    Two thirds of a kernel's compile time go into reading headers. A precompiled one is made once,
    in a few seconds, and kept in Jittor's cache (85 MB). It serves only a compiler with the same
    flags; with another than g++, or where it cannot be compiled, nothing changes.
    """
    if jt.compiler.cc_type != "g++":
        return
    header = os.path.join(jt.flags.cache_path, "kernel_headers.h")
    if not os.path.exists(f"{header}.gch") and not _compile(header):
        return
    if header not in jt.flags.cc_flags:
        jt.flags.cc_flags += f' -include "{header}" '


def _compile(header):
    temporary = f"{header}.{os.getpid()}"
    with open(temporary, "w") as file:
        file.write(_HEADER)
    os.replace(temporary, header)
    flags = [flag for flag in shlex.split(jt.flags.cc_flags)
             if flag != "-shared" and not flag.startswith(("-l", "-L", "-Wl"))]
    # Jittor compiles kernels with -g too, to find its places in the assembler code.
    try:
        done = subprocess.run([jt.flags.cc_path, "-g", *flags, "-x", "c++-header", header,
                               "-o", temporary], capture_output=True)
        if done.returncode == 0:  # another process may do the same at the same time
            os.replace(temporary, f"{header}.gch")
        return done.returncode == 0
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
