"""ONNX files as other exporters write them: constants, omitted results, old attributes, functions, quantised ones."""

import pytest

import sim
from sim.errors import TraceError
from sim.workload.graph import EinsumOp, MovementOp, Primitive, Role
from sim.workload.load import load_workload
from sim.workload.summary import role_bytes

onnx = pytest.importorskip("onnx")
node, tensor, P = onnx.helper.make_node, onnx.helper.make_tensor, onnx.TensorProto


def weight(name, shape, kind=P.FLOAT, values=None):
    """A weight of these values, or of zeros."""
    if values is not None:
        return tensor(name, kind, shape, values)
    count = 1
    for size in shape:
        count *= size
    bits = 4 if kind in (P.INT4, P.UINT4) else 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    return P(name=name, data_type=kind, dims=shape, raw_data=bytes(count * bits // 8))


def read(tmp_path, nodes, inputs, weights=(), opset=17, functions=(), **sizes):
    """The graph of an .onnx file whose result is "y"; inputs are name -> shape."""
    values = [onnx.helper.make_tensor_value_info(name, P.FLOAT, shape) for name, shape in inputs.items()]
    result = onnx.helper.make_tensor_value_info("y", P.FLOAT, None)
    graph = onnx.helper.make_graph(list(nodes), "g", values, [result], list(weights))
    opsets = [onnx.helper.make_opsetid("", opset), *(onnx.helper.make_opsetid(f.domain, 1) for f in functions)]
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, functions=list(functions)).SerializeToString())
    return load_workload(str(path), **sizes)


def result_of(graph):
    return graph.tensors[graph.ops[-1].outputs[-1]]


def test_a_constant_node_is_a_weight(tmp_path):
    """256 x 512 floats, whether they stand in a Constant node, as in Paddle's and TensorFlow's files, or beside."""
    product = node("MatMul", ["x", "w"], ["y"])
    w = weight("w", [256, 512])
    beside = read(tmp_path, [product], {"x": [4, 256]}, [w])
    inside = read(tmp_path, [node("Constant", [], ["w"], value=w), product], {"x": [4, 256]})
    for graph in (beside, inside):
        assert role_bytes(graph)[Role.WEIGHT] == 256 * 512 * 4
    chip = sim.load_hardware("systolic")
    assert sim.estimate(inside, chip).latency_s == sim.estimate(beside, chip).latency_s


def test_an_omitted_result_is_no_input_of_what_follows(tmp_path):
    """Two layers, the first without its states, the second without initial ones: 5 steps x 2 sequences x 4 gates of 8
    x (4 or 8 inputs + 8 states)."""
    nodes = [
        node("LSTM", ["x", "w", "r"], ["first", "", "c"], hidden_size=8),
        node("Squeeze", ["first", "one"], ["z"]),
        node("LSTM", ["z", "w2", "r", "", "", "", ""], ["y", "", ""], hidden_size=8),
    ]
    weights = [weight("w", [1, 32, 4]), weight("w2", [1, 32, 8]), weight("r", [1, 32, 8]),
               weight("one", [1], P.INT64, [1])]  # fmt: skip
    assert read(tmp_path, nodes, {"x": [5, 2, 4]}, weights).macs == 5 * 2 * 32 * (4 + 8 + 8 + 8)


@pytest.mark.parametrize("names", [("type", "half"), ("graph", "known"), ("a.b", "a/b")])
def test_weights_may_have_any_names(tmp_path, names):
    """Those that a module has itself, and two that differ in a dot alone."""
    first, second = names
    nodes = [node("MatMul", ["x", first], ["z"]), node("MatMul", ["z", second], ["y"])]
    graph = read(tmp_path, nodes, {"x": [4, 8]}, [weight(first, [8, 8]), weight(second, [8, 6])])
    assert graph.macs == 4 * 8 * 8 + 4 * 8 * 6


def test_a_free_axis_may_be_written_as_minus_one(tmp_path):
    graph = read(tmp_path, [node("Relu", ["x"], ["y"])], {"x": [-1, 8]})
    assert graph.notes == ('input "x" axis 0 is free: assumed to be 1',)
    assert result_of(graph).shape == (1, 8)


@pytest.mark.parametrize("name", ["batch", "batch_size", "N"])
def test_the_batch_has_several_names(tmp_path, name):
    """Throughput counts inputs: eight of them in one run."""
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    graph = read(tmp_path, nodes, {"x": [name, 64]}, [weight("w", [64, 64])], **{name: "8"})
    found = sim.estimate(graph, sim.load_hardware("systolic"))
    assert graph.batch == 8
    assert found.throughput_per_s == pytest.approx(8 / found.latency_s)


