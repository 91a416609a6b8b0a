"""Laws of estimates: sums, bounds, ladders, monotony, scaling, order, and what has no rule."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim.cost.ceilings import bandwidths
from sim.cost.compulsory import footprint
from sim.cost.roofline import Roofline
from sim.cost.roofline import roofline as graph_roofline
from sim.errors import UnsupportedOpError
from sim.hardware.chip import Chip
from sim.hardware.physical import memory_energy_j_per_byte
from sim.results import Estimate
from sim.schedule.prepare import prepare
from sim.workload.graph import EinsumOp, Graph, Op, UnsupportedOp
from sim.workload.precision import parse_precision

TOLERANCE = 1e-9
PAIRS = [
    ("digits_cnn", "systolic"),
    ("byte_gpt", "tesla-fsd-npu"),
    ("mobilenet_v2", "systolic"),
    ("mlp", "gemmini-16"),
    ("byte_gpt", "tpu-v1"),
    ("mlp", "h100-sxm"),
]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def found(request: pytest.FixtureRequest) -> tuple[Graph, Chip, Estimate]:
    workload, hardware = request.param
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    return graph, chip, sim.estimate(graph, chip, calibration="none")


Found = tuple[Graph, Chip, Estimate]


def total(values: Iterable[float | None]) -> float:
    return sum(v for v in values if v is not None)


def test_a_networks_roofline_is_its_busiest_resource(found: Found) -> None:
    """The largest over resources of (sum over ops of work / rate), of memories the compulsory bytes: never
    above the sum of the ops' own rooflines."""
    graph, chip, estimate = found
    ready = prepare(graph, parse_precision(estimate.precision))
    bound = graph_roofline(ready, chip)
    assert estimate.roofline_latency_s == max(bound.resource_s.values()) == bound.latency_s
    assert sim.roofline(graph, chip, estimate.precision).to_dict() == estimate.roofline
    is_at_most_the_sum_of_its_ops(bound)


def is_at_most_the_sum_of_its_ops(bound: Roofline) -> None:
    for name, seconds in bound.resource_s.items():
        own = total(point.resource_s.get(name) for point in bound.ops)
        if name.startswith("memory:"):
            assert seconds <= own * (1 + TOLERANCE)
        else:
            assert seconds == pytest.approx(own, rel=TOLERANCE)
    assert bound.latency_s <= total(point.roofline_s for point in bound.ops) * (1 + TOLERANCE)


@pytest.mark.parametrize("hardware", ["xeon-gnr", "xeon-icx", "xeon-emr-2c", "epyc-zen4"])
@pytest.mark.parametrize(("workload", "knobs"), [("llama", {"phase": "decode"}), ("lstm", {}), ("resnet18", {})])
def test_the_roofline_of_a_warm_cpu_is_its_busiest_resource(workload: str, knobs: dict, hardware: str) -> None:
    """Caches that hold a part of the network's bytes hold no op's bytes twice; no op is above the fastest memory's
    roof, nor above the home's with what comes from there."""
    chip = sim.load_hardware(hardware)
    bound = sim.roofline(sim.load_workload(workload, **knobs), chip)
    is_at_most_the_sum_of_its_ops(bound)
    rates = bandwidths(chip, chip.main_unit)
    for point in bound.ops:
        home = point.traffic_bytes.get(bound.home, 0.0)
        near = total(point.traffic_bytes.values()) - home
        assert point.roofline_s >= home / max(rates[bound.home][:2]) * (1 - TOLERANCE)
        assert point.roofline_s >= near / max(max(rates[m.name][:2]) for m in chip.main_unit.memories) * (1 - TOLERANCE)


SLOW = ["systolic", "tesla-fsd-npu", "edge-npu"]


