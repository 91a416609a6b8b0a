"""Names of a unit's costing options that a chip file may state, with what each means.

A costing without an entry here takes any scalar option; one with an entry refuses unknown names.
"""

from __future__ import annotations

from collections.abc import Mapping

from sim.hardware.chip import Costing

KNOWN_OPTIONS: dict[Costing, Mapping[str, str]] = {
    Costing.MAPPED: {"waiting": "set of waiting constants in baselines/waiting, for rows measured on it"},
    Costing.GPU_KERNELS: {
        "generation": "volta, turing, ampere, ada, hopper or blackwell: which libraries it runs",
        "dram_efficiency": "reachable share of the DRAM bandwidth, in place of that of the GPU that was measured",
        "matrix_efficiency": "share of the matrix rate in products, likewise: what the power limit leaves of the clock",
        "lane_efficiency": "share of the fp32 rate in products on the CUDA cores, likewise",
    },
    Costing.GPU_EAGER: {
        "generation": "as for gpu_kernels",
        "launch": "graph: kernels replayed from a graph (default); eager: launched one by one by the host",
    },
    Costing.CPU: {"threads": "cores that work; all by default"},
}
"""Costing -> {option name: meaning and unit}."""


def unknown_options(costing: Costing, names: list[str]) -> list[str]:
    """The names that `costing` does not know."""
    known = KNOWN_OPTIONS.get(costing)
    return [] if known is None else [name for name in names if name not in known]
