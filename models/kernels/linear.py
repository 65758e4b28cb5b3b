"""Linear layers (models/jclip/model.py) on the CPU, as oneDNN's products.

The bias, the activation and the sum with what went past the layer are done while a product's
numbers are in the processor's cache, and a layer norm before it as they come there. Where products
are to be in bfloat16, their factors are rounded and their sums are float32. A frozen weight is laid
out once as oneDNN reads it fastest, in bfloat16 (half as much memory as its own), or where it meets
few rows, for which that counts most.
"""

import functools

import jittor as jt
import numpy as np

from models.kernels.sources import BFLOAT16, MOMENTS
from system import onednn, runtime

ACTIVATIONS = (None, "quick_gelu", "gelu")
FEW_ROWS = 256  # an image's patches


def layers(x, *weights_and_biases, activation=None, residual=None, norm=None, rounded=False):
    """x (…, D) -> (…, E): x Wᵀ + b for each layer's W (E, D) and b (E,), one after the other.

    Args:
        x: Var, float32, or int16, bfloat16's bits.
        weights_and_biases: W, b, W, b, …; W's further axes count as one, b may be None.
        activation: between two layers, one of `ACTIVATIONS`.
        residual: Var (…, E) to add to the result, or None.
        norm: the scale (D,), the shift (D,) and ε of a layer norm of x before the first, or None.
        rounded: whether the result is wanted in the present precision, in bfloat16 its bits.
    """
    weights, biases = weights_and_biases[::2], weights_and_biases[1::2]
    n_rows = int(np.prod(x.shape[:-1]))
    pack = runtime.precision() == "bfloat16" or (
        n_rows <= FEW_ROWS and all(W.is_stop_grad() for W in weights))
    read = [packed(W) if pack else W for W in weights]
    *scale_and_shift, epsilon = norm or (None, None, 0.0)
    return _products(x, len(weights[-1]), read, biases, [*scale_and_shift, residual], pack,
                     _dtype() if rounded else "float32", width=len(weights[0]),
                     activation=ACTIVATIONS.index(activation), epsilon=epsilon)


def transposed_layer(x, W):
    """x (…, E) -> (…, D): x W for W (E, D)."""
    pack = runtime.precision() == "bfloat16"
    return _products(x, _columns(W), [_pack(W, True) if pack else W], [None], [None] * 3, pack,
                     "float32", transposed=1)


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


def _products(x, n_outputs, weights, biases, others, pack, dtype, width=0, **data):
    _library()
    inputs, pointers = [x], []
    for variable in (*weights, *biases, *others):
        pointers.append("nullptr" if variable is None else f"in{len(inputs)}_p")
        inputs += [] if variable is None else [variable]
    n = len(weights)
    scale, shift, residual = pointers[2 * n:]
    source = f"""
        int64_t K = in0->shape[in0->shape.size() - 1], N = out0->shape[out0->shape.size() - 1];
        int64_t width = data["width"];
        Layer layers[] = {{{", ".join(f"{{{W}, {b}, width}}" for W, b in zip(
            pointers[:n], pointers[n:2 * n]))}}};
        layers[{n - 1}].n_outputs = N;
        Norm norm = {{{scale}, {shift}, (float)data["epsilon"]}};
        Kind kind = {{data["bfloat16"] != 0, data["packed"] != 0, data["transposed"] != 0,
                      (int)data["activation"]}};
        if (in0->num)
            linear_layers({{in0_p, sizeof(*in0_p) == 2}}, in0->num / K, K, norm, {n}, layers,
                          {residual}, {{out0_p, sizeof(*out0_p) == 2}}, kind);"""
    return jt.code([*x.shape[:-1], n_outputs], dtype, inputs, cpu_header=_DECLARED, cpu_src=source,
                   data={"width": width, "activation": 0, "epsilon": 0.0, "transposed": 0,
                         "bfloat16": int(runtime.precision() == "bfloat16"), "packed": int(pack),
                         **data})


def _dtype():
    """What holds a number in the present precision; Jittor has no bfloat16 on the CPU."""
    return {"bfloat16": "int16", "float32": "float32"}[runtime.precision()]


