"""`evaluate`: bounds never above the sweep, nothing of the Pareto front lost, reasons counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.codesign.bounds import ChipBounds, lower_bounds
from sim.codesign.checks import physical_metrics
from sim.codesign.choice import ModelChoice, Part, Scenario
from sim.codesign.evaluate import evaluate, one_workload
from sim.codesign.pareto import non_dominated
from sim.hardware.designs import Designs
from sim.hardware.load import load_hardware
from sim.hardware.physical import idle_power_w, mac_energy_j, memory_energy_j_per_byte
from sim.sweeping import sweep
from sim.workload.builders import gemm
from sim.workload.graph import Graph
from sim.workload.load import load_workload
from sim.workload.precision import parse_precision

GRID = {"array.rows": [8, 32], "SRAM.capacity": ["64 KiB", "1 MiB"], "DRAM.bandwidth": ["3 GB/s", "12 GB/s", "48 GB/s"]}


@pytest.fixture(scope="module")
def designs() -> Designs:
    return Designs.grid(load_hardware("edge-npu"), GRID)


@settings(max_examples=6)
@given(
    m=st.integers(1, 96),
    n=st.integers(1, 96),
    k=st.integers(1, 96),
    precision=st.sampled_from(["int8", "int4", "fp16"]),
)
def test_bounds_are_bounds(designs: Designs, m: int, n: int, k: int, precision: str) -> None:
    graph = gemm(m, n, k)
    latency, energy = lower_bounds(graph, designs, parse_precision(precision))
    table = sweep(graph, designs.chip, designs, precisions=[precision])
    assert (latency <= table["latency_s"]).all()
    assert (energy <= table["energy_j"]).all()


def test_compute_bound_by_hand() -> None:
    """256^3 MACs on 32 x 64 cells at 1 GHz are 16,777,216 / 2048 = 8192 cycles; 196,608 bytes take
    15.36 us at 12.8 GB/s: the port is slower."""
    chip = load_hardware("edge-npu")
    latency, _ = lower_bounds(gemm(256, 256, 256, dtype="int8"), Designs(chip), parse_precision("int8"))
    rate = 12.8e9 * chip.memory("DRAM").efficiency
    assert latency[0] == pytest.approx(max(8192e-9, 196608 / rate, 196608 / 12.8e9), rel=0.2)
    assert latency[0] >= 196608 / 12.8e9


def test_the_front_is_that_of_the_full_sweep(designs: Designs) -> None:
    graph = gemm(64, 64, 64)
    table = evaluate(one_workload(graph, "int8"), designs, Scenario(objectives=("latency", "area", "energy")))
    full = sweep(graph, designs.chip, designs, precisions=["int8"])
    values = np.stack([full["latency_s"], full["area_mm2"], full["energy_j"]], axis=1)
    found = np.where(table.accepted[:, None], table.objectives, np.nan)
    assert (non_dominated(values) == non_dominated(found)).all()
    assert (table.objectives[table.costed] == values[table.costed]).all()
    assert sum(table.counts.values()) == len(designs)


def test_what_is_known_prunes_at_the_roofline(designs: Designs) -> None:
    """Against a point better than every bound only one design is costed, so that there is one to show."""
    calls = []

    def counting(*arguments, **options):
        calls.append(len(arguments[2]))
        return sweep(*arguments, **options)

    scenario = Scenario(objectives=("latency", "area"))
    table = evaluate(
        one_workload(gemm(64, 64, 64), "int8"), designs, scenario, against=np.array([[0.0, 0.0]]), sweep=counting
    )
    assert calls == [1]
    assert table.counts == {"beaten even at its roofline": len(designs) - 1, "accepted": 1}


def test_without_a_guide_ever_more_chips_are_costed_at_a_time() -> None:
    """Two objectives that want opposite things: the roofline excludes none of 200 chips; they take 32, 64 and the rest.
    The answer is that of one sweep."""
    calls = []

    def counting(*arguments, **options):
        calls.append(len(arguments[2]))
        return sweep(*arguments, **options)

    rates = [f"{8 + n} GB/s" for n in range(200)]
    many = Designs.grid(load_hardware("systolic"), {"DRAM.bandwidth": rates})
    graph = gemm(1, 512, 512)
    table = evaluate(one_workload(graph, "int8"), many, Scenario(objectives=("latency", "peak_power")), sweep=counting)
    assert calls == [32, 64, 104]
    whole = sweep(graph, many.chip, many, precisions=["int8"])
    assert table.metrics["latency"].tolist() == whole["latency_s"].tolist()


def test_limits_and_their_reasons(designs: Designs) -> None:
    """A deadline between the fastest and slowest design splits them; violation is metric / limit - 1."""
    graph = gemm(64, 64, 64)
    full = sweep(graph, designs.chip, designs, precisions=["int8"])
    limit = float(np.median(full["latency_s"]))
    table = evaluate(one_workload(graph, "int8"), designs, Scenario(objectives=("area",), limits={"latency": limit}))
    late = full["latency_s"] > limit
    assert not table.accepted[late].any()
    costed = table.costed
    assert table.violations["latency"][costed] == pytest.approx(full["latency_s"][costed] / limit - 1)
    assert all(text.startswith("latency") for text in table.reason[late & costed])


def test_several_workloads_by_weight_and_worst_case(designs: Designs) -> None:
    """Weights 1 and 3: a quarter and three quarters of the parts' latencies; worst: the larger."""
    graphs = gemm(32, 32, 32), gemm(64, 64, 64)
    parts = tuple(
        Part(label=f"p{i}", workload="", graph=g, weight=w) for i, (g, w) in enumerate(zip(graphs, (1, 3), strict=True))
    )
    one = Designs(designs.chip)
    alone = [sweep(g, one.chip, one, precisions=["int8"])["latency_s"][0] for g in graphs]
    choice = ModelChoice(parts=parts, precision="int8")
    mean = evaluate(choice, one, Scenario(objectives=("latency",)))
    worst = evaluate(choice, one, Scenario(objectives=("latency",), combine="worst"))
    assert mean.objectives[0, 0] == pytest.approx(0.25 * alone[0] + 0.75 * alone[1])
    assert worst.objectives[0, 0] == max(alone)


