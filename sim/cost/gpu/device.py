"""The GPU as the kernel models see it: data-sheet numbers, and what a generation's library can launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import product
from math import inf

from sim.errors import ConfigError, PrecisionError, nearest
from sim.hardware.chip import Chip, Fanout, Memory, Unit
from sim.hardware.options import SHARES, gpu_problem
from sim.workload.precision import BITS


class Generation(StrEnum):
    """NVIDIA generations, in order of age."""

    VOLTA = "volta"
    TURING = "turing"
    AMPERE = "ampere"
    ADA = "ada"
    HOPPER = "hopper"
    BLACKWELL = "blackwell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What the kernels of a generation are built from (choices of the library, not measurements).

    Sources: CUTLASS 3 and FlashAttention 2/3 sources (tile shapes, stages); Hopper tuning guide
    (wgmma takes n in steps of 8); FlashAttention-3 paper, arXiv 2407.08608.
    """

    tiles: tuple[tuple[int, int], ...]
    """GEMM output tiles (rows of A, columns of B) of one CTA."""
    k_step: int
    """Elements of k (at 16 bit) that one pipeline stage holds."""
    splits: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    """Ways to split the reduction over CTAs."""
    stages: int = 4
    warp_specialised: bool = False
    """wgmma + TMA kernels (FlashAttention-3); otherwise mma.sync + cp.async (FlashAttention-2). TMA kernels are
    persistent: they load, and write, one tile beside the products of another."""
    sharers: int = 1
    """SMs of a row, and of a column, of a cluster that receive one read of L2 together (TMA multicast)."""
    epilogue_shown: float = 1.0
    """Share of the time to write a tile that shows where another follows."""
    softmax_overlap: float = 1.0
    """Exponent of the soft maximum of matrix and softmax time in prefill; 1 = they add."""
    combine_stages: int = 1
    """Partial results of splits that the combine kernel has in flight."""
    chained: float = 1.0
    """Share of a small kernel that shows where its launch overlaps the one before (programmatic dependent launch)."""


def _hopper_tiles() -> tuple[tuple[int, int], ...]:
    """64..256 rows by any multiple of 8 or 16 columns, at most 128 x 256 accumulators, and transposed."""
    narrow = (
        8,
        16,
        24,
        32,
        40,
        48,
        64,
        80,
        96,
        112,
        128,
        144,
        160,
        176,
        192,
        208,
        224,
        240,
        256,
    )
    tiles = {(a, b) for a, b in product((64, 128, 192, 256), narrow) if a * b <= 32768} | {(192, 192)}
    return tuple(sorted(tiles | {(b, a) for a, b in tiles}))


_AMPERE_TILES = (
    (16, 64), (32, 64), (64, 64), (32, 128), (128, 32), (64, 128), (128, 64),
    (64, 256), (256, 64), (128, 128), (128, 256), (256, 128),
)  # fmt: skip
MMA_SYNC = Library(tiles=_AMPERE_TILES, k_step=32)
SIMT = Library(
    tiles=((128, 32), (128, 64), (128, 128)),
    k_step=16,
    splits=(1,),
)
"""fp32 convolution kernels on the CUDA cores."""
WGMMA = Library(
    tiles=_hopper_tiles(), k_step=64, warp_specialised=True, sharers=2, epilogue_shown=0.3, softmax_overlap=1.7,
    combine_stages=4, chained=1 / 3,
)  # fmt: skip
"""Hopper. Clusters of 2 x 2 SMs (4 x 4 fit alike). FlashAttention-3 interleaves softmax and products: 661 TFLOPS at
16k tokens and head dimension 128 (its paper, arXiv 2407.08608, ablation) is an exponent of 1.6, and 1.5 to 2 fit
alike; its combine kernel holds four partial results (`flash_fwd_combine_kernel.h`) and waits on the grid before it.
Estimated: what shows of a tile's output (0.25 to 0.5 fit alike) and of a chained kernel (likewise)."""
TCGEN05 = replace(WGMMA, softmax_overlap=2.5)
"""Blackwell: as Hopper; an instruction that spans two SMs (cta_group::2) shares what a cluster's row shared. Two query
tiles take turns on the matrix units: cuDNN's 1,235 TFLOPS (FlashAttention-4's 1,605 are 1.3 times as many,
together.ai/blog/flashattention-4) are an exponent of 2.5."""
LIBRARIES: Mapping[Generation, Library] = {
    Generation.VOLTA: MMA_SYNC,
    Generation.TURING: MMA_SYNC,
    Generation.AMPERE: MMA_SYNC,
    Generation.ADA: MMA_SYNC,
    Generation.HOPPER: WGMMA,
    Generation.BLACKWELL: TCGEN05,
}

