"""What a graph is made of, in words; and knobs from a command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from sim.errors import WorkloadError
from sim.workload.graph import CollectiveOp, EinsumOp, Graph, MovementOp, Role, UnsupportedOp, VectorOp, ViewOp

_KINDS = {
    EinsumOp: "einsum", VectorOp: "vector", MovementOp: "movement", ViewOp: "view", CollectiveOp: "collective",
    UnsupportedOp: "unsupported",
}  # fmt: skip


def knobs_of(texts: Iterable[str]) -> dict[str, str]:
    """{"batch": "4"} of "batch=4"; the workload converts the values.

    Raises: WorkloadError: text without "=", or a knob given twice.
    """
    knobs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WorkloadError(f'-p {text}: expected knob=value such as "batch=4"')
        if name in knobs:
            raise WorkloadError(f"-p {text}: knob {name} is given twice")
        knobs[name] = value
    return knobs


def role_bytes(graph: Graph) -> dict[Role, int]:
    """Bytes per role, each storage once at its largest tensor."""
    largest: dict[str, tuple[Role, int]] = {}
    for tensor in graph.tensors.values():
        key = tensor.storage or tensor.id
        if key not in largest or tensor.size_bytes > largest[key][1]:
            largest[key] = (tensor.role, tensor.size_bytes)
    total: Counter[Role] = Counter()
    for role, size in largest.values():
        total[role] += size
    return dict(total)


def unsupported(graph: Graph) -> tuple[str, ...]:
    """Ops without a rule with their source lines, one text an op kind and line."""
    found = Counter((op.kind, op.source or op.module) for op in graph.ops if isinstance(op, UnsupportedOp))
    return tuple(f"{kind} at {place or 'an unknown line'} ({n}x)" for (kind, place), n in found.items())


def summary_lines(graph: Graph) -> list[str]:
    """The graph in about ten lines of text."""
    kinds = Counter(_KINDS[type(op)] for op in graph.ops)
    sizes = role_bytes(graph)
    knobs = ", ".join(f"{name}={value}" for name, value in graph.knobs.items())
    lines = [
        f"{graph.name}" + (f" ({knobs})" if knobs else ""),
        f"hash        {graph.hash}",
        f"MACs        {graph.macs:,}",
        f"parameters  {graph.parameters:,} (buffers included)",
        "ops         " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()),
        "bytes       " + ", ".join(f"{sizes[role]:,} {role.replace('_', ' ')}" for role in Role if role in sizes),
        "regions     " + (", ".join(f"{n} {k}" for k, n in _regions(graph).items()) or "none"),
    ]
    lines += [f"note        {note}" for note in graph.notes]
    lines += [f"UNSUPPORTED {text}" for text in unsupported(graph)]
    return lines


def _regions(graph: Graph) -> Counter[str]:
    return Counter(region.kind for region in graph.regions.values())
