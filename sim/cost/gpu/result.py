"""What a kernel model returns: the time, its terms, the kernel that was chosen, and what to doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.results import Term

TERM_OF: Mapping[str, Term] = {
    "launch": Term.LAUNCH,
    "compute": Term.COMPUTE,
    "vector": Term.VECTOR,
    "memory": Term.EXPOSED_MEMORY,
    "prologue": Term.FILL_DRAIN,
    "epilogue": Term.FILL_DRAIN,
    "tail": Term.FILL_DRAIN,
    "ramp": Term.EXPOSED_MEMORY,
    "split": Term.EXPOSED_MEMORY,
    "cache_write": Term.EXPOSED_MEMORY,
    "scheduling": Term.LAUNCH,
}
"""Where each kernel term stands in the closed set of latency terms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """Time of each problem of a batch (arrays of the broadcast shape).

    `terms_s` sum to `time_s`; "compute" is busy time, the others are what it could not hide.
    `kernel` holds the chosen tile, split and CTA count. `flags` names what lies outside the data
    that the constants were fitted on -> boolean array; such numbers are extrapolations.
    """

    time_s: np.ndarray
    terms_s: Mapping[str, np.ndarray]
    kernel: Mapping[str, np.ndarray]
    flags: Mapping[str, np.ndarray]
    moved_bytes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Of matrix products: "weight", "input", "output" over the DRAM port, "l2" from L2 into the SMs."""

    @property
    def flagged(self) -> np.ndarray:
        """True where any flag is raised."""
        found = np.zeros(np.shape(self.time_s), dtype=bool)
        for flag in self.flags.values():
            found = found | flag
        return found

    def breakdown_s(self) -> dict[Term, np.ndarray]:
        """The terms under the names of the closed set."""
        out: dict[Term, np.ndarray] = {}
        for name, value in self.terms_s.items():
            out[TERM_OF[name]] = out.get(TERM_OF[name], 0.0) + value
        return out


def scatter(size: int, parts: Sequence[tuple[np.ndarray, KernelTime]]) -> KernelTime:
    """One flat result from results of disjoint row indices that together cover range(size)."""

    def fill(pick, names, dtype):
        out = {name: np.zeros(size, dtype=dtype) for name in names}
        for rows, part in parts:
            for name, value in pick(part).items():
                out[name][rows] = np.ravel(value)
        return out

    time_s = fill(lambda p: {"t": p.time_s}, ["t"], float)["t"]
    terms = fill(lambda p: p.terms_s, {n: 0 for _, p in parts for n in p.terms_s}, float)
    kernel = fill(lambda p: p.kernel, {n: 0 for _, p in parts for n in p.kernel}, int)
    flags = fill(lambda p: p.flags, {n: 0 for _, p in parts for n in p.flags}, bool)
    return KernelTime(time_s=time_s, terms_s=terms, kernel=kernel, flags=flags)


def soft_max(x: np.ndarray, y: np.ndarray, p: float) -> np.ndarray:
    """(x^p + y^p)^(1/p): two overlapping activities; the larger at p -> infinity, the sum at p = 1.

    Scaled by the larger argument so that neither under- nor overflows. Both must be >= 0.
    """
    high = np.maximum(x, y)
    low = np.minimum(x, y)
    return high * (1.0 + (low / np.maximum(high, 1e-300)) ** p) ** (1.0 / p)


def hit_rate(working_set_bytes: np.ndarray, usable_bytes: float, steepness: float) -> np.ndarray:
    """Share of a cyclically reused working set that a cache still holds: 1/(1 + (set/usable)^steepness)."""
    if usable_bytes <= 0:
        return np.zeros(np.shape(working_set_bytes))
    return 1.0 / (1.0 + np.minimum(working_set_bytes / usable_bytes, 1e12) ** steepness)
