"""Models whose outputs are scores."""

import numpy as np
from case import case, normal, pictures
from onnx import TensorProto

WIDTH = 64


@case
def masked_logits(b, random):
    """A policy whose illegal actions get -1e9: they are not signal. One input, never on in these
    samples, has weights so large that int8 with one scale per column leaves nothing of the others."""
    actions = 240
    first = normal(random, WIDTH, 128, scale=0.125)
    first[5] *= 2e4
    b.input("state", ["n", WIDTH], (1, WIDTH))
    b.input("legal", ["n", actions], np.ones((1, actions), np.bool_))
    hidden = b.node("MatMul", ["state", b.const("fc1.weight", first)], "hidden", name="fc1")
    hidden = b.node("Tanh", [hidden], "active")
    second = b.const("fc2.weight", normal(random, 128, actions, scale=0.09))
    scores = b.node("MatMul", [hidden, second], "scores", name="fc2")
    b.node("Where", ["legal", scores, b.const("low", np.float32(-1e9))], "logits")
    b.output("logits", ["n", actions])
    samples = []
    for _ in range(4):
        state = normal(random, 8, WIDTH)
        state[:, 5] = 0
        samples.append({"state": state, "legal": random.random((8, actions)) > 0.4})
    return samples


@case
def integer_heads(b, random):
    """All outputs are integers that come from scores: ArgMax, and the indices of TopK."""
    words = 400
    b.input("ids", ["n", "length"], np.zeros((1, 8), np.int64))
    b.node("Gather", [b.const("embedding", normal(random, words, WIDTH)), "ids"], "embedded")
    hidden = b.const("fc1.weight", normal(random, WIDTH, 256, scale=0.125))
    b.node("Relu", [b.node("MatMul", ["embedded", hidden], "hidden", name="fc1")], "active")
    last = b.const("fc2.weight", normal(random, 256, words, scale=0.06))
    b.node("MatMul", ["active", last], "scores", name="fc2")
    b.node("ArgMax", ["scores"], "token", axis=-1, keepdims=0)
    b.node("TopK", ["scores", b.const("k", [5], np.int64)], ["best", "candidates"], axis=-1)
    b.output("token", ["n", "length"], TensorProto.INT64)
    b.output("candidates", ["n", "length", 5], TensorProto.INT64)
    return [{"ids": random.integers(0, words, (1, 30))} for _ in range(4)]


@case
def embedding_tables(b, random):
    """A recommender: tables read by Gather, a bag of items, and a small network. It takes a few
    microseconds, so that any difference of time is that of calling it."""
    rows, width, parts = (16000, 6000, 4000, 2000, 1000), 16, []
    for index, count in enumerate(rows):
        b.input(f"id{index}", ["n"], np.zeros(4, np.int64))
        table = b.const(f"table{index}", normal(random, count, width, scale=0.1))
        parts.append(b.node("Gather", [table, f"id{index}"], f"part{index}"))
    b.input("seen", ["n", "length"], np.zeros((4, 12), np.int64))
    table = b.const("seen_table", normal(random, 8000, width, scale=0.1))
    bag = b.node("Gather", [table, "seen"], "bag")
    parts.append(b.node("ReduceMean", [bag], "seen_mean", axes=[1], keepdims=0))
    value, size = b.node("Concat", parts, "features", axis=1), width * len(parts)
    for index, outputs in enumerate((128, 64, 1)):
        weight = b.const(f"fc{index}.weight", normal(random, outputs, size, scale=0.1))
        bias = b.const(f"fc{index}.bias", normal(random, outputs, scale=0.1))
        value = b.node("Gemm", [value, weight, bias], f"fc{index}", transB=1)
        if outputs > 1:
            value = b.node("Relu", [value], f"active{index}")
        size = outputs
    b.opset = 13
    b.node("Sigmoid", [value], "click")
    b.output("click", ["n", 1])
    ids = [{f"id{k}": random.integers(0, c, 64) for k, c in enumerate(rows)} for _ in range(3)]
    return [{**sample, "seen": random.integers(0, 8000, (64, 20))} for sample in ids]


@case
def gemm_with_bias(b, random):
    """The last layer of most classifiers, in float16: not every runtime has that kernel."""
    b.input("x", ["n", WIDTH], (4, WIDTH))
    weight = b.const("fc.weight", normal(random, 100, WIDTH, scale=0.1))
    bias = b.const("fc.bias", normal(random, 100, scale=0.1))
    b.node("Gemm", [b.node("Relu", ["x"], "active"), weight, bias], "y", transB=1)
    b.output("y", ["n", 100])
    return [{"x": normal(random, 4, WIDTH)} for _ in range(3)]


@case
def convolutions(b, random):
    """A convolutional classifier whose float16 takes some runtimes seconds a run."""
    b.opset = 13
    b.input("image", [1, 3, 112, 112], (1, 3, 112, 112))
    value, channels = "image", 3
    for index in range(6):
        side = 7 if index == 0 else 3
        scale = 1 / np.sqrt(channels * side * side)
        weight = b.const(f"conv{index}.weight", normal(random, 64, channels, side, side, scale=scale))
        strides = [2, 2] if index in (0, 3) else [1, 1]
        value = b.node("Conv", [value, weight], f"conv{index}", pads=[side // 2] * 4, strides=strides)
        value, channels = b.node("Relu", [value], f"active{index}"), 64
    pooled = b.node("Flatten", [b.node("GlobalAveragePool", [value], "pooled")], "flat")
    weight = b.const("fc.weight", normal(random, 1000, channels, scale=0.1))
    b.node("Gemm", [pooled, weight], "scores", transB=1)
    b.output("scores", [1, 1000])
    return [{"image": picture} for picture in pictures(random, 2, 3, 112, 112)]


@case
def training_dropout(b, random):
    """Dropout with training_mode set: some runtimes drop, others do not."""
    b.input("x", ["n", WIDTH], (4, WIDTH))
    first = b.const("fc1.weight", normal(random, WIDTH, 256, scale=0.125))
    hidden = b.node("Relu", [b.node("MatMul", ["x", first], "hidden")], "active")
    ratio, training = b.const("ratio", np.float32(0.3)), b.const("training", np.bool_(True))
    kept = b.node("Dropout", [hidden, ratio, training], "kept", name="dropout")
    b.node("MatMul", [kept, b.const("fc2.weight", normal(random, 256, 20, scale=0.06))], "y")
    b.output("y", ["n", 20])
    return [{"x": normal(random, 4, WIDTH)} for _ in range(3)]
