"""Epilogue fusion: what follows a product element by element is done on its results as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from sim.workload.graph import EinsumOp, Graph, Op, OperandRole, Primitive, Role, Tensor, VectorOp, ViewOp
from sim.workload.passes.dead_code import dead_code

_BATCH_NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "batch_norm",
    "cudnn_batch_norm",
}
_ELEMENTWISE = {
    "add", "sub", "mul", "relu", "relu6", "hardtanh", "leaky_relu", "sigmoid", "silu", "hardsigmoid",
    "hardswish", "elu", "gelu", "tanh", "clamp", "clamp_min", "clamp_max", "mish", "softplus", "convert",
}  # fmt: skip
"""Ops that read and write element by element, so that they can follow a product in place: ATen's, and the conversions
of a precision policy."""

RESHAPES = frozenset({"aten.view", "aten._unsafe_view", "aten.unsqueeze", "aten.squeeze"})
"""Views that keep the order of the elements."""


def fuse_epilogues(graph: Graph, *, attention: bool = False) -> Graph:
    """Products take over the bias, batch norm, activation and residual add that follow them.

    Batch norm in inference folds into the weights (Jacob et al., CVPR 2018, section 3.2): it costs
    nothing but the bias that it leaves, one add an output element (none if the product had one),
    and its four vectors become one. Where its channels are none of a weight's (a norm over the rows of a product, or
    of a product of two activations) it stays an fma an element. An add of another tensor brings that tensor in.

    Needs: single assignment, inference. Promises: MACs as before; vector work no more than before;
    only results that one op reads, and that are not graph outputs, disappear. Reshapes between product and
    follower move behind them; transposes and slices end the chain. `attention`: products of attention as well, for
    what does not run it as one.
    """
    return dead_code(_Fuser(graph).run(attention))


class _Fuser:
    """Walks the ops once; `ops` holds what stands at each place now, nothing where an op was taken in."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.ops: list[tuple[Op, ...]] = [(op,) for op in graph.ops]
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.held = _held(graph)
        self.repeats = {op.outputs[0]: graph.tensors[op.inputs[0]].elements for op in graph if op.kind == "aten.repeat"}

    def run(self, attention: bool) -> Graph:
        kept = {key for key, region in self.graph.regions.items() if region.kind == "attention" and not attention}
        for start, op in enumerate(self.graph.ops):
            if isinstance(op, EinsumOp) and op.region not in kept:  # attention has its own fused form
                self._extend(start, op)
        return self.graph.with_(ops=tuple(op for place in self.ops for op in place), tensors=self.tensors)

    def _extend(self, start: int, op: EinsumOp) -> None:
        """Take in followers while each is the only reader of the result, reshapes between them or not.

        The fused op moves to the place of the last one taken in, where its other inputs exist.
        """
        seen = op.outputs[0]
        while True:
            passed: list[int] = []
            place = self._only_reader(seen)
            while place is not None and self._is_reshape(place):
                passed.append(place)
                seen = self.graph.ops[place].outputs[0]
                place = self._only_reader(seen)
            follower = self.ops[place] if place is not None else ()
            fused = self._fused(op, follower[0], seen) if len(follower) == 1 else None
            if fused is None or place is None:
                return
            for gone in (start, *passed):
                self.ops[gone] = ()
            start, seen = place, follower[0].outputs[0]
            op = fused
            self.ops[start] = (op,) if op.outputs[0] == seen else (op, _reshape(follower[0], op.outputs[0]))

    def _only_reader(self, tensor: str) -> int | None:
        """Place of the one op that reads `tensor`, if its value is needed nowhere else."""
        readers = self.graph.consumers.get(tensor, ())
        if len(readers) != 1 or self.graph.tensors[tensor].role not in (Role.ACTIVATION, Role.OUTPUT):
            return None
        storage = self.graph.tensors[tensor].storage
        made = (self.graph.tensors[t].storage for t in self.graph.ops[readers[0]].outputs)
        if self.graph.tensors[tensor].role is Role.OUTPUT and storage not in made:
            return None  # a graph output that is also read: only an update in place makes it vanish
        return readers[0]

    def _is_reshape(self, place: int) -> bool:
        """A view that keeps the order of the elements."""
        op = self.graph.ops[place]
        return isinstance(op, ViewOp) and op.kind in RESHAPES and len(self.ops[place]) == 1

    def _fused(self, op: EinsumOp, follower: Op, seen: str) -> EinsumOp | None:
        """The product with `follower`, which reads its result as `seen`, or None."""
        if not isinstance(follower, VectorOp) or len(follower.outputs) != 1:
            return None
        name = follower.kind.rpartition(".")[2].rstrip("_")
        result = self.tensors[follower.outputs[0]]
        if result.shape != self.tensors[seen].shape or result.elements == 0:
            return None
        if name in _BATCH_NORMS and follower.inputs[0] == seen:
            if self._scales_weight(op, self.tensors[seen], follower.inputs[1:]):
                return self._folded(op, follower)
            return self._merge(op, follower, {Primitive.FMA: 1}, follower.inputs[1:])
        if name not in _ELEMENTWISE:
            return None
        added = {p: n // result.elements for p, n in follower.primitives.items()}
        return self._merge(op, follower, added, tuple(t for t in follower.inputs if t != seen))

    def _scales_weight(self, op: EinsumOp, seen: Tensor, statistics: tuple[str, ...]) -> bool:
        """Whether the norm's channels, axis 1 of what it reads, are channels of a weight that is known before.

        A reshape may make them of several axes of the product, or of a part of one: all must be channels of the weight,
        but those along which the same statistics repeat (torch's instance norm has a channel for each sample's).
        """
        held = [o for o in op.einsum.operands if o.role is not OperandRole.OUTPUT and o.tensor in self.held]
        if not held or seen.shape[1] == 1:
            return bool(held)
        own, within = self.tensors[op.outputs[0]].shape, prod(seen.shape[2:])
        scales = [self.repeats.get(key, self.tensors[key].elements) for key in statistics]
        end = within * max(scales, default=seen.shape[1])
        axes = [i for i, n in enumerate(own) if n != 1 and prod(own[i + 1 :]) < end and prod(own[i:]) > within]
        ranks = {rank for i in axes for rank in op.einsum.output.projection[i].ranks}
        return any(ranks <= operand.ranks for operand in held)

    def _folded(self, op: EinsumOp, follower: VectorOp) -> EinsumOp:
        """Scale goes into the weight, shift into the bias: one vector of the product's channels left."""
        if op.epilogue.get(Primitive.ADD):
            return self._merge(op, follower, {}, ())
        shift = follower.inputs[min(2, len(follower.inputs) - 1)]
        return self._merge(op, follower, {Primitive.ADD: 1}, (shift,))

    def _merge(self, op: EinsumOp, follower: VectorOp, added: Mapping[Primitive, int], others: tuple) -> EinsumOp:
        epilogue = dict(op.epilogue)
        for primitive, count in added.items():
            epilogue[primitive] = epilogue.get(primitive, 0) + count
        result = self._result(op, self.tensors[follower.outputs[0]])
        output = replace(op.einsum.output, tensor=result)
        operands = tuple(output if o is op.einsum.output else o for o in op.einsum.operands)
        return replace(
            op,
            inputs=(*op.inputs, *others),
            outputs=(result,),
            einsum=replace(op.einsum, operands=operands),
            epilogue=epilogue,
        )

    def _result(self, op: EinsumOp, outside: Tensor) -> str:
        """The fused result in the product's own shape: the follower's, or the same memory unreshaped."""
        own = self.tensors[op.outputs[0]]
        if own.shape == outside.shape:
            return outside.id
        flat = f"{outside.id}.flat"
        self.tensors[flat] = replace(outside, id=flat, shape=own.shape, layout=own.layout, name="")
        return flat


def _held(graph: Graph) -> set[str]:
    """Weights, and what is made of weights alone (rounded, normalised), which is the same for every input."""
    held = {key for key, tensor in graph.tensors.items() if tensor.role is Role.WEIGHT}
    for op in graph.ops:
        if held.issuperset(op.inputs):
            held.update(op.outputs)
    return held


def _reshape(follower: Op, source: str) -> ViewOp:
    """The reshape that the product's result still needs, after the follower that was taken in."""
    return ViewOp(
        name=follower.name,
        kind="aten.view",
        inputs=(source,),
        outputs=follower.outputs,
        module=follower.module,
        source=follower.source,
        region=follower.region,
    )
