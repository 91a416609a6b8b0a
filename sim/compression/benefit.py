"""What a compressed model buys on chips: the same network before and after, and why not more.

Loads no torch: it reads graphs, chips and estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sim.compression.annotations import KV_CACHE, Annotation, annotate, input_name
from sim.cost.sparsity import channels
from sim.hardware.chip import Array, Chip
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role
from sim.workload.precision import BITS

if TYPE_CHECKING:
    from sim.results import Estimate

WIDE = ("bf16", "fp16", "tf32", "fp32", "fp8_e4m3", "int8")
"""In this order the uncompressed model takes the first type that a chip's array computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One inference. `weight_bytes` is what the chip has to store, `dram_bytes` what crosses its outermost memory."""

    precision: str
    latency_s: float
    energy_j: float | None
    dram_bytes: float
    weight_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Benefit:
    """Before and after on one chip. `notes` say what the chip cannot use and what bounds the rest."""

    chip: str
    before: Cost
    after: Cost
    notes: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        return self.before.latency_s / self.after.latency_s

    @property
    def energy_gain(self) -> float | None:
        if self.before.energy_j is None or self.after.energy_j is None:
            return None
        return self.before.energy_j / self.after.energy_j


def benefits(
    before: Graph,
    after: Graph,
    annotations: Mapping[str, Annotation],
    chips: Sequence[Chip],
    *,
    estimate: Callable[..., Estimate],
) -> tuple[Benefit, ...]:
    """Cost both graphs on every chip.

    Args:
        before: trace of the original module.
        after: trace of the compressed module without its emulation (pruned shapes included);
            `annotations` are applied here.
        estimate: `sim.estimate` or a stand-in: (graph, chip, precision=name) -> Estimate. The
            compressed graph carries its own widths where annotated; the rest (attention's products,
            residual streams) stays in the wide type of the model before.
    """
    rows = []
    for chip in chips:
        array = chip.main_unit.array
        wide = wide_precision(array)
        marked = annotate(after, as_run(after, annotations, array))
        old = estimate(before, chip, precision=wide)
        new = estimate(marked, chip, precision=wide)
        runs = compressed_precision(annotations, array, wide)
        notes = (*support_notes(annotations, array), *_narrow_notes(marked, array), *_cache_notes(after, annotations))
        rows.append(
            Benefit(
                chip=chip.name,
                before=_cost(old, wide, stored_weight_bytes(before, {}, wide), chip),
                after=_cost(new, runs, stored_weight_bytes(after, annotations, wide), chip),
                notes=(*notes, *_bounds(new)),
            )
        )
    return tuple(rows)


def as_run(graph: Graph, annotations: Mapping[str, Annotation], array: Array) -> dict[str, Annotation]:
    """The annotations with the types in which this array computes; stored bits stay.

    Where the array has no rate for a layer's pair of types, its inputs are computed in the narrowest
    type that holds them, and its weights are widened to it on the way (a cost of its own).
    """
    result = dict(annotations)
    for name, layer in _weights_of_layers(graph):
        note = annotations.get(name, Annotation())
        if note.dtype is None:
            continue
        inputs = input_name(layer)
        given = annotations.get(inputs, Annotation(dtype=wide_precision(array))).dtype or wide_precision(array)
        if compute_name(note.dtype, given) in array.macs_per_cycle:
            continue
        if given not in array.macs_per_cycle and inputs in annotations:
            result[inputs] = replace(annotations[inputs], dtype=_runs_as(note.dtype, given, array))
        if note.dtype.startswith("fp"):  # a byte that is widened; no array mixes fp8 with another type
            result[name] = replace(note, dtype="int8")
    return result


def _weights_of_layers(graph: Graph) -> dict[tuple[str, str], None]:
    """(weight's name, layer) of all products, each once: a weight that two layers share has one name."""
    names = {t.storage or t.id: t.name for t in graph.tensors.values() if t.role is Role.WEIGHT and t.name}
    read = (
        (graph.tensors[operand.tensor], op.module)
        for op in graph
        if isinstance(op, EinsumOp)
        for operand in op.einsum.operands
        if operand.role is not OperandRole.OUTPUT
    )
    return {(names[key], layer): None for t, layer in read if (key := t.storage or t.id) in names}


def wide_precision(array: Array) -> str:
    """The type in which the uncompressed model runs: the first of `WIDE` that the array computes."""
    return next((name for name in WIDE if name in array.macs_per_cycle), next(iter(array.macs_per_cycle)))


def compressed_precision(annotations: Mapping[str, Annotation], array: Array, wide: str) -> str:
    """The precision name that the array is asked for: that of the widest annotated weight and input.

    A type that the array lacks is replaced by the narrowest that holds it (int4 -> int8 -> wide).
    """
    weight, activation = _widest(annotations, inputs=False), _widest(annotations, inputs=True)
    if weight is None:
        return wide
    name = compute_name(weight, activation)
    return name if name in array.macs_per_cycle else _runs_as(weight, activation, array)


