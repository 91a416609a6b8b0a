"""Several chips: what collectives cost and what they hide behind; laws over both readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from chains import products
from systems import Mlp
from torch import nn

import sim
from sim.errors import ConfigError
from sim.hardware.chip import Chip
from sim.hardware.physical import chip_area_mm2, link_energy_j_per_byte, memory_energy_j_per_byte
from sim.results import Term
from sim.schedule.network import Options, cost_network
from sim.workload.graph import EinsumOp, Graph
from sim.workload.precision import parse_precision

FILE = """
schema: dovetail.chip/1
extends: tesla-fsd-npu
name: fsd-system
title: NPUs on a made-up link
links:
  - {{name: wire, ends: [chip, DRAM], bandwidth: {bandwidth}, {latency} source: "estimated: a test"}}
system: {{chips: {chips}, topology: {topology}, link: {link}, source: "estimated: a test"}}
"""


def system_file(folder: Path, **changes: object) -> Path:
    values = {"bandwidth": "4 GB/s", "latency": "latency: 1 us,", "chips": 2, "topology": "ring", "link": "wire"}
    path = folder / "system.yaml"
    path.write_text(FILE.format(**{**values, **changes}))
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Chip:
    return sim.load_hardware(system_file(tmp_path))


class Branches(nn.Module):
    """Two independent MLPs whose results are added at the end: the first all-reduce has the second to hide behind."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Mlp(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) * self.b(x)


@pytest.fixture(scope="module")
def branches() -> Graph:
    return sim.trace(Branches(), (torch.zeros(32, 64),))


@pytest.fixture(scope="module")
def mlp() -> Graph:
    return sim.trace(Mlp(), (torch.zeros(32, 64),))


@pytest.mark.parametrize(("workload", "stages"), [("digits_cnn", 2), ("digits_cnn", 4), ("mlp", 3), ("resnet18", 4)])
def test_no_cut_parts_an_epilogue_from_its_product(pair: Chip, workload: str, stages: int) -> None:
    """On stages run the groups of one chip, and the sends."""
    chip = pair.set("system.chips", stages).set("system.pipeline", stages)
    one, cut = (sim.estimate(workload, on) for on in (pair.set("system.chips", 1), chip))
    assert [op.name for op in cut.ops if op.kind != "collective.send"] == [op.name for op in one.ops]


@pytest.mark.parametrize("topology", ["ring", "switch"])
@pytest.mark.parametrize("stages", [1, 2])
def test_both_readings_agree_and_stay_above_the_roofline(
    tmp_path: Path, mlp: Graph, branches: Graph, topology: str, stages: int
) -> None:
    chip = sim.load_hardware(system_file(tmp_path, topology=topology, chips=4)).set("system.pipeline", stages)
    for graph in (branches, mlp):
        found, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
        assert found.roofline_latency_s <= found.latency_s
        assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
        assert sum(found.breakdown_s.values()) == pytest.approx(found.latency_s)
        assert sum(op.latency_s for op in found.ops) == pytest.approx(found.latency_s)
        assert sum(op.macs for op in found.ops) == found.macs == graph.macs
        assert sum(op.energy_j for op in found.ops) == pytest.approx(found.energy_j, rel=1e-9)
        bounds = [op.bound for op in found.ops if op.kind.startswith("collective")]
        assert set(bounds) == {"link:wire"}
        assert found.breakdown_s[Term.COMMUNICATION] > 0


def test_communication_hides_behind_what_does_not_need_it(pair: Chip, branches: Graph) -> None:
    """The second branch computes while the first one's sum travels: less is exposed than both take on the link."""
    slow = pair.set("wire.latency", "20 us")
    found = sim.estimate(branches, slow)
    gathered = [op for op in found.ops if op.kind == "collective.all_reduce"]
    alone = 2 * (20e-6 + 32 * 64 * 2 / 2 / 4e9)  # two steps of a ring of two, 16-bit partial sums
    assert len(gathered) == 2
    exposed = [op.breakdown_s[Term.COMMUNICATION] for op in gathered]
    assert exposed[0] < alone
    assert exposed[1] <= alone
    assert sum(exposed) >= 2 * alone - sum(op.latency_s for op in found.ops if op not in gathered)
    assert sim.simulate(branches, slow).latency_s == pytest.approx(found.latency_s, rel=0.02)


