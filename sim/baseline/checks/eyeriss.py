"""Eyeriss (Chen et al., JSSC 2017): AlexNet and VGG-16 with the row-stationary mapping as given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil

from sim.baseline.checks.check import Check, against, group
from sim.baseline.checks.networks import ConvLayer, alexnet, vgg16
from sim.baseline.published import fact
from sim.hardware.load import load_hardware
from sim.hardware.physical import mac_energy_j, memory_energy_j_per_byte, power_breakdown_w

CHIP = "eyeriss-v1"
CLOCK_HZ = 200e6
LINK_BYTES_PER_S = 480e6
"""64 bit at 60 MHz, the chip's DRAM link."""
WORD_BYTES = 2
PSUM_WORDS_PER_CYCLE = 8
"""Partial sums of the global buffer: four words read and four written a cycle (64-bit ports each way)."""
PES = 168


@dataclass(frozen=True, slots=True, kw_only=True)
class RowStationary:
    """One layer's mapping: strips of `e` output rows, `r` x `t` sets of PEs (r sets of channels, t of
    filters), `m` filters and `n` images per pass; all in the letters of the paper's Table III."""

    e: int
    r: int
    t: int
    m: int
    n: int

    def active_pes(self, layer: ConvLayer) -> int:
        """Kernel rows x strip rows x sets."""
        return layer.s * self.e * self.r * self.t


ALEXNET_MAPPING = (
    RowStationary(e=7, r=1, t=2, m=64, n=1),
    RowStationary(e=27, r=1, t=1, m=64, n=1),
    RowStationary(e=13, r=1, t=4, m=64, n=4),
    RowStationary(e=13, r=2, t=2, m=64, n=4),
    RowStationary(e=13, r=2, t=2, m=64, n=4),
)
"""Recalled from the paper's Table III; unverified, but the active PEs that follow are the published mean."""

ALEXNET_SAVED = (0.30, 0.4125, 0.525, 0.6375, 0.75)
"""Feature-map bytes saved by run-length coding: published for CONV1 (30 %) and CONV5 (75 %); linear between."""

VGG_CHANNELS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4}
"""Input channels summed before partial sums return to the global buffer, per block: inferred from the
buffer traffic of the paper's Table VI as recalled, so what follows from it informs and never gates."""

ALEXNET_BATCH, VGG_BATCH = 4, 3

ALEXNET_ZEROS = (0.0001, 0.387, 0.725, 0.793, 0.776)
"""Zeros among the input activations of each layer, recalled from the paper's tables."""
VGG_ZEROS = 0.5
"""Estimated: the paper's table has them by layer, we do not; half is what a rectifier leaves of symmetric inputs."""


def dram_bytes(layer: ConvLayer, mapping: RowStationary, *, batch: int, saved: float, first: bool) -> float:
    """DRAM bytes of one layer: weights once per n images, inputs once per m filters, outputs once.

    Feature maps are compressed, except the network's input. A strip of e output rows reads
    (e - 1) stride + S input rows, so that strips overlap.
    """
    strips = ceil(layer.q / mapping.e)
    side = layer.input_side or layer.q * layer.stride
    rows = min(side * 1.0 * strips, strips * ((mapping.e - 1) * layer.stride + layer.s)) if strips > 1 else side
    passes = ceil(layer.k / layer.groups / mapping.m)
    inputs = layer.c * side * rows * batch * passes * (1.0 if first else 1 - saved)
    outputs = layer.outputs * batch * (1 - saved)
    weights = layer.weights * ceil(batch / mapping.n)
    return WORD_BYTES * (inputs + outputs + weights)


def alexnet_totals() -> Mapping[str, float]:
    """Processing and total time of the batch [ms], DRAM [MB], active PEs [%]."""
    layers, compute, moved, macs = alexnet(), 0.0, 0.0, 0.0
    for index, (layer, mapping, saved) in enumerate(zip(layers, ALEXNET_MAPPING, ALEXNET_SAVED, strict=True)):
        compute += ALEXNET_BATCH * layer.macs / mapping.active_pes(layer) / CLOCK_HZ
        moved += dram_bytes(layer, mapping, batch=ALEXNET_BATCH, saved=saved, first=index == 0)
        macs += ALEXNET_BATCH * layer.macs
    return {
        "processing": 1e3 * compute,
        "total": 1e3 * (compute + moved / LINK_BYTES_PER_S),
        "dram": moved / 1e6,
        "active": 100 * macs / (compute * CLOCK_HZ) / PES,
    }


def _psum_words(layer: ConvLayer) -> int:
    """Partial sums that pass the global buffer: written after each group of channels, read before the next."""
    returns = ceil(layer.c / VGG_CHANNELS[int(layer.name[4])])
    return VGG_BATCH * layer.outputs * (2 * returns - 1)


def vgg_totals() -> Mapping[str, float]:
    """Processing and total time of the batch [ms]; DRAM bytes as published, since the compression is not."""
    compute = 0.0
    for layer in vgg16():
        cycles = max(VGG_BATCH * layer.macs / PES, _psum_words(layer) / PSUM_WORDS_PER_CYCLE)
        compute += cycles / CLOCK_HZ
    moved = fact(CHIP, "DRAM_accesses", workload="VGG-16/13 CONV").value * 1e6
    return {"processing": 1e3 * compute, "total": 1e3 * (compute + moved / LINK_BYTES_PER_S)}


