"""Write the hostile files of this folder and the table in README.md.

    python make.py

What protobuf's own classes would refuse to write is put together from bytes. Files stay below 64 kB;
where an attack needs more, a smaller one is written here and its function says how to grow it.
Needs numpy and onnx; onnxruntime, where installed, confirms the files that are called fine.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
LIMIT = 64_000

ERROR = "error"
FINE = "fine"
NO_PANIC = "no panic"
# A model the format allows and a runtime accepts, but whose naive treatment explodes.
BOUNDED = "bounded"

ATTACKS = []


def attack(expected, *names):
    """Register `make() -> {file name: bytes}` or bytes for the one file named after the function."""

    def register(make):
        ATTACKS.append((make, expected, names))
        return make

    return register


# ---------------------------------------------------------------------------------------------------
# The wire format
# ---------------------------------------------------------------------------------------------------

MODEL_IR, MODEL_GRAPH, MODEL_OPSET = 1, 7, 8
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_ATTRIBUTE = 5
ATTRIBUTE_GRAPH = 6
TENSOR_DIMS = 1
VALUE_TYPE = 2


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes([value]))


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def nested(fields, levels, core=b""):
    """`core` wrapped in length-delimited `fields`, innermost last, `levels` times over."""
    # Built inside out from tag and length alone: wrapping bytes would take quadratic time.
    prefixes, size = [], len(core)
    for _ in range(levels):
        for field in reversed(fields):
            prefix = varint(field << 3 | 2) + varint(size)
            prefixes.append(prefix)
            size += len(prefix)
    return b"".join(reversed(prefixes)) + core


def header():
    return number(MODEL_IR, 8) + message(MODEL_OPSET, number(2, 17))


# ---------------------------------------------------------------------------------------------------
# An ordinary model to spoil
# ---------------------------------------------------------------------------------------------------


def tensor(name, *shape):
    random = np.random.RandomState(7)
    return numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), name)


def value(name, shape=("n", 32), dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0] if outputs else ''}", **attributes)


def model(nodes=None, initializers=None, inputs=None, outputs=None, opset=17, functions=(), domains=()):
    nodes = [node("MatMul", ["x", "w"], ["y"])] if nodes is None else nodes
    graph = helper.make_graph(
        nodes,
        "attack",
        [value("x")] if inputs is None else inputs,
        [value("y")] if outputs is None else outputs,
        [tensor("w", 32, 32)] if initializers is None else initializers,
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, ir_version=8, opset_imports=opsets, functions=functions)


def written(spoilt):
    return spoilt.SerializeToString(deterministic=True)


def spoilt_weight(change):
    """The ordinary model after `change(weight)`."""
    made = model()
    change(made.graph.initializer[0])
    return written(made)


# ---------------------------------------------------------------------------------------------------
# Bytes that are no model
# ---------------------------------------------------------------------------------------------------


@attack(ERROR)
def empty():
    """No bytes at all: valid protobuf, but no graph."""
    return b""


@attack(ERROR)
def text():
    """A text file with the wrong suffix."""
    return b"version https://example.invalid/spec/v1\noid sha256:0000\nsize 12345\n"


@attack(ERROR, "truncated_tag", "truncated_length", "truncated_node", "truncated_weight", "truncated_last")
def truncated():
    """A model cut after a tag, inside a length, inside a node, inside a weight, before the last byte."""
    whole = written(model())
    graph = whole.index(message(2, b"attack"))
    cuts = {
        "tag": 3,
        "length": 4,
        "node": whole.index(b"MatMul") + 3,
        "weight": graph + 2000,
        "last": len(whole) - 1,
    }
    return {f"truncated_{name}": whole[:cut] for name, cut in cuts.items()}


@attack(ERROR)
def nested_groups():
    """30,000 times `A3 06`, the start of group 100: recursion without a length (10 MB overflow a stack)."""
    return b"\xa3\x06" * 30_000


@attack(ERROR, "group_closed", "group_end_only")
def groups():
    """A properly closed unknown group at the end of an ordinary model; a group end without start."""
    start, end = varint(100 << 3 | 3), varint(100 << 3 | 4)
    whole = written(model())
    return {"group_closed": whole + start + number(1, 5) + end, "group_end_only": whole + end}


@attack(ERROR, "huge_length", "huge_length_63", "huge_length_weight")
def huge_lengths():
    """1 kB files whose graph, or weight, claims 2 GB or 2^63 bytes: do not allocate, do not overflow."""
    start = header() + varint(MODEL_GRAPH << 3 | 2)
    weight = varint(GRAPH_INITIALIZER << 3 | 2) + varint(2**31 - 1) + varint(9 << 3 | 2) + varint(2**31 - 20)
    return {
        "huge_length": (start + varint(2**31 - 1)).ljust(1024, b"\0"),
        "huge_length_63": (start + varint(2**63 - 1)).ljust(1024, b"\0"),
        "huge_length_weight": (start + varint(2**31 + 40) + weight).ljust(1024, b"\x01"),
    }


def nested_graphs(levels):
    """Graphs in attributes of nodes of graphs; 10,000 levels make about 150 kB."""
    return header() + nested([MODEL_GRAPH], 1, nested([GRAPH_NODE, NODE_ATTRIBUTE, ATTRIBUTE_GRAPH], levels))


@attack(ERROR)
def deep_nesting():
    """Graph attributes nested 4,000 deep (tests grow it: wrap in fields 1, 5, 6 as often as wanted)."""
    return nested_graphs(4_000)


@attack(ERROR)
def deep_types():
    """An input whose type is a sequence of a sequence … 5,000 deep."""
    innermost = message(1, number(1, 1))
    deep = message(1, b"x") + message(VALUE_TYPE, nested([4, 1], 5_000, innermost))
    return header() + message(MODEL_GRAPH, message(2, b"g") + message(11, deep))


@attack(FINE)
def deep_unknown():
    """An ordinary model with an unknown field whose content nests 8,000 deep: opaque bytes, to be kept."""
    return written(model()) + nested([1000], 8_000, b"core")


@attack(ERROR, "wrong_varint", "wrong_varint_length", "field_zero", "wire_type_6", "wrong_wire_type", "field_overflow")
def wrong_wire():
    """An 11-byte varint as value and as length, tag 0, wire type 6, the graph as a number, a field number over 2^29."""
    long_varint = b"\xff" * 10 + b"\x01"
    whole = written(model())
    return {
        "wrong_varint": varint(MODEL_IR << 3) + long_varint + whole,
        "wrong_varint_length": varint(MODEL_GRAPH << 3 | 2) + long_varint + whole,
        "field_zero": whole + number(0, 1),
        "wire_type_6": whole + varint(100 << 3 | 6) + b"\0" * 8,
        "wrong_wire_type": header() + number(MODEL_GRAPH, 5),
        "field_overflow": whole + varint(2**40 << 3) + b"\0",
    }


@attack(FINE)
def mixed_packing():
    """Legal but rare: dims packed, float data one by one, the weight split over two occurrences of `graph`."""
    weight = tensor("w", 32, 32)
    numbers = numpy_helper.to_array(weight).ravel()
    packed_dims = message(TENSOR_DIMS, varint(32) + varint(32))
    floats = b"".join(varint(4 << 3 | 5) + n.tobytes() for n in numbers)
    typed = packed_dims + number(2, 1) + floats + message(8, b"w")
    return written(model(initializers=[])) + message(MODEL_GRAPH, message(GRAPH_INITIALIZER, typed))


@attack(ERROR)
def many_empty_nodes():
    """20,000 nodes of no content, 2 bytes each (tests grow it to millions): memory per node counts."""
    return header() + message(MODEL_GRAPH, message(GRAPH_NODE, b"") * 20_000)


# ---------------------------------------------------------------------------------------------------
# External data
# ---------------------------------------------------------------------------------------------------


def external(**keys):
    """The ordinary model with its 4,096-byte weight outside; a file `external.bin` of that size exists."""

    def change(weight):
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, text_value in keys.items():
            weight.external_data.add(key=key, value=text_value)

    return spoilt_weight(change)


@attack(FINE, "external_good", "external_good_dot")
def external_good():
    """The control: `external.bin` (written beside it) with offset and length, and as `./external.bin`."""
    return {
        "external_good": external(location="external.bin", offset="0", length="4096"),
        "external_good_dot": external(location="./external.bin"),
    }


@attack(ERROR, "external_dotdot", "external_dotdot_inside", "external_dotdot_backslash")
def external_dotdot():
    """`../digits/heldout.npz` (exists), `folder/../external.bin`, and `..\\outside.bin`."""
    return {
        "external_dotdot": external(location="../digits/heldout.npz", offset="0", length="4096"),
        "external_dotdot_inside": external(location="folder/../external.bin"),
        "external_dotdot_backslash": external(location="..\\outside.bin"),
    }


@attack(ERROR, "external_absolute", "external_absolute_drive", "external_absolute_share")
def external_absolute():
    """`/dev/zero`, a Windows drive, a Windows share."""
    return {
        "external_absolute": external(location="/dev/zero", offset="0", length="4096"),
        "external_absolute_drive": external(location="C:\\outside.bin"),
        "external_absolute_share": external(location="\\\\server\\share\\outside.bin"),
    }


@attack(ERROR)
def external_symlink():
    """`link.bin`: the test makes this symlink, beside a copy of the model, to a file outside that folder."""
    return external(location="link.bin", offset="0", length="4096")


@attack(ERROR, "external_missing", "external_no_location", "external_empty_location", "external_directory", "external_nul")
def external_missing():
    """A file that is not there, no location, an empty one, the folder itself, a name with a NUL."""
    return {
        "external_missing": external(location="missing.bin"),
        "external_no_location": external(offset="0", length="4096"),
        "external_empty_location": external(location=""),
        "external_directory": external(location="."),
        "external_nul": external(location="external.bin\0.txt"),
    }


OUT_OF_RANGE = {
    "past_end": {"offset": "4", "length": "4096"},
    "offset_past_end": {"offset": "8192"},
    "negative_offset": {"offset": "-4", "length": "4096"},
    "negative_length": {"offset": "0", "length": "-1"},
    "not_a_number": {"offset": "four", "length": "0x1000"},
    "overflow": {"offset": "18446744073709551600", "length": "4096"},
    "too_big": {"offset": "0", "length": "99999999999999999999999"},
    "short": {"offset": "0", "length": "1024"},
    "long": {"offset": "0", "length": "4100"},
}


@attack(ERROR, *(f"external_{name}" for name in OUT_OF_RANGE))
def external_out_of_range():
    """Range beyond the file, negative, no number, sums over 2^64, numbers over 2^64, shorter and longer than the shape."""
    return {f"external_{name}": external(location="external.bin", **keys) for name, keys in OUT_OF_RANGE.items()}


@attack(NO_PANIC)
def external_itself():
    """The weight's bytes are the model file's own first bytes, of which there are too few."""
    return external(location="external_itself.onnx", offset="0", length="4096")


# ---------------------------------------------------------------------------------------------------
# Tensors that lie
# ---------------------------------------------------------------------------------------------------


@attack(ERROR, "dtype_lie_short", "dtype_lie_long", "dtype_lie_type", "no_data")
def dtype_lies():
    """`raw_data` shorter and longer than shape times type, a type twice as wide, no data at all."""

    def shorter(weight):
        weight.raw_data = weight.raw_data[:-3]

    def longer(weight):
        weight.raw_data += b"\0\0\0\0"

    def wider(weight):
        weight.data_type = TensorProto.DOUBLE

    return {
        "dtype_lie_short": spoilt_weight(shorter),
        "dtype_lie_long": spoilt_weight(longer),
        "dtype_lie_type": spoilt_weight(wider),
        "no_data": spoilt_weight(lambda weight: weight.ClearField("raw_data")),
    }


@attack(ERROR, "negative_dim", "overflow_dims", "overflow_dims_zero", "huge_dims")
def wrong_dims():
    """A dimension of -32; 2^40 × 2^40; 2^40 × 2^40 × 0 (no element, yet the product overflows on the way); 2^62."""

    def dims(*new):
        def change(weight):
            weight.dims[:] = new

        return spoilt_weight(change)

    return {
        "negative_dim": dims(-32, -32),
        "overflow_dims": dims(2**40, 2**40),
        "overflow_dims_zero": dims(2**40, 2**40, 0),
        "huge_dims": dims(2**62),
    }


@attack(ERROR)
def both_raw_and_float_data():
    """`raw_data` and `float_data` of one tensor, with different numbers in them."""

    def change(weight):
        weight.float_data.extend([1.0] * 1024)

    return spoilt_weight(change)


@attack(NO_PANIC, "unknown_dtype", "undefined_dtype")
def unknown_dtypes():
    """A weight of data type 999 (a later ONNX may have it), and of 0 (undefined)."""

    def dtype(code):
        def change(weight):
            weight.data_type = code

        return spoilt_weight(change)

    return {"unknown_dtype": dtype(999), "undefined_dtype": dtype(0)}


# ---------------------------------------------------------------------------------------------------
# Graphs that are none
# ---------------------------------------------------------------------------------------------------


@attack(ERROR, "cycle", "self_loop")
def cycles():
    """Two nodes that feed each other; a node that reads what it makes."""
    both = [node("Add", ["x", "b"], ["a"]), node("MatMul", ["a", "w"], ["b"]), node("Relu", ["b"], ["y"])]
    own = [node("Add", ["x", "a"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    return {"cycle": written(model(both)), "self_loop": written(model(own))}


@attack(ERROR, "duplicate_names", "duplicate_initializer", "duplicate_input", "output_names_input", "output_names_weight")
def duplicates():
    """One name made by two nodes, by two initializers, by two inputs, by a node and an input, by a node and an initializer."""
    twice = [node("MatMul", ["x", "w"], ["y"]), node("Relu", ["x"], ["y"])]
    onto_input = [node("Relu", ["x"], ["x"]), node("MatMul", ["x", "w"], ["y"])]
    onto_weight = [node("Relu", ["x"], ["w"]), node("MatMul", ["x", "w"], ["y"])]
    return {
        "duplicate_names": written(model(twice)),
        "duplicate_initializer": written(model(initializers=[tensor("w", 32, 32), tensor("w", 32, 16)])),
        "duplicate_input": written(model(inputs=[value("x"), value("x", (1,))])),
        "output_names_input": written(model(onto_input)),
        "output_names_weight": written(model(onto_weight)),
    }


@attack(ERROR, "dangling_input", "dangling_output", "dangling_in_branch")
def dangling():
    """A node, a graph output and a node in a branch that name what nobody makes."""
    branch = helper.make_graph([node("MatMul", ["x", "nowhere"], ["b"])], "branch", [], [value("b")])
    chosen = [node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
    inputs = [value("x"), value("flag", (), TensorProto.BOOL)]
    return {
        "dangling_input": written(model([node("MatMul", ["x", "nowhere"], ["y"])])),
        "dangling_output": written(model(outputs=[value("y"), value("nowhere")])),
        "dangling_in_branch": written(model(chosen, inputs=inputs)),
    }


@attack(ERROR, "no_graph", "no_opset")
def nothing_there():
    """A model without graph; a model without operator set, which the format demands from IR 3 on."""
    bare = model()
    del bare.opset_import[:]
    return {"no_graph": header(), "no_opset": written(bare)}


@attack(NO_PANIC, "future_opset", "negative_opset", "future_ir", "duplicate_opset")
def versions():
    """Operator set 9999 and -1, IR version 2^40, the default domain imported twice."""
    later = model()
    later.ir_version = 2**40
    twice = model()
    twice.opset_import.add(domain="", version=11)
    return {
        "future_opset": written(model(opset=9999)),
        "negative_opset": written(model(opset=-1)),
        "future_ir": written(later),
        "duplicate_opset": written(twice),
    }


@attack(NO_PANIC, "invalid_utf8_name", "invalid_utf8_doc")
def invalid_utf8():
    """Bytes that are no UTF-8 as name of the weight (and of the input that reads it), and in a doc string."""
    whole = written(model(initializers=[tensor("WW", 32, 32)], nodes=[node("MatMul", ["x", "WW"], ["y"])]))
    documented = model()
    documented.doc_string = "DOCDOC"
    return {
        "invalid_utf8_name": whole.replace(b"\x02WW", b"\x02\xff\xfe"),
        "invalid_utf8_doc": written(documented).replace(b"DOCDOC", b"\xc3\x28\xa0\xa1\xf0\x28"),
    }


@attack(NO_PANIC, "attr_type_mismatch", "missing_attr_type", "duplicate_attr", "unknown_attr_type", "wrong_attr_kind")
def attributes():
    """Attributes whose type names another field than is set, with no type, given twice, of type 99, and floats for kernel_shape."""

    def conv(change):
        made = model(
            [node("Conv", ["x", "w"], ["y"], group=1)],
            [tensor("w", 8, 4, 3, 3)],
            [value("x", (1, 4, 6, 6))],
            [value("y", (1, 8, 4, 4))],
        )
        change(made.graph.node[0].attribute)
        return written(made)

    def mismatch(found):
        found[0].type = AttributeProto.TENSOR

    def untyped(found):
        found[0].ClearField("type")

    def twice(found):
        found.append(helper.make_attribute("group", 4))

    def wrong_kind(found):
        found.append(helper.make_attribute("kernel_shape", [3.0, 3.0]))

    unknown = conv(mismatch).replace(number(20, AttributeProto.TENSOR), number(20, 99)[:2] + b"\x63", 1)
    return {
        "attr_type_mismatch": conv(mismatch),
        "missing_attr_type": conv(untyped),
        "duplicate_attr": conv(twice),
        "unknown_attr_type": unknown,
        "wrong_attr_kind": conv(wrong_kind),
    }


# ---------------------------------------------------------------------------------------------------
# Operators that make no sense
# ---------------------------------------------------------------------------------------------------


@attack(ERROR, "recursion_function", "recursion_mutual")
def recursion():
    """A model-local function that calls itself; two that call each other."""
    domain = "local.test"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]

    def calls(name, callee):
        body = [helper.make_node(callee, ["a"], ["b"], domain=domain)]
        return helper.make_function(domain, name, ["a"], ["b"], body, opsets)

    def entry(*functions):
        first = helper.make_node("F", ["x"], ["h"], domain=domain)
        return written(model([first, node("MatMul", ["h", "w"], ["y"])], functions=functions, domains=[domain]))

    return {"recursion_function": entry(calls("F", "F")), "recursion_mutual": entry(calls("F", "G"), calls("G", "F"))}


@attack(BOUNDED)
def function_bomb():
    """30 functions, each calling the next twice: inlining makes 2^30 nodes."""
    domain = "local.test"
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    functions = []
    for level in range(30):
        op, where = ("Relu", "") if level == 29 else (f"F{level + 1}", domain)
        body = [helper.make_node(op, ["a"], ["m"], domain=where), helper.make_node(op, ["m"], ["b"], domain=where)]
        functions.append(helper.make_function(domain, f"F{level}", ["a"], ["b"], body, opsets))
    first = helper.make_node("F0", ["x"], ["h"], domain=domain)
    return written(model([first, node("MatMul", ["h", "w"], ["y"])], functions=functions, domains=[domain]))


@attack(BOUNDED, "fold_constant_of_shape", "fold_expand", "fold_tile", "fold_range", "fold_concat", "fold_loop")
def folding_bombs():
    """Constants that compute 4 TB: ConstantOfShape, Expand, Tile, Range, a Concat doubling 40 times, a Loop of 2^62 turns."""

    def bomb(nodes, **constants):
        rest = [node("ReduceMax", ["big"], ["m"], keepdims=0), node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "m"], ["y"])]
        values = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
        return written(model(nodes + rest, [tensor("w", 32, 32), *values]))

    million = np.array([2**20, 2**20], np.int64)
    ones = np.ones((1, 1), np.float32)
    doubled = [node("Concat", [f"d{k}"] * 2, [f"d{k + 1}"], axis=0) for k in range(40)]
    body = helper.make_graph(
        [node("Identity", ["go_in"], ["go_out"]), node("Add", ["s_in", "s_in"], ["s_out"])],
        "body",
        [value("i", (), TensorProto.INT64), value("go_in", (), TensorProto.BOOL), value("s_in", (1, 1))],
        [value("go_out", (), TensorProto.BOOL), value("s_out", (1, 1))],
    )
    return {
        "fold_constant_of_shape": bomb([node("ConstantOfShape", ["shape"], ["big"])], shape=million),
        "fold_expand": bomb([node("Expand", ["one", "shape"], ["big"])], one=ones, shape=million),
        "fold_tile": bomb([node("Tile", ["one", "shape"], ["big"])], one=ones, shape=million),
        "fold_range": bomb(
            [node("Range", ["a", "z", "step"], ["big"])],
            a=np.float32(0),
            z=np.float32(1e12),
            step=np.float32(1),
        ),
        "fold_concat": bomb([*doubled, node("Identity", ["d40"], ["big"])], d0=ones),
        "fold_loop": bomb(
            [node("Loop", ["turns", "go", "one"], ["big"], body=body)],
            turns=np.array(2**62, np.int64),
            go=np.array(True),
            one=ones,
        ),
    }


def lone(op, inputs, initializers, **attributes):
    """A model of one node over `x` [n, 32] and constants."""
    values = [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()]
    return written(model([node(op, inputs, ["y"], **attributes)], values))


@attack(NO_PANIC, "if_without_branches", "loop_without_body", "conv_without_weight", "matmul_one_input", "empty_op_type")
def parts_missing():
    """If without branches, Loop without body, Conv and MatMul without weight, a node without operator."""
    flag = np.array(True)
    return {
        "if_without_branches": lone("If", ["flag"], {"flag": flag}),
        "loop_without_body": lone("Loop", ["", "flag", "x"], {"flag": flag}),
        "conv_without_weight": lone("Conv", ["x"], {}),
        "matmul_one_input": lone("MatMul", ["x"], {}),
        "empty_op_type": lone("", ["x"], {}),
    }


@attack(
    NO_PANIC,
    "conv_without_weight_shape", "conv_group_zero", "conv_group_uneven", "matmul_rank0", "gemm_rank1", "gemm_trans_7",
    "gather_zero_rows", "gather_out_of_range", "transpose_bad_perm", "concat_bad_axis", "reshape_impossible",
    "squeeze_bad_axis", "lstm_wrong_gates", "batchnorm_wrong_length", "matmul_wrong_inner", "int_weight_matmul",
    "cast_to_nothing", "slice_extremes", "pad_negative",
)  # fmt: skip
def senseless():
    """Weights of rank 0, group 0, uneven groups, axes and permutations out of range, indices outside a table, gates that do not divide, extreme slices: a rewrite that computes with them must look first."""
    f32 = np.float32
    kernel = np.ones((6, 2, 3, 3), f32)
    square = np.ones((32, 32), f32)
    low, high = -(2**63), 2**63 - 1
    return {
        "conv_without_weight_shape": lone("Conv", ["x", "w"], {"w": f32(1)}),
        "conv_group_zero": lone("Conv", ["x", "w"], {"w": kernel}, group=0),
        "conv_group_uneven": lone("Conv", ["x", "w"], {"w": kernel}, group=4),
        "matmul_rank0": lone("MatMul", ["x", "w"], {"w": f32(1)}),
        "gemm_rank1": lone("Gemm", ["x", "w"], {"w": np.ones(1024, f32)}),
        "gemm_trans_7": lone("Gemm", ["x", "w"], {"w": square}, transB=7),
        "gather_zero_rows": lone("Gather", ["w", "i"], {"w": np.ones((0, 32), f32), "i": np.array([0], np.int64)}),
        "gather_out_of_range": lone("Gather", ["w", "i"], {"w": square, "i": np.array([99, low], np.int64)}),
        "transpose_bad_perm": lone("Transpose", ["w"], {"w": square}, perm=[7, -1, 0]),
        "concat_bad_axis": lone("Concat", ["w", "x"], {"w": square}, axis=99),
        "reshape_impossible": lone("Reshape", ["w", "s"], {"w": square, "s": np.array([-1, -1, 0, 7], np.int64)}),
        "squeeze_bad_axis": lone("Squeeze", ["w", "a"], {"w": square, "a": np.array([low, high], np.int64)}),
        "lstm_wrong_gates": lone(
            "LSTM", ["x", "w", "r"], {"w": np.ones((1, 33, 32), f32), "r": np.ones((1, 7, 5), f32)}, hidden_size=8
        ),
        "batchnorm_wrong_length": lone(
            "BatchNormalization", ["w", "v", "v", "v", "v"], {"w": np.ones((1, 16, 8), f32), "v": np.ones(3, f32)}
        ),
        "matmul_wrong_inner": lone("MatMul", ["x", "w"], {"w": np.ones((31, 40), f32)}),
        "int_weight_matmul": lone("MatMul", ["x", "w"], {"w": np.ones((32, 32), np.int64)}),
        "cast_to_nothing": lone("Cast", ["w"], {"w": square}, to=12345),
        "slice_extremes": lone(
            "Slice",
            ["w", "s", "e", "a", "p"],
            {
                "w": square,
                "s": np.array([high, low], np.int64),
                "e": np.array([low, high], np.int64),
                "a": np.array([0, -9], np.int64),
                "p": np.array([0, low], np.int64),
            },
        ),
        "pad_negative": lone("Pad", ["w", "p"], {"w": square, "p": np.array([-99, high, low, 1], np.int64)}),
    }


@attack(NO_PANIC)
def branch_shadows_outer():
    """A branch whose initializer, and node output, have the names of outer values, which the format forbids."""
    branch = helper.make_graph(
        [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"], ["b"])], "branch", [], [value("b")], [tensor("w", 32, 32)]
    )
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("If", ["flag"], ["c"], then_branch=branch, else_branch=branch),
        node("Add", ["h", "c"], ["y"]),
    ]
    return written(model(nodes, inputs=[value("x"), value("flag", (), TensorProto.BOOL)]))


# ---------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Hostile files

What a program that reads models from strangers must survive: no panic, no abort, no stack overflow, no
memory or time out of proportion to the file, no byte read outside the model's folder. `python make.py`
makes them all, this file included; they were made for this repository and are under its licence.

| expected | meaning |
|---|---|
| error | loading or verifying ends in an error that says what and where |
| fine | loads, and saving it untouched loses nothing |
| no panic | an error, or the spoilt part is left alone; whichever, in bounded time and memory |
| bounded | the format allows it; loading and preparing take time and memory in proportion to the file (do not fold, inline or run it) |

Made by tests, because they are too large or cannot lie in a repository:

- `external_symlink.onnx` needs `link.bin` beside a copy of it, a symlink to a file outside that folder.
- Larger versions: `A3 06` five million times (10 MB); graphs nested 10,000 deep and more (wrap bytes in
  the length-delimited fields 1, 5, 6, then once in field 7); millions of empty nodes (`0A 00` in field 7).

`external.bin` is the 4,096-byte weight of the `external_…` files.

| file | expected | what it is |
|---|---|---|
"""


def files_of(make, names):
    made = make()
    made = made if isinstance(made, dict) else {make.__name__: made}
    if names and set(names) != set(made):
        raise SystemExit(f"{make.__name__}: declared {names}, made {list(made)}")
    return made


def confirm_fine(path):
    """A file called fine loads in onnx and in onnxruntime."""
    onnx.checker.check_model(str(path))
    try:
        import onnxruntime
    except ImportError:
        return
    onnxruntime.disable_telemetry_events()
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def main():
    (HERE / "external.bin").write_bytes(tensor("w", 32, 32).raw_data)
    rows = []
    for make, expected, names in ATTACKS:
        files = files_of(make, names)
        cell = ", ".join(f"`{name}.onnx`" for name in files)
        rows.append(f"| {cell} | {expected} | {' '.join(make.__doc__.split())} |")
        for name, content in files.items():
            if len(content) > LIMIT:
                raise SystemExit(f"{name}: {len(content)} bytes")
            path = HERE / f"{name}.onnx"
            path.write_bytes(content)
            if expected == FINE:
                confirm_fine(path)
    (HERE / "README.md").write_text(INTRODUCTION + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(rows)} attacks")


if __name__ == "__main__":
    main()
