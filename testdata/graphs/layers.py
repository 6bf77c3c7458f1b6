"""Kinds of layer: convolutions, recurrent layers, normalisation, attention, trees."""

import numpy as np
from onnx import TensorProto, helper
from builder import Fixture, fixture


@fixture
def depthwise_conv(b):
    """Depthwise convolution (group = channels) then pointwise: the fan-in of the first is 9."""
    b.input("x", ["n", 32, 8, 8], (1, 32, 8, 8))
    b.weight("depthwise", 32, 1, 3, 3)
    b.weight("pointwise", 48, 32, 1, 1)
    b.node("Conv", ["x", "depthwise"], "d", group=32, pads=[1, 1, 1, 1])
    b.node("Clip", ["d"], "r")
    b.output(b.node("Conv", ["r", "pointwise"], "y"), ["n", 48, 8, 8])


@fixture
def conv_attributes(b):
    """Convolutions with auto_pad, strides, dilations, groups, asymmetric pads, with and without bias."""
    b.input("x", [1, 8, 12, 12])
    b.weight("w0", 16, 8, 3, 3)
    b.weight("w1", 16, 8, 3, 3)
    b.weight("w2", 16, 4, 3, 3)
    b.const("bias", b.normal(16, 0.1))
    b.node("Conv", ["x", "w0", "bias"], "y0", auto_pad="SAME_UPPER", strides=[2, 2])
    b.node("Conv", ["x", "w1"], "y1", dilations=[2, 2], pads=[0, 1, 2, 3])
    b.node("Conv", ["x", "w2", "bias"], "y2", group=2, auto_pad="VALID")
    b.output("y0", [1, 16, 6, 6])
    b.output("y1", [1, 16, 10, 12])
    b.output("y2", [1, 16, 10, 10])


@fixture
def conv_transpose(b):
    """ConvTranspose with groups: the output channels are axis 1, and only a part of them for each group."""
    b.input("x", ["n", 16, 5, 5], (1, 16, 5, 5))
    b.weight("w", 16, 6, 3, 3)
    b.weight("grouped", 12, 4, 3, 3)
    b.const("bias", b.normal(8, 0.1))
    b.node("ConvTranspose", ["x", "w"], "c", group=2, strides=[2, 2], output_padding=[1, 1], pads=[1, 1, 1, 1])
    b.node("ConvTranspose", ["c", "grouped", "bias"], "y", group=2)
    b.output("y", ["n", 8, 12, 12])


@fixture
def conv1d(b):
    """One-dimensional convolution with stride and dilation, two in a row."""
    b.input("x", ["n", 4, 64], (2, 4, 64))
    b.weight("w0", 32, 4, 9)
    b.weight("w1", 16, 32, 3)
    b.node("Conv", ["x", "w0"], "c", strides=[2], pads=[4, 4])
    b.node("Relu", ["c"], "r")
    b.output(b.node("Conv", ["r", "w1"], "y", dilations=[2]), ["n", 16, 28])


@fixture
def conv3d(b):
    """Three-dimensional convolution."""
    b.input("x", ["n", 2, 6, 6, 6], (1, 2, 6, 6, 6))
    b.weight("w", 16, 2, 3, 3, 3)
    b.output(b.node("Conv", ["x", "w"], "y", pads=[1] * 6), ["n", 16, 6, 6, 6])


def recurrent(b, op, gates, bias_gates, extra_outputs=()):
    """A bidirectional layer of 16 units over 12 inputs, with W, R, B and an initial state."""
    b.input("x", ["t", 2, 12], (5, 2, 12))
    b.const("W", b.normal((2, gates * 16, 12), 0.25))
    b.const("R", b.normal((2, gates * 16, 16), 0.25))
    b.const("B", b.normal((2, bias_gates * 16), 0.1))
    b.const("h0", np.zeros((2, 2, 16), np.float32))
    inputs = ["x", "W", "R", "B", "", "h0"]
    b.node(op, inputs, ["y", "h", *extra_outputs], hidden_size=16, direction="bidirectional")
    b.output("y", ["t", 2, 2, 16])
    b.output("h", [2, 2, 16])


@fixture
def lstm(b):
    """Bidirectional LSTM with W, R, B and an omitted optional input in the middle."""
    recurrent(b, "LSTM", 4, 8, ["c"])
    b.output("c", [2, 2, 16])


@fixture
def gru(b):
    """Bidirectional GRU with W, R, B."""
    recurrent(b, "GRU", 3, 6)


@fixture
def rnn(b):
    """Bidirectional plain RNN with W, R, B."""
    recurrent(b, "RNN", 1, 2)


