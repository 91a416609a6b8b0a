"""Products that keep types of the graph, not the precision asked for, are told and counted, in every way of costing."""

from dataclasses import replace

import pytest
import torch

import sim
from sim.errors import PrecisionError
from sim.workload.graph import EinsumOp, OperandRole
from sim.workload.passes.precision import PrecisionPolicy, kept_types_note
from sim.workload.precision import parse_precision


@pytest.mark.parametrize("chip", ["h100-sxm", "edge-npu", "xeon-spr"])
def test_a_graph_built_in_int8_says_so_at_bf16(chip):
    """A GPU's kernels, a mapped array, a CPU. A graph in floating types takes any precision."""
    hardware = sim.load_hardware(chip)
    found = sim.estimate(sim.gemm(1, 256, 512), hardware, precision="bf16")
    assert found.ops[-1].precision == "int8"
    (note,) = (note for note in found.notes if "types of the graph" in note)
    assert note.startswith("the product keeps types of the graph (int8), not bf16: ")
    assert 'dtype="bf16"' in note
    for dtype in ("bf16", "fp32"):
        other = sim.estimate(sim.gemm(1, 256, 512, dtype=dtype), hardware, precision="bf16")
        assert other.ops[-1].precision == "bf16"
        assert not any("types of the graph" in note for note in other.notes)


def test_products_are_counted_and_their_types_named():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

        def forward(self, x):
            return self.b(self.a(x))

    graph = sim.trace(Two(), (torch.zeros(1, 8),))
    assert kept_types_note(graph, parse_precision("int8")) == []
    part = PrecisionPolicy(default=parse_precision("bf16"), ops={"b": parse_precision("int8")})
    assert kept_types_note(graph, part) == []
    weight = next(op for op in graph.ops if isinstance(op, EinsumOp)).einsum.operand(OperandRole.WEIGHT).tensor
    narrow = replace(graph.tensors[weight], dtype="int4", bits=4)
    (note,) = kept_types_note(graph.with_(tensors={**graph.tensors, weight: narrow}), parse_precision("bf16"))
    assert note.startswith("1 of 2 products keep types of the graph (int4), not bf16")


def test_a_type_that_no_precision_changes_is_told_with_the_refusal():
    """Eyeriss multiplies int16 alone: no `--precision` helps a product that was built in int8, its builder does."""
    chip = sim.load_hardware("eyeriss")
    with pytest.raises(PrecisionError, match=r"no rate for int8 .* keeps types of the graph .*dtype=\"int16\""):
        sim.estimate(sim.gemm(8, 8, 8, dtype="int8"), chip)
    assert sim.estimate(sim.gemm(8, 8, 8, dtype="int16"), chip).precision == "int16"
    with pytest.raises(PrecisionError, match=r"choose --precision int16$"):
        sim.estimate(sim.gemm(8, 8, 8, dtype="fp32"), chip, precision="int8")


@pytest.mark.parametrize("chip", ["xeon-gnr", "epyc-zen4", "h200-torch"])
def test_a_framework_keeps_caches_in_the_width_that_is_asked_for(chip):
    """Keys and values of 2 x 8 heads x 1,024 tokens x 64 in kv8 take a byte less each than in 16 bits."""
    graph = sim.load_workload("llama", layers=1, phase="decode", context=1023, batch=2)
    hardware = sim.load_hardware(chip)
    wide, narrow = (
        sim.estimate(graph, hardware, precision=p, calibration="none", inputs="resident")
        for p in ("w16a16", "w16a16kv8")
    )
    caches = 2 * 2 * 8 * 1024 * 64
    saved = wide.peak_memory_bytes["DRAM"] - narrow.peak_memory_bytes["DRAM"]
    assert saved == pytest.approx(caches, rel=0.01)
    assert narrow.latency_s < wide.latency_s
