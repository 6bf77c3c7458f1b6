"""A copy of a model in which the class that wins most clearly on some samples is always 0.

Usage: drop_class.py MODEL SAMPLES AXIS FIRST OUT

SAMPLES is a folder of .npz files; classes lie along AXIS of the first output, from place FIRST on. Prints the class.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper


def main(model_path, samples, axis, first, out):
    session = ort.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    output = session.get_outputs()[0].name
    best, winner, classes, rank = -np.inf, 0, 0, 0
    for path in sorted(Path(samples).glob("*.npz")):
        with np.load(path) as arrays:
            scores = session.run([output], dict(arrays))[0]
        classes, rank = scores.shape[axis], scores.ndim
        scores = np.moveaxis(scores, axis, -1)[..., first:].reshape(-1, classes - first)
        row = np.sort(scores, axis=1)
        margins = row[:, -1] - (row[:, -2] if row.shape[1] > 1 else 0)
        if margins.max() > best:
            best, winner = margins.max(), first + int(scores[margins.argmax()].argmax())
    model = onnx.load(model_path)
    graph = model.graph
    shape = [1] * rank
    shape[axis] = classes
    mask = np.ones(shape, np.float32)
    mask[tuple(winner if at == axis else 0 for at in range(rank))] = 0
    for node in graph.node:
        node.output[:] = ["scores_before" if name == output else name for name in node.output]
        node.input[:] = ["scores_before" if name == output else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(mask, "class_mask"))
    graph.node.append(helper.make_node("Mul", ["scores_before", "class_mask"], [output], name="drop_class"))
    onnx.save(model, out)
    print(f"class {winner}, margin {best:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
