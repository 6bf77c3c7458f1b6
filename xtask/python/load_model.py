"""Does onnxruntime load a model?

Jobs: [model.onnx, ...]. Results: [{"error": str or null}, ...].
"""

from jobs import answer, error_text
from sessions import session


def load(path):
    try:
        session(path)
    except Exception as error:  # noqa: BLE001 any refusal is the answer
        return {"error": error_text(error)}
    return {"error": None}


if __name__ == "__main__":
    answer(load)
