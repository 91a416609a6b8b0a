"""What our kernels cost on a GPU as they are written: CTAs, steps of their loops, and what each step waits for.

`sim.estimate` of their graphs (`plain`) is an ideal kernel: split along the reduction, every latency hidden. Ours are
simple: a CTA walks the whole reduction, and the suppression of an image is one CTA's. A step's cycles, instructions and
shared memory are read from the compiled code (`benchmarks/kernel_loops.py`: Triton 3.6.0, nvcc 13.0, sm_90); nothing is
fitted to a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log2
from types import MappingProxyType

from sim.baseline.ops import BLOCK, INT4_GROUP, OpSpec, kept_blocks
from sim.cost.gpu.device import Generation, GpuDevice

L1_CYCLES, L2_CYCLES, MEMORY_CYCLES, LATENCY_HZ = 34.2, 265.5, 650.0, 1.755e9
"""Of a dependent load, on an H100 PCIe at LATENCY_HZ (te42kyfo/gpu-benches, gpu-latency/h100_pcie.txt at a7dc559)."""
MEMORY_S = MEMORY_CYCLES / LATENCY_HZ
PORT_BYTES_PER_CYCLE = 64.0
"""What one SM takes from L2 in a cycle (unverified)."""
SECTOR_BYTES = 32
THREADS = 512
"""Threads of the suppression kernel (`detection.cu`)."""
SURVIVORS_PER_BOX = 0.864 / 40
"""Of `random_predictions`: an object in one of 40 boxes, whose class 0 has a logit N(0, 1) and a threshold of 0.25,
ln(0.25 / 0.75) = -1.10, above which 0.864 lie."""
SORT_CYCLES, CLASS_CYCLES, KEPT_CYCLES, COMPARE_INSTRUCTIONS = 197, 1081 / 16, 686, 53
"""A stage of the sort; a class in the search for the best; a box that is kept: with loads that hit L1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pass of a kernel's loop: cycles of a CTA alone on its SM, instructions a scheduler issues, shared memory."""

    cycles: float
    instructions: int
    shared_bytes: int


