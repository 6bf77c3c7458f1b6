"""Small models whose conversion to 16 bits is hard to prove, or whose weights are of 16 bits.

    python make.py FOLDER

writes them into the folder. They are made when tests run, not kept. Weights are random and seeded.

- `gemm.onnx`: a product with a bias, which tract cannot run in float16;
- `conv.onnx`: convolutions of 64 channels, which tract takes seconds for in float16;
- `loop.onnx`: products inside a branch of an `If` and in the body of a `Loop`;
- `contrib.onnx`: operators of com.microsoft around ordinary ones, with weights of their own;
- `casted.onnx`: weights stored in float16, cast to float32 before they are read, one of them behind
  an `Identity`, one behind a `Transpose`.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
SAME = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1]}
random = np.random.default_rng(11)


def weight(name, *shape, scale=None):
    scale = scale or 1 / np.sqrt(shape[-1])
    return numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name)


def narrow(tensor):
    array = numpy_helper.to_array(tensor).astype(np.float16)
    return numpy_helper.from_array(array, tensor.name)


def info(name, shape, ty=FLOAT):
    return helper.make_tensor_value_info(name, ty, shape)


def save(name, nodes, inputs, outputs, weights, opset=17, domains=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, 1) for d in domains]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, f"{sys.argv[1]}/{name}.onnx")


def gemm():
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], name="relu"),
        helper.make_node("Gemm", ["h", "W", "b"], ["y"], name="gemm", transB=1),
    ]
    weights = [weight("W", 100, 64), weight("b", 100, scale=0.1)]
    save("gemm", nodes, [info("x", ["n", 64])], [info("y", ["n", 100])], weights)


def conv():
    nodes, last = [], "x"
    for index in range(3):
        nodes.append(
            helper.make_node("Conv", [last, "K"], [f"c{index}"], name=f"conv{index}", **SAME)
        )
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        last = f"r{index}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["y"], name="pool"))
    weights = [weight("K", 64, 64, 3, 3, scale=0.058)]
    save("conv", nodes, [info("x", [1, 64, 56, 56])], [info("y", [1, 64, 1, 1])], weights, 13)


def loop():
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "V"], ["t"], name="then")], "then", [], [info("t", [4, 64])]
    )
    other = helper.make_graph(
        [helper.make_node("Sigmoid", ["x"], ["e"], name="else")], "else", [], [info("e", [4, 64])]
    )
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", "W"], ["p"], name="step"),
            helper.make_node("Tanh", ["p"], ["next"], name="tanh"),
            helper.make_node("Identity", ["go"], ["on"], name="on"),
        ],
        "body",
        [info("turn", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("s", [4, 64])],
        [info("on", [], TensorProto.BOOL), info("next", [4, 64])],
    )
    nodes = [
        helper.make_node("If", ["c"], ["h"], name="if", then_branch=then, else_branch=other),
        helper.make_node("Loop", ["turns", "true", "h"], ["y"], name="loop", body=body),
    ]
    weights = [
        weight("V", 64, 64),
        weight("W", 64, 64),
        numpy_helper.from_array(np.array(3, np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "true"),
    ]
    inputs = [info("x", [4, 64]), info("c", [], TensorProto.BOOL)]
    save("loop", nodes, inputs, [info("y", [4, 64])], weights)


def contrib():
    domain = "com.microsoft"
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"], name="product"),
        helper.make_node("BiasGelu", ["h", "b"], ["g"], name="gelu", domain=domain),
        helper.make_node("FusedMatMul", ["g", "V"], ["y"], name="fused", domain=domain, transB=1),
    ]
    weights = [weight("W", 64, 96), weight("b", 96, scale=0.1), weight("V", 80, 96)]
    save("contrib", nodes, [info("x", [4, 64])], [info("y", [4, 80])], weights, 14, [domain])


def casted():
    def cast(source, name):
        return helper.make_node("Cast", [source], [name], name=f"InsertedCast_{name}", to=FLOAT)

    nodes = [
        cast("K16", "K"),
        cast("b16", "b"),
        helper.make_node("Conv", ["x", "K", "b"], ["c"], name="conv", **SAME),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalMaxPool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        cast("W16", "W"),
        helper.make_node("Identity", ["W"], ["Wi"], name="same"),
        helper.make_node("Gemm", ["f", "Wi"], ["g"], name="gemm", transB=1),
        cast("V16", "Vf"),
        helper.make_node("Transpose", ["Vf"], ["V"], name="transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["g", "V"], ["y"], name="matmul"),
    ]
    weights = [
        narrow(weight("K16", 64, 16, 3, 3, scale=0.1)),
        narrow(weight("b16", 64, scale=0.1)),
        narrow(weight("W16", 100, 64)),
        narrow(weight("V16", 80, 100)),
    ]
    save("casted", nodes, [info("x", [1, 16, 16, 16])], [info("y", [1, 80])], weights, 11)


for make in (gemm, conv, loop, contrib, casted):
    make()
