"""Weights inside branches, loop bodies and functions; sequences and optionals."""

import numpy as np
from onnx import TensorProto, helper
from builder import fixture


def matmul_branch(b, name, source="x"):
    """A branch with its own MatMul weight."""
    branch = b.child(name)
    branch.weight(f"{name}_w", 32, 32)
    branch.node("MatMul", [source, f"{name}_w"], f"{name}_y")
    branch.output(f"{name}_y", ["n", 32])
    return branch


@fixture
def if_branches(b):
    """Weights inside both branches of `If`: MatMul in one, Conv (weight in a Constant node) in the other."""
    b.input("x", ["n", 32], (2, 32))
    b.input("flag", [], np.array(True))
    then, other = matmul_branch(b, "then"), b.child("else")
    other.constant_node("kernel", other.draw(16, 2, 3, 3))
    other.const("image_shape", [-1, 2, 4, 4], np.int64)
    other.const("flat_shape", [-1, 64], np.int64)
    other.weight("else_w", 64, 32)
    other.node("Reshape", ["x", "image_shape"], "image")
    other.node("Conv", ["image", "kernel"], "else_c")
    other.node("Reshape", ["else_c", "flat_shape"], "else_f")
    other.node("MatMul", ["else_f", "else_w"], "else_y")
    other.output("else_y", ["n", 32])
    b.node("If", ["flag"], "h", then_branch=then.graph(), else_branch=other.graph())
    b.output(b.node("Relu", ["h"], "y"), ["n", 32])


@fixture
def if_nested(b):
    """`If` inside `If`; an outer weight captured by branches at both depths, aliased on the way."""
    b.input("x", ["n", 32], (2, 32))
    b.input("outer_flag", [], np.array(True))
    b.input("inner_flag", [], np.array(False))
    b.weight("captured", 32, 32)

    inner_then = matmul_branch(b, "inner_then")
    inner_else = b.child("inner_else")
    inner_else.node("MatMul", ["x", "alias"], "inner_else_y")
    inner_else.output("inner_else_y", ["n", 32])

    then = b.child("then")
    then.node("Identity", ["captured"], "alias")
    then.node("If", ["inner_flag"], "h", then_branch=inner_then.graph(), else_branch=inner_else.graph())
    then.node("MatMul", ["h", "captured"], "then_y")
    then.output("then_y", ["n", 32])

    other = b.child("else")
    other.node("Gemm", ["x", "captured"], "else_y", transB=1)
    other.output("else_y", ["n", 32])
    b.output(b.node("If", ["outer_flag"], "y", then_branch=then.graph(), else_branch=other.graph()), ["n", 32])


@fixture
def if_returns_weight(b):
    """Branches whose outputs are weights: an outer one through Identity, and an own initializer as such."""
    b.input("x", ["n", 32], (2, 32))
    b.input("flag", [], np.array(False))
    b.weight("outer", 32, 32)
    then, other = b.child("then"), b.child("else")
    then.node("Identity", ["outer"], "then_w")
    then.output("then_w", [32, 32])
    other.weight("own", 32, 32)
    other.node("Identity", ["own"], "else_w")
    other.output("else_w", [32, 32])
    b.node("If", ["flag"], "w", then_branch=then.graph(), else_branch=other.graph())
    b.output(b.node("MatMul", ["x", "w"], "y"), ["n", 32])


@fixture
def if_shapes_differ(b):
    """`If` branches whose outputs differ in shape and rank; the condition is computed."""
    b.input("x", ["n", 32], (2, 32))
    b.const("threshold", np.float32(0))
    then, other = b.child("then"), b.child("else")
    then.weight("wide", 32, 48)
    then.node("MatMul", ["x", "wide"], "then_y")
    then.output("then_y", ["n", 48])
    other.weight("narrow", 32)
    other.node("MatMul", ["x", "narrow"], "else_y")
    other.output("else_y", ["n"])
    b.node("ReduceSum", ["x"], "total", keepdims=0)
    b.node("Greater", ["total", "threshold"], "flag")
    b.node("If", ["flag"], "y", then_branch=then.graph(), else_branch=other.graph())
    b.outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    return b.fixture(checks=False)


@fixture
def shadowed_names(b):
    """Both branches of two `If` nodes call their local weight, node and output by the same names."""
    b.input("x", ["n", 32], (2, 32))
    b.input("flag", [], np.array(True))

    def branch(scale):
        g = b.child("branch")
        g.const("w", scale * g.draw(32, 32))
        g.node("MatMul", ["x", "w"], "local", name="same")
        g.node("Relu", ["local"], "out", name="same_relu")
        g.output("out", ["n", 32])
        return g.graph()

    b.node("If", ["flag"], "a", then_branch=branch(1), else_branch=branch(2))
    b.node("If", ["flag"], "c", then_branch=branch(3), else_branch=branch(4))
    b.output(b.node("Add", ["a", "c"], "y"), ["n", 32])


