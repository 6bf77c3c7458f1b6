"""Is an upgraded model the same as its original, by the checker and onnxruntime?

Jobs: [{"model": path, "candidate": path or null, "data": folder}, ...].
Results, one per job:

- `original_runs`, `original_checks`: onnxruntime runs it, the checker (full check) accepts it; where
  only the plain check does, `original_checks` is false and `original_checks_plainly` true;
- `checker_error`: what the check that the original passes says of the candidate; where the original passes
  none, as one with a deprecated operator, nothing;
- `run_error`: why onnxruntime does not load or run the candidate;
- `disagreement`: how its outputs differ from those of the original by more than rounding.

Where the candidate is null nothing is said of it.
"""

import pathlib

import onnx
from jobs import answer, error_text
from run_nodes import differs, feeds_of, run
from sessions import session

# Sums in another order, and functions that two kernels approximate differently: some units in the last
# place of the type.
TOLERANCES = {"float16": 2e-3, "bfloat16": 1.6e-2}
TOLERANCE = 1e-5


def tolerance_of(value):
    return TOLERANCES.get(str(getattr(value, "dtype", "")), TOLERANCE)


def checked(path, full):
    try:
        onnx.checker.check_model(path, full_check=full)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        return error_text(error)
    return None


def outputs_of(path, feeds):
    try:
        return run(session(path), feeds), None
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        return None, error_text(error)


def judge(job):
    model = onnx.load(job["model"])
    feeds = feeds_of(model, pathlib.Path(job["data"]))
    reference, _ = outputs_of(job["model"], feeds)
    full = checked(job["model"], full=True) is None
    plain = full or checked(job["model"], full=False) is None
    result = {
        "original_runs": reference is not None,
        "original_checks": full,
        "original_checks_plainly": plain,
        "checker_error": None,
        "run_error": None,
        "disagreement": None,
    }
    candidate = job["candidate"]
    if candidate is None:
        return result
    if plain:
        result["checker_error"] = checked(candidate, full)
    outputs, result["run_error"] = outputs_of(candidate, feeds)
    if reference is None or outputs is None:
        return result
    names = [output.name for output in model.graph.output]
    values = zip(names, reference, outputs)
    parts = (differs(a, b, tolerance_of(a), name) for name, a, b in values)
    result["disagreement"] = next((part for part in parts if part), None)
    return result


if __name__ == "__main__":
    answer(judge)
