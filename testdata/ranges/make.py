"""Small models of what is computed on integers by ranges, one for each kind. Run in this folder.

Each takes `x` (float32, [1, 8, 10, 10]) and makes `y`. Weights are drawn with a fixed seed; samples are smooth, as
pictures are, so that what is convolved is not noise alone.
"""

import os

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as H
from onnx import numpy_helper as N

CHANNELS, SIZE = 8, 10


class Graph:
    """Nodes and constants of a model, from `x` on."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0
        self.random = np.random.default_rng(7)

    def name(self, base):
        self.count += 1
        return f"{base.lower()}_{self.count}"

    def const(self, content, kind=np.float32, name=None):
        name = name or self.name("c")
        self.constants.append(N.from_array(np.array(content, kind), name))
        return name

    def weight(self, *shape):
        fan = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        return self.const(self.random.standard_normal(shape) * np.sqrt(2 / fan))

    def op(self, op, *inputs, outputs=None, **attributes):
        made = outputs or [self.name(op)]
        self.nodes.append(H.make_node(op, list(inputs), made, name=f"n_{made[0]}", **attributes))
        return made[0] if outputs is None else made

    def conv(self, x, outputs=CHANNELS, inputs=CHANNELS, size=3, bias=True, groups=1, **attributes):
        operands = [x, self.weight(outputs, inputs // groups, size, size)]
        if bias:
            operands.append(self.const(self.random.standard_normal(outputs) * 0.1))
        attributes.setdefault("pads", [size // 2] * 4)
        return self.op("Conv", *operands, kernel_shape=[size, size], group=groups, **attributes)

    def save(self, name, y, opset=13, inputs=()):
        self.nodes.append(H.make_node("Identity", [y], ["y"], name="last"))
        x = H.make_tensor_value_info("x", T.FLOAT, [1, CHANNELS, SIZE, SIZE])
        unknown = H.make_tensor_value_info("y", T.FLOAT, None)
        graph = H.make_graph(self.nodes, name, [x, *inputs], [unknown], self.constants)
        model = H.make_model(graph, opset_imports=[H.make_opsetid("", opset)], producer_name="testdata")
        model.ir_version = 7
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, f"{name}.onnx")


def cut_off(name, opset=13):
    g = Graph()
    h = g.op("Relu", g.conv("x"))
    c = g.conv(h, bias=False, strides=[2, 2])
    bounds = (g.const(0.0), g.const(6.0)) if opset >= 11 else ()
    y = g.op("Clip", c, *bounds) if bounds else g.op("Clip", c, min=0.0, max=6.0)
    g.save(name, y, opset)


def residual(name, opset=13):
    g = Graph()
    h = g.op("Relu", g.conv("x"))
    s = g.op("Relu", g.op("Add", g.conv(h), h))
    g.save(name, g.conv(s), opset)


def joined():
    g = Graph()
    c = g.op("Concat", g.conv("x"), g.op("Relu", g.conv("x", size=1)), axis=-3)
    g.save("joined", g.conv(c, inputs=16, size=1))


def silu():
    g = Graph()
    c = g.conv("x")
    m = g.op("Mul", c, g.op("Sigmoid", c))
    l = g.op("LeakyRelu", g.conv(m), alpha=0.1)
    g.save("silu", g.conv(l))


def constants():
    g = Graph()
    c = g.conv("x")
    m = g.op("Mul", g.op("Add", c, g.conv(c)), g.weight(1, CHANNELS, 1, 1))
    # What stands behind keeps both out of the layers around them.
    a = g.op("LeakyRelu", g.op("Add", g.const(0.5), m), alpha=0.2)
    g.save("constants", g.conv(a))


def movers(name, opset):
    g = Graph()
    c = g.conv("x")
    p = g.op("MaxPool", c, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    t = g.op("Transpose", p, perm=[0, 1, 3, 2])
    r = g.op("Reshape", t, g.const([1, 4, 2, SIZE, SIZE], np.int64))
    r = g.op("Reshape", r, g.const([1, CHANNELS, SIZE, SIZE], np.int64))
    lists = [[g.const(v, np.int64) for v in vs] for vs in ([[0], [8], [1]], [[0], [4], [1]])]
    s = g.op("Slice", r, *lists[0][:2], g.const([2], np.int64))
    w = g.op("Gather", s, g.const([7, 5, 3, 1, 0, 2, 4, 6], np.int64), axis=1)
    if opset >= 13:
        axes = g.const([2], np.int64)
        w = g.op("Squeeze", g.op("Unsqueeze", w, axes), axes)
        left, right = g.op("Split", w, g.const([4, 4], np.int64), outputs=["left", "right"], axis=1)
    else:
        w = g.op("Squeeze", g.op("Unsqueeze", w, axes=[2]), axes=[2])
        left, right = g.op("Split", w, outputs=["left", "right"], axis=1, split=[4, 4])
    e = g.op("Expand", g.conv(left, inputs=4, size=1), g.const([1, CHANNELS, 8, SIZE], np.int64))
    u = g.op("Concat", e, g.conv(right, inputs=4, size=1), axis=1)
    sizes = ("", g.const([1, 1, 2, 2])) if opset >= 13 else (g.const([], np.float32), g.const([1, 1, 2, 2]))
    z = g.op("Resize", u, *sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    g.save(name, g.conv(z, inputs=16), opset)


def groups():
    g = Graph()
    d = g.op("Relu", g.conv("x", groups=CHANNELS))
    d = g.conv(d, groups=2, dilations=[2, 2], pads=[2] * 4)
    flat = g.op("Reshape", d, g.const([1, CHANNELS, SIZE * SIZE], np.int64))
    g.save("groups", g.op("Conv", flat, g.weight(6, CHANNELS, 5), strides=[2]))


def head(name, opset=13):
    g = Graph()
    p = g.op("GlobalAveragePool", g.op("Relu", g.conv("x")))
    f = g.op("Flatten", p)
    h = g.op("Relu", g.op("Gemm", f, g.weight(12, CHANNELS), g.const(g.random.standard_normal(12)), transB=1))
    g.save(name, g.op("Gemm", h, g.weight(12, 5), g.const(0.25)), opset)


def products():
    g = Graph()
    h = g.op("Relu", g.op("MatMul", "x", g.weight(SIZE, 16)))
    g.save("products", g.op("MatMul", h, g.weight(16, 6)))


def shared():
    g = Graph()
    w = g.weight(CHANNELS, CHANNELS, 3, 3)
    c = g.op("Conv", "x", w, g.const(g.random.standard_normal(CHANNELS)))
    g.save("shared", g.op("Conv", g.op("Relu", c), w))


def branch(name, body, output):
    return H.make_graph(body, name, [], [H.make_tensor_value_info(output, T.FLOAT, None)])


def captured():
    g = Graph()
    h = g.conv("x")
    c = g.op("Greater", g.op("ReduceMax", h, keepdims=0), g.const(-1000.0))
    bodies = [branch(op, [H.make_node(op, [h], [f"{op}_y"])], f"{op}_y") for op in ("Neg", "Abs")]
    i = g.op("If", c, then_branch=bodies[0], else_branch=bodies[1])
    g.save("captured", g.op("Sub", g.conv(h), i))


def in_branches():
    g = Graph()
    w, v = g.weight(CHANNELS, CHANNELS, 3, 3), g.weight(CHANNELS, CHANNELS, 3, 3)
    c = g.op("Greater", g.op("ReduceMax", "x", keepdims=0), g.const(-1000.0))
    bodies = [branch(n, [H.make_node("Conv", ["x", w], [f"{n}_y"])], f"{n}_y") for n, w in (("a", w), ("b", v))]
    g.save("in_branches", g.op("If", c, then_branch=bodies[0], else_branch=bodies[1]))


def samples():
    os.makedirs("samples", exist_ok=True)
    random = np.random.default_rng(3)
    for place in range(6):
        x = random.standard_normal((1, CHANNELS, SIZE, SIZE))
        x = (x + np.roll(x, 1, 2) + np.roll(x, 1, 3) + random.standard_normal((1, CHANNELS, 1, 1))) / 2
        np.savez_compressed(f"samples/{place}.npz", x=x.astype(np.float32))


cut_off("cut_off")
cut_off("cut_off_opset9", 9)
cut_off("cut_off_opset10", 10)
residual("residual")
residual("residual_opset12", 12)
joined()
silu()
constants()
movers("movers", 13)
movers("movers_opset12", 12)
groups()
head("head")
head("head_opset11", 11)
products()
shared()
captured()
in_branches()
samples()
