"""Models of older operator sets, written out: every form that an adapter of the upgrade knows."""

import dataclasses

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}


@dataclasses.dataclass
class Case:
    """A model with values for its inputs."""

    name: str
    model: object
    inputs: list


class Cases:
    """Collects models; numbers come from one seeded generator."""

    def __init__(self):
        self.all = []
        self.random = numpy.random.default_rng(7)

    def floats(self, *shape):
        return self.random.standard_normal(shape).astype(numpy.float32)

    def graph(self, name, opset, nodes, inputs, outputs, *, constants=None, rank=True, **more):
        """A model; `inputs` are arrays by name, `outputs` names, or names with element types."""
        constants = constants or {}
        infos = [info(key, value, rank) for key, value in inputs.items()]
        ir = more.pop("ir", IR[opset])
        if ir < 4:
            infos += [info(key, value, True) for key, value in constants.items()]
        outs = [
            helper.make_tensor_value_info(*(out if isinstance(out, tuple) else (out, FLOAT)), None)
            for out in outputs
        ]
        kept = [numpy_helper.from_array(value, key) for key, value in constants.items()]
        graph = helper.make_graph(nodes, name, infos, outs, kept)
        imports = [helper.make_opsetid("", opset), *more.pop("imports", [])]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir, **more)
        self.all.append(Case(f"{name}-{opset}", model, list(inputs.values())))

    def one(self, op, opset, inputs, *, what="", outputs=("y",), constants=None, rank=True, **attrs):
        """A model of one node."""
        names = [*inputs, *(constants or {})]
        outs = [out if isinstance(out, str) else out[0] for out in outputs]
        node = helper.make_node(op, names, outs, **attrs)
        name = f"{op.lower()}{'_' if what else ''}{what}"
        self.graph(name, opset, [node], inputs, outputs, constants=constants, rank=rank)


def info(name, value, rank):
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape if rank else None)


def ints(*values):
    return numpy.array(values, numpy.int64)


def attributes_to_inputs(c):
    x = {"x": c.floats(2, 3, 4, 5)}
    for opset in (7, 10):
        c.one("Clip", opset, x, what="both", min=-0.5, max=0.75)
        c.one("Clip", opset, x, what="low", min=0.0)
        c.one("Clip", opset, x, what="high", max=0.25)
        c.one("Clip", opset, x, what="none")
        pads = [0, 1, 2, 0, 0, 1, 0, 2]
        c.one("Pad", opset, x, what="zero", pads=pads)
        c.one("Pad", opset, x, what="value", pads=pads, value=1.5, mode="constant")
        c.one("Pad", opset, x, what="reflect", pads=pads, mode="reflect")
        c.one("Pad", opset, x, what="edge", pads=pads, mode="edge")
        c.one("Pad", opset, x, what="negative", pads=[0, -1, 0, 0, 0, 0, -1, 0])
    for opset in (7, 9):
        c.one("Slice", opset, x, what="plain", starts=[0, 1], ends=[1, 3])
        c.one("Slice", opset, x, what="axes", starts=[-3, 1], ends=[2**31 - 1, -1], axes=[3, 2])
        c.one("TopK", opset, x, outputs=("y", ("i", TensorProto.INT64)), k=2, axis=2)
        c.one("TopK", opset, x, what="last", outputs=("y", ("i", TensorProto.INT64)), k=3)
    for opset in (7, 10, 11):
        c.one("Unsqueeze", opset, x, axes=[0, 3])
        c.one("Squeeze", opset, {"x": c.floats(1, 3, 1, 2)}, what="all")
        c.one("Squeeze", opset, {"x": c.floats(1, 3, 1, 2)}, what="axes", axes=[2])
        c.one("Split", opset, x, what="even", outputs=("y", "z"), axis=2)
        c.one("Split", opset, x, what="uneven", outputs=("y", "z"), axis=2, split=[1, 3])
    c.one("Unsqueeze", 12, x, what="negative", axes=[-1, 1])
    c.one("Squeeze", 12, {"x": c.floats(1, 3, 1, 2)}, what="negative", axes=[-2])
    c.one("Split", 13, x, what="even", outputs=("y", "z"), axis=1 + 1)
    c.one("Split", 17, x, what="uneven", outputs=("y", "z"), constants={"s": ints(3, 1)}, axis=2)
    for opset in (7, 9, 11):
        c.one("Dropout", opset, x, what="plain", ratio=0.25)
        c.one("Dropout", opset, x, what="default")
    c.one("Dropout", 7, x, what="mask", outputs=("y", "mask"))


