"""The graph as it runs: precision applied, epilogues fused, dead code gone, in one order."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.errors import WorkloadError
from sim.hardware.chip import Array, Costing, System, Unit
from sim.schedule.order import hide_collectives, in_order
from sim.schedule.residency import resident_memory
from sim.workload.graph import EinsumOp, Graph, Op, ViewOp
from sim.workload.passes import (
    PassLimit,
    PrecisionPolicy,
    apply_precision,
    dead_code,
    fuse_epilogues,
    pipeline,
    split_sparse_passes,
    tensor_parallel,
)
from sim.workload.precision import BITS, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a unit runs a graph."""

    eager: bool = False
    """As a framework does, op by op: no epilogue is fused, and between quantised layers activations stay in fp32, and
    caches but where their own width is asked for."""
    attention: bool = True
    """Whether attention may be one group; where not, its products take epilogues as others do."""
    passes: PassLimit | None = None
    """What the array takes at once of sparse weights, where something limits it."""

    @staticmethod
    def of(unit: Unit) -> Manner:
        """Nothing says which groups a unit by roofline runs; a slice has to stay on chip from one op to the next."""
        mapped = unit.costing is Costing.MAPPED
        apart = unit.costing is Costing.ROOFLINE or (mapped and resident_memory(unit) is None)
        return Manner(eager=unit.costing.eager, attention=not apart, passes=_pass_limit(unit.array))


_CACHE: dict[tuple[int, Precision | PrecisionPolicy, System | None, Manner, bool], tuple[Graph, Graph]] = {}


def prepare(
    graph: Graph,
    precision: Precision | PrecisionPolicy,
    system: System | None = None,
    *,
    manner: Manner | None = None,
    fuse: bool = True,
) -> Graph:
    """Precision, order, one chip's share in a system of chips, fusion (unless `fuse` is off), sparse passes.

    The last few results are remembered by identity: a sweep asks often.

    `manner`: of the unit (default: one without limits). Raises: WorkloadError: an op works on nothing (a batch or a
    width of 0), or no op that works reaches an output.
    """
    manner = manner or Manner()
    key = (id(graph), precision, system, manner, fuse)
    if key not in _CACHE or _CACHE[key][0] is not graph:
        if len(_CACHE) > 8:
            _CACHE.clear()
        _check_extents(graph)
        typed = apply_precision(graph, _outside_layers(precision) if manner.eager else precision)
        live = dead_code(typed)
        _check_work(graph, live)
        ready = in_order(live)
        if system is not None:
            ready = pipeline(hide_collectives(tensor_parallel(ready, system.tensor_parallel)), system.pipeline)
        if fuse and not manner.eager:
            ready = fuse_epilogues(ready, attention=not manner.attention)
        _CACHE[key] = (graph, ready if manner.passes is None else split_sparse_passes(ready, manner.passes))
    return _CACHE[key][1]


def _pass_limit(array: Array) -> PassLimit | None:
    if array.sparse_pass_bytes is None:
        return None
    return PassLimit(
        bytes=array.sparse_pass_bytes,
        patterns=tuple(sorted(array.weight_sparsity)),
        min_channels=array.sparse_min_channels,
        kernels=array.cols,
    )


def _check_extents(graph: Graph) -> None:
    for op in graph.ops:
        empty = [rank for rank, n in op.einsum.ranks.items() if n < 1] if isinstance(op, EinsumOp) else []
        if empty:
            raise WorkloadError(
                f"{op.name} ({op.kind}) works on nothing: rank {', '.join(empty)} has size 0, "
                "expected at least 1; is a knob of the workload 0?"
            )


def _check_work(graph: Graph, live: Graph) -> None:
    if any(_works(op, live) for op in live.ops):
        return
    notes = "".join(f"; {note}" for note in graph.notes)
    raise WorkloadError(
        f"{graph.name or 'the model'}: there is nothing to cost: of its {len(graph.ops)} ops none works on what "
        f"reaches an output{notes}"
    )


def _works(op: Op, graph: Graph) -> bool:
    touched = (*op.inputs, *op.outputs)
    return not isinstance(op, ViewOp) and (not touched or any(graph.tensors[key].elements for key in touched))


def _outside_layers(precision: Precision | PrecisionPolicy) -> Precision | PrecisionPolicy:
    if isinstance(precision, PrecisionPolicy):
        ops = {pattern: outside_layers(one) for pattern, one in precision.ops.items()}
        return PrecisionPolicy(default=outside_layers(precision.default), ops=ops)
    return outside_layers(precision)


def outside_layers(precision: Precision) -> Precision:
    """The precision with fp32 where it has integer activations, or caches whose width follows from these."""
    names = ("activation",) if precision.states_cache else ("activation", "kv")
    kept = {name: getattr(precision, name) for name in names}
    return replace(precision, **{name: "fp32" if BITS[dtype] <= 8 else dtype for name, dtype in kept.items()})
