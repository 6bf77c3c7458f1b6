"""How models are written down: operator set and IR versions, storage of tensors, names, metadata."""

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from builder import Fixture, fixture


# --- Versions ---


def convnet_head(b, opset):
    """Conv + BatchNormalization of every old opset; leaves `r`, [1, 16, 4, 4]."""
    b.opset = opset
    b.ir = {7: 3, 8: 3, 9: 4, 10: 5, 12: 7}[opset]
    b.input("x", [1, 8, 6, 6])
    b.weight("kernel", 16, 8, 3, 3)
    for name, value in (("scale", 1.1), ("shift", 0.1), ("mean", 0.05), ("var", 0.8)):
        b.const(name, np.full(16, value, np.float32))
    b.node("Conv", ["x", "kernel"], "c")
    b.node("BatchNormalization", ["c", "scale", "shift", "mean", "var"], "n")
    b.node("Relu", ["n"], "r")


def dense_tail(b, source, inputs):
    """Flatten, MatMul, Add, Gemm, Softmax."""
    b.weight("w", inputs, 24)
    b.const("bias", b.normal(24, 0.1))
    b.weight("u", 32, 24)
    b.const("u_bias", b.normal(32, 0.1))
    b.node("Flatten", [source], "f")
    b.node("MatMul", ["f", "w"], "m")
    b.node("Add", ["m", "bias"], "a")
    b.node("Gemm", ["a", "u", "u_bias"], "g", transB=1)
    b.output(b.node("Softmax", ["g"], "y", axis=1), [1, 32])
    if b.ir == 3:
        declare_initializers(b)


def declare_initializers(b):
    """List every initializer among the graph inputs too, as IR 3 demands."""
    b.inputs += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in b.initializers]


@fixture
def opset7(b):
    """Opset 7, IR 3: no per-channel or even per-tensor DequantizeLinear, no MatMulInteger; Dropout, Upsample by attribute."""
    convnet_head(b, 7)
    b.node("Dropout", ["r"], "d", ratio=0.5)
    b.node("Upsample", ["d"], "up", scales=[1.0, 1.0, 2.0, 2.0])
    b.node("MaxPool", ["up"], "p", kernel_shape=[4, 4], strides=[4, 4])
    dense_tail(b, "p", 64)


@fixture
def opset8(b):
    """Opset 8, IR 3: Clip and Slice take their bounds as attributes."""
    convnet_head(b, 8)
    b.node("Clip", ["r"], "k", min=0.0, max=6.0)
    b.node("Slice", ["k"], "s", axes=[2, 3], starts=[0, 0], ends=[2, 2])
    dense_tail(b, "s", 64)


@fixture
def opset9(b):
    """Opset 9, IR 4: the last without any quantization operator; Upsample with scales as input."""
    convnet_head(b, 9)
    b.const("scales", np.array([1, 1, 2, 2], np.float32))
    b.node("Upsample", ["r", "scales"], "up")
    b.node("AveragePool", ["up"], "p", kernel_shape=[4, 4], strides=[4, 4])
    dense_tail(b, "p", 64)


@fixture
def opset10(b):
    """Opset 10, IR 5: MatMulInteger and per-tensor DequantizeLinear exist, DynamicQuantizeLinear does not; Resize-10."""
    convnet_head(b, 10)
    b.const("scales", np.array([1, 1, 0.5, 0.5], np.float32))
    b.node("Resize", ["r", "scales"], "small")
    dense_tail(b, "small", 64)


@fixture
def opset12(b):
    """Opset 12, IR 7: dynamic quantization exists, per-channel DequantizeLinear does not; Squeeze by attribute."""
    convnet_head(b, 12)
    b.const("six", np.float32(6))
    b.node("Clip", ["r", "", "six"], "k")
    b.node("ReduceMean", ["k"], "mean_hw", axes=[2, 3], keepdims=1)
    b.node("Squeeze", ["mean_hw"], "s", axes=[2, 3])
    dense_tail(b, "s", 16)