@pytest.mark.parametrize("hardware", SLOW)
@pytest.mark.parametrize(
    ("workload", "knobs"),
    [("digits_cnn", {}), ("byte_gpt", {}), ("mobilenet_v2", {}), ("lstm", {"context": 2})],
)
def test_the_roofline_counts_a_slow_memory_on_chip(workload: str, knobs: dict, hardware: str) -> None:
    """Law 1 where the memory on chip binds: chains of layers and attention that run fused, and single ops."""
    graph, chip = sim.load_workload(workload, **knobs), slow(hardware)
    found = sim.estimate(graph, chip, calibration="none")
    bound = sim.roofline(graph, chip)
    memory = chip.main_unit.memories[0].name
    assert bound.bound == f"memory:{memory}"
    assert found.roofline_latency_s == bound.latency_s <= found.latency_s
    assert bound.latency_s <= sim.simulate(graph, chip, calibration="none").latency_s * (1 + TOLERANCE)
    is_at_most_the_sum_of_its_ops(bound)
    rows = sim.sweep(graph, chip, {"clock": [f"{chip.clock_hz!r} Hz"]}, calibration="none")
    assert rows["roofline_latency_s"][0] == bound.latency_s


def slow(hardware: str) -> Chip:
    """With 2 bytes a cycle out of and into the memory on chip."""
    memory = sim.load_hardware(hardware).main_unit.memories[0]
    ways = ["bandwidth"] if memory.shared_port else ["read_bandwidth", "write_bandwidth"]
    return sim.load_hardware(hardware, {f"{memory.name}.{way}": "2 B/cycle" for way in ways})


def test_terms_sum_to_ops_and_ops_to_the_network(found: Found) -> None:
    _, _, estimate = found
    for op in estimate.ops:
        assert sum(op.breakdown_s.values()) == pytest.approx(op.latency_s, rel=TOLERANCE)
        assert all(seconds >= -TOLERANCE * op.latency_s for seconds in op.breakdown_s.values()), op.name
    assert sum(estimate.breakdown_s.values()) == pytest.approx(estimate.latency_s, rel=TOLERANCE)
    assert total(op.latency_s for op in estimate.ops) == pytest.approx(estimate.latency_s, rel=TOLERANCE)
    for count in ("macs", "vector_ops"):
        assert total(getattr(op, count) for op in estimate.ops) == getattr(estimate, count)
    for memory, traffic in estimate.traffic_bytes.items():
        tables = [op.traffic_bytes.get(memory, {}).values() for op in estimate.ops]
        assert total(t.read for table in tables for t in table) == pytest.approx(traffic.read, rel=TOLERANCE)
        assert total(t.write for table in tables for t in table) == pytest.approx(traffic.write, rel=TOLERANCE)
    if estimate.energy_j is not None:
        parts = estimate.energy_breakdown_j
        assert sum(parts.values()) == pytest.approx(estimate.energy_j, rel=TOLERANCE)
        assert total(op.energy_j for op in estimate.ops) == pytest.approx(estimate.energy_j, rel=TOLERANCE)
        assert estimate.power_w == pytest.approx(estimate.energy_j / estimate.latency_s, rel=TOLERANCE)


@pytest.mark.parametrize("name", ["systolic", "tesla-fsd", "tpu-v1", "eyeriss", "h100-sxm-x8"])
def test_energy_of_a_memory_is_its_traffic_times_its_energy_per_byte(name: str) -> None:
    """Inputs that arrive from a host and what collectives send and receive included."""
    graph, chip = sim.load_workload("mlp"), sim.load_hardware(name)
    found = sim.estimate(graph, chip, calibration="none")
    home, sharing = chip.main_unit.home, chip.system.tensor_parallel if chip.system else 1
    read, write = (memory_energy_j_per_byte(chip, home, way) for way in ("read", "write"))
    moved = found.traffic_bytes[home]
    by_hand = sharing * (moved.read * read + moved.write * write)
    assert found.energy_breakdown_j[home] == pytest.approx(by_hand, rel=TOLERANCE)


