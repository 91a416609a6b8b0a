"""The workload graph: tensors, and ops that are einsums, vector work, movements or views.

This module is the contract between the front ends (trace, export, ONNX), the passes and
everything that costs a workload. It imports nothing but `sim.errors` and knows neither torch
nor any chip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from math import prod
from types import MappingProxyType


class Role(StrEnum):
    """What a tensor is to the whole network."""

    INPUT = "input"
    """A graph input (an image, token ids, a camera frame)."""
    WEIGHT = "weight"
    """A parameter or buffer; read only."""
    ACTIVATION = "activation"
    """Made by one op and read by others; dies after its last reader."""
    KV_CACHE = "kv_cache"
    """State that outlives the inference; read whole at each decode step."""
    OUTPUT = "output"
    """A graph output."""


class OperandRole(StrEnum):
    """What a tensor is to one einsum. `weight` is the second factor, learned or not."""

    INPUT = "input"
    WEIGHT = "weight"
    OUTPUT = "output"


class Primitive(StrEnum):
    """Elementary work of a vector unit, one result element each."""

    ADD = "add"
    MUL = "mul"
    FMA = "fma"
    COMPARE = "compare"
    """max, min, compare, select, clamp (one per bound)"""
    LOGIC = "logic"
    """bitwise and boolean"""
    EXP = "exp"
    LOG = "log"
    TANH = "tanh"
    ERF = "erf"
    SIN = "sin"
    RSQRT = "rsqrt"
    """reciprocal square root or square root"""
    RECIPROCAL = "reciprocal"
    """reciprocal or division"""
    CONVERT = "convert"
    SHUFFLE = "shuffle"
    """moves an element between lanes or addresses without arithmetic"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A dense or sparse array.

    `shape` is in elements, outermost axis first; `layout` lists the axes from the outermost to the
    contiguous one in memory (default: as in `shape`). `density` is the stored fraction of elements
    (N/M for `pattern` "N:M"); metadata comes on top (`sim.workload.sparsify`). `storage` names the
    memory object: views and in-place results share it.
    """

    id: str
    shape: tuple[int, ...]
    dtype: str
    bits: float
    """Stored bits per element (int4: 4; a group-quantised weight may be fractional)."""
    role: Role
    name: str = ""
    """Path of a parameter or input in the user's model, e.g. "layer1.0.conv1.weight"."""
    layout: tuple[int, ...] = ()
    density: float = 1.0
    pattern: str | None = None
    storage: str = ""

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor occupies, data only, rounded up once."""
        return -int(-self.elements * self.bits * self.density // 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of an operand as an affine function of ranks: index = offset + sum coef * rank.

    `size` is the tensor's extent on this axis: indices outside [0, size) are padding and are
    neither stored nor moved. For a convolution's input row: terms (("P", stride), ("R",
    dilation)), offset = -padding, size = H.
    """

    terms: tuple[tuple[str, int], ...]
    size: int
    offset: int = 0

    @property
    def ranks(self) -> tuple[str, ...]:
        return tuple(rank for rank, _ in self.terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operand:
    """A tensor's part in an einsum."""

    tensor: str
    role: OperandRole
    projection: tuple[Axis, ...]

    @property
    def ranks(self) -> frozenset[str]:
        """The ranks on which this operand's elements depend."""
        return frozenset(rank for axis in self.projection for rank in axis.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Einsum:
    """out[...] += input[...] * weight[...] over an iteration space of named ranks.

    `ranks` maps rank names ("M", "N", "K"; "B", "G", "K", "C", "P", "Q", "R", "S") to sizes.
    Exactly one operand has the output role. MACs are dense; `effective_macs` is after sparsity.
    A rank of size 1 that no operand has (the N of a matrix times a vector) is left out.
    """

    ranks: Mapping[str, int]
    operands: tuple[Operand, ...]

    def __post_init__(self) -> None:
        had = {rank for operand in self.operands for rank in operand.ranks}
        ranks = {rank: size for rank, size in self.ranks.items() if size != 1 or rank in had}
        object.__setattr__(self, "ranks", MappingProxyType(ranks))

    def __reduce__(self):  # mapping proxies do not pickle
        return (_einsum, (dict(self.ranks), self.operands))

    def __hash__(self) -> int:
        return hash((tuple(self.ranks.items()), self.operands))

    @property
    def macs(self) -> int:
        return prod(self.ranks.values())

    def operand(self, role: OperandRole) -> Operand:
        return next(o for o in self.operands if o.role is role)

    @property
    def output(self) -> Operand:
        return self.operand(OperandRole.OUTPUT)

    @property
    def reduction_ranks(self) -> frozenset[str]:
        return frozenset(self.ranks) - self.output.ranks

    @property
    def channel_ranks(self) -> frozenset[str]:
        """What is summed over beside positions of a window, which slides along an axis that the weight has not."""
        weight = self.operand(OperandRole.WEIGHT).ranks
        axes = (frozenset(axis.ranks) for operand in self.operands for axis in operand.projection)
        return self.reduction_ranks.difference(*(ranks for ranks in axes if ranks - weight))


def _einsum(ranks: dict[str, int], operands: tuple[Operand, ...]) -> Einsum:
    return Einsum(ranks=ranks, operands=operands)


BY_HAND = "by_hand"
"""Attribute of a region that the model wrote as separate ops: frameworks run them so, compilers may fuse them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A group of ops that the model wrote as one: attention, a norm, a recurrent layer.

    A chip or the scheduler may run it fused; `attrs` says what is needed for that (for attention:
    heads, kv_heads, head_dim, query_length, key_length, causal, window, by_hand; for a recurrent layer: cell).
    """

    id: str
    kind: str
    attrs: Mapping[str, int | float | str | bool] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.id, self.kind, tuple(sorted(self.attrs.items()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpBase:
    """What all ops share. `inputs` and `outputs` are tensor ids in argument order."""

    name: str
    """Unique in the graph, readable: module path plus kind."""
    kind: str
    """The front end's op, e.g. "aten.convolution" or "aten.mul"."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    module: str = ""
    """Path of the module that ran it, e.g. "layer1.0.conv1"."""
    source: str = ""
    """"file.py:line" in the user's code."""
    region: str | None = None
    """Id of the region that the op belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EinsumOp(OpBase):
    """Multiply-accumulates. `epilogue` is vector work fused onto each output element by a pass."""

    einsum: Einsum
    epilogue: Mapping[Primitive, int] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, self.einsum))


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorOp(OpBase):
    """Element-wise work and reductions: total count per primitive.

    Reads every input once and writes every output once unless `passes` says that the inputs are
    read more often when they do not stay on chip (softmax: 2).
    """

    primitives: Mapping[Primitive, int]
    passes: int = 1

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.primitives.items()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class MovementOp(OpBase):
    """Moves data: gather, embedding, concat, pad, copy, cache update, top-k, NMS.

    `read_bytes` and `write_bytes` are what really moves (an embedding reads the looked-up rows, not
    the table); `primitives` is the vector work that goes with it (compares of a top-k).
    """

    read_bytes: Mapping[str, int]
    """Input tensor id -> bytes."""
    write_bytes: Mapping[str, int]
    primitives: Mapping[Primitive, int] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.read_bytes.items()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOp(OpBase):
    """Free: only the shape or the strides change; outputs share the (first) input's storage."""


UNREAD_WEIGHTS = "view.unread_weights"
"""Kind of the view of an output that also names the weights that no op reads and that lie in memory all the same."""


class Collective(StrEnum):
    """What chips do together; a "send" is from one pipeline stage to the next."""

    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"
    SEND = "send"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveOp(OpBase):
    """Data between `chips` equal chips that run this graph side by side; `message_bytes` is the whole tensor."""

    collective: Collective
    chips: int
    message_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsupportedOp(OpBase):
    """An op without a rule. `estimate` refuses it unless told to cost it as memory traffic."""


Op = EinsumOp | VectorOp | MovementOp | ViewOp | CollectiveOp | UnsupportedOp


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Ops in a topological order, and every tensor that they name.

    `notes` records what the tracer decided (data-dependent answers, assumed expert load).
    `name` and `knobs` say where it came from and do not enter the hash; `policy` names the precision
    policy that its tensors have their types from, if it was one.
    """

    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    regions: Mapping[str, Region] = field(default_factory=dict)
    name: str = ""
    knobs: Mapping[str, object] = field(default_factory=dict)
    batch: int = 1
    notes: tuple[str, ...] = ()
    policy: str = ""

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)

    def __repr__(self) -> str:
        """One line: every op and tensor would fill screens (`ops` and `tensors` have them)."""
        knobs = "".join(f", {name}={value}" for name, value in self.knobs.items())
        return f"<Graph {self.name}{knobs}: {len(self.ops)} ops, {self.macs:,} MACs, {self.parameters:,} parameters>"

    @cached_property
    def hash(self) -> str:
        """Content hash of what is computed: independent of name, knobs and notes."""
        from sim.workload.serialize import graph_to_dict

        content = graph_to_dict(self)
        content = {key: content[key] for key in ("ops", "tensors", "regions", "batch")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def macs(self) -> int:
        return sum(op.einsum.macs for op in self.ops if isinstance(op, EinsumOp))

    @cached_property
    def parameters(self) -> int:
        """Elements of distinct weight storages (tied weights count once, views of a part not at all)."""
        seen: dict[str, int] = {}
        for t in self.tensors.values():
            if t.role is Role.WEIGHT:
                seen[t.storage or t.id] = max(t.elements, seen.get(t.storage or t.id, 0))
        return sum(seen.values())

    @cached_property
    def consumers(self) -> Mapping[str, tuple[int, ...]]:
        """Tensor id -> positions in `ops` of the ops that read it."""
        table: dict[str, list[int]] = {}
        for position, op in enumerate(self.ops):
            for tensor in dict.fromkeys(op.inputs):
                table.setdefault(tensor, []).append(position)
        return {tensor: tuple(positions) for tensor, positions in table.items()}

    @cached_property
    def producer(self) -> Mapping[str, int]:
        """Tensor id -> position in `ops` of the op that makes it."""
        return {tensor: i for i, op in enumerate(self.ops) for tensor in op.outputs}

    def with_(self, **changes: object) -> Graph:
        return replace(self, **changes)  # type: ignore[arg-type]
