"""Annotations reach the right tensors of a graph, and a chip without the unit gains only traffic."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sim.compression.annotations import Annotation, annotate, merge
from sim.compression.benefit import (
    as_run,
    benefits,
    compressed_precision,
    stored_weight_bytes,
    support_notes,
    wide_precision,
)
from sim.compression.fakequant import Grid
from sim.compression.model import weight_bytes
from sim.compression.quantisation import quantise, weight_only
from sim.compression.sparsify import sparsify_nm
from sim.errors import WorkloadError
from sim.hardware.chip import Array, Chip, Dataflow, Folds, Preload, Skew, Unit, VectorUnit
from sim.results import Term, Traffic
from sim.workload.graph import (
    Axis,
    Einsum,
    EinsumOp,
    Graph,
    MovementOp,
    Operand,
    OperandRole,
    Primitive,
    Role,
    Tensor,
    VectorOp,
    ViewOp,
)
from sim.workload.passes import apply_precision
from sim.workload.precision import parse_precision
from sim.workload.trace.run import trace


def product(name, a, w, y, m=4, n=8, k=8):
    def operand(tensor, role, *ranks):
        size = {"M": m, "N": n, "K": k}
        axes = tuple(Axis(terms=((r, 1),), size=size[r]) for r in ranks)
        return Operand(tensor=tensor, role=role, projection=axes)

    einsum = Einsum(
        ranks={"M": m, "N": n, "K": k},
        operands=(
            operand(a, OperandRole.INPUT, "M", "K"),
            operand(w, OperandRole.WEIGHT, "K", "N"),
            operand(y, OperandRole.OUTPUT, "M", "N"),
        ),
    )
    return EinsumOp(name=name, kind="aten.mm", inputs=(a, w), outputs=(y,), module=name, einsum=einsum)


def tensor(id_, role, name="", storage="", shape=(4, 8)):
    return Tensor(id=id_, shape=shape, dtype="fp32", bits=32, role=role, name=name, storage=storage)


@pytest.fixture
def graph():
    """x -> fc1 (weight read through a transposed view) -> relu -> fc2 and fc3 -> outputs."""
    w1 = tensor("w1", Role.WEIGHT, "fc1.weight", "s1", (8, 8))
    tensors = [
        tensor("x", Role.INPUT, "x"), w1, tensor("w1t", Role.WEIGHT, "", "s1", (8, 8)),
        tensor("w2", Role.WEIGHT, "fc2.weight", shape=(8, 8)), tensor("w3", Role.WEIGHT, "fc3.weight", shape=(8, 8)),
        tensor("h", Role.ACTIVATION), tensor("r", Role.ACTIVATION), tensor("y", Role.OUTPUT), tensor("z", Role.OUTPUT),
        tensor("kv", Role.KV_CACHE, "cache"),
    ]  # fmt: skip
    ops = (
        ViewOp(name="t", kind="aten.t", inputs=("w1",), outputs=("w1t",)),
        product("fc1", "x", "w1t", "h"),
        VectorOp(name="relu", kind="aten.relu", inputs=("h",), outputs=("r",), primitives={Primitive.COMPARE: 32}),
        product("fc2", "r", "w2", "y"),
        product("fc3", "r", "w3", "z"),
    )
    return Graph(ops=ops, tensors={t.id: t for t in tensors}, name="toy")


INT8 = Annotation(dtype="int8", bits=8.0)


def test_weights_and_their_views_inputs_and_caches(graph):
    sparse = Annotation(dtype="int4", bits=4.5, density=0.5, pattern="2:4")
    marked = annotate(graph, {"fc1.weight": sparse, "fc1:input": INT8, "kv_cache": INT8}).tensors
    for name in ("w1", "w1t"):
        # Two bits of position with each stored element: 4.5 + 2.
        assert (marked[name].dtype, marked[name].bits, marked[name].pattern) == ("int4", 6.5, "2:4")
    assert marked["w1"].size_bytes == 64 * 6.5 * 0.5 / 8
    assert (marked["x"].bits, marked["kv"].bits, marked["h"].bits, marked["w2"].bits) == (8, 8, 32, 32)


def test_a_shared_input_takes_the_widest_and_only_if_all_readers_agree(graph):
    wide = Annotation(dtype="bf16", bits=16.0)
    assert annotate(graph, {"fc2:input": INT8}).tensors["r"].bits == 32
    assert annotate(graph, {"fc2:input": INT8, "fc3:input": wide}).tensors["r"].bits == 16
    assert annotate(graph, {"fc2:input": INT8, "fc3:input": INT8}).tensors["r"].bits == 8


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x)], 1))


def test_a_concatenation_writes_the_bytes_of_what_it_makes():
    """8 x 16 elements: 512 bytes in fp32; 128 in int8, whatever its two parts of 4 x 16 are read in."""
    traced = trace(Joined(), (torch.zeros(1, 2, 4, 4),))
    marked = annotate(traced, {"c:input": INT8})
    for graph, part, whole in (
        (traced, 256, 512),
        (marked, 256, 128),
        (apply_precision(marked, parse_precision("bf16")), 128, 128),
    ):
        (cat,) = (op for op in graph if isinstance(op, MovementOp))
        assert list(cat.read_bytes.values()) == [part, part]
        assert list(cat.write_bytes.values()) == [whole]


def test_an_update_of_a_narrow_cache_writes_narrow_keys(build_gpt):
    """Two keys and two values of 16 numbers: 64 bytes each in fp32, 16 in int8."""
    model, inputs = build_gpt(width=16, depth=2, context=8, phase="decode")
    marked = annotate(trace(model, inputs), {"kv_cache": INT8})
    updates = [
        op for op in marked if isinstance(op, MovementOp) and marked.tensors[op.outputs[0]].role is Role.KV_CACHE
    ]
    assert [list(op.write_bytes.values()) for op in updates] == [[16]] * 4


class Tied(nn.Module):
    """A head that reads the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.words, self.fc, self.head = nn.Embedding(32, 8), nn.Linear(8, 8), nn.Linear(8, 32, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(torch.relu(self.fc(self.words(x))))


def test_a_weight_that_two_layers_share_is_stored_once_in_its_new_form():
    """32 x 8 weights of the table and 8 x 8 of fc in int4, fc's bias of 8 in fp32."""
    model, inputs = Tied(), (torch.zeros(1, 4, dtype=torch.long),)
    rows, inputs_of_layers = Grid(dtype="int4", granularity="channel"), Grid(dtype="int4")
    made = quantise(model, weights=rows, activations=inputs_of_layers, dynamic=True)
    assert torch.equal(made.module.words.weight, made.module.head.weight)
    assert weight_bytes(made.module, made.annotations) == (32 * 8 + 8 * 8) / 2 + 8 * 4
    graph = trace(made.plain(), inputs)
    marked = annotate(graph, made.annotations)
    assert next(t.bits for t in marked.tensors.values() if t.name == "words.weight") == 4
    assert stored_weight_bytes(graph, made.annotations, "bf16") == (32 * 8 + 8 * 8) / 2 + 8 * 2
    assert as_run(graph, made.annotations, make_array({"int8": 1}))["head:input"].dtype == "int8"


def test_unknown_names_are_refused(graph):
    with pytest.raises(WorkloadError, match=r'"fc1.wieght" is not in the graph. Did you mean "fc1.weight"'):
        annotate(graph, {"fc1.wieght": INT8})


def test_merging_keeps_what_the_later_step_does_not_state():
    both = merge({"w": Annotation(density=0.5, pattern="2:4")}, {"w": INT8})
    assert both["w"] == Annotation(dtype="int8", bits=8.0, density=0.5, pattern="2:4")


def test_metadata_bits_by_hand():
    """2:4: two 2-bit positions per four elements = 1 bit an element; 1:4: 0.5; a bitmap: 1."""
    bits = [Annotation(pattern=p).metadata_bits for p in ("2:4", "1:4", "unstructured", None)]
    assert bits == [1.0, 0.5, 1.0, 0.0]


def make_array(rates, **fields):
    return Array(
        name="array", rows=4, cols=4, dataflow=Dataflow.OUTPUT_STATIONARY, skew=Skew.NONE, folds=Folds.PIPELINED,
        preload=Preload.HIDDEN, macs_per_cycle=rates, **fields,
    )  # fmt: skip


W8A8 = {"fc.weight": INT8, "fc:input": INT8}
W4A4 = {"fc.weight": Annotation(dtype="int4", bits=4.0), "fc:input": Annotation(dtype="int4", bits=4.0)}
W3A8 = {"fc.weight": Annotation(dtype="int3", bits=3.0), "fc:input": INT8}
W4A16 = {"fc.weight": Annotation(dtype="int4", bits=4.5), "fc:input": Annotation(dtype="bf16", bits=16.0)}
FP8 = {"fc.weight": Annotation(dtype="fp8_e4m3", bits=8.0), "fc:input": Annotation(dtype="fp8_e4m3", bits=8.0)}


@pytest.mark.parametrize(
    ("annotations", "rates", "runs", "noted"),
    [
        (W8A8, {"bf16": 1, "int8": 2}, "int8", None),
        (W8A8, {"bf16": 1}, "bf16", "int8 weights run as bf16"),
        (W4A4, {"bf16": 1, "int8": 1}, "int8", "no int4 unit: int4 weights run as int8"),
        (W4A4, {"bf16": 1, "int8": 1, "int4": 2}, "int4", None),
        (W3A8, {"bf16": 1, "int8": 2}, "int8", "no w3a8 unit: int3 weights run as int8"),
        (W4A16, {"bf16": 1, "int8": 2}, "bf16", "no w4a16 unit: int4 weights run as bf16"),
        (W4A16, {"bf16": 1, "w4a16": 1}, "w4a16", None),
        (FP8, {"bf16": 1, "int8": 2}, "bf16", "fp8_e4m3 weights run as bf16"),
        (FP8, {"bf16": 1, "fp8_e4m3": 2}, "fp8_e4m3", None),
    ],
)
def test_what_an_array_lacks_runs_as_something_wider_and_is_said(annotations, rates, runs, noted):
    array = make_array(rates)
    assert compressed_precision(annotations, array, wide_precision(array)) == runs
    notes = support_notes(annotations, array)
    assert (not notes) if noted is None else (noted in notes[0] and "only their traffic shrinks" in notes[0])


def test_an_integer_chip_runs_the_model_before_in_integers_too():
    assert wide_precision(make_array({"int8": 1})) == "int8"
    assert "before is costed in int8 too" in support_notes(W8A8, make_array({"int8": 1}))[0]


def test_patterns_without_a_unit_are_said():
    two_four = {"fc.weight": Annotation(density=0.5, pattern="2:4")}
    zeros = {"fc.weight": Annotation(density=0.3, pattern="unstructured")}
    plain = make_array({"bf16": 1})
    assert "no 2:4 unit" in support_notes(two_four, plain)[0]
    assert "zeros are not skipped" in support_notes(zeros, plain)[0]
    able = make_array({"bf16": 1}, weight_sparsity={"2:4": 2.0}, skips_zeros=True)
    assert support_notes(two_four | zeros, able) == ()


def test_benefit_reads_both_estimates(graph):
    """A stand-in whose latency is the bits of fc1's weight in µs: 32 before, 8 after, so 4x."""

    def estimate(marked, chip, *, precision):
        bits = marked.tensors["w1"].bits
        return SimpleNamespace(
            precision=precision, latency_s=bits * 1e-6, energy_j=None, breakdown_s={Term.COMPUTE: bits * 1e-6},
            traffic_bytes={"DRAM": Traffic(read=bits, write=1.0)},
        )  # fmt: skip

    vector = VectorUnit(name="simd", lanes=1, rates={})
    unit = Unit(
        name="npu", count=1, home="DRAM", hierarchy=(make_array({"int8": 1, "bf16": 1}),), vector=vector, clock_hz=1e9
    )
    chip = Chip(
        name="toy", title="Toy", clock_hz=1e9, default_precision="int8", memories=(), units=(unit,)
    )  # fmt: skip
    (row,) = benefits(graph, graph, {"fc1.weight": INT8, "fc1:input": INT8}, [chip], estimate=estimate)
    assert row.speedup == 4
    assert row.energy_gain is None
    assert (row.before.precision, row.after.precision) == ("bf16", "int8")
    assert (row.before.dram_bytes, row.after.dram_bytes) == (33, 9)
    # Three weights of 64: all bf16 before; one int8 after.
    assert (row.before.weight_bytes, row.after.weight_bytes) == (384, 320)
    assert row.notes == ("100% of the compressed latency is compute",)


def test_sparse_weight_bytes_count_metadata(graph):
    """64 weights in bf16 at 2:4: 64 x (16 / 2 + 1) / 8 = 72; the two others 128 each."""
    notes = {"fc2.weight": Annotation(density=0.5, pattern="2:4")}
    assert stored_weight_bytes(graph, notes, "bf16") == 72 + 256


def test_a_group_has_its_scale_however_few_of_its_weights_are_stored():
    """2:4 and int4 by groups of 8, a 16-bit scale and a 4-bit zero point each: of 64 weights 32 are stored of 4 bits
    and with 2 bits of position, and 8 groups: 32 x (4 + 2) + 8 x (16 + 4) = 352 bits, in module and graph alike."""
    layer = nn.Sequential(nn.Linear(8, 8, bias=False))
    made = weight_only(sparsify_nm(layer), group=8)
    assert weight_bytes(made.module, made.annotations) == 352 / 8
    traced = trace(layer, torch.zeros(4, 8))
    assert stored_weight_bytes(traced, made.annotations, "bf16") == 352 / 8
    weights = [t for t in annotate(traced, made.annotations).tensors.values() if t.role is Role.WEIGHT]
    assert {weight.size_bytes for weight in weights} == {352 / 8}


def test_groups_leave_with_a_later_grid():
    made = quantise(weight_only(nn.Sequential(nn.Linear(8, 8, bias=False)), group=8), weights=Grid(dtype="int8"))
    assert weight_bytes(made.module, made.annotations) == 64
    assert weight_bytes(made.module, sparsify_nm(made).annotations) == 64 / 2 + 64 / 8


@pytest.mark.parametrize(
    ("annotations", "rates", "weight", "inputs"),
    [
        (W4A4, {"bf16": 1, "int8": 1}, ("int4", 4), ("int8", 4)),
        (W4A4, {"bf16": 1, "int4": 4}, ("int4", 4), ("int4", 4)),
        (W8A8, {"bf16": 1}, ("int8", 8), ("bf16", 8)),
        (FP8, {"bf16": 1, "int8": 2}, ("int8", 8), ("bf16", 8)),
        (FP8, {"bf16": 1, "fp8_e4m3": 2}, ("fp8_e4m3", 8), ("fp8_e4m3", 8)),
        (W4A16, {"int8": 1}, ("int4", 4.5), ("int8", 16)),
    ],
)
def test_what_runs_as_something_wider_keeps_its_stored_bits(annotations, rates, weight, inputs):
    stored = (tensor("x", Role.INPUT), tensor("w", Role.WEIGHT, "fc.weight"), tensor("y", Role.OUTPUT))
    graph = Graph(ops=(product("fc", "x", "w", "y"),), tensors={t.id: t for t in stored}, name="toy")
    found = as_run(graph, annotations, make_array(rates))
    assert (found["fc.weight"].dtype, found["fc.weight"].bits) == weight
    assert (found["fc:input"].dtype, found["fc:input"].bits) == inputs


@pytest.mark.parametrize(("chip", "halved"), [("tesla-fsd-npu", False), ("h100-sxm", True)])
def test_a_type_without_a_unit_is_costed_and_saves_what_is_stored(chip, halved):
    """int3, int4 and fp8 on real chips: weights of 64 x 64 move at 3, 4 and 8 bits, whatever they are computed in."""
    from sim.analytical import estimate
    from sim.hardware.load import load_hardware
    from sim.workload.builders import gemm

    graph = gemm(64, 64, 64, dtype="fp32")
    (op,) = graph
    names = {role: op.einsum.operand(role).tensor for role in (OperandRole.WEIGHT, OperandRole.INPUT)}
    weight = graph.tensors[names[OperandRole.WEIGHT]]
    graph = graph.with_(
        ops=(replace(op, module="fc"),), tensors={**graph.tensors, weight.id: replace(weight, name="fc.weight")}
    )
    rows = {
        kind: benefits(graph, graph, notes, [load_hardware(chip)], estimate=estimate)[0]
        for kind, notes in (("int3", W3A8), ("int4", W4A4), ("fp8", FP8))
    }
    assert rows["int3"].after.weight_bytes == 64 * 64 * 3 / 8
    assert rows["int4"].after.weight_bytes == 64 * 64 / 2
    assert rows["fp8"].after.weight_bytes == 64 * 64
    assert rows["int4"].before.dram_bytes - rows["int4"].after.dram_bytes >= 64 * 64 / 2
    assert rows["int3"].before.dram_bytes - rows["int3"].after.dram_bytes >= 64 * 64 * 5 / 8
    assert (rows["fp8"].after.dram_bytes < rows["fp8"].before.dram_bytes) == halved
    assert any("no int4 unit: int4 weights run as int8" in note for note in rows["int4"].notes)
    assert any("no fp8_e4m3 unit" in note for note in rows["fp8"].notes) != halved