def test_the_size_of_a_tensor_is_known(tmp_path):
    nodes = [node("Size", ["x"], ["n"]), node("Unsqueeze", ["n", "zero"], ["s"]), node("Reshape", ["x", "s"], ["z"]),
             node("Relu", ["z"], ["y"])]  # fmt: skip
    graph = read(tmp_path, nodes, {"x": [4, 8]}, [weight("zero", [1], P.INT64, [0])])
    assert result_of(graph).shape == (32,)


def test_functions_of_the_file_are_put_in(tmp_path):
    """A function of the file's own, here a product: 4 x 8 x 6 MACs."""
    body = [node("MatMul", ["a", "b"], ["c"])]
    function = onnx.helper.make_function("mine", "Product", ["a", "b"], ["c"], body,
                                         [onnx.helper.make_opsetid("", 17)])  # fmt: skip
    nodes = [node("Product", ["x", "w"], ["y"], domain="mine")]
    graph = read(tmp_path, nodes, {"x": [4, 8]}, [weight("w", [8, 6])], functions=[function])
    assert graph.macs == 4 * 8 * 6


def branching(condition):
    """Nodes that make "c", then y = x w if it holds, else relu(x)."""
    product = onnx.helper.make_graph([node("MatMul", ["x", "w"], ["t"])], "then", [], [
        onnx.helper.make_tensor_value_info("t", P.FLOAT, None)], [weight("w", [8, 6])])  # fmt: skip
    plain = onnx.helper.make_graph([node("Relu", ["x"], ["e"])], "else", [], [
        onnx.helper.make_tensor_value_info("e", P.FLOAT, None)])  # fmt: skip
    return [*condition, node("If", ["c"], ["z"], then_branch=product, else_branch=plain, name="if"),
            node("Neg", ["z"], ["y"])]  # fmt: skip


@pytest.mark.parametrize(("rows", "macs", "stored"), [(4, 4 * 8 * 6, 8 * 6 * 4), (3, 0, 0)])
def test_a_branch_on_shapes_is_the_one_that_is_taken(tmp_path, rows, macs, stored):
    """Taken with four rows; the weight of a branch that is not taken is none of the network's."""
    condition = [node("Shape", ["x"], ["s"], end=1), node("Equal", ["s", "four"], ["c"])]
    graph = read(tmp_path, branching(condition), {"x": [rows, 8]}, [ints("four", 4)])
    assert (graph.macs, role_bytes(graph).get(Role.WEIGHT, 0)) == (macs, stored)
    assert result_of(graph).shape == (rows, 6 if macs else 8)


def test_a_branch_on_data_is_refused_at_its_node(tmp_path):
    condition = [node("ReduceSum", ["x"], ["s"], keepdims=0), node("Cast", ["s"], ["c"], to=P.BOOL)]
    with pytest.raises(TraceError, match=r'm\.onnx:if: no translation, which branch runs depends on the data.*"z"'):
        read(tmp_path, branching(condition), {"x": [4, 8]})


def ints(name, *values):
    return weight(name, [len(values)], P.INT64, values)


