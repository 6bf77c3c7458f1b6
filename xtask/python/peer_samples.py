"""Lay out the samples that quantizers are compared on.

    python peer_samples.py SAMPLES_DIR DIGITS_DIR OUT_DIR

For each model of SAMPLES_DIR this writes OUT_DIR/<model>/given/NNN.npz, which tools may calibrate
and judge on, and OUT_DIR/<model>/heldout/NNN.npz, on which what they made is measured. The realistic
samples are given but for the last two; those are held out with the others that no tool may see.
Digits come from scikit-learn, in batches: given ones are of those that DIGITS_DIR/cnn.onnx was
trained on, held-out ones are not.
"""

import shutil
import sys
from pathlib import Path

import numpy
from sklearn.datasets import load_digits

GIVEN_AT_MOST = 8
KEPT_BACK = 2
BATCH, BATCHES = 64, 6


def write_real(samples, out):
    for model in sorted(path for path in samples.iterdir() if path.is_dir()):
        real = sorted((model / "real").glob("*.npz"))
        split = {
            "given": real[:-KEPT_BACK][:GIVEN_AT_MOST],
            "heldout": real[-KEPT_BACK:] + sorted((model / "heldout").glob("*.npz")),
        }
        for name, files in split.items():
            folder = out / model.name / name
            folder.mkdir(parents=True)
            for place, file in enumerate(files):
                shutil.copyfile(file, folder / f"{place:03}.npz")


def write_digits(fixture, out):
    """The pictures in the order of the script that trained the model, which held out the first ones."""
    pictures = load_digits().images
    order = numpy.random.RandomState(0).permutation(len(pictures))
    pictures = (pictures[order, None] / 16).astype(numpy.float32)
    with numpy.load(fixture / "heldout.npz") as archive:
        unseen = archive["image"]
    if not numpy.array_equal(pictures[: len(unseen)], unseen):
        sys.exit("the digits are not in the order that the model was trained with")
    for name, images in (("given", pictures[len(unseen) :]), ("heldout", unseen)):
        folder = out / "digits" / name
        folder.mkdir(parents=True)
        for place in range(BATCHES):
            numpy.savez(folder / f"{place:03}.npz", image=images[place * BATCH : (place + 1) * BATCH])


if __name__ == "__main__":
    samples_dir, digits_dir, out_dir = map(Path, sys.argv[1:])
    write_real(samples_dir, out_dir)
    write_digits(digits_dir, out_dir)
