"""Linear layers (models/jclip/model.py) on the CPU, as oneDNN's products.

The bias, the activation and the sum with what went past the layer are done while a product's
numbers are in the processor's cache. Where products are to be in bfloat16, their factors are
rounded and their sums are float32; a weight is rounded and laid out as oneDNN reads it fastest,
once if it is frozen.
"""

import jittor as jt
import numpy as np

from models.kernels.sources import ONEDNN, onednn_code
from system.runtime import products_in_bfloat16

ACTIVATIONS = (None, "quick_gelu", "gelu")


def layers(x, *weights_and_biases, activation=None, residual=None):
    """x (…, D) -> (…, E): x Wᵀ + b for each layer's W (E, D) and b (E,), one after the other.

    Args:
        weights_and_biases: W, b, W, b, …; W's further axes count as one, b may be None.
        activation: between two layers, one of `ACTIVATIONS`.
        residual: Var (…, E) to add to the result, or None.
    """
    weights, biases = weights_and_biases[::2], weights_and_biases[1::2]
    in_bfloat16 = products_in_bfloat16()
    inputs, source = [x], [_SIZES]
    for i, (W, b) in enumerate(zip(weights, biases)):
        names = ["nullptr"] * 2
        inputs.append(packed(W) if in_bfloat16 else W)
        weight = f"in{len(inputs) - 1}_p"
        if b is not None:
            inputs.append(b)
            names[0] = f"in{len(inputs) - 1}_p"
        last = i == len(weights) - 1
        if last and residual is not None:
            inputs.append(residual)
            names[1] = f"in{len(inputs) - 1}_p"
        kind = 0 if last else ACTIVATIONS.index(activation)
        source.append(f"layer.apply({weight}, {', '.join(names)}, {len(W)}, {kind}, "
                      f"{'out0_p' if last else 'nullptr'});")
    return onednn_code([*x.shape[:-1], len(weights[-1])], "float32", inputs, _LAYERS,
                       "\n".join(source), {"bfloat16": int(in_bfloat16), "transposed": 0})


def transposed_layer(x, W):
    """x (…, E) -> (…, D): x W for W (E, D)."""
    in_bfloat16 = products_in_bfloat16()
    D = int(np.prod(W.shape[1:]))
    return onednn_code([*x.shape[:-1], D], "float32",
                       [x, _pack(W, True) if in_bfloat16 else W], _LAYERS,
                       _SIZES + f"layer.apply(in1_p, nullptr, nullptr, {D}, 0, out0_p);",
                       {"bfloat16": int(in_bfloat16), "transposed": 1})


def packed(W):
    """W in bfloat16, as oneDNN wants it; a frozen one's is kept beside it.

    By its id, which Jittor gives anew to each value of a variable.
    """
    if not W.is_stop_grad():
        return _pack(W, False)
    if getattr(W, "packed", (None,))[0] != W.id:
        W.packed = W.id, _pack(W, False).stop_grad()
    return W.packed[1]


def _pack(W, transposed):
    E, D = len(W), int(np.prod(W.shape[1:]))
    return onednn_code([(E + 63) // 64 * 64 * ((D + 63) // 64 * 64)], "int16", [W], _LAYERS, _PACK,
                       {"transposed": int(transposed)})


# C++. A product is (n, K) x (K, N); W is stored as (N, K), or transposed as (K, N).
_LAYERS = ONEDNN + r"""
#include <array>
#include <map>
static memory::desc plain_weight(int64_t K, int64_t N, bool transposed) {
    return {{K, N}, Type::f32, transposed ? Tag::ab : Tag::ba};
}
static const memory::desc& packed_weight(int64_t K, int64_t N) {
    static std::map<std::pair<int64_t, int64_t>, memory::desc> known;
    memory::desc& found = known[{K, N}];
    if (found.dims().empty())
        found = dnnl::matmul::primitive_desc(
            dnnl::matmul::desc({{64, K}, Type::bf16, Tag::ab}, {{K, N}, Type::bf16, Tag::any},
                               {{64, N}, Type::f32, Tag::ab}), cpu()).weights_desc();
    return found;
}
// Layers one after the other on n rows, which are at first x (n, K).
struct Layers {
    bool bfloat16, transposed;
    int64_t n, K;
    const void* x;
    int64_t place = 0;  // of two workplaces in turn
    void apply(const void* weight, const float* bias, const float* residual, int64_t N,
               int64_t activation, float* y) {
        Type type = bfloat16 ? Type::bf16 : Type::f32;
        struct Made { dnnl::matmul::primitive_desc desc; dnnl::matmul product; };
        static std::map<std::array<int64_t, 9>, Made> known;
        std::array<int64_t, 9> key = {n, K, N, bfloat16, transposed, activation, bias != nullptr,
                                      residual != nullptr, y != nullptr};
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
                 bfloat16 ? packed_weight(K, N) : plain_weight(K, N, transposed), bias_desc,
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
"""
_SIZES = r"""
    int64_t K = in0->shape[in0->shape.size() - 1];
    if (!in0->num) return;
    Layers layer = {data["bfloat16"] != 0, data["transposed"] != 0, in0->num / K, K, in0_p};
"""
_PACK = r"""
    int64_t N = in0_shape0, K = in0->num / N;
    bool transposed = data["transposed"] != 0;
    if (transposed) std::swap(N, K);
    CHECK(packed_weight(K, N).get_size() <= (size_t)out0->size);
    copy(plain_weight(K, N, transposed), in0_p, packed_weight(K, N), out0_p);
"""
