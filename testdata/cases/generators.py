"""Models of language and sound."""

import numpy as np
from case import case, normal
from onnx import TensorProto

WIDTH = 64


@case
def random_noise(b, random):
    """Speech synthesis draws noise inside: the model differs from itself."""
    b.opset = 15
    b.input("ids", ["n", "length"], np.zeros((1, 8), np.int64))
    b.input("noise_scale", [], np.float32(0.667))
    b.node("Gather", [b.const("embedding", normal(random, 200, WIDTH)), "ids"], "embedded")
    mean = b.const("mean.weight", normal(random, WIDTH, WIDTH, scale=0.125))
    spread = b.const("spread.weight", normal(random, WIDTH, WIDTH, scale=0.01))
    b.node("MatMul", ["embedded", mean], "mean")
    b.node("Exp", [b.node("MatMul", ["embedded", spread], "log_spread")], "spread")
    noise = b.node("RandomNormalLike", ["mean"], "noise", name="draw")
    noise = b.node("Mul", [b.node("Mul", [noise, "spread"], "spread_noise"), "noise_scale"], "scaled")
    value = b.node("Transpose", [b.node("Add", ["mean", noise], "latent")], "turned", perm=[0, 2, 1])
    kernel = b.const("up.weight", normal(random, WIDTH, 1, 16, scale=0.1))
    value = b.node("ConvTranspose", [value, kernel], "up", strides=[8], pads=[4, 4])
    b.node("Tanh", [value], "audio")
    b.output("audio", ["n", 1, "samples"])
    scale = np.float32(0.667)
    return [{"ids": random.integers(0, 200, (1, 20)), "noise_scale": scale} for _ in range(3)]


@case
def contrib_encoder(b, random):
    """What an optimizer for transformers leaves: fused operators of com.microsoft."""
    b.opset, b.domains = 14, {"com.microsoft": 1}
    words, own = 300, {"domain": "com.microsoft"}
    for name in ("input_ids", "segment_ids", "mask"):
        b.input(name, ["n", "length"], np.zeros((1, 8), np.int32))
    ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def matrix(name, *shape):
        return b.const(name, normal(random, *shape, scale=1 / np.sqrt(shape[0])))

    def bias(name, size):
        return b.const(name, normal(random, size, scale=0.1))

    tables = [b.const(f"{n}_table", normal(random, c, WIDTH)) for n, c in (("word", words), ("place", 64), ("segment", 2))]
    norm = [b.const("norm0.scale", ones), b.const("norm0.bias", zeros)]
    inputs = ["input_ids", "segment_ids", *tables, *norm, "mask"]
    b.node("EmbedLayerNormalization", inputs, ["embedded", "mask_index"], epsilon=1e-12, **own)
    weights = [matrix("qkv.weight", WIDTH, 3 * WIDTH), bias("qkv.bias", 3 * WIDTH)]
    b.node("Attention", ["embedded", *weights, "mask_index"], "attended", num_heads=4, **own)
    b.node("MatMul", ["attended", matrix("out.weight", WIDTH, WIDTH)], "mixed")
    norm = [b.const("norm1.scale", ones), b.const("norm1.bias", zeros), bias("out.bias", WIDTH)]
    b.node("SkipLayerNormalization", ["mixed", "embedded", *norm], "normal", **own)
    b.node("MatMul", ["normal", matrix("up.weight", WIDTH, 4 * WIDTH)], "up")
    b.node("BiasGelu", ["up", bias("up.bias", 4 * WIDTH)], "active", **own)
    b.node("MatMul", ["active", matrix("down.weight", 4 * WIDTH, WIDTH)], "down")
    norm = [b.const("norm2.scale", ones), b.const("norm2.bias", zeros), bias("down.bias", WIDTH)]
    b.node("SkipLayerNormalization", ["down", "normal", *norm], "final", **own)
    classes = b.const("classes.weight", normal(random, 40, WIDTH, scale=0.125))
    b.node("FusedMatMul", ["final", classes], "scores", transB=1, alpha=0.5, **own)
    b.output("scores", ["n", "length", 40])
    zeros, ones = np.zeros((1, 8), np.int32), np.ones((1, 8), np.int32)
    ids = [random.integers(0, words, (1, 8)).astype(np.int32) for _ in range(3)]
    return [{"input_ids": row, "segment_ids": zeros, "mask": ones} for row in ids]


@case
def sequence_output(b, random):
    """One output is a tensor, the other a sequence of its rows."""
    from onnx import helper

    b.opset = 13
    b.input("x", ["n", WIDTH], (4, WIDTH))
    first = b.const("fc1.weight", normal(random, WIDTH, 256, scale=0.125))
    value = b.node("Relu", [b.node("MatMul", ["x", first], "hidden")], "active")
    b.node("MatMul", [value, b.const("fc2.weight", normal(random, 256, WIDTH, scale=0.06))], "y")
    b.node("SplitToSequence", ["y"], "rows", axis=0, keepdims=1)
    b.output("y", ["n", WIDTH])
    b.outputs.append(helper.make_tensor_sequence_value_info("rows", TensorProto.FLOAT, None))
    return [{"x": normal(random, 4, WIDTH)} for _ in range(3)]
