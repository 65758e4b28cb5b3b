"""Linear layers (models/jclip/model.py) on the CPU, as oneDNN's products.

The bias, the activation and the sum with what went past the layer are done while a product's
numbers are in the processor's cache. Where products are to be in bfloat16, their factors are
rounded and their sums are float32. A frozen weight is laid out once as oneDNN reads it fastest, in
bfloat16 (half as much memory as its own), or where it meets few rows, for which that counts most.
"""

import functools

import jittor as jt
import numpy as np

from system import onednn, runtime

ACTIVATIONS = (None, "quick_gelu", "gelu")
FEW_ROWS = 256  # an image's patches


def layers(x, *weights_and_biases, activation=None, residual=None):
    """x (…, D) -> (…, E): x Wᵀ + b for each layer's W (E, D) and b (E,), one after the other.

    Args:
        weights_and_biases: W, b, W, b, …; W's further axes count as one, b may be None.
        activation: between two layers, one of `ACTIVATIONS`.
        residual: Var (…, E) to add to the result, or None.
    """
    weights, biases = weights_and_biases[::2], weights_and_biases[1::2]
    n_rows = int(np.prod(x.shape[:-1]))
    pack = runtime.precision() == "bfloat16" or (
        n_rows <= FEW_ROWS and all(W.is_stop_grad() for W in weights))
    read = [packed(W) if pack else W for W in weights]
    return _products(x, len(weights[-1]), read, biases, residual, pack, width=len(weights[0]),
                     activation=ACTIVATIONS.index(activation))


def transposed_layer(x, W):
    """x (…, E) -> (…, D): x W for W (E, D)."""
    pack = runtime.precision() == "bfloat16"
    return _products(x, _columns(W), [_pack(W, True) if pack else W], [None], None, pack,
                     transposed=1)


def packed(W):
    """W in the present precision, as oneDNN wants it; a frozen one's is kept beside it.

    By its id, which Jittor gives anew to each value of a variable.
    """
    if not W.is_stop_grad():
        return _pack(W, False)
    of = W.id, runtime.precision()
    if getattr(W, "packed", (None,))[0] != of:
        W.packed = of, _pack(W, False).stop_grad()
    return W.packed[1]


def _products(x, n_outputs, weights, biases, residual, pack, width=0, activation=0, transposed=0):
    _library()
    inputs, pointers = [x], []
    for variable in (*weights, *biases, residual):
        pointers.append("nullptr" if variable is None else f"in{len(inputs)}_p")
        inputs += [] if variable is None else [variable]
    n = len(weights)
    source = f"""
        int64_t K = in0->shape[in0->shape.size() - 1], N = out0->shape[out0->shape.size() - 1];
        const void* weights[] = {{{", ".join(pointers[:n])}}};
        const float* biases[] = {{{", ".join(pointers[n:-1])}}};
        int64_t widths[] = {{{"width, " * (n - 1)}N}};
        if (in0->num)
            linear_layers(in0_p, in0->num / K, K, {n}, weights, biases, widths,
                          data["activation"], {pointers[-1]}, out0_p, data["bfloat16"],
                          data["packed"], data["transposed"]);"""
    return jt.code([*x.shape[:-1], n_outputs], "float32", inputs, cpu_header=_DECLARED,
                   cpu_src=f'int64_t width = data["width"];{source}',
                   data={"width": width, "activation": activation,
                         "bfloat16": int(runtime.precision() == "bfloat16"),
                         "packed": int(pack), "transposed": transposed})


