"""Tensor parallelism: one chip's share of a graph, and the collectives between equal chips.

Megatron's split (Shoeybi et al., arXiv:1909.08053, section 3): a product of a whole input is split by columns of its
weight (its own output features), what follows element by element and by head stays split, and a product whose
reduction is split by that is split by rows: each chip has a part of the sum, which an all-reduce completes. Attention
is split by head, vocabulary tables by rows (all-reduced), the KV cache with its heads. What cannot follow a split (a
norm over it, an op that we do not know) gets the whole tensor by an all-gather; what nothing splits runs on every chip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sim.errors import WorkloadError
from sim.workload.graph import (
    UNREAD_WEIGHTS,
    Collective,
    CollectiveOp,
    EinsumOp,
    Graph,
    MovementOp,
    Op,
    OperandRole,
    Region,
    Role,
    Tensor,
    VectorOp,
    ViewOp,
)
from sim.workload.passes.fuse import _ELEMENTWISE
from sim.workload.passes.split_axes import follow_reduction, follow_view, rank_of, share_of, with_rank

VOCABULARY_ROWS = 8192
"""Tables of at least so many rows are split; smaller ones lie whole on every chip."""
_FOLLOWS = _ELEMENTWISE | {"div", "neg", "abs", "pow", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin", "cos",
                           "where", "maximum", "minimum", "square", "to", "_to_copy", "masked_fill"}  # fmt: skip
_MIXES_LAST = {"softmax", "_softmax", "_safe_softmax", "log_softmax", "rms_norm", "native_layer_norm", "layer_norm"}
"""Kinds that mix elements along their last axis only."""
_REDUCES = {"sum", "mean", "prod", "amax", "amin", "max", "min", "any", "all", "var", "std", "var_mean", "std_mean",
            "norm", "linalg_vector_norm", "logsumexp"}  # fmt: skip
_COPIES = {"clone", "contiguous", "copy", "_to_copy", "cat"}
GATHERED_WEIGHT_BYTES = 8 << 20
"""A product whose result is needed whole at once is split only if its weight is at least this large (estimated: its
read must take longer than the latency of a gather, 8 MiB in 2.5 us at 3 TB/s)."""
PARTIAL_BITS = 16
"""Partial sums travel at no less, however narrow the result is (as libraries do: they reduce in fp16 or bf16)."""
_OUTSIDE = (Role.WEIGHT, Role.KV_CACHE)


def tensor_parallel(graph: Graph, chips: int) -> Graph:
    """What one of `chips` equal chips runs, collectives included; notes say what was split.

    Needs: precision applied, epilogues not yet fused. Promises: MACs of split products add up to the graph's over
    the chips; graph inputs and outputs are whole on every chip.
    Raises: WorkloadError: attention heads that do not divide over the chips.
    """
    if chips == 1:
        return graph
    _check_heads(graph, chips)
    placed: dict[str, int] = {}
    whole: frozenset[str] = frozenset()
    while True:  # a weight or cache is placed when its reader is known; what lies before it then follows
        sharder = _Sharder(graph, chips, placed, whole)
        result = sharder.run()
        if futile := sharder.futile():
            placed, whole = {}, whole | futile
        elif sharder.placed == placed:
            return result
        else:
            placed = sharder.placed


def _check_heads(graph: Graph, chips: int) -> None:
    for region in graph.regions.values():
        for name in ("heads", "kv_heads") if region.kind == "attention" else ():
            count = int(region.attrs.get(name, chips))
            if count % chips:
                fits = [n for n in range(1, count + 1) if count % n == 0]
                raise WorkloadError(
                    f"{region.id}: {count} {name.replace('_', ' ')} do not divide over {chips} chips of a tensor "
                    f"parallel group: expected one of {', '.join(map(str, fits))} chips (set system.chips, or "
                    "system.pipeline for more stages of fewer chips)"
                )


class _Sharder:
    """One walk over the ops. `split` maps a tensor to the axis along which it is split; others are whole."""

    def __init__(self, graph: Graph, chips: int, placed: dict[str, int], whole: frozenset[str]) -> None:
        self.graph, self.chips, self.kept_whole = graph, chips, whole
        self.origins: dict[str, frozenset[str]] = {}
        """Split tensor -> the column products whose split it carries."""
        self.gathered: set[str] = set()
        self.useful: set[str] = set()
        self.placed = dict(placed)
        """Axis of weights, caches and their views."""
        self.split: dict[str, int] = dict(placed)
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.ops: list[Op] = []
        self.whole: dict[str, str] = {}
        self.regions: set[str] = set()
        self.count: Counter[str] = Counter()

    def run(self) -> Graph:
        for op in self.graph.ops:
            match op:
                case EinsumOp():
                    self._einsum(op)
                case ViewOp():
                    self._view(op)
                case VectorOp() if self._is_reduction(op):
                    self._reduction(op)
                case VectorOp():
                    self._vector(op)
                case MovementOp() if op.kind == "aten.embedding" and self._is_vocabulary(op):
                    self._embedding(op)
                case MovementOp() if self._name(op) in _COPIES:
                    self._copy(op)
                case _:
                    self._alone(op)
        for key in [k for k, t in self.graph.tensors.items() if t.role is Role.OUTPUT and k in self.split]:
            if not self.graph.consumers.get(key):
                self._output(key)
        tensors = {key: self._local(key) for key in self.tensors}
        used = {key for op in self.ops for key in (*op.inputs, *op.outputs)}
        regions = {key: self._region(key) for key in self.graph.regions}
        return self.graph.with_(
            ops=tuple(self.ops),
            tensors={key: t for key, t in tensors.items() if key in used or key in self.graph.tensors},
            regions=regions,
            notes=(*self.graph.notes, self._note()),
        )

    def futile(self) -> frozenset[str]:
        """Products with a small weight whose split was of no use to any other product."""
        weights = {op.name: op.inputs[1] for op in self.graph.ops if isinstance(op, EinsumOp)}
        lone = self.gathered - self.useful
        return frozenset(n for n in lone if self.graph.tensors[weights[n]].size_bytes < GATHERED_WEIGHT_BYTES)

    # Tensors

    def _local(self, key: str) -> Tensor:
        tensor, axis = self.tensors[key], self.split.get(key)
        return tensor if axis is None else replace(tensor, shape=self._divided(tensor.shape, axis))

    def _divided(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return (*shape[:axis], shape[axis] // self.chips, *shape[axis + 1 :])

    def _carry(self, op: Op, axes: dict[str, int]) -> None:
        """The op's results are split where its inputs were."""
        self.split.update(axes)
        origins = frozenset().union(*(self.origins.get(key, frozenset()) for key in op.inputs))
        self.origins.update(dict.fromkeys(axes, origins))

    def _divides(self, key: str, axis: int) -> bool:
        return 0 <= axis < len(self.tensors[key].shape) and self.tensors[key].shape[axis] % self.chips == 0

    def _gather(self, key: str) -> str:
        """The whole tensor on every chip."""
        if key not in self.split:
            return key
        self.gathered |= self.origins.get(key, frozenset())
        if key not in self.whole:
            made = f"{key}.whole"
            self.tensors[made] = replace(self.tensors[key], id=made, storage=made, role=Role.ACTIVATION)
            self._collective(Collective.ALL_GATHER, key, made)
            self.whole[key] = made
        return self.whole[key]

    def _collective(self, what: Collective, source: str, made: str) -> None:
        tensor = self.tensors[made]
        if what is Collective.ALL_REDUCE:
            tensor = replace(tensor, bits=max(tensor.bits, PARTIAL_BITS))
        producer = next((op for op in reversed(self.ops) if source in op.outputs), None)
        self.ops.append(
            CollectiveOp(
                name=f"{producer.name if producer else source}.{what.value}", kind=f"collective.{what.value}",
                inputs=(source,), outputs=(made,), module=producer.module if producer else "",
                source=producer.source if producer else "", collective=what, chips=self.chips,
                message_bytes=tensor.size_bytes,
            )
        )  # fmt: skip
        self.count[what.value] += 1

    def _output(self, key: str) -> None:
        """A graph output that came out split: its parts are an activation, the gathered whole is the output."""
        made = self._gather(key)
        self.tensors[made] = replace(self.tensors[made], role=Role.OUTPUT)
        self.tensors[key] = replace(self.tensors[key], role=Role.ACTIVATION, storage=f"{key}.part")

    def _part(self, made: str) -> str:
        """A new tensor: a chip's part of the sum `made`."""
        part = f"{made}.part"
        self.tensors[part] = replace(self.tensors[made], id=part, storage=part, role=Role.ACTIVATION, name="")
        return part

    def _place(self, key: str, axis: int) -> bool:
        """Put a weight or cache tensor split at `axis`, and all that it is a view of; False, and nothing is put, where
        one of them cannot be."""
        places: dict[str, int] = {}
        if not self._fits(key, axis, places):
            return False
        self.placed.update(places)
        self.split.update(places)
        return True

    def _fits(self, key: str, axis: int, places: dict[str, int]) -> bool:
        """Whether a tensor and all that it is a view of can be split so; `places` gets their axes."""
        if self.placed.get(key, axis) != axis or not self._divides(key, axis):
            return False
        places[key] = axis
        at = self.graph.producer.get(key)
        for source in self.graph.ops[at].inputs if at is not None else ():
            tensor = self.graph.tensors[source]
            if tensor.role in _OUTSIDE and tensor.storage == self.graph.tensors[key].storage:
                back = follow_view(self.graph.tensors[key], tensor, axis, self.chips)
                if back is None or not self._fits(source, back, places):
                    return False
        return True

    def _sliced(self, key: str, axis: int) -> str | None:
        """The local part of an operand that must be split at `axis`: placed, or cut from the whole for free."""
        if key in self.split:
            return key if self.split[key] == axis else self._sliced(self._gather(key), axis)
        if not self._divides(key, axis):
            return None
        if self.tensors[key].role in _OUTSIDE:
            return key if self._place(key, axis) else None
        made = f"{key}.slice{axis}"
        if made not in self.tensors:
            self.tensors[made] = replace(self.tensors[key], id=made, name="")
            self.split[made] = axis
            self.ops.append(ViewOp(name=made, kind="shard.slice", inputs=(key,), outputs=(made,)))
        return made

    # Ops

    @staticmethod
    def _name(op: Op) -> str:
        return op.kind.rpartition(".")[2].rstrip("_")

    def _alone(self, op: Op) -> None:
        """The op on whole tensors, on every chip."""
        new = {key: self._gather(key) for key in op.inputs}
        self.ops.append(renamed(op, new))
        for key in op.outputs:
            self.split.pop(key, None)
        if isinstance(op, EinsumOp):
            self.count["whole"] += 1

    def _view(self, op: ViewOp) -> None:
        read = op.inputs
        if op.kind == UNREAD_WEIGHTS:  # each chip has its part of them, as of those that are read
            read, unread = op.inputs[:1], op.inputs[1:]
            for key in unread:
                self._place(key, 0)
        source = next((key for key in read if key in self.split), None)
        if source is None:
            if not any(key in self.placed for key in op.outputs):
                self.ops.append(op)
                return
            source = op.inputs[0]
        axes = [
            self.placed[key]
            if key in self.placed
            else follow_view(self.graph.tensors[source], self.graph.tensors[key], self.split[source], self.chips)
            for key in op.outputs
        ]
        if any(axis is None for axis in axes):
            self._alone(op)
            return
        self._carry(op, {key: axis for key, axis in zip(op.outputs, axes, strict=True) if axis is not None})
        self.ops.append(op)

    def _vector(self, op: VectorOp) -> None:
        """Element-wise work stays split; what mixes along another axis (the last one, or a joined one) too."""
        out, name = self.graph.tensors[op.outputs[0]], self._name(op)
        axes = {
            len(out.shape) - len(self.tensors[key].shape) + self.split[key] for key in op.inputs if key in self.split
        }
        axis = next(iter(axes), -1)
        same = all(self.graph.tensors[key].shape == out.shape for key in op.outputs)
        mixes_other = name in _MIXES_LAST and axis != len(out.shape) - 1
        follows = name in _FOLLOWS or mixes_other or (name == "cat" and self._alike(op, axis))
        if len(axes) != 1 or not same or not follows or axis < 0 or out.shape[axis] % self.chips:
            self._alone(op)
            return
        new = {}
        for key in op.inputs:
            shape = self.tensors[key].shape
            at = axis - (len(out.shape) - len(shape))
            cut = at >= 0 and shape[at] == out.shape[axis]
            if cut and key not in self.split and self.tensors[key].role not in _OUTSIDE:
                local = None  # a residual that is whole: one gather here, or one at every later norm
            else:
                local = self._sliced(key, at) if cut else key
            if local is None:
                self._alone(op)
                return
            new[key] = local
        self._divide(op, new, axis)

    def _is_reduction(self, op: VectorOp) -> bool:
        return self._name(op) in _REDUCES and len(op.inputs) == 1 and op.inputs[0] in self.split

    def _reduction(self, op: VectorOp) -> None:
        """One along other axes than the split one."""
        (source,) = op.inputs
        before, out = self.graph.tensors[source], self.graph.tensors[op.outputs[0]]
        axis = follow_reduction(before, out, self.split[source])
        if axis is None:
            self._alone(op)
        else:
            self._divide(op, {}, axis)

    def _divide(self, op: VectorOp, new: Mapping[str, str], axis: int) -> None:
        """The op's work on what each chip has."""
        counts = {p: -(-n // self.chips) for p, n in op.primitives.items()}
        self.ops.append(replace(renamed(op, new), primitives=counts))
        self._carry(op, dict.fromkeys(op.outputs, axis))

    def _alike(self, op: Op, axis: int) -> bool:
        """Whether all inputs are as long as the result along an axis: they are joined along another one."""
        out, shapes = self.graph.tensors[op.outputs[0]], [self.tensors[key].shape for key in op.inputs]
        return all(len(shape) == len(out.shape) and shape[axis] == out.shape[axis] for shape in shapes)

    def _copy(self, op: MovementOp) -> None:
        """Copies and concatenations along another axis than the split one."""
        axes = {self.split[key] for key in op.inputs if key in self.split}
        axis = next(iter(axes), -1)
        if len(axes) != 1 or not self._alike(op, axis) or len(op.outputs) > 1:
            self._alone(op)
            return
        new = {key: local for key in op.inputs if (local := self._sliced(key, axis)) is not None}
        if len(new) < len(set(op.inputs)):
            self._alone(op)
            return
        moved = renamed(op, new)
        self.ops.append(
            replace(
                moved,
                read_bytes={k: n // self.chips for k, n in moved.read_bytes.items()},
                write_bytes={k: n // self.chips for k, n in moved.write_bytes.items()},
            )
        )
        self._carry(op, {op.outputs[0]: axis})

    def _is_vocabulary(self, op: MovementOp) -> bool:
        table = self.graph.tensors[op.inputs[0]]
        large = table.shape[0] >= VOCABULARY_ROWS and table.shape[0] % self.chips == 0
        return table.role is Role.WEIGHT and (large or self.placed.get(table.id) == 0)

    def _embedding(self, op: MovementOp) -> None:
        """Each chip looks up the rows that it has, and zeros for the rest."""
        table, made = op.inputs[0], op.outputs[0]
        if not self._place(table, 0):
            self._alone(op)
            return
        part = self._part(made)
        new = {key: self._gather(key) for key in op.inputs if key != table}
        read = {key: n // self.chips if key == table else n for key, n in op.read_bytes.items()}
        moved = replace(op, read_bytes=read, write_bytes={part: op.write_bytes[made]}, outputs=(part,))
        self.ops.append(renamed(moved, new))
        self._collective(Collective.ALL_REDUCE, part, made)

    def _einsum(self, op: EinsumOp) -> None:
        e = op.einsum
        found = [
            rank
            for operand in e.operands
            if operand.role is not OperandRole.OUTPUT and operand.tensor in self.split
            if operand.tensor not in self.placed or self.graph.tensors[operand.tensor].role is Role.KV_CACHE
            if (rank := rank_of(e, operand, self.split[operand.tensor], self.chips)) is not None
        ]
        rank = found[0] if found else self._column(op)
        new = self._operands(op, rank) if rank is not None else None
        if rank is None or new is None:
            self._alone(op)
            return
        reduces = rank in e.reduction_ranks
        if found:
            self.useful |= frozenset().union(*(self.origins.get(key, frozenset()) for key in op.inputs))
        made = op.outputs[0]
        extras = self._extras(op, rank) if not reduces else {}
        if extras is None:
            self._alone(op)
            return
        part = self._part(made) if reduces else made
        local = share_of(e, rank, self.chips, {**new, made: part})
        self.ops.append(replace(renamed(op, {**new, **extras}), outputs=(part,), einsum=local))
        learned = self.graph.tensors[e.operand(OperandRole.WEIGHT).tensor].role is Role.WEIGHT
        self.count["rows" if reduces else "columns" if learned else "heads"] += 1
        if op.region is not None:
            self.regions.add(op.region)
        if reduces:
            self._collective(Collective.ALL_REDUCE, part, made)
        else:
            axis = with_rank(e, e.output, rank)
            assert axis is not None
            self.split[made] = axis
            self.origins[made] = frozenset([op.name]) if not found else frozenset()

    def _column(self, op: EinsumOp) -> str | None:
        """The output feature rank of a learned product, where it divides; convolutions run whole."""
        e = op.einsum
        weight = e.operand(OperandRole.WEIGHT)
        if any(
            len(axis.terms) > 1 and {"R", "S"} & set(axis.ranks) for axis in e.operand(OperandRole.INPUT).projection
        ):
            return None
        if self.graph.tensors[weight.tensor].role is not Role.WEIGHT or op.name in self.kept_whole:
            return None
        own = weight.ranks & e.output.ranks - e.operand(OperandRole.INPUT).ranks
        fits = [r for r in own if e.ranks[r] % self.chips == 0 and with_rank(e, e.output, r) is not None]
        return max(fits, key=lambda r: (e.ranks[r], r), default=None)

    def _operands(self, op: EinsumOp, rank: str) -> dict[str, str] | None:
        """Local names of both factors under a split of `rank`, or None."""
        new: dict[str, str] = {}
        for operand in op.einsum.operands:
            if operand.role is OperandRole.OUTPUT:
                continue
            if rank not in operand.ranks:
                new[operand.tensor] = self._gather(operand.tensor)
                continue
            axis = with_rank(op.einsum, operand, rank)
            local = self._sliced(operand.tensor, axis) if axis is not None else None
            if local is None:
                return None
            new[operand.tensor] = local
        return new

    def _extras(self, op: EinsumOp, rank: str) -> dict[str, str] | None:
        """A bias or another input of the epilogue, cut like the output."""
        factors = {o.tensor for o in op.einsum.operands}
        axis, out = with_rank(op.einsum, op.einsum.output, rank), self.graph.tensors[op.outputs[0]]
        assert axis is not None
        new = {}
        for key in op.inputs:
            if key in factors:
                continue
            shape = self.tensors[key].shape
            at = 0 if len(shape) == 1 and shape[0] == out.shape[axis] else axis - (len(out.shape) - len(shape))
            cut = at >= 0 and shape[at] == out.shape[axis]
            local = self._sliced(key, at) if cut else self._gather(key)
            if local is None:
                return None
            new[key] = local
        return new

    def _region(self, key: str) -> Region:
        region = self.graph.regions[key]
        if key not in self.regions or region.kind != "attention":
            return region
        heads = {n: int(region.attrs[n]) // self.chips for n in ("heads", "kv_heads") if n in region.attrs}
        return replace(region, attrs={**region.attrs, **heads})

    def _note(self) -> str:
        words = {"columns": "by columns", "rows": "by rows", "heads": "by head", "whole": "whole on every chip"}
        parts = [f"{self.count[key]} {text}" for key, text in words.items() if self.count[key]]
        sent = [f"{self.count[c.value]} {c.value.replace('_', '-')}" for c in Collective if self.count[c.value]]
        return (
            f"tensor parallel over {self.chips} chips: products {', '.join(parts) or 'none'}; "
            f"collectives: {', '.join(sent) or 'none'}; work, energy and area are those of all chips (repeated work "
            "too), memory and traffic those of one"
        )


def renamed(op: Any, new: Mapping[str, str]) -> Any:
    """The op, reading other tensors."""
    inputs = tuple(new.get(key, key) for key in op.inputs)
    if isinstance(op, EinsumOp):
        operands = tuple(replace(o, tensor=new.get(o.tensor, o.tensor)) for o in op.einsum.operands)
        return replace(op, inputs=inputs, einsum=replace(op.einsum, operands=operands))
    if isinstance(op, MovementOp):
        return replace(op, inputs=inputs, read_bytes={new.get(k, k): n for k, n in op.read_bytes.items()})
    return replace(op, inputs=inputs)


__all__ = ["renamed", "tensor_parallel"]