def power_mw(*, macs: Sequence[float], zeros: Sequence[float], buffer_bytes: float, latency_s: float) -> float:
    """Chip power without DRAM: work per MAC, buffer traffic, and what flows all the time (clocks, leakage).

    A MAC reads a filter weight, an activation and a partial sum and writes the sum back; where the
    activation is zero, only the activation is read. Not counted: the network on chip, the link's pads.
    """
    chip = load_hardware("eyeriss")

    def word_j(memory: str, direction: str = "read") -> float:
        return WORD_BYTES * float(memory_energy_j_per_byte(chip, memory, direction))

    always = word_j("ifmap_spad")
    work = mac_energy_j(chip, "array", "int16") + word_j("filter_spad")
    work += word_j("psum_spad") + word_j("psum_spad", "write")
    dynamic = sum(n * (always + (1 - zero) * work) for n, zero in zip(macs, zeros, strict=True))
    dynamic += buffer_bytes * float(memory_energy_j_per_byte(chip, "GLB", "read"))
    parts = power_breakdown_w(chip) or {}
    return 1e3 * (dynamic / latency_s + parts["clock"] + parts["leakage"])


def alexnet_power_mw() -> float:
    """With the buffer traffic that the paper publishes."""
    return power_mw(
        macs=[ALEXNET_BATCH * layer.macs for layer in alexnet()], zeros=ALEXNET_ZEROS,
        buffer_bytes=1e6 * fact(CHIP, "GLB_accesses", workload="AlexNet/CONV1-5").value,
        latency_s=1e-3 * alexnet_totals()["total"],
    )  # fmt: skip


def vgg_power_mw() -> float:
    """With the partial sums' buffer traffic of the inferred mapping."""
    layers = vgg16()
    return power_mw(
        macs=[VGG_BATCH * layer.macs for layer in layers], zeros=[0.0, *[VGG_ZEROS] * (len(layers) - 1)],
        buffer_bytes=WORD_BYTES * sum(map(_psum_words, layers)), latency_s=1e-3 * vgg_totals()["total"],
    )  # fmt: skip


def _alexnet(key: str) -> float:
    return alexnet_totals()[key]


def _vgg(key: str) -> float:
    return vgg_totals()[key]


@group("eyeriss")
def eyeriss() -> Iterator[Check]:
    """Totals gate, layers inform. The link's transfers are not overlapped: one buffer per operand."""
    name = "AlexNet/CONV1-5"
    totals = {"processing_latency": "processing", "total_latency": "total", "DRAM_accesses": "dram"}
    for quantity, key in totals.items():
        yield against(
            fact(CHIP, quantity, workload=name),
            partial(_alexnet, key),
            id=f"eyeriss.alexnet.{key}",
            tolerance=0.15,
            note="row-stationary mapping recalled; feature-map savings published for the first and last layer",
        )
    yield against(
        fact(CHIP, "active_PEs", workload=name),
        partial(_alexnet, "active"),
        id="eyeriss.alexnet.active",
        tolerance=0.05,
    )
    yield against(
        fact(CHIP, "throughput", workload=name, value=34.7),
        lambda: ALEXNET_BATCH / alexnet_totals()["total"] * 1e3,
        id="eyeriss.alexnet.frames",
        tolerance=0.15,
    )
    yield against(
        fact(CHIP, "throughput", workload="VGG-16/13 CONV"),
        lambda: VGG_BATCH / vgg_totals()["total"] * 1e3,
        id="eyeriss.vgg.frames",
        tolerance=0.15,
        gate=False,
        note="mapping inferred from recalled buffer traffic, DRAM bytes as published: informs",
    )
    for name, compute in (("AlexNet/CONV1-5", alexnet_power_mw), ("VGG-16/13 CONV", vgg_power_mw)):
        yield against(
            fact(CHIP, "chip_power", workload=name),
            compute,
            id=f"eyeriss.{name.split('/')[0].split('-')[0].lower()}.power",
            tolerance=0.15,
            note="energies by ratio to a MAC (eyeriss_ratio), clocks and leakage of the technology tables; zeros of "
            "AlexNet recalled, of VGG-16 estimated",
        )
    for index, (layer, mapping) in enumerate(zip(alexnet(), ALEXNET_MAPPING, strict=True)):
        workload = f"AlexNet/{layer.name}"
        yield against(
            fact(CHIP, "active_PEs", workload=workload),
            partial(mapping.active_pes, layer),
            id=f"eyeriss.alexnet.{layer.name.lower()}.active",
            tolerance=0.0,
        )
        yield against(
            fact(CHIP, "processing_latency", workload=workload),
            partial(_layer_ms, layer, mapping),
            id=f"eyeriss.alexnet.{layer.name.lower()}.processing",
            tolerance=0.15,
        )
        yield against(
            fact(CHIP, "DRAM_accesses", workload=workload),
            partial(_layer_mb, layer, mapping, ALEXNET_SAVED[index], index == 0),
            id=f"eyeriss.alexnet.{layer.name.lower()}.dram",
            tolerance=0.15,
        )


def _layer_ms(layer: ConvLayer, mapping: RowStationary) -> float:
    return 1e3 * ALEXNET_BATCH * layer.macs / mapping.active_pes(layer) / CLOCK_HZ


def _layer_mb(layer: ConvLayer, mapping: RowStationary, saved: float, first: bool) -> float:
    return dram_bytes(layer, mapping, batch=ALEXNET_BATCH, saved=saved, first=first) / 1e6
