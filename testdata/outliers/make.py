"""A transformer encoder with planted activation outliers, and samples for it.

    python make.py FOLDER

writes `encoder.onnx` and `samples/*.npz` into the folder. It is made when tests run, not kept.

Six layers as in "Attention is all you need", normalized before each block (opset 17), of width 256,
4 heads and 1024 hidden units, with random weights: they compute nothing of use, but rounding does to
them what it does to trained ones. Trained encoders have a few channels that are some ten times larger
than the others (Dettmers et al., "LLM.int8()", 2022; Xiao et al., "SmoothQuant", 2022). They are
planted where trained models have them, without changing what the model computes: four channels are
multiplied by OUTLIER where they are made, and the rows of the weights that read them divided by it:

- behind both normalizations of each layer, by scale and bias of the normalization;
- behind the Relu of the hidden units, by the columns and the bias of the first product;
- in the values of the attention, by the columns and the bias that make them.
"""

import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LAYERS, WIDTH, HEADS, HIDDEN = 6, 256, 4, 1024
OUTLIER = 40.0
CHANNELS = 4

random = np.random.default_rng(7)
nodes, initializers = [], []


def constant(name, array):
    initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def node(op, inputs, name, **attributes):
    nodes.append(helper.make_node(op, inputs, [name], name=name + "_node", **attributes))
    return name


def matrix(rows, columns):
    return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)


def loud(width):
    return random.choice(width, CHANNELS, replace=False)


def product(x, weight, bias, name):
    p = node("MatMul", [x, constant(name + ".weight", weight)], name + ".product")
    return node("Add", [p, constant(name + ".bias", bias)], name)


def normalized(x, channels, name):
    scale = (1 + 0.1 * random.standard_normal(WIDTH)).astype(np.float32)
    bias = (0.1 * random.standard_normal(WIDTH)).astype(np.float32)
    scale[channels] *= OUTLIER
    bias[channels] *= OUTLIER
    inputs = [x, constant(name + ".scale", scale), constant(name + ".bias", bias)]
    return node("LayerNormalization", inputs, name, axis=-1)


def reading(channels, weight):
    weight[channels] /= OUTLIER
    return weight


def small_bias(width):
    return (0.1 * random.standard_normal(width)).astype(np.float32)


def heads(x, perm, name):
    shape = constant(name + ".shape", np.array([0, 0, HEADS, WIDTH // HEADS], np.int64))
    return node("Transpose", [node("Reshape", [x, shape], name + ".split")], name, perm=perm)


def layer(x, name):
    channels = loud(WIDTH)
    n = normalized(x, channels, name + ".norm1")
    q, k = (
        product(n, reading(channels, matrix(WIDTH, WIDTH)), small_bias(WIDTH), f"{name}.{part}")
        for part in "qk"
    )
    weight, bias, values = reading(channels, matrix(WIDTH, WIDTH)), small_bias(WIDTH), loud(WIDTH)
    weight[:, values] *= OUTLIER
    bias[values] *= OUTLIER
    v = product(n, weight, bias, name + ".v")
    q = heads(q, [0, 2, 1, 3], name + ".qh")
    k = heads(k, [0, 2, 3, 1], name + ".kh")
    v = heads(v, [0, 2, 1, 3], name + ".vh")
    scores = node("MatMul", [q, k], name + ".scores")
    root = constant(name + ".root", np.array(np.sqrt(WIDTH / HEADS), np.float32))
    weights = node("Softmax", [node("Div", [scores, root], name + ".scaled")], name + ".weights", axis=-1)
    mixed = node("MatMul", [weights, v], name + ".mixed")
    joined = node("Transpose", [mixed], name + ".joined", perm=[0, 2, 1, 3])
    joined = node("Reshape", [joined, constant(name + ".joined_shape", np.array([0, 0, WIDTH], np.int64))], name + ".flat")
    out = product(joined, reading(values, matrix(WIDTH, WIDTH)), small_bias(WIDTH), name + ".out")
    x = node("Add", [x, out], name + ".residual1")

    channels, hidden = loud(WIDTH), loud(HIDDEN)
    n = normalized(x, channels, name + ".norm2")
    weight, bias = reading(channels, matrix(WIDTH, HIDDEN)), small_bias(HIDDEN)
    weight[:, hidden] *= OUTLIER
    bias[hidden] *= OUTLIER
    h = node("Relu", [product(n, weight, bias, name + ".up")], name + ".relu")
    down = product(h, reading(hidden, matrix(HIDDEN, WIDTH)), small_bias(WIDTH), name + ".down")
    return node("Add", [x, down], name + ".residual2")


def main(folder):
    x = "x"
    for index in range(LAYERS):
        x = layer(x, f"layer{index}")
    node("Identity", [x], "y")
    shape = ["batch", "length", WIDTH]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    os.makedirs(os.path.join(folder, "samples"), exist_ok=True)
    onnx.save(model, os.path.join(folder, "encoder.onnx"))
    for index in range(8):
        length = 24 + 8 * index
        sample = random.standard_normal((1, length, WIDTH)).astype(np.float32)
        np.savez(os.path.join(folder, "samples", f"{index}.npz"), x=sample)


main(sys.argv[1])
