"""Attention that runs as one kernel: which ops it takes in, and how much of the score matrix it visits.

A fused kernel keeps the queries x keys scores on chip and skips blocks that the mask hides; op by op, the whole
matrix is computed, written and read again. Dao et al., "FlashAttention", NeurIPS 2022, arXiv 2205.14135.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from sim.hardware.chip import Costing, Unit
from sim.workload.graph import BY_HAND, EinsumOp, Graph, MovementOp, Op, Region, Role, VectorOp, ViewOp

MAX_HEAD_DIM = 256
"""Largest head dimension of FlashAttention kernels; beyond it the ops run apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlashRegion:
    """One attention region that a fused kernel runs. Positions count ops of the graph."""

    region: Region
    scores: int
    context: int
    members: tuple[int, ...]
    """Positions of all its ops but views, cache writes included."""
    inside: frozenset[str]
    """Storages that never leave the chip."""
    storage_bytes: Mapping[str, float]
    """Whole size of each storage, of which the region may read some parts only, or one several times."""
    batch: int
    writes_cache: bool

    @property
    def place(self) -> int:
        """Position at which the kernel runs: the last of its ops."""
        return max(self.members)


def visible_pairs(*, queries: int, keys: int, causal: bool, window: int = 0) -> int:
    """(query, key) pairs of one head that a mask leaves; the last query sees the last key.

    Causal: query i of q sees keys 0 .. keys - q + i. A window of w keeps the last w keys of each query.
    Example: 4 queries, 4 keys, causal: 1 + 2 + 3 + 4 = 10; with a window of 2: 1 + 2 + 2 + 2 = 7.
    """
    if not causal:
        return queries * (min(keys, window) if window else keys)
    seen = (min(max(keys - queries + i + 1, 1), keys) for i in range(queries))
    return sum(min(n, window) if window else n for n in seen)


def visible_blocks(*, queries: int, keys: int, rows: int, columns: int, causal: bool, window: int = 0) -> int:
    """Blocks of `rows` queries x `columns` keys of one head that hold some pair of `visible_pairs`.

    Example: 4 queries, 4 keys, causal, blocks of 2 x 2: 1 + 2 = 3; with a window of 1 the diagonal, 2.
    """
    if not causal:
        return ceil(queries / rows) * ceil(keys / columns)
    total = 0
    for first in range(0, queries, rows):
        last = min(first + rows, queries) - 1
        highest = min(max(keys - queries + last, 0), keys - 1)
        lowest = max(keys - queries + first - window + 1, 0) if window else 0
        total += highest // columns - min(lowest, highest) // columns + 1
    return total


def visible_share(region: Region) -> float:
    """Visited share of a region's score matrix, 1 without a mask."""
    sizes = {"queries": int(region.attrs["query_length"]), "keys": int(region.attrs["key_length"])}
    causal, window = bool(region.attrs.get("causal", False)), int(region.attrs.get("window", 0) or 0)
    pairs = visible_pairs(causal=causal, window=window, **sizes)
    return pairs / (sizes["queries"] * sizes["keys"])


def op_share(op: Op, graph: Graph, unit: Unit) -> float:
    """Share of an op's work that the unit does at least: below 1 for masked attention that it may run fused."""
    region = graph.regions.get(op.region or "")
    fuses = unit.costing.gpu or unit.costing is Costing.MAPPED
    if not fuses or region is None or region.kind != "attention":
        return 1.0
    found = flash_regions(graph).get(region.id)
    fused = found is not None and any(graph.ops[i] is op for i in found.members)
    return visible_share(region) if fused and isinstance(op, EinsumOp | VectorOp) else 1.0


_CACHE: dict[int, tuple[Graph, dict[str, FlashRegion]]] = {}


def flash_regions(graph: Graph) -> Mapping[str, FlashRegion]:
    """Region id -> what a fused kernel takes in. The last few graphs are remembered by identity."""
    if id(graph) not in _CACHE or _CACHE[id(graph)][0] is not graph:
        if len(_CACHE) > 8:
            _CACHE.clear()
        _CACHE[id(graph)] = (graph, _find(graph))
    return _CACHE[id(graph)][1]


