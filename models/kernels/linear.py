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

from models.kernels.sources import LAYER_NORM
from system import onednn, runtime

FEW_ROWS = 256  # an image's patches


def layer(x, W, b, residual=None, norm=None, rounded=False):
    """x (…, D) -> (…, E): x Wᵀ + b for W (E, D) and b (E,).

    Args:
        x: Var, float32, or int16, bfloat16's bits.
        W: its further axes count as one. b: Var or None.
        residual: Var (…, E) to add to the result, or None.
        norm: the scale (D,), the shift (D,) and ε of a layer norm of x before it, or None.
        rounded: whether the result is wanted in the present precision, in bfloat16 its bits.
    """
    n_rows = int(np.prod(x.shape[:-1]))
    weights, pack = as_read([W], n_rows)
    *scale_and_shift, epsilon = norm or (None, None, 0.0)
    return _product(x, len(W), [*weights, b, residual, *scale_and_shift], pack,
                    precise_type() if rounded else "float32", epsilon=epsilon)


def transposed_layer(x, W):
    """x (…, E) -> (…, D): x W for W (E, D)."""
    (read,), pack = as_read([W], transposed=True)
    return _product(x, _columns(W), [read, None, None, None, None], pack, "float32", transposed=1)


def as_read(weights, n_rows=None, transposed=False):
    """Weights as a product of so many rows reads them fastest, and whether they are packed."""
    few = n_rows is not None and n_rows <= FEW_ROWS and all(W.is_stop_grad() for W in weights)
    pack = runtime.precision() == "bfloat16" or few
    return [packed(W, transposed) if pack else W for W in weights], pack


def packed(W, transposed=False):
    """W in the present precision, as oneDNN wants it; a frozen one's is kept beside it.

    By its id, which Jittor gives anew to each value of a variable.
    """
    if not W.is_stop_grad():
        return _pack(W, transposed)
    if not hasattr(W, "packed"):
        W.packed = {}
    of = W.id, runtime.precision()
    if W.packed.get(transposed, (None,))[0] != of:
        W.packed[transposed] = of, _pack(W, transposed).stop_grad()
    return W.packed[transposed][1]


def precise_type():
    """What holds a number in the present precision; Jittor has no bfloat16 on the CPU."""
    return {"bfloat16": "int16", "float32": "float32"}[runtime.precision()]


def kind(pack, **data):
    """The numbers of C++'s `KIND`."""
    return {"bfloat16": int(runtime.precision() == "bfloat16"), "packed": int(pack), **data}


def _product(x, n_outputs, others, pack, dtype, epsilon=0.0, transposed=0):
    library()
    inputs, pointers = [x], []
    for variable in others:
        pointers.append("nullptr" if variable is None else f"in{len(inputs)}_p")
        inputs += [] if variable is None else [variable]
    weight, bias, residual, scale, shift = pointers
    return jt.code([*x.shape[:-1], n_outputs], dtype, inputs, cpu_header=DECLARED, cpu_src=f"""
        int64_t K = in0->shape[in0->shape.size() - 1], N = out0->shape[out0->shape.size() - 1];
        {KIND}
        kind.transposed = data["transposed"] != 0;
        if (!in0->num) return;
        int64_t n = in0->num / K;
        Rows x = prepared({{in0_p, sizeof(*in0_p) == 2}}, n, K,
                          {{{scale}, {shift}, (float)data["epsilon"]}}, kind);
        multiply(x, n, K, {{{weight}, {bias}, N}}, {residual},
                 {{out0_p, sizeof(*out0_p) == 2}}, kind);
        """, data=kind(pack, epsilon=epsilon, transposed=transposed))