def test_traffic_at_home_is_at_least_compulsory(found: Found) -> None:
    """Of every einsum, each operand that lies at home crosses its port at least once, at stored bits;
    and so does the network as a whole."""
    graph, chip, estimate = found
    precision = parse_precision(estimate.precision)
    ready = prepare(graph, precision)
    ops = {op.name: op for op in ready.ops}
    home = chip.main_unit.home
    at_home = footprint(ready, chip, chip.main_unit, precision, dict.fromkeys(ready.tensors, home))
    for shown in estimate.ops:
        if shown.name not in ops:  # the inputs on their way from the host
            assert shown.name == "host.input"
            continue
        op = ops[shown.name]
        if not isinstance(op, EinsumOp) or "all" in shown.traffic_bytes.get(home, {}):
            continue
        rows = zip((*op.inputs, *op.outputs), at_home.touched[op.name], strict=False)
        least = {storage: (read, write) for _, (storage, read, write) in rows}
        for operand in op.einsum.operands:
            storage = ready.tensors[operand.tensor].storage or operand.tensor
            if shown.homes[operand.tensor] != home or storage not in least:
                continue
            moved = shown.traffic_bytes[home][operand.role.value]
            read, write = least[storage]
            assert moved.read >= read * (1 - TOLERANCE), (op.name, operand.role)
            assert moved.write >= write * (1 - TOLERANCE), (op.name, operand.role)
    read, write = footprint(ready, chip, chip.main_unit, precision, {}).compulsory_bytes()
    moved = estimate.traffic_bytes[home]
    assert moved.read + moved.write >= (read + write) * (1 - TOLERANCE)


def test_utilisation_and_ladder(found: Found) -> None:
    """Utilisation is in (0, 1], null for vector work; ideal <= spatially mapped <= compute <= total."""
    _, _, estimate = found
    for op in estimate.ops:
        if op.macs:
            assert op.mac_utilization is not None
            assert 0 < op.mac_utilization <= 1 + TOLERANCE
        else:
            assert op.mac_utilization is None
            assert op.cycles_ladder is None
        if op.cycles_ladder is not None:
            steps = [op.cycles_ladder[k] for k in ("ideal", "spatially_mapped", "compute", "total")]
            assert all(a <= b * (1 + TOLERANCE) for a, b in pairwise(steps)), op.name
    assert estimate.mac_utilization is None or 0 < estimate.mac_utilization <= 1


sizes = st.integers(1, 300)
gemms = st.builds(sim.gemm, sizes, sizes, sizes)
convs = st.builds(
    sim.conv2d,
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(5, 30),
    st.sampled_from([1, 3, 5]),
    stride=st.sampled_from([1, 2]),
    padding=st.sampled_from([0, 1]),
)
layers = st.one_of(gemms, convs)
resources = st.sampled_from(
    [
        ("DRAM.bandwidth", ["8 GB/s", "20 GB/s", "34 GB/s", "35 GB/s", "100 GB/s", "900 GB/s"]),
        ("SRAM.bandwidth", ["16 B/cycle", "24 B/cycle", "64 B/cycle", "256 B/cycle", "1000 B/cycle"]),
        ("SRAM.capacity", ["16 KiB", "20 KiB", "33 KiB", "100 KiB", "1 MiB", "64 MiB"]),
    ]
)
arrays = st.sampled_from([{}, {"array.rows": 16, "array.cols": 8}, {"array.dataflow": "output_stationary"}])


@settings(max_examples=10)
@given(layers, resources, arrays)
def test_more_of_a_memory_never_slows_a_layer(graph: Graph, resource: tuple[str, list[str]], array: dict) -> None:
    path, values = resource
    small = {"SRAM.capacity": "24 KiB", **array}
    times = [
        sim.estimate(graph, sim.load_hardware("systolic", {**small, path: value}), calibration="none").latency_s
        for value in values
    ]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(times)), (path, times)


FACTOR = st.sampled_from([0.25, 0.5, 2.0, 1.7])


@settings(max_examples=5)
@given(st.one_of(layers, st.sampled_from(["digits_cnn", "byte_gpt"])), FACTOR)
def test_all_rates_times_a_is_time_over_a(workload: Graph | str, a: float) -> None:
    """Clock, bandwidth per second and every duration of `systolic`."""
    graph = sim.load_workload(workload) if isinstance(workload, str) else workload
    faster = {
        "clock": f"{a!r} GHz",
        "DRAM.bandwidth": f"{34 * a!r} GB/s",
        "DRAM.latency": f"{100 / a!r} ns",
        "npu.launch": f"{1 / a!r} us",
        "npu.dma_setup": f"{100 / a!r} ns",
    }
    slow, fast = (sim.estimate(graph, sim.load_hardware("systolic", change)) for change in ({}, faster))
    assert fast.latency_s * a == pytest.approx(slow.latency_s, rel=1e-9)
    assert fast.roofline_latency_s * a == pytest.approx(slow.roofline_latency_s, rel=1e-9)


