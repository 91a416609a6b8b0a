"""Groups of a GPU: one kernel per op, attention fused into one, each costed by `sim.cost.gpu`.

Kernels run one after another from a replayed graph: no host gaps, one launch floor each. Weights and
caches come from DRAM (everything else ran since they were last used); activations may still lie in L2.
Without calibration (`calibration="none"`) the data sheet's rates, the chip's launch time and nothing
kept in L2; then no group is faster than its roofline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.flash import MAX_HEAD_DIM, FlashRegion, called_regions, flash_regions
from sim.hardware.chip import Costing, Unit
from sim.mapping.machine import energies
from sim.mapping.problem import WEIGHT
from sim.results import Term
from sim.schedule.asking import compute_and_widening
from sim.schedule.gpu_kernels import Gpu, Kernel, external_bytes, gpu_of, kernel_of
from sim.schedule.groups import GroupCost, bounds, vector_count, vector_energy, widening_energy
from sim.units import Dimension, format_quantity
from sim.workload.graph import EinsumOp, Graph, MovementOp, Op

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


def _gpus(coster: _Coster) -> tuple[Gpu, ...]:
    if ("gpus",) not in coster.mapped:
        coster.mapped[("gpus",)] = tuple(gpu_of(chip, coster.options.calibration) for chip in coster.chips)
    return coster.mapped[("gpus",)]  # type: ignore[return-value]


def cost_gpu(op: Op, position: int, coster: _Coster) -> GroupCost | None:
    """The group that runs at this position; None where a fused kernel has taken the op in."""
    region = _taken(coster).get(position)
    if region is not None and region.place != position:
        return None
    kernels, form = [], signature(op, coster.graph, region)
    for d, gpu in enumerate(_gpus(coster)):
        key = ("kernel", d, form)
        if key not in coster.mapped:
            coster.mapped[key] = kernel_of(op, gpu, coster, region)
        kernels.append(coster.mapped[key])
    return group(op, coster, kernels, region)  # type: ignore[arg-type]


def _taken(coster: _Coster) -> dict[int, FlashRegion]:
    """Position -> the fused region that takes the op in."""
    if ("taken",) not in coster.mapped:
        regions = flash_regions(coster.graph).values()
        coster.mapped["taken",] = {i: region for region in regions for i in region.members}
    return coster.mapped["taken",]  # type: ignore[return-value]


def signature(op: Op, graph: Graph, region: FlashRegion | None) -> tuple:
    """Equal for ops that cost the same: their work and their tensors, and which of these are one."""
    if region is not None:
        return _flash_signature(region, graph)
    names = (*op.inputs, *op.outputs)
    place = {name: at for at, name in reversed(list(enumerate(names)))}
    tensors = tuple(
        (place[name], t.shape, t.bits, t.density, t.pattern, t.dtype, t.role)
        for name in names
        if (t := graph.tensors[name])
    )
    if isinstance(op, EinsumOp):
        axes = tuple((o.role, o.projection, place[o.tensor]) for o in op.einsum.operands)
        return ("einsum", tuple(op.einsum.ranks.items()), axes, tuple(op.epilogue.items()), len(op.inputs), tensors)
    work = tuple(getattr(op, "primitives", {}).items())
    moved = (tuple(op.read_bytes.values()), tuple(op.write_bytes.values())) if isinstance(op, MovementOp) else ()
    return (op.kind, work, moved, len(op.inputs), tensors)


def _flash_signature(region: FlashRegion, graph: Graph) -> tuple:
    """Beside what a region says of itself: its ops (a mask, other types), what of theirs stays on chip, what comes."""
    places: dict[str, int] = {}
    parts = []
    for op in (graph.ops[i] for i in region.members):
        storages = [graph.tensors[key].storage or key for key in (*op.inputs, *op.outputs)]
        lies = tuple((places.setdefault(one, len(places)), one in region.inside) for one in storages)
        parts.append((signature(op, graph, None), lies))
    outside = tuple(external_bytes(region, graph).items())
    attrs = tuple(sorted(region.region.attrs.items()))
    return ("flash", region.batch, region.writes_cache, attrs, outside, tuple(parts))


def group(op: Op, coster: _Coster, kernels: Sequence[Kernel], region: FlashRegion | None) -> GroupCost:
    """The group of one op, or of the ops of a fused region, from its kernel on every design."""
    graph, n = coster.graph, len(coster.chips)
    ops = [graph.ops[i] for i in region.members] if region else [op]
    lead = graph.ops[region.scores] if region else op

    def column(read: Callable[[Kernel], float]) -> np.ndarray:
        return np.array([float(read(k)) for k in kernels])

    names = list(dict.fromkeys(term for k in kernels for term in k.terms_s))
    resources = {name: column(partial(_resource, name)) for name in kernels[0].resources_s}
    moved = {
        memory: {role: tuple(column(partial(_moved, memory, role, way)) for way in (0, 1)) for role in table}
        for memory, table in kernels[0].moved.items()
    }
    time = column(lambda k: k.time_s)
    clock = np.array([c.main_unit.clock_hz for c in coster.chips])
    macs = sum(o.einsum.macs for o in ops if isinstance(o, EinsumOp))
    energy = _energy_parts(ops, kernels, moved, coster)
    arrays = _gpus(coster)[0].device.sms
    zero = np.zeros(n)
    wide = _wide_head(op, graph)
    return GroupCost(
        op=lead,
        name=lead.name,
        fused=tuple(o.name for o in ops if o is not lead),
        launch_s=column(lambda k: k.launch_s),
        time_s=time,
        terms_s={term: column(partial(_term, term)) for term in names},
        traffic_bytes=moved,  # type: ignore[arg-type]
        home_busy_s=np.minimum(time, resources[f"memory:{coster.unit.home}"]),
        prefetch_s=zero,
        first_weight_bytes=zero,
        first_weight_s=zero,
        footprint_bytes=zero,
        held_bytes=zero,
        capacity_bytes=np.full(n, np.inf),
        energy_j=sum(energy.values(), start=zero),
        energy_parts_j=energy,
        cycles=time * clock,
        macs=macs,
        effective_macs=kernels[0].effective_macs if macs else 0.0,
        vector_ops=sum(vector_count(o) for o in ops),
        mac_slots=column(lambda k: k.mac_slots / arrays) if kernels[0].mac_slots else None,
        bound=bounds(resources, n),
        resources_s=resources,
        cost_class=kernels[0].kind,
        flags=(*kernels[0].flags, *wide),
        bounded=kernels[0].bounded and not wide,
    )


def _wide_head(op: Op, graph: Graph) -> tuple[str, ...]:
    """What the reader must know of attention whose heads no fused kernel takes."""
    region = graph.regions[op.region] if op.region is not None else None
    if region is None or region.kind != "attention" or int(region.attrs.get("head_dim", 0)) <= MAX_HEAD_DIM:
        return ()
    words = (
        f"attention with head dimension {region.attrs['head_dim']}: no fused kernel takes more than {MAX_HEAD_DIM}; "
        "costed as products and softmax apart, which what a library runs instead may exceed many times: no interval"
    )
    return (words,)


def _resource(name: str, kernel: Kernel) -> float:
    return kernel.resources_s[name]


def _moved(memory: str, role: str, way: int, kernel: Kernel) -> float:
    return kernel.moved[memory][role][way]


def _term(term: Term, kernel: Kernel) -> float:
    return kernel.terms_s.get(term, 0.0)


def _energy_parts(
    ops: Sequence[Op], kernels: Sequence[Kernel], moved: Mapping[str, Mapping[str, tuple]], coster: _Coster
) -> dict[str, np.ndarray]:
    """Dynamic energy by component: memories by what they move, MACs, vector work. Shared memory moves
    what L2 delivers, in and out."""
    n, unit = len(coster.chips), coster.unit
    products = [op for op in ops if isinstance(op, EinsumOp)]
    compute, widened = next(iter(unit.array.macs_per_cycle)), False
    if products:
        compute, widened = compute_and_widening(products[0], coster)
    key = ("energies", compute)
    if key not in coster.mapped:
        coster.mapped[key] = energies(coster.subject, unit, compute)
    table = coster.mapped[key]
    parts: dict[str, np.ndarray] = {}
    for level, name in enumerate((unit.home, *(m.name for m in unit.memories))):
        if name in moved:
            read, write = (sum(ways[i] for ways in moved[name].values()) for i in (0, 1))
        else:
            read = write = sum(ways[0] for ways in moved[unit.memories[0].name].values())
        parts[name] = np.zeros(n) + read * table.read[:, level] + write * table.write[:, level]  # type: ignore[attr-defined]
    if products:
        parts["MACs"] = np.zeros(n) + np.array([k.effective_macs for k in kernels]) * table.mac  # type: ignore[attr-defined]
    parts["vector"] = np.zeros(n) + sum(vector_energy(op, coster) for op in ops)
    if widened and len(products) == 1:  # (attention widens nothing: its kernel reads narrow caches as they are)
        weights = coster.graph.tensors[products[0].einsum.operand(WEIGHT).tensor].elements
        parts["vector"] = parts["vector"] + widening_energy(weights, coster)
    return parts


def saved_bytes(graph: Graph) -> float:
    """DRAM bytes that fused attention does not move: its inner tensors, written once and read once."""
    inside = {storage for region in flash_regions(graph).values() for storage in region.inside}
    sizes: dict[str, float] = {}
    for key, tensor in graph.tensors.items():
        storage = tensor.storage or key
        if storage in inside:
            sizes[storage] = max(sizes.get(storage, 0.0), float(tensor.size_bytes))
    return 2 * sum(sizes.values())


def inside_storages(graph: Graph, unit: Unit) -> frozenset[str]:
    """Storages that live inside fused attention (of a framework, calls of it); none where the unit does not fuse."""
    if not unit.costing.gpu:
        return frozenset()
    regions = called_regions(graph) if unit.costing.eager else flash_regions(graph)
    return frozenset(s for region in regions.values() for s in region.inside)


def gpu_notes(groups: Sequence[GroupCost], coster: _Coster) -> list[str]:
    """What the reader of a GPU's estimate should know."""
    if coster.unit.costing is not Costing.GPU_KERNELS:
        return []
    gpu = _gpus(coster)[0]
    notes = ["kernels are replayed from a graph: launch floors, no gaps of the host; weights and caches come from DRAM"]
    if not gpu.calibrated:
        notes.append("no calibration: data-sheet rates, nothing kept in L2, perfect efficiency")
    if saved := saved_bytes(coster.graph):
        count = len(flash_regions(coster.graph))
        size = format_quantity(saved, Dimension.SIZE)
        notes.append(f"{count} attention regions run fused: {size} of scores stay off DRAM")
    flagged: dict[str, list[str]] = {}
    for group in groups:
        for flag in group.flags:
            flagged.setdefault(flag, []).append(group.name)
    return [*notes, *(f"{flag} [{_some(names)}]" for flag, names in flagged.items())]


def _some(names: Sequence[str]) -> str:
    """The first of some ops, and how many there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


__all__ = ["cost_gpu", "gpu_notes", "group", "inside_storages", "saved_bytes"]
