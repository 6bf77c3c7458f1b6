"""How does a converted ONNX node test do against its original, by the checker and onnxruntime?

Jobs: [{"model": path, "candidate": path or null, "data": folder, "tolerance": x}, ...].
Results, one per job:

- `float_input`: the original has a dense float32 input;
- `original_runs`, `original_checks`: onnxruntime runs it, the checker (full check) accepts it;
- `checker_error`, `load_error`, `run_error`: what they say of the candidate, null where nothing;
- `disagreement`: how its outputs differ from those of the original by more than the tolerance,
  taken as relative and absolute tolerance alike; null where they do not.

Inputs of the candidate that are 16-bit floats get the inputs rounded, and its 16-bit outputs are
widened before they are compared.
"""

import pathlib

import ml_dtypes
import numpy
import onnx
import onnxruntime
from jobs import answer, error_text
from onnx import TensorProto, numpy_helper
from sessions import session

SIXTEEN = {"tensor(float16)": numpy.float16, "tensor(bfloat16)": ml_dtypes.bfloat16}


def value_of(path, info):
    """The test value in a file, as onnxruntime takes it."""
    data = path.read_bytes()
    kind = info.type.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    if kind == "map_type":
        return numpy_helper.to_dict(onnx.MapProto.FromString(data))
    return numpy_helper.to_array(TensorProto.FromString(data))


def feeds_of(model, folder):
    infos = list(model.graph.input)
    return {
        info.name: value_of(folder / f"input_{index}.pb", info)
        for index, info in enumerate(infos)
        if (folder / f"input_{index}.pb").exists()
    }


def has_float_input(model):
    return any(
        info.type.tensor_type.elem_type == TensorProto.FLOAT for info in model.graph.input
    )


def checker_error(path):
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        return error_text(error)
    return None


def run(running, feeds):
    """All outputs; 16-bit inputs are rounded to, and bfloat16 goes through its own values."""
    types = {info.name: info.type for info in running.get_inputs()}
    given = {}
    for name, value in feeds.items():
        if name not in types:
            continue
        kind = SIXTEEN.get(types[name])
        if kind is not None and isinstance(value, numpy.ndarray) and value.dtype == numpy.float32:
            value = value.astype(kind)
            if kind is ml_dtypes.bfloat16:
                value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                    value.view(numpy.uint16), TensorProto.BFLOAT16
                )
        given[name] = value
    return running.run(None, given)


def differs(reference, candidate, tolerance, name):
    if isinstance(reference, dict):
        reference, candidate = list(reference.items()), list(candidate.items())
    if isinstance(reference, (list, tuple)):
        if len(reference) != len(candidate):
            return f"{name}: {len(candidate)} items, not {len(reference)}"
        parts = (differs(a, b, tolerance, name) for a, b in zip(reference, candidate))
        return next((part for part in parts if part), None)
    if reference is None or candidate is None:
        return None if reference is candidate else f"{name}: one is missing"
    reference, candidate = numpy.asarray(reference), numpy.asarray(candidate)
    if candidate.dtype in (numpy.float16, ml_dtypes.bfloat16) and reference.dtype == numpy.float32:
        candidate = candidate.astype(numpy.float32)
    if reference.dtype != candidate.dtype or reference.shape != candidate.shape:
        return f"{name}: {candidate.dtype}{candidate.shape}, not {reference.dtype}{reference.shape}"
    if reference.dtype.kind not in "fc":
        if numpy.array_equal(reference, candidate):
            return None
        return f"{name}: {int((reference != candidate).sum())} of {reference.size} differ"
    close = numpy.isclose(candidate, reference, rtol=tolerance, atol=tolerance, equal_nan=True)
    if close.all():
        return None
    worst = numpy.nanmax(numpy.abs(candidate.astype(numpy.float64) - reference)[~close])
    return f"{name}: {int((~close).sum())} of {reference.size} differ, by up to {worst:.3g}"


def judge(job):
    model = onnx.load(job["model"])
    folder = pathlib.Path(job["data"])
    result = {
        "float_input": has_float_input(model),
        "original_runs": False,
        "original_checks": False,
        "checker_error": None,
        "load_error": None,
        "run_error": None,
        "disagreement": None,
    }
    if not result["float_input"]:
        return result
    try:
        feeds = feeds_of(model, folder)
        reference = run(session(job["model"]), feeds)
    except Exception:  # noqa: BLE001 what onnxruntime does not run is not in the set
        return result
    result["original_runs"] = True
    result["original_checks"] = checker_error(job["model"]) is None
    candidate = job["candidate"]
    if candidate is None:
        return result
    result["checker_error"] = checker_error(candidate)
    try:
        running = session(candidate)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        result["load_error"] = error_text(error)
        return result
    try:
        outputs = run(running, feeds)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        result["run_error"] = error_text(error)
        return result
    names = [output.name for output in model.graph.output]
    parts = (
        differs(a, b, job["tolerance"], name) for name, a, b in zip(names, reference, outputs)
    )
    result["disagreement"] = next((part for part in parts if part), None)
    return result


if __name__ == "__main__":
    answer(judge)