@fixture
def opset21(b):
    """Opset 21, IR 10: ReduceMean axes as input, LayerNormalization, Gelu."""
    b.opset, b.ir = 21, 10
    b.input("x", ["n", 32], (3, 32))
    b.weight("w", 32, 48)
    b.const("gain", b.random.uniform(0.5, 1.5, 48), np.float32)
    b.const("axes", [-1], np.int64)
    b.node("MatMul", ["x", "w"], "m")
    b.node("LayerNormalization", ["m", "gain"], "l")
    b.node("Gelu", ["l"], "g")
    b.output(b.node("ReduceMean", ["g", "axes"], "y", keepdims=0), ["n"])


@fixture
def ir3_inputs(b):
    """IR 3: every initializer is also a graph input, as the format demanded; they are not real inputs."""
    b.opset, b.ir = 8, 3
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 48)
    b.const("bias", b.normal(48, 0.1))
    b.node("MatMul", ["x", "w"], "m")
    b.output(b.node("Add", ["m", "bias"], "y"), ["n", 48])
    declare_initializers(b)


@fixture
def ir7_overridable(b):
    """IR 7 with one initializer listed among the inputs: a default that the caller may override."""
    b.opset, b.ir = 12, 7
    b.input("x", ["n", 32], (2, 32))
    b.weight("default_w", 32, 32)
    declare_initializers(b)
    b.weight("fixed_w", 32, 32)
    b.node("MatMul", ["x", "default_w"], "m")
    b.output(b.node("MatMul", ["m", "fixed_w"], "y"), ["n", 32])


# --- Declarations that lie ---


def two_layers(b):
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 48)
    b.weight("u", 48, 32)
    b.node("MatMul", ["x", "w"], "m")
    b.node("Relu", ["m"], "r")
    return b.node("MatMul", ["r", "u"], "y")


@fixture
def stale_value_info(b):
    """`value_info` with wrong dimensions, a wrong rank, and an entry for a value that does not exist."""
    b.output(two_layers(b), ["n", 32])
    b.value_infos += [
        helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", 47]),
        helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 1, 48]),
        helper.make_tensor_value_info("gone", TensorProto.INT8, [7]),
    ]
    return b.fixture(checks=False)


@fixture
def wrong_output_shape(b):
    """The graph output declares another width than the model computes."""
    b.output(two_layers(b), ["n", 31])
    return b.fixture(checks=False)


@fixture
def wrong_value_type(b):
    """`value_info` calls a float32 value int64: runtimes refuse, a rewriter must not crash."""
    b.output(two_layers(b), ["n", 32])
    b.value_infos.append(helper.make_tensor_value_info("m", TensorProto.INT64, ["n", 48]))
    return b.fixture(checks=False, runs=False)


@fixture
def no_shapes(b):
    """Input and output without shape (rank unknown), no `value_info`."""
    two_layers(b)
    b.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    b.outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    return b.fixture(checks=False)


@fixture
def unsorted_nodes(b):
    """Nodes in reverse order: the checker refuses, onnxruntime sorts them itself."""
    b.output(two_layers(b), ["n", 32])
    b.nodes.reverse()
    return b.fixture(checks=False)


# --- Names ---


@fixture
def unnamed_nodes(b):
    """No node has a name."""
    b.output(two_layers(b), ["n", 32])
    for node in b.nodes:
        node.ClearField("name")


@fixture
def duplicate_node_names(b):
    """All nodes have one name: names are for people, not keys. The format allows it, onnxruntime does not."""
    b.output(two_layers(b), ["n", 32])
    for node in b.nodes:
        node.name = "node"
    return b.fixture(runs=False)