def _pack(W, transposed):
    _library()
    E, D = len(W), _columns(W)
    dtype = {"bfloat16": "int16", "float32": "float32"}[runtime.precision()]
    return jt.code([(E + 63) // 64 * 64 * ((D + 63) // 64 * 64)], dtype, [W], cpu_header=_DECLARED,
                   data={"transposed": int(transposed)}, cpu_src="""
        pack_weight(in0_p, in0_shape0, in0->num / in0_shape0, data["transposed"], out0_p,
                    out0->size, sizeof(*out0_p) == 2);
        """)


def _columns(W):
    return int(np.prod(W.shape[1:]))


@functools.lru_cache(maxsize=None)
def _library():
    """Compile what all these kernels call: reading oneDNN's header takes seconds."""
    flags = f'FLAGS: -DGLOBAL_VAR -I"{onednn.include()}" '  # seen by other kernels
    with jt.flag_scope(use_cuda=0, compile_options={flags: 1}):
        jt.code((1,), "int32", [], cpu_header=_LIBRARY, cpu_src="out0_p[0] = 1;").sync()


# C++. A product is (n, K) x (K, N); W is stored as (N, K), or transposed as (K, N).
_DECLARED = r"""
#include <cstddef>
#include <cstdint>
extern "C" {
void linear_layers(const float* x, int64_t n, int64_t K, int64_t n_layers, const void** weights,
                   const float** biases, const int64_t* widths, int64_t activation,
                   const float* residual, float* y, bool bfloat16, bool packed, bool transposed);
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16);
}
"""
_LIBRARY = _DECLARED + r"""
#include <array>
#include <map>
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
// One of some places to work at, which stay.
static void* workplace(int64_t which, size_t n_bytes) {
    static std::vector<char> places[3];
    auto& place = places[which];
    if (place.size() < n_bytes + 64) place.resize(n_bytes + 64);
    return (void*)(((uintptr_t)place.data() + 63) / 64 * 64);
}
static memory::desc plain_weight(int64_t K, int64_t N, bool transposed) {
    return {{K, N}, Type::f32, transposed ? Tag::ab : Tag::ba};
}
static const memory::desc& packed_weight(int64_t K, int64_t N, Type type) {
    static std::map<std::array<int64_t, 3>, memory::desc> known;
    memory::desc& found = known[{K, N, type == Type::bf16}];
    if (found.dims().empty())
        found = dnnl::matmul::primitive_desc(
            dnnl::matmul::desc({{64, K}, type, Tag::ab}, {{K, N}, type, Tag::any},
                               {{64, N}, Type::f32, Tag::ab}), cpu()).weights_desc();
    return found;
}
// Layers one after the other on n rows, which are at first x (n, K).
struct Layers {
    bool bfloat16, packed, transposed;
    int64_t n, K;
    const void* x;
    int64_t place = 0;  // the next one to work at
    void apply(const void* weight, const float* bias, const float* residual, int64_t N,
               int64_t activation, float* y) {
        Type type = bfloat16 ? Type::bf16 : Type::f32;
        struct Made { dnnl::matmul::primitive_desc desc; dnnl::matmul product; };
        static std::map<std::array<int64_t, 10>, Made> known;
        std::array<int64_t, 10> key = {n, K, N, bfloat16, packed, transposed, activation,
                                       bias != nullptr, residual != nullptr, y != nullptr};
        if (known.size() > 500) known.clear();  // prompts have many lengths
        auto at = known.find(key);
        memory::desc bias_desc, residual_desc({n, N}, Type::f32, Tag::ab);
        if (bias) bias_desc = {{1, N}, Type::f32, Tag::ab};
        if (at == known.end()) {
            dnnl::post_ops after;
            if (activation == 1)
                after.append_eltwise(1, dnnl::algorithm::eltwise_swish, 1.702f, 0);
            if (activation == 2) after.append_eltwise(1, dnnl::algorithm::eltwise_gelu_erf, 0, 0);
            if (residual) after.append_binary(dnnl::algorithm::binary_add, residual_desc);
            dnnl::primitive_attr attributes;
            attributes.set_post_ops(after);
            dnnl::matmul::primitive_desc desc(
                {{{n, K}, type, Tag::ab},
                 packed ? packed_weight(K, N, type) : plain_weight(K, N, transposed), bias_desc,
                 {{n, N}, y ? Type::f32 : type, Tag::ab}}, attributes, cpu());
            at = known.emplace(key, Made{desc, dnnl::matmul(desc)}).first;
        }
        const auto& made = at->second.desc;
        if (bfloat16 && !place) {
            void* rounded = workplace(place++, n * K * 2);
            copy({{n, K}, Type::f32, Tag::ab}, x, {{n, K}, Type::bf16, Tag::ab}, rounded);
            x = rounded;
        }
        void* result = y ? y : workplace(place++, n * N * (bfloat16 ? 2 : 4));
        std::unordered_map<int, memory> arguments = {
            {DNNL_ARG_SRC, at_place(made.src_desc(), x)},
            {DNNL_ARG_WEIGHTS, at_place(made.weights_desc(), weight)},
            {DNNL_ARG_DST, at_place(made.dst_desc(), result)}};
        if (bias) arguments.emplace(DNNL_ARG_BIAS, at_place(bias_desc, bias));
        if (residual)
            arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                              at_place(residual_desc, residual));
        at->second.product.execute(in_order(), arguments);
        in_order().wait();
        x = result;
        K = N;
    }
};
void linear_layers(const float* x, int64_t n, int64_t K, int64_t n_layers, const void** weights,
                   const float** biases, const int64_t* widths, int64_t activation,
                   const float* residual, float* y, bool bfloat16, bool packed, bool transposed) {
    Layers layers = {bfloat16, packed, transposed, n, K, x};
    for (int64_t i = 0; i < n_layers; i++) {
        bool last = i == n_layers - 1;
        layers.apply(weights[i], biases[i], last ? residual : nullptr, widths[i],
                     last ? 0 : activation, last ? y : nullptr);
    }
}
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16) {
    int64_t K = transposed ? E : D, N = transposed ? D : E;
    const memory::desc& wanted = packed_weight(K, N, bfloat16 ? Type::bf16 : Type::f32);
    CHECK(wanted.get_size() <= n_bytes);
    copy(plain_weight(K, N, transposed), weight, wanted, packed);
}
"""
