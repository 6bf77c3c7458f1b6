"""Where weights can hide, how they are used, and what values they hold."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from builder import fixture


@fixture
def constant_weights(b):
    """Conv and MatMul weights in `Constant` nodes, opset 11, as PaddleOCR exports them."""
    b.opset = 11
    b.input("x", ["n", 3, 8, 8], (2, 3, 8, 8))
    w = b.constant_node("conv_w", b.draw(16, 3, 3, 3))
    bias = b.constant_node("conv_b", b.normal(16, 0.1))
    b.node("Conv", ["x", w, bias], "c", pads=[1, 1, 1, 1])
    b.node("Relu", ["c"], "r")
    b.node("GlobalAveragePool", ["r"], "p")
    b.node("Flatten", ["p"], "f")
    m = b.constant_node("matmul_w", b.draw(16, 40))
    b.node("MatMul", ["f", m], "y")
    b.output("y", ["n", 40])


@fixture
def constant_variants(b):
    """`Constant` nodes with every kind of value: tensor, `value_float(s)`, `value_int(s)`, `sparse_value`."""
    b.input("x", ["n", 32], (3, 32))
    dense = b.draw(32, 32)
    dense[np.abs(dense) < 0.15] = 0
    flat = np.flatnonzero(dense).astype(np.int64)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense.ravel()[flat], "sparse_values"),
        numpy_helper.from_array(flat, "sparse_indices"),
        [32, 32],
    )
    b.node("Constant", [], "w_sparse", sparse_value=sparse)
    b.node("Constant", [], "gain", value_float=1.5)
    b.node("Constant", [], "bias", value_floats=[float(v) for v in b.normal(32, 0.1)])
    b.node("Constant", [], "axis", value_int=1)
    b.node("Constant", [], "shape", value_ints=[-1, 4, 8])
    b.node("MatMul", ["x", "w_sparse"], "m")
    b.node("Mul", ["m", "gain"], "g")
    b.node("Add", ["g", "bias"], "a")
    b.node("CumSum", ["a", "axis"], "s")
    b.node("Reshape", ["s", "shape"], "y")
    b.output("y", ["n", 4, 8])


@fixture
def shared_identity(b):
    """One weight used by 8 MatMuls through chains of `Identity`, and by a ninth inside an `If` branch."""
    b.input("x", ["n", 48], (3, 48))
    b.input("flag", [], np.array(True))
    b.weight("shared", 48, 48)
    b.node("Identity", ["shared"], "alias0")
    for k in range(7):
        b.node("Identity", [f"alias{k}"], f"alias{k + 1}")
    x = "x"
    for k in range(8):
        m = b.node("MatMul", [x, f"alias{k}" if k else "shared"], f"m{k}")
        x = b.node("Tanh", [m], f"t{k}")
    then, other = b.child("then"), b.child("else")
    then.node("MatMul", [x, "alias3"], "then_y")
    then.output("then_y", ["n", 48])
    other.node("Identity", [x], "else_y")
    other.output("else_y", ["n", 48])
    b.node("If", ["flag"], "y", then_branch=then.graph(), else_branch=other.graph())
    b.output("y", ["n", 48])


@fixture
def weight_two_roles(b):
    """One weight used as MatMul right side, as Gemm `transB=1`, and reshaped as a convolution kernel."""
    b.input("x", ["n", 32], (3, 32))
    b.input("image", [1, 32, 4, 4])
    b.weight("w", 32, 32)
    b.const("kernel_shape", [32, 32, 1, 1], np.int64)
    b.node("MatMul", ["x", "w"], "y0")
    b.node("Gemm", ["x", "w"], "y1", transB=1)
    b.node("Reshape", ["w", "kernel_shape"], "kernel")
    b.node("Conv", ["image", "kernel"], "y2")
    b.output("y0", ["n", 32])
    b.output("y1", ["n", 32])
    b.output("y2", [1, 32, 4, 4])


@fixture
def gemm_variants(b):
    """Gemm with every mix of transA, transB, alpha, beta, bias [N], [1,N], [M,N], scalar, none; weight as A."""
    m, k, n = 4, 32, 24
    b.input("x", [m, k])
    b.input("xt", [k, m])
    b.weight("w_kn", k, n)
    b.weight("w_nk", n, k)
    b.const("bias_n", b.normal(n, 0.5))
    b.const("bias_1n", b.normal((1, n), 0.5))
    b.const("bias_mn", b.normal((m, n), 0.5))
    b.const("bias_m1", b.normal((m, 1), 0.5))
    b.const("bias_scalar", b.normal((), 0.5))
    b.weight("left_mk", 48, k)
    b.weight("left_km", k, 48)
    cases = [
        (["x", "w_kn"], {}),
        (["x", "w_kn", "bias_n"], {}),
        (["x", "w_nk", "bias_n"], {"transB": 1}),
        (["x", "w_nk", "bias_1n"], {"transB": 1, "alpha": 0.5}),
        (["xt", "w_kn", "bias_mn"], {"transA": 1, "beta": 2.0}),
        (["xt", "w_nk", "bias_scalar"], {"transA": 1, "transB": 1, "alpha": -1.5, "beta": 0.25}),
        (["x", "w_kn", "bias_m1"], {"beta": 0.0}),
        (["left_mk", "xt"], {"alpha": 2.0}),
        (["left_km", "xt", "bias_scalar"], {"transA": 1}),
    ]
    for index, (inputs, attributes) in enumerate(cases):
        rows, columns = (48, m) if inputs[0].startswith("left") else (m, n)
        b.output(b.node("Gemm", inputs, f"y{index}", **attributes), [rows, columns])


@fixture
def matmul_left(b):
    """MatMul with the constant on the left, with and without a batch."""
    b.input("x", [32, "n"], (32, 5))
    b.input("batch", ["b", 32, 6], (2, 32, 6))
    b.weight("w", 48, 32)
    b.output(b.node("MatMul", ["w", "x"], "y0"), [48, "n"])
    b.output(b.node("MatMul", ["w", "batch"], "y1"), ["b", 48, 6])


@fixture
def matmul_batched(b):
    """MatMul with constants of rank 3 and 4, one matrix for each batch index, and broadcast."""
    b.input("x", [4, 5, 16])
    b.const("w3", b.normal((4, 16, 24), 0.25))
    b.const("w4", b.normal((2, 1, 24, 20), 0.2))
    b.node("MatMul", ["x", "w3"], "m")
    b.node("MatMul", ["m", "w4"], "y")
    b.output("y", [2, 4, 5, 20])


@fixture
def matmul_vector(b):
    """MatMul with a one-dimensional constant on the right (no output-channel axis) and on the left."""
    b.input("x", ["n", 300], (3, 300))
    b.input("z", [300, 7])
    b.const("v", b.normal(300, 0.06))
    b.output(b.node("MatMul", ["x", "v"], "y0"), ["n"])
    b.output(b.node("MatMul", ["v", "z"], "y1"), [7])


@fixture
def weight_is_output(b):
    """A MatMul weight that is also a graph output: its name, type and values must stay."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 32])
    b.output("w", [32, 32])