INT4_STEPS: Mapping[int, Step] = MappingProxyType(
    {
        16: Step(cycles=(15 * 1398 + 1905) / 16, instructions=466, shared_bytes=16384),
        32: Step(cycles=(15 * 1467 + 1945) / 16, instructions=544, shared_bytes=24576),
        64: Step(cycles=(15 * 1471 + 3192) / 16, instructions=470, shared_bytes=73728),
    }
)
"""By rows of the tile. Weights and inputs are loaded two steps ahead. Scales and zeros are not (two bytes are too few
for an asynchronous copy): a sector of 32 B holds those of 16 groups, so that one load in 16 comes from memory."""
SPARSE_STEPS: Mapping[int, Step] = MappingProxyType(
    {
        16: Step(cycles=260, instructions=70, shared_bytes=10244),
        64: Step(cycles=322, instructions=109, shared_bytes=32772),
        128: Step(cycles=491, instructions=145, shared_bytes=49156),
    }
)
"""By rows of the tile. Which block comes next is itself loaded, so that a tile is asked for when the step before ends:
the loop begins with a wait for all copies, and each step pays the latency and the transfer of its tiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCost:
    """Time of a kernel as written: launches, then the longest of what its CTAs wait for and what the chip can move."""

    launch_s: float
    parts_s: Mapping[str, float]
    """By what bounds: "loop" (the chain of steps of the busiest SM), "l2", "memory", "compute"; or, where stages follow
    one another, by stage."""
    serial: bool
    """Whether the parts add up; otherwise the longest hides the others."""
    words: str

    @property
    def total_s(self) -> float:
        return self.launch_s + (sum(self.parts_s.values()) if self.serial else max(self.parts_s.values()))


def written_cost(spec: OpSpec, device: GpuDevice, *, launch_s: float) -> WrittenCost | None:
    """Cost of one of our kernels on this GPU; None on a generation that it was not compiled for."""
    if device.generation is not Generation.HOPPER:
        return None
    return COSTS[spec.kind](spec.params, device, launch_s)


def _chain_s(ctas: int, steps: int, step: Step, device: GpuDevice, wait_s: float) -> float:
    """Time of the busiest SM: rounds of as many CTAs as its shared memory holds. One CTA alone takes its cycles and
    waits; of each further one beside it the instructions are issued in between, one a cycle and scheduler.

    Example: 64 CTAs on 132 SMs, 32 steps of 1,430 cycles at 1.83 GHz: 25.0 us.
    """
    busiest = ceil(ctas / device.sms)
    held = max(1, int(device.smem_bytes_per_sm // (step.shared_bytes + 1024)))
    total = 0.0
    while busiest > 0:
        beside = min(busiest, held)
        total += steps * (wait_s + (step.cycles + (beside - 1) * step.instructions) / device.clock_hz)
        busiest -= beside
    return total


def _gemm_cost(
    step: Step, *, ctas: int, steps: int, tile_bytes: float, waits: bool, flops: float, weight_bytes: float,
    device: GpuDevice, launch_s: float,
) -> WrittenCost:  # fmt: skip
    port_s = tile_bytes / (PORT_BYTES_PER_CYCLE * device.clock_hz)
    wait_s = MEMORY_S + port_s if waits else 0.0
    parts = {
        "loop": _chain_s(ctas, steps, step, device, wait_s),
        "l2": ctas * steps * tile_bytes / device.l2_bytes_per_s,
        "memory": weight_bytes / device.dram_bytes_per_s,
        "compute": flops / device.peak("bf16"),
    }
    binds = max(parts, key=lambda name: parts[name])
    words = f"{ctas} CTAs of {steps} steps, {binds} binds"
    return WrittenCost(launch_s=launch_s, parts_s=parts, serial=False, words=words)


def _int4_cost(p: Mapping[str, int], device: GpuDevice, launch_s: float) -> WrittenCost:
    m, n, k = p["m"], p["n"], p["k"]
    rows = 16 if m <= 16 else 32 if m <= 32 else 64
    tile = 64 * (INT4_GROUP / 2 + 4) + 2 * rows * INT4_GROUP
    return _gemm_cost(
        INT4_STEPS[rows], ctas=ceil(m / rows) * ceil(n / 64), steps=k // INT4_GROUP, tile_bytes=tile, waits=False,
        flops=2 * m * n * k, weight_bytes=n * k / 2, device=device, launch_s=launch_s,
    )  # fmt: skip


def _sparse_cost(p: Mapping[str, int], device: GpuDevice, launch_s: float) -> WrittenCost:
    m, n, steps = p["m"], p["n"], kept_blocks(p["k"], p["keep_percent"])
    rows = 16 if m <= 16 else 64 if m <= 64 else 128
    kept = n // BLOCK * steps * BLOCK * BLOCK
    return _gemm_cost(
        SPARSE_STEPS[rows], ctas=ceil(m / rows) * (n // BLOCK), steps=steps, tile_bytes=2 * BLOCK * (rows + BLOCK),
        waits=True, flops=2 * m * kept, weight_bytes=2 * kept, device=device, launch_s=launch_s,
    )  # fmt: skip


def _detection_cost(p: Mapping[str, int], device: GpuDevice, launch_s: float) -> WrittenCost:
    """A memset and two kernels. Scores stream; then one CTA an image sorts, looks for each candidate's best class (a
    comparison loads the best so far again), and suppresses box by box: as many steps as boxes are kept, here all."""
    boxes, classes = p["boxes"], p["classes"]
    found = max(1, round(boxes * SURVIVORS_PER_BOX))
    kept = min(found, p["candidates"])
    sort = ceil(log2(found)) if found > 1 else 0
    read = p["batch"] * boxes * (classes + 4) * 4
    rate = device.l2_bytes_per_s if read <= device.l2_bytes else device.dram_bytes_per_s
    missed = classes * 4 / SECTOR_BYTES * (L2_CYCLES - L1_CYCLES)
    beside = max(0.0, kept / 2 / 32 / 4 - 1)
    waves = ceil(p["batch"] / device.sms)
    cycles = {
        "sort": sort * (sort + 1) / 2 * ceil(2**sort / THREADS) * SORT_CYCLES,
        "best_class": ceil(kept / THREADS) * (classes * CLASS_CYCLES + missed),
        "suppress": kept * (KEPT_CYCLES + beside * COMPARE_INSTRUCTIONS),
    }
    parts = {"scores": read / rate} | {name: waves * count / device.clock_hz for name, count in cycles.items()}
    words = f"one CTA an image, {kept} boxes kept one after the other"
    return WrittenCost(launch_s=3 * launch_s, parts_s=parts, serial=True, words=words)


COSTS: Mapping[str, Callable[[Mapping[str, int], GpuDevice, float], WrittenCost]] = MappingProxyType(
    {"gemm_int4": _int4_cost, "gemm_block_sparse": _sparse_cost, "detection_postprocess": _detection_cost}
)

__all__ = ["WrittenCost", "written_cost"]