@pytest.mark.parametrize(
    ("combine", "values", "reason"),
    [
        ("worst", (4.0, 1e-4, 100.0), "power: 33.3% beyond its limit"),
        ("weighted", (5.5 / 3.25, 3.25e-3 * 5.5e-3, 1000 / 3.25), "accepted"),
    ],
)
def test_several_workloads_by_hand(combine: str, values: tuple[float, ...], reason: str) -> None:
    """1 ms and 4 mJ beside 10 ms and 10 mJ. The worst: 4 W, not 10 mJ / 10 ms; 100 uJ s; 100 a second. A mix of
    three to one: 3.25 ms and 5.5 mJ in the mean, 307.7 a second."""
    sizes = {16: (1e-3, 4e-3), 32: (10e-3, 10e-3)}

    def table(graph: Graph, *_: object, **__: object) -> dict[str, np.ndarray]:
        latency, energy = sizes[next(iter(graph.ops)).einsum.ranks["M"]]
        return {"latency_s": np.array([latency]), "energy_j": np.array([energy]), "infeasible": np.array([False]),
                "reason": np.array([""], dtype=object)}  # fmt: skip

    parts = tuple(Part(label=str(m), workload="", graph=gemm(m, 16, 16), weight={16: 3.0, 32: 1.0}[m]) for m in sizes)
    names = ("power", "edp", "throughput")
    scenario = Scenario(objectives=("latency", *names), combine=combine, limits={"power": 3.0})
    choice, one = ModelChoice(parts=parts, precision="int8"), Designs(load_hardware("edge-npu"))
    found = evaluate(choice, one, scenario, sweep=table)
    assert [float(found.metrics[name][0]) for name in names] == pytest.approx(values)
    assert found.reason[0] == reason


