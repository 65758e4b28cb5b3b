"""Source that several kernels share: oneDNN's products, a softmax, sums of a warp."""

import jittor as jt

from system.runtime import onednn_include


def onednn_code(shape, dtype, inputs, header, source, data):
    """`jt.code` on the CPU, of a kernel that reads oneDNN's header."""
    with jt.flag_scope(compile_options={f"FLAGS: -I\"{onednn_include()}\" ": 1}):
        return jt.code(shape, dtype, inputs, cpu_header=header, cpu_src=source, data=data)


# C++; every matrix is row-major.
SGEMM = r"""
#include <cstdint>
extern "C" int dnnl_sgemm(char, char, int64_t, int64_t, int64_t, float, const float*, int64_t,
                          const float*, int64_t, float, float*, int64_t);
"""
# oneDNN's primitives, of which each is made once for its sizes.
ONEDNN = r"""
#include <cstdint>
#include <vector>
#include <dnnl.hpp>
using dnnl::memory;
using Type = memory::data_type;
using Tag = memory::format_tag;
static dnnl::engine& cpu() {
    static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}
static dnnl::stream& in_order() {
    static dnnl::stream stream(cpu());
    return stream;
}
static memory at_place(const memory::desc& desc, const void* place) {
    return memory(desc, cpu(), const_cast<void*>(place));
}
static void copy(const memory::desc& from, const void* x, const memory::desc& to, void* y) {
    memory source = at_place(from, x), target = at_place(to, y);
    dnnl::reorder(source, target).execute(in_order(), source, target);
    in_order().wait();
}
// One of some workplaces of a kernel, which it keeps.
static void* workplace(int64_t which, size_t n_bytes) {
    static std::vector<char> places[4];
    auto& place = places[which];
    if (place.size() < n_bytes + 64) place.resize(n_bytes + 64);
    return (void*)(((uintptr_t)place.data() + 63) / 64 * 64);
}
"""
SOFTMAX = r"""
#include <algorithm>
#include <cmath>
#include <cstdint>
// y = softmax(factor x) of n numbers, y may be x; returns log(sum(exp(factor x))).
static float softmax(const float* x, float* y, int64_t n, float factor = 1) {
    float top = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) top = std::max(top, x[i]);
    #pragma omp simd reduction(+:sum)
    for (int64_t i = 0; i < n; i++) { y[i] = std::exp((x[i] - top) * factor); sum += y[i]; }
    float scale = 1 / sum;
    for (int64_t i = 0; i < n; i++) y[i] *= scale;
    return factor * top + std::log(sum);
}
"""
# CUDA: a warp of 32 threads does a row, blocks are of four; so no thread waits for another warp.
WARPS = r"""
#include <cstdint>
static __device__ float sum_of_warp(float x) {
    for (int step = 16; step; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}
static __device__ float max_of_warp(float x) {
    for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}
static __device__ int64_t row_of_warp() { return (int64_t)blockIdx.x * 4 + threadIdx.x / 32; }
"""
