"""Element types by role, for the whole graph or op by op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType

from sim.errors import PrecisionError, nearest
from sim.workload.graph import Graph, MovementOp, Op, Role, Tensor
from sim.workload.passes.sparsify import position_bits
from sim.workload.precision import BITS, Precision

_FLOATING = {"fp64", "fp32", "tf32", "bf16", "fp16"}
"""Types of models as they are written; narrower ones were chosen by a pass and stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """A default, and other precisions for ops whose name or module matches a pattern (fnmatch).

    Patterns are tried in order, the first that matches decides: {"head*": bf16, "layers.0.*": int8}.
    """

    default: Precision
    ops: Mapping[str, Precision] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", MappingProxyType(dict(self.ops)))

    def of(self, op: Op) -> Precision:
        for pattern, precision in self.ops.items():
            if fnmatchcase(op.name, pattern) or (op.module and fnmatchcase(op.module, pattern)):
                return precision
        return self.default


def apply_precision(graph: Graph, precision: Precision | PrecisionPolicy) -> Graph:
    """The graph with floating-point tensors stored in the types of `precision`.

    Weights take the weight type of the op that reads them first, results the activation type of the
    op that makes them, KV caches the KV type; views follow their storage. Integers (token ids,
    indices) and tensors that a quantising pass made integer or fp8, or gave a stored width of their own, stay;
    positions of sparse elements are kept. Movements move the new bytes.

    Needs: nothing. Promises: ops, shapes and MACs as before; applying the same twice changes nothing.
    Raises: PrecisionError: a pattern of the policy that matches no op.
    """
    policy = precision if isinstance(precision, PrecisionPolicy) else PrecisionPolicy(default=precision)
    _check_patterns(graph, policy)
    chosen = _by_storage(graph, policy)
    tensors = {key: _retyped(t, chosen.get(t.storage or t.id, policy.default)) for key, t in graph.tensors.items()}
    scale = {key: tensors[key].bits / t.bits for key, t in graph.tensors.items() if tensors[key].bits != t.bits}
    ops = tuple(_rescaled(op, scale) if isinstance(op, MovementOp) else op for op in graph.ops)
    return graph.with_(ops=ops, tensors=tensors)


def _check_patterns(graph: Graph, policy: PrecisionPolicy) -> None:
    for pattern in policy.ops:
        if not any(fnmatchcase(op.name, pattern) or fnmatchcase(op.module, pattern) for op in graph.ops):
            names = [op.name for op in graph.ops]
            raise PrecisionError(f'precision policy: "{pattern}" matches no op.{nearest(pattern, names)}')


def _by_storage(graph: Graph, policy: PrecisionPolicy) -> dict[str, Precision]:
    """Storage -> precision of the op that decides for it: its first maker, or its first reader."""
    chosen: dict[str, Precision] = {}
    for op in graph.ops:
        for name in op.outputs + op.inputs:
            tensor = graph.tensors[name]
            chosen.setdefault(tensor.storage or tensor.id, policy.of(op))
    return chosen


def _retyped(tensor: Tensor, precision: Precision) -> Tensor:
    extra = position_bits(tensor)
    if tensor.dtype not in _FLOATING or tensor.bits != BITS[tensor.dtype] + extra:
        return tensor
    match tensor.role:
        case Role.WEIGHT:
            dtype = precision.weight
        case Role.KV_CACHE:
            dtype = precision.kv
        case _:
            dtype = precision.activation
    return replace(tensor, dtype=dtype, bits=BITS[dtype] + extra)


def _rescaled(op: MovementOp, scale: Mapping[str, float]) -> MovementOp:
    def scaled(moved: Mapping[str, int]) -> dict[str, int]:
        return {name: -int(-n * scale.get(name, 1) // 1) for name, n in moved.items()}

    return replace(op, read_bytes=scaled(op.read_bytes), write_bytes=scaled(op.write_bytes))
