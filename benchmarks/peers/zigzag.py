"""ZigZag 3.9.1's bundled hardware under our mapper, beside what ZigZag finds.

    python benchmarks/peers/zigzag.py [--space uneven] [--hw tpu_like ...] [--mappings FILE.json]

Their definitions, as options of ours: no systolic fill or drain (`skew: none`, `folds: pipelined`,
`preload: hidden`), no set-up and no latency, 8-bit operands with 16-bit partial sums, every operand
from DRAM and back, a network is the sum of its layers. They refill a tile in place, so that a memory
holds each tile once; ours reserves a second copy and gets twice the capacity here. The column `as
theirs` is what is compared: our mapping without three things that they do not count, the preload of
each tile job's first fold, the shorter of the two first loads (they overlap even on one DRAM port), and
the last store as far as the DRAM port has cycles to spare beside the steps (so they store an output that
is kept whole); and with one that they do count, the drain of an array that is said to be systolic.
`port` is what the shared port needs for every byte once, which no schedule can beat; a peer below it is
marked. Two things bring them there: first loads that overlap on one port, and splits that are not whole,
which they round down where they count bytes (4096 over 12 rows are 11 of 11.98, 1000 over 32 columns 31
of 31.25), so that the rest never moves. Of single layers of ResNet-18, whose sum alone is compared, they
count three above the port's bound 1 to 7 % shorter: a tensor kept whole comes in while it is being used.
Their numbers: LOMA, lpf_limit 6, aim latency, one run each, measured with zigzag-dse 3.9.1; CPU seconds
of a process are 0.3 to 3 a product and 47 to 61 for the network.

`--mappings` reads the mappings that a run of ZigZag found (`theirs/run_zigzag.py`, in an environment of
its own) and costs them here: they must not be faster than ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.errors import InfeasibleError  # noqa: E402
from sim.mapping.api import cost_mapping, map_einsum  # noqa: E402
from sim.mapping.machine import Machine, machine  # noqa: E402
from sim.mapping.mapping import Loop, Mapping, Store  # noqa: E402
from sim.mapping.nest import footprint_bytes, nest  # noqa: E402
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem  # noqa: E402
from sim.mapping.winners import Winners  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

GEMMS = ((512, 512, 512), (37, 1000, 2048), (197, 768, 768), (12544, 64, 147), (1, 4096, 4096), (1024, 1024, 1024),
         (128, 4096, 11008), (4096, 4096, 4096))  # fmt: skip
ZIGZAG = {
    "tpu_like": (163_904, 262_507, 132_448, 352_863, 2_097_759, 1_179_712, 5_872_319, 71_507_773, 3_865_041),
    "meta_prototype": (526_850, 348_923, 462_602, 468_339, 2_099_842, 4_210_817, 22_733_826, 268_472_833, 2_723_036),
    "tesla_npu_like": (524_311, 343_566, 460_821, 465_117, 2_101_766, 4_210_694, 22_549_862, 268_452_885, 2_712_475),
    "eyeriss_like": (822_958, 481_111, 725_715, 856_301, 1_792_050, 6_732_229, 34_916_991, 423_206_678, 14_844_792),
}
"""Cycles of the GEMMs in order, then of ResNet-18."""


def problem(einsum: object) -> Problem:
    return Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=16)  # type: ignore[arg-type]


DRAIN = {"tpu_like": 62}
"""Cycles in which the last results leave an array that their file calls systolic: a side less one, both sides."""


ROOM = 4.0
"""Times the memories in which a mapping of theirs is costed that does not fit: they keep sums at the output's width."""


def hardware(name: str) -> Machine:
    """ZigZag's hardware, with room for the second copies that it does not count."""
    m = machine([sim.load_hardware(str(Path(__file__).parent / "hw" / f"{name}.yaml"))], "int8")
    copies = np.array([1.0] + [2.0 if level.double_buffered else 1.0 for level in m.levels[1:]])
    return replace(m, capacity_bytes=m.capacity_bytes * copies)