STATED = SHARES
"""Options of a chip file that replace a constant which belongs to the device (`sim.cost.gpu.sets`)."""
CUDA_CORE_DTYPES = ("fp32", "fp64")
"""Computed on the CUDA cores."""
EXPONENTIALS_PER_LANE = 0.125
"""16 on 128 lanes, where a chip file states no rate of its exponentials."""
HALVES = {"fp16": "bf16", "fp8_e5m2": "fp8_e4m3"}
"""dtypes that run at the rate of another where the chip does not list them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """Data-sheet numbers of one GPU; rates are those of the whole chip at `clock_hz`."""

    name: str
    generation: Generation
    sms: int
    clock_hz: float
    peak_flop_per_s: Mapping[str, float]
    """Dense matrix rate by dtype, 1 MAC = 2 FLOP."""
    dram_bytes_per_s: float
    l2_bytes: float
    smem_bytes_per_sm: float
    l2_bytes_per_s: float = inf
    """What all SMs together read from L2, as micro-benchmarks reach it."""
    lanes_per_sm: float = 64.0
    """fp32 operations per clock and SM."""
    exponentials_per_clock_sm: float = 16.0
    """Special functions per clock and SM."""
    algorithms: tuple[str, ...] = ("direct",)
    """Convolution algorithms of its library ("direct" = implicit GEMM, "winograd_2x2", "winograd_4x4")."""
    stated: Mapping[str, float] = field(default_factory=dict)
    """Constants that the chip file states, in place of those of another GPU."""

    def __post_init__(self) -> None:
        for name in (
            "sms",
            "clock_hz",
            "dram_bytes_per_s",
            "l2_bytes",
            "smem_bytes_per_sm",
            "lanes_per_sm",
            "exponentials_per_clock_sm",
        ):
            if not getattr(self, name) > 0:
                raise ConfigError(f"GPU {self.name}: {name} is {getattr(self, name)}, expected a positive number")

    @property
    def library(self) -> Library:
        return LIBRARIES[self.generation]

    def peak(self, dtype: str) -> float:
        """Dense FLOP/s of `dtype` [FLOP/s]. Raises PrecisionError when the chip has no such rate."""
        for name in (dtype, HALVES.get(dtype, "")):
            if name in self.peak_flop_per_s:
                return self.peak_flop_per_s[name]
        known = ", ".join(sorted(self.peak_flop_per_s))
        raise PrecisionError(
            f'{self.name} has no matrix rate for "{dtype}": expected one of {known}.'
            f"{nearest(dtype, self.peak_flop_per_s)}"
        )


def element_bytes(dtype: str) -> float:
    """Stored bytes of one element. Raises PrecisionError on an unknown dtype."""
    if dtype not in BITS:
        raise PrecisionError(f'dtype "{dtype}" is unknown: expected one of {", ".join(BITS)}.{nearest(dtype, BITS)}')
    return BITS[dtype] / 8


def device_from_chip(chip: Chip, unit: Unit | None = None) -> GpuDevice:
    """Read the numbers that the kernel models need from a chip's unit (its main unit by default).

    Expects `options.generation` and a hierarchy of an on-chip memory (the
    L2), a fan-out over SMs, a memory inside the SM (shared memory), one array.
    Raises: ConfigError: one of these is absent, with its place.
    """
    unit = unit or chip.main_unit
    kinds = [type(level).__name__.lower() for level in unit.hierarchy]
    if problem := gpu_problem(unit.options, kinds):
        raise ConfigError(f"chip {chip.name}: units.{unit.name}.{problem}")
    fanouts = [level for level in unit.hierarchy if isinstance(level, Fanout)]
    first = kinds.index("fanout")
    outer = [x for x in unit.hierarchy[:first] if isinstance(x, Memory)]
    inner = [x for x in unit.hierarchy[first:] if isinstance(x, Memory)]
    sms = fanouts[0].count
    cells = unit.array.rows * unit.array.cols  # of one copy of the unit: a model runs on one
    for fanout in fanouts:
        cells *= fanout.count
    home = chip.memory(unit.home)
    return GpuDevice(
        name=chip.calibration or chip.name,
        generation=Generation(str(unit.options["generation"])),
        sms=sms,
        clock_hz=unit.clock_hz,
        peak_flop_per_s={d: 2 * cells * r * unit.clock_hz for d, r in unit.array.macs_per_cycle.items()},
        dram_bytes_per_s=home.read.at(unit.clock_hz) * unit.clock_hz,
        l2_bytes=outer[-1].capacity_bytes,
        l2_bytes_per_s=outer[-1].read.at(unit.clock_hz) * unit.clock_hz,
        smem_bytes_per_sm=inner[0].capacity_bytes,
        lanes_per_sm=unit.vector.lanes / sms * unit.vector.rates.get("fma", 1.0),
        exponentials_per_clock_sm=unit.vector.lanes / sms * unit.vector.rates.get("exp", EXPONENTIALS_PER_LANE),
        algorithms=chip.algorithms,
        stated={name: float(unit.options[name]) for name in STATED if name in unit.options},  # type: ignore[arg-type]
    )
