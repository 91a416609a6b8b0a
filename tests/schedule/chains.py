"""Small networks made of one-op graphs: each reads the result of the one before, with a ReLU between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import sim
from sim.workload.graph import (
    Axis,
    Einsum,
    EinsumOp,
    Graph,
    Operand,
    OperandRole,
    Primitive,
    Region,
    Role,
    Tensor,
    VectorOp,
)


def chain(
    layers: Sequence[Graph], *, relu: bool = True, tied: bool = False, residuals: Mapping[int, str] | None = None
) -> Graph:
    """Layers in a row; shapes must meet. Names: "layer0", "relu0", "layer1", ... `tied`: one weight for all;
    `residuals`: layer -> tensor that is added to its result."""
    ops: list[EinsumOp | VectorOp] = []
    tensors: dict[str, Tensor] = {}
    before = "input"
    for i, layer in enumerate(layers):
        op = layer.ops[0]
        assert isinstance(op, EinsumOp)
        last = i == len(layers) - 1
        names = {
            "input": before,
            "weight": "weight0" if tied else f"weight{i}",
            "output": "output" if last and not relu else f"made{i}",
        }
        for old, new in names.items():
            role = Role.WEIGHT if old == "weight" else Role.OUTPUT if new == "output" else Role.ACTIVATION
            role = Role.INPUT if new == "input" else role
            kept = tensors.get(new)
            assert kept is None or kept.shape == layer.tensors[old].shape
            tensors[new] = replace(layer.tensors[old], id=new, name=new, storage=new, role=role)
        operands = tuple(replace(o, tensor=names[o.tensor]) for o in op.einsum.operands)
        ops.append(
            replace(
                op,
                name=f"layer{i}",
                inputs=(names["input"], names["weight"]),
                outputs=(names["output"],),
                einsum=replace(op.einsum, operands=operands),
            )
        )
        before = names["output"]
        if residuals and i in residuals:
            made, total = tensors[before], f"sum{i}"
            tensors[total] = replace(made, id=total, name=total, storage=total)
            ops.append(
                VectorOp(
                    name=f"add{i}",
                    kind="aten.add",
                    inputs=(before, residuals[i]),
                    outputs=(total,),
                    primitives={Primitive.ADD: made.elements},
                )
            )
            before = total
        if relu:
            result = "output" if last else f"relu{i}"
            made = tensors[before]
            tensors[result] = replace(
                made, id=result, name=result, storage=result, role=Role.OUTPUT if last else Role.ACTIVATION
            )
            ops.append(
                VectorOp(
                    name=f"relu{i}",
                    kind="aten.relu",
                    inputs=(before,),
                    outputs=(result,),
                    primitives={Primitive.COMPARE: made.elements},
                )
            )
            before = result
    return Graph(ops=tuple(ops), tensors=tensors, name="chain")


def products(m: int, widths: Sequence[int], *, relu: bool = True, tied: bool = False) -> Graph:
    """Matrix products of m rows through layers of these widths."""
    return chain([sim.gemm(m, n, k) for k, n in pairwise(widths)], relu=relu, tied=tied)


def convolutions(
    size: int,
    channels: Sequence[int],
    kernels: Sequence[int],
    strides: Sequence[int],
    residuals: Mapping[int, str] | None = None,
) -> Graph:
    """Convolutions with padding kernel // 2; a negative kernel is a depthwise one of as many channels."""
    layers = []
    for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        c, k = channels[i], channels[i + 1]
        groups, width = (c, -kernel) if kernel < 0 else (1, kernel)
        layers.append(sim.conv2d(c, k, size, width, stride=stride, padding=width // 2, groups=groups))
        size = (size + 2 * (width // 2) - width) // stride + 1
    return chain(layers, residuals=residuals)


def attention(
    heads: int, queries: int, keys: int, depth: int, *, shared: int = 1, causal: bool = False, window: int = 0
) -> Graph:
    """softmax(q k^T) v in int8; `shared` queries heads use one head of keys and values. One multiply, one exponential
    and one add per score."""
    kv = heads // shared
    head = Axis(terms=(("H", shared), ("G", 1)), size=heads) if shared > 1 else Axis(terms=(("H", 1),), size=heads)
    own = Axis(terms=(("H", 1),), size=kv)
    lengths = {"M": queries, "N": keys, "K": depth}
    ranks = {"H": kv} | ({"G": shared} if shared > 1 else {})

    def axis(rank: str, size: int) -> Axis:
        return Axis(terms=((rank, 1),), size=size)

    shapes = {
        "q": (heads, queries, depth),
        "k": (kv, keys, depth),
        "v": (kv, keys, depth),
        "scores": (heads, queries, keys),
        "shares": (heads, queries, keys),
        "out": (heads, queries, depth),
    }
    roles = {"q": Role.INPUT, "k": Role.INPUT, "v": Role.INPUT, "out": Role.OUTPUT}
    tensors = {
        key: Tensor(id=key, shape=s, dtype="int8", bits=8, role=roles.get(key, Role.ACTIVATION), name=key, storage=key)
        for key, s in shapes.items()
    }
    first = Einsum(
        ranks=ranks | lengths,
        operands=(
            Operand(tensor="q", role=OperandRole.INPUT, projection=(head, axis("M", queries), axis("K", depth))),
            Operand(tensor="k", role=OperandRole.WEIGHT, projection=(own, axis("N", keys), axis("K", depth))),
            Operand(tensor="scores", role=OperandRole.OUTPUT, projection=(head, axis("M", queries), axis("N", keys))),
        ),
    )
    second = Einsum(
        ranks=ranks | {"M": queries, "N": depth, "K": keys},
        operands=(
            Operand(tensor="shares", role=OperandRole.INPUT, projection=(head, axis("M", queries), axis("K", keys))),
            Operand(tensor="v", role=OperandRole.WEIGHT, projection=(own, axis("K", keys), axis("N", depth))),
            Operand(tensor="out", role=OperandRole.OUTPUT, projection=(head, axis("M", queries), axis("N", depth))),
        ),
    )
    n = heads * queries * keys
    region = Region(
        id="r",
        kind="attention",
        attrs={
            "heads": heads,
            "kv_heads": kv,
            "head_dim": depth,
            "query_length": queries,
            "key_length": keys,
            "causal": causal,
            "window": window,
        },
    )
    ops = (
        EinsumOp(
            name="scores", kind="attention.scores", inputs=("q", "k"), outputs=("scores",), einsum=first, region="r"
        ),
        VectorOp(
            name="softmax",
            kind="attention.softmax",
            inputs=("scores",),
            outputs=("shares",),
            primitives={Primitive.EXP: n, Primitive.ADD: n, Primitive.MUL: n},
            region="r",
        ),
        EinsumOp(
            name="context",
            kind="attention.context",
            inputs=("shares", "v"),
            outputs=("out",),
            einsum=second,
            region="r",
        ),
    )
    return Graph(ops=ops, tensors=tensors, regions={"r": region}, name="attention")
