"""Write the hand-made models of this folder, their samples and the table in README.md.

    python make.py [NAME ...]

Each `<name>.onnx` comes from the function of that name in weights.py, subgraphs.py, layers.py,
quantized.py or formats.py; its docstring says what is hard about the model. `<name>.npz` is one sample
(keys are input names). Every model goes through the full ONNX checker and through onnxruntime, and a
result other than the fixture declares is an error. Needs numpy, onnx, onnxruntime, scikit-learn and
skl2onnx.
"""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import builder
import formats  # noqa: F401
import layers  # noqa: F401
import quantized  # noqa: F401
import subgraphs  # noqa: F401
import weights  # noqa: F401

HERE = Path(__file__).parent

INTRODUCTION = """\
# Hand-made graphs

Tiny models, one for each thing that is known to trip tools that rewrite ONNX. Weights are drawn with a
fixed seed at the scale of trained ones, and are large enough (over 1 kB) that a quantizer with a size
threshold acts on them. `<name>.npz` is a sample to run the model on; its keys are the input names.

`python make.py` makes all of it, this file included, and fails if the full
ONNX checker or onnxruntime judges a model otherwise than the table says. The models were made for this
repository and are under its licence; `sklearn_forest` is fitted to the iris data of R. A. Fisher (1936)
that scikit-learn ships (CC BY 4.0, doi:10.24432/C56C76).

`external_data.onnx` needs the folder `external_data/` beside it.

"""


def write_npz(path, sample):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, value in sample.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(value))
            archive.writestr(zipfile.ZipInfo(f"{key}.npy"), buffer.getvalue())


def checker_accepts(path):
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        return False, str(error)
    return True, ""


def runtime_accepts(path, sample):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, sample)
    except Exception as error:
        return False, str(error)
    return True, ""


def write(name):
    """Write one fixture and check it against what it declares; returns it with what went wrong."""
    made = builder.build(name)
    path = HERE / f"{name}.onnx"
    for relative, content in made.files.items():
        (HERE / relative).parent.mkdir(exist_ok=True)
        (HERE / relative).write_bytes(content)
    path.write_bytes(made.model.SerializeToString(deterministic=True))
    write_npz(HERE / f"{name}.npz", made.sample)
    problems = []
    for what, expected, (actual, message) in [
        ("the checker", made.checks, checker_accepts(path)),
        ("onnxruntime", made.runs, runtime_accepts(path, made.sample)),
    ]:
        if actual != expected:
            problems.append(f"{name}: {what} {'accepts' if actual else 'refuses'} it: {message}")
    return made, problems


def table(fixtures):
    rows = ["| name | opset | kB | what is hard | checker | onnxruntime |", "|---|---|---|---|---|---|"]
    for name in sorted(fixtures):
        made = fixtures[name]
        opset = max([o.version for o in made.model.opset_import if o.domain in ("", "ai.onnx")], default="–")
        size = (HERE / f"{name}.onnx").stat().st_size / 1000
        hard = " ".join(builder.FIXTURES[name].__doc__.split())
        yes_no = ["accepts" if ok else "**refuses**" for ok in (made.checks, made.runs)]
        rows.append(f"| `{name}` | {opset} | {size:.0f} | {hard} | {yes_no[0]} | {yes_no[1]} |")
    return "\n".join(rows)


def main():
    onnxruntime.disable_telemetry_events()
    names = sys.argv[1:] or list(builder.FIXTURES)
    fixtures, problems = {}, []
    for name in names:
        fixtures[name], wrong = write(name)
        problems += wrong
    if problems:
        raise SystemExit("\n".join(problems))
    if len(names) == len(builder.FIXTURES):
        (HERE / "README.md").write_text(INTRODUCTION + table(fixtures) + "\n", encoding="utf-8")
    print(f"{len(fixtures)} models")


if __name__ == "__main__":
    main()
