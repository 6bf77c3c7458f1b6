"""Quantize models with NNCF's post-training quantization at its defaults.

Jobs and results are those of `peer_jobs`; a job's "preset" is "PERFORMANCE" or "MIXED".
"""

import nncf
import onnx
from jobs import answer
from peer_jobs import run


def quantizer(preset):
    def quantize(model, samples, output, _notes):
        quantized = nncf.quantize(
            model, nncf.Dataset(samples), preset=nncf.QuantizationPreset[preset]
        )
        onnx.save(quantized, output)

    return quantize


if __name__ == "__main__":
    answer(lambda job: run(job, quantizer(job["preset"])))