def batchnorm(b, prefix, source, target, channels, epsilon=1e-5, variance=None):
    """A BatchNormalization with drawn statistics."""
    if variance is None:
        variance = b.random.uniform(0.5, 2, channels)
    vectors = {
        "scale": b.random.uniform(0.5, 1.5, channels),
        "shift": b.random.normal(0, 0.2, channels),
        "mean": b.random.normal(0, 0.2, channels),
        "var": variance,
    }
    names = [b.const(f"{prefix}_{part}", value, np.float32) for part, value in vectors.items()]
    return b.node("BatchNormalization", [source, *names], target, epsilon=epsilon)


@fixture
def batchnorm_conv(b):
    """Conv→BN folds; Conv→BN with the Conv used twice must not; Conv with a shared weight; ConvTranspose→BN; BN→Conv."""
    b.input("x", [1, 8, 6, 6])
    for name in ("folds", "used_twice", "shared", "after_norm"):
        b.weight(name, 16 if name != "after_norm" else 8, 8, 3, 3)
    b.weight("transposed", 8, 16, 3, 3)
    b.const("bias", b.normal(16, 0.1))

    b.node("Conv", ["x", "folds", "bias"], "c0")
    batchnorm(b, "bn0", "c0", "y0", 16)

    b.node("Conv", ["x", "used_twice"], "c1")
    batchnorm(b, "bn1", "c1", "n1", 16)
    b.node("Add", ["c1", "n1"], "y1")

    b.node("Conv", ["x", "shared"], "c2")
    batchnorm(b, "bn2", "c2", "y2", 16)
    b.node("Conv", ["x", "shared", "bias"], "y3")

    b.node("ConvTranspose", ["x", "transposed"], "c4")
    batchnorm(b, "bn4", "c4", "y4", 16)

    batchnorm(b, "bn5", "x", "n5", 8)
    b.node("Conv", ["n5", "after_norm"], "y5", pads=[1, 1, 1, 1])
    for k, shape in enumerate([(16, 4), (16, 4), (16, 4), (16, 4), (16, 8), (8, 6)]):
        b.output(f"y{k}", [1, shape[0], shape[1], shape[1]])


@fixture
def batchnorm_chain(b):
    """Conv and five BatchNormalizations in a row, one with variances from 1e-12 to 1e6; the conv output is named as a graph output in a second chain."""
    b.input("x", [1, 8, 6, 6])
    b.weight("w0", 16, 8, 3, 3)
    b.weight("w1", 16, 8, 3, 3)
    source = b.node("Conv", ["x", "w0"], "c0")
    for k in range(5):
        variance = np.logspace(-12, 6, 16) if k == 2 else None
        source = batchnorm(b, f"bn{k}", source, f"n{k}", 16, epsilon=10.0 ** -(k + 2), variance=variance)
    b.output(source, [1, 16, 4, 4])
    b.node("Conv", ["x", "w1"], "visible")
    batchnorm(b, "bn_visible", "visible", "y1", 16)
    b.output("visible", [1, 16, 4, 4])
    b.output("y1", [1, 16, 4, 4])


def layer_norm(b, prefix, source, target, width):
    """LayerNormalization written out, as exporters below opset 17 do."""
    gain = b.const(f"{prefix}_gain", b.random.uniform(0.5, 1.5, width), np.float32)
    shift = b.const(f"{prefix}_shift", b.random.normal(0, 0.1, width), np.float32)
    b.node("ReduceMean", [source], f"{prefix}_mean", axes=[-1])
    b.node("Sub", [source, f"{prefix}_mean"], f"{prefix}_centred")
    b.node("Pow", [f"{prefix}_centred", "two"], f"{prefix}_square")
    b.node("ReduceMean", [f"{prefix}_square"], f"{prefix}_var", axes=[-1])
    b.node("Add", [f"{prefix}_var", "tiny"], f"{prefix}_safe")
    b.node("Sqrt", [f"{prefix}_safe"], f"{prefix}_std")
    b.node("Div", [f"{prefix}_centred", f"{prefix}_std"], f"{prefix}_unit")
    b.node("Mul", [f"{prefix}_unit", gain], f"{prefix}_scaled")
    return b.node("Add", [f"{prefix}_scaled", shift], target)


