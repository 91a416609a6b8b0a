"""Precision policies from YAML files: what is read, what is refused, and what the graph becomes, by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from sim.errors import ConfigError, DovetailError, PrecisionError
from sim.workload.graph import EinsumOp, Graph, OperandRole, Primitive, VectorOp
from sim.workload.passes import PrecisionPolicy, apply_precision, fuse_epilogues
from sim.workload.passes.precision import CONVERT_KIND
from sim.workload.precision import parse_precision
from sim.workload.precision_file import read_policy, resolve_precision
from sim.workload.serialize import graph_from_dict, graph_to_dict
from sim.workload.trace import trace

HEAD = """\
schema: dovetail.precision/1
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "mixed.yaml"
    path.write_text(HEAD + text)
    return path


def policy(default: str, **ops: str) -> PrecisionPolicy:
    named = {pattern.removeprefix("op"): parse_precision(text) for pattern, text in ops.items()}
    return PrecisionPolicy(default=parse_precision(default), ops=named)


def two_products() -> Graph:
    """(2, 4) x (4, 8) x (8, 16), without bias: modules 0 and 1."""
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 16, bias=False))
    return trace(model, torch.zeros(2, 4))


def factors(graph: Graph) -> dict[str, tuple[str, str]]:
    """module -> types of (input, weight) of its product."""
    return {
        op.module: tuple(
            graph.tensors[op.einsum.operand(r).tensor].dtype for r in (OperandRole.INPUT, OperandRole.WEIGHT)
        )
        for op in graph
        if isinstance(op, EinsumOp)
    }  # type: ignore[return-value]


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    found = read_policy(file(tmp_path, 'name: head-wide\ndefault: w4a16\nops: {fc: bf16, "layer*": int8}\n'), "fp32")
    assert (found.name, found.default.name) == ("head-wide", "w4a16")
    assert [(pattern, one.name) for pattern, one in found.ops.items()] == [("fc", "bf16"), ("layer*", "int8")]
    assert pickle.loads(pickle.dumps(found)) == found
    assert hash(pickle.loads(pickle.dumps(found))) == hash(found)