class Late(nn.Module):
    """A sum over chips under way that nothing needs before the end, while others are needed at once."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.a, self.b = Mlp(), Mlp()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        early = self.early(x)
        return early * self.b(self.a(y)).sum()


@pytest.mark.parametrize("latency", ["1 us", "200 us"])
def test_one_collective_at_a_time_holds_the_link(pair: Chip, latency: str) -> None:
    """The second waits for the first, also in the simulation, where the unit waits for the second alone: three of two
    steps each take six latencies at least."""
    graph = sim.trace(Late(), (torch.zeros(2048, 64), torch.zeros(4, 64)))
    slow = pair.set("wire.latency", latency)
    found, run = sim.estimate(graph, slow), sim.simulate(graph, slow)
    sums = [op for op in found.ops if op.kind == "collective.all_reduce"]
    assert len(sums) == 3
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)
    wires = 3 * 2 * slow.system_link.latency_s + 2 * (2048 + 4 + 4) * 64 * 2 / 2 / 4e9
    assert min(found.latency_s, run.latency_s) >= wires


@pytest.mark.parametrize("stages", [1, 2])
def test_a_collective_reads_and_writes_where_its_tensors_lie(pair: Chip, mlp: Graph, stages: int) -> None:
    """What stays on chip is sent from there and received there: home moves weights, input and output alone."""
    found = sim.estimate(mlp, pair.set("system.pipeline", stages))
    (op,) = [op for op in found.ops if op.kind.startswith("collective")]
    assert set(op.homes.values()) == {"SRAM"}
    moved = {memory: (t["communication"].read, t["communication"].write) for memory, t in op.traffic_bytes.items()}
    sent = 2 * 1 / 2 * 32 * 64 * 2 if stages == 1 else 32 * 256
    assert moved == {"DRAM": (0, 0), "SRAM": (sent, sent)}
    per_byte = [memory_energy_j_per_byte(pair, "SRAM", way) for way in ("read", "write")]
    whole = (sum(per_byte) + link_energy_j_per_byte(pair, "wire")) * sent * (2 if stages == 1 else 1)
    leaks = found.energy_breakdown_j["leakage"] * op.latency_s / found.latency_s
    assert op.energy_j == pytest.approx(whole + leaks)
    small = sim.estimate(mlp, pair.set("system.pipeline", stages).set("SRAM.capacity", "4 KiB"))
    (op,) = [op for op in small.ops if op.kind.startswith("collective")]
    assert "DRAM" in op.homes.values()
    parts = [table["communication"] for table in op.traffic_bytes.values()]
    assert (sum(part.read for part in parts), sum(part.write for part in parts)) == (sent, sent)
    at_home = op.traffic_bytes["DRAM"]["communication"]
    assert at_home.read + at_home.write == sent * list(op.homes.values()).count("DRAM")


def test_a_home_memory_slower_than_the_link_holds_a_collective_up(pair: Chip, mlp: Graph) -> None:
    """2 chips send 1/2 + 1/2 of 32 x 64 sums of 16 bit, 4,096 B: read and written through one port of 1 GB/s at 0.85 of
    it, 9.64 us, where the wire takes 2 us + 4,096 / 400e9 = 2.01 us."""
    chip = pair.set("wire.bandwidth", "400 GB/s").set("DRAM.bandwidth", "1 GB/s").set("SRAM.residency", False)
    found, run = sim.estimate(mlp, chip), sim.simulate(mlp, chip)
    (op,) = [op for op in found.ops if op.kind == "collective.all_reduce"]
    assert op.breakdown_s["communication"] == pytest.approx(2 * 4096 / 0.85e9)
    assert run.latency_s == pytest.approx(found.latency_s, rel=0.02)


def test_memory_and_work_are_shared(tmp_path: Path) -> None:
    """One chip of four holds a quarter of the products' weights; embeddings, norms and the small head are whole."""
    small = sim.load_workload("byte_gpt", depth=4, heads=4, kv_heads=4, width=64)
    one = sim.load_hardware("tesla-fsd-npu")
    four = sim.load_hardware(system_file(tmp_path, chips=4))
    alone, shared = sim.estimate(small, one), sim.estimate(small, four)
    split = [op for op in small.ops if op.kind in ("aten.mm", "aten.addmm") and op.module != "head"]
    learned = sum(op.einsum.ranks["N"] * op.einsum.ranks["K"] for op in split)
    saved = alone.peak_memory_bytes["DRAM"] - shared.peak_memory_bytes["DRAM"]
    assert saved == pytest.approx(0.75 * learned, rel=0.02)
    head = next(op.einsum.macs for op in small.ops if op.module == "head" and isinstance(op, EinsumOp))
    assert shared.macs == alone.macs + 3 * head  # what nothing splits is done four times
    assert shared.area_mm2 == pytest.approx(4 * chip_area_mm2(four))
    staged = sim.estimate(small, four.set("system.pipeline", 4))
    assert staged.peak_memory_bytes["DRAM"] < 0.6 * alone.peak_memory_bytes["DRAM"]


