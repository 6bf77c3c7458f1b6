"""What the fixtures are built with: a small graph builder and the list of fixtures."""

from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FIXTURES = {}

TENSOR_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.int32): TensorProto.INT32,
    np.dtype(np.int8): TensorProto.INT8,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.bool_): TensorProto.BOOL,
}


@dataclass
class Fixture:
    """A model, an input it runs on, and what tools make of it."""

    model: object
    sample: dict = field(default_factory=dict)
    checks: bool = True
    runs: bool = True
    files: dict = field(default_factory=dict)


def fixture(make):
    """Register `make(Builder) -> Fixture | None`; its docstring says what is hard about the model."""
    FIXTURES[make.__name__] = make
    return make


def build(name):
    """The fixture `name`; a maker that returns nothing means the builder's own model."""
    builder = Builder(name)
    return FIXTURES[name](builder) or builder.fixture()


class Builder:
    """Collects nodes, constants, inputs and outputs; every method returns the name it added."""

    def __init__(self, name, random=None, opset=17, ir=8):
        self.name = name
        self.random = random or np.random.RandomState(crc32(name.encode()))
        self.opset, self.ir = opset, ir
        self.domains = {}
        self.functions = []
        self.nodes, self.initializers, self.sparse = [], [], []
        self.inputs, self.outputs, self.value_infos = [], [], []
        self.sample = {}

    def child(self, name):
        """A builder for a subgraph: numbers come from the same stream."""
        return Builder(name, self.random, self.opset, self.ir)

    def input(self, name, shape, example=None):
        """A graph input. `example` is its value in the sample, or a shape to draw it with."""
        if example is None or isinstance(example, tuple):
            example = self.normal(example or shape, 1.0)
        example = np.asarray(example)
        self.inputs.append(helper.make_tensor_value_info(name, TENSOR_TYPES[example.dtype], shape))
        self.sample[name] = example
        return name

    def output(self, name, shape, dtype=TensorProto.FLOAT):
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def normal(self, shape, scale, dtype=np.float32):
        return (self.random.normal(0, 1, shape) * scale).astype(dtype)

    def draw(self, *shape, dtype=np.float32):
        """Weights as large as trained ones: the last axes but the first count as fan-in."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return self.normal(shape, 1 / np.sqrt(max(1, fan_in)), dtype)

    def weight(self, name, *shape, dtype=np.float32):
        return self.const(name, self.draw(*shape, dtype=dtype))

    def const(self, name, value, dtype=None):
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def constant_node(self, name, value, dtype=None):
        tensor = numpy_helper.from_array(np.asarray(value, dtype), f"{name}_value")
        return self.node("Constant", [], name, value=tensor)

    def node(self, op, inputs, outputs, name=None, domain=None, **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        label = f"{op.lower()}_{outputs[0]}" if name is None else name
        self.nodes.append(helper.make_node(op, inputs, outputs, name=label, domain=domain, **attributes))
        return outputs[0]

    def graph(self):
        return helper.make_graph(
            self.nodes,
            self.name,
            self.inputs,
            self.outputs,
            self.initializers,
            value_info=self.value_infos,
            sparse_initializer=self.sparse,
        )

    def model(self):
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, version) for domain, version in self.domains.items()]
        return helper.make_model(
            self.graph(),
            ir_version=self.ir,
            opset_imports=opsets,
            functions=self.functions,
            producer_name="modelopt-testdata",
        )

    def fixture(self, **flags):
        return Fixture(self.model(), self.sample, **flags)


def quantize_per_channel(weight, axis):
    """(int8 weight, float32 scale) symmetric, one scale for each index of `axis`."""
    rest = tuple(a for a in range(weight.ndim) if a != axis)
    scale = np.maximum(np.abs(weight).max(axis=rest), 1e-12) / 127
    shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
    return np.rint(weight / scale.reshape(shape)).astype(np.int8), scale.astype(np.float32)