def reductions(c):
    x = {"x": numpy.abs(c.floats(2, 3, 4)) + 0.5}
    names = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
    for name in names:
        for opset in (7, 11, 12, 13, 17):
            if name == "Sum" and opset >= 13:
                constants = {"axes": ints(1)}
                c.one("ReduceSum", opset, x, what="axes", constants=constants, keepdims=0)
                continue
            c.one(f"Reduce{name}", opset, x, what="axes", axes=[0, 2], keepdims=0)
            c.one(f"Reduce{name}", opset, x, what="all")
        c.one(f"Reduce{name}", 12, x, what="negative", axes=[-1])


def softmaxes(c):
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 12):
            for rank, shape in ((1, (5,)), (2, (3, 4)), (3, (2, 3, 4)), (4, (2, 3, 1, 2))):
                x = {"x": c.floats(*shape)}
                for axis in range(rank):
                    c.one(op, opset, x, what=f"rank{rank}_axis{axis}", axis=axis)
                if rank > 1:
                    c.one(op, opset, x, what=f"rank{rank}", rank=rank != 3)
                if opset >= 11:
                    c.one(op, opset, x, what=f"rank{rank}_last", axis=-1, rank=False)
                    c.one(op, opset, x, what=f"rank{rank}_first", axis=-rank)
        c.one(op, 9, {"x": c.floats(2, 5, 1, 1)}, what="picture")


def pictures(c):
    x = {"x": c.floats(1, 2, 4, 6)}
    for mode in ("nearest", "linear"):
        for opset in (7, 8):
            c.one("Upsample", opset, x, what=mode, mode=mode, scales=[1.0, 1.0, 2.0, 1.5])
        scales = {"s": numpy.array([1, 1, 2, 3], numpy.float32)}
        c.one("Upsample", 9, x, what=mode, mode=mode, constants=scales)
        c.one("Upsample", 9, {**x, **scales}, what=f"{mode}_given", mode=mode)
        for what, factors in (
            ("up", (1, 1, 2, 1.7)),
            ("down", (1, 1, 0.6, 0.5)),
            ("both", (1, 1, 1.5, 0.4)),
        ):
            scales = {"s": numpy.array(factors, numpy.float32)}
            c.one("Resize", 10, x, what=f"{mode}_{what}", mode=mode, constants=scales)
            c.one("Resize", 10, {**x, **scales}, what=f"{mode}_{what}_given", mode=mode)
    empty = numpy.array([], numpy.float32)
    for opset in (11, 12):
        for kind in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
            node = helper.make_node(
                "Resize", ["x", "r", "e", "z"], ["y"], mode="linear", coordinate_transformation_mode=kind
            )
            constants = {"r": empty, "e": empty, "z": ints(1, 2, 7, 5)}
            c.graph(f"resize_sizes_{kind}", opset, [node], x, ["y"], constants=constants)
    node = helper.make_node("Resize", ["x", "r", "s"], ["y"], mode="cubic")
    constants = {"r": empty, "s": numpy.array([1, 1, 2, 2], numpy.float32)}
    c.graph("resize_cubic", 11, [node], x, ["y"], constants=constants)
    grid = {"x": c.floats(1, 2, 4, 6), "g": c.random.uniform(-1, 1, (1, 3, 3, 2)).astype(numpy.float32)}
    for mode in ("bilinear", "bicubic", "nearest", None):
        attrs = {"mode": mode} if mode else {}
        c.one("GridSample", 16, grid, what=mode or "default", align_corners=1, **attrs)
        c.one("GridSample", 19, grid, what=mode or "default", **attrs)
    rois = {
        "x": c.floats(1, 2, 8, 8),
        "r": numpy.array([[1, 1, 6, 5], [0, 2, 3, 7]], numpy.float32),
        "b": ints(0, 0),
    }
    for mode in ("avg", "max"):
        for opset in (10, 15):
            sizes = {"output_height": 2, "output_width": 3, "sampling_ratio": 2}
            c.one("RoiAlign", opset, rois, what=mode, mode=mode, spatial_scale=0.8, **sizes)