class Attending(nn.Module):
    """Two attention layers of four heads, 197 tokens each."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(256, 768) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.project:
            q, k, v = (part.view(1, 197, 4, 64).transpose(1, 2) for part in layer(x).chunk(3, -1))
            x = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, 197, 256)
        return x


def test_stages_fuse_what_one_chip_fuses(pair: Chip) -> None:
    """Over a link that is as good as free, two stages take what one chip takes, the launch of the send, and what less
    of the weights behind it is loaded ahead."""
    graph = sim.trace(Attending(), (torch.zeros(1, 197, 256),))
    alone = sim.estimate(graph, "tesla-fsd-npu")
    free = pair.set("system.pipeline", 2).set("wire.bandwidth", "1e6 GB/s").set("wire.latency", "0 s")
    staged, split = sim.estimate(graph, free), sim.estimate(graph, pair)
    for found in (alone, staged, split):
        assert sum(bool(op.fused) for op in found.ops) == 2
    (send,) = [op for op in staged.ops if op.kind == "collective.send"]
    assert 0 <= staged.latency_s - (alone.latency_s + send.latency_s) < 0.01 * alone.latency_s
    assert send.latency_s == pytest.approx(free.main_unit.launch_s, rel=1e-3)
    for chip, found in ((free, staged), (pair, split)):
        assert sim.simulate(graph, chip).latency_s == pytest.approx(found.latency_s, rel=1e-6)


def test_nothing_runs_as_one_around_a_collective(pair: Chip) -> None:
    """Rows of two layers run as one on a chip alone, and not where the send to the second one's chip is between."""
    layers = nn.Sequential(nn.Linear(64, 1024), nn.Linear(1024, 64))
    graph, chip = sim.trace(layers, (torch.zeros(65536, 64),)), pair.set("system.pipeline", 2)
    alone, found = sim.estimate(graph, "tesla-fsd-npu"), sim.estimate(graph, chip)
    assert [len(op.fused) for op in alone.ops] == [1]
    assert [op.kind for op in found.ops] == ["aten.addmm", "collective.send", "aten.addmm"]
    assert sim.simulate(graph, chip).latency_s == pytest.approx(found.latency_s, rel=1e-6)


def test_no_chip_holds_what_it_sends_and_what_the_next_one_receives(pair: Chip) -> None:
    """Two layers of 1,024 columns on two chips, nothing kept on chip: the first holds its weights, 4 MiB that come in
    and 4 MiB that it sends; their copy lies on the second chip, beside far less."""
    layers = nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.Linear(1024, 16, bias=False))
    graph = sim.trace(layers, (torch.zeros(4096, 1024),))
    chip = pair.set("system.pipeline", 2).set("SRAM.capacity", "512 KiB")
    assert sim.estimate(graph, chip).peak_memory_bytes["DRAM"] == 1024 * 1024 + 2 * 4096 * 1024


