"""The ONNX front end: hand-made files, files written by torch, and files that are refused."""

import pytest
import torch

from sim.errors import TraceError, WorkloadError
from sim.hardware.load import load_hardware
from sim.sweeping import sweep
from sim.workload.graph import EinsumOp, Primitive, Role
from sim.workload.load import Workload, load_workload
from sim.workload.summary import role_bytes, unsupported
from sim.workload.trace import Vector, register_rule, unregister_rule

onnx = pytest.importorskip("onnx")
helper, FLOAT, INT64 = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def saved(tmp_path, nodes, inputs, outputs, weights=()):
    """An .onnx file of nodes; weights are (name, element type, shape, values)."""
    values = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs]
    results = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    tensors = [helper.make_tensor(*weight) for weight in weights]
    graph = helper.make_graph(nodes, "g", values, results, tensors)
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return str(path)


def test_a_convolution_and_a_computed_reshape(tmp_path):
    """Conv 3 -> 8, 3x3, 8x8 in, 6x6 out: 8 x 3 x 9 x 36 MACs; the reshape's target comes from Shape."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[3, 3]),
        helper.make_node("Shape", ["y"], ["s"], end=1),
        helper.make_node("Concat", ["s", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["y", "t"], ["z"]),
        helper.make_node("Relu", ["z"], ["out"], name="relu"),
    ]
    weights = [("w", FLOAT, [8, 3, 3, 3], [0.0] * 216), ("rest", INT64, [1], [-1])]
    graph = load_workload(saved(tmp_path, nodes, [("x", [2, 3, 8, 8])], ["out"], weights))
    conv = next(op for op in graph if isinstance(op, EinsumOp))
    assert graph.macs == 2 * 8 * 3 * 9 * 36
    assert (conv.source, graph.ops[-1].source) == ("m.onnx:conv", "m.onnx:relu")
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (2, 288)
    assert role_bytes(graph)[Role.WEIGHT] == 216 * 4


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("resnet18", {"width": 8, "resolution": 64}),
        ("vit", {"depth": 1, "width": 48, "heads": 3, "resolution": 64}),
        ("mobilenet_v2", {"resolution": 64}),
        ("gpt2", {"depth": 1, "context": 32, "vocabulary": 500}),
        ("lstm", {"context": 3, "width": 32, "vocabulary": 500}),
        ("digits_cnn", {}),
        ("ssd_resnet34", {"resolution": 300}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_torch_wrote(tmp_path, name, knobs):
    """torch's own exporter, then this front end: as many MACs as the recorder, nothing unsupported."""
    workload = Workload(name, knobs)
    module, inputs = workload.build()
    path = str(tmp_path / f"{name}.onnx")
    with torch.no_grad():
        torch.onnx.export(module.eval(), inputs, path, dynamo=False)
    graph = load_workload(path)
    assert graph.macs == workload.graph(cache=False).macs
    assert not unsupported(graph)


def test_free_axes_count_as_one_and_are_noted_or_are_set(tmp_path):
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["out"])], [("x", ["batch", 4])], ["out"])
    graph = load_workload(path)
    assert graph.notes == ('input "x" axis 0 ("batch") is free: assumed to be 1; -p batch=SIZE sets it',)
    larger = load_workload(path, batch="3")
    assert (larger.batch, larger.knobs, larger.notes) == (3, {"batch": 3}, ())
    assert larger.ops[0].primitives == {p: 3 * n for p, n in graph.ops[0].primitives.items()}
    rows = sweep(path, load_hardware("systolic"), knobs={"batch": ["1", "2"]})
    assert list(rows["vector_ops"]) == [4, 8]
    for size, said in (({"bach": 2}, 'no dimension "bach".*Did you mean "batch"'), ({"batch": 0}, "at least 1")):
        with pytest.raises(WorkloadError, match=said):
            load_workload(path, **size)
    with pytest.raises(WorkloadError, match=r"export reads models, not \.onnx files"):
        load_workload(path, via="export")