def test_the_name_is_the_files_and_the_default_the_chips(tmp_path: Path) -> None:
    path = file(tmp_path, "ops: {1: bf16}\n")
    found = resolve_precision(str(path), "int8")
    assert isinstance(found, PrecisionPolicy)
    assert (found.name, found.default.name, list(found.ops)) == ("mixed", "int8", ["1"])
    assert resolve_precision(found, "fp32") is found
    assert resolve_precision(None, "int8") == parse_precision("int8")
    assert resolve_precision("w4a16", "int8") == parse_precision("w4a16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oops: {fc: bf16}\nops: {fc: bf16}\n", r'unknown key oops.* Did you mean "ops"\?'),
        ("default: int8\n", r"ops: missing, expected patterns"),
        ("ops: {}\n", r"ops: \{\}, expected patterns"),
        ("ops: [fc]\n", r"ops: \['fc'\], expected patterns"),
        ("ops: {fc: bf61}\n", r'ops: "fc": precision "bf61" is unknown.* Did you mean "bf16"\?'),
        ("ops: {fc: [bf16]}\n", r"ops: \"fc\": \['bf16'\], expected a precision"),
        ("default: int9\nops: {fc: bf16}\n", r'default: precision "int9" is unknown.* Did you mean "int'),
        ("default: {a: b}\nops: {fc: bf16}\n", r"default: \{'a': 'b'\}, expected text such as int8"),
        ("name: ''\nops: {fc: bf16}\n", r'name: "", expected text'),
        ("name: int8\nops: {fc: bf16}\n", r"is a precision itself, expected another name such as int8-mixed"),
        ("name: w4a16\nops: {fc: bf16}\n", r"is a precision itself, expected another name such as w4a16-mixed"),
        ("ops: {fc: bf16, fc: int8}\n", r"stands twice, first in line 2"),
        ("ops: {fc: bf16\n", r"is no YAML"),
    ],
)
def test_a_file_is_strict(tmp_path: Path, text: str, message: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(DovetailError, match=message) as caught:
        read_policy(path, "fp32")
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2


def test_another_file_is_no_policy(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text("schema: dovetail.chip/1\nname: x\n")
    with pytest.raises(ConfigError, match=r'schema is "dovetail.chip/1", expected "dovetail.precision/1"'):
        read_policy(path, "fp32")
    with pytest.raises(
        ConfigError, match=r"absent.yaml: cannot be read .* expected a policy's YAML file, or one of fp32"
    ):
        resolve_precision(str(tmp_path / "absent.yaml"), "fp32")


def test_a_pattern_that_matches_nothing_names_file_and_nearest(tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("classifier", nn.Linear(4, 4))
    path = file(tmp_path, "ops: {clasifier: bf16}\n")
    with pytest.raises(
        PrecisionError, match=r'ops: "clasifier" matches no op .* Did you mean "classifier"\?'
    ) as caught:
        apply_precision(trace(model, torch.zeros(1, 4)), read_policy(path, "int8"))
    assert str(path) in str(caught.value)


def test_a_wider_product_has_its_input_converted() -> None:
    """int8 but for module 1: what product 0 stored in int8 (2 x 8 elements) is converted to bf16, 16 conversions,
    16 bytes read and 32 written; module 1 reads bf16 alone."""
    graph = two_products()
    typed = apply_precision(graph, policy("int8", op1="bf16"))
    assert factors(typed) == {"0": ("int8", "int8"), "1": ("bf16", "bf16")}
    (conversion,) = [op for op in typed if op.kind == CONVERT_KIND]
    assert isinstance(conversion, VectorOp)
    assert conversion.primitives == {Primitive.CONVERT: 16}
    sizes = [typed.tensors[key].size_bytes for key in (*conversion.inputs, *conversion.outputs)]
    assert sizes == [16, 32]
    assert next(op.name for op in typed if op.name in (conversion.name, "1.mm")) == conversion.name
    assert typed.macs == graph.macs


def test_a_narrower_product_has_its_input_converted_too() -> None:
    """bf16 but for module 1 in w4a8: 16 activations become int8, the weights are stored in int4."""
    typed = apply_precision(two_products(), policy("bf16", op1="w4a8"))
    assert factors(typed) == {"0": ("bf16", "bf16"), "1": ("int8", "int4")}
    assert sum(op.primitives[Primitive.CONVERT] for op in typed if op.kind == CONVERT_KIND) == 16


def test_equal_types_are_not_converted() -> None:
    """One precision by patterns is the precision; weights alone may differ without a conversion."""
    graph = two_products()
    same = apply_precision(graph, policy("int8", op1="int8"))
    plain = apply_precision(graph, parse_precision("int8"))
    assert (same.ops, same.tensors) == (plain.ops, plain.tensors)
    narrow = apply_precision(graph, policy("bf16", op1="w4a16"))
    assert factors(narrow) == {"0": ("bf16", "bf16"), "1": ("bf16", "int4")}
    assert not [op for op in narrow if op.kind == CONVERT_KIND]


def test_the_first_pattern_that_matches_decides() -> None:
    first = apply_precision(two_products(), policy("fp32", op1="bf16", **{"op*": "int8"}))
    assert factors(first) == {"0": ("int8", "int8"), "1": ("bf16", "bf16")}
    other = apply_precision(two_products(), policy("fp32", **{"op*": "int8", "op1": "bf16"}))
    assert factors(other) == {"0": ("int8", "int8"), "1": ("int8", "int8")}


def test_the_name_of_an_op_decides_for_its_weight_too() -> None:
    """The weight is seen through a view, which the pattern does not match: the product that reads it decides."""
    graph = two_products()
    by_name = apply_precision(graph, policy("int8", **{"op1.mm": "bf16"}))
    assert factors(by_name) == {"0": ("int8", "int8"), "1": ("bf16", "bf16")}


def test_one_conversion_serves_all_readers() -> None:
    """Three readers of one tensor, two of them in bf16: one conversion."""

    class Fan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4, bias=False) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.b(y) + self.c(y) + self.d(y)

    typed = apply_precision(trace(Fan(), torch.zeros(2, 4)), policy("int8", opc="bf16", opd="bf16"))
    assert len([op for op in typed if op.kind == CONVERT_KIND]) == 1
    assert factors(typed)["c"] == factors(typed)["d"] == ("bf16", "bf16")


def test_a_conversion_of_a_result_that_nothing_else_reads_is_fused() -> None:
    """It becomes one conversion an output element of the product before it."""
    fused = fuse_epilogues(apply_precision(two_products(), policy("int8", op1="bf16")))
    assert not [op for op in fused if op.kind == CONVERT_KIND]
    first = next(op for op in fused if isinstance(op, EinsumOp) and op.module == "0")
    assert first.epilogue == {Primitive.CONVERT: 1}
    assert fused.tensors[first.outputs[0]].dtype == "bf16"


def test_applying_a_policy_twice_changes_nothing_and_documents_keep_it() -> None:
    found = policy("int8", op1="bf16")
    typed = apply_precision(two_products(), found)
    assert typed.policy == found.name == "int8, 1: bf16"
    assert apply_precision(typed, found) == typed
    assert graph_from_dict(graph_to_dict(typed)) == typed
