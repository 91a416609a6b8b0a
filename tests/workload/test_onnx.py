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
    [("resnet18", {"width": 8, "resolution": 64}), ("vit", {"depth": 1, "width": 48, "heads": 3, "resolution": 64})],
)
@pytest.mark.filterwarnings("ignore")
def test_models_that_torch_wrote(tmp_path, name, knobs):
    """torch's own exporter, then this front end: as many MACs as the recorder, nothing unsupported."""
    workload = Workload(name, knobs)
    module, inputs = workload.build()
    path = str(tmp_path / f"{name}.onnx")
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
