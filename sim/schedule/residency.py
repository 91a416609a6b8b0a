"""Where tensors live: weights, inputs, outputs and caches at home, activations on chip if they fit.

The rule is simple and stated: an activation stays in the outermost shared memory of the unit from
its producer to its last reader if, at every op in between, all that stays takes at most
`RESIDENT_SHARE` of the memory; the rest is left to tiles. First come, first served, in one of two
orders (`Order`), of which `choice` takes the better. Weights that several products use (the steps of a recurrent layer,
heads that share weights) stay from the first to the last of them in what activations leave; they are loaded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from itertools import pairwise

import numpy as np

from sim.cost.compulsory import shared_memories
from sim.hardware.chip import Memory, Unit
from sim.schedule.links import awaited
from sim.workload.graph import CollectiveOp, EinsumOp, Graph, OperandRole, Role, ViewOp
from sim.workload.passes.pipeline import is_send, stage_of
from sim.workload.passes.sparse_passes import JOIN


class Keep(IntEnum):
    """What may stay on chip between ops; each includes those before it."""

    NOTHING = 0
    ACTIVATIONS = 1
    WEIGHTS = 2
    """those that several ops use"""
    ALL_WEIGHTS = 3
    """those of each stage, from one inference to the next, where all of them fit"""


class Order(StrEnum):
    """Which activations come first."""

    RUN = "in the order in which the ops run"
    URGENT = "by the time that they take room for, an access"


RESIDENT_SHARE = 0.5
"""Share of the memory that resident activations may take (estimated: the other half holds the
double-buffered tiles of the op that runs)."""
STAGE_SHARE = 0.9
"""Share of the memory that activations and all weights of a stage may take together (estimated: what does not stay
passes through the rest)."""


@dataclass(frozen=True, kw_only=True)
class Residency:
    """stays[storage]: (D,) which designs keep it on chip; held_bytes, home_bytes: (D, ops) what lies on chip
    and in the home memory while each op runs."""

    memory: str | None
    stays: Mapping[str, np.ndarray]
    held_bytes: np.ndarray
    home_bytes: np.ndarray
    home_tensors: Mapping[str, float]
    """storage -> bytes of everything that always lies at home"""
    home_live_bytes: np.ndarray
    """(D, ops) bytes of what comes and goes at home while each op runs"""
    loads: Mapping[int, Mapping[str, float]]
    """position of an op -> storage -> bytes of weights that come on chip before it, on the designs that keep them"""
    spared_bytes: np.ndarray
    """(D,) of activations that stay, which home need not move: each times the ops that make or read it"""
    lasting_bytes: np.ndarray
    """(ops,) of `home_tensors`, what stays from one run to the next on the chip that runs each op: weights, caches"""

    def where(self, designs: np.ndarray, other: Residency) -> Residency:
        """The homes of `other` on these designs (D,), of this on the rest."""
        stays = {key: np.where(designs, other.stays[key], stay) for key, stay in self.stays.items()}
        tables = {
            name: np.where(designs[:, None], getattr(other, name), getattr(self, name))
            for name in ("held_bytes", "home_bytes", "home_live_bytes")
        }
        spared = np.where(designs, other.spared_bytes, self.spared_bytes)
        return replace(self, stays=stays, spared_bytes=spared, **tables)

    @property
    def home_peak_bytes(self) -> np.ndarray:
        """(D,) the most that lies in the home memory at once."""
        return self.home_bytes.max(axis=1, initial=0.0)


def _fixed_bytes(graph: Graph, place: Mapping[str, str], always: Mapping[str, float]) -> np.ndarray:
    """(ops,) bytes that always lie at home, on the chip that runs each op: stages of a pipeline have their own."""
    stages = np.array(stage_of(graph), dtype=int)
    if not stages.any():
        return np.full(len(graph.ops), sum(always.values()))
    used: list[set[str]] = [set() for _ in range(int(stages.max()) + 1)]
    for op, stage in zip(graph.ops, stages, strict=True):
        used[stage] |= {place[key] for key in (*op.inputs, *op.outputs)}
    return np.array([sum(always.get(storage, 0.0) for storage in sorted(found)) for found in used])[stages]


def resident_memory(unit: Unit) -> Memory | None:
    """The outermost of `shared_memories` in which tensors may stay from one op to the next."""
    return next((memory for memory in shared_memories(unit) if memory.residency), None)


def storages(graph: Graph) -> tuple[dict[str, str], dict[str, float], dict[str, set[Role]]]:
    """(tensor -> storage, storage -> bytes, storage -> roles). Views take no room of their own."""
    place = {key: tensor.storage or key for key, tensor in graph.tensors.items()}
    views = {out for op in graph.ops if isinstance(op, ViewOp) and op.kind != JOIN for out in op.outputs}
    sizes: dict[str, float] = {}
    roles: dict[str, set[Role]] = {}
    for key, tensor in graph.tensors.items():
        roles.setdefault(place[key], set()).add(tensor.role)
        if key not in views:
            sizes[place[key]] = max(sizes.get(place[key], 0.0), float(tensor.size_bytes))
    return place, sizes, roles


def accesses(graph: Graph, place: Mapping[str, str]) -> Counter[str]:
    """Storage -> ops that make or read it."""
    work = (op for op in graph.ops if not isinstance(op, ViewOp))
    return Counter(storage for op in work for storage in {place[key] for key in (*op.inputs, *op.outputs)})


def lifetimes(graph: Graph, place: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Storage -> (first, last) position of an op that touches it. What a send brings lies on another chip than what it
    takes: it begins with the op behind, the first of that chip. What another collective takes is under way, at most,
    until an op reads its result."""
    span: dict[str, tuple[int, int]] = {}
    read = _first_readers(graph)
    for position, op in enumerate(graph.ops):
        sent, works = is_send(op), isinstance(op, CollectiveOp)
        for key in (*op.inputs, *op.outputs):
            begin = position + 1 if sent and key in op.outputs else position
            end = (
                max(begin, read.get(op.name, len(graph.ops)) - 1) if works and not sent and key in op.inputs else begin
            )
            first, last = span.get(place[key], (begin, end))
            span[place[key]] = (min(first, begin), max(last, end))
    return span


