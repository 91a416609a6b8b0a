"""Checks that cost a whole network through the public API; without a number where a part is absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

from sim.baseline.checks.check import Check, Rule, against, group
from sim.baseline.published import fact
from sim.errors import ConfigError, WorkloadError
from sim.hardware.chip import Chip


@cache
def hardware(name: str) -> Chip | None:
    """A bundled chip, or None where this installation does not have it."""
    import sim

    if not hasattr(sim, "load_hardware"):
        return None
    try:
        return sim.load_hardware(name)
    except ConfigError:
        return None


@cache
def estimate(workload: str, chip: str, precision: str, knobs: tuple[tuple[str, object], ...] = ()):
    """The uncalibrated estimate of a bundled workload, or None where workload or chip are not bundled."""
    import sim

    target = hardware(chip)
    if target is None or not hasattr(sim, "estimate"):
        return None
    try:
        graph = sim.load_workload(workload, **dict(knobs))
    except WorkloadError:
        return None
    return sim.estimate(graph, target, precision=precision, calibration="none")


def _field(read: Callable[[object], float | None], *key: object) -> float | None:
    found = estimate(*key)
    return None if found is None else read(found)


@group("whole")
def whole() -> Iterator[Check]:
    """Whole networks on bundled chips, as the simulator costs them without calibration."""
    utilization = fact("tesla-fsd-hw3-npu", "mac_utilisation")
    for workload in ("googlenet", "resnet50"):
        yield against(
            utilization,
            partial(_field, lambda e: 100 * e.mac_utilization, workload, "tesla-fsd-npu", "int8"),
            id=f"tesla.estimate.{workload}",
            tolerance=0.0,
            rule=Rule.AT_LEAST,
            gate=False,
            quantity=f"tesla-fsd-npu {workload} MAC utilisation at batch 1, estimated",
            note="the claim names no network; see tesla.array.* for what it needs of a mapping",
        )
    for macs in (2048, 1024, 512, 256, 128, 64, 32):
        yield against(
            fact(f"nvdla-{macs}", "throughput"),
            partial(_field, lambda e: e.throughput_per_s, "resnet50", f"nvdla-{macs}", "int8"),
            id=f"nvdla.estimate.{macs}",
            tolerance=0.15,
            note="the vendor's estimator, not silicon",
        )
        yield against(
            fact(f"nvdla-{macs}", "area"),
            partial(_area, f"nvdla-{macs}"),
            id=f"nvdla.area.{macs}",
            tolerance=0.20,
            note="the vendor's synthesis estimate with memories, 28 nm",
        )
    for network, name in (("alexnet", "AlexNet/CONV1-5"), ("vgg16", "VGG-16/13 CONV")):
        yield against(
            fact("eyeriss-v1", "chip_power", workload=name),
            partial(_field, lambda e: e.power_w and 1e3 * e.power_w, network, "eyeriss-v1", "int16"),
            id=f"eyeriss.power.{network}",
            tolerance=0.15,
            gate=False,
            note="our best mapping and dense operands, so far from the paper's mapping and zero gating",
        )


def _area(chip: str) -> float | None:
    return _field(lambda e: e.area_mm2, "resnet50", chip, "int8")
