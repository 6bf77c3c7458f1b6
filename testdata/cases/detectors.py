"""Models that find things in pictures."""

import numpy as np
from case import case, normal, pictures
from onnx import TensorProto


def stem(b, random, channels, dead=None):
    """A convolution of 8 by 8 pixels; the channel `dead` never leaves zero."""
    kernel, bias = normal(random, channels, 3, 8, 8, scale=0.07), normal(random, channels, scale=0.1)
    if dead is not None:
        kernel[dead], bias[dead] = 0, -1
    weights = [b.const("stem.weight", kernel), b.const("stem.bias", bias)]
    value = b.node("Conv", ["images", *weights], "features", name="stem", strides=[8, 8])
    return b.node("Relu", [value], "active")


def rows(b, value, name, count):
    shape = b.const(f"{name}_shape", [1, count, -1], np.int64)
    return b.node("Reshape", [value, shape], name)


@case
def detector_head(b, random):
    """One output with boxes in pixels above class scores between 0 and 1: errors of the scores are
    nothing beside the boxes. A dead channel with huge weights ruins the scores in int8."""
    b.opset, classes = 13, 16
    b.input("images", [1, 3, 64, 64], (1, 3, 64, 64))
    value = stem(b, random, 64, dead=9)
    weight = b.const("boxes.weight", normal(random, 4, 64, 1, 1, scale=0.2))
    boxes = b.node("Sigmoid", [b.node("Conv", [value, weight], "boxes_raw")], "boxes_share")
    boxes = b.node("Mul", [boxes, b.const("pixels", np.float32(640))], "boxes_pixels")
    kernel = normal(random, classes, 64, 1, 1, scale=0.35)
    kernel[:, 9] *= 3e4
    parts = [b.const("classes.weight", kernel), b.const("classes.bias", np.full(classes, -2, np.float32))]
    scores = b.node("Sigmoid", [b.node("Conv", [value, *parts], "scores_raw")], "scores_share")
    parts = [rows(b, boxes, "boxes", 4), rows(b, scores, "scores", classes)]
    b.node("Concat", parts, "output0", axis=1)
    b.output("output0", [1, 4 + classes, 64])
    return [{"images": picture} for picture in pictures(random, 4, 3, 64, 64)]


@case
def nms_inside(b, random):
    """Non-maximum suppression inside: how many rows come out depends on the last digits."""
    b.opset, classes = 13, 12
    b.input("images", [1, 3, 64, 64], (1, 3, 64, 64))
    value = stem(b, random, 64)
    weight = b.const("neck.weight", normal(random, 128, 64, 1, 1, scale=0.18))
    value = b.node("Relu", [b.node("Conv", [value, weight], "neck")], "neck_active")
    weight = b.const("boxes.weight", normal(random, 4, 128, 1, 1, scale=0.2))
    boxes = rows(b, b.node("Conv", [value, weight], "boxes_raw"), "boxes_rows", 4)
    b.node("Sigmoid", [b.node("Transpose", [boxes], "boxes_turned", perm=[0, 2, 1])], "boxes")
    parts = [b.const("classes.weight", normal(random, classes, 128, 1, 1, scale=0.25))]
    parts.append(b.const("classes.bias", np.full(classes, -1, np.float32)))
    scores = rows(b, b.node("Conv", [value, *parts], "scores_raw"), "scores_rows", classes)
    b.node("Sigmoid", [scores], "scores")
    limits = [b.const("most", [50], np.int64), b.const("overlap", [0.5], np.float32)]
    limits.append(b.const("least", [0.6], np.float32))
    b.node("NonMaxSuppression", ["boxes", "scores", *limits], "kept")
    axis = b.const("axis", [1], np.int64)
    for name, column in (("box", 2), ("class", 1)):
        column = b.const(f"{name}_column", [column], np.int64)
        b.node("Squeeze", [b.node("Gather", ["kept", column], f"{name}_kept", axis=1), axis], f"{name}_at")
    b.node("Gather", ["boxes", "box_at"], "found", axis=1)
    best = b.node("ReduceMax", ["scores"], "best", axes=[1], keepdims=0)
    b.node("Gather", [best, "box_at"], "found_scores", axis=1)
    b.node("Identity", ["class_at"], "found_classes")
    b.output("found", [1, "count", 4])
    b.output("found_scores", [1, "count"])
    b.output("found_classes", ["count"], TensorProto.INT64)
    return [{"images": picture} for picture in pictures(random, 4, 3, 64, 64)]
