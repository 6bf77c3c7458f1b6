"""What the scripts that quantize with other tools share.

Jobs: [{"model": path, "samples": [npz, ...], "output": path}, ...]; the keys of an npz are input
names. Results: [{"error": str or null, "notes": [str, ...], "seconds": float}, ...]: why nothing was
written, what had to be done to the model by hand, and how long the tool took.
"""

import os
import tempfile
import time

import numpy
import onnx
from jobs import error_text
from onnx import version_converter

# The first that has per-channel DequantizeLinear is 13; of these one is taken that the converter reaches.
NEEDED_OPSET = 13
UPGRADES = (17, 15, 13)


def opset(model):
    return next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def upgraded(model, notes):
    """The model at an opset that can say per-channel scales, if onnx's converter gets it there."""
    if opset(model) >= NEEDED_OPSET:
        return model
    reason = None
    for target in UPGRADES:
        try:
            converted = version_converter.convert_version(model, target)
            onnx.checker.check_model(converted, full_check=True)
        except Exception as error:  # noqa: BLE001 the next target may do
            reason = reason or error_text(error)
            continue
        notes.append(f"opset {opset(model)} to {target}")
        return converted
    notes.append(f"opset {opset(model)} stays: {reason.strip().splitlines()[0]}")
    return model


def inputs(path, names):
    with numpy.load(path) as archive:
        return {name: archive[name] for name in names if name in archive}


def input_names(model):
    constants = {initializer.name for initializer in model.graph.initializer}
    return [value.name for value in model.graph.input if value.name not in constants]


def run(job, quantize):
    """Answers a job by `quantize(model, samples, output, notes)`, in a folder that files may be left in."""
    notes, before = [], os.getcwd()
    start = time.perf_counter()
    error = None
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            model = onnx.load(job["model"])
            names = input_names(model)
            samples = [inputs(path, names) for path in job["samples"]]
            quantize(upgraded(model, notes), samples, job["output"], notes)
        except Exception as failure:  # noqa: BLE001 a tool that gives up is the answer
            error = error_text(failure).strip()
        finally:
            os.chdir(before)
    return {"error": error, "notes": notes, "seconds": time.perf_counter() - start}