@pytest.mark.parametrize(("kind", "places"), [("ScatterND", [2, 1]), ("ScatterElements", [2, 8])])
@pytest.mark.parametrize("reduction", ["none", "add", "max"])
def test_what_a_scatter_reduces_is_work_of_its_own(tmp_path, kind, places, reduction):
    """Two rows of eight into four rows: put there they are moved alone, else each of the 16 numbers is added too."""
    rows, told = [0] * (places[0] * places[1]), {} if reduction == "none" else {"reduction": reduction}
    made = helper.make_node(kind, ["x", "at", "new"], ["out"], **told)
    path = saved(tmp_path, [made], [("x", [4, 8]), ("new", [2, 8])], ["out"], [("at", INT64, places, rows)])
    found = [dict(op.primitives) for op in load_workload(path) if "put" in op.kind or "scatter" in op.kind]
    assert found == [{} if reduction == "none" else {Primitive.ADD: 16}]


def test_unknown_operators_are_all_named(tmp_path):
    nodes = [
        helper.make_node("Rellu", ["x"], ["y"], name="first"),
        helper.make_node("Fancy", ["y"], ["out"], name="second", domain="my.ops"),
    ]
    path = saved(tmp_path, nodes, [("x", [1, 4])], ["out"])
    with pytest.raises(
        TraceError, match=r'2 ONNX operators: Rellu \(node "first"\), my.ops.Fancy.*Did you mean "Relu"'
    ):
        load_workload(path)


def test_an_unknown_operator_with_stated_shapes_is_an_op_without_a_rule(tmp_path):
    """The user's rule makes it one with: a name is domain.operator, dots in the domain as underscores."""
    nodes = [helper.make_node("Fancy", ["x"], ["y"], name="second", domain="my.ops"),
             helper.make_node("Relu", ["y"], ["out"])]  # fmt: skip
    path = saved(tmp_path, nodes, [("x", [1, 4])], ["out"])
    model = onnx.load(path)
    model.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, [2, 3]))
    onnx.save(model, path)
    assert unsupported(load_workload(path)) == ("my_ops.Fancy at m.onnx:second (1x)",)
    register_rule("my_ops.Fancy")(lambda call: Vector({Primitive.EXP: call.out.numel()}))
    try:
        graph = load_workload(path)
    finally:
        unregister_rule("my_ops.Fancy")
    (op,) = [op for op in graph if op.kind == "my_ops.Fancy"]
    assert op.primitives == {Primitive.EXP: 6}


def test_a_file_that_does_not_fit_together_names_its_node(tmp_path):
    relu = helper.make_node("Relu", ["x"], ["out"])
    for made, shape, said in (
        (node("Conv", "x", "w"), [1, 64, 8, 8], r"m\.onnx:Conv: Conv does not fit its inputs \(x \[1, 64, 8, 8\], w"),
        (node("Conv", "xx", "w"), [1, 3, 8, 8], 'Conv reads "xx", which nothing before it makes'),
        (node("Reshape", "x", "x"), [1, 3, 8, 8], r'"x" \(a shape, axes or sizes\) depends on the data'),
    ):
        path = saved(tmp_path, [made], [("x", shape)], ["y0"], [("w", FLOAT, [4, 3, 3, 3], [0.0] * 108)])
        with pytest.raises(TraceError, match=said):
            load_workload(path)
    path = saved(tmp_path, [relu], [("x", [4])], ["out"])
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:9])
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("cut.onnx", "empty.onnx"):
        with pytest.raises(WorkloadError, match=r"no nodes|cannot be read as ONNX"):
            load_workload(str(tmp_path / name))


def test_weights_beside_the_file_need_not_be_there(tmp_path):
    path = saved(tmp_path, [node("Conv", "x", "w")], [("x", [1, 3, 8, 8])], ["y0"])
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(torch.zeros(4, 3, 3, 3).numpy(), "w"))
    onnx.save(model, path)
    whole = load_workload(path)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    assert load_workload(path).hash == whole.hash


def test_data_dependent_results_are_the_policys(tmp_path):
    graph = load_workload(saved(tmp_path, [node("NonZero", "x")], [("x", [3, 4])], ["y0"]))
    assert any("true elements of a mask of 12 assumed to be 12" in note for note in graph.notes)
    assert [t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT] == [(12, 2), (2, 12)]


