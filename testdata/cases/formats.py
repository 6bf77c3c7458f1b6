"""Models whose weights stand where or as they are not expected."""

import numpy as np
from case import Case, case, normal
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64


@case
def odd_ranks(b, random):
    """Weights of products with three and four axes, one per head, on the left, and vectors: a runtime
    may have a wrong kernel for batches of int8 matrices."""
    b.opset = 13
    b.input("x", ["n", 8, WIDTH], (1, 8, WIDTH))
    axis = b.const("axis", [1], np.int64)

    def weight(name, *shape, scale=0.125):
        return b.const(name, normal(random, *shape, scale=scale))

    b.node("MatMul", ["x", weight("three.weight", 1, WIDTH, WIDTH)], "three")
    b.node("Unsqueeze", ["three", axis], "four_axes")
    b.node("MatMul", ["four_axes", weight("heads.weight", 4, WIDTH, WIDTH)], "heads")
    b.node("ReduceSum", ["heads", axis], "heads_sum", keepdims=0)
    b.node("MatMul", ["four_axes", weight("four.weight", 1, 1, WIDTH, WIDTH)], "four")
    b.node("Add", ["heads_sum", b.node("Squeeze", ["four", axis], "four_flat")], "sum")
    b.node("MatMul", [weight("left.weight", 1024, 8, scale=0.3), "sum"], "left")
    b.node("MatMul", ["left", weight("right_vector.weight", WIDTH, scale=0.2)], "by_row")
    b.node("MatMul", [weight("left_vector.weight", 1024, scale=0.03), "left"], "by_column")
    b.output("by_row", ["n", 1024])
    b.output("by_column", ["n", WIDTH])
    return [{"x": normal(random, 1 + index, 8, WIDTH)} for index in range(3)]


@case
def sparse_weight(b, random):
    """A pruned weight as a sparse initializer, and a dense one."""
    b.opset, width = 13, 128
    b.input("x", ["n", width], (2, width))
    pruned = normal(random, width, width, scale=0.09)
    pruned[random.random(pruned.shape) < 0.9] = 0
    places = np.flatnonzero(pruned).astype(np.int64)
    values = numpy_helper.from_array(pruned.ravel()[places], "pruned.weight")
    indices = numpy_helper.from_array(places, "pruned.places")
    b.sparse.append(helper.make_sparse_tensor(values, indices, pruned.shape))
    value = b.node("Relu", [b.node("MatMul", ["x", "pruned.weight"], "hidden")], "active")
    b.node("MatMul", [value, b.const("dense.weight", normal(random, width, width, scale=0.09))], "y")
    b.output("y", ["n", width])
    return [{"x": normal(random, 2, width)} for _ in range(3)]


@case
def half_weights_cast(b, random):
    """Weights are float16 in the file and cast to float32, as some converters leave them."""
    b.opset, b.ir = 11, 6
    b.input("x", [1, 16, 16, 16], (1, 16, 16, 16))

    def widened(name, *shape):
        half = b.const(f"{name}.half", normal(random, *shape, scale=0.1).astype(np.float16))
        return b.node("Cast", [half], f"InsertedCast_{name}", to=TensorProto.FLOAT)

    weights = [widened("conv.weight", 128, 16, 3, 3), widened("conv.bias", 128)]
    value = b.node("Relu", [b.node("Conv", ["x", *weights], "conv", pads=[1] * 4)], "active")
    value = b.node("Flatten", [b.node("GlobalAveragePool", [value], "pooled")], "flat")
    b.node("Gemm", [value, widened("fc.weight", 100, 128)], "y", transB=1)
    b.output("y", [1, 100])
    return [{"x": normal(random, 1, 16, 16, 16)} for _ in range(3)]


@case
def old_operators(b, random):
    """Opset 6, whose Mul broadcasts by attributes only: newer runtimes have no kernel for it."""
    b.opset, b.ir = 6, 3
    b.input("x", [1, 8, 16, 16], (1, 8, 16, 16))
    # Until IR version 3 every initializer is an input, too.
    kernel = normal(random, 48, 8, 3, 3, scale=0.12)
    b.input("conv.weight", list(kernel.shape), kernel)
    b.const("conv.weight", kernel)
    value = b.node("Relu", [b.node("Conv", ["x", "conv.weight"], "conv", pads=[1] * 4)], "active")
    value = b.node("Flatten", [b.node("GlobalAveragePool", [value], "pooled")], "flat")
    weight = normal(random, 48, 64, scale=0.14)
    b.input("fc.weight", list(weight.shape), weight)
    b.const("fc.weight", weight)
    b.node("MatMul", [value, "fc.weight"], "y")
    b.output("y", [1, 64])
    return [{"x": normal(random, 1, 8, 16, 16)} for _ in range(3)]


@case
def bad_samples(b, random):
    """A sound model; beside its samples are some without a number in them, and some of another type."""
    b.input("x", ["n", WIDTH], (4, WIDTH))
    weight = b.const("fc.weight", normal(random, WIDTH, 100, scale=0.1))
    b.node("MatMul", [b.node("Relu", ["x"], "active"), weight], "y")
    b.output("y", ["n", 100])
    good = [{"x": normal(random, 4, WIDTH)} for _ in range(3)]
    nothing = [{"x": np.full((4, WIDTH), np.nan, np.float32)} for _ in range(2)]
    double = [{"x": sample["x"].astype(np.float64)} for sample in good]
    return Case(b.model(), good, {"nan": nothing, "double": double})
