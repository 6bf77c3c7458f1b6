"""Write a recommender: tables that rows are gathered from, and products too small for integers to pay.

    python make.py FOLDER     writes recommender.onnx and samples/*.npz into the folder

Needs numpy and onnx. Weights are random and seeded.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS = (6000, 3000, 1000)
WIDTH = 16
HIDDEN = 64
BATCH = 32


def main():
    folder = Path(sys.argv[1])
    random = np.random.RandomState(7)
    tensor = lambda name, *shape: numpy_helper.from_array(random.normal(0, 0.1, shape).astype(np.float32), name)
    nodes, tables, inputs = [], [], []
    for index, rows in enumerate(ROWS):
        tables.append(tensor(f"table{index}", rows, WIDTH))
        inputs.append(helper.make_tensor_value_info(f"id{index}", TensorProto.INT64, ["batch"]))
        nodes.append(
            helper.make_node("Gather", [f"table{index}", f"id{index}"], [f"row{index}"], f"gather{index}")
        )
    rows = [f"row{index}" for index in range(len(ROWS))]
    nodes += [
        helper.make_node("Concat", rows, ["all"], "concat", axis=1),
        helper.make_node("Gemm", ["all", "W1", "b1"], ["hidden"], "fc1", transB=1),
        helper.make_node("Relu", ["hidden"], ["alive"], "relu"),
        helper.make_node("Gemm", ["alive", "W2", "b2"], ["score"], "fc2", transB=1),
    ]
    weights = [
        *tables,
        tensor("W1", HIDDEN, WIDTH * len(ROWS)),
        tensor("b1", HIDDEN),
        tensor("W2", 32, HIDDEN),
        tensor("b2", 32),
    ]
    output = helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", 32])
    graph = helper.make_graph(nodes, "recommender", inputs, [output], weights)
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / "recommender.onnx")
    (folder / "samples").mkdir(exist_ok=True)
    for sample in range(2):
        ids = {f"id{index}": random.randint(0, rows, BATCH) for index, rows in enumerate(ROWS)}
        np.savez(folder / "samples" / f"{sample}.npz", **{name: row.astype(np.int64) for name, row in ids.items()})


if __name__ == "__main__":
    main()
