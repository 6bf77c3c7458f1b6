"""What the cases are built with: a registry over the graph builder of testdata/graphs."""

from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from builder import Builder

CASES = {}


@dataclass
class Case:
    """A model, samples that it runs on, and folders of other samples."""

    model: object
    samples: list
    others: dict = field(default_factory=dict)


def case(make):
    """Register `make(Builder, random) -> Case | list of samples`; its docstring says what is hard."""
    CASES[make.__name__] = make
    return make


def build(name):
    """The case `name`; a maker that returns samples means the builder's own model."""
    builder = Builder(name)
    made = CASES[name](builder, np.random.default_rng(crc32(name.encode())))
    return made if isinstance(made, Case) else Case(builder.model(), made)


def normal(random, *shape, scale=1.0):
    return (random.standard_normal(shape) * scale).astype(np.float32)


def pictures(random, count, *shape):
    """Batches of one picture of noise between -1 and 1."""
    noise = random.random((count, *shape)).astype(np.float32) * 2 - 1
    return [picture[None] for picture in noise]