@fixture
def loop_body(b):
    """`Loop` whose body has a weight of its own and captures one from outside; one output is scanned."""
    b.input("x", [2, 32])
    b.weight("captured", 32, 32)
    b.const("trips", np.array(3, np.int64))
    b.const("go", np.array(True))
    body = b.child("body")
    body.inputs += [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [2, 32]),
    ]
    body.weight("own", 32, 32)
    body.node("Identity", ["keep_in"], "keep_out")
    body.node("MatMul", ["state_in", "own"], "m")
    body.node("Tanh", ["m"], "t")
    body.node("MatMul", ["t", "captured"], "state_out")
    body.node("Identity", ["t"], "seen")
    body.output("keep_out", [], TensorProto.BOOL)
    body.output("state_out", [2, 32])
    body.output("seen", [2, 32])
    b.node("Loop", ["trips", "go", "x"], ["y", "history"], body=body.graph())
    b.output("y", [2, 32])
    b.output("history", ["steps", 2, 32])


@fixture
def scan_body(b):
    """`Scan` over time with a recurrent weight in the body and one captured."""
    b.input("h0", [2, 32])
    b.input("x", ["t", 2, 32], (5, 2, 32))
    b.weight("captured", 32, 32)
    body = b.child("body")
    body.inputs += [
        helper.make_tensor_value_info("h_in", TensorProto.FLOAT, [2, 32]),
        helper.make_tensor_value_info("x_t", TensorProto.FLOAT, [2, 32]),
    ]
    body.weight("recurrent", 32, 32)
    body.node("MatMul", ["h_in", "recurrent"], "a")
    body.node("MatMul", ["x_t", "captured"], "c")
    body.node("Add", ["a", "c"], "s")
    body.node("Tanh", ["s"], "h_out")
    body.node("Identity", ["h_out"], "y_t")
    body.output("h_out", [2, 32])
    body.output("y_t", [2, 32])
    b.node("Scan", ["h0", "x"], ["h_last", "y"], body=body.graph(), num_scan_inputs=1)
    b.output("h_last", [2, 32])
    b.output("y", ["t", 2, 32])


@fixture
def functions(b):
    """Model-local functions: a weight passed as input, a weight in a Constant inside, one calling another."""
    domain = "local.test"
    b.domains[domain] = 1
    opsets = [helper.make_opsetid("", b.opset), helper.make_opsetid(domain, 1)]
    dense = helper.make_function(
        domain,
        "Dense",
        ["x", "w", "bias"],
        ["y"],
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "bias"], ["y"])],
        opsets,
    )
    inner = b.child("inner")
    inner.constant_node("w", inner.draw(32, 32))
    inner.node("MatMul", ["x", "w"], "m")
    inner.node("Relu", ["m"], "y")
    fixed = helper.make_function(domain, "FixedDense", ["x"], ["y"], inner.nodes, opsets)
    twice = helper.make_function(
        domain,
        "Twice",
        ["x"],
        ["y"],
        [
            helper.make_node("FixedDense", ["x"], ["h"], domain=domain),
            helper.make_node("FixedDense", ["h"], ["y"], domain=domain),
        ],
        opsets,
    )
    b.functions += [dense, fixed, twice]
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.const("bias", b.normal(32, 0.1))
    b.node("Dense", ["x", "w", "bias"], "a", domain=domain)
    b.node("Twice", ["a"], "c", domain=domain)
    b.output(b.node("Dense", ["c", "w", "bias"], "y", domain=domain), ["n", 32])


@fixture
def sequence_ops(b):
    """Weights next to sequence values: SplitToSequence, SequenceAt, SequenceInsert, ConcatFromSequence."""
    b.input("x", [4, 32])
    b.weight("w", 32, 32)
    b.const("first", np.array(0, np.int64))
    b.const("halves", np.array([2, 2], np.int64))
    b.node("SplitToSequence", ["x", "halves"], "parts", axis=0)
    b.node("SequenceAt", ["parts", "first"], "head")
    b.node("MatMul", ["head", "w"], "m")
    b.node("SequenceInsert", ["parts", "m"], "longer")
    b.output(b.node("ConcatFromSequence", ["longer"], "y", axis=0), [6, 32])


@fixture
def optional_ops(b):
    """Optional, OptionalHasElement and OptionalGetElement around a MatMul, opset 18."""
    b.opset = 18
    b.input("x", ["n", 32], (2, 32))
    b.weight("w", 32, 32)
    b.node("MatMul", ["x", "w"], "m")
    b.node("Optional", ["m"], "maybe")
    b.node("OptionalHasElement", ["maybe"], "has")
    b.node("OptionalGetElement", ["maybe"], "y")
    b.output("y", ["n", 32])
    b.output("has", [], TensorProto.BOOL)
