"""The cost of a mapping, exactly: the double-buffer recurrence over every tile, by classes.

The machine that is meant (design section 6; `tests` hold an interpreter that walks it):

* A job at a border has a box of the iteration space. Its temporal loops visit child boxes in
  lexicographic order; the last box of a rank may be smaller. Stores after the loops hold their
  operand's tile of the child box.
* A tile that is already there, from the iteration before or from the job before, is not moved
  again (retained). A window that slides keeps the overlap of the old and the new box, within one
  job. Partial sums leave and come back at accumulator width; a finished output leaves once, at its
  own width.
* Jobs are atomic: the first load of a job waits for the job to begin, its last store ends it.
* Step i lasts max(child job, busy time of every port), where a port serves the loads of step i+1,
  the store of the tile that step i replaced and what the child job itself moves. Moves of a store
  without a second buffer are added instead.

    T = x_0 + sum_i [max(c_i, max_p(x_{i+1,p} + y_{i,p} + z_{i,p})) + single_i] + y_n

Iterations fall in few classes: per loop first, middle, last but one, last. The sum over classes
is exact. Everything broadcasts over rows; a row is a candidate mapping on a design. Arrays of a
border are (rows, classes); rows may walk the same ranks in orders of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from sim.mapping.array_job import array_job
from sim.mapping.nest import Border, StoreAt, spread
from sim.mapping.problem import OUTPUT, ROLES
from sim.mapping.steps import (
    READ,
    ROLE_INDEX,
    WRITE,
    Cost,
    Elements,
    Moves,
    Rows,
    State,
    StepTable,
    weighted_sum,
)
from sim.workload.graph import OperandRole

__all__ = ["Cost", "Rows", "State", "StepTable", "evaluate_rows", "step_table"]


def evaluate_rows(rows: Rows) -> Cost:
    """Cost of the whole einsum for every row."""
    cost = _job(rows, 0, _whole(rows))
    cost.time = cost.time + rows.latency
    cost.first = cost.first + rows.latency
    return cost


def _whole(rows: Rows) -> State:
    """The whole einsum as one job for every row: nothing there before, nothing after."""
    n = len(rows.rates)
    yes = np.ones(n, dtype=bool)
    return State(
        row=np.arange(n),
        sizes={r: np.full(n, s) for r, s in zip(rows.problem.ranks, rows.problem.sizes.tolist(), strict=True)},
        stays_in=dict.fromkeys(ROLES, ~yes),
        stays_out=~yes,
        fresh=yes,
        final=yes,
    )


def step_table(rows: Rows) -> StepTable:
    """The steps of the outermost border of the whole einsum, for every row."""
    return _BorderJob(rows, 0, _whole(rows)).table()


def _job(rows: Rows, depth: int, state: State) -> Cost:
    if depth == len(rows.nest.borders):
        return array_job(rows, state)
    job = _BorderJob(rows, depth, state)
    return job.table().cost(rows.rates[state.row], rows.setup[state.row])


FIRST, MIDDLE, BEFORE_LAST, LAST = range(4)
"""Index classes of a loop. A loop of one trip has its first only, one of two its first and last."""


class _Walk:
    """One temporal loop over a batch of jobs: per job and index class, arrays of shape (n, 4)."""

    __slots__ = ("count", "many", "next_size", "prev_size", "shift", "size", "trips")

    def __init__(self, extent: np.ndarray, tile: np.ndarray) -> None:
        tile = np.minimum(tile, extent)
        trips = -(-extent // tile)
        rest = extent - (trips - 1) * tile

        def classes(first: np.ndarray, middle: np.ndarray, before_last: np.ndarray, last: np.ndarray) -> np.ndarray:
            out = np.empty((len(trips), 4), dtype=np.int64)
            out[:, FIRST], out[:, MIDDLE], out[:, BEFORE_LAST], out[:, LAST] = first, middle, before_last, last
            return out

        self.trips, self.many = trips, trips > 1
        self.count = classes(np.ones_like(trips), np.maximum(trips - 3, 0), trips >= 3, trips >= 2)
        self.size = classes(tile, tile, tile, rest)
        # If the index changes on the way out it is reset from the last, or advances by one.
        self.next_size = classes(np.where(trips == 2, rest, tile), tile, rest, tile)
        self.shift = classes(np.where(self.many, tile, 0), tile, tile, (1 - trips) * tile)
        self.prev_size = classes(rest, tile, tile, tile)


class _BorderJob:
    """All jobs of a batch at one border. Arrays over its iterations have shape (n, classes)."""

    def __init__(self, rows: Rows, depth: int, state: State) -> None:
        self.rows, self.depth, self.state = rows, depth, state
        self.border: Border = rows.nest.borders[depth]
        self.problem = rows.problem
        tiles = rows.nest.tiles[depth]
        self.cut = {
            rank: tile[state.row] if len(tile) > 1 else np.broadcast_to(tile, state.row.shape)
            for rank, tile in tiles.items()
        }
        # Classes are numbered rank by rank, whatever the order of the loops: sums then run in one order.
        self.loops = tuple(sorted(self.border.loops, key=self.problem.ranks.index))
        self.walks = {rank: _Walk(state.sizes[rank], self.cut[rank]) for rank in self.loops}
        self._classes()
        self._transitions()

    def _classes(self) -> None:
        """The combinations of index classes that occur: `at[rank]` (classes,) into the four of a loop."""
        occurring = [np.flatnonzero(walk.count.any(axis=0)) for walk in self.walks.values()]
        combinations = list(product(*occurring))
        table = np.array(combinations, dtype=np.int64).reshape(len(combinations), len(self.loops))
        self.at = {rank: table[:, column] for column, rank in enumerate(self.loops)}
        self.shape = (len(self.state.row), len(table))
        weight = np.ones(self.shape, dtype=np.int64)
        for rank, walk in self.walks.items():
            weight *= self.by_class(walk.count, rank)
        self.weight = weight

    def by_class(self, values: np.ndarray, rank: str) -> np.ndarray:
        """Numbers of a loop (n, 4) at every class: (n, classes)."""
        return values[:, self.at[rank]]

    def _transitions(self) -> None:
        """Which index changes when an iteration begins (`entered`) and ends (`left`): rank -> (n, classes)."""
        self.is_first = {rank: (self.at[rank] == FIRST)[None, :] for rank in self.loops}
        self.is_last = {
            rank: np.where(self.walks[rank].many[:, None], self.at[rank] == LAST, self.is_first[rank])
            for rank in self.loops
        }
        self.entered, self.job_first = self._changes(self.is_first)
        self.left, self.job_last = self._changes(self.is_last)

    def _changes(self, at_end: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """A loop's index changes where all loops inside it stand at their end, and not all loops do."""
        changes = {}
        everywhere = np.ones((1, 1), dtype=bool)
        for rank in self.loops:
            everywhere = everywhere & at_end[rank]
        for rank in self.loops:
            changed = self.walks[rank].many[:, None] & ~everywhere
            for other in self.loops:
                inside = self._inside(rank, other)
                if inside is True:
                    changed = changed & at_end[other]
                elif inside is not False:
                    changed = changed & (at_end[other] | ~inside)
            changes[rank] = changed
        return changes, everywhere

    def _inside(self, rank: str, other: str) -> bool | np.ndarray:
        """Whether the loop of `other` lies inside that of `rank`: for all rows, or (n, 1)."""
        loops, order = self.border.loops, self.border.order
        one, two = loops.index(rank), loops.index(other)
        if order is None or one == two:
            return two > one
        return (order[:, two] > order[:, one])[self.state.row][:, None]

    # Boxes -------------------------------------------------------------------------------------
    def _sizes(self, which: str) -> dict[str, np.ndarray]:
        """Rank extents of the child box: "current", "next" or "previous" iteration."""
        sizes = {rank: extent[:, None] for rank, extent in self.state.sizes.items()}
        for rank, walk in self.walks.items():
            now = self.by_class(walk.size, rank)
            if which == "next":
                sizes[rank] = np.where(self.left[rank], self.by_class(walk.next_size, rank), now)
            elif which == "previous":
                sizes[rank] = np.where(self.entered[rank], self.by_class(walk.prev_size, rank), now)
            else:
                sizes[rank] = now
        return sizes

    def _ends(self, last: bool) -> dict[str, np.ndarray]:
        """Rank extents of the first or last child box of each job, shape (n,)."""
        ends = {rank: walk.prev_size[:, FIRST] if last else walk.size[:, FIRST] for rank, walk in self.walks.items()}
        return self.state.sizes | ends

    def _instance(self, sizes: dict[str, np.ndarray]) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
        """(how many, box) of the instances that share a child box: whole ones, remainders."""
        classes: list[tuple[np.ndarray, dict[str, np.ndarray]]] = [(np.ones(1), sizes)]
        for rank in self.border.spatial:
            split = []
            for count, box in classes:
                cut = self.cut[spread(rank)].reshape((-1,) + (1,) * (np.ndim(box[rank]) - 1))
                tile = np.minimum(cut, box[rank])
                trips = -(-box[rank] // tile)
                rest = box[rank] - (trips - 1) * tile
                ragged = rest < tile
                split.append((count * np.where(ragged, trips - 1, trips), box | {rank: tile}))
                split.append((count * ragged, box | {rank: rest}))
            classes = split
        return classes

    # What stays --------------------------------------------------------------------------------
    def _covers(self, role: OperandRole) -> np.ndarray:
        """The child box spans the job's whole region of the operand (one trip in its loops)."""
        covers = np.ones(len(self.state.row), dtype=bool)
        for rank, walk in self.walks.items():
            if rank in self.problem.relevant[role]:
                covers = covers & ~walk.many
        return covers

    def _changed(self, role: OperandRole, changes: dict[str, np.ndarray]) -> np.ndarray:
        """Where an index on which the operand depends changes."""
        changed = np.zeros((1, 1), dtype=bool)
        for rank in self.loops:
            if rank in self.problem.relevant[role]:
                changed = changed | changes[rank]
        return changed

    def _reduction(self) -> list[str]:
        return [rank for rank in self.loops if rank in self.problem.reduction]

    def _child_state(self) -> State:
        """States of the child jobs of every class."""
        state = self.state

        def stays(outside: np.ndarray, role: OperandRole, end: np.ndarray, changes: dict) -> np.ndarray:
            return np.where(end, (outside & self._covers(role))[:, None], ~self._changed(role, changes))

        fresh, final = state.fresh[:, None], state.final[:, None]
        for rank in self._reduction():
            fresh, final = fresh & self.is_first[rank], final & self.is_last[rank]
        return State(
            row=state.row[:, None],
            sizes=self._sizes("current"),
            stays_in={role: stays(state.stays_in[role], role, self.job_first, self.entered) for role in ROLES},
            stays_out=stays(state.stays_out, OUTPUT, self.job_last, self.left),
            fresh=fresh,
            final=final,
        )

    # Moves -------------------------------------------------------------------------------------
    def _charge(self, moves: Moves, store: StoreAt, bits: np.ndarray, elements: Elements, *, out: bool) -> None:
        """Add a transfer to the work of its two ports."""
        machine = self.rows.machine
        parent, child = machine.levels[store.parent], machine.levels[store.level]
        outer, inner = elements.parent_port, elements.child_port
        ports = (
            ((parent.write_port, outer), (child.read_port, inner))
            if out
            else ((parent.read_port, outer), (child.write_port, inner))
        )
        for port, count in ports:
            moves.bytes[..., port] += count * (bits / 8)
            moves.transfers[..., port] += count > 0

    def _account(
        self, traffic: np.ndarray, store: StoreAt, weight: np.ndarray | None, bits: np.ndarray, elements: Elements, *,
        out: bool,
    ) -> None:  # fmt: skip
        """Add bytes to traffic[n, level, operand, direction], `weight` (n, classes) times where given."""
        index = ROLE_INDEX[store.role]

        def total(count: np.ndarray) -> np.ndarray:
            moved = np.asarray(count * (bits / 8))
            return moved if weight is None else weighted_sum(weight, np.broadcast_to(moved, weight.shape))

        moved = total(elements.parent)
        traffic[:, store.parent, index, WRITE if out else READ] += moved
        inner = moved if elements.child is elements.parent else total(elements.child)
        traffic[:, store.level, index, READ if out else WRITE] += inner

    def _elements(
        self,
        store: StoreAt,
        box: dict[str, np.ndarray],
        old: dict[str, np.ndarray] | None,
        shift: dict[str, np.ndarray] | None,
    ) -> Elements:
        """Elements of a tile that arrives; with `old` only what the old box does not overlap."""
        role, problem = store.role, self.problem
        whole = problem.elements(role, box)
        inside = self.border.fanout
        if inside is None or store.level < inside:
            if old is not None:
                whole = whole - problem.overlap(role, old, box, shift or {})
            return Elements(whole, whole, whole, whole)
        # Neighbours' windows overlap and instances may sit out: a wave keeps nothing of a window.
        parts = [(count, problem.elements(role, part)) for count, part in self._instance(box)]
        one, every = parts[0][1], np.asarray(sum(count * elements for count, elements in parts))
        if store.parent >= inside:
            return Elements(one, every, one, every)
        levels = self.rows.machine.levels
        multicast = role is OUTPUT or inside >= len(levels) or levels[inside].multicast
        outer = whole if multicast else every
        return Elements(outer, outer, one, every)

    def _loads(self, moves: dict[bool, Moves], traffic: np.ndarray) -> None:
        """x_{i+1}: what the next iteration needs and does not find."""
        after, now = self._sizes("next"), self._sizes("current")
        shift = {rank: np.zeros((1, 1), dtype=np.int64) for rank in now}
        for rank, walk in self.walks.items():
            shift[rank] = np.where(self.left[rank], self.by_class(walk.shift, rank), 0)
        fresh = self.state.fresh[:, None]
        for rank in self._reduction():
            fresh = fresh & np.where(self.left[rank], self.is_last[rank], self.is_first[rank])
        for store in self.border.stores:
            changed = self._changed(store.role, self.left)
            if store.role is OUTPUT:
                changed, old, bits = changed & ~fresh, None, np.asarray(float(self.problem.accumulate_bits))
            else:
                # Boxes of an operand without windows are the same or apart.
                old = now if self.problem.slides(store.role) else None
                bits = np.asarray(float(self.problem.bits[store.role]))
            elements = self._elements(store, after, old, shift).where(changed)
            self._charge(moves[store.double_buffered], store, bits, elements, out=False)
            self._account(traffic, store, self.weight, bits, elements, out=False)

    def _stores(self, moves: dict[bool, Moves], traffic: np.ndarray) -> None:
        """y_i: the output tile that iteration i replaces."""
        before = self._sizes("previous")
        final = self.state.final[:, None]
        for rank in self._reduction():
            final = final & np.where(self.entered[rank], self.is_first[rank], self.is_last[rank])
        bits = np.where(final, self.problem.bits[OUTPUT], self.problem.accumulate_bits)
        for store in self.border.stores:
            if store.role is OUTPUT:
                changed = self._changed(OUTPUT, self.entered)
                elements = self._elements(store, before, None, None).where(changed)
                self._charge(moves[store.double_buffered], store, bits, elements, out=True)
                self._account(traffic, store, self.weight, bits, elements, out=True)

    def _first_and_last(self, traffic: np.ndarray) -> tuple[Moves, Moves]:
        """x_0 and y_n, each (n, ports)."""
        state = self.state
        start, end = (Moves.none((len(state.row),), len(self.rows.machine.ports)) for _ in range(2))
        for store in self.border.stores:
            covers = self._covers(store.role)
            stays = state.stays_in[store.role] & covers
            output = store.role is OUTPUT
            bits = np.asarray(float(self.problem.accumulate_bits if output else self.problem.bits[store.role]))
            absent = ~stays & ~state.fresh if output else ~stays
            elements = self._elements(store, self._ends(last=False), None, None).where(absent)
            self._charge(start, store, bits, elements, out=False)
            self._account(traffic, store, None, bits, elements, out=False)
            if output:
                bits = np.where(state.final, self.problem.bits[OUTPUT], self.problem.accumulate_bits)
                leaves = ~(state.stays_out & covers)
                elements = self._elements(store, self._ends(last=True), None, None).where(leaves)
                self._charge(end, store, bits, elements, out=True)
                self._account(traffic, store, None, bits, elements, out=True)
        return start, end

    # The recurrence ----------------------------------------------------------------------------
    def table(self) -> StepTable:
        """Everything about the steps that does not depend on a rate, and the child jobs."""
        machine = self.rows.machine
        traffic = np.zeros((len(self.state.row), len(machine.levels), len(ROLES), 2))
        buffers = {store.double_buffered for store in self.border.stores} | {True}
        moves = {double: Moves.none(self.shape, len(machine.ports)) for double in buffers}
        self._loads(moves, traffic)
        self._stores(moves, traffic)
        moving = np.any([m.transfers.any(axis=-1) for m in moves.values()], axis=0)
        first, last = self._first_and_last(traffic)
        child = self._children()
        busy = moves[True]
        busy.bytes[...] += child.port_bytes
        busy.transfers[...] += child.port_moves
        weight = self.weight.astype(float)
        return StepTable(
            weight=weight,
            busy=busy,
            single=moves.get(False),
            first=first,
            last=last,
            run=child.time,
            array=child.array,
            spatial=child.spatial,
            preload=child.preload,
            setup=child.setup,
            moving=moving,
            traffic=traffic + weighted_sum(weight, child.traffic),
        )

    def _children(self) -> Cost:
        """Costs of the child jobs, (n, classes, ..)."""
        state = self._child_state()
        innermost = self.depth + 1 == len(self.rows.nest.borders)
        if not self.border.spatial:
            cost = self._arrays if innermost else self._distinct
            return cost(state, state.sizes, self.weight > 0)
        parts = []
        for count, sizes in self._instance(state.sizes):
            count = np.broadcast_to(count, self.shape)
            live = self.weight * count > 0
            if live.any():
                cost = self._arrays if innermost else self._distinct
                parts.append((count, cost(state, sizes, live)))
        return self._together(parts)

    def _columns(self, state: State, sizes: dict[str, np.ndarray]) -> State:
        """States of all classes, one after the other."""

        def flat(values: np.ndarray) -> np.ndarray:
            if values.shape == self.shape:
                return values.reshape(-1)
            out = np.empty(self.shape, dtype=values.dtype)
            out[...] = values
            return out.reshape(-1)

        return State(
            row=flat(state.row),
            sizes={rank: flat(size) for rank, size in sizes.items()},
            stays_in={role: flat(stays) for role, stays in state.stays_in.items()},
            stays_out=flat(state.stays_out),
            fresh=flat(state.fresh),
            final=flat(state.final),
        )

    def _grid(self, child: Cost, place: Callable[[np.ndarray], np.ndarray]) -> Cost:
        names = ("time", "port_bytes", "port_moves", "traffic", "array", "spatial", "preload", "setup")
        return Cost(*(place(getattr(child, name)) for name in names))

    def _arrays(self, state: State, sizes: dict[str, np.ndarray], live: np.ndarray) -> Cost:
        """The array's jobs of all classes: cheaper to cost than to compare. (What is not live weighs nothing.)"""
        alone = State(state.row, sizes, {}, state.row, state.fresh, state.final)
        child = array_job(self.rows, self._columns(alone, sizes))
        return self._grid(child, lambda values: values.reshape(*self.shape, *values.shape[1:]))

    def _distinct(self, state: State, sizes: dict[str, np.ndarray], live: np.ndarray) -> Cost:
        """The child borders' jobs of the live classes, each distinct state costed once."""
        at = live.reshape(-1)
        flat = self._columns(state, sizes)
        columns = [
            c[at]
            for c in (flat.row, *flat.sizes.values(), flat.fresh, flat.final, flat.stays_out, *flat.stays_in.values())
        ]
        keys, inverse = np.unique(np.stack([c.astype(np.int64) for c in columns], axis=1), axis=0, return_inverse=True)
        row, *rest = keys.T
        fresh, final, stays_out, *stays_in = (column.astype(bool) for column in rest[len(sizes) :])
        inner = State(
            row=row,
            sizes=dict(zip(sizes, rest, strict=False)),
            stays_in=dict(zip(ROLES, stays_in, strict=True)),
            stays_out=stays_out,
            fresh=fresh,
            final=final,
        )

        def scatter(values: np.ndarray) -> np.ndarray:
            grid = np.zeros((*self.shape, *values.shape[1:]))
            grid[live] = values[inverse.reshape(-1)]
            return grid

        return self._grid(_job(self.rows, self.depth + 1, inner), scatter)

    def _together(self, parts: list[tuple[np.ndarray, Cost]]) -> Cost:
        """Instances side by side: times by the slowest, shared ports and traffic summed."""
        machine = self.rows.machine
        outside = np.zeros(len(machine.ports), dtype=bool)
        for level in machine.levels[: self.border.fanout]:
            outside[[level.read_port, level.write_port]] = True
        present = [(count > 0, count, cost) for count, cost in parts]

        def slowest(name: str) -> np.ndarray:
            return np.max([np.where(p, getattr(c, name), 0.0) for p, _, c in present], axis=0)

        def side_by_side(name: str) -> np.ndarray:
            summed = sum(count[..., None] * getattr(c, name) for _, count, c in present)
            widest = np.max([np.where(p[..., None], getattr(c, name), 0.0) for p, _, c in present], axis=0)
            return np.where(outside, summed, widest)

        return Cost(
            time=slowest("time"),
            port_bytes=side_by_side("port_bytes"),
            port_moves=side_by_side("port_moves"),
            traffic=sum(count[..., None, None, None] * c.traffic for _, count, c in present),
            array=slowest("array"),
            spatial=slowest("spatial"),
            preload=slowest("preload"),
            setup=slowest("setup"),
        )
