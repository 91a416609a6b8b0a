"""The ONNX front end: hand-made files, files written by torch, and files that are refused."""

import pytest
import torch

from sim.errors import TraceError, WorkloadError
from sim.workload.graph import EinsumOp, Role
from sim.workload.load import Workload, load_workload
from sim.workload.summary import role_bytes, unsupported

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


def test_free_axes_count_as_one_and_are_noted(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["out"])]
    graph = load_workload(saved(tmp_path, nodes, [("x", ["batch", 4])], ["out"]))
    assert graph.notes == ('input "x" axis 0 ("batch") is free: assumed to be 1',)


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


def test_inputs_without_shape_and_files_that_are_not_onnx(tmp_path):
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["out"])], [("x", None)], ["out"])
    with pytest.raises(TraceError, match='input "x" has no shape'):
        load_workload(path)
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf")
    for name in ("bad.onnx", "none.onnx"):
        with pytest.raises(WorkloadError, match="cannot be read as ONNX"):
            load_workload(str(tmp_path / name))


def test_a_form_of_an_operator_that_cannot_be_read_names_its_node(tmp_path):
    conv = helper.make_node("Conv", ["x", "w"], ["out"], name="edge", auto_pad="SAME_LOWER")
    path = saved(tmp_path, [conv], [("x", [1, 1, 4, 4]), ("w", [1, 1, 3, 3])], ["out"])
    with pytest.raises(TraceError, match=r"edge: auto_pad=.*explicit pads: this form of Conv cannot be read"):
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


def test_boxes_left_by_suppression_are_the_most_that_may_be(tmp_path):
    """2 classes, 5 boxes each kept of 10: 10 rows of (image, class, box); 45 pairs a class, 3 products each."""
    nodes = [helper.make_node("NonMaxSuppression", ["b", "s", "k"], ["out"], name="nms")]
    inputs = [("b", [1, 10, 4]), ("s", [1, 2, 10])]
    graph = load_workload(saved(tmp_path, nodes, inputs, ["out"], [("k", INT64, [1], [5])]))
    assert [t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT] == [(10, 3)]
    assert sum(n for op in graph for p, n in op.primitives.items() if p == "mul") == 2 * 3 * 45