@pytest.mark.parametrize(("mode", "size"), [("SAME_UPPER", 4), ("SAME_LOWER", 4), ("VALID", 3)])
def test_automatic_padding(tmp_path, mode, size):
    """8 pixels, stride 2: ceil(8 / 2) results with a pixel of padding, (8 - 3) // 2 + 1 without."""
    conv = node("Conv", "x", "w", auto_pad=mode, strides=[2, 2])
    graph = load_workload(saved(tmp_path, [conv], [("x", [1, 1, 8, 8]), ("w", [1, 1, 3, 3])], ["y0"]))
    assert graph.macs == size * size * 9


def test_inputs_without_shape_and_files_that_are_not_onnx(tmp_path):
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["out"])], [("x", None)], ["out"])
    with pytest.raises(TraceError, match='input "x" has no shape'):
        load_workload(path)
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    for name in ("bad.onnx", "none.onnx"):
        with pytest.raises(WorkloadError, match="cannot be read as ONNX"):
            load_workload(str(tmp_path / name))


def test_a_form_of_an_operator_that_cannot_be_read_names_its_node(tmp_path):
    conv = helper.make_node("ConvTranspose", ["x", "w"], ["out"], name="edge", auto_pad="SAME")
    path = saved(tmp_path, [conv], [("x", [1, 1, 4, 4]), ("w", [1, 1, 3, 3])], ["out"])
    with pytest.raises(
        TraceError, match=r"edge: auto_pad=SAME: expected NOTSET.*: this form of ConvTranspose cannot be"
    ):
        load_workload(path)


def node(kind, *inputs, outputs=1, **attributes):
    return helper.make_node(kind, list(inputs), [f"y{i}" for i in range(outputs)], name=kind, **attributes)