FORMS = {
    "Clip, opset 9": (node("Clip", ["x"], ["y"], min=0.0, max=6.0), [2, 3], [], 9, (2, 3)),
    "Pad, opset 9": (node("Pad", ["x"], ["y"], pads=[0, 1, 0, 1]), [2, 3], [], 9, (2, 5)),
    "Upsample, opset 9": (
        node("Upsample", ["x", "s"], ["y"]), [1, 3, 8, 8], [weight("s", [4], values=[1, 1, 2, 2])], 9, (1, 3, 16, 16),
    ),
    "Resize by scales of two axes": (
        node("Resize", ["x", "", "s"], ["y"], axes=[2, 3]), [1, 3, 8, 8], [weight("s", [2], values=[2, 3])], 18,
        (1, 3, 16, 24),
    ),
    "Resize to sizes of two axes": (
        node("Resize", ["x", "", "", "s"], ["y"], axes=[3, 2]), [1, 3, 8, 8], [ints("s", 5, 7)], 18, (1, 3, 7, 5),
    ),
    "GroupNormalization, opset 18": (
        node("GroupNormalization", ["x", "s", "s"], ["y"], num_groups=4), [1, 16, 8, 8], [weight("s", [4])], 18,
        (1, 16, 8, 8),
    ),
    "ConvTranspose to a shape": (
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_shape=[16, 16]), [1, 4, 8, 8],
        [weight("w", [4, 4, 3, 3])], 17, (1, 4, 16, 16),
    ),
    "ConvTranspose, SAME": (
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_UPPER"), [1, 4, 8, 8],
        [weight("w", [4, 4, 3, 3])], 17, (1, 4, 16, 16),
    ),
    "ConvTranspose, uneven pads": (
        node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], pads=[0, 1, 1, 2]), [1, 4, 8, 8],
        [weight("w", [4, 4, 3, 3])], 17, (1, 4, 16, 14),
    ),
    "MaxPool with its indices": (
        node("MaxPool", ["x"], ["i", "y"], kernel_shape=[2, 2], strides=[2, 2]), [1, 4, 8, 8], [], 17, (1, 4, 4, 4),
    ),
    "MaxPool padded by more than half": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[2, 2, 2, 2], strides=[2, 2]), [1, 4, 8, 8], [], 17,
        (1, 4, 5, 5),
    ),
    "Slice backwards": (
        node("Slice", ["x", "a", "b", "c", "d"], ["y"]), [4, 8],
        [ints("a", -1), ints("b", -(2**62)), ints("c", 1), ints("d", -2)], 17, (4, 4),
    ),
    "Mod of data": (node("Mod", ["x", "m"], ["y"], fmod=1), [4, 8], [weight("m", [1], values=[3])], 17, (4, 8)),
    "OneHot": (
        node("OneHot", ["x", "d", "v"], ["y"]), [2, 5, 7], [ints("d", 20), weight("v", [2], values=[0, 1])], 17,
        (2, 5, 7, 20),
    ),
    "OneHot along the channels": (
        node("OneHot", ["x", "d", "v"], ["y"], axis=1), [2, 5, 7], [ints("d", 20), weight("v", [2], values=[0, 1])], 17,
        (2, 20, 5, 7),
    ),
    "Cast to uint16": (node("Cast", ["x"], ["y"], to=P.UINT16), [4, 8], [], 17, (4, 8)),
    "Cast to fp8": (node("Cast", ["x"], ["y"], to=P.FLOAT8E4M3FN), [4, 8], [], 19, (4, 8)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_operators(tmp_path, form):
    """The shape of the result, by ONNX's operator specification."""
    one, shape, weights, opset, result = FORMS[form]
    graph = read(tmp_path, [one], {"x": shape}, weights, opset)
    assert result_of(graph).shape == result


def test_positions_are_whole_after_a_division_and_bounds(tmp_path):
    """A detector's tail: of 300 x 80 scores the best 30, their boxes at position // 80: 30 rows of 4 floats."""
    nodes = [
        node("TopK", ["x", "k"], ["best", "at"]),
        node("Div", ["at", "classes"], ["row"]),
        node("Clip", ["row", "low", "high"], ["inside"]),
        node("Gather", ["boxes", "inside"], ["y"]),
    ]
    bounds = [weight(name, [], P.INT64, [value]) for name, value in (("classes", 80), ("low", 0), ("high", 299))]
    graph = read(tmp_path, nodes, {"x": [1, 300 * 80]}, [weight("boxes", [300, 4]), ints("k", 30), *bounds])
    assert result_of(graph).shape == (1, 30, 4)
    (boxes,) = (t.id for t in graph.tensors.values() if t.name == "boxes")
    assert graph.ops[-1].read_bytes[boxes] == 30 * 4 * 4


@pytest.mark.parametrize(("training", "passes"), [(0, 1), (1, 2)])
def test_a_norm_of_a_file_exported_in_training_is_one_of_the_data(tmp_path, training, passes):
    """Of 2 x 4 x 8 x 8 elements two adds each and one more for each of 4 means, where running statistics take four adds
    in all."""
    results = ["y", "m2", "v2"] if training else ["y"]
    norm = node("BatchNormalization", ["x", "s", "b", "m", "v"], results, training_mode=training)
    graph = read(tmp_path, [norm], {"x": [2, 4, 8, 8]}, [weight(name, [4]) for name in "sbmv"])
    (op,) = graph.ops
    assert (op.passes, op.primitives[Primitive.ADD]) == (passes, 2 * 512 + 4 if training else 4)


@pytest.mark.parametrize("chip", ["tesla-fsd-npu", "h100-sxm"])
def test_what_is_computed_before_the_network_runs_is_read(tmp_path, chip):
    """1,024 x 1,024 floats, as a mask is filled: they come from memory, as those that the file holds."""
    add, held = node("Add", ["x", "c"], ["y"]), weight("c", [1024, 1024])
    filled = [node("ConstantOfShape", ["s"], ["c"]), add]
    computed = read(tmp_path, filled, {"x": [1024, 1024]}, [ints("s", 1024, 1024)])
    beside = read(tmp_path, [add], {"x": [1024, 1024]}, [held])
    assert role_bytes(computed)[Role.WEIGHT] == 1024 * 1024 * 4
    ours, theirs = (sim.estimate(g, sim.load_hardware(chip)) for g in (computed, beside))
    assert (ours.latency_s, ours.traffic_bytes) == (theirs.latency_s, theirs.traffic_bytes)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("laid", ["Expand", "Tile", "Reshape"])
def test_a_weight_in_another_shape_is_a_weight_however_small(tmp_path, laid, width):
    """One row of floats, repeated for eight: 4 or 16 of them are read, and repeating copies once for both readers."""
    sizes = {"Expand": ints("s", 8, width), "Tile": ints("s", 8, 1), "Reshape": ints("s", width)}[laid]
    nodes = [node(laid, ["w", "s"], ["e"]), node("Add", ["x", "e"], ["z"]), node("Mul", ["z", "e"], ["y"])]
    graph = read(tmp_path, nodes, {"x": [8, width]}, [weight("w", [1, width]), sizes])
    assert (graph.parameters, role_bytes(graph)[Role.WEIGHT]) == (width, 4 * width)
    moves = [op for op in graph if isinstance(op, MovementOp)]
    assert len(moves) == (laid == "Tile")


def test_reducing_over_no_axes_keeps_every_element(tmp_path):
    nodes = [node("ReduceSum", ["x", "none"], ["z"], noop_with_empty_axes=1), node("Relu", ["z"], ["y"])]
    graph = read(tmp_path, nodes, {"x": [4, 8]}, [weight("none", [0], P.INT64, [])])
    assert result_of(graph).shape == (4, 8)


def test_what_cannot_be_read_says_so(tmp_path):
    w = weight("w", [4, 4, 3, 3])
    for one, weights, said in (
        (node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], dilations=[2, 2]), [], "AveragePool with dilations"),
        (node("Cast", ["x"], ["y"], to=P.STRING), [], "elements of type STRING cannot be read"),
        (node("Resize", ["x", "", "s"], ["y"]), [weight("s", [4], values=[2, 1, 1, 1])], "the same first two axes"),
        (node("ConvTranspose", ["x", "w"], ["y"], pads=[-1, 0, 0, 0]), [w], "expected none below 0"),
        (node("ConvTranspose", ["x", "w"], ["y"], output_shape=[11, 10]), [w], r"\[11, 10\], more than the \[10, 10\]"),
    ):
        with pytest.raises(TraceError, match=said):
            read(tmp_path, [one], {"x": [1, 4, 8, 8]}, weights, 19)


