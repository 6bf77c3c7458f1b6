"""Small models that are random, one for each operator and place. Run in this folder.

Each takes `x` (float32, [n, 32]), multiplies it by a weight and lets a random operator at the product;
`r` is what that makes, `y` what the model makes of it. Weights are drawn with a fixed seed.
"""

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as H
from onnx import numpy_helper as N

WIDTH, CLASSES = 32, 64


def weight(seed, *shape):
    numbers = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])
    return numbers.astype(np.float32)


def value(name, elem=T.FLOAT, shape=("n", CLASSES)):
    return H.make_tensor_value_info(name, elem, shape)


def save(name, nodes, outputs, opset=17, inputs=(), initializers=(), functions=(), rows="n", domains=()):
    nodes = [H.make_node("MatMul", ["x", "W"], ["m"], name="product"), *nodes]
    graph = H.make_graph(
        nodes,
        name,
        [value("x", T.FLOAT, (rows, WIDTH)), *inputs],
        outputs,
        [N.from_array(weight(1, WIDTH, CLASSES), "W"), *initializers],
    )
    opsets = [H.make_opsetid("", opset), *(H.make_opsetid(domain, 1) for domain in domains)]
    model = H.make_model(graph, opset_imports=opsets, functions=list(functions), producer_name="testdata")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")


def number(name, content, kind=np.float32):
    return N.from_array(np.array(content, kind), name)


def branch(name, nodes, output):
    return H.make_graph(nodes, name, [], [H.make_tensor_value_info(output, T.FLOAT, None)])


add = H.make_node("Add", ["m", "r"], ["y"])
both = [value("y"), value("r")]


def draw(name, op="RandomNormalLike", inputs=("m",), opset=17, rows="n", **attributes):
    shape = (rows, CLASSES)
    node = H.make_node(op, list(inputs), ["r"], name="noise", **attributes)
    save(name, [node, add], [value("y", T.FLOAT, shape), value("r", T.FLOAT, shape)], opset, rows=rows)


draw("normal_like", mean=0.5, scale=2.0)
draw("normal_like_opset8", opset=8, rows=256)
draw("normal_like_opset10", opset=10)
draw("uniform_like", "RandomUniformLike", low=-3.0, high=1.0)
draw("uniform_like_opset21", "RandomUniformLike", opset=21)
draw("normal", "RandomNormal", inputs=(), rows=256, shape=[256, CLASSES], mean=-1.0)
draw("uniform", "RandomUniform", inputs=(), rows=256, shape=[256, CLASSES], opset=11)

chance = H.make_node("Sigmoid", ["m"], ["p"])
drawn = H.make_node("Bernoulli", ["p"], ["r"], name="noise")
save("bernoulli", [chance, drawn, H.make_node("Mul", ["m", "r"], ["y"])], [*both, value("p")])
drawn = H.make_node("Multinomial", ["m"], ["r"], name="noise", sample_size=40)
save("multinomial", [drawn, H.make_node("Softmax", ["m"], ["y"])], [value("y"), value("r", T.INT32, ("n", 40))], 13)

ratio, on = number("ratio", 0.3), number("on", True, bool)
drop = H.make_node("Dropout", ["m", "ratio", "on"], ["y", "r"], name="drop")
mask = [value("y"), value("r", T.BOOL), value("m")]
save("dropout", [drop], mask, 13, initializers=[ratio, on])
scalar = H.make_tensor_value_info("on", T.BOOL, [])
save("dropout_when", [drop], mask, 13, inputs=[scalar], initializers=[ratio])
off = number("on", False, bool)
save("dropout_off", [drop], mask, 13, initializers=[ratio, off])

# Two branches that draw under one name.
like = H.make_node("RandomNormalLike", ["m"], ["b"], name="noise")
uniform = H.make_node("RandomUniformLike", ["m"], ["b"], name="noise")
choose = H.make_node(
    "If", ["on"], ["r"], then_branch=branch("then", [like], "b"), else_branch=branch("else", [uniform], "b")
)
save("in_if", [choose, add], both, inputs=[scalar])

# Four turns, each with noise of its own, one below the other.
body = H.make_graph(
    [H.make_node("RandomNormalLike", ["m"], ["turn"], name="noise"), H.make_node("Identity", ["go"], ["goes"])],
    "body",
    [H.make_tensor_value_info("i", T.INT64, []), H.make_tensor_value_info("go", T.BOOL, [])],
    [H.make_tensor_value_info("goes", T.BOOL, []), H.make_tensor_value_info("turn", T.FLOAT, None)],
)
loop = H.make_node("Loop", ["turns", "true"], ["r"], body=body)
turns = [number("turns", 4, np.int64), number("true", True, bool)]
total = H.make_node("ReduceSum", ["r", "first"], ["sum"], keepdims=0)
save(
    "in_loop",
    [loop, total, H.make_node("Add", ["m", "sum"], ["y"])],
    [value("y"), value("r", T.FLOAT, (4, "n", CLASSES))],
    initializers=[*turns, number("first", [0], np.int64)],
)

# A function that is called twice.
noisy = H.make_function(
    "local",
    "noisy",
    ["a"],
    ["c"],
    [H.make_node("RandomNormalLike", ["a"], ["b"], name="noise"), H.make_node("Add", ["a", "b"], ["c"])],
    [H.make_opsetid("", 17)],
)
calls = [
    H.make_node("noisy", ["m"], ["s"], name="first", domain="local"),
    H.make_node("noisy", ["s"], ["y"], name="second", domain="local"),
]
save("in_function", calls, [value("y"), value("s")], functions=[noisy], domains=["local"])

# Not random, but in training mode.
scale = [number(name, content) for name, content in (("s", [1.0] * CLASSES), ("b", [0.0] * CLASSES))]
moments = [number(name, content) for name, content in (("mean", [0.0] * CLASSES), ("var", [1.0] * CLASSES))]
norm = H.make_node(
    "BatchNormalization", ["m", "s", "b", "mean", "var"], ["y", "mean2", "var2"], name="norm", training_mode=1
)
save("batchnorm", [norm], [value("y")], initializers=[*scale, *moments])

# Speech synthesis as VITS has it: noise of a predicted deviation is added before the decoder.
nodes = [
    H.make_node("MatMul", ["m", "V"], ["deviation"]),
    H.make_node("RandomNormalLike", ["deviation"], ["n"], name="noise"),
    H.make_node("Exp", ["deviation"], ["e"]),
    H.make_node("Mul", ["n", "e"], ["ne"]),
    H.make_node("Mul", ["ne", "noise_scale"], ["nz"]),
    H.make_node("Add", ["m", "nz"], ["z"]),
    H.make_node("MatMul", ["z", "U"], ["up"]),
    H.make_node("Tanh", ["up"], ["audio"]),
]
weights = [N.from_array(weight(2, CLASSES, CLASSES) * 0.1, "V"), N.from_array(weight(3, CLASSES, 128), "U")]
noise_scale = H.make_tensor_value_info("noise_scale", T.FLOAT, [])
save("vits", nodes, [value("audio", T.FLOAT, ("n", 128))], 15, inputs=[noise_scale], initializers=weights)

x = np.random.default_rng(4).standard_normal((256, WIDTH)).astype(np.float32)
np.savez("samples.npz", x=x, on=np.array(True), noise_scale=np.array(0.667, np.float32))