def einsums(graph: object) -> list:
    return [op.einsum for op in graph.ops if isinstance(op, EinsumOp)]  # type: ignore[attr-defined]


def port_cycles(p: Problem, m: Machine) -> float:
    """The DRAM port moves every operand once."""
    return sum(p.size_bytes(role) for role in ROLES) / float(m.rates[0, m.levels[0].read_port])


def mapped(layers: list, m: Machine, space: str, drain: float) -> tuple[float, float, float, float]:
    """(cycles, cycles with their first load, port bound, CPU s) of layers one after the other; equal
    layers are mapped once."""
    start, known = time.process_time(), {}
    total, alike, port = 0.0, 0.0, 0.0
    for einsum in layers:
        key = repr(einsum.ranks) + repr([o.projection for o in einsum.operands])
        p = problem(einsum)
        if key not in known:
            won = map_einsum(p, m, dict.fromkeys(ROLES, 0), space=space)
            known[key] = float(won.cost.time[0]), as_theirs(won, p, m) + drain
        cycles, their_way = known[key]
        total, alike, port = total + cycles, alike + their_way, port + port_cycles(p, m)
    return total, alike, port, time.process_time() - start


def as_theirs(won: Winners, p: Problem, m: Machine) -> float:
    """Cycles of the mapping found as ZigZag counts them (see above), but for the drain."""
    table, rates, setup = won.tables[0], m.rates[:1], m.setup_cycles[:1]
    ours = replace(table, run=table.run - table.preload)
    made = nest(won.mappings[0], p, m, dict.fromkeys(ROLES, 0))
    first: dict[object, float] = {}
    for level, operands in sorted(footprint_bytes(made, p, m).items()):
        for role, held in operands.items():
            first.setdefault(role, float(held[0]) / (2 if m.levels[level].double_buffered else 1))
    home = m.levels[0]
    hidden = min(first.get(INPUT, 0.0), first.get(WEIGHT, 0.0)) / float(rates[0, home.read_port])
    last = min(float(table.last.busiest(rates, setup)[0]), float(ours.rest(rates, setup, [home.write_port])[0]))
    return float(ours.time(rates, setup)[0]) - hidden - last


RANKS = {
    "Gemm": {"OX": "M", "OY": "M", "B": "M", "D": "M", "K": "N", "C": "K"},
    "Conv": {"B": "N", "K": "K", "C": "C", "OY": "P", "OX": "Q", "FY": "R", "FX": "S"},
}
"""Their dimensions as our ranks."""


def translated(entry: dict, p: Problem, m: Machine) -> Mapping:
    """A ZigZag mapping of a product or a convolution as one of ours.

    `entry["temporal"]`: operand -> levels from the inside out -> [rank, trips], the outermost level
    DRAM. Loops of a level stand inside that level's tile, so an operand's store follows the loops of
    DRAM. Loops inside every store are the array's own business.
    """
    names = RANKS["Conv" if entry["name"].endswith("Conv") else "Gemm"]
    role = {"I": INPUT, "W": WEIGHT, "O": OUTPUT}
    loops = [loop for level in entry["temporal"]["W"] for loop in level][::-1]  # outermost first
    at = {role[o]: len(levels[-1]) for o, levels in entry["temporal"].items()}
    extent = {r: int(n) for r, n in p.einsum.ranks.items()}
    nodes: list[Loop | Store] = []
    order = sorted(ROLES, key=lambda r: (at[r], _level(m, r)))
    for depth in range(len(loops) + 1):
        for r in order:
            if at[r] == depth:
                memory = m.levels[_level(m, r)]
                nodes.append(Store(memory=memory.name, operand=r, double_buffered=memory.double_buffered))
        if depth == len(loops) or depth >= max(at.values()):
            break
        rank, trips = names[loops[depth][0]], loops[depth][1]
        extent[rank] = int(np.ceil(extent[rank] / trips))
        nodes.append(Loop(rank=rank, tile=extent[rank]))
    return Mapping(nodes=tuple(nodes))


def _level(m: Machine, role: object) -> int:
    return max(i for i, level in enumerate(m.levels) if i and role in level.holds)


