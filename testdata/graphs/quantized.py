"""Models that are quantized already, wholly or in part: to be left alone."""

import numpy as np
from onnx import TensorProto
from builder import fixture, quantize_per_channel


def dynamic_matmul(b, prefix, source, target, weight):
    """DynamicQuantizeLinear → MatMulInteger → Cast → Mul, per-channel int8 weight."""
    quantized, scale = quantize_per_channel(weight, 1)
    w = b.const(f"{prefix}_w_q", quantized)
    w_scale = b.const(f"{prefix}_w_scale", scale)
    b.node("DynamicQuantizeLinear", [source], [f"{prefix}_q", f"{prefix}_scale", f"{prefix}_zero"])
    b.node("MatMulInteger", [f"{prefix}_q", w, f"{prefix}_zero"], f"{prefix}_int")
    b.node("Cast", [f"{prefix}_int"], f"{prefix}_float", to=TensorProto.FLOAT)
    b.node("Mul", [f"{prefix}_scale", w_scale], f"{prefix}_scales")
    return b.node("Mul", [f"{prefix}_float", f"{prefix}_scales"], target)


@fixture
def already_quantized_qdq(b):
    """Static QDQ: activations through Q→DQ, one weight int8 behind DQ, one float weight behind Q→DQ."""
    b.input("x", [1, 8, 6, 6])
    b.const("x_scale", np.float32(0.03))
    b.const("x_zero", np.uint8(128))
    stored, w_scale = quantize_per_channel(b.draw(16, 8, 3, 3), 0)
    b.const("w_q", stored)
    b.const("w_scale", w_scale)
    b.const("w_zero", np.zeros(16, np.int8))
    float_weight = b.draw(16, 16, 1, 1)
    b.const("u", float_weight)
    b.const("u_scale", np.float32(np.abs(float_weight).max() / 127))
    b.const("u_zero", np.int8(0))

    def round_trip(source, target, scale="x_scale", zero="x_zero"):
        b.node("QuantizeLinear", [source, scale, zero], f"{target}_q")
        return b.node("DequantizeLinear", [f"{target}_q", scale, zero], target)

    round_trip("x", "x_dq")
    b.node("DequantizeLinear", ["w_q", "w_scale", "w_zero"], "w", axis=0)
    b.node("Conv", ["x_dq", "w"], "c")
    b.node("Relu", ["c"], "r")
    round_trip("r", "r_dq")
    round_trip("u", "u_dq", "u_scale", "u_zero")
    b.node("Conv", ["r_dq", "u_dq"], "y_float")
    b.output(round_trip("y_float", "y"), [1, 16, 4, 4])


@fixture
def already_quantized_dynamic(b):
    """DynamicQuantizeLinear → MatMulInteger, twice."""
    b.input("x", ["n", 32], (3, 32))
    dynamic_matmul(b, "a", "x", "h", b.draw(32, 48))
    b.node("Relu", ["h"], "r")
    b.output(dynamic_matmul(b, "c", "r", "y", b.draw(48, 32)), ["n", 32])


@fixture
def already_quantized_qlinear(b):
    """QLinearConv and QLinearMatMul: int8 from end to end, scales as constants."""
    b.input("x", [1, 4, 6, 6])
    kernel, kernel_scale = quantize_per_channel(b.draw(16, 4, 3, 3), 0)
    weight, weight_scale = quantize_per_channel(b.draw(64, 24), 1)
    b.const("scale", np.float32(0.03))
    b.const("zero", np.uint8(128))
    b.const("kernel", kernel)
    b.const("kernel_scale", kernel_scale)
    b.const("kernel_zero", np.zeros(16, np.int8))
    b.const("w", weight)
    b.const("w_scale", weight_scale)
    b.const("w_zero", np.zeros(24, np.int8))
    b.node("QuantizeLinear", ["x", "scale", "zero"], "q")
    b.node("QLinearConv", ["q", "scale", "zero", "kernel", "kernel_scale", "kernel_zero", "scale", "zero"], "c")
    b.const("shape", [4, 64], np.int64)
    b.node("Reshape", ["c", "shape"], "f")
    b.node("QLinearMatMul", ["f", "scale", "zero", "w", "w_scale", "w_zero", "scale", "zero"], "m")
    b.output(b.node("DequantizeLinear", ["m", "scale", "zero"], "y"), [4, 24])