def another_order(graph: Graph, seed: int) -> Graph:
    """The same DAG in a random topological order; ops that touch a storage that is written stay in turn."""
    draw = random.Random(seed)
    needs: list[set[int]] = []
    last_write: dict[str, int] = {}
    readers: dict[str, set[int]] = {}

    def places(keys: Iterable[str]) -> set[str]:
        return {graph.tensors[key].storage or key for key in keys}

    for i, op in enumerate(graph.ops):
        needs.append({graph.producer[key] for key in op.inputs if key in graph.producer})
        for place in places((*op.inputs, *op.outputs)) & set(last_write):
            needs[i].add(last_write[place])
        for place in places(op.outputs):
            needs[i] |= readers.pop(place, set())
            last_write[place] = i
        for place in places(op.inputs):
            readers.setdefault(place, set()).add(i)
        needs[i].discard(i)
    order: list[Op] = []
    done: set[int] = set()
    while len(done) < len(graph.ops):
        ready = [i for i in range(len(graph.ops)) if i not in done and needs[i] <= done]
        chosen = draw.choice(ready)
        done.add(chosen)
        order.append(graph.ops[chosen])
    return graph.with_(ops=tuple(order))


@pytest.mark.parametrize(
    ("workload", "hardware"),
    [("digits_cnn", "systolic"), ("byte_gpt", "tesla-fsd-npu"), ("mobilenet_v2", "systolic"), ("resnet18", "edge-npu")],
)
def test_another_topological_order_changes_nothing(workload: str, hardware: str) -> None:
    graph, chip = sim.load_workload(workload), sim.load_hardware(hardware)
    base = sim.estimate(graph, chip)
    for seed in range(2):
        again = sim.estimate(another_order(graph, seed), chip)
        assert again.latency_s == pytest.approx(base.latency_s, rel=1e-12)
        assert again.roofline_latency_s == pytest.approx(base.roofline_latency_s, rel=1e-12)
        assert again.traffic_bytes == base.traffic_bytes


def with_an_unknown_op(graph: Graph) -> Graph:
    old = next(op for op in graph.ops if not isinstance(op, EinsumOp))
    new = UnsupportedOp(
        name=old.name, kind="aten.fft_fft", inputs=old.inputs, outputs=old.outputs, module=old.module, source="m.py:7"
    )
    return graph.with_(ops=tuple(new if op is old else op for op in graph.ops))


def test_no_op_is_silently_free() -> None:
    graph, chip = with_an_unknown_op(sim.load_workload("digits_cnn")), sim.load_hardware("systolic")
    with pytest.raises(UnsupportedOpError, match=r"aten\.fft_fft.*m\.py:7.*--allow-unsupported"):
        sim.estimate(graph, chip)
    with pytest.raises(UnsupportedOpError, match=r"aten\.fft_fft"):
        sim.simulate(graph, chip)
    found = sim.estimate(graph, chip, allow_unsupported=True)
    assert found.unsupported == ("aten.fft_fft at m.py:7",)
    costed = next(op for op in found.ops if op.kind == "aten.fft_fft")
    assert costed.latency_s > chip.main_unit.launch_s
    assert sum(t.read + t.write for table in costed.traffic_bytes.values() for t in table.values()) > 0


@pytest.mark.parametrize("seconds", [1e-3, 1e-9])
def test_an_override_shows_and_ops_still_sum(seconds: float) -> None:
    """Known to take longer than ours (the rest waits for something unknown) or less (hidden terms shrink)."""
    graph, chip = sim.load_workload("digits_cnn"), sim.load_hardware("tesla-fsd-npu")
    name = sim.estimate(graph, chip).ops[2].name
    found = sim.estimate(graph, chip, overrides={name: seconds})
    assert f"{name} takes {'1 ms' if seconds == 1e-3 else '1 ns'} by --override, not by the model" in found.notes
    op = next(op for op in found.ops if op.name == name)
    assert op.latency_s == seconds
    assert sum(op.breakdown_s.values()) == pytest.approx(seconds, rel=TOLERANCE)
    assert sum(o.latency_s for o in found.ops) == pytest.approx(found.latency_s, rel=TOLERANCE)
    assert any(name in note for note in found.notes)