def pools(c):
    x = {"x": c.floats(1, 2, 7, 8)}
    pads = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 1, 1]}
    for opset in (7, 10, 11, 18):
        for count in (0, 1):
            c.one("AveragePool", opset, x, what=f"count{count}", count_include_pad=count, **pads)
            if opset >= 10:
                c.one("AveragePool", opset, x, what=f"ceil_count{count}", ceil_mode=1,
                      count_include_pad=count, **pads)
        for auto in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            same = {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": auto}
            c.one("AveragePool", opset, x, what=auto.lower(), **same)
            c.one("MaxPool", opset, x, what=auto.lower(), **same)
            c.one("LpPool", opset, x, what=auto.lower(), p=2, **same)
    index = ("i", TensorProto.INT64)
    for opset in (8, 10, 11, 12):
        c.one("MaxPool", opset, x, what="indices", outputs=("y", index), **pads)
        if opset >= 10:
            c.one("MaxPool", opset, x, what="ceil", ceil_mode=1, **pads)
    w = c.floats(2, 3, 3, 2)
    for opset in (7, 10, 11):
        for auto in ("SAME_UPPER", "SAME_LOWER"):
            c.one("ConvTranspose", opset, x, what=auto.lower(), constants={"w": w}, auto_pad=auto,
                  strides=[2, 2])
            c.one("Conv", opset, x, what=auto.lower(), constants={"w": c.floats(3, 2, 2, 4)},
                  auto_pad=auto, strides=[2, 2])
        c.one("ConvTranspose", opset, x, what="output_shape", constants={"w": w},
              output_shape=[14, 15], strides=[2, 2])


def normalizations(c):
    x = {"x": c.floats(2, 3, 4)}
    for opset in (7, 8):
        constants = {
            "s": c.floats(3, 4), "b": c.floats(3, 4), "m": c.floats(3, 4),
            "v": numpy.abs(c.floats(3, 4)) + 0.5,
        }
        c.one("BatchNormalization", opset, x, what="places", constants=constants, spatial=0, epsilon=0.01)
    for opset in (7, 9, 13):
        constants = {
            "s": c.floats(3), "b": c.floats(3), "m": c.floats(3), "v": numpy.abs(c.floats(3)) + 0.5,
        }
        outputs = ("y", "mean", "var")
        c.one("BatchNormalization", opset, x, what="training", outputs=outputs, constants=constants)
        spatial = {"spatial": 1} if opset < 9 else {}
        c.one("BatchNormalization", opset, x, what="channels", constants=constants, **spatial)
    for kind in (numpy.float32, numpy.float16):
        x = {"x": c.floats(2, 6, 4).astype(kind)}
        own = {"s": c.floats(3).astype(kind), "b": c.floats(3).astype(kind)}
        out = [("y", helper.np_dtype_to_tensor_dtype(numpy.dtype(kind)))]
        for what, rank in (("known", True), ("open", False)):
            name = f"{what}_{numpy.dtype(kind).name}"
            c.one("GroupNormalization", 18, x, what=name, outputs=out, constants=own, rank=rank,
                  num_groups=3)


def transforms(c):
    x = {"x": c.floats(1, 6, 4, 1)}
    c.one("DFT", 17, x, what="default")
    c.one("DFT", 17, x, what="axis", axis=2)
    c.one("DFT", 19, x, what="onesided", axis=1, onesided=1)
    c.one("DFT", 17, {"x": c.floats(1, 6, 4, 2)}, what="inverse", axis=2, inverse=1)
    c.one("DFT", 18, x, what="length", axis=1, constants={"n": numpy.array(8, numpy.int64)})
    data, at = c.floats(3, 3), numpy.array([[1, 0, 2], [0, 2, 1]], numpy.int64)
    for opset in (9, 10):
        c.one("Scatter", opset, {"x": data, "i": at, "u": c.floats(2, 3)}, axis=0)
        hot = {"i": numpy.array([[1, 3], [-1, 7]], numpy.int64)}
        constants = {"d": ints(4), "v": numpy.array([-1, 2], numpy.float32)}
        c.one("OneHot", opset, hot, constants=constants, axis=1)


def recurrent(c):
    x = {"x": c.floats(4, 2, 3)}
    for op, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
        constants = {"w": c.floats(1, gates * 5, 3), "r": c.floats(1, gates * 5, 5)}
        c.one(op, 7, x, constants=constants, outputs=("y", "h"), hidden_size=5)


def scans(c):
    body = helper.make_graph(
        [
            helper.make_node("Add", ["s", "a"], ["t"]),
            helper.make_node("Clip", ["t"], ["n"], min=-2.0, max=2.0),
            helper.make_node("Mul", ["n", "outer"], ["o"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("s", "a")],
        [helper.make_tensor_value_info(name, FLOAT, [2]) for name in ("n", "o")],
    )
    inputs = {"s0": c.floats(3, 2), "xs": c.floats(3, 5, 2)}
    for what, attrs in (("forward", {}), ("backward", {"directions": [1]})):
        node = helper.make_node(
            "Scan", ["", "s0", "xs"], ["y", "z"], body=body, num_scan_inputs=1, **attrs
        )
        constants = {"outer": numpy.array([2, -1], numpy.float32)}
        c.graph(f"scan_{what}", 8, [node], inputs, ["y", "z"], constants=constants)


def nested(c):
    """Old forms inside branches, loops and functions, and constants in `Constant` nodes."""
    def branch(name, node):
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(node.output[0], FLOAT, None)]
        )

    x = {"x": c.floats(2, 3, 4), "c": numpy.array(True)}
    then = branch("then", helper.make_node("Softmax", ["x"], ["t"], axis=1))
    other = branch("else", helper.make_node("Clip", ["x"], ["e"], min=0.0))
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    for opset in (7, 10):
        c.graph("branches", opset, [node], x, ["y"])
    last = helper.make_node("Relu", ["twice"], ["y"])
    twice = helper.make_node("Pad", ["x"], ["twice"], pads=[0, 0, 1, 0, 0, 1], value=-1.0)
    same = helper.make_node("Pad", ["x"], ["twice_pads"], pads=[0] * 6)
    c.graph("taken_names", 9, [twice, same, last], {"x": x["x"]}, ["y", "twice_pads"])
    function = helper.make_function(
        "local", "Old", ["a"], ["b"],
        [
            helper.make_node("Clip", ["a"], ["k"], min=-0.5, max=0.5),
            helper.make_node("Softmax", ["k"], ["s"]),
            helper.make_node("ReduceSum", ["s"], ["b"], axes=[2], keepdims=0),
        ],
        [helper.make_opsetid("", 10)],
    )
    called = helper.make_node("Old", ["x"], ["y"], domain="local")
    local = [helper.make_opsetid("local", 1)]
    c.graph("function", 10, [called], {"x": x["x"]}, ["y"], functions=[function], imports=local, ir=8)
    squeezes = helper.make_node("Unsqueeze", ["a"], ["b"])
    squeezes.attribute.append(onnx.AttributeProto(name="axes", type="INTS", ref_attr_name="where"))
    function = helper.make_function(
        "local", "Where", ["a"], ["b"], [squeezes], [helper.make_opsetid("", 12)], ["where"]
    )
    called = helper.make_node("Where", ["x"], ["y"], domain="local", where=[1, 3])
    c.graph("callers_axes", 12, [called], {"x": x["x"]}, ["y"], functions=[function], imports=local, ir=8)


def draws(c):
    """Seeded, so that one kernel draws the same numbers at both versions."""
    x = {"x": c.floats(3, 4)}
    for op in ("RandomNormal", "RandomUniform"):
        c.one(op, 7, {}, shape=[3, 4], seed=5.0)
        c.one(f"{op}Like", 7, x, seed=5.0)
    c.one("Multinomial", 7, x, outputs=[("y", TensorProto.INT32)], sample_size=6, seed=5.0)
    c.one("Bernoulli", 15, {"x": numpy.abs(c.floats(3, 4)) % 1}, seed=5.0)


def cases():
    c = Cases()
    for family in (
        attributes_to_inputs, reductions, softmaxes, pictures, pools, normalizations, transforms,
        recurrent, scans, nested, draws,
    ):
        family(c)
    return c.all