@fixture
def already_int8_weights(b):
    """The int8-weights pattern itself, int8 → Cast → Mul(scale) → layer, for Conv, MatMul and Gather."""
    b.input("x", [1, 8, 5, 5])
    b.input("ids", ["t"], np.array([1, 2, 63], np.int64))

    def restored(prefix, weight, axis):
        quantized, scale = quantize_per_channel(weight, axis)
        shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
        b.const(f"{prefix}_q", quantized)
        b.const(f"{prefix}_scale", scale.reshape(shape))
        b.node("Cast", [f"{prefix}_q"], f"{prefix}_cast", to=TensorProto.FLOAT)
        return b.node("Mul", [f"{prefix}_cast", f"{prefix}_scale"], prefix)

    b.output(b.node("Conv", ["x", restored("kernel", b.draw(16, 8, 3, 3), 0)], "y0"), [1, 16, 3, 3])
    table, scale = quantize_per_channel(b.draw(64, 32), 1)
    b.const("table_q", table)
    b.const("table_scale", scale)
    b.node("Gather", ["table_q", "ids"], "rows")
    b.node("Cast", ["rows"], "rows_float", to=TensorProto.FLOAT)
    b.node("Mul", ["rows_float", "table_scale"], "e")
    b.output(b.node("MatMul", ["e", restored("w", b.draw(32, 32), 1)], "y1"), ["t", 32])


@fixture
def partly_quantized(b):
    """A dynamically quantized MatMul followed by a float32 one: only the second is to be touched."""
    b.input("x", ["n", 32], (3, 32))
    dynamic_matmul(b, "a", "x", "h", b.draw(32, 48))
    b.node("Relu", ["h"], "r")
    b.weight("float_w", 48, 32)
    b.output(b.node("MatMul", ["r", "float_w"], "y"), ["n", 32])


@fixture
def dynamic_quantize_lstm(b):
    """com.microsoft DynamicQuantizeLSTM beside a float32 MatMul; a contrib operator without ONNX schema."""
    units, inputs = 16, 12
    b.domains["com.microsoft"] = 1
    b.input("x", ["t", 2, inputs], (5, 2, inputs))
    for name, rows in (("W", inputs), ("R", units)):
        weight = b.normal((1, rows, 4 * units), 0.25)
        scale = np.abs(weight).max() / 127
        b.const(f"{name}_q", np.rint(weight / scale).astype(np.int8))
        b.const(f"{name}_scale", np.array([scale], np.float32))
        b.const(f"{name}_zero", np.zeros(1, np.int8))
    b.const("B", b.normal((1, 8 * units), 0.1))
    b.node(
        "DynamicQuantizeLSTM",
        ["x", "W_q", "R_q", "B", "", "", "", "", "W_scale", "W_zero", "R_scale", "R_zero"],
        ["sequence", "h"],
        domain="com.microsoft",
        hidden_size=units,
        direction="forward",
    )
    b.weight("w", units, 64)
    b.output(b.node("MatMul", ["h", "w"], "y"), [1, 2, 64])


@fixture
def already_nbits(b):
    """com.microsoft MatMulNBits with 4-bit weights beside a float32 MatMul."""
    rows, columns, block = 64, 32, 32
    b.domains["com.microsoft"] = 1
    b.input("x", ["n", rows], (3, rows))
    b.const("packed", b.random.randint(0, 256, (columns, rows // block, block // 2)).astype(np.uint8))
    b.const("scales", b.random.uniform(0.01, 0.03, (columns, rows // block)).astype(np.float32))
    b.node(
        "MatMulNBits", ["x", "packed", "scales"], "m", domain="com.microsoft",
        K=rows, N=columns, bits=4, block_size=block,
    )  # fmt: skip
    b.weight("w", columns, 40)
    b.output(b.node("MatMul", ["m", "w"], "y"), ["n", 40])