@fixture
def weight_used_by_add(b):
    """A large constant table that goes into Add (positions), not into a product."""
    b.input("x", [1, 40, 32])
    b.const("positions", b.normal((1, 40, 32), 0.5))
    b.weight("w", 32, 32)
    b.node("Add", ["x", "positions"], "a")
    b.output(b.node("MatMul", ["a", "w"], "y"), [1, 40, 32])


@fixture
def transposed_weight(b):
    """MatMul weight behind a Transpose node, and one Transpose feeding two MatMuls."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 48, 32)
    b.weight("u", 48, 32)
    b.node("Transpose", ["w"], "wt", perm=[1, 0])
    b.node("Transpose", ["u"], "ut")
    b.node("MatMul", ["x", "wt"], "y0")
    b.node("MatMul", ["x", "ut"], "y1")
    b.node("Neg", ["x"], "negative")
    b.node("MatMul", ["negative", "ut"], "y2")
    for name in ("y0", "y1", "y2"):
        b.output(name, ["n", 48])


@fixture
def reshaped_weight(b):
    """Weights behind Reshape, Unsqueeze, Squeeze and Flatten of constants."""
    b.input("x", ["n", 24], (3, 24))
    b.input("image", [1, 16, 4, 4])
    b.weight("flat", 24 * 24)
    b.weight("squeezable", 1, 24, 24)
    b.weight("pointwise", 24, 16)
    b.weight("folded", 24, 4, 6)
    b.const("shape", [24, 24], np.int64)
    b.const("axis0", [0], np.int64)
    b.const("axes23", [2, 3], np.int64)
    b.node("Reshape", ["flat", "shape"], "w0")
    b.node("Squeeze", ["squeezable", "axis0"], "w1")
    b.node("Flatten", ["folded"], "w2")
    b.node("Unsqueeze", ["pointwise", "axes23"], "kernel")
    for k in range(3):
        b.output(b.node("MatMul", ["x", f"w{k}"], f"y{k}"), ["n", 24])
    b.output(b.node("Conv", ["image", "kernel"], "y3"), [1, 24, 4, 4])


@fixture
def computed_weight(b):
    """Weights computed from constants at run time: Mul(w, gain), Concat of halves, weight normalisation."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("direction", 32, 32)
    b.const("gain", b.normal((1, 32), 1.0))
    b.weight("left", 32, 16)
    b.weight("right", 32, 16)
    b.node("ReduceL2", ["direction"], "norm", axes=[0], keepdims=1)
    b.node("Div", ["direction", "norm"], "unit")
    b.node("Mul", ["unit", "gain"], "w0")
    b.node("Concat", ["left", "right"], "w1", axis=1)
    b.output(b.node("MatMul", ["x", "w0"], "y0"), ["n", 32])
    b.output(b.node("MatMul", ["x", "w1"], "y1"), ["n", 32])


