"""How close is a candidate model to its original on samples, by onnxruntime?

Jobs: [{"original": path, "candidate": path, "samples": [npz, ...], "time": bool}, ...].
The keys of an npz are input names; keys that are no input are ignored, but `label` holds
the true classes. Results: [{"error": str or null, "outputs": [...], "timing": ...}, ...].

Each output: `name`; `same_type` and `same_shape`, over all samples; `equal`, bit for bit;
`sqnr_db`, the worst sample's 10 log10(sum(ref^2) / sum((ref - candidate)^2)) in float64,
kept within [-999, 999]: 999 is no difference, -999 a difference that has no ratio (other
type or shape, a NaN or infinity on one side only, reference all zero); `max_abs_error`,
null where it has no value; and `top1`, the share of samples where the largest of a row of
scores [N, classes] is the label: {"original", "candidate", "count"}, null without labels.

Timing, where asked: both models run in turn, A B A B, on the first sample; `ratio` is the
median over pairs of candidate time / original time (below 1: the candidate is faster).
"""

import math
import statistics
import time

import numpy
from jobs import answer, error_text
from sessions import session

LIMIT_DB = 999.0
WARM_UP_RUNS = 5
MIN_PAIRS, MAX_PAIRS = 15, 1000
ENOUGH_SECONDS = 3.0


def leaves(value):
    """The arrays in an output: itself, or those of a sequence or a map in order."""
    if isinstance(value, dict):
        yield numpy.asarray(list(value.keys()))
        yield numpy.asarray(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield numpy.asarray(value)


class Parity:
    """What is known of one output after any number of samples."""

    def __init__(self, name):
        self.name = name
        self.same_type = self.same_shape = self.equal = True
        self.sqnr_db = LIMIT_DB
        self.max_abs_error = 0.0

    def add(self, reference, candidate):
        reference, candidate = list(leaves(reference)), list(leaves(candidate))
        if len(reference) != len(candidate):
            self.same_shape = False
            self.differs()
            return
        signal = noise = 0.0
        for a, b in zip(reference, candidate):
            self.same_type &= a.dtype == b.dtype
            self.same_shape &= a.shape == b.shape
            if a.dtype != b.dtype or a.shape != b.shape:
                self.differs()
            elif a.dtype.kind in "OUS":
                if not numpy.array_equal(a, b):
                    self.differs()
            else:
                self.equal &= a.tobytes() == b.tobytes()
                part = self.add_numbers(a.astype(numpy.float64), b.astype(numpy.float64))
                signal, noise = signal + part[0], noise + part[1]
        self.sqnr_db = min(self.sqnr_db, ratio_db(signal, noise))

    def add_numbers(self, a, b):
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        finite = numpy.isfinite(a) & numpy.isfinite(b)
        if not numpy.all(same | finite):
            self.differs()
        a, b = a[finite], b[finite]
        error = a - b
        if error.size and self.max_abs_error is not None:
            self.max_abs_error = max(self.max_abs_error, float(numpy.abs(error).max()))
        return float(numpy.square(a).sum()), float(numpy.square(error).sum())

    def differs(self):
        self.equal = False
        self.sqnr_db = -LIMIT_DB
        self.max_abs_error = None


def ratio_db(signal, noise):
    if noise == 0.0:
        return LIMIT_DB
    if signal == 0.0:
        return -LIMIT_DB
    return max(-LIMIT_DB, min(LIMIT_DB, 10.0 * math.log10(signal / noise)))


class Top1:
    """Correct answers of the original and of the candidate, for one output."""

    def __init__(self):
        self.correct = [0, 0]
        self.count = 0

    def add(self, reference, candidate, labels):
        labels = numpy.asarray(labels).reshape(-1)
        for values in (reference, candidate):
            if not isinstance(values, numpy.ndarray) or values.ndim != 2 or len(values) != len(labels):
                return
        self.count += len(labels)
        for side, values in enumerate((reference, candidate)):
            self.correct[side] += int((values.argmax(axis=1) == labels).sum())

    def result(self):
        if not self.count:
            return None
        original, candidate = (correct / self.count for correct in self.correct)
        return {"original": original, "candidate": candidate, "count": self.count}


def feeds(npz, model):
    return {i.name: npz[i.name] for i in model.get_inputs() if i.name in npz}


def timing(original, candidate, inputs):
    def seconds(model):
        start = time.perf_counter()
        model.run(None, inputs)
        return time.perf_counter() - start

    for _ in range(WARM_UP_RUNS):
        seconds(original)
        seconds(candidate)
    pairs = []
    start = time.perf_counter()
    while len(pairs) < MIN_PAIRS or (
        len(pairs) < MAX_PAIRS and time.perf_counter() - start < ENOUGH_SECONDS
    ):
        pairs.append((seconds(original), seconds(candidate)))
    return {
        "ratio": statistics.median(b / a for a, b in pairs),
        "original_ms": statistics.median(a for a, _ in pairs) * 1e3,
        "candidate_ms": statistics.median(b for _, b in pairs) * 1e3,
        "pairs": len(pairs),
    }


def compare(job):
    original, candidate = session(job["original"]), session(job["candidate"])
    names = [output.name for output in original.get_outputs()]
    if names != [output.name for output in candidate.get_outputs()]:
        raise ValueError(f"the candidate does not have the outputs {names}")
    parities = [Parity(name) for name in names]
    top1 = [Top1() for _ in names]
    first = None
    for path in job["samples"]:
        with numpy.load(path) as npz:
            inputs = feeds(npz, original)
            labels = npz["label"] if "label" in npz else None
        first = first or inputs
        results = zip(original.run(None, inputs), candidate.run(None, inputs))
        for index, (reference, value) in enumerate(results):
            parities[index].add(reference, value)
            if labels is not None:
                top1[index].add(reference, value, labels)
    outputs = [vars(p) | {"top1": t.result()} for p, t in zip(parities, top1)]
    timed = timing(original, candidate, first) if job.get("time") and first else None
    return {"error": None, "outputs": outputs, "timing": timed}


def answer_one(job):
    try:
        return compare(job)
    except Exception as error:  # noqa: BLE001 a model that does not run is an answer
        return {"error": error_text(error), "outputs": [], "timing": None}


if __name__ == "__main__":
    answer(answer_one)