def compare(name: str, space: str, network: bool) -> bool:
    """Print a peer's rows; True if ours is never slower, but for rows below the port's bound."""
    m = hardware(name)
    cases = [(",".join(map(str, g)), einsums(sim.gemm(*g))) for g in GEMMS]
    if network:
        cases.append(("resnet18", einsums(sim.load_workload("resnet18"))))
    fine = True
    for (label, layers), theirs in zip(cases, ZIGZAG[name], strict=False):
        cycles, alike, port, seconds = mapped(layers, m, space, DRAIN.get(name, 0.0))
        below = theirs < port
        fine &= below or alike <= theirs
        mark = "  peer below the port's bound" if below else "" if alike <= theirs else "  SLOWER"
        numbers = f"{cycles:>14,.0f}{alike:>14,.0f}{theirs:>14,}{alike / theirs:>8.3f}{port:>14,.0f}{seconds:>8.2f}"
        print(f"{name:16}{label:18}{numbers}{mark}", flush=True)
    return fine


def recost(path: str, space: str) -> bool:
    """Cost ZigZag's mappings on its hardware, a layer at a time; True if none is faster than ours."""
    homes, fine = dict.fromkeys(ROLES, 0), True
    for name, works in json.loads(Path(path).read_text(encoding="utf-8")).items():
        m = hardware(name)
        roomy = replace(m, capacity_bytes=m.capacity_bytes * ROOM)
        known: dict[str, float] = {}
        for label, found in works.items():
            for einsum, entry in zip(*matched(label, found.get("layers", [])), strict=True):
                p = problem(einsum)
                key = repr(einsum.ranks) + repr([o.projection for o in einsum.operands])
                if key not in known:
                    known[key] = float(map_einsum(p, m, homes, space=space).cost.time[0])
                ours, note = known[key], ""
                made = translated(entry, p, m)
                try:
                    won = cost_mapping(made, p, m, homes)
                except InfeasibleError:
                    won, note = cost_mapping(made, p, roomy, homes), f"  in {ROOM:g} times the room"
                theirs = float(won.cost.time[0])
                fine &= theirs >= ours * (1 - 1e-9)
                note += "" if theirs >= ours * (1 - 1e-9) else "  FASTER"
                numbers = f"{theirs:>14,.0f} here, ours {ours:>14,.0f}, they say {entry['cycles']:>14,.0f}{note}"
                print(f"{name:16}{'theirs of ' + title(label, entry):36}{numbers}", flush=True)
    return fine


def title(label: str, entry: dict) -> str:
    """A product's shape or a layer's name, `layer1.0.conv1` of `/layer1/layer1.0/conv1/Conv`."""
    if label[0].isdigit():
        return label
    parts = entry["name"].split("/")[1:-1]
    return ".".join(part for part, then in zip(parts, [*parts[1:], ""], strict=True) if not then.startswith(part + "."))


def matched(label: str, layers: list[dict]) -> tuple[list, list[dict]]:
    """(our einsums, their layers) of a work, one by one."""
    if label[0].isdigit():
        return einsums(sim.gemm(*map(int, label.split(",")))), layers
    ops = [op for op in sim.load_workload(label).ops if isinstance(op, EinsumOp)]
    return [op.einsum for op in ops], [
        next(entry for entry in layers if op.name.startswith(title(label, entry) + ".")) for op in ops
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="uneven")
    parser.add_argument("--hw", action="append", choices=list(ZIGZAG))
    parser.add_argument("--mappings")
    parser.add_argument("--no-network", action="store_true")
    arguments = parser.parse_args()
    names = ("ours, cycles", "as theirs", "ZigZag")
    columns = "".join(f"{name:>14}" for name in names)
    print(f"{'hardware':16}{'work':18}{columns}{'ratio':>8}{'port':>14}{'CPU s':>8}")
    fine = [compare(name, arguments.space, not arguments.no_network) for name in arguments.hw or ZIGZAG]
    if arguments.mappings:
        fine.append(recost(arguments.mappings, arguments.space))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
