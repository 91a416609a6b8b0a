"""A unit's costing options that a chip file may state: their names, what each means, and which values it takes.

A costing without an entry here takes any scalar option; one with an entry refuses unknown names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sim.errors import nearest
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


CHOICES: Mapping[str, tuple[str, ...]] = {
    "generation": ("volta", "turing", "ampere", "ada", "hopper", "blackwell"),
    "launch": ("graph", "eager"),
}
"""Option of a GPU -> its words; `sim.cost.gpu.device.Generation` and `sim.schedule.gpu_eager.LAUNCHES` are these."""
SHARES = ("dram_efficiency", "matrix_efficiency", "lane_efficiency")
"""Options of a GPU that are a share of a rate: above 0, at most 1.2."""


def gpu_problem(options: Mapping[str, object], kinds: Sequence[str]) -> str | None:
    """What a unit that is costed as a GPU lacks or states wrongly, in words; None where nothing.

    Args: kinds: "memory", "fanout" or "array", of its levels from the outside in.
    """
    for name, words in CHOICES.items():
        value = options.get(name)
        if value is None and name == "generation":
            return f"options.generation is missing: a GPU states one of {', '.join(words)}"
        if value is not None and value not in words:
            return f'options.{name} is "{value}", expected one of {", ".join(words)}.{nearest(str(value), words)}'
    for name in SHARES:
        value = options.get(name, 1.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1.2:
            return f"options.{name} is {value!r}, expected a share of the data sheet's rate above 0, at most 1.2"
    if "fanout" not in kinds:
        return "hierarchy has no fan-out over SMs, which a GPU has"
    at = list(kinds).index("fanout")
    if "memory" not in kinds[:at] or "memory" not in kinds[at:]:
        return "hierarchy needs a memory outside (L2) and one inside (shared memory) the SM fan-out, as a GPU has"
    return None