def called_regions(graph: Graph) -> Mapping[str, FlashRegion]:
    """Of these, what a framework that runs op by op has a kernel for: calls of attention with four axes, not what the
    model wrote as separate ops."""
    return {
        name: region
        for name, region in flash_regions(graph).items()
        if not region.region.attrs.get(BY_HAND) and len(graph.tensors[graph.ops[region.scores].inputs[0]].shape) == 4
    }


def _find(graph: Graph) -> dict[str, FlashRegion]:
    members: dict[str, list[int]] = {}
    touches: dict[str, set[int]] = {}
    for position, op in enumerate(graph.ops):
        if isinstance(op, ViewOp):
            continue
        for key in (*op.inputs, *op.outputs):
            touches.setdefault(graph.tensors[key].storage or key, set()).add(position)
        if op.region is not None and graph.regions[op.region].kind == "attention":
            members.setdefault(op.region, []).append(position)
    whole: dict[str, float] = {}
    for key, tensor in graph.tensors.items():
        storage = tensor.storage or key
        whole[storage] = max(whole.get(storage, 0.0), float(tensor.size_bytes))
    found = {name: _region(graph, graph.regions[name], at, touches, whole) for name, at in members.items()}
    return {name: region for name, region in found.items() if region is not None}


def _region(
    graph: Graph, region: Region, positions: list[int], touches: Mapping[str, set[int]], whole: Mapping[str, float]
) -> FlashRegion | None:
    """The region as one kernel, or None: not two products with element-wise work between, or too wide a head."""
    needed = {"heads", "kv_heads", "head_dim", "query_length", "key_length"}
    products = [i for i in positions if isinstance(graph.ops[i], EinsumOp)]
    plain = all(isinstance(graph.ops[i], EinsumOp | VectorOp) for i in positions)
    if (
        not needed <= set(region.attrs)
        or len(products) != 2
        or not plain
        or int(region.attrs["head_dim"]) > MAX_HEAD_DIM
    ):
        return None
    scores, context = products
    per_head = int(region.attrs["query_length"]) * int(region.attrs["key_length"]) * int(region.attrs["head_dim"])
    batch, rest = divmod(_op(graph, scores).einsum.macs, per_head * int(region.attrs["heads"]))
    if rest or batch < 1:
        return None
    writes = _cache_writes(graph, positions, touches)
    return FlashRegion(
        region=region,
        scores=scores,
        context=context,
        members=tuple(sorted((*positions, *writes))),
        inside=_inside(graph, positions, touches),
        storage_bytes=whole,
        batch=batch,
        writes_cache=bool(writes),
    )


def _op(graph: Graph, position: int) -> EinsumOp:
    op = graph.ops[position]
    assert isinstance(op, EinsumOp)
    return op


def _inside(graph: Graph, positions: list[int], touches: Mapping[str, set[int]]) -> frozenset[str]:
    """Activations that only ops of the region touch."""
    made = {graph.tensors[key].storage or key for i in positions for key in graph.ops[i].outputs}
    kept = {
        graph.tensors[key].storage or key
        for i in positions
        for key in graph.ops[i].outputs
        if graph.tensors[key].role is not Role.ACTIVATION
    }
    return frozenset(storage for storage in made - kept if touches[storage] <= set(positions))


def _cache_writes(graph: Graph, positions: list[int], touches: Mapping[str, set[int]]) -> list[int]:
    """Copies of new keys and values into a cache that the region reads: served by the same launch."""
    operands = [o for i in positions if isinstance(op := graph.ops[i], EinsumOp) for o in op.einsum.operands]
    cached = [graph.tensors[o.tensor] for o in operands if graph.tensors[o.tensor].role is Role.KV_CACHE]
    caches = {tensor.storage or tensor.id for tensor in cached}
    near = {i for storage in caches for i in touches[storage] if i < max(positions)}
    return sorted(
        i
        for i in near
        if isinstance(op := graph.ops[i], MovementOp)
        and op.outputs
        and all((graph.tensors[key].storage or key) in caches for key in op.outputs)
    )