def _first_readers(graph: Graph) -> dict[str, int]:
    """Collective -> position of the first op that reads its result."""
    waits = awaited(graph)
    found: dict[str, int] = {}
    for position, op in enumerate(graph.ops):
        for name in waits.get(op.name, ()):
            found.setdefault(name, position)
    return found


@dataclass(frozen=True, slots=True)
class Layout:
    """`storages`, `lifetimes` and `accesses` of a graph."""

    place: Mapping[str, str]
    sizes: Mapping[str, float]
    roles: Mapping[str, set[Role]]
    span: Mapping[str, tuple[int, int]]
    accesses: Mapping[str, int]


def layout(graph: Graph) -> Layout:
    """The layout of a graph; the last few are remembered by identity: what-ifs and sweeps ask often."""
    if id(graph) not in _LAYOUTS or _LAYOUTS[id(graph)][0] is not graph:
        if len(_LAYOUTS) > 8:
            _LAYOUTS.clear()
        place, sizes, roles = storages(graph)
        _LAYOUTS[id(graph)] = (graph, Layout(place, sizes, roles, lifetimes(graph, place), accesses(graph, place)))
    return _LAYOUTS[id(graph)][1]


_LAYOUTS: dict[int, tuple[Graph, Layout]] = {}


@dataclass(frozen=True, slots=True)
class StageWeights:
    """A stage's positions in the graph, first to before `end`, and the storages of its products' weights."""

    first: int
    end: int
    storages: tuple[str, ...]


def stage_weights(graph: Graph, cuts: Sequence[int]) -> list[StageWeights]:
    """The stages between cuts; a weight that products of two stages use belongs to none."""
    borders = [0, *cuts, len(graph.ops)]
    found: list[list[str]] = []
    for first, end in pairwise(borders):
        products = [op for op in graph.ops[first:end] if isinstance(op, EinsumOp)]
        tensors = [graph.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor] for op in products]
        found.append(list(dict.fromkeys(t.storage or t.id for t in tensors if t.role is Role.WEIGHT)))
    many = {s for i, own in enumerate(found) for other in found[i + 1 :] for s in own if s in other}
    return [
        StageWeights(first, end, tuple(s for s in own if s not in many))
        for (first, end), own in zip(pairwise(borders), found, strict=True)
    ]