def convolutions(quantised):
    """Three of 64 channels with a ReLU each; with quantised weights and a pair around every value between them."""
    nodes, weights, x = [], [weight("s", [], values=[0.1]), weight("z", [], P.INT8, [0])], "x"
    for i in range(3):
        if quantised:
            nodes += [node("QuantizeLinear", [x, "s", "z"], [f"q{i}"]),
                      node("DequantizeLinear", [f"q{i}", "s", "z"], [f"d{i}"]),
                      node("DequantizeLinear", [f"w{i}", f"s{i}"], [f"v{i}"], axis=0)]  # fmt: skip
            weights += [weight(f"w{i}", [64, 64, 3, 3], P.INT8), weight(f"s{i}", [64])]
        else:
            weights.append(weight(f"v{i}", [64, 64, 3, 3]))
        x, before = ("y" if i == 2 else f"r{i}"), (f"d{i}" if quantised else x)
        nodes += [node("Conv", [before, f"v{i}"], [f"c{i}"], pads=[1] * 4), node("Relu", [f"c{i}"], [x])]
    return nodes, weights


@pytest.mark.parametrize("chip", ["tesla-fsd-npu", "systolic", "h100-sxm"])
def test_a_quantised_network_costs_what_the_plain_one_costs_in_int8(tmp_path, chip):
    """Quantising pairs are how a file says int8, not work: the same products on the same bytes."""
    plain, quantised = (read(tmp_path, nodes, {"x": [1, 64, 28, 28]}, weights, 13)
                        for nodes, weights in map(convolutions, (False, True)))  # fmt: skip
    assert role_bytes(quantised)[Role.WEIGHT] == 3 * 64 * 64 * 9
    ours, theirs = (sim.estimate(g, sim.load_hardware(chip), precision="int8") for g in (quantised, plain))
    assert ours.latency_s == theirs.latency_s
    assert "3 weights are read as they are stored, and 3 pairs" in quantised.notes[0]


