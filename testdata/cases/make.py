"""Small models that quantizers, converters and checkers are known to go wrong on, with samples.

    python make.py FOLDER [NAME ...]

writes `NAME/model.onnx` and `NAME/samples/NNN.npz` into the folder. They are made when tests are set
up, not kept. The structures are those of public reports; weights are random and seeded, or fitted to
numbers that are. Each case is a function of classifiers.py, detectors.py, generators.py, formats.py or
pipelines.py; its docstring says what is hard about it.

Every model goes through onnxruntime with its first sample before it counts. Needs numpy, onnx,
onnxruntime, scikit-learn and skl2onnx.
"""

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path.append(str(Path(__file__).parent.parent / "graphs"))

import classifiers  # noqa: E402, F401
import detectors  # noqa: E402, F401
import formats  # noqa: E402, F401
import generators  # noqa: E402, F401
import pipelines  # noqa: E402, F401
from case import CASES, build  # noqa: E402


def write_npz(path, sample):
    """`np.savez` with zip's earliest date: two runs write the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, value in sample.items():
            buffer = io.BytesIO()
            array = np.asarray(value)
            np.lib.format.write_array(buffer, np.ascontiguousarray(array).reshape(array.shape))
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue())


def check(path, sample):
    """Runs the model: a case that does not run would say nothing."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {
        name: value.astype(object) if value.dtype.kind == "U" else value
        for name, value in ((name, np.asarray(value)) for name, value in sample.items())
    }
    session.run(None, feeds)


def write(name, folder):
    made = build(name)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    # skl2onnx lists operator sets in an order that differs from run to run.
    made.model.opset_import.sort(key=lambda opset: opset.domain)
    path.write_bytes(made.model.SerializeToString(deterministic=True))
    for group, samples in {"samples": made.samples, **made.others}.items():
        for index, sample in enumerate(samples):
            write_npz(folder / group / f"{index:03d}.npz", sample)
    onnx.checker.check_model(str(path))
    check(path, made.samples[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CASES)}; default all")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)}")
    onnxruntime.disable_telemetry_events()
    for name in arguments.names or CASES:
        write(name, arguments.folder / name)
    print(f"  {len(arguments.names or CASES)} cases", file=sys.stderr)


if __name__ == "__main__":
    main()