def _pack(W, transposed):
    library()
    E, D = len(W), _columns(W)
    return jt.code([(E + 63) // 64 * 64 * ((D + 63) // 64 * 64)], precise_type(), [W],
                   cpu_header=DECLARED, data={"transposed": int(transposed)}, cpu_src="""
        pack_weight(in0_p, in0_shape0, in0->num / in0_shape0, data["transposed"], out0_p,
                    out0->size, sizeof(*out0_p) == 2);
        """)


def _columns(W):
    return int(np.prod(W.shape[1:]))


@functools.lru_cache(maxsize=None)
def library():
    """Compile what all these kernels call: reading oneDNN's header takes seconds."""
    flags = f'FLAGS: -DGLOBAL_VAR -I"{onednn.include()}" '  # seen by other kernels
    with jt.flag_scope(use_cuda=0, compile_options={flags: 1}):
        jt.code((1,), "int32", [], cpu_header=_LIBRARY, cpu_src="out0_p[0] = 1;").sync()


# C++. A product is (n, K) x (K, N); W is stored as (N, K), or transposed as (K, N).
DECLARED = r"""
#include <cstddef>
#include <cstdint>
extern "C" {
struct Rows { void* place; bool bfloat16; };
struct Norm { const float *scale, *shift; float epsilon; };
struct Layer { const void* weight; const float* bias; int64_t n_outputs; };
struct Kind { bool bfloat16, packed, transposed; int activation; };  // that one in ACTIVATIONS
// One of some places to work at, for n rows as products take them.
Rows workplace(int which, int64_t n, int64_t width, Kind kind);
// x of n rows as a product takes it, at the first of these places where it is not so already.
Rows prepared(Rows x, int64_t n, int64_t K, Norm norm, Kind kind);
void multiply(Rows x, int64_t n, int64_t K, Layer layer, const float* residual, Rows y, Kind kind);
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16);
}
"""
KIND = 'Kind kind = {data["bfloat16"] != 0, data["packed"] != 0, false, 0};'
_LIBRARY = DECLARED + LAYER_NORM + r"""
#include <array>
#include <map>
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
Rows workplace(int which, int64_t n, int64_t width, Kind kind) {
    static struct { void* start; size_t n_bytes; } places[3];
    auto& place = places[which];
    size_t n_bytes = n * width * (kind.bfloat16 ? 2 : 4);
    if (place.n_bytes < n_bytes) {
        free(place.start);
        place.n_bytes = (n_bytes / LARGE_PAGE + 1) * LARGE_PAGE;
        CHECK((place.start = aligned_alloc(LARGE_PAGE, place.n_bytes)));
        in_large_pages(place.start, place.n_bytes);
    }
    return {place.start, kind.bfloat16};
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
template <class T>
static void prepare(const float* x, int64_t n, int64_t K, Norm norm, T* y) {
    #pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        const float* row = x + i * K;
        T* to = y + i * K;
        if (norm.scale) norm_row(row, norm.scale, norm.shift, K, norm.epsilon, to);
        else for (int64_t c = 0; c < K; c++) convert(row[c], to[c]);
    }
}
Rows prepared(Rows x, int64_t n, int64_t K, Norm norm, Kind kind) {
    if (!norm.scale && x.bfloat16 == kind.bfloat16) return x;
    Rows y = workplace(0, n, K, kind);
    if (kind.bfloat16) prepare((const float*)x.place, n, K, norm, (int16_t*)y.place);
    else prepare((const float*)x.place, n, K, norm, (float*)y.place);
    return y;
}
void multiply(Rows x, int64_t n, int64_t K, Layer layer, const float* residual, Rows y, Kind kind) {
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
void pack_weight(const float* weight, int64_t E, int64_t D, bool transposed, void* packed,
                 size_t n_bytes, bool bfloat16) {
    int64_t K = transposed ? E : D, N = transposed ? D : E;
    const memory::desc& wanted = packed_weight(K, N, bfloat16 ? Type::bf16 : Type::f32);
    CHECK(wanted.get_size() <= n_bytes);
    in_large_pages(packed, n_bytes);
    copy(plain_weight(K, N, transposed), weight, wanted, packed);
}
"""
