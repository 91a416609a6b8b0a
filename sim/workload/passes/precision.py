"""Element types by role, for the whole graph or op by op."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from types import MappingProxyType

from sim.errors import PrecisionError, nearest
from sim.workload.graph import EinsumOp, Graph, Op, OperandRole, Primitive, Role, Tensor, VectorOp, ViewOp
from sim.workload.passes.sparsify import position_bits
from sim.workload.passes.stored import with_stored
from sim.workload.precision import BITS, Precision

_FLOATING = {"fp64", "fp32", "tf32", "bf16", "fp16"}
"""Types of models as they are written; narrower ones were chosen by a pass and stay."""
CONVERT_KIND = "dovetail.convert"
"""Kind of the ops that a policy inserts where a product wants another type than its factor is stored in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionPolicy:
    """A default, and other precisions for ops whose name or module matches a pattern (fnmatch).

    Patterns are tried in order, the first that matches decides: {"head*": bf16, "layers.0.*": int8}.
    """

    default: Precision
    ops: Mapping[str, Precision] = field(default_factory=dict)
    name: str = ""
    """What results call it; by default its content in words."""
    where: str = "precision policy"
    """The file that it comes from, for messages."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ops", MappingProxyType(dict(self.ops)))
        words = ", ".join([self.default.name, *(f"{pattern}: {one.name}" for pattern, one in self.ops.items())])
        object.__setattr__(self, "name", self.name or words)

    def __hash__(self) -> int:
        return hash((self.default, tuple(self.ops.items()), self.name))

    def __reduce__(self):  # mapping proxies do not pickle
        return (_policy, (self.default, dict(self.ops), self.name, self.where))

    def of(self, op: Op) -> Precision:
        for pattern, precision in self.ops.items():
            if _matches(op, pattern):
                return precision
        return self.default


def _policy(default: Precision, ops: dict[str, Precision], name: str, where: str) -> PrecisionPolicy:
    return PrecisionPolicy(default=default, ops=ops, name=name, where=where)


def _matches(op: Op, pattern: str) -> bool:
    return fnmatchcase(op.name, pattern) or bool(op.module and fnmatchcase(op.module, pattern))


def apply_precision(graph: Graph, precision: Precision | PrecisionPolicy) -> Graph:
    """The graph with floating-point tensors stored in the types of `precision`.

    Weights take the weight type of the op that reads them first, results the activation type of the
    op that makes them, KV caches the KV type; views follow their storage. Integers (token ids,
    indices) and tensors that a quantising pass made integer or fp8, or gave a stored width of their own, stay;
    positions of sparse elements are kept. Movements move the new bytes. Where a policy gives a product another type
    than its factor is stored in, an op of its own converts the factor, one conversion an element; weights and caches
    that are narrower stay, for the array widens them, and vector work converts on its way.

    Needs: nothing. Promises: ops, shapes and MACs as before, but for conversions; applying the same twice changes
    nothing.
    Raises: PrecisionError: a pattern of the policy that matches no op.
    """
    policy = precision if isinstance(precision, PrecisionPolicy) else PrecisionPolicy(default=precision)
    if policy.ops and graph.policy == policy.name:
        return graph
    _check_patterns(graph, policy)
    chosen = _by_storage(graph, policy)
    tensors = {key: _retyped(t, chosen.get(t.storage or t.id, policy.default)) for key, t in graph.tensors.items()}
    typed = with_stored(graph, tensors)
    return _converted(graph, typed, policy).with_(policy=policy.name) if policy.ops else typed


def as_typed(graph: Graph, precision: Precision | PrecisionPolicy) -> Graph:
    """A graph as it runs, which says that its types are those of the policy (a CPU runs a wider form of it)."""
    policy = isinstance(precision, PrecisionPolicy) and graph.policy != precision.name
    return graph.with_(policy=precision.name) if policy else graph


def _check_patterns(graph: Graph, policy: PrecisionPolicy) -> None:
    for pattern in policy.ops:
        if not any(_matches(op, pattern) for op in graph.ops):
            names = dict.fromkeys(name for op in graph.ops for name in (op.name, op.module) if name)
            raise PrecisionError(
                f'{policy.where}: ops: "{pattern}" matches no op and no module of {graph.name or "the graph"}, '
                f'expected a name or a pattern such as "{next(iter(names), "layer1.*")}".{nearest(pattern, names)}'
            )


def _by_storage(graph: Graph, policy: PrecisionPolicy) -> dict[str, Precision]:
    """Storage -> precision of the op that decides for it: its first maker, or its first reader; a view only where
    nothing else touches it."""
    chosen: dict[str, Precision] = {}
    for op in (*(op for op in graph.ops if not isinstance(op, ViewOp)), *graph.ops):
        for name in op.outputs + op.inputs:
            tensor = graph.tensors[name]
            chosen.setdefault(tensor.storage or tensor.id, policy.of(op))
    return chosen


def _converted(graph: Graph, typed: Graph, policy: PrecisionPolicy) -> Graph:
    """The typed graph with the factors of products converted to the types that the policy gives these products.

    Args: graph: the same before it was typed. Each conversion stands right after the op that makes its factor, so that
    it divides no region, and serves every product that wants it.
    """
    made: dict[tuple[str, str], VectorOp] = {}
    tensors, ops = dict(typed.tensors), []
    for op in typed.ops:
        if isinstance(op, EinsumOp):
            wanted = policy.of(op).activation
            factors = {o.tensor: o.role for o in op.einsum.operands if o.role is not OperandRole.OUTPUT}
            for key, role in factors.items():
                if not _must_convert(graph.tensors[key], typed.tensors[key], wanted):
                    continue
                if (key, wanted) not in made:
                    name = f"{op.name}.{role}.to_{wanted}"
                    made[key, wanted] = _conversion(name, key, wanted, op, typed, tensors)
                op = _reading(op, key, made[key, wanted].outputs[0])
        ops.append(op)
    after: dict[str | None, list[VectorOp]] = {}
    makers = {key: op.name for op in typed.ops for key in op.outputs}
    for (key, _), conversion in made.items():
        after.setdefault(makers.get(key), []).append(conversion)
    placed: list[Op] = list(after.get(None, ()))
    for op in ops:
        placed += [op, *after.get(op.name, ())]
    return typed.with_(ops=tuple(placed), tensors=tensors)


def _must_convert(before: Tensor, typed: Tensor, wanted: str) -> bool:
    """Whether a product that works in `wanted` cannot take the factor as it is stored."""
    if before.dtype not in _FLOATING or typed.dtype == wanted:
        return False
    return typed.role not in (Role.WEIGHT, Role.KV_CACHE) or BITS[typed.dtype] > BITS[wanted]


def _conversion(
    name: str, key: str, wanted: str, reader: EinsumOp, graph: Graph, tensors: dict[str, Tensor]
) -> VectorOp:
    """The op that makes `key` again in the type that is wanted; its result is added to the tensors."""
    source = graph.tensors[key]
    made = f"{key}.{wanted}"
    bits = BITS[wanted] + position_bits(source)
    tensors[made] = replace(source, id=made, dtype=wanted, bits=bits, role=Role.ACTIVATION, name="", storage=made)
    return VectorOp(
        name=name,
        kind=CONVERT_KIND,
        inputs=(key,),
        outputs=(made,),
        module=reader.module,
        source=reader.source,
        primitives={Primitive.CONVERT: source.elements},
    )


def _reading(op: EinsumOp, before: str, after: str) -> EinsumOp:
    """The product with another tensor as a factor."""
    operands = tuple(
        replace(o, tensor=after) if o.tensor == before and o.role is not OperandRole.OUTPUT else o
        for o in op.einsum.operands
    )
    inputs = tuple(after if key == before else key for key in op.inputs)
    return replace(op, inputs=inputs, einsum=replace(op.einsum, operands=operands))


def _retyped(tensor: Tensor, precision: Precision) -> Tensor:
    dtype, bits = stored_as(tensor, precision)
    return tensor if (dtype, bits) == (tensor.dtype, tensor.bits) else replace(tensor, dtype=dtype, bits=bits)


def stored_as(tensor: Tensor, precision: Precision) -> tuple[str, float]:
    """(type, bits an element) of a tensor under a precision: that of its role, or its own if a pass chose it."""
    extra = position_bits(tensor)
    if tensor.dtype not in _FLOATING or tensor.bits != BITS[tensor.dtype] + extra:
        return tensor.dtype, tensor.bits
    dtype = _asked(tensor, precision)
    return dtype, BITS[dtype] + extra


def _asked(tensor: Tensor, precision: Precision) -> str:
    """The type of the tensor's role under a precision."""
    return {Role.WEIGHT: precision.weight, Role.KV_CACHE: precision.kv}.get(tensor.role, precision.activation)


def kept_types_note(graph: Graph, precision: Precision | PrecisionPolicy) -> list[str]:
    """What a reader must know of products whose factors keep types of the graph other than the precision asked for."""
    policy = precision if isinstance(precision, PrecisionPolicy) else PrecisionPolicy(default=precision)
    kept: list[set[str]] = []
    products = [op for op in graph.ops if isinstance(op, EinsumOp)]
    for op in products:
        own = policy.of(op)
        factors = [graph.tensors[o.tensor] for o in op.einsum.operands if o.role is not OperandRole.OUTPUT]
        types = [(stored_as(t, own)[0], _asked(t, own)) for t in factors]
        if found := {stored for stored, asked in types if stored.removeprefix("u") != asked.removeprefix("u")}:
            kept.append(found)
    if not kept:
        return []
    types_kept = ", ".join(sorted(set().union(*kept)))
    many = f"{len(kept)} of {len(products)} products keep" if len(products) > 1 else "the product keeps"
    note = (
        f"{many} types of the graph ({types_kept}), not {policy.name}: its builder or a pass chose them; build it in "
        f'the type meant (dtype="{policy.default.activation}") or in fp32, which takes any precision'
    )
    return [note]
