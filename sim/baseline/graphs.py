"""What was measured, as the graph that is estimated beside it."""

from __future__ import annotations

from sim.baseline.ops import OpSpec, op_spec
from sim.baseline.record import BaselineRecord
from sim.workload.graph import Graph

OURS = ("gemm_int4", "gemm_block_sparse", "detection_postprocess")
"""Kernels of `sim.baseline.kernels`: one launch each, whatever their graph is made of."""


def record_graph(record: BaselineRecord) -> Graph:
    """The graph that a record measured."""
    import sim

    if record.op is None:
        return sim.load_workload(record.target, **record.knobs)  # type: ignore[arg-type]
    return op_graph(op_spec(record.op, record.knobs, record.precision))


def op_graph(spec: OpSpec) -> Graph:
    """The op as a one-op graph, traced on meta; integer and fp8 ops as their fp32 form (the precision is
    an argument of the estimate). Bare int8 ops get int8 operands; layers quantise at their borders. A 2:4 product is
    a dense layer whose weight `sparsify` marks, as compression does: torch packs such weights on CUDA only."""
    import torch

    import sim
    from sim.baseline.builders import operation
    from sim.baseline.kernels.plain import plain, two_to_four
    from sim.workload.passes import apply_precision, sparsify
    from sim.workload.precision import parse_precision

    if spec.kind in OURS:
        return sim.trace(*plain(spec))
    if spec.kind == "gemm_2to4":
        return sparsify(sim.trace(*two_to_four(spec)), "2:4")
    width = spec.precision if spec.precision in ("fp32", "bf16", "fp16") else "fp32"
    function, operands = operation(op_spec(spec.kind, spec.params, width), "meta")

    class OneOp(torch.nn.Module):
        def forward(self, *arguments):
            return function(*arguments)

    graph = sim.trace(OneOp(), operands)
    bare = spec.precision == "int8" and not spec.kind.endswith("_layer")
    return apply_precision(graph, parse_precision("int8")) if bare else graph
