"""What compression did to tensors, in the form that a workload graph takes. Knows no torch.

Annotations map a tensor's name to its stored form: a parameter by its path ("conv1.weight"), the
input of a layer as "conv1:input", all cached keys and values as "kv_cache".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from sim.errors import WorkloadError, nearest
from sim.workload.graph import EinsumOp, Graph, OperandRole, Role, Tensor
from sim.workload.passes.stored import with_stored

KV_CACHE = "kv_cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """How a tensor is stored; None means as before.

    `bits` counts the scales of group quantisation in (int4 with one 16-bit scale per 64: 4.25), `scale_bits` are
    these alone (0.25): a group has its scale, and its zero point, however few of its elements are stored.
    `density` is the stored fraction; `pattern` is "N:M", "unstructured" or None.
    """

    dtype: str | None = None
    bits: float | None = None
    density: float | None = None
    pattern: str | None = None
    scale_bits: float | None = None

    def stored_bits(self, *, dense: float) -> float:
        """Bits per element of the dense tensor, with positions and scales; `dense`: those of an element as it was.

        Example: 2:4 of int4 with 16 bits of scale per 32: 4 / 2 + 1 + 0.5 = 3.5.
        """
        bits, scales = dense if self.bits is None else self.bits, self.scale_bits or 0.0
        density = 1.0 if self.density is None else self.density
        return (bits - scales) * density + scales + self.metadata_bits

    @property
    def metadata_bits(self) -> float:
        """Bits of position information per element of the dense tensor.

        N:M: ceil(log2 M) bits per kept element, as sparse tensor cores store it (2:4: 2 bits, so
        1 bit per dense element; Mishra et al., arXiv 2104.08378, section 3.1). Unstructured: a
        bitmap, 1 bit per element.
        """
        if self.pattern is None:
            return 0.0
        if self.pattern == "unstructured":
            return 1.0
        n, m = (int(part) for part in self.pattern.split(":"))
        return n * (m - 1).bit_length() / m


def merge(first: Mapping[str, Annotation], second: Mapping[str, Annotation]) -> dict[str, Annotation]:
    """Both; where both speak of a field, the second (later) one holds."""
    result = dict(first)
    for name, note in second.items():
        old = result.get(name, Annotation())
        stated = {f.name: getattr(note, f.name) for f in fields(Annotation) if getattr(note, f.name) is not None}
        result[name] = replace(old, **stated)
    return result


def input_name(layer: str) -> str:
    return f"{layer}:input"


def annotate(graph: Graph, annotations: Mapping[str, Annotation]) -> Graph:
    """The graph with stored widths, patterns and densities of the annotated tensors.

    Positions of sparse elements enter the bits of each stored element, as `passes.sparsify` does.
    A layer's input tensor takes the widest form that its annotated einsum readers ask for, and
    stays as it is when an einsum that is not annotated reads it too; views (same storage)
    follow, and so do the bytes of movements. Cached keys and values are the tensors with the KV-cache role.

    Raises: WorkloadError: an annotation names a parameter or layer that the graph has not.
    """
    _check_names(graph, annotations)
    weights = {
        _storage(tensor): annotations[tensor.name]
        for tensor in graph.tensors.values()
        if tensor.name in annotations and tensor.role is Role.WEIGHT
    }
    inputs = _inputs(graph, annotations)

    def note_of(tensor: Tensor) -> Annotation | None:
        match tensor.role:
            case Role.WEIGHT:
                return weights.get(_storage(tensor))
            case Role.KV_CACHE:
                return annotations.get(KV_CACHE)
            case _:
                return inputs.get(_storage(tensor))

    notes = {id_: note_of(tensor) for id_, tensor in graph.tensors.items()}
    return with_stored(
        graph, {id_: t if (note := notes[id_]) is None else _apply(t, note) for id_, t in graph.tensors.items()}
    )


def _check_names(graph: Graph, annotations: Mapping[str, Annotation]) -> None:
    known = {t.name for t in graph.tensors.values() if t.role is Role.WEIGHT and t.name}
    modules = {op.module for op in graph}
    for name in annotations:
        base = name.removesuffix(":input")
        if name == KV_CACHE or name in known or (base != name and base in modules):
            continue
        raise WorkloadError(
            f'graph "{graph.name}": annotated tensor "{name}" is not in the graph.{nearest(name, known | modules)}'
        )


def _inputs(graph: Graph, annotations: Mapping[str, Annotation]) -> dict[str, Annotation]:
    wanted: dict[str, list[Annotation | None]] = {}
    for op in graph:
        if isinstance(op, EinsumOp):
            for operand in op.einsum.operands:
                if operand.role is OperandRole.OUTPUT:
                    continue
                if graph.tensors[operand.tensor].role in (Role.ACTIVATION, Role.INPUT):
                    storage = _storage(graph.tensors[operand.tensor])
                    wanted.setdefault(storage, []).append(annotations.get(input_name(op.module)))
    return {
        storage: max(stated, key=_bits)
        for storage, notes in wanted.items()
        if len(stated := [note for note in notes if note is not None]) == len(notes)
    }


def _bits(note: Annotation) -> float:
    return note.bits or 0.0


def _storage(tensor: Tensor) -> str:
    return tensor.storage or tensor.id


def _apply(tensor: Tensor, note: Annotation) -> Tensor:
    density = note.density if note.density is not None else tensor.density
    bits = note.bits if note.bits is not None else tensor.bits
    beside = note.metadata_bits + (1.0 - density) * (note.scale_bits or 0.0)
    return replace(
        tensor,
        dtype=note.dtype or tensor.dtype,
        bits=bits + beside / density,  # positions, and scales of what is not stored, lie with the elements that are
        density=density,
        pattern=note.pattern or tensor.pattern,
    )
