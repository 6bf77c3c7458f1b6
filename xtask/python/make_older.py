"""Write models of older operator sets, to be upgraded.

    python make_older.py NODES_DIR OUT_DIR

Three kinds: node tests of operator sets up to 17 as they are; node tests that are stamped with an older
version of their operators, where the checker and onnxruntime take them; and what `older_cases.py`
writes, for each step that an adapter is for. OUT_DIR/cases.json lists them: kind, name, model and data
(a folder with input_J.pb).
"""

import json
import pathlib
import sys
import warnings

import onnx
from older_cases import cases
from onnx import numpy_helper
from run_nodes import feeds_of, run
from sessions import session

OLDEST = 7
OLD = 17


def versions():
    """Versions of each operator of ai.onnx, oldest first."""
    found = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            found.setdefault(schema.name, []).append(schema.since_version)
    return {name: sorted(list_) for name, list_ in found.items()}


def nodes_of(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                yield from nodes_of(inner)


def operators(model):
    parts = [model.graph, *model.functions]
    return sorted({n.op_type for part in parts for n in nodes_of(part) if n.domain in ("", "ai.onnx")})


def opset(model):
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)


def stamped(model, version):
    older = onnx.ModelProto()
    older.CopyFrom(model)
    for imported in older.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = version
    return older


def is_accepted(path, feeds):
    try:
        onnx.checker.check_model(str(path), full_check=True)
        run(session(str(path)), feeds)
    except Exception:  # noqa: BLE001 what is not accepted is not in the set
        return False
    return True


def old_and_stamped(nodes, out, known):
    for folder in sorted(nodes.iterdir()):
        model = onnx.load(folder / "model.onnx")
        now = opset(model)
        if now is None:
            continue
        data = folder / "test_data_set_0"
        if now <= OLD:
            yield row("node tests", folder.name, folder / "model.onnx", data)
        if now <= OLDEST:
            continue
        names = operators(model)
        older = {max(v, OLDEST) for name in names for v in known.get(name, []) if v < now}
        try:
            feeds = feeds_of(model, data)
        except Exception:  # noqa: BLE001 data of a kind that cannot be given
            continue
        for version in sorted(older):
            name = f"{folder.name}-{version}"
            path = out / name / "model.onnx"
            path.parent.mkdir()
            path.write_bytes(stamped(model, version).SerializeToString(deterministic=True))
            if is_accepted(path, feeds):
                yield row("node tests, stamped older", name, path, data)
            else:
                path.unlink()
                path.parent.rmdir()


def row(kind, name, path, data):
    return {"kind": kind, "name": name, "model": str(path), "data": str(data)}


def say_shapes(case):
    """Says the shapes of outputs, which the checker wants to know, as onnxruntime finds them."""
    feeds = dict(zip((info.name for info in case.model.graph.input), case.inputs))
    try:
        found = run(session(case.model.SerializeToString()), feeds)
    except Exception:  # noqa: BLE001 what does not run has none
        return
    for info, value in zip(case.model.graph.output, found):
        for size in value.shape:
            info.type.tensor_type.shape.dim.add().dim_value = size


def written(out):
    for case in cases():
        folder = out / case.name
        data = folder / "test_data_set_0"
        data.mkdir(parents=True)
        say_shapes(case)
        (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
        for index, value in enumerate(case.inputs):
            proto = numpy_helper.from_array(value)
            (data / f"input_{index}.pb").write_bytes(proto.SerializeToString())
        yield row("written for adapters", case.name, folder / "model.onnx", data)


def main():
    nodes, out = (pathlib.Path(argument) for argument in sys.argv[1:3])
    warnings.simplefilter("ignore")
    out.mkdir(parents=True)
    rows = list(written(out)) + list(old_and_stamped(nodes, out, versions()))
    (out / "cases.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
