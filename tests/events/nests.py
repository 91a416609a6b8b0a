"""Hand-made and random schedules for the tests of the simulator."""

from __future__ import annotations

import numpy as np

from sim.schedule.plan import Group, Schedule, Steps

NS = 1e-9


def steps(*, repeat, compute, load=None, store=None, inner=None, first=None, last=None, **rest) -> Steps:
    """Bytes as lists per class on port "DRAM" unless given per port; compute in seconds per class."""

    def per_port(b):
        if b is None:
            return {}
        b = b if isinstance(b, dict) else {"DRAM": b}
        return {p: np.asarray(v, dtype=float) for p, v in b.items()}

    def once(b):
        return {} if b is None else (b if isinstance(b, dict) else {"DRAM": b})

    return Steps(
        repeat=np.asarray(repeat),
        compute_s=np.asarray(compute, dtype=float),
        first_load_bytes=once(first),
        next_load_bytes=per_port(load),
        store_bytes=per_port(store),
        inner_bytes=per_port(inner),
        last_store_bytes=once(last),
        **rest,
    )


def group(
    of: Steps, *, name="g", unit="NPU", deps=(), launch_s=0.0, prefetch=None, prefetch_fixed_s=0.0, instance=0,
    energy_j=None,
) -> Group:  # fmt: skip
    return Group(
        name=name,
        ops=(name,),
        unit=unit,
        kind="einsum",
        deps=deps,
        launch_s=launch_s,
        steps=of,
        latency_s=0.0,
        prefetch_bytes=prefetch or {},
        prefetch_fixed_s=prefetch_fixed_s,
        instance=instance,
        energy_j=energy_j,
    )


def schedule(*groups: Group, ports=None, units=None, peaks=None) -> Schedule:
    return Schedule(
        groups=groups,
        ports=ports or {"DRAM": 1e9},
        peaks_bytes=peaks or {},
        clock_hz={},
        units=units or {"NPU": 2, "CPU": 1},
    )


def service(seconds: float, *, unit="NPU", moved: float = 0.0) -> Schedule:
    """One group that computes for `seconds` and, in its one step, moves `moved` bytes at 1 GB/s."""
    return schedule(group(steps(repeat=[1], compute=[seconds], inner=[moved]), unit=unit))


def random_schedule(rng: np.random.Generator, *, groups: int, most: int = 40, prefetch: bool = True) -> Schedule:
    """A chain of random nests on two ports, some not double buffered, some with launch and set-up."""
    made = []
    for at in range(groups):
        n = int(rng.integers(1, 4))
        first = {"DRAM": float(rng.integers(0, 3000)), "SRAM": float(rng.integers(0, 2000))}
        made.append(
            group(
                steps(
                    repeat=rng.integers(1, most, n),
                    compute=rng.integers(0, 3000, n) * NS,
                    load={"DRAM": rng.integers(0, 2500, n), "SRAM": rng.integers(0, 2000, n)},
                    store={"DRAM": rng.integers(0, 1500, n) * rng.integers(0, 2, n)},
                    inner={"SRAM": rng.integers(0, 1500, n)},
                    first=first,
                    last={"DRAM": float(rng.integers(0, 2000))},
                    setup_s=float(rng.integers(0, 2)) * 37 * NS,
                    first_latency_s=float(rng.integers(0, 2)) * 90 * NS,
                    double_buffered=bool(rng.integers(0, 4)),
                ),
                name=f"g{at}",
                deps=(at - 1,) if at else (),
                launch_s=float(rng.integers(0, 2)) * 500 * NS,
                prefetch={"DRAM": first["DRAM"] / 2} if prefetch and at and rng.integers(0, 2) else None,
            )
        )
    return schedule(*made, ports={"DRAM": 1e9, "SRAM": 2e9})
