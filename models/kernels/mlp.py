"""The feed-forward half of a block (models/jclip/model.py) on the CPU, frozen, and its gradient.

As a whole, so that what lies between the two layers, four times as wide as x, is written once, in
the precision of products.
"""

import jittor as jt

from models.kernels.linear import DECLARED, KIND, as_read, kind, library, precise_type
from models.kernels.sources import LAYER_NORM

ACTIVATIONS = (None, "quick_gelu", "gelu")


def mlp(x, norm, weights, activation, kept=False):
    """x + W₂ a(W₁ LN(x) + b₁) + b₂ for x (…, D).

    Args:
        norm: the scale (D,), the shift (D,) and ε of LN.
        weights: W₁ (H, D), b₁ (H,), W₂ (D, H), b₂ (D,).
        activation: a, one of `ACTIVATIONS`.
        kept: whether what a is taken of is wanted as well, for `mlp_gradient`.

    Returns:
        y: Var (…, D), float32; if kept, [y, hidden: Var (…, H)].
    """
    library()
    (first, second), pack = as_read(weights[::2], x.numel() // x.shape[-1])
    scale, shift, epsilon = norm
    shapes, types, hidden = [x.shape], ["float32"], "nullptr"
    if kept:
        shapes.append([*x.shape[:-1], len(weights[0])])
        types.append(precise_type())
        hidden = "out1_p"
    found = jt.code(
        shapes, types, [x, scale, shift, first, weights[1], second, weights[3]],
        cpu_header=DECLARED + _ACTIVATIONS,
        cpu_src=f"{KIND} Rows kept = {{{hidden}, kind.bfloat16}}; {_FORWARD}",
        data=kind(pack, activation=ACTIVATIONS.index(activation), epsilon=epsilon))
    return found if kept else found[0]


def mlp_gradient(gradient, x, hidden, norm, weights, activation):
    """The gradient of x by that of y; the others as in `mlp`."""
    library()
    (first, second), pack = as_read(weights[::2], transposed=True)
    scale, _, epsilon = norm
    return jt.code(
        x.shape, "float32", [x, scale, hidden, gradient, first, second],
        cpu_header=DECLARED + _ACTIVATIONS, cpu_src=f"{KIND}{_BACKWARD}",
        data=kind(pack, activation=ACTIVATIONS.index(activation), epsilon=epsilon))


# C++. `activate` has y = a(x), or y = y a'(x), of n numbers.
_ACTIVATIONS = LAYER_NORM + r"""
static inline float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
static inline float normal_share(float x) { return 0.5f * (1 + std::erf(x * 0.70710678f)); }
struct QuickGelu {
    static float value(float x) { return x * sigmoid(1.702f * x); }
    static float slope(float x) {
        float s = sigmoid(1.702f * x);
        return s + 1.702f * x * s * (1 - s);
    }
};
struct Gelu {
    static float value(float x) { return x * normal_share(x); }
    static float slope(float x) {
        return normal_share(x) + x * 0.39894228f * std::exp(-x * x / 2);
    }
};
template <class A, bool BACKWARD, class T>
static void activate(const T* x, T* y, int64_t n) {
    #pragma omp parallel for simd
    for (int64_t i = 0; i < n; i++) {
        float of, g = 1;
        convert(x[i], of);
        if (BACKWARD) convert(y[i], g);
        convert(BACKWARD ? g * A::slope(of) : A::value(of), y[i]);
    }
}
template <class A, bool BACKWARD>
static void activate(Rows x, Rows y, int64_t n) {
    if (x.bfloat16) activate<A, BACKWARD>((int16_t*)x.place, (int16_t*)y.place, n);
    else activate<A, BACKWARD>((float*)x.place, (float*)y.place, n);
}
template <bool BACKWARD>
static void activate(int which, Rows x, Rows y, int64_t n) {
    if (which == 1) activate<QuickGelu, BACKWARD>(x, y, n);
    else activate<Gelu, BACKWARD>(x, y, n);
}
"""
_SIZES = r"""
    if (!in0->num) return;
    int64_t D = in1_shape0, n = in0->num / D;
    float epsilon = data["epsilon"];
    int which = data["activation"];
"""
_FORWARD = _SIZES + r"""
    int64_t H = in4_shape0;
    Rows x = prepared({in0_p, false}, n, D, {in1_p, in2_p, epsilon}, kind);
    Rows hidden = workplace(1, n, H, kind);
    Kind first = kind;
    if (!kept.place) first.activation = which;
    multiply(x, n, D, {in3_p, in4_p, H}, nullptr, kept.place ? kept : hidden, first);
    if (kept.place) activate<false>(which, kept, hidden, n * H);
    multiply(hidden, n, H, {in5_p, in6_p, D}, in0_p, {out0_p, false}, kind);
"""
_BACKWARD = _SIZES + r"""
    int64_t H = in2->num / n;
    kind.transposed = true;
    Rows g = prepared({in3_p, false}, n, D, {}, kind), change = workplace(1, n, H, kind);
    multiply(g, n, D, {in5_p, nullptr, H}, nullptr, change, kind);
    activate<true>(which, {in2_p, kind.bfloat16}, change, n * H);
    multiply(change, n, H, {in4_p, nullptr, D}, nullptr, {out0_p, false}, kind);
    #pragma omp parallel for
    for (int64_t i = 0; i < n; i++) {
        const float *x = in0_p + i * D, *past = in3_p + i * D;
        float mean, inverse, *dx = out0_p + i * D;
        moments(x, D, epsilon, mean, inverse);
        norm_gradient(x, in1_p, dx, D, mean, inverse, dx);
        for (int64_t c = 0; c < D; c++) dx[c] += past[c];
    }
"""