@fixture
def embedding_gather(b):
    """An embedding table read by Gather, then a MatMul; indices must stay inside the table."""
    b.input("ids", ["n", "t"], np.array([[0, 5, 99], [7, 7, 42]], np.int64))
    b.const("table", b.normal((100, 32), 0.5))
    b.weight("w", 32, 32)
    b.node("Gather", ["table", "ids"], "e")
    b.output(b.node("MatMul", ["e", "w"], "y"), ["n", "t", 32])


@fixture
def embedding_tied(b):
    """One table used by Gather and, through a Transpose node, by the final MatMul."""
    b.input("ids", [1, "t"], np.array([[3, 1, 4, 1, 59]], np.int64))
    b.const("table", b.normal((80, 32), 0.3))
    b.weight("w", 32, 32)
    b.node("Gather", ["table", "ids"], "e")
    b.node("MatMul", ["e", "w"], "h")
    b.node("Tanh", ["h"], "a")
    b.node("Transpose", ["table"], "table_t", perm=[1, 0])
    b.output(b.node("MatMul", ["a", "table_t"], "y"), [1, "t", 80])


@fixture
def unused_initializers(b):
    """A float32 initializer that nothing uses, larger than all the others, and an unused node."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.weight("unused", 64, 64)
    b.weight("dead_w", 32, 32)
    b.node("MatMul", ["x", "dead_w"], "dead")
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 32])


@fixture
def sparse_initializer(b):
    """A MatMul weight stored as `sparse_initializer` beside dense ones."""
    b.input("x", ["n", 32], (2, 32))
    dense = b.draw(32, 32)
    flat = np.sort(b.random.permutation(32 * 32)[:300]).astype(np.int64)
    b.sparse.append(
        helper.make_sparse_tensor(
            numpy_helper.from_array(dense.ravel()[flat], "w_sparse"),
            numpy_helper.from_array(flat, "w_sparse_indices"),
            [32, 32],
        )
    )
    b.weight("w", 32, 32)
    b.node("MatMul", ["x", "w_sparse"], "m")
    b.output(b.node("MatMul", ["m", "w"], "y"), ["n", 32])
    # The checker's shape inference does not look at sparse initializers.
    return b.fixture(checks=False)


@fixture
def fp16_model(b):
    """Weights and arithmetic already in float16, inputs and outputs too."""
    half = np.float16
    b.input("x", ["n", 3, 8, 8], b.normal((1, 3, 8, 8), 1.0, half))
    b.weight("kernel", 16, 3, 3, 3, dtype=half)
    b.weight("w", 16, 48, dtype=half)
    b.node("Conv", ["x", "kernel"], "c")
    b.node("Relu", ["c"], "r")
    b.node("GlobalAveragePool", ["r"], "p")
    b.node("Flatten", ["p"], "f")
    b.output(b.node("MatMul", ["f", "w"], "y"), ["n", 48], TensorProto.FLOAT16)


@fixture
def fp16_weights(b):
    """float16 weights behind `Cast(to=FLOAT)`, arithmetic in float32: already small."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 48, dtype=np.float16)
    b.node("Cast", ["w"], "w_float", to=TensorProto.FLOAT)
    b.output(b.node("MatMul", ["x", "w_float"], "y"), ["n", 48])


@fixture
def double_model(b):
    """Everything in float64."""
    b.input("x", ["n", 32], b.normal((2, 32), 1.0, np.float64))
    b.weight("w", 32, 32, dtype=np.float64)
    b.weight("u", 24, 32, dtype=np.float64)
    b.const("bias", b.normal(24, 0.1, np.float64))
    b.node("MatMul", ["x", "w"], "h")
    b.output(b.node("Gemm", ["h", "u", "bias"], "y", transB=1), ["n", 24], TensorProto.DOUBLE)


