"""How Jittor's compiling threads make a kernel: from headers read once, and no two at a time in
the part that changes the graph.
"""

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

# Before a thread of Jittor 1.3.11 calls the compiler, it writes the kernel's source, and there puts
# operations into the graph (oneDNN's product for a multiply and sum, say); two threads at once
# break the graph's lists. This is Jittor's `do_compile_inner` with a lock around all but the
# compiler.
_IN_TURN = r"""
#include <mutex>
#include "fused_op.h"
#include "op_compiler.h"
#include "opt/tuner_manager.h"
#include "ops/op_register.h"
namespace jittor {
extern jit_op_entry_t (*do_compile_hook)(Op*);
static jit_op_entry_t write_in_turn(Op* op) {
    static std::mutex writing;
    std::unique_lock<std::mutex> turn(writing);
    OpCompiler compiler(op);
    for (auto type : op_types) type->post_pass(&compiler);
    string source = compiler.op ? TunerManager(&compiler).tune() : compiler.src;
    op->compile_optimize(source);
    string key = op->get_jit_key(get_jk());
    turn.unlock();
    return compiler.compile(key, source);
}
}
"""


def prepare_kernel_compiler():
    """Make the kernels that Jittor compiles from now on compile faster, and safely in threads."""
    _precompile_headers()
    with jt.flag_scope(use_cuda=0):
        jt.code((1,), "int32", [], cpu_header=_IN_TURN,
                cpu_src="do_compile_hook = write_in_turn; out0_p[0] = 1;").sync()


def _precompile_headers():
    """Two thirds of a kernel's compile time go into reading headers.

    The precompiled one is made once, in a few seconds, and kept in Jittor's cache (85 MB). It
    serves only a compiler with the same flags; with another than g++, or where it cannot be
    compiled, nothing changes.
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
