"""The Schedule: what runs where, in which order, moving what. The only input of both readings.

`sim.analytical` reads it with closed forms, `sim.events` executes it. A group's work is a
sequence of *steps*, one per tile job of its outermost memory border:

    first load | step 0 .. step n-1 | last store

During step i the array (or vector unit) works for `compute_s[i]` while the loads of step i+1, the
store of the tile that step i replaced, and what the tile job itself moves over the same ports are
under way; the step ends when all of them have ended (double buffering in step, atomic jobs):

    T = x_0 + sum_{i<n} max(compute_s[i], x_{i+1} + y_i + z_i) + y_n            x_n = 0

with x, y, z the times of load, store and inner bytes, each the maximum over ports of bytes / rate
plus `setup_s` for a load or store that is not empty (and `pause_s` per step). A group without double buffering adds
instead of taking the maximum.

Prefetch: of the first load x_0, what weights alone cause may pass while the unit's group before computes. It is that
transfer begun earlier, and takes the DMA engine for as long: set-up and latency as well as bytes. It passes while the
engine has done all its own moves of a step and waits for the compute, and at no other time; the first load is shorter
by the share that passed (`prefetch_share`), and takes the port for the rest only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


def prefetch_share(idle_s: np.ndarray, *, saves_s: np.ndarray, moving_s: np.ndarray) -> np.ndarray:
    """The share of a prefetch that has passed when the DMA engine idled for `idle_s` behind the compute.

    It takes the time by which it shortens the first load, and no less than its bytes take at the home port.
    """
    length = np.maximum(saves_s, moving_s)
    return np.minimum(1.0, np.divide(idle_s, length, out=np.ones_like(length), where=length > 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The tile jobs of one group, run-length encoded: step class j happens `repeat[j]` times.

    All arrays have length n (classes in order of time); `last_store_bytes` is moved after the last
    step. Bytes are per port name ("DRAM", "SRAM.write"), none where left out; rates stand in `Schedule.ports`.
    """

    repeat: np.ndarray
    compute_s: np.ndarray
    first_load_bytes: Mapping[str, float] = field(default_factory=dict)
    next_load_bytes: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Loads issued during the step, for the step that follows it (0 in the very last)."""
    store_bytes: Mapping[str, np.ndarray] = field(default_factory=dict)
    inner_bytes: Mapping[str, np.ndarray] = field(default_factory=dict)
    last_store_bytes: Mapping[str, float] = field(default_factory=dict)
    setup_s: float = 0.0
    first_latency_s: float = 0.0
    """Access latency of the home memory, paid once before the first load arrives."""
    double_buffered: bool = True
    pause_s: np.ndarray | None = None
    """Fixed time of each step's transfers (several set-ups, where one per load and store is not it)."""
    last_pause_s: float = 0.0
    """Fixed time before the last store."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Ops that run as one on one unit."""

    name: str
    ops: tuple[str, ...]
    unit: str
    kind: str
    """ "einsum", "vector", "movement" or "transfer"."""
    deps: tuple[int, ...]
    """Positions of the groups whose results it reads."""
    launch_s: float
    steps: Steps
    latency_s: float
    """Alone on the chip, launch included, nothing prefetched."""
    prefetch_bytes: Mapping[str, float] = field(default_factory=dict)
    """Part of `first_load_bytes` that may be moved while the group before still computes (none where weights come from
    another memory on chip: their load then takes no port of the schedule)."""
    prefetch_fixed_s: float = 0.0
    """What that load takes, and the first load is shorter by, beside those bytes at their port: set-up and latency.
    (Less than 0 where other ports hold the first load up.)"""
    instance: int = 0
    pinned: bool = False
    """It runs on that instance wherever else its job is placed: one of several parts side by side."""
    """Which of the unit's `count` copies."""
    macs: int = 0
    energy_j: float | None = None
    held_bytes: Mapping[str, float] = field(default_factory=dict)
    """Memory -> bytes held while it runs: tensors that live, and its tiles."""
    mapping: Mapping[str, object] | None = None
    homes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Groups in issue order. A unit instance runs its groups one at a time, in this order."""

    groups: tuple[Group, ...]
    ports: Mapping[str, float]
    """Port name -> bytes per second, after efficiency."""
    peaks_bytes: Mapping[str, float]
    """Memory -> highest number of bytes held at once."""
    clock_hz: Mapping[str, float]
    """Unit -> clock."""
    units: Mapping[str, int]
    """Unit -> count of instances."""
    notes: tuple[str, ...] = ()
    lasting_bytes: Mapping[str, float] = field(default_factory=dict)
    """Memory ("gpu[1].DRAM" where each stage has its own) -> bytes held from one run to the next: weights, caches."""
    stages: int = 1
    """Of a pipeline of chips."""
    interval_s: float | None = None
    """Of such a pipeline: the least time between two runs, one after the other through its stages."""
