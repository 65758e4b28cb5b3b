"""Runs the source of a CUDA kernel and its launch on the CPU: a warp is 32 threads that meet.

So what a kernel computes can be tested on a machine without a GPU. Warps run one after the other,
since the kernels' warps do not wait for each other.
"""

import ctypes
import re
import subprocess
import tempfile

import numpy as np

_CUDA = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <pthread.h>
#include <string>
#include <thread>
#include <vector>
#define __global__
#define __device__
#define CHECK(condition)
static thread_local struct { int x; } threadIdx, blockIdx, blockDim;
static pthread_barrier_t meeting;
static float lanes[32];
static void __syncwarp() { pthread_barrier_wait(&meeting); }
static float __shfl_xor_sync(unsigned, float x, int step) {
    lanes[threadIdx.x % 32] = x;
    __syncwarp();
    float other = lanes[threadIdx.x % 32 ^ step];
    __syncwarp();
    return other;
}
static float __int_as_float(int x) { float y; std::memcpy(&y, &x, 4); return y; }
static float rsqrtf(float x) { return 1 / std::sqrt(x); }
template <class Kernel> static void launch(int blocks, int threads, Kernel kernel) {
    for (int block = 0; block < blocks; block++)
        for (int warp = 0; warp < threads; warp += 32) {
            pthread_barrier_init(&meeting, nullptr, 32);
            std::vector<std::thread> lanes;
            for (int lane = 0; lane < 32; lane++) lanes.emplace_back([=] {
                threadIdx.x = warp + lane;
                blockIdx.x = block;
                blockDim.x = threads;
                kernel();
            });
            for (auto& lane : lanes) lane.join();
            pthread_barrier_destroy(&meeting);
        }
}
struct Array { int64_t num; std::vector<int64_t> shape; };
"""


def code(shapes, inputs, header, source, data):
    """What `jt.code` with this `cuda_header` and `cuda_src` returns on a GPU.

    Args:
        shapes: of the outputs, list.
        inputs: float32 arrays.
        header, source: C++.
        data: {name: number}.

    Returns:
        list of float32 arrays.
    """
    outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
    named = [*((f"in{i}", array) for i, array in enumerate(inputs)),
             *((f"out{i}", array) for i, array in enumerate(outputs))]
    entries = ", ".join(f'{{"{name}", {value}}}' for name, value in data.items())
    lines = [f"std::map<std::string, double> data{{{entries}}};"]
    for i, (name, array) in enumerate(named):
        shape = ", ".join(map(str, array.shape))
        lines.append(f"float* {name}_p = arrays[{i}];")
        lines.append(f"Array {name}_{{{array.size}, {{{shape}}}}}, *{name} = &{name}_;")
        lines += [f"int64_t {name}_shape{axis} = {size};" for axis, size in enumerate(array.shape)]
    source = re.sub(r"(\w+)<<<(.+?), (\d+)>>>(\(.*?\));", r"launch(\2, \3, [&] { \1\4; });", source,
                    flags=re.DOTALL)
    assert "launch(" in source
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/kernel.so"
        program = [_CUDA, header, 'extern "C" void run(float** arrays) {', *lines, source, "}"]
        subprocess.run(["g++", "-std=c++14", "-O1", "-w", "-fPIC", "-shared", "-pthread",
                        "-x", "c++", "-", "-o", library],
                       input="\n".join(program), text=True, check=True)
        pointers = [array.ctypes.data_as(ctypes.POINTER(ctypes.c_float)) for _, array in named]
        ctypes.CDLL(library).run((ctypes.POINTER(ctypes.c_float) * len(pointers))(*pointers))
    return outputs