def test_user_constraint_and_estimates_limit(designs: Designs) -> None:
    scenario = Scenario(objectives=("latency",), functions=(("no", lambda row: 1.0),))
    table = evaluate(one_workload(gemm(32, 32, 32), "int8"), designs, scenario, estimates=3)
    assert table.counts == {"no": 3, "not costed, the trial's estimates ran out": len(designs) - 3}
    assert table.worst_violation[table.costed].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "knobs", "precision"),
    [
        ("decoder", {"width": 64, "depth": 1, "heads": 4, "kv_heads": 2, "vocabulary": 100, "context": 64}, "int8"),
        ("mobilenet_v2", {"resolution": 32, "width": 0.35}, "int4"),
        ("mlp", {"batch": 4}, "fp16"),
    ],
)
def test_bounds_of_networks(designs: Designs, name: str, knobs: dict, precision: str) -> None:
    """Masked attention, grouped convolutions, vector work, chips whose vector unit is the bottleneck."""
    graph = load_workload(name, **knobs)
    some = Designs.rows(designs.chip, {"array.rows": [8, 64], "simd.lanes": [64, 2]})
    latency, energy = lower_bounds(graph, some, parse_precision(precision))
    table = sweep(graph, some.chip, some, precisions=[precision])
    assert (latency <= table["latency_s"]).all()
    assert (energy <= table["energy_j"]).all()


@pytest.mark.parametrize(("name", "hardware"), [("mobilenet_v2", "gemmini-16"), ("mlp", "xeon-icx")])
def test_bounds_of_networks_on_bundled_chips(name: str, hardware: str) -> None:
    """What folds into weights is not done; a CPU's caches may hold the weights from the inference before."""
    graph, one = load_workload(name), Designs(load_hardware(hardware))
    precision = one.chip.default_precision
    latency, _ = lower_bounds(graph, one, parse_precision(precision))
    assert (latency <= sweep(graph, one.chip, one, precisions=[precision])["latency_s"]).all()


def test_bounds_of_systems_of_chips() -> None:
    """Each chip reads its share of the weights: a bound of one chip's for all is none for eight. Areas are of all."""
    graph = load_workload("decoder", width=256, depth=2, heads=8, kv_heads=8, vocabulary=1000, context=64)
    grid = {"system.chips": [1, 2, 8], "system.pipeline": [1, 2], "DRAM.bandwidth": ["50 GB/s", "3 TB/s"]}
    rows = [(n, p, b) for n in (1, 2, 8) for p in (1, 2) for b in grid["DRAM.bandwidth"] if n >= p]
    some = Designs.rows(load_hardware("h100-sxm-x8"), dict(zip(grid, zip(*rows, strict=True), strict=True)))
    latency, energy = lower_bounds(graph, some, parse_precision("bf16"))
    table = sweep(graph, some.chip, some, precisions=["bf16"], calibration="none")
    assert (latency <= table["roofline_latency_s"] * (1 + 1e-12)).all()
    assert (latency <= table["latency_s"]).all()
    assert (energy <= table["energy_j"]).all()
    assert physical_metrics(some)["area"].tolist() == table["area_mm2"].tolist()


def test_bounds_of_arrays_with_a_type_that_the_chip_lacks() -> None:
    """At w4a8 an array with that rate runs at it, another at int8; chips that are looked at together or one after
    the other are bounded by their own."""
    chip, graph, shared = load_hardware("tesla-fsd-npu"), load_workload("resnet18"), {}
    for rate in (None, 0.5, 1.0, 16.0):
        some = Designs.grid(chip, {} if rate is None else {"array.macs_per_cycle.w4a8": [rate]})
        latency, _ = lower_bounds(graph, some, parse_precision("w4a8"), ChipBounds(some, shared))
        table = sweep(graph, chip, some, precisions=["w4a8"], calibration="none")
        assert latency == pytest.approx(table["roofline_latency_s"], rel=1e-9)
        both = Designs.grid(chip, {"array.macs_per_cycle": [{"int8": 1.0}, {"int8": 1.0, "w4a8": rate or 1.0}]})
        assert lower_bounds(graph, both, parse_precision("w4a8"))[0][1] == latency[0]


def test_energy_bound_by_hand() -> None:
    """Energy of all MACs, of every byte once, and of idling for the bound's time."""
    chip = load_hardware("edge-npu")
    latency, energy = lower_bounds(gemm(256, 256, 256, dtype="int8"), Designs(chip), parse_precision("int8"))
    read, write = (memory_energy_j_per_byte(chip, "DRAM", way) for way in ("read", "write"))
    expected = 256**3 * mac_energy_j(chip, "array", "int8") + 2 * 256**2 * read + 256**2 * write
    assert energy[0] == pytest.approx(expected + idle_power_w(chip) * latency[0], rel=1e-12)