@fixture
def odd_names(b):
    """Names with slashes, spaces, quotes, newlines, other alphabets, an empty node name, and suffixes a tool would generate."""
    b.input("input 0:0", ["n", 32], (2, 32))
    b.weight("权重/\"w\"\n", 32, 32)
    b.weight("w_quantized", 32, 32)
    b.weight("w_quantized_scale", 32, 32)
    b.node("MatMul", ["input 0:0", "权重/\"w\"\n"], "м", name="a/b\\c")
    b.node("MatMul", ["м", "w_quantized"], "w_quantized_cast", name="")
    b.node("MatMul", ["w_quantized_cast", "w_quantized_scale"], "../../y", name="<script>")
    b.output("../../y", ["n", 32])


@fixture
def domain_ai_onnx(b):
    """The default domain written as `ai.onnx` in the opset import and in some nodes."""
    b.output(two_layers(b), ["n", 32])
    b.nodes[0].domain = "ai.onnx"
    model = b.model()
    model.opset_import[0].domain = "ai.onnx"
    return Fixture(model, b.sample, checks=False)


@fixture
def unknown_domain(b):
    """An operator of a custom domain in the middle: no runtime has it, the layers around it are ordinary."""
    b.domains["example.custom"] = 1
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 48)
    b.weight("u", 48, 32)
    b.node("MatMul", ["x", "w"], "m")
    b.node("Whiten", ["m"], "r", domain="example.custom", strength=0.5, mode="zca")
    b.output(b.node("MatMul", ["r", "u"], "y"), ["n", 32])
    return b.fixture(runs=False)


@fixture
def empty_inputs(b):
    """Optional inputs left out by an empty name, in the middle and at the end; an optional output left out."""
    b.input("x", ["n", 8, 4, 4], (1, 8, 4, 4))
    b.weight("kernel", 16, 8, 1, 1)
    b.const("six", np.float32(6))
    b.const("sizes", np.array([1, 16, 8, 8], np.int64))
    b.node("Conv", ["x", "kernel", ""], "c")
    b.node("Clip", ["c", "", "six"], "k")
    b.node("Resize", ["k", "", "", "sizes"], "up", mode="nearest")
    b.node("MaxPool", ["up"], ["y", ""], kernel_shape=[2, 2])
    b.output("y", ["n", 16, 7, 7])