def test_a_faster_link_is_never_slower_and_rows_equal_estimates(pair: Chip, branches: Graph) -> None:
    grid = {"wire.bandwidth": ["1 GB/s", "4 GB/s", "16 GB/s"], "system.chips": [1, 2, 4]}
    table = sim.sweep(branches, pair, grid)
    assert (np.diff(table["latency_s"].reshape(3, 3), axis=0) <= 0).all()
    for row in table.rows():
        chip = pair.set("wire.bandwidth", row["wire.bandwidth"]).set("system.chips", row["system.chips"])
        found = sim.estimate(branches, chip)
        for name in ("latency_s", "energy_j", "area_mm2", "roofline_latency_s", "mac_utilization", "macs"):
            assert row[name] == getattr(found, name), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"link": "wires"}, 'system.link: "wires" is no link: expected one of wire. Did you mean "wire"?'),
        ({"latency": ""}, "links[0].latency: missing: the link of a system needs the latency of one hop"),
        ({"bandwidth": "4 B/cycle"}, "links[0].bandwidth: expected a rate per second"),
        ({"topology": "mesh"}, "system.topology"),
        ({"chips": 0}, "system.chips"),
    ],
)
def test_bad_systems(tmp_path: Path, changes: dict, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sim.load_hardware(system_file(tmp_path, **changes))
    assert words in str(caught.value)


def test_counts_that_do_not_fit(pair: Chip) -> None:
    with pytest.raises(ConfigError, match="2 chips do not divide into 3 pipeline stages: expected one of 1, 2"):
        pair.set("system.pipeline", 3)
    with pytest.raises(ConfigError, match="16 chips do not fit a switch of 8 ports"):
        sim.load_hardware("h100-sxm-x8").set("system.chips", 16)


def test_a_row_of_a_sweep_waits_for_its_own_collectives(tmp_path: Path) -> None:
    """Where designs keep different tensors, each runs its own groups: a collective of the others takes no time of it,
    and what follows one is what that design runs next."""
    file = system_file(tmp_path)
    file.write_text(file.read_text().replace("tesla-fsd-npu", "edge-npu"))
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    graph = sim.trace(nn.TransformerEncoder(layer, 2).eval(), (torch.zeros(1, 64, 64),))
    chip, sizes = sim.load_hardware(file), ["48 KiB", "128 KiB"]
    rows = sim.sweep(graph, chip, {"SRAM.capacity": sizes})["latency_s"]
    assert rows.tolist() == [sim.estimate(graph, chip.set("SRAM.capacity", size)).latency_s for size in sizes]


def ordinary() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


class Apart(nn.Module):
    """Independent MLPs, each without its residual, whose results leave as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = ordinary(), ordinary()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), self.b(x)


class TwoExperts(nn.Module):
    """Two experts: what is sent on reads a sum that is under way while the tokens of the other are gathered."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.router = ordinary(), ordinary(), nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen, out = self.router(x).argmax(-1), torch.zeros_like(x)
        for number, expert in enumerate((self.a, self.b)):
            token = torch.where(chosen == number)[0]
            out.index_add_(0, token, expert(x[token]))
        return out


def test_a_collective_that_nothing_reads_hides_behind_what_follows(pair: Chip) -> None:
    """Of two all-reduces of 32 x 64 partial sums, two bytes each, the first hides behind the other branch but for its
    launch of 1 us; the last shows: 1 us, two hops of 1 us and 4096 bytes at 4 GB/s."""
    graph = sim.trace(Apart(), (torch.zeros(32, 64),))
    found = sim.estimate(graph, pair)
    sums, travel_s = [op for op in found.ops if op.kind == "collective.all_reduce"], 2e-6 + 4096 / 4e9
    assert [op.latency_s for op in sums] == pytest.approx([1e-6, 1e-6 + travel_s])
    assert [op.breakdown_s[Term.COMMUNICATION] for op in sums] == [0.0, pytest.approx(travel_s)]
    assert sim.simulate(graph, pair).latency_s == pytest.approx(found.latency_s, rel=1e-6)


def test_a_collective_that_reads_another_is_launched_at_once(tmp_path: Path) -> None:
    """It has the other's result when the link is free for it; both readings launch it meanwhile."""
    chip = sim.load_hardware(system_file(tmp_path, chips=4)).set("system.pipeline", 2)
    graph = sim.trace(TwoExperts(), (torch.zeros(32, 64),))
    found = sim.estimate(graph, chip)
    assert sim.simulate(graph, chip).latency_s == pytest.approx(found.latency_s, rel=1e-6)


def test_weights_of_a_stage_come_during_the_send_alone_that_its_chip_waits_for(pair: Chip, branches: Graph) -> None:
    """The second branch reads the input: its chip does not wait for what the first one sends, and no group ran on it
    behind which its weights came. They were hidden behind a group of another chip, and the simulation took 1 % more."""
    chip = pair.set_all({"system.chips": 4, "system.pipeline": 4, "wire.bandwidth": "40 GB/s"})
    network = cost_network(branches, [chip], parse_precision("int8"), Options())
    hidden = {group.name: float(saved[0]) for group, saved in zip(network.groups, network.hidden_s, strict=True)}
    assert hidden["b.up.addmm"] == 0 < hidden["a.down.addmm"]
    assert sim.simulate(branches, chip).latency_s == pytest.approx(float(network.latency_s[0]), rel=1e-6)


def test_weights_of_a_stage_have_the_room_of_its_own_chip(tmp_path: Path) -> None:
    """`layer0` fills the 96 KiB of its chip, which leaves nothing beside it; the 16 KiB of the next weights come on the
    other chip, all of them, during a send of 64 KiB at 4 GB/s. None did."""
    file = system_file(tmp_path)
    file.write_text(file.read_text().replace("tesla-fsd-npu", "systolic"))
    chip = sim.load_hardware(file, {"system.pipeline": 2, "SRAM.capacity": "96 KiB"})
    graph = products(256, (256, 256, 256), relu=False)
    network = cost_network(graph, [chip], parse_precision("int8"), Options(calibration="none"))
    before, _, last = network.groups
    assert before.held_bytes[0] + before.footprint_bytes[0] == 96 << 10
    assert last.first_weight_bytes[0] == 16 << 10
    assert network.hidden_s[2][0] == last.prefetch_s[0] > 0
    assert sim.simulate(graph, chip, calibration="none").latency_s == pytest.approx(
        float(network.latency_s[0]), rel=1e-6
    )


def test_what_a_collective_works_on_is_held_meanwhile(tmp_path: Path) -> None:
    """64 x 128 partial sums of 16 bits are added up where they lie on chip: 16 KiB during the first all-reduce, more
    than any product of an eighth of 128 channels holds. Nothing was said to lie there meanwhile: a peak of 11 KiB."""
    file = system_file(tmp_path, chips=8)
    file.write_text(file.read_text().replace("tesla-fsd-npu", "systolic"))
    chip = sim.load_hardware(file, {"SRAM.capacity": "100 KiB"})
    layers = [nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128)] * 2
    graph = sim.trace(nn.Sequential(*layers), (torch.zeros(64, 128),))
    found, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
    first = next(op for op in found.ops if op.kind == "collective.all_reduce")
    assert first.held_bytes["SRAM"] == 64 * 128 * 2
    assert found.peak_memory_bytes["SRAM"] == run.peak_memory_bytes["SRAM"] == 64 * 128 * 2


def test_what_a_collective_takes_lies_on_chip_until_its_result_is_read(pair: Chip, branches: Graph) -> None:
    """While the partial sums of the first branch travel, 32 x 64 bytes, the second one computes 32 x 128 bytes beside
    them and the sums to come. They were let go at once: other networks held 64 KiB in 48."""
    network = cost_network(branches, [pair], parse_precision("int8"), Options())
    held = {group.name: float(group.held_bytes[0]) for group in network.groups}
    assert held["a.down.addmm.all_reduce"] == 2 * 32 * 64
    assert held["b.up.addmm"] == 2 * 32 * 64 + 32 * 128
    assert held["b.down.addmm"] == 2 * 32 * 64 + 32 * 128 + 32 * 64
