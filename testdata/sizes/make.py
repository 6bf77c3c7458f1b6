"""Write the models of this folder and the table in README.md.

    python make.py

Every model leaves sizes of its inputs open and runs on few of them. Weights are random and seeded.
Each model comes from the function of its name, whose docstring says which sizes it takes; it is run in
onnxruntime on the sizes given there. Needs numpy, onnx and onnxruntime.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "graphs"))

from builder import Builder  # noqa: E402

MODELS = {}

INTRODUCTION = """\
# Models with open sizes

Each model leaves sizes of its inputs open and runs on few of them: for trying whether inputs can be
invented. `python make.py` makes all of it, this file included. The models were made for this repository
and are under its licence.

| name | which sizes it takes |
|---|---|
"""


def model(make):
    MODELS[make.__name__] = make
    return make


def floats(*shape):
    return np.zeros(shape, np.float32)


def conv(b, x, weight, y, op="Conv", **attributes):
    """A convolution with all attributes, also those that have defaults: some runtimes want them."""
    kernel = next(list(w.dims)[2:] for w in b.initializers if w.name == weight)
    ones = [1] * len(kernel)
    defaults = {"kernel_shape": kernel, "strides": ones, "dilations": ones, "pads": [0] * 2 * len(kernel), "group": 1}
    return b.node(op, [x, weight], y, **{**defaults, **attributes})


def head(b, x, width, rank=3):
    """A product with a weight, so that there is something to quantize."""
    b.node("MatMul", [x, b.weight("head", width, 128)], "y")
    b.output("y", [None] * rank)


@model
def wide_convolution(b):
    """A dilated convolution reaches over 241 pixels."""
    b.input("x", ["n", 3, "h", "w"], floats(1, 3, 256, 256))
    conv(b, "x", b.weight("w", 16, 3, 3, 3), "c", dilations=[120, 120])
    b.node("GlobalAveragePool", ["c"], "p")
    b.node("Flatten", ["p"], "f")
    head(b, "f", 16, 2)


@model
def reshape_factor(b):
    """Time is cut into pieces of 24 by a Reshape."""
    b.input("x", ["batch", "time"], floats(1, 48))
    b.node("Reshape", ["x", b.const("pieces", [0, -1, 24], np.int64)], "r")
    head(b, "r", 24)


@model
def reshape_all(b):
    """A Reshape has a fixed number of elements: 12 frames of 40."""
    b.input("x", ["batch", "frames", 40], floats(1, 12, 40))
    b.node("Reshape", ["x", b.const("all", [1, 480], np.int64)], "r")
    head(b, "r", 480, 2)


@model
def squeeze_dim(b):
    """A dimension without a telling name is squeezed, so it is 1."""
    b.input("x", ["a", "k", 64], floats(3, 1, 64))
    b.node("Squeeze", ["x", b.const("axes", [1], np.int64)], "s")
    head(b, "s", 64, 2)


@model
def position_table(b):
    """A table of 20 positions is added to what was looked up for each token."""
    b.input("ids", ["batch", "sequence"], np.zeros((1, 20), np.int64))
    b.node("Gather", [b.weight("words", 50, 64), "ids"], "e")
    b.node("Add", ["e", b.weight("positions", 1, 20, 64)], "p")
    head(b, "p", 64)


@model
def position_slice(b):
    """A table of 12 positions is cut to the length of the text, which may be shorter."""
    b.input("ids", ["batch", "sequence"], np.zeros((1, 7), np.int64))
    b.node("Gather", [b.weight("words", 50, 64), "ids"], "e")
    b.node("Shape", ["ids"], "shape")
    b.node("Slice", ["shape", b.const("one", [1], np.int64), b.const("two", [2], np.int64)], "length")
    b.node("Slice", [b.weight("table", 1, 12, 64), b.const("zero", [0], np.int64), "length", "one"], "t")
    b.node("Add", ["e", "t"], "p")
    head(b, "p", 64)


def attention(b, mask, past):
    """One head of attention over a cache of keys and what comes."""
    b.node("Gather", [b.weight("words", 50, 32), "ids"], "e")
    for name in ["q", "k", "v"]:
        b.node("MatMul", ["e", b.weight(f"w{name}", 32, 32)], name)
    b.node("Concat", [past, "k"], "keys", axis=1)
    b.node("Concat", [past, "v"], "values", axis=1)
    b.node("Transpose", ["keys"], "t", perm=[0, 2, 1])
    b.node("MatMul", ["q", "t"], "scores")
    b.node("Cast", [mask], "m", to=TensorProto.FLOAT)
    b.node("Unsqueeze", ["m", b.const("axis", [1], np.int64)], "m1")
    b.node("Add", ["scores", "m1"], "masked")
    b.node("Softmax", ["masked"], "p", axis=-1)
    b.node("MatMul", ["p", "values"], "a")
    head(b, "a", 32)
    b.node("Identity", ["keys"], "present")
    b.output("present", [None, None, 32])


@model
def kv_cache(b):
    """A decoder with a cache: the mask is as long as past and present together."""
    b.input("ids", ["batch", "sequence_length"], np.zeros((1, 3), np.int64))
    b.input("attention_mask", ["batch", "total_sequence_length"], np.ones((1, 8), np.int64))
    b.input("past", ["batch", "past_sequence_length", 32], floats(1, 5, 32))
    attention(b, "attention_mask", "past")


@model
def kv_cache_unnamed(b):
    """The same where no name tells anything."""
    b.input("ids", [None, None], np.zeros((1, 3), np.int64))
    b.input("m0", [None, None], np.ones((1, 8), np.int64))
    b.input("p0", [None, None, 32], floats(1, 5, 32))
    attention(b, "m0", "p0")


@model
def strided_audio(b):
    """Convolutions with strides over samples of audio: at least 400 of them."""
    b.input("x", ["n", "samples"], floats(1, 500))
    b.node("Unsqueeze", ["x", b.const("axis", [1], np.int64)], "u")
    x, channels = "u", 1
    for index, (kernel, stride) in enumerate([(10, 5), (8, 4), (4, 2), (4, 2), (4, 2)]):
        weight = b.weight(f"w{index}", 16, channels, kernel)
        x = conv(b, x, weight, f"c{index}", strides=[stride])
        channels = 16
    b.node("Transpose", [x], "t", perm=[0, 2, 1])
    head(b, "t", 16)


@model
def agreeing_inputs(b):
    """Two inputs are added whose sizes have different names."""
    b.input("query", [1, "sequence", 64], floats(1, 9, 64))
    b.input("bias", [1, "p", 64], floats(1, 9, 64))
    b.node("Add", ["query", "bias"], "s")
    b.node("Concat", ["s", "bias"], "c", axis=2)
    head(b, "c", 128)


@model
def concat_constant(b):
    """What comes in is put beside ten constant rows."""
    b.input("x", ["batch", "k", 24], floats(1, 10, 24))
    b.node("Concat", ["x", b.weight("rows", 1, 10, 40)], "c", axis=2)
    head(b, "c", 64)


@model
def skip_connections(b):
    """Pictures are halved seven times and put together with themselves on the way back: multiples of 128."""
    b.input("x", ["batch", 3, "height", "width"], floats(1, 3, 128, 128))
    x, channels, skips = "x", 3, []
    for index in range(7):
        skips.append((x, channels))
        weight = b.weight(f"down{index}", 8, channels, 3, 3)
        x = conv(b, x, weight, f"d{index}", strides=[2, 2], pads=[1, 1, 1, 1])
        channels = 8
    for index, (skip, more) in enumerate(reversed(skips)):
        weight = b.weight(f"up{index}", channels, 8, 2, 2)
        up = conv(b, x, weight, f"u{index}", "ConvTranspose", strides=[2, 2])
        x = b.node("Concat", [up, skip], f"s{index}", axis=1)
        channels = 8 + more
    conv(b, x, b.weight("last", 2, channels, 1, 1), "y")
    b.output("y", ["batch", 2, "height", "width"])


@model
def pixel_unshuffle(b):
    """Pictures are cut into squares of 5 by a Reshape whose sizes are computed."""
    b.input("x", ["batch", 3, "height", "width"], floats(1, 3, 25, 25))
    b.node("Shape", ["x"], "shape")
    five = b.const("five", [5], np.int64)
    sizes = []
    for axis, name in [(2, "h"), (3, "w")]:
        size = b.node("Gather", ["shape", b.const(f"axis_{name}", [axis], np.int64)], name)
        sizes += [b.node("Div", [size, five], f"{name}_cut"), five]
    b.node("Concat", [b.const("kept", [0, 3], np.int64), *sizes], "target", axis=0)
    b.node("Reshape", ["x", "target"], "r")
    b.node("Transpose", ["r"], "t", perm=[0, 2, 4, 1, 3, 5])
    b.node("Reshape", ["t", b.const("flat", [0, 0, 0, 75], np.int64)], "f")
    head(b, "f", 75, 4)


@model
def patches(b):
    """A table of positions belongs to pictures of 96 in patches of 16, and one more."""
    b.input("x", ["batch", 3, "height", "width"], floats(1, 3, 96, 96))
    conv(b, "x", b.weight("patch", 32, 3, 16, 16), "c", strides=[16, 16])
    b.node("Reshape", ["c", b.const("rows", [0, 32, -1], np.int64)], "r")
    b.node("Transpose", ["r"], "t", perm=[0, 2, 1])
    b.node("Add", ["t", b.weight("positions", 1, 36, 32)], "p")
    head(b, "p", 32)


@model
def rate_in_branches(b):
    """A rate of 16000 or 8000 decides about the branch, which cuts time into pieces of 48 or 36."""
    b.input("x", ["batch", "samples"], floats(1, 144))
    b.input("rate", [], np.array(16000, np.int64))
    b.node("Equal", ["rate", b.const("sixteen", 16000, np.int64)], "is")
    branches = {}
    for name, width in [("then", 48), ("else", 36)]:
        branch = b.child(name)
        branch.node("Reshape", ["x", branch.const(f"{name}_pieces", [0, -1, width], np.int64)], f"{name}_r")
        branch.node("MatMul", [f"{name}_r", branch.weight(f"{name}_w", width, 64)], f"{name}_y")
        branch.output(f"{name}_y", [None, None, 64])
        branches[f"{name}_branch"] = branch.graph()
    b.node("If", ["is"], "h", **branches)
    head(b, "h", 64)


@model
def take(b):
    """A number says how many rows are taken, and a Reshape wants two."""
    b.input("x", [1, 16, 32], floats(1, 16, 32))
    b.input("take", [1], np.array([2], np.int64))
    zero, one = b.const("zero", [0], np.int64), b.const("one", [1], np.int64)
    b.node("Slice", ["x", zero, "take", one], "s")
    b.node("Reshape", ["s", b.const("pair", [1, 64], np.int64)], "r")
    head(b, "r", 64, 2)


def main():
    onnxruntime.disable_telemetry_events()
    rows = []
    for name, make in MODELS.items():
        b = Builder(name)
        make(b)
        path = HERE / f"{name}.onnx"
        path.write_bytes(b.model().SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        session.run(None, b.sample)
        rows.append(f"| `{name}` | {' '.join(make.__doc__.split())} |")
    (HERE / "README.md").write_text(INTRODUCTION + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} models")


if __name__ == "__main__":
    main()