def _shared_weights(
    graph: Graph, place: Mapping[str, str], roles: Mapping[str, set[Role]]
) -> dict[str, tuple[int, int]]:
    """Storage -> (first, last) position of the products that use it, for weights that several do and nothing else."""
    users: dict[str, list[int]] = {}
    others: set[str] = set()
    for position, op in enumerate(graph.ops):
        used = place[op.einsum.operand(OperandRole.WEIGHT).tensor] if isinstance(op, EinsumOp) else None
        if used is not None:
            users.setdefault(used, []).append(position)
        if not isinstance(op, ViewOp):
            others |= {place[key] for key in op.inputs} - {used}
    return {
        storage: (at[0], at[-1])
        for storage, at in users.items()
        if len(at) > 1 and roles[storage] == {Role.WEIGHT} and storage not in others
    }


def residency(
    graph: Graph,
    unit: Unit,
    capacity_bytes: np.ndarray,
    inside: Collection[str] = (),
    *,
    keep: Keep = Keep.WEIGHTS,
    order: Order = Order.RUN,
    cuts: Sequence[int] = (),
) -> Residency:
    """Homes for D designs that differ in the capacity (D,) of the resident memory.

    Storages in `inside` never leave a fused kernel and take no room. GPUs and CPUs have caches, not
    scratchpads: nothing is placed on chip.
    """
    laid = layout(graph)
    place, roles, span = laid.place, laid.roles, laid.span
    sizes = {**laid.sizes, **dict.fromkeys(inside, 0.0)}
    memory = None if unit.costing.gpu or unit.costing.eager else resident_memory(unit)
    designs = len(capacity_bytes)
    held = np.zeros((designs, len(graph.ops)))
    home = np.zeros((designs, len(graph.ops)))
    spared = np.zeros(designs)
    stays: dict[str, np.ndarray] = {}
    always: dict[str, float] = {}
    budget = capacity_bytes * RESIDENT_SHARE if keep >= Keep.ACTIVATIONS else np.full(designs, -1.0)

    def turn(storage: str) -> tuple:
        first, last = span[storage]
        urgent = (last - first + 1) / max(1, laid.accesses[storage]) if order is Order.URGENT else 0
        return urgent, first, last, storage

    for storage in sorted(span, key=turn):
        first, last = span[storage]
        size = sizes.get(storage, 0.0)
        if roles[storage] & {Role.WEIGHT, Role.INPUT, Role.KV_CACHE, Role.OUTPUT} or memory is None:
            always[storage] = size
            kept = np.zeros(designs, dtype=bool)
        else:
            kept = held[:, first : last + 1].max(axis=1) + size <= budget
            if any(first < cut <= last for cut in cuts):  # from one unit to another, through their shared memory
                kept = np.zeros(designs, dtype=bool)
        if roles[storage] == {Role.ACTIVATION}:
            always.pop(storage, None)
            home[:, first : last + 1] += np.where(kept, 0.0, size)[:, None]
        if kept.any():
            held[:, first : last + 1] += np.where(kept, size, 0.0)[:, None]
            spared += np.where(kept, size * laid.accesses[storage], 0.0)
        stays[storage] = kept
    loads: dict[int, dict[str, float]] = {}
    holds = memory is not None and OperandRole.WEIGHT in memory.holds
    for storage, (first, last) in _shared_weights(graph, place, roles).items():
        if holds and keep is Keep.WEIGHTS:
            kept = held[:, first : last + 1].max(axis=1) + sizes[storage] <= budget
            held[:, first : last + 1] += np.where(kept, sizes[storage], 0.0)[:, None]
            stays[storage] = kept
            if kept.any():
                loads.setdefault(first, {})[storage] = sizes[storage]
    for stage in stage_weights(graph, cuts) if holds and keep is Keep.ALL_WEIGHTS else ():
        weights = sum(sizes[storage] for storage in stage.storages)
        kept = held[:, stage.first : stage.end].max(axis=1, initial=0.0) + weights <= capacity_bytes * STAGE_SHARE
        held[:, stage.first : stage.end] += np.where(kept, weights, 0.0)[:, None]
        stays |= dict.fromkeys(stage.storages, kept)
    return Residency(
        loads=loads,
        memory=memory.name if memory else None,
        stays=stays,
        held_bytes=held,
        home_bytes=_fixed_bytes(graph, place, always) + home,
        home_tensors=always,
        home_live_bytes=home,
        spared_bytes=spared,
        lasting_bytes=_fixed_bytes(
            graph, place, {s: b for s, b in always.items() if roles[s] & {Role.WEIGHT, Role.KV_CACHE}}
        ),
    )
