"""The graph as it runs: precision applied, epilogues fused, dead code gone, in one order."""

from __future__ import annotations

from dataclasses import replace

from sim.schedule.order import in_order
from sim.workload.graph import Graph
from sim.workload.passes import PrecisionPolicy, apply_precision, dead_code, fuse_epilogues
from sim.workload.precision import BITS, Precision

_CACHE: dict[tuple[int, Precision, bool], tuple[Graph, Graph]] = {}


def prepare(graph: Graph, precision: Precision, *, eager: bool = False) -> Graph:
    """Precision, order, then fusion. The last few results are remembered by identity: a sweep asks often.

    `eager`: as a framework runs it op by op: no epilogue is fused, and between quantised layers activations and
    caches stay in fp32.
    """
    key = (id(graph), precision, eager)
    if key not in _CACHE or _CACHE[key][0] is not graph:
        if len(_CACHE) > 8:
            _CACHE.clear()
        typed = apply_precision(graph, _outside_layers(precision) if eager else precision)
        ready = in_order(dead_code(typed))
        _CACHE[key] = (graph, ready if eager else fuse_epilogues(ready))
    return _CACHE[key][1]


def _outside_layers(precision: Precision | PrecisionPolicy) -> Precision | PrecisionPolicy:
    """The precision with fp32 where it has integer activations or caches."""
    if isinstance(precision, PrecisionPolicy):
        ops = {pattern: _wide(one) for pattern, one in precision.ops.items()}
        return PrecisionPolicy(default=_wide(precision.default), ops=ops)
    return _wide(precision)


def _wide(precision: Precision) -> Precision:
    kept = {name: getattr(precision, name) for name in ("activation", "kv")}
    return replace(precision, **{name: "fp32" if BITS[dtype] <= 8 else dtype for name, dtype in kept.items()})
