"""Write the ONNX node tests as files, laid out as ONNX lays out its own test data.

    python make_nodes.py OUT_DIR

For each case of onnx.backend.test.case.node: OUT_DIR/NAME/model.onnx and
OUT_DIR/NAME/test_data_set_I/{input_J,output_J}.pb. Some cases draw random data, so the
generator is seeded: the same onnx and numpy give the same bytes.
"""

import pathlib
import sys
import warnings

import numpy
from onnx import TensorProto, numpy_helper

EXPECTED_CASES = 1884


def as_proto(value, info):
    """The test value as the protobuf message that the declared type asks for."""
    if info.type.HasField("map_type"):
        return numpy_helper.from_dict(value, info.name)
    if info.type.HasField("sequence_type"):
        return numpy_helper.from_list(value, info.name)
    if info.type.HasField("optional_type"):
        return numpy_helper.from_optional(value, info.name)
    if isinstance(value, TensorProto):
        return value
    return numpy_helper.from_array(numpy.asarray(value), info.name)


def write_case(case, folder):
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    graph = case.model.graph
    for index, (inputs, outputs) in enumerate(case.data_sets):
        data_set = folder / f"test_data_set_{index}"
        data_set.mkdir()
        for kind, values, infos in (
            ("input", inputs, graph.input),
            ("output", outputs, graph.output),
        ):
            for position, value in enumerate(values):
                proto = as_proto(value, infos[position])
                (data_set / f"{kind}_{position}.pb").write_bytes(proto.SerializeToString())


def main():
    out = pathlib.Path(sys.argv[1])
    warnings.simplefilter("ignore")
    numpy.random.seed(0)
    from onnx.backend.test.case.node import collect_testcases  # noqa: PLC0415 draws random data

    cases = collect_testcases()
    if len(cases) != EXPECTED_CASES:
        raise SystemExit(f"onnx has {len(cases)} node tests, expected {EXPECTED_CASES}")
    for case in sorted(cases, key=lambda case: case.name):
        write_case(case, out / case.name)
    print(f"  {len(cases)} node tests", file=sys.stderr)


if __name__ == "__main__":
    main()
