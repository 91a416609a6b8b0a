"""The few measured constants of the GPU kernel models: meaning, unit, physical range.

Each kernel family has a frozen dataclass; a field carries its unit and range as metadata, so that
calibration needs no table of its own. `sim.cost.gpu.sets` loads fitted sets and moves them to other GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Self

from sim.errors import CalibrationError

CLOCKED = ("token_s", "row_s")
"""Times that go with the SM clock: what happens inside a CTA."""


def constant(unit: str, low: float, high: float, datasheet: float) -> float:
    """A fitted constant: its unit, physical range, and the value that leaves the data sheet untouched."""
    made: float = field(metadata={"unit": unit, "low": low, "high": high, "datasheet": datasheet})
    return made


@dataclass(frozen=True)
class Constants:
    """What the families share; every field is made by `constant`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, (int, float)) or not value >= 0:
                raise CalibrationError(f"{type(self).__name__}.{f.name} is {value!r}, expected a number >= 0")

    @classmethod
    def datasheet(cls) -> Self:
        """Perfect efficiencies, no overheads, nothing kept in L2: never faster than the roofline."""
        return cls(**{f.name: f.metadata["datasheet"] for f in fields(cls)})

    def at_clock(self, ratio: float) -> Self:
        """The set with the times inside a CTA divided by the clock ratio new/reference.

        Waits for memory and floors (a pipeline's fill and step, launches, the start of a round, combine kernels, the
        host) keep: fitted alone, A100 (1.41 GHz) and H100 (1.83 GHz) agree within 1 % on the step and 14 % on
        launches and starts in time, not in clocks.
        """
        scaled = {f.name: getattr(self, f.name) / ratio for f in fields(self) if f.name in CLOCKED}
        return replace(self, **scaled)

    def at_limits(self, names: Iterable[str] | None = None, tolerance: float = 0.01) -> tuple[str, ...]:
        """Those of `names` (default: all) within `tolerance` (relative) of an end of their range."""
        out = []
        for f in (f for f in fields(self) if names is None or f.name in names):
            value, low, high = (
                getattr(self, f.name),
                f.metadata["low"],
                f.metadata["high"],
            )
            if value <= low * (1 + tolerance) or value >= high * (1 - tolerance):
                out.append(f.name)
        return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmConstants(Constants):
    """Matrix products (`sim.cost.gpu.gemm`)."""

    launch_s: float = constant("s", 1.0e-6, 5e-6, 0.0)
    """Floor of a graph-replayed kernel: front end, scheduling, drain."""
    matrix_efficiency: float = constant("1", 0.6, 1.05, 1.0)
    """Share of the data-sheet matrix rate that a full CTA reaches. Up to 1.05, because every wave is
    charged its fill in full although co-resident CTAs hide a part of it."""
    fill_s: float = constant("s", 1e-7, 1e-5, 0.0)
    """Pipeline fill per wave of CTAs (mma.sync only: persistent kernels load the next tile meanwhile)."""
    step_s: float = constant("s", 1e-9, 5e-7, 0.0)
    """A CTA's step along the reduction: barrier and first instruction, beside the products."""
    dram_efficiency: float = constant("1", 0.5, 0.95, 1.0)
    """Reachable share of the DRAM bandwidth."""
    dram_ramp_s: float = constant("s", 1e-9, 2e-6, 0.0)
    """DRAM takes sqrt(this x transfer time) longer: ramp up of requests in flight."""
    l2_share: float = constant("1", 0.3, 1.0, 0.0)
    """Share of L2 in which a cyclically reused working set stays."""
    epilogue_bytes_per_clock_sm: float = constant("B/clock/SM", 4.0, 128.0, 1e9)
    """Rate at which an SM writes its output tile."""
    overlap: float = constant("1", 1.2, 6.0, 16.0)
    """Exponent p of the soft maximum of compute and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeConstants(Constants):
    """Attention with one new token per sequence."""

    launch_s: float = constant("s", 4e-6, 12e-6, 0.0)
    """Floor: the attention kernel and the kernel that writes the KV cache."""
    start_s: float = constant("s", 1e-6, 8e-6, 0.0)
    """Start of a round of CTAs (head dimension 128)."""
    kernel_s: float = constant("s", 1e-6, 1e-5, 0.0)
    """A further small kernel in the chain: combining splits, copying layouts, scheduling."""
    block_rows: float = constant("1", 8.0, 128.0, 0.0)
    """A block of cached tokens costs a CTA the matrix time of this many query rows: those of a packed group and
    padding."""
    dram_efficiency: float = constant("1", 0.5, 0.95, 1.0)
    """Reachable share of the DRAM bandwidth."""
    l2_share: float = constant("1", 0.4, 1.0, 0.0)
    """Share of L2 in which the KV cache stays between calls."""
    l2_efficiency: float = constant("1", 0.1, 1.0, 1.0)
    """Reachable share of L2's bandwidth: short reads, page by page."""
    combine_s: float = constant("s", 1e-9, 1e-6, 0.0)
    """Combine: the wait for one split's partial result."""
    sequence_s: float = constant("s", 1e-9, 1e-7, 0.0)
    """Scheduling kernel, per sequence (FlashAttention-3 only)."""
    overlap: float = constant("1", 1.0, 6.0, 16.0)
    """Exponent p of the soft maximum of compute and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillConstants(Constants):
    """Causal attention with several new tokens per sequence."""

    launch_s: float = constant("s", 4e-6, 14e-6, 0.0)
    """Floor: the attention kernel and the kernel that writes the KV cache."""
    start_s: float = constant("s", 1e-7, 8e-6, 0.0)
    """Start of a CTA (head dimension 128)."""
    matrix_efficiency: float = constant("1", 0.6, 1.0, 1.0)
    """Share of the data-sheet matrix rate inside the main loop."""
    softmax_share: float = constant("1", 0.3, 3.0, 0.0)
    """Time of the softmax over that of its instructions (`sim.cost.gpu.attention.SOFTMAX_LANE_OPS`)."""
    tail: float = constant("1", 0.01, 1.0, 0.0)
    """Share of the longest CTA that runs alone at the end."""
    dram_efficiency: float = constant("1", 0.5, 0.95, 1.0)
    """Reachable share of the DRAM bandwidth."""
    l2_share: float = constant("1", 0.3, 1.0, 0.0)
    """Share of L2 in which queries, keys, values and outputs still lie: their producers have just run."""
    token_s: float = constant("s", 1e-7, 2e-5, 0.0)
    """Latency of the thread block that writes one token's keys and values into the paged cache."""
    overlap: float = constant("1", 1.0, 6.0, 16.0)
    """Exponent p of the soft maximum of compute and memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvConstants(Constants):
    """Convolutions (`sim.cost.gpu.conv`), beside the constants of the matrix products inside."""

    launch_s: float = constant("s", 1e-6, 3e-4, 0.0)
    """Floor of a call, as timed: eager launches include the host."""
    direct_efficiency: float = constant("1", 0.2, 1.0, 1.0)
    """Share of the data-sheet rate that implicit GEMM reaches."""
    winograd_efficiency: float = constant("1", 0.2, 1.0, 1.0)
    """Share of the data-sheet rate that the products of Winograd reach."""
    transform_passes: float = constant("1", 0.5, 6.0, 1.0)
    """Winograd transforms cost this many times the transformed bytes at the DRAM rate."""

    def inside(self, gemm: GemmConstants, *, host: bool) -> Callable[[float], GemmConstants]:
        """GEMM constants as a function of the efficiency: no fill of its own, and with `host` this launch."""
        launch_s = self.launch_s if host else gemm.launch_s
        bare = replace(gemm, launch_s=launch_s, fill_s=0.0, step_s=0.0)
        return lambda efficiency: replace(bare, matrix_efficiency=efficiency)


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorConstants(Constants):
    """One class of element-wise or row-wise kernels (`sim.cost.gpu.vector`)."""

    host_s: float = constant("s", 5e-6, 1e-4, 0.0)
    """Host floor of an eager, timed call; a property of the host and its software."""
    device_s: float = constant("s", 1e-6, 6e-5, 0.0)
    """Device floor."""
    row_s: float = constant("s", 1e-9, 2e-6, 0.0)
    """Time of one row in one SM (reductions along rows)."""
    dram_efficiency: float = constant("1", 0.3, 1.0, 1.0)
    """Reachable share of the DRAM bandwidth."""
    l2_share: float = constant("1", 0.1, 1.0, 0.0)
    """Share of L2 in which the tensors stay between calls."""
    l2_bytes_per_clock_sm: float = constant("B/clock/SM", 8.0, 128.0, 1e9)
    """L2 to SM bandwidth."""
