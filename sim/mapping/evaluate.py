"""The cost of a mapping, exactly: the double-buffer recurrence over every tile, by classes.

The machine that is meant (docs/concepts.md, "The evaluator"; `tests` hold an interpreter that walks it):

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
is exact. A row is a candidate mapping on a design; a batch holds the classes of all its jobs one
after the other, so that rows may differ in problem, tiles and order of loops.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from sim.mapping.array_job import array_job
from sim.mapping.nest import Border, StoreAt, spread
from sim.mapping.problem import OUTPUT, ROLES, Problem
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
    columns,
    summed,
    weighted,
)
from sim.workload.graph import OperandRole

Number = float | np.ndarray

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
        sizes={r: np.broadcast_to(s, (n,)) for r, s in zip(rows.problem.ranks, rows.problem.sizes, strict=True)},
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
KINDS = 4
CLASS = np.array([[0, 0, 0, 0], [FIRST, 0, 0, 0], [FIRST, LAST, 0, 0], [FIRST, BEFORE_LAST, LAST, 0],
                  [FIRST, MIDDLE, BEFORE_LAST, LAST]])  # fmt: skip
"""The n-th class that occurs in a loop of 1, 2, 3, and 4 or more trips."""


class _Walk:
    """One temporal loop over a batch of jobs: per job and index class, arrays of shape (n, 4)."""

    __slots__ = ("count", "kinds", "many", "next_size", "prev_size", "shift", "size", "trips")

    def __init__(self, extent: np.ndarray, tile: np.ndarray) -> None:
        tile = np.minimum(tile, extent)
        trips = -(-extent // tile)
        rest = extent - (trips - 1) * tile

        def classes(first: np.ndarray, middle: np.ndarray, before_last: np.ndarray, last: np.ndarray) -> np.ndarray:
            out = np.empty((len(trips), KINDS), dtype=np.int64)
            out[:, FIRST], out[:, MIDDLE], out[:, BEFORE_LAST], out[:, LAST] = first, middle, before_last, last
            return out

        self.trips, self.many, self.kinds = trips, trips > 1, np.minimum(trips, KINDS)
        one = np.ones_like(trips)
        self.count = classes(one, trips - 3, one, one)
        self.size = classes(tile, tile, tile, rest)
        # If the index changes on the way out it is reset from the last, or advances by one.
        self.next_size = classes(np.where(trips == 2, rest, tile), tile, rest, tile)
        self.shift = classes(np.where(self.many, tile, 0), tile, tile, (1 - trips) * tile)
        self.prev_size = classes(rest, tile, tile, tile)


class _BorderJob:
    """All jobs of a batch at one border. Steps are the classes of iterations that occur, job by job: (steps,)."""

    def __init__(self, rows: Rows, depth: int, state: State) -> None:
        self.rows, self.depth, self.state = rows, depth, state
        self.border: Border = rows.nest.borders[depth]
        self.jobs = len(state.row)
        self.cut = {
            rank: tile[state.row] if len(tile) > 1 else np.broadcast_to(tile, state.row.shape)
            for rank, tile in rows.nest.tiles[depth].items()
        }
        # Classes are numbered rank by rank, whatever the order of the loops: sums then run in one order.
        named = sorted(self.border.loops, key=rows.problem.ranks.index)
        walks = {rank: _Walk(state.sizes[rank], self.cut[rank]) for rank in named}
        self.walks = {rank: walk for rank, walk in walks.items() if walk.many.any()}
        self.loops = tuple(self.walks)
        self._classes()
        self._transitions()
        self.problem = rows.problem.at(state.row)
        """Of each job."""
        self.step_problem = rows.problem.at(state.row[self.job])

    def _classes(self) -> None:
        """The combinations of index classes that occur, job by job."""
        number = np.ones(self.jobs, dtype=np.int64)
        for walk in self.walks.values():
            number = number * walk.kinds
        self.start = np.concatenate([[0], np.cumsum(number)])
        self.job = np.repeat(np.arange(self.jobs), number)
        left = np.arange(self.start[-1]) - self.start[self.job]
        self.kind: dict[str, np.ndarray] = {}
        self.place: dict[str, np.ndarray] = {}
        weight = np.ones(len(self.job), dtype=np.int64)
        for rank in reversed(self.loops):
            walk = self.walks[rank]
            kinds = walk.kinds[self.job]
            left, digit = np.divmod(left, kinds)
            self.kind[rank] = CLASS[kinds, digit]
            self.place[rank] = self.job * KINDS + self.kind[rank]
            weight *= self.by_class(walk.count, rank)
        self.weight = weight

    def by_class(self, values: np.ndarray, rank: str) -> np.ndarray:
        """Numbers of a loop (jobs, 4) at every step."""
        return values.reshape(-1)[self.place[rank]]

    def _transitions(self) -> None:
        """Which index changes when an iteration begins (`entered`) and ends (`left`): rank -> (steps,)."""
        self.many = {rank: walk.many[self.job] for rank, walk in self.walks.items()}
        self.is_first = {rank: self.kind[rank] == FIRST for rank in self.loops}
        self.is_last = {rank: (self.kind[rank] == LAST) | ~self.many[rank] for rank in self.loops}
        self.entered, self.job_first = self._changes(self.is_first)
        self.left, self.job_last = self._changes(self.is_last)

    def _changes(self, at_end: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(which index changes, where all loops stand at their end and none does).

        The innermost loop that does not stand at its end advances, and those inside it start anew.
        """
        places = {rank: self._depth(rank) for rank in self.loops}
        advances = np.full(len(self.job), -1)
        for rank in self.loops:
            advances = np.maximum(advances, np.where(at_end[rank], -1, places[rank]))
        none = advances < 0
        return {rank: self.many[rank] & (places[rank] >= advances) & ~none for rank in self.loops}, none

    def _depth(self, rank: str) -> int | np.ndarray:
        """Place of a loop from the outside in: of all steps, or (steps,)."""
        column = self.border.loops.index(rank)
        order = self.border.order
        return column if order is None else order[self.state.row[self.job], column]

    # Boxes -------------------------------------------------------------------------------------
    @cached_property
    def _whole(self) -> dict[str, np.ndarray]:
        """Rank extents of the jobs' boxes."""
        return {rank: extent[self.job] for rank, extent in self.state.sizes.items() if rank not in self.walks}

    @cached_property
    def _now(self) -> dict[str, np.ndarray]:
        """Rank extents of the child boxes."""
        return self._whole | {rank: self.by_class(walk.size, rank) for rank, walk in self.walks.items()}

    def _beside(self, name: str, changed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Rank extents of the next or the previous iteration's boxes."""
        return self._now | {
            rank: np.where(changed[rank], self.by_class(getattr(walk, name), rank), self._now[rank])
            for rank, walk in self.walks.items()
        }

    def _ends(self, last: bool) -> dict[str, np.ndarray]:
        """Rank extents of the first or last child box of each job, (jobs,)."""
        ends = {rank: walk.prev_size[:, FIRST] if last else walk.size[:, FIRST] for rank, walk in self.walks.items()}
        return self.state.sizes | ends

    def _instance(self, sizes: dict[str, np.ndarray], job: np.ndarray) -> list[tuple[np.ndarray, dict, bool]]:
        """(how many, box, whether sums begin and end there) of the instances that share a child box of each job:
        whole ones, remainders.

        Instances that share a reduction add to one patch of the output, whose sum begins in one of them and ends in
        one: all else being equal, the last.
        """
        classes: list[tuple[np.ndarray, dict[str, np.ndarray], bool]] = [(np.ones(len(job)), sizes, True)]
        for rank in self.border.spatial:
            split = []
            cut, reduced = self.cut[spread(rank)][job], rank in self.problem.reduction
            for count, box, sums in classes:
                tile = np.minimum(cut, box[rank])
                trips = -(-box[rank] // tile)
                rest = box[rank] - (trips - 1) * tile
                apart = (rest < tile) | reduced
                split.append((count * np.where(apart, trips - 1, trips), box | {rank: tile}, sums and not reduced))
                split.append((count * apart, box | {rank: rest}, sums))
            classes = split
        return classes

    # What stays --------------------------------------------------------------------------------
    def _covers(self, role: OperandRole) -> np.ndarray:
        """The child box spans the job's whole region of the operand (one trip in its loops)."""
        covers = np.ones(self.jobs, dtype=bool)
        for rank, walk in self.walks.items():
            if rank in self.problem.relevant[role]:
                covers = covers & ~walk.many
        return covers

    def _changed(self, role: OperandRole, changes: dict[str, np.ndarray]) -> np.ndarray:
        """Where an index on which the operand depends changes."""
        changed = np.zeros(len(self.job), dtype=bool)
        for rank in self.loops:
            if rank in self.problem.relevant[role]:
                changed = changed | changes[rank]
        return changed

    def _reduction(self) -> list[str]:
        return [rank for rank in self.loops if rank in self.problem.reduction]

    def _child_state(self) -> State:
        """States of the child jobs."""
        state, job = self.state, self.job

        def stays(outside: np.ndarray, role: OperandRole, end: np.ndarray, changes: dict) -> np.ndarray:
            return np.where(end, (outside & self._covers(role))[job], ~self._changed(role, changes))

        fresh, final = state.fresh[job], state.final[job]
        for rank in self._reduction():
            fresh, final = fresh & self.is_first[rank], final & self.is_last[rank]
        innermost = self.depth + 1 == len(self.rows.nest.borders)  # the array keeps nothing
        return State(
            row=state.row[job],
            sizes=self._now,
            stays_in={}
            if innermost
            else {role: stays(state.stays_in[role], role, self.job_first, self.entered) for role in ROLES},
            stays_out=final if innermost else stays(state.stays_out, OUTPUT, self.job_last, self.left),
            fresh=fresh,
            final=final,
        )

    # Moves -------------------------------------------------------------------------------------
    def _charge(self, moves: Moves, store: StoreAt, bits: Number, elements: Elements, *, out: bool) -> None:
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
            moves.bytes[:, port] += count * (bits / 8)
            moves.transfers[:, port] += count > 0

    def _account(
        self, traffic: np.ndarray, store: StoreAt, bits: Number, elements: Elements, *, out: bool, steps: bool
    ) -> None:
        """Add bytes to traffic[job, level, operand, direction], of all steps or of the jobs' ends."""
        index = ROLE_INDEX[store.role]

        def total(count: np.ndarray) -> np.ndarray:
            moved = count * (bits / 8)
            return summed(self.job, self.weight * moved, self.jobs) if steps else moved

        moved = total(elements.parent)
        traffic[:, store.parent, index, WRITE if out else READ] += moved
        inner = moved if elements.child is elements.parent else total(elements.child)
        traffic[:, store.level, index, READ if out else WRITE] += inner

    def _elements(
        self,
        store: StoreAt,
        problem: Problem,
        box: dict[str, np.ndarray],
        job: np.ndarray,
        from_box: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] | None = None,
    ) -> Elements:
        """Elements of a tile that arrives for boxes of jobs; with (the old box, the shift) only what it does
        not overlap."""
        role = store.role
        whole = problem.elements(role, box)
        inside = self.border.fanout
        if inside is None or store.level < inside:
            if from_box is not None:
                old, shift = from_box
                whole = whole - problem.overlap(role, old, box, shift)
            return Elements(whole, whole, whole, whole)
        # Neighbours' windows overlap and instances may sit out: a wave keeps nothing of a window.
        parts = [(count, problem.elements(role, part)) for count, part, _ in self._instance(box, job)]
        one, every = parts[0][1], np.asarray(sum(count * elements for count, elements in parts))
        if store.parent >= inside:
            return Elements(one, every, one, every)
        levels = self.rows.machine.levels
        multicast = role is OUTPUT or inside >= len(levels) or levels[inside].multicast
        outer = whole if multicast else every
        return Elements(outer, outer, one, every)

    def _loads(self, moves: dict[bool, Moves], traffic: np.ndarray) -> None:
        """x_{i+1}: what the next iteration needs and does not find."""
        problem, after = self.step_problem, self._beside("next_size", self.left)
        fresh = self.state.fresh[self.job]
        for rank in self._reduction():
            fresh = fresh & np.where(self.left[rank], self.is_last[rank], self.is_first[rank])
        for store in self.border.stores:
            changed = self._changed(store.role, self.left)
            if store.role is OUTPUT:
                changed = changed & ~fresh
            bits = problem.accumulate_bits if store.role is OUTPUT else problem.bits[store.role]
            # Boxes of an operand without windows are the same or apart.
            slides = store.role is not OUTPUT and problem.slides(store.role)
            elements = self._elements(store, problem, after, self.job, (self._now, self._shift) if slides else None)
            elements = elements.where(changed)
            self._charge(moves[store.double_buffered], store, bits, elements, out=False)
            self._account(traffic, store, bits, elements, out=False, steps=True)

    @cached_property
    def _shift(self) -> dict[str, np.ndarray]:
        """How far the start of a box moves to the next iteration."""
        return dict.fromkeys(self._now, np.zeros(1, dtype=np.int64)) | {
            rank: np.where(self.left[rank], self.by_class(walk.shift, rank), 0) for rank, walk in self.walks.items()
        }

    def _stores(self, moves: dict[bool, Moves], traffic: np.ndarray) -> None:
        """y_i: the output tile that iteration i replaces."""
        problem, before = self.step_problem, self._beside("prev_size", self.entered)
        final = self.state.final[self.job]
        for rank in self._reduction():
            final = final & np.where(self.entered[rank], self.is_first[rank], self.is_last[rank])
        bits = np.where(final, problem.bits[OUTPUT], problem.accumulate_bits)
        for store in self.border.stores:
            if store.role is OUTPUT:
                changed = self._changed(OUTPUT, self.entered)
                elements = self._elements(store, problem, before, self.job).where(changed)
                self._charge(moves[store.double_buffered], store, bits, elements, out=True)
                self._account(traffic, store, bits, elements, out=True, steps=True)

    def _first_and_last(self, traffic: np.ndarray) -> tuple[Moves, Moves]:
        """x_0 and y_n, each (jobs, ports)."""
        state, problem, jobs = self.state, self.problem, np.arange(self.jobs)
        start, end = (Moves.none(self.jobs, len(self.rows.machine.ports)) for _ in range(2))
        for store in self.border.stores:
            covers = self._covers(store.role)
            stays = state.stays_in[store.role] & covers
            output = store.role is OUTPUT
            bits = problem.accumulate_bits if output else problem.bits[store.role]
            absent = ~stays & ~state.fresh if output else ~stays
            elements = self._elements(store, problem, self._ends(last=False), jobs).where(absent)
            self._charge(start, store, bits, elements, out=False)
            self._account(traffic, store, bits, elements, out=False, steps=False)
            if output:
                final = np.where(state.final, problem.bits[OUTPUT], problem.accumulate_bits)
                leaves = ~(state.stays_out & covers)
                elements = self._elements(store, problem, self._ends(last=True), jobs).where(leaves)
                self._charge(end, store, final, elements, out=True)
                self._account(traffic, store, final, elements, out=True, steps=False)
        return start, end

    # The recurrence ----------------------------------------------------------------------------
    def table(self) -> StepTable:
        """Everything about the steps that does not depend on a rate, and the child jobs."""
        machine = self.rows.machine
        traffic = columns((self.jobs,), (len(machine.levels), len(ROLES), 2))
        buffers = {store.double_buffered for store in self.border.stores} | {True}
        moves = {double: Moves.none(len(self.job), len(machine.ports)) for double in buffers}
        self._loads(moves, traffic)
        self._stores(moves, traffic)
        moving = np.zeros(len(self.job), dtype=bool)
        for m in moves.values():
            for port in range(len(machine.ports)):
                moving |= m.transfers[:, port] > 0
        first, last = self._first_and_last(traffic)
        child = self._children()
        busy = moves[True]
        busy.bytes[...] += child.port_bytes
        busy.transfers[...] += child.port_moves
        weight = self.weight.astype(float)
        return StepTable(
            start=self.start,
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
            traffic=traffic + weighted(self.job, weight, child.traffic, self.jobs),
            home=sorted({machine.levels[0].read_port, machine.levels[0].write_port}),
        )

    def _children(self) -> Cost:
        """Costs of the child jobs, (steps, ..)."""
        state = self._child_state()
        innermost = self.depth + 1 == len(self.rows.nest.borders)
        cost = array_job if innermost else self._distinct
        if not self.border.spatial:
            return cost(self.rows, state)
        parts = []
        for count, sizes, sums in self._instance(state.sizes, self.job):
            if count.any():
                part = replace(state, sizes=sizes, fresh=state.fresh & sums, final=state.final & sums)
                parts.append((count, cost(self.rows, part)))
        return self._together(parts)

    def _distinct(self, rows: Rows, state: State) -> Cost:
        """The child borders' jobs, each distinct state costed once."""
        flags = (state.fresh, state.final, state.stays_out, *state.stays_in.values())
        numbers = [column.astype(np.int64) for column in (state.row, *state.sizes.values(), *flags)]
        keys, inverse = np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)
        row, *rest = keys.T
        fresh, final, stays_out, *stays_in = (column.astype(bool) for column in rest[len(state.sizes) :])
        inner = State(
            row=row,
            sizes=dict(zip(state.sizes, rest, strict=False)),
            stays_in=dict(zip(ROLES, stays_in, strict=True)),
            stays_out=stays_out,
            fresh=fresh,
            final=final,
        )
        return _job(rows, self.depth + 1, inner).take(inverse.reshape(-1))

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
            added = sum(count[:, None] * getattr(c, name) for _, count, c in present)
            widest = np.max([np.where(p[:, None], getattr(c, name), 0.0) for p, _, c in present], axis=0)
            return np.where(outside, added, widest)

        return Cost(
            time=slowest("time"),
            port_bytes=side_by_side("port_bytes"),
            port_moves=side_by_side("port_moves"),
            traffic=sum(count[:, None, None, None] * c.traffic for _, count, c in present),
            array=slowest("array"),
            spatial=slowest("spatial"),
            preload=slowest("preload"),
            setup=slowest("setup"),
        )
