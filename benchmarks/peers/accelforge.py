"""Eyeriss and TPU v4i under our mapper, beside what AccelForge 1.0.467 finds on its own descriptions of them.

    python benchmarks/peers/accelforge.py [--mappings FILE.json]

Their definition, applied to the mappings that ours finds: latency is the largest over components of actions over
throughput, so that everything overlaps and nothing fills or drains; 8-bit operands and results, all from DRAM; no
skew, set-up or latency. Our search counts what fills and drains, so that it is asked on a row of chips whose memories
are slower and slower, on which what moves weighs more, and faster and faster, on which the ends weigh less; of its
mappings the best by their rule on the chip itself is ours. Their numbers (bundled chips, aim latency, one run each;
most of them are by their own rules exactly MACs over cells in use, or each tensor's bytes once over the bandwidth)
were measured with AccelForge itself.

`--mappings` reads the mappings that a run of AccelForge found (`theirs/run_accelforge.py`, in an environment of its
own) and costs them here, fills and drains included, in memories with room for the second copies that they do not have:
they must not be faster than ours in memories as they are. Their buffers of 4 MiB in front of each array are one VMEM
here, which weights pass too.
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
from sim.mapping.api import cost_mapping, map_einsum  # noqa: E402
from sim.mapping.machine import Machine, machine  # noqa: E402
from sim.mapping.mapping import Loop, Mapping, Store  # noqa: E402
from sim.mapping.problem import ROLES, Problem  # noqa: E402
from sim.workload.graph import EinsumOp, OperandRole  # noqa: E402

Shape = tuple[int, int, int]
"""M, N, K of a product."""

SHAPES: tuple[Shape, ...] = (
    (512, 512, 512), (37, 1000, 2048), (197, 768, 768), (12544, 64, 147), (1, 4096, 4096), (1024, 1024, 1024),
    (128, 4096, 11008), (4096, 4096, 4096),
)  # fmt: skip
EYERISS = str(Path(__file__).parent / "hw" / "accelforge_eyeriss.yaml")
ACCELFORGE_S = {
    "tpu-v4i": (
        1.9504762e-6, 3.5191792e-6, 1.6885714e-6, 8.9599998e-6, 27.337797e-6, 15.603810e-6, 83.870473e-6, 998.64381e-6,
    ),
    EYERISS: (
        10.485760e-3, 47.359999e-3, 48.414722e-3, 6.3328547e-3, 40.019531e-3, 83.886079e-3, 450.88768e-3, 5368.7091e-3,
    ),
}  # fmt: skip
"""Chip -> seconds that AccelForge finds for each."""
THEIR_S = {"tpu-v4i": 4.0, EYERISS: 2.7}
"""CPU seconds that AccelForge takes for a product, in the mean."""
THEIR_NAME = {"tpu-v4i": "tpu_v4i", EYERISS: "eyeriss"}
MEMORIES = {"tpu-v4i": {"GlobalBuffer": "CMEM", "LocalBuffer": "VMEM"}, EYERISS: {"GlobalBuffer": "GLB"}}
ARRAYS = "Z"
"""Their spatial dimension over arrays."""
BITS = 8.0
SPEEDS = 2.0 ** np.arange(-2, 12)
"""Of the memories for which the mapper is asked."""
SINGLE = 1e-6
"""Their numbers are of single precision."""
ROOM = 4.0
"""Times the memories in which their mappings are costed."""


def asked(shape: Shape, chip: object, copies: int) -> tuple[Problem, Machine]:
    """The product on copies of the chip without skew, set-up and latency."""
    graph = sim.gemm(*shape, dtype="int8")
    einsum = next(op for op in graph.ops if isinstance(op, EinsumOp)).einsum
    made = machine([chip] * copies, "int8")  # type: ignore[list-item]
    nothing = np.zeros(copies)
    made = replace(made, array=replace(made.array, skew="none"), setup_cycles=nothing, latency_cycles=nothing)
    return Problem(einsum=einsum, bits=dict.fromkeys(ROLES, BITS), accumulate_bits=int(BITS)), made


def by_their_rule(shape: Shape, chip: object) -> tuple[float, float]:
    """(seconds of our best mapping by their definition, CPU seconds of the search)."""
    problem, made = asked(shape, chip, len(SPEEDS))
    start = time.process_time()
    won = map_einsum(problem, replace(made, rates=made.rates * SPEEDS[:, None]), dict.fromkeys(ROLES, 0))
    spent = time.process_time() - start
    busy = won.cost.port_bytes[won.row] / made.rates
    cycles = np.maximum(won.cost.spatial[won.row], busy.max(axis=1))
    return float((cycles / made.clock_hz).min()), spent


def translated(nodes: list[dict], shape: Shape, memories: dict[str, str]) -> Mapping:
    """A mapping of AccelForge as one of ours. What stands inside every store is the array's own business; arrays
    share what the innermost memory holds, which is the tile of all of them."""
    part, arrays = dict(zip("MNK", shape, strict=True)), dict.fromkeys("MNK", 1)
    made: list[Loop | Store] = []
    last = max(i for i, node in enumerate(nodes) if node.get("memory") in memories)
    for node in nodes[: last + 1]:
        if "store" in node:
            memory = memories.get(node["memory"])
            made += [Store(memory=memory, operand=OperandRole(role)) for role in node["store"] if memory]
            continue
        rank, tile = node["loop"], node["tile"]
        if node.get("over") == ARRAYS:
            arrays[rank] *= -(-part[rank] // tile)
        else:
            made.append(Loop(rank=rank, tile=tile * arrays[rank]))
        part[rank] = tile
    held = {(node.memory, node.operand) for node in made if isinstance(node, Store)}
    made += [Store(memory=m, operand=role) for m in memories.values() for role in ROLES if (m, role) not in held]
    return Mapping(
        nodes=(*made, *(Loop(rank=r, tile=part[r], fanout="MXU") for r, count in arrays.items() if count > 1))
    )


def recost(path: str) -> int:
    """Cost AccelForge's mappings here; how many are faster than ours."""
    found, homes, faster = json.loads(Path(path).read_text(encoding="utf-8")), dict.fromkeys(ROLES, 0), 0
    for name in ACCELFORGE_S:
        chip = sim.load_hardware(name)
        print(f"{chip.name:24}{'ours':>15}{'theirs here':>16}{'ratio':>8}")
        for shape in SHAPES:
            problem, made = asked(shape, chip, 1)
            ours = float(map_einsum(problem, made, homes).cost.time[0])
            theirs = translated(found[THEIR_NAME[name]][label(shape)]["nodes"], shape, MEMORIES[name])
            roomy = replace(made, capacity_bytes=made.capacity_bytes * ROOM)
            cycles = float(cost_mapping(theirs, problem, roomy, homes).cost.time[0])
            faster += cycles < ours * (1 - 1e-9)
            us = 1e6 / float(made.clock_hz[0])
            print(f"  {label(shape):22}{ours * us:>12.3f} us{cycles * us:>13.3f} us{ours / cycles:>8.4f}")
    return faster


def label(shape: Shape) -> str:
    return ",".join(map(str, shape))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mappings")
    arguments = parser.parse_args()
    wrong = 0
    for name, theirs in ACCELFORGE_S.items():
        chip = sim.load_hardware(name)
        print(f"{chip.name:24}{'ours':>15}{'AccelForge':>16}{'ratio':>8}{'CPU s':>8}{'theirs':>8}")
        for shape, theirs_s in zip(SHAPES, theirs, strict=True):
            ours_s, spent = by_their_rule(shape, chip)
            wrong += ours_s > theirs_s * (1 + SINGLE)
            both = f"{ours_s * 1e6:>12.3f} us{theirs_s * 1e6:>13.3f} us{ours_s / theirs_s:>8.4f}"
            print(f"  {label(shape):22}{both}{spent:>8.2f}{THEIR_S[name]:>8}")
    if arguments.mappings:
        wrong += recost(arguments.mappings)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
