"""Checks that cost a whole network through the public API; without a number where a part is absent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from sim.baseline.checks.check import Check, Rule, against, group
from sim.baseline.checks.edge import nvdla_frames_per_s
from sim.baseline.checks.eyeriss import ALEXNET_BATCH, VGG_BATCH
from sim.baseline.checks.networks import ConvLayer, alexnet, vgg16
from sim.baseline.published import fact, facts
from sim.errors import WorkloadError
from sim.hardware.chip import Chip
from sim.resources import data_dir

GPU_BATCH = 256
"""Batch of the GPU rows: large enough that it no longer matters; the submissions choose their own."""

AT_HIGHER_VOLTAGE = 45
"""AlexNet frames/s at 1.17 V: another operating point than the rest."""


def _public(name: str) -> Callable[..., Any] | None:
    """A function of the public API, or None where this installation lacks the part behind it."""
    import sim

    try:
        return getattr(sim, name)
    except (AttributeError, ModuleNotFoundError):
        return None


@cache
def hardware(name: str) -> Chip | None:
    """A bundled chip, or None where this installation does not have it."""
    load = _public("load_hardware")
    return load(name) if load and (data_dir("hw_configs") / f"{name}.yaml").exists() else None


@cache
def estimate(workload: str, chip: str, precision: str, knobs: tuple[tuple[str, object], ...] = ()) -> Any:
    """The uncalibrated estimate of a bundled workload, or None where workload or chip are not bundled."""
    target, load, run = hardware(chip), _public("load_workload"), _public("estimate")
    if target is None or load is None or run is None:
        return None
    try:
        graph = load(workload, **dict(knobs))
    except WorkloadError:
        return None
    return run(graph, target, precision=precision, calibration="none", inputs="resident")


def _field(read: Callable[[Any], float | None], *key: Any) -> float | None:
    found = estimate(*key)
    return None if found is None else read(found)


@group("whole")
def whole() -> Iterator[Check]:
    """Whole networks on bundled chips, as the simulator costs them without calibration."""
    yield from _tesla()
    yield from _nvdla()
    for network, name, batch, layers in (
        ("alexnet", "AlexNet/CONV1-5", ALEXNET_BATCH, alexnet()),
        ("vgg16", "VGG-16/13 CONV", VGG_BATCH, vgg16()),
    ):
        (frames,) = (f for f in facts("eyeriss-v1", "throughput", workload=name) if f.value != AT_HIGHER_VOLTAGE)
        yield against(
            frames,
            partial(_eyeriss_frames_per_s, layers, batch),
            id=f"eyeriss.estimate.{network}",
            tolerance=0.15,
            gate=False,
            quantity=f"eyeriss {name}: frames/s with our best mapping of each layer",
            note="how far our best mapping is from the published one: every layer from and to DRAM, uncompressed",
        )


@cache
def _eyeriss_frames_per_s(layers: tuple[ConvLayer, ...], batch: int) -> float | None:
    """Convolutions one after the other, each on inputs of its own, at the mappings that the mapper finds."""
    import torch

    import sim

    chip = hardware("eyeriss")
    if chip is None:
        return None

    class Layers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(
                torch.nn.Conv2d(x.c, x.k, (x.r, x.s), x.stride, groups=x.groups, bias=False) for x in layers
            )

        def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
            return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]

    with torch.device("meta"):
        sides = [((x.p - 1) * x.stride + x.s, (x.q - 1) * x.stride + x.r) for x in layers]
        inputs = tuple(torch.zeros(batch, x.c, q, p) for x, (p, q) in zip(layers, sides, strict=True))
        graph = sim.trace(Layers().eval(), inputs)
    found = sim.estimate(graph, chip, precision="int16", calibration="none", inputs="resident", what_if=False)
    return batch / found.latency_s


def _tesla() -> Iterator[Check]:
    yield against(
        fact("tesla-fsd-hw3-npu", "mac_utilisation"),
        partial(_field, lambda e: 100 * e.mac_utilization, "resnet50", "tesla-fsd-npu", "int8"),
        id="tesla.estimate.resnet50",
        tolerance=0.0,
        rule=Rule.AT_LEAST,
        gate=False,
        quantity="tesla-fsd-npu resnet50 MAC utilisation at batch 1, estimated",
        note="the claim names no network; see tesla.array.* for what it needs of a mapping",
    )


def _nvdla() -> Iterator[Check]:
    for macs, chip in ((2048, "nvdla-full"), (64, "nvdla-small")):
        row = fact(f"nvdla-{macs}", "throughput")
        unfolded = nvdla_frames_per_s(
            macs,
            buffer_kib=row.knobs["buffer_kib"],
            bandwidth_gb_per_s=row.knobs["bandwidth_gb_per_s"],
            folds_strides=False,
        )
        yield against(
            row,
            partial(_field, lambda e: e.throughput_per_s, "resnet50", chip, "int8"),
            id=f"nvdla.estimate.{macs}",
            tolerance=0.15,
            gate=False,
            note="the vendor's estimator, not silicon: it folds strides into channels, so that six layers load weights "
            f"of zero that the hardware does not need; its rule without them gives {unfolded:.3g} frames/s. Ours with "
            "the mapper and its waiting terms; that launches are hidden and loads of features wait is the vendor's, "
            "and was looked up with these rows in view",
        )


@group("gpu")
def gpu() -> Iterator[Check]:
    """ResNet-50 at large batch against MLPerf's offline results, per chip; informs."""
    path = data_dir("baselines") / "published" / "gpu-models.jsonl"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if row["workload"] != "resnet50" or row["scenario"] != "Offline":
            continue
        knobs = (("batch", GPU_BATCH),)
        yield Check(
            id=f"gpu.resnet50.{row['device']}.{number}",
            source=row["source"],
            quantity=f"{row['device']} ResNet-50 {row['precision']}, offline, per chip",
            unit="samples/s",
            theirs=1 / row["median_s"],
            tolerance=0.25,
            gate=False,
            compute=partial(_field, lambda e: e.throughput_per_s, "resnet50", row["device"], row["precision"], knobs),
            note=f"ours at batch {GPU_BATCH}, from the data sheet; TensorRT fuses and picks kernels by measurement"
            if hardware(row["device"])
            else f"no number: no chip file describes {row['device']}",
        )