@pytest.mark.parametrize(("chip", "precision"), [("h200-torch", "bf16"), ("h200", "bf16"), ("xeon-emr-2c", "fp32")])
def test_a_given_time_moves_the_interval_and_does_not_spread_it(chip: str, precision: str) -> None:
    """However long the given op takes, the interval is as wide as what the other ops make it."""
    graph, hardware = sim.load_workload("digits_cnn"), sim.load_hardware(chip)
    plain = sim.estimate(graph, hardware, precision=precision, what_if=False)
    heaviest = max(plain.ops, key=lambda op: op.latency_s)
    widths = []
    for times in (1, 100):
        given = {heaviest.name: times * heaviest.latency_s}
        found = sim.estimate(graph, hardware, precision=precision, what_if=False, overrides=given)
        assert found.latency_interval_s is not None
        low, high = found.latency_interval_s
        assert low - given[heaviest.name] > 0
        assert low < found.latency_s < high
        widths.append(high - low)
    assert plain.latency_interval_s is not None
    assert widths[0] == pytest.approx(widths[1], rel=1e-6)
    assert widths[0] < plain.latency_interval_s[1] - plain.latency_interval_s[0]


@pytest.mark.parametrize(("chip", "precision"), [("epyc-zen4", None), ("systolic", "fp32"), ("xeon-emr-2c", "fp32")])
def test_roofline_of_a_graph_that_is_narrower_than_the_precision(chip: str, precision: str | None) -> None:
    """Law 1 where a quantised graph keeps its types: both run at the rate of what is stored."""
    found = sim.estimate(sim.gemm(2048, 2048, 2048), sim.load_hardware(chip), precision=precision, calibration="none")
    assert found.roofline_latency_s <= found.latency_s
    assert not found.below_datasheet_roofline


def test_what_does_not_run_takes_no_energy() -> None:
    """64 bytes hold no tile of the first layer; the others' energies are no network's."""
    graph, chip = sim.load_workload("resnet18"), sim.load_hardware("tesla-fsd-npu", {"SRAM.capacity": "64 B"})
    found = sim.estimate(graph, chip)
    assert found.infeasible is not None
    assert (found.energy_j, found.power_w, found.energy_breakdown_j) == (None, None, {})
    assert {op.energy_j for op in found.ops} == {None}
    table = sim.sweep(graph, chip, {"clock": [f"{chip.clock_hz:g} Hz"]})
    assert np.isnan([table[name][0] for name in ("latency_s", "energy_j", "power_w")]).all()
    assert table["reason"][0] == found.infeasible["reason"]


@pytest.mark.parametrize("hw", ["systolic", "h100-sxm", "epyc-zen4"])
def test_a_given_latency_moves_the_cycles_and_the_utilisation_of_its_op(hw: str) -> None:
    """Ten times the latency is a tenth of the multipliers at work; the model's ladder says nothing of it."""
    graph, chip = sim.gemm(64, 64, 64), sim.load_hardware(hw)
    own = sim.estimate(graph, chip, inputs="resident").latency_s
    one, ten = (sim.estimate(graph, chip, inputs="resident", overrides={"gemm": n * own}).ops[0] for n in (1, 10))
    assert ten.cycles == pytest.approx(10 * one.cycles)
    assert ten.mac_utilization == pytest.approx(one.mac_utilization / 10)  # type: ignore[operator]
    assert ten.cycles == pytest.approx(ten.latency_s * chip.main_unit.clock_hz)
    assert ten.cycles_ladder is None


def test_grouped_heads_are_no_filter_rows_of_a_row_stationary_array() -> None:
    """Four heads that share a key lie on one axis with it, as window and result do; the array stacks windows alone, and
    every product takes cycles."""
    graph = sim.load_workload("llama", layers=1, phase="decode", context=64)
    found = sim.estimate(graph, sim.load_hardware("eyeriss"))
    products = [op for op in found.ops if op.kind in ("attention.scores", "attention.context")]
    assert len(products) == 2
    for op in products:
        assert op.cycles_ladder is not None
        assert 0 < op.cycles_ladder["ideal"] <= op.cycles_ladder["spatially_mapped"] <= op.cycles_ladder["compute"]
