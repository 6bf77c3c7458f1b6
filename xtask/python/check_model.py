"""Does the ONNX checker, with full shape inference, accept a model?

Jobs: [model.onnx, ...]. Results: [{"error": str or null}, ...].
"""

import onnx
from jobs import answer, error_text


def check(path):
    try:
        onnx.checker.check_model(path, full_check=True)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        return {"error": error_text(error)}
    return {"error": None}


if __name__ == "__main__":
    answer(check)
