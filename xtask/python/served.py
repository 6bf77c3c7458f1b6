"""What the checks of a server by its clients share: models, their inputs, and what onnxruntime says to them.

A check is called with HOST:PORT of a server and the folder of models that it serves:
digits/1 and digits/2, of float32, and magika/1, of int32. It says what it did on standard output, and
ends with an error at the first thing that is not as it should be.
"""

import os
import pathlib
import sys

import numpy
import onnxruntime

NAMES = {"tensor(float)": "FP32", "tensor(int32)": "INT32"}


class Served:
    """A version of a model that is served, and onnxruntime's own session of the same file."""

    def __init__(self, folder, name, version, shape):
        self.name, self.version = name, version
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        path = pathlib.Path(folder, name, version, "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.input, *others = self.session.get_inputs()
        assert not others, f"{name} has more than one input"
        self.datatype = NAMES[self.input.type]
        self.shape = shape

    def example(self, seed):
        """Inputs of three rows."""
        random = numpy.random.default_rng(seed)
        if self.datatype == "FP32":
            return random.random(self.shape, numpy.float32)
        return random.integers(0, 256, self.shape, numpy.int32)

    def outputs(self, array):
        """What onnxruntime answers, by name."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, {self.input.name: array})))


def arguments():
    """The address, and the models."""
    address, folder = sys.argv[1:]
    models = [
        Served(folder, "digits", "1", (3, 1, 8, 8)),
        Served(folder, "digits", "2", (3, 1, 8, 8)),
        Served(folder, "magika", "1", (3, 2048)),
    ]
    return address, models


def hold(what, found, expected):
    """Both have to be the same."""
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, but {expected!r} was expected")


def hold_arrays(what, found, expected):
    """Both have to be the same, bit for bit."""
    if found is None:
        raise AssertionError(f"{what}: there is none")
    hold(f"{what}, type", str(found.dtype), str(expected.dtype))
    hold(f"{what}, shape", found.shape, expected.shape)
    if found.tobytes() != expected.tobytes():
        difference = numpy.abs(found.astype(float) - expected.astype(float)).max()
        raise AssertionError(f"{what} differs by {difference} at most")