LAYERS = {
    # name: (node, {input: shape}, weights, MACs by hand)
    "LSTM": (
        node("LSTM", "x", "w", "r", "b", outputs=3, hidden_size=4, direction="bidirectional"), {"x": [5, 2, 3]},
        [("w", [2, 16, 3]), ("r", [2, 16, 4]), ("b", [2, 32])], 2 * 5 * 2 * 16 * 7,
    ),
    "GRU": (
        node("GRU", "x", "w", "r", outputs=2, hidden_size=4), {"x": [5, 2, 3]},
        [("w", [1, 12, 3]), ("r", [1, 12, 4])], 5 * 2 * 12 * 7,
    ),
    "Einsum": (node("Einsum", "x", "y", equation="bij,bkj->bik"), {"x": [2, 3, 4], "y": [2, 5, 4]}, [], 120),
    "Trilu": (node("Trilu", "x", upper=0), {"x": [4, 4]}, [], 0),
    "Sum": (node("Sum", "x", "y", "z"), {"x": [4, 4], "y": [4, 4], "z": [4]}, [], 0),
    "Max": (node("Max", "x", "y", "z"), {"x": [4, 4], "y": [4, 4], "z": [4]}, [], 0),
    "DepthToSpace": (node("DepthToSpace", "x", blocksize=2), {"x": [1, 8, 3, 3]}, [], 0),
    "SpaceToDepth": (node("SpaceToDepth", "x", blocksize=2), {"x": [1, 2, 4, 6]}, [], 0),
    "GlobalMaxPool": (node("GlobalMaxPool", "x"), {"x": [1, 8, 3, 3]}, [], 0),
    "GridSample": (node("GridSample", "x", "y", mode="bilinear"), {"x": [1, 2, 4, 4], "y": [1, 3, 3, 2]}, [], 0),
    "ConvInteger": (
        node("ConvInteger", "x", "w"), {"x": [1, 3, 6, 6]}, [("w", [4, 3, 3, 3], onnx.TensorProto.UINT8)], 4 * 16 * 27,
    ),
    "DynamicQuantizeLinear": (node("DynamicQuantizeLinear", "x", outputs=3), {"x": [3, 4]}, [], 0),
    "ReduceL1": (node("ReduceL1", "x", axes=[1]), {"x": [3, 4]}, [], 0),
    "ReduceSumSquare": (node("ReduceSumSquare", "x", axes=[1]), {"x": [3, 4]}, [], 0),
    "ThresholdedRelu": (node("ThresholdedRelu", "x"), {"x": [3, 4]}, [], 0),
    "RoiAlign": (
        node("RoiAlign", "x", "r", "i", output_height=2, output_width=3), {"x": [1, 8, 6, 6], "r": [5, 4]},
        [("i", [5], INT64)], 0,
    ),
    "QuantizeLinear": (
        node("QuantizeLinear", "x", "s", "z"), {"x": [2, 3]}, [("s", []), ("z", [], onnx.TensorProto.INT8)], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_have_the_shapes_that_onnx_infers(tmp_path, name):
    """Shapes against ONNX's own inference, MACs by hand, every op with a rule."""
    made, inputs, weights, macs = LAYERS[name]
    values = [helper.make_tensor_value_info(key, FLOAT, shape) for key, shape in inputs.items()]
    tensors = []
    for key, shape, *kind in weights:
        count = 1
        for size in shape:
            count *= size
        tensors.append(helper.make_tensor(key, kind[0] if kind else FLOAT, shape, [0] * count))
    results = [helper.make_tensor_value_info(out, onnx.TensorProto.UNDEFINED, None) for out in made.output]
    model = helper.make_model(
        helper.make_graph([made], "g", values, results, tensors), opset_imports=[helper.make_opsetid("", 16)]
    )
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    graph = load_workload(str(tmp_path / "m.onnx"))
    expected = {tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in inferred}
    assert expected <= {t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT}  # views share its storage
    assert graph.macs == macs
    assert not unsupported(graph)


@pytest.mark.parametrize("flat", [True, False])
def test_attention_of_opset_23(tmp_path, flat):
    """4 query heads on 2 of keys and values, 3 queries, 5 keys, depth 8: 4 x 3 x 5 x 8 MACs, twice."""
    shapes = ([1, 3, 32], [1, 5, 16]) if flat else ([1, 4, 3, 8], [1, 2, 5, 8])
    heads = {"q_num_heads": 4, "kv_num_heads": 2} if flat else {}
    inputs = [("q", shapes[0]), ("k", shapes[1]), ("v", shapes[1])]
    graph = load_workload(saved(tmp_path, [node("Attention", "q", "k", "v", **heads)], inputs, ["y0"]))
    assert graph.macs == 2 * 4 * 3 * 5 * 8
    assert shapes[0] in [list(t.shape) for t in graph.tensors.values()]
    (region,) = [r for r in graph.regions.values() if r.kind == "attention"]
    assert (region.attrs["heads"], region.attrs["kv_heads"]) == (4, 2)


def test_a_quantised_convolution(tmp_path):
    """3 -> 4 channels, 3 x 3, 4 x 4 outputs; its weights and results are a byte each."""
    int8 = onnx.TensorProto.INT8
    conv = node("QLinearConv", "x", "s", "z", "w", "s", "z", "s", "z")
    weights = [("s", FLOAT, [], [1.0]), ("z", int8, [], [0]), ("w", int8, [4, 3, 3, 3], [0] * 108)]
    path = saved(
        tmp_path, [helper.make_node("Cast", ["r"], ["x"], to=int8), conv], [("r", [1, 3, 6, 6])], ["y0"], weights
    )
    graph = load_workload(path)
    product = next(op for op in graph if isinstance(op, EinsumOp))
    assert graph.macs == 4 * 16 * 27
    assert [graph.tensors[o.tensor].bits for o in product.einsum.operands] == [8, 8, 8]


def test_boxes_left_by_suppression_are_the_most_that_may_be(tmp_path):
    """2 classes, 5 boxes each kept of 10: 10 rows of (image, class, box); 45 pairs a class, 3 products each."""
    nodes = [helper.make_node("NonMaxSuppression", ["b", "s", "k"], ["out"], name="nms")]
    inputs = [("b", [1, 10, 4]), ("s", [1, 2, 10])]
    graph = load_workload(saved(tmp_path, nodes, inputs, ["out"], [("k", INT64, [1], [5])]))
    assert [t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT] == [(10, 3)]
    assert sum(n for op in graph for p, n in op.primitives.items() if p == "mul") == 2 * 3 * 45