@pytest.mark.parametrize("kind", [P.UINT8, P.INT8])
def test_quantised_operators_cost_what_a_plain_product_costs_in_int8(tmp_path, kind):
    """QLinearConv then QLinearMatMul on bytes, with a sign or without; an array has one rate for both, and they
    keep it as busy as Conv and MatMul do in int8."""
    q = [weight("s", [], values=[0.1]), weight("z", [], kind, [0])]
    ends = [node("QuantizeLinear", ["x", "s", "z"], ["a"]), node("DequantizeLinear", ["c", "s", "z"], ["y"])]
    nodes = [ends[0], node("QLinearConv", ["a", "s", "z", "v", "s", "z", "s", "z", "bias"], ["b"], pads=[1] * 4),
             node("QLinearMatMul", ["b", "s", "z", "w", "s", "z", "s", "z"], ["c"]), ends[1]]  # fmt: skip
    weights = [weight("v", [64, 64, 3, 3], P.INT8), weight("w", [32, 48], kind), weight("bias", [64], P.INT32)]
    quantised = read(tmp_path, nodes, {"x": [1, 64, 32, 32]}, [*q, *weights])
    nodes = [node("Conv", ["x", "v", "bias"], ["b"], pads=[1] * 4), node("MatMul", ["b", "w"], ["y"])]
    weights = [weight("v", [64, 64, 3, 3]), weight("w", [32, 48]), weight("bias", [64])]
    plain = read(tmp_path, nodes, {"x": [1, 64, 32, 32]}, weights)
    chip = sim.load_hardware("tesla-fsd-npu")
    ours, theirs = (
        [
            {name: op.cycles_ladder[name] for name in ("ideal", "compute")}
            for op in sim.estimate(g, chip, precision="int8").ops
            if op.cycles_ladder
        ]
        for g in (quantised, plain)
    )
    assert quantised.macs == plain.macs == 32 * 32 * 64 * (64 * 9 + 48)
    assert ours == theirs
    assert len(theirs) == 2


@pytest.mark.parametrize("form", [{"axis": 1}, {"axis": 0, "block_size": 32}])
@pytest.mark.parametrize("kind", [P.INT4, P.UINT4])
def test_weights_of_four_bits_stay_so(tmp_path, kind, form):
    """128 x 64 of them: 4,096 bytes, read as a weight-only product's; the graph says the same after a round trip.

    Blocks of 32 have a float and a zero point of four bits each: 4 x 64 of both beside them.
    """
    blocks = "block_size" in form
    beside = [weight("s", [4, 64] if blocks else [64]), weight("z", [4, 64] if blocks else [64], kind)]
    nodes = [node("DequantizeLinear", ["w", "s", "z"], ["v"], **form), node("MatMul", ["x", "v"], ["y"])]
    graph = read(tmp_path, nodes, {"x": [4, 128]}, [weight("w", [128, 64], kind), *beside], 21)
    (product,) = [op for op in graph if isinstance(op, EinsumOp)]
    assert role_bytes(graph)[Role.WEIGHT] == 128 * 64 // 2 + blocks * (4 * 64 * 4 + 4 * 64 // 2)
    assert (graph.macs, graph.ops) == (4 * 128 * 64, (product,))
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"), precision="bf16")
    assert any("int4" in note for note in found.notes)


def test_integers_of_no_pair_are_still_converted(tmp_path):
    """A quantised value that another operator reads: the pair is left out, the quantising stays."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Cast", ["q"], ["i"], to=P.FLOAT),
        node("Add", ["d", "i"], ["y"]),
    ]
    graph = read(tmp_path, nodes, {"x": [4, 8]}, [weight("s", [], values=[0.1]), weight("z", [], P.INT8, [0])])
    kinds = [op.kind for op in graph]
    assert "aten.round" in kinds
    assert "aten.mul" not in kinds
