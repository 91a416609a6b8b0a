"""The cost of ops that run as one group, slice by slice, so that what passes between them stays on chip.

Attention and chains of layers are the same thing here: `outer` x `inner` equal slices, each of which runs its part of
every member in turn. All operands of a part lie in the resident memory; what comes from home is loaded and what goes
there is stored by slice, double-buffered. With c the time of a slice,

    T = x_0 + sum_i max(c, x_{i+1} + y_i) + fill + y_last

where a slice takes the longest of its array time, its lanes and the port of the resident memory (one slice's lanes
work beside the next slice's array), and `fill` is what the pipeline of slices exposes once. The last slice counts as a
whole one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.vector import lane_cycles
from sim.hardware.physical import vector_energy_j
from sim.mapping.machine import Machine
from sim.results import Term
from sim.schedule.asking import ask_all, asked
from sim.schedule.groups import GroupCost, bounds, cost_einsum, vector_count
from sim.workload.graph import Axis, EinsumOp, OperandRole, Primitive, Role

if TYPE_CHECKING:
    from sim.schedule.network import _Coster


@dataclass(frozen=True, kw_only=True)
class VectorPart:
    """What the lanes do in one slice: primitives, and bytes read and written in the resident memory."""

    primitives: Mapping[Primitive, float]
    read_bytes: float
    write_bytes: float


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """One way to cut a group. Bytes per tensor id; a tensor that stays on chip is neither loaded nor stored."""

    what: str
    """In words, for the reader: "1 head x 128 queries"."""
    members: tuple[int, ...]
    """Positions of its ops, in order."""
    outer: int
    inner: int
    cuts: tuple[tuple[EinsumOp, Mapping[str, int]], ...]
    """(product among the members, extents of those of its ranks of which a slice is a part)"""
    vectors: tuple[VectorPart, ...]
    load_outer: Mapping[str, float]
    """Loaded once for each outer step, beside what runs before it."""
    load_inner: Mapping[str, float]
    """Loaded for each slice."""
    store: Mapping[str, float]
    """Stored for each slice."""
    buffer_bytes: float
    """Of a slice, on chip: what passes between its parts."""
    inside: frozenset[str]
    """Storages that never leave the chip."""
    keys: int = 0
    """Of attention: those of a slice."""
    lag: bool = False
    """Windows reach into the next slice: one slice more passes before the first results."""
    visited: float = 1.0
    """Share of the work of the ops that the slices do: below 1 where slices that a mask hides are left out."""
    online_ops: int = 0
    """Primitives of the whole group beyond those of its ops (an online softmax's corrections)."""

    @property
    def count(self) -> int:
        return self.outer * self.inner

    @property
    def form(self) -> tuple:
        """Equal for ways to cut alike ops that only names tell apart."""
        moved = tuple(tuple(amounts.values()) for amounts in (self.load_outer, self.load_inner, self.store))
        return (self.what, self.outer, self.inner, moved, self.buffer_bytes)


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """Per design (D,): cycles of a slice and of the fill, bytes of its transfers. What the steps are made of."""

    slicing: Slicing
    step: np.ndarray
    fill: np.ndarray
    outer_bytes: np.ndarray
    inner_bytes: np.ndarray
    store_bytes: np.ndarray


def cut(op: EinsumOp, sizes: Mapping[str, int]) -> EinsumOp:
    """The op over the first `sizes` of some ranks; axes shrink to what those touch, away from any padding."""
    ranks = {rank: min(n, sizes.get(rank, n)) for rank, n in op.einsum.ranks.items()}

    def axis(one: Axis) -> Axis:
        if all(ranks[rank] == op.einsum.ranks[rank] for rank in one.ranks):
            return one
        touched = 1 + sum(step * (ranks[rank] - 1) for rank, step in one.terms)
        return Axis(terms=one.terms, size=min(one.size, touched))

    operands = tuple(replace(o, projection=tuple(axis(a) for a in o.projection)) for o in op.einsum.operands)
    return replace(op, einsum=replace(op.einsum, ranks=ranks, operands=operands))


def footprint_bytes(slicing: Slicing, coster: _Coster) -> np.ndarray:
    """(D,) room of a slice in the resident memory: two of everything that is moved, and what passes between parts."""
    outer = 1 if slicing.outer == 1 else 2
    return (
        outer * _away(slicing.load_outer, coster)
        + 2 * (_away(slicing.load_inner, coster) + _away(slicing.store, coster))
        + slicing.buffer_bytes
    )


def _away(moved: Mapping[str, float], coster: _Coster) -> np.ndarray:
    """(D,) bytes of those tensors that lie at home."""
    tensors, stays, total = coster.graph.tensors, coster.residency.stays, np.zeros(len(coster.chips))
    for key, amount in moved.items():
        total = total + np.where(stays[tensors[key].storage or key], 0.0, amount)
    return total


def held_beside(
    slicing: Slicing, coster: _Coster, span: Mapping[str, tuple[int, int]], sizes: Mapping[str, float]
) -> np.ndarray:
    """(D,) most bytes of other tensors on chip while the group runs. `span`, `sizes`: by storage."""
    kept, worst = coster.residency, np.zeros(len(coster.chips))
    for position in slicing.members:
        held = kept.held_bytes[:, position]
        for storage in slicing.inside:
            first, last = span[storage]
            if first <= position <= last:
                held = held - np.where(kept.stays[storage], sizes[storage], 0.0)
        worst = np.maximum(worst, held)
    return worst


def ask_parts(ways: Iterable[tuple[Slicing, np.ndarray]], coster: _Coster) -> None:
    """Have the mapper answer for all parts of slicings together, each on some designs (D,)."""
    wanted = dict.fromkeys(key for slicing, only in ways for key in _asked(slicing, only, coster))
    ask_all((coster.asked[key] for key in wanted), coster)


def _asked(slicing: Slicing, only: np.ndarray, coster: _Coster) -> list[tuple]:
    """Each product's part of one slice, all its operands in the resident memory, by its key in `coster.asked`; chains
    that overlap have many in common."""
    keys = []
    for op, sizes in slicing.cuts:
        key = ("part", coster.signature(op), tuple(sizes.items()), only.tobytes())
        if key not in coster.asked:
            yes, none = np.ones(len(coster.chips), dtype=bool), np.zeros(len(coster.chips))
            part = cut(op, sizes)
            coster.asked[key] = asked(part, dict.fromkeys((*part.inputs, *part.outputs), yes), none, coster, only)
        keys.append(key)
    return keys


def _parts(slicing: Slicing, only: np.ndarray, coster: _Coster) -> list[GroupCost]:
    before, found = dict(coster.reasons), []
    for key in _asked(slicing, only, coster):
        if key not in coster.mapped:
            ask_all([coster.asked[key]], coster)
            coster.mapped[key] = cost_einsum(coster.asked[key], coster)
        found.append(coster.mapped[key])
    coster.reasons.clear()
    coster.reasons.update(before)  # a slice that fits nowhere is not taken; its ops may run one by one
    return found  # type: ignore[return-value]


def cost_slices(slicing: Slicing, held: np.ndarray, only: np.ndarray, coster: _Coster) -> GroupCost:
    """The group on some designs (D,); not a number on others, and where it does not fit beside `held` bytes (D,)."""
    parts, n, count = _parts(slicing, only, coster), len(coster.chips), slicing.count
    full = parts[0].machine
    assert full is not None
    level, clock = full.level(coster.residency.memory or ""), full.clock_hz
    ops = [coster.graph.ops[i] for i in slicing.members]
    moved = _Moved.of(slicing, full, level, coster)
    footprint = footprint_bytes(slicing, coster)
    fits = held + footprint <= full.capacity_bytes[:, level]
    array = sum((part.cycles for part in parts), start=np.zeros(n))
    lanes, near = _lanes(slicing, full, level, coster)
    port = _port(parts, full, level) + near + moved.near_cycles / count
    step = np.maximum.reduce([array, lanes, port])
    fill = step if slicing.lag else np.minimum(array, lanes)
    body = count * step + fill
    first, time = _time(slicing, step, fill, moved)
    time = np.where(fits, time, np.nan)
    terms = {term: sum(p.terms_s.get(term, np.zeros(n)) for p in parts) * clock * count for term in Term}
    terms[Term.VECTOR] = terms[Term.VECTOR] + body - count * array
    setups = moved.setups * full.setup_cycles
    terms[Term.DMA_SETUP] = terms[Term.DMA_SETUP] + np.minimum(setups, time - body)
    terms[Term.EXPOSED_MEMORY] = terms[Term.EXPOSED_MEMORY] + time - body - np.minimum(setups, time - body)
    traffic, energy = _traffic(slicing, parts, moved, full, level, coster)
    true = [slicing.visited * op.einsum.macs / part.macs for (op, _), part in zip(slicing.cuts, parts, strict=True)]
    resources = {
        "compute": count * array / clock,
        "vector": count * lanes / clock,
        f"memory:{full.levels[0].name}": moved.home_cycles / clock,
        f"memory:{full.levels[level].name}": count * port / clock,
    }
    weights, alone = moved.weight_bytes, moved.load_cycles(moved.first_bytes - moved.weight_bytes)
    prefetch = np.where(
        weights > 0, np.maximum(0.0, first - np.where(alone > 0, alone + full.latency_cycles, 0.0)), 0.0
    )
    lead = ops[0]
    return GroupCost(
        op=lead,
        name=lead.name,
        fused=tuple(op.name for op in ops if op is not lead),
        launch_s=coster.launch_s,
        time_s=time / clock,
        terms_s={term: np.where(fits, value, np.nan) / clock for term, value in terms.items()},
        traffic_bytes=traffic,
        home_busy_s=moved.home_cycles / clock,
        prefetch_s=prefetch / clock,
        first_weight_bytes=weights,
        first_weight_s=moved.load_cycles(weights, setup=False) / clock,
        footprint_bytes=footprint,
        held_bytes=held,
        capacity_bytes=full.capacity_bytes[:, level],
        energy_j=sum(energy.values(), start=np.zeros(n)),
        energy_parts_j=energy,
        cycles=time,
        ladder=_ladder(parts, true, count, time),
        macs=sum(op.einsum.macs for op, _ in slicing.cuts),
        effective_macs=sum(p.effective_macs * share for p, share in zip(parts, true, strict=True)),
        vector_ops=sum(vector_count(op) for op in ops) + slicing.online_ops,
        mac_slots=np.zeros(n) + sum(p.mac_slots * share for p, share in zip(parts, true, strict=True)),  # type: ignore[operator, misc]
        machine=full,
        bound=bounds(resources, n),
        resources_s=resources,
        sliced=Sliced(
            slicing=slicing,
            step=step,
            fill=fill,
            outer_bytes=moved.outer_bytes,
            inner_bytes=moved.inner_bytes,
            store_bytes=moved.store_bytes,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """Transfers between home and the resident memory, (D,): bytes, cycles, transfers."""

    outer_bytes: np.ndarray
    inner_bytes: np.ndarray
    store_bytes: np.ndarray
    weight_bytes: np.ndarray
    near_cycles: np.ndarray
    home_cycles: np.ndarray
    setups: np.ndarray
    read_rate: np.ndarray
    write_rate: np.ndarray
    setup: np.ndarray
    latency: np.ndarray
    read_total: np.ndarray = field(default_factory=lambda: np.zeros(1))
    write_total: np.ndarray = field(default_factory=lambda: np.zeros(1))

    @property
    def first_bytes(self) -> np.ndarray:
        return self.outer_bytes + self.inner_bytes

    def load_cycles(self, moved: np.ndarray, *, setup: bool = True) -> np.ndarray:
        return np.where(moved > 0, moved / self.read_rate + (self.setup if setup else 0.0), 0.0)

    def store_cycles(self) -> np.ndarray:
        return np.where(self.store_bytes > 0, self.store_bytes / self.write_rate + self.setup, 0.0)

    @staticmethod
    def of(slicing: Slicing, full: Machine, level: int, coster: _Coster) -> _Moved:
        outer, inner, store = (_away(m, coster) for m in (slicing.load_outer, slicing.load_inner, slicing.store))
        roles = coster.graph.tensors
        weights = {k: b for k, b in slicing.load_outer.items() if roles[k].role is Role.WEIGHT}
        home, near = full.levels[0], full.levels[level]
        read, write = full.rates[:, home.read_port], full.rates[:, home.write_port]
        count, setup = slicing.count, full.setup_cycles
        loaded, stored = slicing.outer * outer + count * inner, count * store
        into, out = loaded / full.rates[:, near.write_port], stored / full.rates[:, near.read_port]
        loads = np.where(inner > 0, count, np.where(outer > 0, _steps_with_outer(slicing), 0))
        stores = np.where(store > 0, count, 0)
        return _Moved(
            outer_bytes=outer,
            inner_bytes=inner,
            store_bytes=store,
            weight_bytes=_away(weights, coster) if slicing.outer == 1 else np.zeros(len(full)),
            near_cycles=into + out if near.read_port == near.write_port else np.maximum(into, out),
            home_cycles=loaded / read + stored / write + (loads + stores) * setup
            + np.where(outer + inner > 0, full.latency_cycles, 0.0),
            setups=loads + stores,
            read_rate=read,
            write_rate=write,
            setup=setup,
            latency=full.latency_cycles,
            read_total=loaded,
            write_total=stored,
        )  # fmt: skip


def _steps_with_outer(slicing: Slicing) -> int:
    """Transfers that carry what an outer step needs: the first load, and a share in every slice but the last step's."""
    return 1 + (slicing.outer - 1) * slicing.inner


def slice_classes(slicing: Slicing) -> list[tuple[int, float, float, float]]:
    """(slices, share of an outer load, inner loads, stores) of each class of slices, in order of time.

    Each slice loads what the next one needs, and its share of the next outer step; it stores what the slice before
    made. The last load is one slice before the end, the last store comes after it.
    """
    count, shared = slicing.count, 1.0 / slicing.inner
    early = (slicing.outer - 1) * slicing.inner  # slices during which a further outer step is loaded
    classes = []
    for at, (begin, end) in enumerate(((0, 1), (1, early), (max(early, 1), count - 1), (max(count - 1, 1), count))):
        if end > begin:
            last = end == count and (at > 0 or count == 1)
            loads = 0.0 if last else 1.0
            classes.append((end - begin, shared if begin < early else 0.0, loads, 0.0 if begin == 0 else 1.0))
    return classes


def _time(slicing: Slicing, step: np.ndarray, fill: np.ndarray, moved: _Moved) -> tuple[np.ndarray, np.ndarray]:
    """(first load, whole time) in cycles."""
    first = moved.load_cycles(moved.first_bytes)
    first = np.where(first > 0, first + moved.latency, 0.0)
    time = first + fill + moved.store_cycles()
    for repeat, outer, inner, store in slice_classes(slicing):
        load = moved.load_cycles(outer * moved.outer_bytes + inner * moved.inner_bytes)
        time = time + repeat * np.maximum(step, load + store * moved.store_cycles())
    return first, time


def _lanes(slicing: Slicing, full: Machine, level: int, coster: _Coster) -> tuple[np.ndarray, np.ndarray]:
    """(lane cycles, cycles of the resident memory's port) of a slice's vector parts."""
    near, chip = full.levels[level], coster.chips[0].name
    lanes, port = np.zeros(len(full)), np.zeros(len(full))
    for part in slicing.vectors:
        lanes = lanes + lane_cycles(coster.unit.vector, part.primitives, chip=chip)
        read, write = part.read_bytes / full.rates[:, near.read_port], part.write_bytes / full.rates[:, near.write_port]
        port = port + (read + write if near.read_port == near.write_port else np.maximum(read, write))
    return lanes, port


def _port(parts: Sequence[GroupCost], full: Machine, level: int) -> np.ndarray:
    """Cycles of the resident memory's busiest port in the products of one slice."""
    name = f"memory:{full.levels[level].name}"
    return sum((p.resources_s[name] * full.clock_hz for p in parts), start=np.zeros(len(full)))


def _ladder(parts: Sequence[GroupCost], true: Sequence[float], count: int, time: np.ndarray) -> dict[str, np.ndarray]:
    """The cycles ladder; ideal cycles of the products as they are, the rest of all slices."""
    pairs = [(p.ladder, share) for p, share in zip(parts, true, strict=True) if p.ladder is not None]
    return {
        "ideal": sum(ladder["ideal"] * share for ladder, share in pairs),  # type: ignore[dict-item]
        "spatially_mapped": sum(ladder["spatially_mapped"] * count for ladder, _ in pairs),  # type: ignore[dict-item]
        "compute": sum(ladder["compute"] * count for ladder, _ in pairs),  # type: ignore[dict-item]
        "total": time,
    }


def _traffic(
    slicing: Slicing, parts: Sequence[GroupCost], moved: _Moved, full: Machine, level: int, coster: _Coster
) -> tuple[dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], dict[str, np.ndarray]]:
    """(memory -> operand -> bytes, component -> energy) of the whole group."""
    n, count = len(full), slicing.count
    zero = np.zeros(n)
    home, near = full.levels[0].name, full.levels[level].name
    second = {op.einsum.operand(OperandRole.WEIGHT).tensor for op, _ in slicing.cuts}
    loads: dict[str, dict[str, float]] = {"input": {}, "weight": {}}
    for times, table in ((slicing.outer, slicing.load_outer), (count, slicing.load_inner)):
        for key, amount in table.items():
            kind = loads["weight" if key in second else "input"]
            kind[key] = kind.get(key, 0.0) + times * amount
    at_home = {kind: (_away(found, coster), zero) for kind, found in loads.items()}
    traffic = {home: at_home | {"output": (zero, moved.write_total)}}
    energy: dict[str, np.ndarray] = {}
    for part in parts:
        for memory, operands in part.traffic_bytes.items():
            if memory != home:
                own = traffic.setdefault(memory, {})
                for role, (read, write) in operands.items():
                    before = own.get(role, (zero, zero))
                    own[role] = (before[0] + count * read, before[1] + count * write)
        for name, value in part.energy_parts_j.items():
            energy[name] = energy.get(name, zero) + count * value
    read = sum((count * v.read_bytes for v in slicing.vectors), start=0.0) + moved.write_total
    write = sum((count * v.write_bytes for v in slicing.vectors), start=0.0) + moved.read_total
    traffic.setdefault(near, {})["slices"] = (zero + read, zero + write)
    for i, (amount_read, amount_write) in ((0, (moved.read_total, moved.write_total)), (level, (read, write))):
        cost = amount_read * full.read_energy_j_per_byte[:, i] + amount_write * full.write_energy_j_per_byte[:, i]
        energy[full.levels[i].name] = energy.get(full.levels[i].name, zero) + cost
    energy["vector"] = energy.get("vector", zero) + count * _vector_energy(slicing, coster)
    return traffic, energy


def _vector_energy(slicing: Slicing, coster: _Coster) -> np.ndarray:
    total = np.zeros(len(coster.chips))
    for part in slicing.vectors:
        for primitive, times in part.primitives.items():
            one = vector_energy_j(coster.subject, coster.unit.vector.name, primitive.value)
            total = total + times * np.atleast_1d(np.asarray(np.nan if one is None else one, dtype=float))
    return total


__all__ = [
    "Sliced",
    "Slicing",
    "VectorPart",
    "ask_parts",
    "cost_slices",
    "cut",
    "footprint_bytes",
    "held_beside",
    "slice_classes",
]