@fixture
def bf16_weights(b):
    """bfloat16 weights behind `Cast(to=FLOAT)`."""
    b.input("x", ["n", 32], (2, 32))
    bits = (b.draw(32, 48).view(np.uint32) >> 16).astype(np.uint16)
    b.initializers.append(helper.make_tensor("w", TensorProto.BFLOAT16, [32, 48], bits.tobytes(), raw=True))
    b.node("Cast", ["w"], "w_float", to=TensorProto.FLOAT)
    b.output(b.node("MatMul", ["x", "w_float"], "y"), ["n", 48])


@fixture
def zero_size_tensor(b):
    """A MatMul weight with no columns, a Concat with an empty constant, and an ordinary layer."""
    b.input("x", ["n", 32], (2, 32))
    b.const("nothing", np.zeros((32, 0), np.float32))
    b.weight("w", 32, 32)
    b.node("MatMul", ["x", "nothing"], "empty")
    b.node("MatMul", ["x", "w"], "m")
    b.node("Concat", ["m", "empty"], "y", axis=1)
    b.output("y", ["n", 32])
    b.output("empty", ["n", 0])


@fixture
def scalar_weights(b):
    """Constants of rank 0, of shape [1] and [1, 1] as Mul, Add and MatMul operands."""
    b.input("x", ["n", 32], (2, 32))
    b.const("gain", np.float32(1.7))
    b.const("shift", np.array([0.3], np.float32))
    b.const("one_by_one", np.array([[0.9]], np.float32))
    b.weight("w", 32, 1)
    b.node("Mul", ["x", "gain"], "a")
    b.node("Add", ["a", "shift"], "s")
    b.node("MatMul", ["s", "w"], "m")
    b.output(b.node("MatMul", ["m", "one_by_one"], "y"), ["n", 1])


@fixture
def nan_weights(b):
    """A weight that holds a NaN, one that holds infinities, and a healthy one."""
    b.input("x", ["n", 32], (2, 32))
    with_nan, with_inf = b.draw(32, 32), b.draw(32, 32)
    with_nan[3, 5] = np.nan
    with_inf[1, 2], with_inf[7, 9] = np.inf, -np.inf
    b.const("with_nan", with_nan)
    b.const("with_inf", with_inf)
    b.weight("healthy", 32, 32)
    for k, w in enumerate(("with_nan", "with_inf", "healthy")):
        b.output(b.node("MatMul", ["x", w], f"y{k}"), ["n", 32])


@fixture
def huge_range_weights(b):
    """Denormals, values near 1e30, both in one channel, and values beyond float16."""
    b.input("x", ["n", 32], (2, 32))
    tiny, huge, mixed, beyond_half = (b.draw(32, 32) for _ in range(4))
    b.const("tiny", tiny * np.float32(1e-38) * np.float32(1e-3))
    b.const("huge", huge * np.float32(1e30))
    mixed[:, 0] *= np.float32(1e30)
    mixed[4, 1] = 1e30
    mixed[5, 2] = 1e-44
    b.const("mixed", mixed)
    beyond_half[0, 0] = 70000.0
    b.const("beyond_half", beyond_half)
    for k, w in enumerate(("tiny", "huge", "mixed", "beyond_half")):
        b.output(b.node("MatMul", ["x", w], f"y{k}"), ["n", 32])


@fixture
def outlier_weights(b):
    """One weight in a channel is 200 times as large as the mean: a scale that covers it wastes the rest."""
    b.input("x", ["n", 64], (4, 64))
    w = b.draw(64, 48)
    w[17, 3] = 200 * np.abs(w).mean()
    w[5, :] *= 30
    b.const("w", w)
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 48])


@fixture
def all_zero_weights(b):
    """One output channel is all zero, one weight is zero everywhere: scales must not divide by zero."""
    b.input("x", ["n", 32], (2, 32))
    b.input("image", [1, 8, 5, 5])
    w, kernel = b.draw(32, 32), b.draw(16, 8, 3, 3)
    w[:, 4] = 0
    kernel[2] = 0
    b.const("w", w)
    b.const("kernel", kernel)
    b.const("zeros", np.zeros((32, 32), np.float32))
    b.output(b.node("MatMul", ["x", "w"], "y0"), ["n", 32])
    b.output(b.node("MatMul", ["x", "zeros"], "y1"), ["n", 32])
    b.output(b.node("Conv", ["image", "kernel"], "y2"), [1, 16, 3, 3])
