"""Ways to cut groups of ops into slices: attention, and chains of layers.

Attention (Dao et al., "FlashAttention", NeurIPS 2022, arXiv 2205.14135): a slice is some heads, or a block of a head's
queries with all its keys, so that the scores of a slice never leave the chip. Where the keys of a head do not fit, a
slice is a block of queries and a block of keys: the softmax runs online, which costs the lanes, per query and block of
keys, one comparison, one exponential and two products, and one multiply-add for each element of the result. Blocks of
which a causal mask or a window hides all are left out there; op by op, and where slices have all keys, the full square
is computed. What a row of blocks loads once is then spread over its slices, of which rows have more or fewer.

Chains (Alwani et al., "Fused-layer CNN accelerators", MICRO 2016): a slice is a number of rows of the last result. Rows
that the next window needs again stay in a line buffer, nothing is computed twice, and all weights of the chain stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import NamedTuple

import numpy as np

from sim.cost.flash import FlashRegion, visible_blocks
from sim.mapping.problem import INPUT, WEIGHT
from sim.schedule.residency import layout
from sim.schedule.slices import Slicing, VectorPart
from sim.workload.graph import Einsum, EinsumOp, Graph, MovementOp, Primitive, Role, VectorOp, ViewOp
from sim.workload.passes.fuse import RESHAPES

LONGEST = 16
"""Layers of a chain."""
LEAST_ROWS = 16
"""Query rows of a slice below which an array is hardly used."""
KEY_BLOCKS = (1024, 256, 64)
"""Keys of a block of the online softmax."""


@dataclass(frozen=True, kw_only=True)
class _Ranks:
    """The ranks of the two products of attention by what they are; sizes by name."""

    sizes: Mapping[str, int]
    batch: tuple[str, ...]
    rows: tuple[str, ...]
    keys: tuple[str, str]
    """in the product that makes scores, in the one that uses them"""
    depth: int
    """elements of a result row"""

    @property
    def units(self) -> int:
        """Heads with keys of their own, batch included."""
        return prod(self.sizes[rank] for rank in self.batch)

    @property
    def queries(self) -> int:
        """Rows of scores of one unit."""
        return prod(self.sizes[rank] for rank in self.rows)


def _ranks(scores: Einsum, context: Einsum) -> _Ranks | None:
    """None where the products are not those of attention with one block of keys."""
    out = scores.output.ranks
    batch = scores.operand(INPUT).ranks & scores.operand(WEIGHT).ranks & out
    rows, keys = out - scores.operand(WEIGHT).ranks, out - scores.operand(INPUT).ranks
    reduced = context.reduction_ranks
    shared = {rank: n for rank, n in scores.ranks.items() if rank in batch | rows}
    if len(keys) != 1 or len(reduced) != 1 or not rows or any(context.ranks.get(r) != n for r, n in shared.items()):
        return None
    (key,), (other,) = keys, reduced
    depth = context.macs // (prod(shared.values()) * context.ranks[other])
    if scores.ranks[key] != context.ranks[other]:
        return None
    order = [rank for rank in scores.ranks if rank in shared]
    return _Ranks(
        sizes=shared | {key: scores.ranks[key]},
        batch=tuple(rank for rank in order if rank in batch),
        rows=tuple(sorted((rank for rank in order if rank in rows), key=lambda rank: shared[rank])),
        keys=(key, other),
        depth=depth,
    )


def attention_slicings(region: FlashRegion, graph: Graph, accumulate_bits: int) -> list[Slicing]:
    """Ways to run an attention region, coarsest first: several heads, one head, blocks of queries, and of keys."""
    scores, context = graph.ops[region.scores], graph.ops[region.context]
    assert isinstance(scores, EinsumOp)
    assert isinstance(context, EinsumOp)
    ranks = _ranks(scores.einsum, context.einsum)
    members = tuple(i for i in region.members if not isinstance(graph.ops[i], MovementOp))
    if ranks is None or not _together(members, graph):
        return []
    key, last = ranks.keys[0], ranks.rows[-1]
    one = dict.fromkeys(ranks.batch, 1)
    heads = max(ranks.batch, key=lambda rank: ranks.sizes[rank], default=None)
    ways = [one | {heads: n} for n in _halves(ranks.sizes[heads], 1)[1:]] if heads else []
    blocks = _halves(ranks.sizes[last], LEAST_ROWS)
    cut = bool(ways) or (not heads and len(blocks) > 1)  # of one head with few queries, all of it is the one slice
    ways += [one | {last: m} for m in blocks[cut:]]
    keys = ranks.sizes[key]
    ways += [one | {last: m, key: n} for m in blocks for n in KEY_BLOCKS if n < keys]
    made = _Attention(region, graph, members, scores, context, ranks, accumulate_bits)
    return [made.slicing(sizes) for sizes in ways]


def _halves(n: int, least: int) -> list[int]:
    """n, n / 2, n / 4, ... rounded up, not below `least`."""
    found = [n]
    while found[-1] > least:
        found.append(max(least, ceil(found[-1] / 2)))
    return found


def _together(members: Sequence[int], graph: Graph) -> bool:
    """Whether nothing but views stands between the ops of a group."""
    between = range(min(members), max(members) + 1)
    return all(i in members or isinstance(graph.ops[i], ViewOp) for i in between)


@dataclass(frozen=True)
class _Attention:
    """What the ways to cut one attention region share."""

    region: FlashRegion
    graph: Graph
    members: tuple[int, ...]
    scores: EinsumOp
    context: EinsumOp
    ranks: _Ranks
    accumulate_bits: int

    def slicing(self, sizes: Mapping[str, int]) -> Slicing:
        """`sizes`: rank -> extent of a slice; what is not named is whole."""
        ranks, key = self.ranks, self.ranks.keys[0]
        units = prod(ceil(ranks.sizes[r] / sizes.get(r, ranks.sizes[r])) for r in ranks.batch)
        blocks = prod(ceil(ranks.sizes[r] / sizes.get(r, ranks.sizes[r])) for r in ranks.rows)
        whole_keys, keys = ranks.sizes[key], sizes.get(key, ranks.sizes[key])
        pieces = ceil(whole_keys / keys)
        outer, inner = (units * blocks, pieces) if pieces > 1 else (units, blocks) if blocks > 1 else (1, units)
        square = units * blocks * pieces
        seen = self._seen(sizes) if pieces > 1 else blocks * pieces
        if seen < blocks * pieces:
            outer, inner = units, seen
        count = outer * inner
        q, k, v, out = (
            op.einsum.operand(role).tensor if role else op.einsum.output.tensor
            for op, role in ((self.scores, INPUT), (self.scores, WEIGHT), (self.context, WEIGHT), (self.context, None))
        )
        size = {key: float(self.graph.tensors[key].size_bytes) for key in (q, k, v, out)}
        if pieces > 1:
            # (Keys that no query sees are loaded once all the same, as the compulsory traffic of bounds has them.)
            load_outer = {q: size[q] / units / blocks}
            load_inner = {x: size[x] / units / min(pieces, seen) for x in (k, v)}
        elif blocks > 1:
            load_outer, load_inner = {x: size[x] / units for x in (k, v)}, {q: size[q] / count}
        else:
            load_outer, load_inner = {}, {x: size[x] / count for x in (q, k, v)}
        rows = prod(min(n, sizes.get(r, n)) for r, n in ranks.sizes.items() if r != key)
        masks = self._masks(rows * keys, sizes)
        result = rows * ranks.depth * self.accumulate_bits / 8 if pieces > 1 else 0.0
        buffer = 2 * sum(self._inner_sizes()) / square + 2 * result
        if count < square:  # rows of blocks differ in length: what each loads and stores once, spread over the slices
            load_outer, load_inner = {}, load_inner | {q: size[q] / count}
            buffer += 2 * (size[q] + size[out]) * (1 / units / blocks - 1 / count)
        vectors = [self._part(op, square, masks) for i in self.members if isinstance(op := self.graph.ops[i], VectorOp)]
        online = {Primitive.COMPARE: rows, Primitive.EXP: rows, Primitive.MUL: 2 * rows,
                  Primitive.FMA: rows * ranks.depth} if pieces > 1 else {}  # fmt: skip
        if online:
            vectors.append(VectorPart(primitives=online, read_bytes=result, write_bytes=result))
        shared = {r: sizes[r] for r in (*ranks.batch, *ranks.rows) if r in sizes}
        return Slicing(
            what=self._words(rows, keys, pieces, skips=count < square),
            members=self.members,
            outer=outer,
            inner=inner,
            cuts=((self.scores, shared | {key: keys}), (self.context, shared | {ranks.keys[1]: keys})),
            vectors=tuple(vectors),
            load_outer=load_outer,
            load_inner=load_inner | masks,
            store={out: size[out] / count},
            buffer_bytes=buffer,
            inside=self.region.inside,
            keys=keys,
            visited=count / square,
            online_ops=sum(online.values()) * count,
        )

    def _seen(self, sizes: Mapping[str, int]) -> int:
        """Blocks of queries and keys of one unit that the mask leaves, at least in part."""
        ranks, attrs = self.ranks, self.region.region.attrs
        last, key = ranks.rows[-1], ranks.keys[0]
        causal = bool(attrs.get("causal", False)) and ranks.sizes[last] == int(attrs["query_length"])
        return visible_blocks(
            queries=ranks.sizes[last],
            keys=ranks.sizes[key],
            rows=sizes.get(last, ranks.sizes[last]),
            columns=sizes.get(key, ranks.sizes[key]),
            causal=causal,
            window=int(attrs.get("window", 0) or 0),
        )

    def _words(self, rows: int, keys: int, pieces: int, *, skips: bool) -> str:
        how = f"{', online softmax' if pieces > 1 else ''}{', hidden blocks left out' if skips else ''}"
        return f"attention ({rows} queries x {keys} keys a slice{how})"

    def _inner_sizes(self) -> list[float]:
        largest: dict[str, float] = {}
        for i in self.members:
            for name in self.graph.ops[i].outputs:
                tensor = self.graph.tensors[name]
                storage = tensor.storage or name
                if storage in self.region.inside:
                    largest[storage] = max(largest.get(storage, 0.0), float(tensor.size_bytes))
        return list(largest.values())

    def _masks(self, elements: int, sizes: Mapping[str, int]) -> dict[str, float]:
        """What else the vector ops read: a mask over queries and keys, of all heads or of each."""
        made = {key for i in self.members for key in self.graph.ops[i].outputs}
        share = prod(
            min(1.0, sizes[r] / self.ranks.sizes[r]) for r in (self.ranks.rows[-1], self.ranks.keys[0]) if r in sizes
        )
        found = {}
        for i in self.members:
            for key in self.graph.ops[i].inputs:
                tensor = self.graph.tensors[key]
                known = key in made or key in self._operands()
                if isinstance(self.graph.ops[i], VectorOp) and not known:
                    found[key] = min(elements, tensor.elements * share) * tensor.bits / 8
        return found

    def _operands(self) -> set[str]:
        return {o.tensor for op in (self.scores, self.context) for o in op.einsum.operands}

    def _part(self, op: VectorOp, count: int, masks: Mapping[str, float]) -> VectorPart:
        tensors = self.graph.tensors
        read = sum(masks.get(key, tensors[key].size_bytes / count) for key in dict.fromkeys(op.inputs))
        return VectorPart(
            primitives={primitive: n / count for primitive, n in op.primitives.items()},
            read_bytes=read,
            write_bytes=sum(tensors[key].size_bytes / count for key in op.outputs),
        )


@dataclass(frozen=True)
class _Link:
    """A layer of a chain: its op, and the ranks of its result's rows and images."""

    op: EinsumOp
    row: str
    image: str | None

    @property
    def rows(self) -> int:
        return self.op.einsum.ranks[self.row]

    def window(self, axis: int) -> _Window:
        read, ranks = self.op.einsum.operand(INPUT).projection[axis], self.op.einsum.ranks
        step = next(coefficient for rank, coefficient in read.terms if rank == self.row)
        span = 1 + sum(c * (ranks[rank] - 1) for rank, c in read.terms if rank != self.row)
        padding = max(0, (self.rows - 1) * step + span - read.size)
        return _Window(span, step, span - 1 - padding // 2)


class _Window(NamedTuple):
    """Rows of a layer's input that a row of its result takes, rows by which that moves, and how far it reaches beyond
    the row that stands above the result's (padding is the same on both sides)."""

    span: int
    step: int
    ahead: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Layers in a row, each of which reads what the one before made."""

    members: tuple[int, ...]
    """Positions of the ops."""
    between: frozenset[str]
    """Storages of what passes between them,"""
    inside: frozenset[str]
    """and those of them that no other op reads."""
    spared_bytes: float
    """What the home memory need not move where the chain runs as one."""
    origins: Mapping[str, str]
    """View of the graph -> the tensor whose elements it holds in the same order."""


def chains(graph: Graph, stays: Mapping[str, np.ndarray]) -> Iterator[list[Chain]]:
    """From each layer on the chains of two layers, of three, and so on up to `LONGEST`, the tensors between which some
    design cannot keep."""
    origins, readers = _origins(graph), _readers(graph)
    follows = _follows(graph, stays, origins)
    for start in follows:
        members, growing = [start], []
        while members[-1] in follows and len(members) < LONGEST:
            members.append(follows[members[-1]])
            growing.append(_joined(tuple(members), graph, readers, origins))
        yield growing


def _follows(graph: Graph, stays: Mapping[str, np.ndarray], origins: Mapping[str, str]) -> dict[int, int]:
    """Layer -> the layer right after it, if that reads its result as it is."""
    makers, roles, found = _makers(graph), layout(graph).roles, {}
    for i, after in pairwise(i for i, op in enumerate(graph.ops) if not isinstance(op, ViewOp)):
        first, then = graph.ops[i], graph.ops[after]
        if isinstance(first, EinsumOp) and isinstance(then, EinsumOp) and first.region is None is then.region:
            made, read = graph.tensors[first.outputs[0]], graph.tensors[then.einsum.operand(INPUT).tensor]
            storage = made.storage or made.id
            same = origins.get(read.id, read.id) == made.id and read.shape == made.shape
            passes = roles[storage] == {Role.ACTIVATION} and makers[storage] == 1
            if same and passes and not np.all(stays[storage]):
                found[i] = after
    return found


def _joined(
    members: tuple[int, ...], graph: Graph, readers: Mapping[str, list[int]], origins: Mapping[str, str]
) -> Chain:
    made = [graph.tensors[graph.ops[i].outputs[0]] for i in members[:-1]]
    between = {tensor.storage or tensor.id: float(tensor.size_bytes) for tensor in made}
    near = {storage: sum(i in members for i in readers[storage]) for storage in between}
    inside = frozenset(storage for storage in between if near[storage] == len(readers[storage]))
    spared = sum(size * (near[storage] + (storage in inside)) for storage, size in between.items())
    return Chain(members=members, between=frozenset(between), inside=inside, spared_bytes=spared, origins=origins)


def _origins(graph: Graph) -> Mapping[str, str]:
    """View -> the tensor whose elements it holds in the same order."""
    found: dict[str, str] = {}
    for op in graph.ops:
        if isinstance(op, ViewOp) and op.kind in RESHAPES:
            found |= dict.fromkeys(op.outputs, found.get(op.inputs[0], op.inputs[0]))
    return found


def _makers(graph: Graph) -> Mapping[str, int]:
    """Storage -> ops that write it."""
    return Counter(s for op in graph.ops if not isinstance(op, ViewOp) for s in _storages(op.outputs, graph))


def _readers(graph: Graph) -> Mapping[str, list[int]]:
    """Storage -> positions of the ops that read it."""
    found: dict[str, list[int]] = {}
    for i, op in enumerate(graph.ops):
        if not isinstance(op, ViewOp):
            for storage in _storages(op.inputs, graph):
                found.setdefault(storage, []).append(i)
    return found


def _storages(keys: Sequence[str], graph: Graph) -> list[str]:
    return list(dict.fromkeys(graph.tensors[key].storage or key for key in keys))


def chain_slicings(chain: Chain, graph: Graph) -> list[Slicing]:
    """Ways to run a chain, coarsest first; none where its rows do not follow each other."""
    ops = [op for op in (graph.ops[i] for i in chain.members) if isinstance(op, EinsumOp)]
    links = _links(ops)
    if links is None:
        return []
    axis, layers = links
    found = (_Reads.of(layers, at, graph, chain.origins) for at in range(len(layers)))
    reads = [one for one in found if one is not None]
    if len(reads) < len(layers):
        return []
    images = layers[-1].op.einsum.ranks[layers[-1].image] if layers[-1].image else 1
    ways = _halves(layers[-1].rows, 1)[0 if images > 1 else 1 :]
    return [_chain(chain, layers, reads, axis, ceil(layers[-1].rows / rows), images, graph) for rows in ways]


@dataclass(frozen=True, kw_only=True)
class _Reads:
    """What a layer of a chain reads beside the rows that come in."""

    whole: tuple[str, ...]
    """Each slice needs all of it: weights, and what is spread over rows or images."""
    rows: tuple[str, ...]
    """Each slice needs its rows of it."""
    waiting: Mapping[str, int]
    """Residuals of rows that came in before -> the layer whose input they are."""

    @staticmethod
    def of(layers: Sequence[_Link], at: int, graph: Graph, origins: Mapping[str, str]) -> _Reads | None:
        """None where it needs more than its rows of what the chain makes."""
        op, tensors = layers[at].op, graph.tensors
        read, weight = (op.einsum.operand(role).tensor for role in (INPUT, WEIGHT))
        elements = tensors[op.outputs[0]].elements
        entry = layers[0].op.einsum.operand(INPUT).tensor
        first = {origins.get(entry, entry): 0} | {link.op.outputs[0]: i for i, link in enumerate(layers, start=1)}
        """Tensor -> the layer whose input it is."""
        made = set(_storages([link.op.outputs[0] for link in layers[:-1]], graph))
        whole, rows, waiting = [], [], {}
        for key in dict.fromkeys(key for key in op.inputs if key != read or key == weight):
            tensor, origin = tensors[key], origins.get(key, key)
            if key != weight and tensor.elements == elements and origin in first:
                waiting[key] = first[origin]
            elif (tensor.storage or key) in made:
                return None
            elif key == weight or tensor.role is Role.WEIGHT or tensor.elements != elements:
                whole.append(key)
            else:
                rows.append(key)
        return _Reads(whole=tuple(whole), rows=tuple(rows), waiting=waiting)


def _links(ops: Sequence[EinsumOp]) -> tuple[int, list[_Link]] | None:
    """(axis of the rows, layers): the axis after the images and channels of a convolution, the rows of a product."""
    axis = 2 if len(ops[-1].einsum.output.projection) == 4 else len(ops[-1].einsum.output.projection) - 2
    layers = []
    for op in ops:
        out, read, weight = op.einsum.output, op.einsum.operand(INPUT), op.einsum.operand(WEIGHT)
        if (
            axis < 0
            or len(out.projection) != len(read.projection)
            or len(out.projection) != len(ops[-1].einsum.output.projection)
        ):
            return None
        terms = out.projection[axis].terms
        row = terms[0][0]
        if len(terms) != 1 or terms[0][1] != 1 or row not in read.projection[axis].ranks or row in weight.ranks:
            return None
        first = out.projection[0].ranks
        image = (
            first[0]
            if axis > 0 and len(first) == 1 and first[0] in read.projection[0].ranks and first[0] not in weight.ranks
            else None
        )
        if axis > 0 and image is None and out.projection[0].size > 1:
            return None
        layers.append(_Link(op, row, image))
    return axis, layers


def _chain(
    chain: Chain, layers: Sequence[_Link], reads: Sequence[_Reads], axis: int, pieces: int, images: int, graph: Graph
) -> Slicing:
    tensors, count, entry = graph.tensors, pieces * images, layers[0].op.einsum.operand(INPUT).tensor
    size = lambda key: float(tensors[key].size_bytes)  # noqa: E731
    made = [link.op.outputs[0] for link in layers]
    windows = [link.window(axis) for link in layers]
    cuts, buffers = [], 0.0
    load_outer: dict[str, float] = {}
    load_inner = {entry: size(entry) / count}
    for at, (link, window, reading) in enumerate(zip(layers, windows, reads, strict=True)):
        rows = ceil(link.rows / pieces)
        cuts.append((link.op, {link.row: rows} | ({link.image: 1} if link.image else {})))
        read = link.op.einsum.operand(INPUT)
        row_bytes = size(read.tensor) / images / read.projection[axis].size
        buffers += max(0, window.span - window.step) * row_bytes + (0.0 if at == 0 else rows * window.step * row_bytes)
        load_outer |= {key: size(key) for key in reading.whole}
        load_inner |= {key: size(key) / count for key in reading.rows}
        for key, first in reading.waiting.items():  # a residual waits as far as the windows on the way reach ahead
            waits = sum(one.ahead for one in windows[first : at + 1]) - (windows[first].span - 1)
            buffers += max(0, waits) * size(key) / images / link.rows
    depthwise = sum(link.op.einsum.ranks.get("G", 1) > 1 for link in layers)
    kinds = f"{depthwise} of them depthwise, " if depthwise else ""
    return Slicing(
        what=f"chain of {len(layers)} layers ({kinds}{ceil(layers[-1].rows / pieces)} rows a slice)",
        members=chain.members,
        outer=1,
        inner=count,
        cuts=tuple(cuts),
        vectors=(),
        load_outer=load_outer,
        load_inner=load_inner,
        store={key: size(key) / count for key in made if (tensors[key].storage or key) not in chain.inside},
        buffer_bytes=buffers,
        inside=chain.inside,
        lag=any(window.span > window.step for window in windows[1:]),
    )


__all__ = ["Chain", "attention_slicings", "chain_slicings", "chains"]
