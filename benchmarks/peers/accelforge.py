"""Eyeriss and TPU v4i under our mapper, beside what AccelForge 1.0.467 finds on its own descriptions of them.

    python benchmarks/peers/accelforge.py

Their definition, applied to the mappings that ours finds: latency is the largest over components of actions over
throughput, so that everything overlaps and nothing fills or drains; 8-bit operands and results, all from DRAM; no
skew, set-up or latency. Our search counts what fills and drains, so that it is asked on a row of chips whose memories
are faster and faster, on which the ends weigh less and less; of its mappings the best by their rule on the chip itself
is ours. Their numbers (bundled chips, aim energy, one run each; most of them are by their own rules exactly MACs over
cells in use, or each tensor's bytes once over the bandwidth) were measured with AccelForge itself.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.mapping.api import map_einsum  # noqa: E402
from sim.mapping.machine import machine  # noqa: E402
from sim.mapping.problem import ROLES, Problem  # noqa: E402
from sim.workload.graph import EinsumOp  # noqa: E402

SHAPES = (
    (512, 512, 512), (37, 1000, 2048), (197, 768, 768), (12544, 64, 147), (1, 4096, 4096), (1024, 1024, 1024),
    (128, 4096, 11008), (4096, 4096, 4096),
)  # fmt: skip
"""M, N, K of the products."""
ACCELFORGE_S = {
    "tpu-v4i": (1.950e-6, 3.519e-6, 1.689e-6, 8.960e-6, 27.338e-6, 15.604e-6, 83.870e-6, 998.64e-6),
    str(Path(__file__).parent / "hw" / "accelforge_eyeriss.yaml"): (
        10.486e-3, 47.360e-3, 48.415e-3, 6.333e-3, 40.020e-3, 83.886e-3, 450.89e-3, 5368.7e-3,
    ),
}  # fmt: skip
"""Chip -> seconds that AccelForge finds for each."""
BITS = 8.0
FASTER = 2.0 ** np.arange(0, 12)
"""Speeds of the memories for which the mapper is asked."""
PRINTED = 5e-4
"""Their numbers have four digits."""


def by_their_rule(shape: tuple[int, int, int], chip: object) -> tuple[float, float]:
    """(seconds of our best mapping by their definition, CPU seconds of the search)."""
    graph = sim.gemm(*shape, dtype="int8")
    einsum = next(op for op in graph.ops if isinstance(op, EinsumOp)).einsum
    problem = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, BITS), accumulate_bits=int(BITS))
    made = machine([chip] * len(FASTER), "int8")  # type: ignore[list-item]
    nothing = np.zeros(len(FASTER))
    made = replace(made, array=replace(made.array, skew="none"), setup_cycles=nothing, latency_cycles=nothing)
    start = time.process_time()
    won = map_einsum(problem, replace(made, rates=made.rates * FASTER[:, None]), dict.fromkeys(ROLES, 0))
    spent = time.process_time() - start
    busy = won.cost.port_bytes[won.row] / made.rates
    cycles = np.maximum(won.cost.spatial[won.row], busy.max(axis=1))
    return float((cycles / made.clock_hz).min()), spent


def main() -> int:
    slower = 0
    for name, theirs in ACCELFORGE_S.items():
        chip = sim.load_hardware(name)
        print(f"{chip.name:24}{'ours':>12}{'AccelForge':>12}{'ratio':>8}{'CPU s':>8}")
        for shape, theirs_s in zip(SHAPES, theirs, strict=True):
            ours_s, spent = by_their_rule(shape, chip)
            slower += ours_s > theirs_s * (1 + PRINTED)
            both = f"{ours_s * 1e6:>9.3f} us{theirs_s * 1e6:>9.3f} us{ours_s / theirs_s:>8.4f}"
            print(f"  {','.join(map(str, shape)):22}{both}{spent:>8.2f}")
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())
