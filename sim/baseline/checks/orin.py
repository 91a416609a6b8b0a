"""What 2:4 sparsity buys on the Orin DLA: whole networks, dense and sparse, against the vendor's tables.

The chip file's estimated parts (kernels a cycle, whether transfers overlap) were checked on dense
throughput, and the gains are what is checked here. They were not held out blindly: the rules were
thought out with both tables in view, and that 2:4 needs more than 64 channels is unverified.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from sim.baseline.checks.check import Check, against, group
from sim.baseline.checks.edge import ORIN_CLOCK_RATIO_15W, ORIN_MEMORY_RATIO_15W
from sim.baseline.checks.whole import hardware
from sim.baseline.published import fact

NETWORKS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "RetinaNet ResNeXt-50 800x800": ("retinanet", {}),
    "ResNet-34 backbone 1280x768": (
        "retinanet",
        {"backbone": "resnet34", "height": 768, "width": 1280, "head": False},
    ),
    "RetinaNet ResNet-34 1280x768": (
        "retinanet",
        {"backbone": "resnet34", "height": 768, "width": 1280, "classes": 5},
    ),
    "SSD-ResNet-34 1200x1200": ("ssd_resnet34", {}),
}
"""The vendor's networks as bundled workloads; that the second RetinaNet has five classes is assumed."""
MODES = {"MAXN": (1.0, 1.0), "15W": (ORIN_CLOCK_RATIO_15W, ORIN_MEMORY_RATIO_15W)}
"""Clock of the accelerator and of the memory over those of MAXN."""
ACCELERATORS = 2
"""The tables are for both together; the chip file is one with half of the memory's bandwidth."""


@cache
def latency_s(network: str, mode: str, pattern: str | None) -> float | None:
    """Latency of one network on one accelerator; None where the chip is not bundled."""
    import sim
    from sim.workload.passes.sparsify import sparsify

    chip = hardware("orin-dla")
    if chip is None:
        return None
    clock, memory = MODES[mode]
    scaled = {
        "clock": f"{chip.main_unit.clock_hz * clock} Hz",
        "DRAM.bandwidth": f"{chip.memory('DRAM').read.at(1.0) * memory} B/s",
    }
    workload, knobs = NETWORKS[network]
    graph = sim.load_workload(workload, **knobs)
    if pattern is not None:
        graph = sparsify(graph, pattern)
    return float(
        sim.estimate(graph, sim.load_hardware("orin-dla", scaled), precision="int8", calibration="none").latency_s
    )


def _gain(network: str, mode: str) -> float | None:
    dense, sparse = latency_s(network, mode, None), latency_s(network, mode, "2:4")
    return None if dense is None or sparse is None else dense / sparse


def _frames_per_s(network: str, mode: str) -> float | None:
    found = latency_s(network, mode, None)
    return None if found is None else ACCELERATORS / found


@group("orin-dla")
def orin_dla() -> Iterator[Check]:
    """2:4 over dense, and the dense throughput that the chip file was fitted to."""
    for index, network in enumerate(NETWORKS, start=1):
        for mode in MODES:
            yield against(
                fact("nvdla-v2-orin", "sparse_speedup", workload=network, scenario=f"2:4 over dense, {mode}"),
                partial(_gain, network, mode),
                id=f"orin-dla.sparse.{index}.{mode}",
                quantity=f"Orin DLA {network}, {mode}: 2:4 over dense",
                tolerance=0.15,
                note="weights with more than 64 input channels; the rest stays dense",
            )
            yield against(
                fact("nvdla-v2-orin", "throughput", workload=network, scenario=f"dense, {mode}"),
                partial(_frames_per_s, network, mode),
                id=f"orin-dla.dense.{index}.{mode}",
                quantity=f"Orin DLA {network}, {mode}: dense throughput",
                tolerance=0.15,
                gate=False,
                note="informs: estimated parts of the chip file were chosen on these rows",
            )
