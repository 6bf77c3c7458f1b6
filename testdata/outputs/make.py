"""Small models whose inputs and outputs are no tensors of numbers. Run in this folder.

Weights are drawn with a fixed seed; `samples.npz` has a value for every input.
"""

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as H
from onnx import numpy_helper as N

WIDTH, CLASSES = 64, 32
LABELS = [f"class{number:02}" for number in range(CLASSES)]
WORDS = ["alder", "ash", "beech", "birch", "elm", "hazel", "larch", "lime", "maple", "oak", "pine", "yew"]


def weight(name, seed, *shape):
    numbers = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])
    return N.from_array(numbers.astype(np.float32), name)


def tensor(name, elem=T.FLOAT, shape=("n", CLASSES)):
    return H.make_tensor_value_info(name, elem, shape)


def sequence(name, elem=T.FLOAT):
    return H.make_tensor_sequence_value_info(name, elem, None)


def save(name, inputs, nodes, outputs, initializers=(), opset=15):
    graph = H.make_graph(nodes, name, inputs, outputs, list(initializers))
    opsets = [H.make_opsetid("", opset), H.make_opsetid("ai.onnx.ml", 3)]
    model = H.make_model(graph, opset_imports=opsets, producer_name="testdata")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, f"{name}.onnx")


x = tensor("x", T.FLOAT, ("n", WIDTH))
layers = [
    H.make_node("MatMul", ["x", "W"], ["a"], name="first"),
    H.make_node("Relu", ["a"], ["h"]),
    H.make_node("MatMul", ["h", "V"], ["y"], name="second"),
]
weights = [weight("W", 1, WIDTH, 128), weight("V", 2, 128, CLASSES)]

# A sequence beside a tensor, and alone.
split = H.make_node("SplitToSequence", ["y"], ["ys"], axis=0, keepdims=1)
save("sequence", [x], [*layers, split], [tensor("y"), sequence("ys")], weights)
save("only_sequence", [x], [*layers, split], [sequence("ys")], weights)

# What a classifier of scikit-learn gives: the name of the class, and a dictionary for each row.
zipped = [
    H.make_node("Softmax", ["y"], ["p"], axis=1),
    H.make_node("ArgMax", ["p"], ["best"], axis=1, keepdims=0),
    H.make_node(
        "LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=list(range(CLASSES)), values_strings=LABELS
    ),
    H.make_node("ZipMap", ["p"], ["chances"], domain="ai.onnx.ml", classlabels_strings=LABELS),
]
chance = H.make_map_type_proto(T.STRING, H.make_tensor_type_proto(T.FLOAT, []))
chances = H.make_value_info("chances", H.make_sequence_type_proto(chance))
save("maps", [x], [*layers, *zipped], [tensor("label", T.STRING, ("n",)), chances], weights)

# A value that is there and one that is not.
optional = H.make_optional_type_proto(H.make_tensor_type_proto(T.FLOAT, ("n", CLASSES)))
there = H.make_node("Optional", ["y"], ["there"])
missing = H.make_node("Optional", [], ["missing"], type=H.make_tensor_type_proto(T.FLOAT, ("n", CLASSES)))
save("optional", [x], [*layers, there], [tensor("y"), H.make_value_info("there", optional)], weights)
save(
    "optional_missing",
    [x],
    [*layers, there, missing],
    [tensor("y"), H.make_value_info("there", optional), H.make_value_info("missing", optional)],
    weights,
)

# Text goes in.
text = [
    H.make_node(
        "LabelEncoder", ["text"], ["ids"], domain="ai.onnx.ml", keys_strings=WORDS, values_int64s=list(range(len(WORDS))), default_int64=0
    ),
    H.make_node("Squeeze", ["ids", "one"], ["rows"]),
    H.make_node("Gather", ["table", "rows"], ["x"]),
]
table, one = weight("table", 3, len(WORDS), WIDTH), N.from_array(np.array([1]), "one")
save("text", [tensor("text", T.STRING, ("n", 1))], [*text, *layers], [tensor("y")], [*weights, table, one])

x = np.random.default_rng(4).standard_normal((4, WIDTH)).astype(np.float32)
np.savez("samples.npz", x=x, text=np.array([["oak"], ["yew"], ["alder"]]))