def compute_name(weight: str, activation: str | None) -> str:
    """The array rate for operands of these types: "int8", "w4a8"; activations left alone are 16 bits."""
    return weight if weight == activation else f"w{_bits(weight)}a{_bits(activation)}"


def support_notes(annotations: Mapping[str, Annotation], array: Array) -> tuple[str, ...]:
    """What of the compression this array cannot compute with: there only traffic is saved."""
    notes = []
    activation = _widest(annotations, inputs=True)
    weights = sorted({a.dtype for n, a in annotations.items() if a.dtype and _is_weight(n)})
    for dtype in weights:
        name = compute_name(dtype, activation)
        if name not in array.macs_per_cycle:
            runs = _runs_as(dtype, activation, array)
            notes.append(f"no {name} unit: {dtype} weights run as {runs}; only their traffic shrinks")
    if weights and wide_precision(array) == "int8":
        notes.append("this array computes integers alone: the model before is costed in int8 too")
    for pattern in sorted({a.pattern for n, a in annotations.items() if a.pattern and _is_weight(n)}):
        if pattern == "unstructured":
            if not array.skips_zeros:
                notes.append(
                    "zeros are not skipped: unstructured sparsity saves traffic only where it is stored packed"
                )
        elif pattern not in array.weight_sparsity:
            notes.append(f"no {pattern} unit: the pattern saves weight traffic (with its metadata), not compute")
    return tuple(notes)


def _runs_as(weight: str, activation: str | None, array: Array) -> str:
    width = max(BITS.get(weight, 8), BITS.get(activation, 16) if activation else 16)
    if weight.startswith("int") and activation is not None and activation.startswith("int"):
        fitting = [n for n in ("int4", "int8") if n in array.macs_per_cycle and BITS[n] >= width]
        if fitting:
            return fitting[0]
    return wide_precision(array)


def stored_weight_bytes(graph: Graph, annotations: Mapping[str, Annotation], wide: str) -> float:
    """Bytes of all distinct weights: annotated ones as annotated (metadata included), floats as `wide`."""
    total, seen = 0.0, set()
    for tensor in graph.tensors.values():
        key = tensor.storage or tensor.id
        if tensor.role is not Role.WEIGHT or key in seen or not tensor.name:
            continue
        seen.add(key)
        note = annotations.get(tensor.name, Annotation())
        plain = BITS[wide] if tensor.dtype in ("fp32", "fp64", "bf16", "fp16") else tensor.bits
        total += tensor.elements * note.stored_bits(dense=plain) / 8
    return total


def _narrow_notes(marked: Graph, array: Array) -> tuple[str, ...]:
    """Layers whose pattern the array knows but that reduce over too few channels for its rate."""
    narrow = [
        op.module or op.name
        for op in marked
        if isinstance(op, EinsumOp)
        and marked.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor].pattern in array.weight_sparsity
        and channels(op) < array.sparse_min_channels
    ]
    if not narrow:
        return ()
    fewest = array.sparse_min_channels
    return (f"2:4 needs {fewest} channels here: {', '.join(narrow)} have fewer and gain traffic only",)


def _cost(result: Estimate, precision: str, weight_bytes: float, chip: Chip) -> Cost:
    home = result.traffic_bytes.get(chip.main_unit.home)
    return Cost(
        precision=precision,
        latency_s=result.latency_s,
        energy_j=result.energy_j,
        dram_bytes=0.0 if home is None else home.read + home.write,
        weight_bytes=weight_bytes,
    )


def _bounds(result: Estimate) -> tuple[str, ...]:
    """The largest latency term of the compressed network: what stands in the way of more."""
    if not result.breakdown_s:
        return ()
    term, seconds = max(result.breakdown_s.items(), key=lambda item: item[1])
    return (f"{seconds / result.latency_s:.0%} of the compressed latency is {str(term).replace('_', ' ')}",)


def _cache_notes(graph: Graph, annotations: Mapping[str, Annotation]) -> tuple[str, ...]:
    cached = any(tensor.role is Role.KV_CACHE for tensor in graph.tensors.values())
    return () if cached or KV_CACHE not in annotations else ("this graph keeps no KV cache: try -p phase=decode",)


def _is_weight(name: str) -> bool:
    return name != KV_CACHE and not name.endswith(":input")


def _widest(annotations: Mapping[str, Annotation], *, inputs: bool) -> str | None:
    found = [a.dtype for n, a in annotations.items() if a.dtype and n != KV_CACHE and n.endswith(":input") == inputs]
    return max(found, key=lambda dtype: BITS.get(dtype, 8)) if found else None


def _bits(dtype: str | None) -> int:
    return 16 if dtype is None else BITS.get(dtype, 8)