def _pack(W, transposed):
    _library()
    E, D = len(W), _columns(W)
    return jt.code([(E + 63) // 64 * 64 * ((D + 63) // 64 * 64)], _dtype(), [W],
                   cpu_header=_DECLARED,
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
struct Layer { const void* weight; const float* bias; int64_t n_outputs; };
struct Norm { const float *scale, *shift; float epsilon; };
struct Kind { bool bfloat16, packed, transposed; int activation; };
struct Rows { void* place; bool bfloat16; };
void linear_layers(Rows x, int64_t n, int64_t K, Norm norm, int n_layers, const Layer* layers,
                   const float* residual, Rows y, Kind kind);
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16);
}
"""
_LIBRARY = _DECLARED + MOMENTS + BFLOAT16 + r"""
#include <array>
#include <map>
#include <vector>
#include <sys/mman.h>
#include <dnnl.hpp>
static const size_t LARGE_PAGE = 2 << 20;
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
// Ask for large pages, of which the processor has the places of hundreds of megabytes at hand;
// those at the ends hold what lies beside, too.
static void in_large_pages(void* place, size_t n_bytes) {
    uintptr_t start = (uintptr_t)place / LARGE_PAGE * LARGE_PAGE;
    uintptr_t end = ((uintptr_t)place + n_bytes) / LARGE_PAGE * LARGE_PAGE + LARGE_PAGE;
    madvise((void*)start, end - start, MADV_HUGEPAGE);
}
// One of some places to work at, which stay.
static void* workplace(int64_t which, size_t n_bytes) {
    static struct { void* start; size_t n_bytes; } places[3];
    auto& place = places[which];
    if (place.n_bytes < n_bytes) {
        free(place.start);
        place.n_bytes = (n_bytes / LARGE_PAGE + 1) * LARGE_PAGE;
        CHECK((place.start = aligned_alloc(LARGE_PAGE, place.n_bytes)));
        in_large_pages(place.start, place.n_bytes);
    }
    return place.start;
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
// Rows of x as the first product takes them: normalised where there is a norm, and rounded.
template <class T>
static void prepare(const float* x, int64_t n, int64_t K, Norm norm, T* y) {
    #pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        const float* row = x + i * K;
        float mean, inverse;
        if (norm.scale) moments(row, K, norm.epsilon, mean, inverse);
        for (int64_t c = 0; c < K; c++)
            convert(norm.scale ? (row[c] - mean) * inverse * norm.scale[c] + norm.shift[c] : row[c],
                    y[i * K + c]);
    }
}
static void multiply(Rows x, int64_t n, int64_t K, const Layer& layer, const float* residual,
                     Rows y, Kind kind) {
    struct Made { dnnl::matmul::primitive_desc desc; dnnl::matmul product; };
    static std::map<std::array<int64_t, 10>, Made> known;
    int64_t N = layer.n_outputs;
    std::array<int64_t, 10> key = {
        n, K, N, kind.bfloat16, kind.packed, kind.transposed, kind.activation,
        layer.bias != nullptr, residual != nullptr, y.bfloat16};
    if (known.size() > 500) known.clear();  // prompts have many lengths
    auto at = known.find(key);
    memory::desc bias_desc, residual_desc({n, N}, Type::f32, Tag::ab);
    if (layer.bias) bias_desc = {{1, N}, Type::f32, Tag::ab};
    if (at == known.end()) {
        dnnl::post_ops after;
        if (kind.activation == 1)
            after.append_eltwise(1, dnnl::algorithm::eltwise_swish, 1.702f, 0);
        if (kind.activation == 2) after.append_eltwise(1, dnnl::algorithm::eltwise_gelu_erf, 0, 0);
        if (residual) after.append_binary(dnnl::algorithm::binary_add, residual_desc);
        dnnl::primitive_attr attributes;
        attributes.set_post_ops(after);
        Type type = kind.bfloat16 ? Type::bf16 : Type::f32;
        dnnl::matmul::primitive_desc desc(
            {{{n, K}, type, Tag::ab},
             kind.packed ? packed_weight(K, N, type) : plain_weight(K, N, kind.transposed),
             bias_desc, {{n, N}, y.bfloat16 ? Type::bf16 : Type::f32, Tag::ab}}, attributes, cpu());
        at = known.emplace(key, Made{desc, dnnl::matmul(desc)}).first;
    }
    const auto& made = at->second.desc;
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, at_place(made.src_desc(), x.place)},
        {DNNL_ARG_WEIGHTS, at_place(made.weights_desc(), layer.weight)},
        {DNNL_ARG_DST, at_place(made.dst_desc(), y.place)}};
    if (layer.bias) arguments.emplace(DNNL_ARG_BIAS, at_place(bias_desc, layer.bias));
    if (residual)
        arguments.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                          at_place(residual_desc, residual));
    at->second.product.execute(in_order(), arguments);
    in_order().wait();
}
void linear_layers(Rows x, int64_t n, int64_t K, Norm norm, int n_layers, const Layer* layers,
                   const float* residual, Rows y, Kind kind) {
    int64_t place = 0;  // the next one to work at
    auto rows_of = [&](int64_t width) {
        return Rows{workplace(place++, n * width * (kind.bfloat16 ? 2 : 4)), kind.bfloat16};
    };
    if (norm.scale || x.bfloat16 != kind.bfloat16) {
        Rows prepared = rows_of(K);
        if (kind.bfloat16) prepare((const float*)x.place, n, K, norm, (int16_t*)prepared.place);
        else prepare((const float*)x.place, n, K, norm, (float*)prepared.place);
        x = prepared;
    }
    for (int i = 0; i < n_layers; i++) {
        bool last = i == n_layers - 1;
        Rows result = last ? y : rows_of(layers[i].n_outputs);
        Kind of_layer = kind;
        if (last) of_layer.activation = 0;
        multiply(x, n, K, layers[i], last ? residual : nullptr, result, of_layer);
        x = result;
        K = layers[i].n_outputs;
    }
}
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16) {
    int64_t K = transposed ? E : D, N = transposed ? D : E;
    const memory::desc& wanted = packed_weight(K, N, bfloat16 ? Type::bf16 : Type::f32);
    CHECK(wanted.get_size() <= n_bytes);
    in_large_pages(packed, n_bytes);
    copy(plain_weight(K, N, transposed), weight, wanted, packed);
}
"""
