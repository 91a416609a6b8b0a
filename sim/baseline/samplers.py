"""How one sample is taken: `inner` calls between two readings of the CPU's or the GPU's own clock."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from sim.errors import MeasurementError

if TYPE_CHECKING:
    import torch

Call = Callable[[], object]

COLD_CACHES = 3
"""Rotated operands cover the last-level cache this many times, so that none survives a round."""

MAX_COPIES = 256
"""Operand sets that are rotated at most; smaller operands cannot be measured cold."""

SAMPLE_S = {"cpu": 500e-6, "cuda": 1e-3}
"""Aimed duration of a sample: a thousand times the cost of reading the clock."""

MAX_GRAPH_CALLS = 512
"""Calls in one captured graph at most."""


def copies_for_cold(in_bytes: float, cache_bytes: int) -> int:
    """Operand sets that must be rotated so that each is out of the cache when its turn comes.

    Raises: MeasurementError: the operands are too small. Example: 8 MiB operands, 32 MiB cache: 12.
    """
    copies = ceil(COLD_CACHES * cache_bytes / in_bytes)
    if copies > MAX_COPIES:
        raise MeasurementError(
            f"operands of {in_bytes:.0f} bytes are too small to be measured cold: {copies} copies would be needed to "
            f"leave a cache of {cache_bytes / 2**20:.0f} MiB, {MAX_COPIES} are rotated at most; measure it warm"
        )
    return max(2, copies)


def keep_freed_memory() -> bool:
    """Ask glibc to reuse freed memory instead of returning it to the kernel.

    Otherwise every large output costs page faults, and the time is the kernel's, not the op's; servers
    preload an allocator for the same reason. Returns whether it took effect.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    try:
        library = ctypes.CDLL(None)
        return bool(library.mallopt(m_mmap_max, 0) and library.mallopt(m_trim_threshold, -1))
    except (OSError, AttributeError):
        return False


def rotation(calls: Sequence[Call]) -> Call:
    """One call that runs the given ones in turn."""
    if len(calls) == 1:
        return calls[0]
    position = -1

    def call() -> object:
        nonlocal position
        position = (position + 1) % len(calls)
        return calls[position]()

    return call


def repeated(call: Call, count: int) -> Call:
    """One call that runs the given one `count` times and keeps no result."""

    def run() -> None:
        for _ in range(count):
            call()

    return run


def cpu_sampler(call: Call, *, inner: int, clock_ns: Callable[[], int] = time.perf_counter_ns) -> Callable[[], float]:
    """Seconds per call, over `inner` calls between two readings of the clock."""

    def sample() -> float:
        start = clock_ns()
        for _ in range(inner):
            call()
        return (clock_ns() - start) * 1e-9 / inner

    return sample


def cuda_eager_sampler(call: Call, *, inner: int) -> Callable[[], float]:
    """Seconds per call by CUDA events around `inner` calls: launches and gaps included."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def sample() -> float:
        start.record()
        for _ in range(inner):
            call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3 / inner

    return sample


def captured(calls: Sequence[Call], *, inner: int) -> torch.cuda.CUDAGraph:
    """A CUDA graph of `inner` calls, rotating through `calls`.

    Raises: MeasurementError: the op cannot be captured (it synchronises with the host).
    """
    import torch

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[: min(len(calls), 3)]:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    before = generator.clone_state()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            for i in range(inner):
                calls[i % len(calls)]()
    except RuntimeError as error:
        torch.cuda.synchronize()
        generator.graphsafe_set_state(before)  # else it waits for the end of this capture, and serves nobody else
        raise MeasurementError(f"cannot be captured in a CUDA graph: {str(error).splitlines()[0]}") from error
    return graph


def energy_per_call_j(
    run: Call, *, calls: int, energy_j: Callable[[], float | None], synchronise: Call, window_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float | None:  # fmt: skip
    """Energy of one call [J]: `run` (which makes `calls` calls) is repeated for `window_s` between two readings.

    The counter of a GPU moves every 20 to 100 ms, so that windows below 0.5 s are coarse; idle power is
    part of the reading. None where the device has no counter.
    """
    if window_s <= 0 or energy_j() is None:
        return None
    synchronise()
    before, start, runs = energy_j(), clock(), 0
    while clock() - start < window_s:
        run()
        synchronise()
        runs += 1
    return (energy_j() - before) / (runs * calls)  # type: ignore[operator]