@fixture
def outputs_alias(b):
    """Graph outputs that are Identity of an input, Identity of an initializer, and a Constant."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 32])
    b.output(b.node("Identity", ["x"], "x_copy"), ["n", 32])
    b.output(b.node("Identity", ["w"], "w_copy"), [32, 32])
    b.output(b.constant_node("constant", b.draw(32, 16)), [32, 16])


@fixture
def output_is_input(b):
    """A graph output that is a graph input, with no node between."""
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 32])
    b.output("x", ["n", 32])


# --- Storage ---


@fixture
def external_data(b):
    """Weights in two external files: with offset and length, unaligned, without length, one shared range, one with a checksum, and inside a branch."""
    b.input("x", ["n", 32], (2, 32))
    b.input("flag", [], np.array(True))
    first, second, third = b.draw(32, 48), b.draw(48, 32), b.draw(32, 32)
    # 67 is on purpose no multiple of 4.
    blob = b"\xaa" * 67 + first.tobytes() + b"\xbb" * 29 + second.tobytes()
    offset = 67 + first.nbytes + 29
    files = {"external_data/weights.bin": blob, "external_data/more.bin": third.tobytes()}
    digest = hashlib.sha1(third.tobytes()).hexdigest()

    def external(name, shape, location, **keys):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **keys}.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    weights = "external_data/weights.bin"
    b.initializers += [
        external("w", [32, 48], weights, offset=67, length=first.nbytes),
        external("w_again", [32, 48], weights, offset=67, length=first.nbytes),
        external("u", [48, 32], weights, offset=offset),
    ]
    then, other = b.child("then"), b.child("else")
    then.initializers.append(external("v", [32, 32], "external_data/more.bin", checksum=digest))
    then.node("MatMul", ["h", "v"], "then_y")
    then.output("then_y", ["n", 32])
    other.node("Identity", ["h"], "else_y")
    other.output("else_y", ["n", 32])
    b.node("MatMul", ["x", "w"], "m")
    b.node("MatMul", ["x", "w_again"], "m_again")
    b.node("Add", ["m", "m_again"], "s")
    b.node("MatMul", ["s", "u"], "h")
    b.output(b.node("If", ["flag"], "y", then_branch=then.graph(), else_branch=other.graph()), ["n", 32])
    return b.fixture(files=files)


@fixture
def typed_data(b):
    """Tensors in `float_data`, `int32_data` (also float16, int8, bool in it), `int64_data`, `double_data`, no `raw_data`."""
    b.input("x", ["n", 32], (2, 32))

    def typed(name, value, data_type):
        value = np.asarray(value)
        b.initializers.append(helper.make_tensor(name, data_type, value.shape, value.ravel().tolist()))

    typed("w_float", b.draw(32, 32), TensorProto.FLOAT)
    typed("w_half", b.draw(32, 32, dtype=np.float16), TensorProto.FLOAT16)
    typed("w_double", b.draw(32, 32, dtype=np.float64), TensorProto.DOUBLE)
    typed("w_int8", b.random.randint(-100, 100, (32, 32)), TensorProto.INT8)
    typed("mask", b.random.randint(0, 2, 32).astype(bool), TensorProto.BOOL)
    typed("shape", [-1, 4, 8], TensorProto.INT64)
    source = "x"
    for kind in ("float", "half", "double", "int8"):
        w = f"w_{kind}"
        if kind != "float":
            w = b.node("Cast", [w], f"{w}_cast", to=TensorProto.FLOAT)
        source = b.node("MatMul", [source, w], f"m_{kind}")
    b.const("zero", np.float32(0))
    b.node("Where", ["mask", source, "zero"], "masked")
    b.output(b.node("Reshape", ["masked", "shape"], "y"), ["n", 4, 8])


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def unknown(number):
    """Unknown fields of every wire type ONNX may use: varint, 64-bit, bytes, 32-bit."""
    payload = f"unknown {number}".encode()
    return b"".join(
        [
            varint(number << 3 | 0) + varint(2**40 + number),
            varint((number + 1) << 3 | 1) + b"\x01\x02\x03\x04\x05\x06\x07\x08",
            varint((number + 2) << 3 | 2) + varint(len(payload)) + payload,
            varint((number + 3) << 3 | 5) + b"\x0a\x0b\x0c\x0d",
        ]
    )


@fixture
def unknown_fields(b):
    """Fields of a later ONNX at model, graph, node, tensor, attribute, value, type, shape, opset and function level: kept when saved."""
    b.domains["local.test"] = 1
    b.functions.append(
        helper.make_function(
            "local.test", "Copy", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.constant_node("u", b.draw(32, 32))
    b.node("MatMul", ["x", "w"], "m")
    b.node("Copy", ["m"], "copied", domain="local.test")
    b.output(b.node("Gemm", ["copied", "u"], "y", transB=1), ["n", 32])
    model = b.model()
    graph = model.graph
    shape = graph.input[0].type.tensor_type.shape
    levels = [
        model, model.opset_import[0], model.functions[0], model.functions[0].node[0], graph, graph.node[0],
        graph.node[3], graph.node[3].attribute[0], graph.node[0].attribute[0], graph.node[0].attribute[0].t,
        graph.initializer[0], graph.input[0], graph.input[0].type, graph.input[0].type.tensor_type, shape, shape.dim[0],
        graph.output[0],
    ]  # fmt: skip
    for index, message in enumerate(levels):
        message.MergeFromString(unknown(1000 + 10 * index))
    return Fixture(model, b.sample)


@fixture
def metadata_rich(b):
    """Doc strings and metadata at every level, quantization annotation, training info, explicit empty domain and default values."""
    b.ir = 10
    b.output(two_layers(b), ["n", 32])
    b.value_infos.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, ["n", 48]))
    model = b.model()
    graph = model.graph
    documented = [graph, graph.node[0], graph.initializer[0], graph.input[0], graph.output[0], graph.value_info[0]]
    for index, message in enumerate([model, *documented]):
        message.doc_string = f"documentation {index}: first line\nsecond line, with \u00fcml\u00e4uts"
        message.metadata_props.add(key=f"key {index}", value=f"value {index}")
        message.metadata_props.add(key="empty", value="")
    model.producer_version = "0.0.1"
    model.domain = "example.test"
    model.model_version = 42
    model.opset_import[0].domain = ""
    graph.node[0].domain = ""
    graph.node[2].op_type = "Gemm"
    for key, default in [("alpha", 1.0), ("beta", 1.0), ("transA", 0), ("transB", 0)]:
        graph.node[2].attribute.append(helper.make_attribute(key, default, doc_string="the default"))
    graph.initializer[0].data_location = TensorProto.DEFAULT
    annotation = graph.quantization_annotation.add(tensor_name="w")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w_scale")
    add_training_info(model)
    return Fixture(model, b.sample)


def add_training_info(model):
    """A training step: what a trainer once needed, kept for the next one."""
    info = model.training_info.add()
    info.initialization.name = "initialization"
    info.initialization.node.append(helper.make_node("Identity", ["w_zero"], ["w_reset"]))
    info.initialization.initializer.append(numpy_helper.from_array(np.zeros((32, 48), np.float32), "w_zero"))
    info.initialization.output.append(helper.make_tensor_value_info("w_reset", TensorProto.FLOAT, [32, 48]))
    info.algorithm.name = "algorithm"
    info.algorithm.node.append(helper.make_node("Neg", ["w"], ["w_new"]))
    info.algorithm.output.append(helper.make_tensor_value_info("w_new", TensorProto.FLOAT, [32, 48]))
    info.initialization_binding.add(key="w", value="w_reset")
    info.update_binding.add(key="w", value="w_new")


@fixture
def string_tensors(b):
    """String constants and a string output: class names looked up by ArgMax."""
    b.input("x", ["n", 32], (4, 32))
    b.weight("w", 32, 12)
    names = np.array([f"class {k} \u00e9" for k in range(11)] + [""], dtype=object)
    b.initializers.append(helper.make_tensor("names", TensorProto.STRING, [12], [n.encode() for n in names]))
    b.node("MatMul", ["x", "w"], "m")
    b.node("ArgMax", ["m"], "best", axis=1, keepdims=0)
    b.output(b.node("Gather", ["names", "best"], "label"), ["n"], TensorProto.STRING)
    b.output("m", ["n", 12])


@fixture
def all_attribute_kinds(b):
    """A custom operator with attributes of every kind: int, float, string, tensor, graph, type, sparse tensor and lists of them."""
    b.domains["example.custom"] = 1
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    body = b.child("body")
    body.weight("body_w", 32, 32)
    body.node("MatMul", ["x", "body_w"], "body_y")
    body.output("body_y", ["n", 32])
    tensor = numpy_helper.from_array(b.draw(16, 16), "attribute_tensor")
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.5], np.float32), "v"), numpy_helper.from_array(np.array([3], np.int64), "i"), [8]
    )
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])
    b.node("MatMul", ["x", "w"], "m")
    b.node(
        "Everything", ["m"], "y", domain="example.custom",
        f=0.5, i=-3, s="text", raw=b"\xff\x00\xfe", t=tensor, g=body.graph(), sp=sparse, tp=kind,
        floats=[0.5, 1.5], ints=[1, -2], strings=["a", ""], tensors=[tensor, tensor], graphs=[body.graph(), body.graph()],
        sparses=[sparse], types=[kind, helper.make_sequence_type_proto(kind)],
    )  # fmt: skip
    for name, kind_of_list in (("no_ints", onnx.AttributeProto.INTS), ("no_floats", onnx.AttributeProto.FLOATS)):
        b.nodes[-1].attribute.add(name=name, type=kind_of_list)
    b.output("y", ["n", 32])
    return b.fixture(runs=False)
