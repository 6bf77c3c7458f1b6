"""Random small models with planted structure, each with a damaged copy and one that is only rounded otherwise.

Usage: make_sweep.py FOLDER SEED COUNT

Writes FOLDER/NNN/{model,damaged,rounded}.onnx, samples/*.npz and FOLDER/cases.json, which says what each model has
and what was done to it.
"""
import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

MASKS = [-1e9, -1e4, -65504.0, float(np.finfo(np.float32).min), -100.0, 1e30, -1e5]


class Builder:
    """A model under construction: nodes and initializers by name."""

    def __init__(self, rng):
        self.rng, self.nodes, self.arrays, self.inputs, self.outputs, self.count = rng, [], {}, [], [], 0

    def weight(self, *shape, scale=None, name=None):
        scale = scale if scale is not None else 1 / np.sqrt(shape[-2] if len(shape) > 1 else 1)
        return self.array((self.rng.standard_normal(shape) * scale).astype(np.float32), name)

    def array(self, value, name=None):
        name = name or f"c{len(self.arrays)}"
        self.arrays[name] = np.asarray(value)
        return name

    def node(self, op, inputs, outputs=1, name=None, **attributes):
        self.count += 1
        names = [name or f"v{self.count}"] if outputs == 1 else [f"v{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(h.make_node(op, inputs, names, name=f"n{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def input(self, name, kind, shape):
        self.inputs.append(h.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value, kind, shape):
        self.outputs.append(h.make_tensor_value_info(value, kind, shape))

    def model(self, arrays=None):
        arrays = {**self.arrays, **(arrays or {})}
        graph = h.make_graph(
            self.nodes, "sweep", self.inputs, self.outputs, [numpy_helper.from_array(a, n) for n, a in arrays.items()]
        )
        return h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=8)


class Case:
    """One model: how its inputs are made, and which damages make sense."""

    def __init__(self, rng, kind):
        self.rng, self.kind, self.b = rng, kind, Builder(rng)
        self.width = int(rng.choice([16, 32, 48]))
        self.feeds = {"x": lambda n: rng.standard_normal((n, self.width)).astype(np.float32)}
        self.damages = []
        b = self.b
        b.input("x", T.FLOAT, ["n", self.width])
        hidden = int(rng.choice([32, 64]))
        first = b.node("MatMul", ["x", b.weight(self.width, hidden, name="first")])
        self.features, self.hidden = b.node(rng.choice(["Tanh", "Relu"]), [first]), hidden

    def head(self, size, name, scale=None):
        scale = scale or 2.5 / np.sqrt(self.hidden)
        return self.b.node("MatMul", [self.features, self.b.weight(self.hidden, size, scale=scale, name=name)])

    def damage(self, what, **arrays):
        self.damages.append((what, arrays))

    def destroy(self, name):
        old = self.b.arrays[name]
        self.damage(f"{name} is other numbers", **{name: (self.rng.standard_normal(old.shape) * old.std()).astype(np.float32)})
        self.damage(f"{name} is halved", **{name: old * np.float32(0.5)})

    def poison(self, name):
        old = self.b.arrays[name].copy()
        old.flat[0] = np.nan
        self.damage(f"{name} has a NaN", **{name: old})


def mask_where(c):
    size, value = int(c.rng.integers(5, 300)), float(c.rng.choice(MASKS))
    logits = c.head(size, "logits")
    c.b.input("legal", T.BOOL, ["n", size])
    c.feeds["legal"] = lambda n: c.rng.random((n, size)) > c.rng.choice([0.2, 0.6])
    out = c.b.node("Where", ["legal", logits, c.b.array(np.float32(value), "mask")], name="scores")
    c.b.output(out, T.FLOAT, ["n", size])
    c.destroy("logits")
    c.damage("the mask is gone", mask=np.float32(0))
    c.damage("the mask is halved", mask=np.float32(value / 2))


def mask_added(c):
    size, value = int(c.rng.integers(5, 300)), float(c.rng.choice([-1e9, -1e4, -1e5]))
    logits = c.head(size, "logits")
    c.b.input("masked", T.FLOAT, ["n", size])
    c.feeds["masked"] = lambda n: (c.rng.random((n, size)) > 0.6).astype(np.float32)
    offset = c.b.node("Mul", ["masked", c.b.array(np.float32(value), "mask")])
    c.b.output(c.b.node("Add", [logits, offset], name="scores"), T.FLOAT, ["n", size])
    c.destroy("logits")
    c.damage("the mask is gone", mask=np.float32(0))


def boxes_and_scores(c):
    anchors, classes = int(c.rng.integers(8, 60)), int(c.rng.integers(1, 30))
    last = bool(c.rng.random() < 0.4)
    size = float(c.rng.choice([64, 320, 640, 1280]))
    boxes = c.b.node("Mul", [c.b.node("Sigmoid", [c.head(4 * anchors, "boxes")]), c.b.array(np.float32(size))])
    bias = c.b.array(np.full(classes * anchors, -2, np.float32), "bias")
    scores = c.b.node("Sigmoid", [c.b.node("Add", [c.head(classes * anchors, "classes", 5 / np.sqrt(c.hidden)), bias])])
    shape = (lambda rows: [-1, anchors, rows]) if last else (lambda rows: [-1, rows, anchors])
    parts = [c.b.node("Reshape", [v, c.b.array(np.array(shape(r), np.int64))]) for v, r in ((boxes, 4), (scores, classes))]
    out = c.b.node("Concat", parts, axis=2 if last else 1, name="output0")
    c.b.output(out, T.FLOAT, ["n", anchors, 4 + classes] if last else ["n", 4 + classes, anchors])
    c.destroy("classes")
    c.damage("boxes are other numbers", boxes=c.b.arrays["boxes"][::-1].copy())
    c.damage("scores are shifted", bias=c.b.arrays["bias"] + np.float32(1.5))


def padded_rows(c):
    rows = int(c.rng.integers(6, 20))
    value = c.head(4 * rows, "boxes", 30 / np.sqrt(c.hidden))
    value = c.b.node("Reshape", [value, c.b.array(np.array([-1, rows, 4], np.int64))])
    c.b.input("valid", T.BOOL, ["n", rows, 1])
    c.feeds["valid"] = lambda n: c.rng.random((n, rows, 1)) > 0.4
    padding = c.b.array(np.float32(c.rng.choice([-1e4, 1e6, -99999.0])), "padding")
    c.b.output(c.b.node("Where", ["valid", value, padding], name="boxes_out"), T.FLOAT, ["n", rows, 4])
    c.destroy("boxes")
    c.damage("the padding is another", padding=c.b.arrays["padding"] * np.float32(0.1))


def constant_beside(c):
    c.b.output(c.b.node("Identity", [c.head(int(c.rng.integers(2, 40)), "values")], name="y"), T.FLOAT, ["n", None])
    c.b.array((c.rng.standard_normal(12) * 10 ** c.rng.uniform(-3, 3)).astype(np.float32), "table")
    c.b.output(c.b.node("Identity", ["table"], name="anchors"), T.FLOAT, [12])
    c.destroy("values")
    c.damage("the constant output is another", table=c.b.arrays["table"] * np.float32(1.3))
    c.damage("the constant output is zero", table=np.zeros(12, np.float32))


def random_operator(c):
    size = int(c.rng.integers(4, 40))
    mean = c.head(size, "mean")
    op = c.rng.choice(["RandomNormalLike", "RandomUniformLike"])
    noise = c.b.node("Mul", [c.b.node(op, [mean]), c.b.array(np.float32(0.7), "noise")])
    c.b.output(c.b.node("Add", [mean, noise], name="sample"), T.FLOAT, ["n", size])
    c.destroy("mean")
    c.damage("the noise is louder", noise=np.float32(2.0))


def integer_head(c):
    classes = int(c.rng.integers(8, 400))
    logits = c.head(classes, "logits")
    if c.rng.random() < 0.6:
        c.b.output(c.b.node("ArgMax", [logits], axis=-1, keepdims=int(c.rng.integers(0, 2)), name="token"), T.INT64, None)
    else:
        best = c.b.node("TopK", [logits, c.b.array(np.array([3], np.int64))], outputs=2)
        c.b.output(c.b.node("Identity", [best[1]], name="top"), T.INT64, ["n", 3])
    c.destroy("logits")
    c.damages.pop()  # Halved logits choose the same.
    c.damage("classes are shifted", logits=np.roll(c.b.arrays["logits"], 1, axis=1))


def time_column(c):
    size = int(c.rng.integers(1, 6))
    c.b.input("t", T.FLOAT, ["n", 1])
    c.feeds["t"] = lambda n: (1.6e9 + c.rng.integers(0, 10**6, (n, 1))).astype(np.float32)
    c.b.output(c.b.node("Concat", [c.head(size, "values"), "t"], axis=1, name="rows"), T.FLOAT, ["n", size + 1])
    c.destroy("values")


def classifier(c):
    classes = int(c.rng.integers(2, 1000))
    bias = c.b.array(np.zeros(classes, np.float32), "bias")
    logits = c.b.node("Add", [c.head(classes, "logits", 8 / np.sqrt(c.hidden)), bias])
    c.b.output(c.b.node("Softmax", [logits], axis=-1, name="probabilities"), T.FLOAT, ["n", classes])
    c.destroy("logits")
    c.damages.pop()  # Halved logits are another temperature; most choices stay.
    c.zero_class = ("bias", "probabilities")


def chosen_rows(c):
    rows = int(c.rng.integers(12, 40))
    boxes = c.b.node("Reshape", [c.head(4 * rows, "boxes", 50 / np.sqrt(c.hidden)), c.b.array(np.array([-1, rows, 4], np.int64))])
    scores = c.b.node("Sigmoid", [c.head(rows, "ranking")])
    best = c.b.node("TopK", [scores, c.b.array(np.array([5], np.int64))], outputs=2)
    places = c.b.node("Unsqueeze", [best[1], c.b.array(np.array([2], np.int64))])
    places = c.b.node("Expand", [places, c.b.array(np.array([1, 1, 4], np.int64))])
    c.b.output(c.b.node("GatherElements", [boxes, places], axis=1, name="best_boxes"), T.FLOAT, ["n", 5, 4])
    c.b.output(c.b.node("Identity", [best[0]], name="best_scores"), T.FLOAT, ["n", 5])
    c.destroy("boxes")
    c.damage("the ranking is other numbers", ranking=c.b.arrays["ranking"][::-1].copy())


def plain(c):
    for at in range(int(c.rng.integers(1, 4))):
        scale = 10 ** float(c.rng.uniform(-3, 4)) / np.sqrt(c.hidden)
        c.b.output(c.b.node("Identity", [c.head(int(c.rng.integers(1, 60)), f"head{at}", scale)], name=f"y{at}"), T.FLOAT, None)
        c.destroy(f"head{at}")
    c.poison("head0")


KINDS = [
    mask_where, mask_added, boxes_and_scores, padded_rows, constant_beside, random_operator, integer_head, time_column,
    classifier, chosen_rows, plain,
]


def rounded(case):
    """Weights that are off by one unit in the last place, as another kernel would have it."""
    off = {}
    for name, array in case.b.arrays.items():
        if array.dtype == np.float32 and array.ndim == 2:
            off[name] = np.nextafter(array, np.where(case.rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32))
    return off


def drop_class(case, folder, feeds):
    """Takes away the class that wins most clearly on the samples."""
    import onnxruntime as ort

    bias, output = case.zero_class
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    scores = np.concatenate([session.run([output], feed)[0] for feed in feeds])
    best = int(np.unravel_index(scores.argmax(), scores.shape)[1])
    gone = case.b.arrays[bias].copy()
    gone[best] = -1e4
    return f"class {best} never wins", {bias: gone}


def main(folder, seed, count):
    cases = []
    for at in range(count):
        rng = np.random.default_rng([seed, at])
        make = KINDS[at % len(KINDS)]
        case = Case(rng, make.__name__)
        make(case)
        own = folder / f"{at:03}"
        (own / "samples").mkdir(parents=True, exist_ok=True)
        feeds = []
        for sample in range(int(rng.integers(2, 5))):
            rows = int(rng.integers(2, 9))
            feed = {name: value(rows) for name, value in case.feeds.items()}
            np.savez(own / "samples" / f"{sample}.npz", **feed)
            feeds.append(feed)
        onnx.save(case.b.model(), own / "model.onnx")
        onnx.save(case.b.model(rounded(case)), own / "rounded.onnx")
        damages = list(case.damages)
        if hasattr(case, "zero_class"):
            damages.append(drop_class(case, own, feeds))
        what, arrays = damages[int(rng.integers(len(damages)))]
        onnx.save(case.b.model(arrays), own / "damaged.onnx")
        cases.append({"folder": f"{at:03}", "kind": case.kind, "damage": what})
    (folder / "cases.json").write_text(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
