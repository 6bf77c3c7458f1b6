"""Quantize models with onnxruntime's static quantizer, as its documentation recommends for x86-64.

Per channel, u8 activations, s8 weights, QDQ, ranges from minima and maxima; preceded by its own
pre-processing where that works. Jobs and results are those of `peer_jobs`; a job's "operators" are
those to quantize, null for all that the quantizer knows.
"""

import onnx
from jobs import answer, error_text
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from peer_jobs import run


class Samples(CalibrationDataReader):
    def __init__(self, samples):
        self.rest = iter(samples)

    def get_next(self):
        return next(self.rest, None)


def quantizer(operators):
    def quantize(model, samples, output, notes):
        source = prepared(model, notes)

        def attempt(extra):
            quantize_static(
                source,
                output,
                Samples(samples),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=operators,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options=extra,
            )

        try:
            attempt({})
        except ValueError:
            # Its adjustment of weights to biases raises on weights that have one scale by channel.
            attempt({"QDQDisableWeightAdjustForInt32Bias": True})
            notes.append("weights not adjusted to biases")

    return quantize


def prepared(model, notes):
    """A file of the model after the pre-processing, or as it is where that fails."""
    onnx.save(model, "model.onnx")
    source = "model.onnx"
    for skip in (False, True):
        try:
            quant_pre_process(source, "prepared.onnx", skip_symbolic_shape=skip)
        except Exception as error:  # noqa: BLE001 it is optional
            if skip:
                notes.append(f"no pre-processing: {error_text(error).strip().splitlines()[0]}")
            continue
        if skip:
            notes.append("pre-processing without symbolic shapes")
        source = "prepared.onnx"
        break
    return source


if __name__ == "__main__":
    answer(lambda job: run(job, quantizer(job["operators"])))