@fixture
def attention_small(b):
    """One transformer encoder layer, 64 wide, 4 heads, LayerNormalization and GELU written out; three MatMuls share one input; MatMuls of two activations."""
    width, heads = 64, 4
    b.input("x", ["n", "t", width], (1, 7, width))
    b.const("two", np.float32(2))
    b.const("tiny", np.float32(1e-5))
    b.const("half", np.float32(0.5))
    b.const("one", np.float32(1))
    b.const("root_two", np.float32(np.sqrt(2)))
    b.const("divisor", np.float32(np.sqrt(width // heads)))
    b.const("split", [0, 0, heads, width // heads], np.int64)
    b.const("join", [0, 0, width], np.int64)

    def dense(name, source, inputs, outputs):
        b.weight(f"{name}_w", inputs, outputs)
        b.const(f"{name}_b", b.normal(outputs, 0.05))
        b.node("MatMul", [source, f"{name}_w"], f"{name}_m")
        return b.node("Add", [f"{name}_b", f"{name}_m"], f"{name}_y")

    for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        b.node("Reshape", [dense(part, "x", width, width), "split"], f"{part}_split")
        b.node("Transpose", [f"{part}_split"], f"{part}_heads", perm=perm)
    b.node("MatMul", ["q_heads", "k_heads"], "logits")
    b.node("Div", ["logits", "divisor"], "scaled")
    b.node("Softmax", ["scaled"], "attention", axis=-1)
    b.node("MatMul", ["attention", "v_heads"], "mixed")
    b.node("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3])
    b.node("Reshape", ["back", "join"], "joined")
    b.node("Add", ["x", dense("out", "joined", width, width)], "residual0")
    layer_norm(b, "ln0", "residual0", "h", width)
    up = dense("up", "h", width, 2 * width)
    b.node("Div", [up, "root_two"], "gelu0")
    b.node("Erf", ["gelu0"], "gelu1")
    b.node("Add", ["gelu1", "one"], "gelu2")
    b.node("Mul", [up, "gelu2"], "gelu3")
    b.node("Mul", ["gelu3", "half"], "gelu")
    b.node("Add", ["h", dense("down", "gelu", 2 * width, width)], "residual1")
    b.output(layer_norm(b, "ln1", "residual1", "y", width), ["n", "t", width])


@fixture
def tree_ensemble(b):
    """A tree ensemble of ai.onnx.ml: float weights in attributes, nothing to quantize, int64 labels out."""
    trees, depth, features, classes = 4, 3, 4, 3
    nodes, leaves = tree_nodes(b.random, trees, depth, features, classes)
    b.domains["ai.onnx.ml"] = 3
    b.input("x", ["n", features], (6, features))
    b.node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "probability"],
        domain="ai.onnx.ml",
        classlabels_int64s=list(range(classes)),
        post_transform="SOFTMAX",
        **nodes,
        **leaves,
    )
    b.output("label", ["n"], TensorProto.INT64)
    b.output("probability", ["n", classes])


def tree_nodes(random, trees, depth, features, classes):
    """Attributes of full binary trees with random thresholds, nodes numbered as a heap."""
    inner, total = 2**depth - 1, 2 ** (depth + 1) - 1
    every = [(tree, node) for tree in range(trees) for node in range(total)]
    split = [node < inner for _, node in every]
    leaves = [pair for pair, inside in zip(every, split) if not inside]
    nodes = {
        "nodes_treeids": [tree for tree, _ in every],
        "nodes_nodeids": [node for _, node in every],
        "nodes_modes": ["BRANCH_LEQ" if inside else "LEAF" for inside in split],
        "nodes_featureids": [int(random.randint(features)) if inside else 0 for inside in split],
        "nodes_values": [float(random.normal()) if inside else 0.0 for inside in split],
        "nodes_truenodeids": [2 * node + 1 if inside else 0 for (_, node), inside in zip(every, split)],
        "nodes_falsenodeids": [2 * node + 2 if inside else 0 for (_, node), inside in zip(every, split)],
        "nodes_hitrates": [1.0] * len(every),
        "nodes_missing_value_tracks_true": [0] * len(every),
    }
    votes = {
        "class_treeids": [tree for tree, _ in leaves],
        "class_nodeids": [node for _, node in leaves],
        "class_ids": [int(random.randint(classes)) for _ in leaves],
        "class_weights": [float(random.uniform(0.1, 1)) for _ in leaves],
    }
    return nodes, votes


@fixture
def sklearn_forest(b):
    """A scaler and a random forest as skl2onnx exports them: ai.onnx.ml only, ZipMap, a sequence of maps out."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_iris(return_X_y=True)
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(6, max_depth=4, random_state=0))
    forest.fit(features, labels)
    model = skl2onnx.convert_sklearn(
        forest, "forest", [("x", FloatTensorType([None, 4]))], target_opset={"": 17, "ai.onnx.ml": 3}
    )
    return Fixture(model, {"x": features[::30].astype(np.float32)})
