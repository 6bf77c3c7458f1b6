"""How fast are candidates beside their original, and how close, by onnxruntime alone?

Jobs: [{"original": path, "candidates": [path, ...], "samples": [npz, ...], "seconds": float}, ...].
Results: [{"original_ms": float, "candidates": [...]}, ...]. All models of a job run in turn on the
first sample, one thread; each round starts with the next of them, so that none always runs behind
the same one. Time is what that thread was on the processor: the same as on a clock where nothing else
runs, and still comparable where something does, which stops long runs more often than short ones.
A candidate has `error`, why it could not be loaded or run; and if null `ratio`,
the median over rounds of candidate time / original time (below 1: faster), with `low` and `high`, an
interval that holds the true median in 99 of 100 cases; `rounds`; and `sqnr_db`, of the worst output of
the worst sample, as `run_models` has it.
"""

import statistics
import time

import numpy
from jobs import answer, error_text
from run_models import Parity, feeds
from sessions import session

WARM_UP_ROUNDS = 3
MIN_ROUNDS, MAX_ROUNDS = 51, 2001
# Of a normal distribution: 99 % lie within so many standard deviations.
DEVIATIONS = 2.576


def median_interval(values):
    """Median with a 99 % interval by order statistics, which asks nothing of the distribution."""
    ordered = sorted(values)
    count = len(ordered)
    reach = DEVIATIONS * count**0.5 / 2
    low = max(0, int(count / 2 - reach))
    high = min(count - 1, int(count / 2 + reach) + 1)
    return statistics.median(ordered), ordered[low], ordered[high]


def tried(path, original, samples):
    """The candidate, if it runs on all samples, and what is known of it."""
    try:
        model = session(path)
        return model, {"error": None, "sqnr_db": compared(original, model, samples)}
    except Exception as error:  # noqa: BLE001 a model that does not run is an answer
        return None, {"error": error_text(error).strip()}


def compared(original, candidate, samples):
    names = [output.name for output in original.get_outputs()]
    parities = [Parity(name) for name in names]
    for inputs in samples:
        reference = original.run(None, inputs)
        for parity, one, other in zip(parities, reference, candidate.run(names, inputs)):
            parity.add(one, other)
    return min(parity.sqnr_db for parity in parities)


def timed(models, inputs, budget):
    """Seconds by model, then by round."""
    times = [[] for _ in models]
    start = None
    rounds = -WARM_UP_ROUNDS
    while rounds < MIN_ROUNDS or (rounds < MAX_ROUNDS and time.perf_counter() - start < budget):
        if rounds == 0:
            start = time.perf_counter()
        for place in range(len(models)):
            index = (place + rounds) % len(models)
            begin = time.thread_time()
            models[index].run(None, inputs)
            elapsed = time.thread_time() - begin
            if rounds >= 0:
                times[index].append(elapsed)
        rounds += 1
    return times


def measure(job):
    original = session(job["original"])
    samples = []
    for path in job["samples"]:
        with numpy.load(path) as archive:
            samples.append(feeds(archive, original))
    answers, running = [], []
    for path in job["candidates"]:
        model, found = tried(path, original, samples)
        answers.append(found)
        if model:
            running.append((model, found))
    models = [original] + [model for model, _ in running]
    base, *others = timed(models, samples[0], job["seconds"])
    for (_, found), times in zip(running, others):
        ratios = [other / reference for other, reference in zip(times, base)]
        median, low, high = median_interval(ratios)
        found |= {"ratio": median, "low": low, "high": high, "rounds": len(ratios)}
    return {"original_ms": statistics.median(base) * 1e3, "candidates": answers}


if __name__ == "__main__":
    answer(measure)
