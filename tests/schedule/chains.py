"""Small networks made of one-op graphs: each reads the result of the one before, with a ReLU between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import sim
from sim.workload.graph import EinsumOp, Graph, Primitive, Role, Tensor, VectorOp


def chain(layers: Sequence[Graph], *, relu: bool = True) -> Graph:
    """Layers in a row; shapes must meet. Names: "layer0", "relu0", "layer1", ..."""
    ops: list[EinsumOp | VectorOp] = []
    tensors: dict[str, Tensor] = {}
    before = "input"
    for i, layer in enumerate(layers):
        op = layer.ops[0]
        assert isinstance(op, EinsumOp)
        last = i == len(layers) - 1
        names = {"input": before, "weight": f"weight{i}", "output": "output" if last and not relu else f"made{i}"}
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


def products(m: int, widths: Sequence[int], *, relu: bool = True) -> Graph:
    """Matrix products of m rows through layers of these widths."""
    return chain([sim.gemm(m, n, k) for k, n in pairwise(widths)], relu=relu)


def convolutions(size: int, channels: Sequence[int], kernels: Sequence[int], strides: Sequence[int]) -> Graph:
    """Convolutions with padding kernel // 2; a negative kernel is a depthwise one of as many channels."""
    layers = []
    for i, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
        c, k = channels[i], channels[i + 1]
        groups, width = (c, -kernel) if kernel < 0 else (1, kernel)
        layers.append(sim.conv2d(c, k, size, width, stride=stride, padding=width // 2, groups=groups))
        size = (size + 2 * (width // 2) - width) // stride + 1
    return chain(layers)
