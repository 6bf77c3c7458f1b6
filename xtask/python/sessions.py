"""onnxruntime sessions as every oracle makes them: one thread, CPU, quiet, no telemetry."""

import onnxruntime

onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(3)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
