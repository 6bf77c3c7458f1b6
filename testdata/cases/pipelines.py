"""Pipelines of scikit-learn, as skl2onnx exports them."""

import warnings

import numpy as np
from case import Case, case

WORDS = 120


def fitted_text():
    """A classifier of texts, and texts; they mean nothing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline

    random = np.random.default_rng(16)
    words = [f"word{index:03d}" for index in range(WORDS)]
    texts = [" ".join(random.choice(words, 12)) for _ in range(160)]
    labels = np.array(["ham" if sum(map(ord, text)) % 2 else "spam" for text in texts])
    network = MLPClassifier((128, 64), max_iter=20, random_state=0)
    pipeline = make_pipeline(TfidfVectorizer(lowercase=False), network)
    with warnings.catch_warnings():
        # It need not have learned anything.
        warnings.simplefilter("ignore")
        return pipeline.fit(texts, labels), texts


def exported_text(zipmap):
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    pipeline, texts = fitted_text()
    inputs = [("text", StringTensorType([None, 1]))]
    model = to_onnx(pipeline, initial_types=inputs, options={"zipmap": zipmap}, target_opset=15)
    return Case(model, [{"text": np.array([[text]])} for text in texts[:3]])


@case
def text_classifier(_builder, _random):
    """Strings come in, and a string goes out beside the probabilities."""
    return exported_text(zipmap=False)


@case
def text_classifier_maps(_builder, _random):
    """The same; the probabilities are a sequence of maps."""
    return exported_text(zipmap=True)


@case
def tree_ensemble(_builder, random):
    """A random forest: all numbers stand in attributes, and there is no weight to quantize."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor

    features = random.standard_normal((300, 8)).astype(np.float32)
    wanted = features[:, 0] * features[:, 1] + features[:, 2]
    forest = RandomForestRegressor(20, random_state=0).fit(features, wanted)
    model = to_onnx(forest, features[:1], target_opset=15)
    return Case(model, [{"X": features[start : start + 16]} for start in (0, 16, 32)])
