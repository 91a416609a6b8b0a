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
is exact. Everything broadcasts over rows; a row is a candidate mapping on a design.
"""

from __future__ import annotations

import numpy as np

from sim.mapping.array_job import array_job
from sim.mapping.nest import Border, StoreAt, spread
from sim.mapping.problem import OUTPUT, ROLES
from sim.mapping.steps import COLUMNS, READ, ROLE_INDEX, WRITE, Cost, Elements, Moves, Rows, State, StepTable
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
    return _BorderJob(rows, depth, state).cost()


class _Walk:
    """Index classes of one temporal loop over a batch: arrays of shape (n, 1.., 4, ..1)."""

    __slots__ = (
        "changed_in",
        "changed_out",
        "count",
        "first",
        "last",
        "next_size",
        "prev_size",
        "shift",
        "size",
        "tile",
        "trips",
    )

    def __init__(self, extent: np.ndarray, tile: np.ndarray, axis: int, depth: int) -> None:
        tile = np.minimum(tile, extent)
        trips = -(-extent // tile)
        rest = extent - (trips - 1) * tile
        one = np.ones_like(trips)
        shape = (-1, *(4 if j == axis else 1 for j in range(depth)))

        def classes(*columns: np.ndarray) -> np.ndarray:
            return np.stack(np.broadcast_arrays(*columns), axis=1).reshape(shape)

        no, yes = np.zeros_like(trips, dtype=bool), np.ones_like(trips, dtype=bool)
        self.tile, self.trips = (a.reshape((-1,) + (1,) * depth) for a in (tile, trips))
        self.count = classes(one, np.maximum(trips - 3, 0), trips >= 3, trips >= 2)
        self.size = classes(np.where(trips == 1, rest, tile), tile, tile, rest)
        self.first = classes(yes, no, no, no)
        self.last = classes(trips == 1, no, no, yes)
        followed_by_last = classes(trips == 2, no, yes, no)
        rest_ = rest.reshape(self.tile.shape)
        # If the index changes on the way out it is reset from the last, or advances by one.
        self.next_size = np.where(self.last, self.tile, np.where(followed_by_last, rest_, self.tile))
        self.shift = np.where(self.last, -(self.trips - 1) * self.tile, self.tile)
        self.prev_size = np.where(self.first, rest_, self.tile)


class _BorderJob:
    """All jobs of a batch at one border. Grid arrays have shape (n, 4, .., 4), one axis a loop."""

    def __init__(self, rows: Rows, depth: int, state: State) -> None:
        self.rows, self.depth, self.state = rows, depth, state
        self.border: Border = rows.nest.borders[depth]
        self.problem = rows.problem
        tiles = rows.nest.tiles[depth]
        self.cut = {
            rank: tile[state.row] if len(tile) > 1 else np.broadcast_to(tile, state.row.shape)
            for rank, tile in tiles.items()
        }
        self.d = len(self.border.loops)
        self.walks = {
            rank: _Walk(state.sizes[rank], self.cut[rank], axis, self.d) for axis, rank in enumerate(self.border.loops)
        }
        self.shape = (len(state.row), *(4,) * self.d)
        self._transitions()

    def column(self, values: np.ndarray) -> np.ndarray:
        return values.reshape((-1,) + (1,) * self.d)

    def _transitions(self) -> None:
        """Which index changes when an iteration begins and ends."""
        walks = [self.walks[r] for r in self.border.loops]
        self.weight = np.ones((1,) * (self.d + 1))
        all_first = np.ones((1,) * (self.d + 1), dtype=bool)
        all_last = all_first
        for walk in reversed(walks):
            walk.changed_in, walk.changed_out = all_first & (walk.trips > 1), all_last & (walk.trips > 1)
            all_first, all_last = all_first & walk.first, all_last & walk.last
            self.weight = self.weight * walk.count
        self.job_first, self.job_last = all_first, all_last
        for walk in walks:
            walk.changed_in, walk.changed_out = walk.changed_in & ~all_first, walk.changed_out & ~all_last

    # Boxes -------------------------------------------------------------------------------------
    def _sizes(self, which: str) -> dict[str, np.ndarray]:
        """Rank extents of the child box: "current", "next" or "previous" iteration."""
        sizes = {}
        for rank, extent in self.state.sizes.items():
            walk = self.walks.get(rank)
            if walk is None:
                sizes[rank] = self.column(extent)
            elif which == "current":
                sizes[rank] = walk.size
            elif which == "next":
                sizes[rank] = np.where(walk.changed_out, walk.next_size, walk.size)
            else:
                sizes[rank] = np.where(walk.changed_in, walk.prev_size, walk.size)
        return sizes

    def _ends(self, last: bool) -> dict[str, np.ndarray]:
        """Rank extents of the first or last child box of each job, shape (n,)."""
        sizes = dict(self.state.sizes)
        for rank in self.border.loops:
            extent, tile = sizes[rank], np.minimum(self.cut[rank], sizes[rank])
            sizes[rank] = extent - (-(-extent // tile) - 1) * tile if last else tile
        return sizes

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
    def _loops_of(self, role: OperandRole) -> list[_Walk]:
        return [self.walks[r] for r in self.border.loops if r in self.problem.relevant[role]]

    def _covers(self, role: OperandRole) -> np.ndarray:
        """The child box spans the job's whole region of the operand (one trip in its loops)."""
        covers = np.ones(len(self.state.row), dtype=bool)
        for walk in self._loops_of(role):
            covers = covers & (walk.trips.reshape(-1) == 1)
        return covers

    def _changed(self, role: OperandRole, way: str) -> np.ndarray:
        changed = np.zeros((1,) * (self.d + 1), dtype=bool)
        for walk in self._loops_of(role):
            changed = changed | getattr(walk, way)
        return changed

    def _reduction(self) -> list[_Walk]:
        return [self.walks[r] for r in self.border.loops if r in self.problem.reduction]

    def _child_state(self) -> State:
        """States of the child jobs, over the grid."""
        state, column = self.state, self.column
        stays_in = {
            role: np.where(
                self.job_first, column(state.stays_in[role] & self._covers(role)), ~self._changed(role, "changed_in")
            )
            for role in ROLES
        }
        leaves = np.where(
            self.job_last, column(state.stays_out & self._covers(OUTPUT)), ~self._changed(OUTPUT, "changed_out")
        )
        fresh, final = column(state.fresh), column(state.final)
        for walk in self._reduction():
            fresh, final = fresh & walk.first, final & walk.last
        sizes = self._sizes("current")
        return State(column(state.row), sizes, stays_in, leaves, fresh, final)

    # Moves -------------------------------------------------------------------------------------
    def _empty_moves(self, shape: tuple[int, ...]) -> Moves:
        """Nothing moved yet: [double-buffered, single] stores, each (.., ports)."""
        ports = self.rows.rates.shape[1]
        return Moves(*(np.zeros((2, *shape, ports)) for _ in range(2)))

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
        slot = 0 if store.double_buffered else 1
        for port, count in ports:
            moves.bytes[slot][..., port] += count * bits / 8
            moves.transfers[slot][..., port] += count > 0

    def _account(
        self,
        traffic: np.ndarray,
        store: StoreAt,
        weight: np.ndarray,
        bits: np.ndarray,
        elements: Elements,
        *,
        out: bool,
    ) -> None:
        """Add weighted bytes to traffic[n, level, operand, direction]."""
        index = ROLE_INDEX[store.role]

        def total(count: np.ndarray) -> np.ndarray:
            moved = np.asarray(weight * (count * bits / 8))
            return moved.sum(axis=tuple(range(1, moved.ndim)))

        traffic[:, store.parent, index, WRITE if out else READ] += total(elements.parent)
        traffic[:, store.level, index, READ if out else WRITE] += total(elements.child)

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

    def _loads(self, moves: Moves, traffic: np.ndarray) -> None:
        """x_{i+1}: what the next iteration needs and does not find."""
        after, now = self._sizes("next"), self._sizes("current")
        shift = {r: np.where(w.changed_out, w.shift, 0) for r, w in self.walks.items()}
        shift |= {r: np.zeros((1,) * (self.d + 1), dtype=int) for r in now if r not in shift}
        fresh = self.column(self.state.fresh)
        for walk in self._reduction():
            fresh = fresh & np.where(walk.changed_out, walk.last, walk.first)
        for store in self.border.stores:
            changed = self._changed(store.role, "changed_out")
            if store.role is OUTPUT:
                changed, old, bits = changed & ~fresh, None, np.float64(self.problem.accumulate_bits)
            else:
                old, bits = now, np.float64(self.problem.bits[store.role])
            elements = self._elements(store, after, old, shift).where(changed)
            self._charge(moves, store, bits, elements, out=False)
            self._account(traffic, store, self.weight, bits, elements, out=False)

    def _stores(self, moves: Moves, traffic: np.ndarray) -> None:
        """y_i: the output tile that iteration i replaces."""
        before = self._sizes("previous")
        final = self.column(self.state.final)
        for walk in self._reduction():
            final = final & np.where(walk.changed_in, walk.first, walk.last)
        bits = np.where(final, self.problem.bits[OUTPUT], self.problem.accumulate_bits)
        for store in self.border.stores:
            if store.role is OUTPUT:
                changed = self._changed(OUTPUT, "changed_in")
                elements = self._elements(store, before, None, None).where(changed)
                self._charge(moves, store, bits, elements, out=True)
                self._account(traffic, store, self.weight, bits, elements, out=True)

    def _first_and_last(self, traffic: np.ndarray) -> tuple[Moves, Moves]:
        """x_0 and y_n, each (n, ports)."""
        state, one = self.state, np.ones(1)
        start, end = self._empty_moves((len(state.row),)), self._empty_moves((len(state.row),))
        for store in self.border.stores:
            covers = self._covers(store.role)
            stays = state.stays_in[store.role] & covers
            output = store.role is OUTPUT
            bits = np.float64(self.problem.accumulate_bits if output else self.problem.bits[store.role])
            absent = ~stays & ~state.fresh if output else ~stays
            elements = self._elements(store, self._ends(last=False), None, None).where(absent)
            self._charge(start, store, bits, elements, out=False)
            self._account(traffic, store, one, bits, elements, out=False)
            if output:
                bits = np.where(state.final, self.problem.bits[OUTPUT], self.problem.accumulate_bits)
                leaves = ~(state.stays_out & covers)
                elements = self._elements(store, self._ends(last=True), None, None).where(leaves)
                self._charge(end, store, bits, elements, out=True)
                self._account(traffic, store, one, bits, elements, out=True)
        return start, end

    # The recurrence ----------------------------------------------------------------------------
    def table(self) -> StepTable:
        """Everything about the steps that does not depend on a rate, and the child jobs."""
        traffic = np.zeros((len(self.state.row), len(self.rows.machine.levels), len(ROLES), 2))
        moves = self._empty_moves(self.shape)
        self._loads(moves, traffic)
        self._stores(moves, traffic)
        first, last = self._first_and_last(traffic)
        weight = np.broadcast_to(self.weight, self.shape).reshape(self.shape[0], -1)
        live = weight.any(axis=0)

        def flat(values: np.ndarray, lead: int = 0) -> np.ndarray:
            """Grid axes in one, without the classes that no row has."""
            start = lead + 1
            merged = values.reshape(*values.shape[:start], -1, *values.shape[start + self.d :])
            return merged if live.all() else np.compress(live, merged, axis=start)

        child = self._children()
        return StepTable(
            weight=np.compress(live, weight, axis=1).astype(float),
            moves=Moves(*(flat(a, lead=1) for a in moves)),
            first=first,
            last=last,
            traffic=traffic,
            child=Cost(*(flat(getattr(child, name)) for name in COLUMNS)),
        )

    def cost(self) -> Cost:
        table = self.table()
        row = self.state.row
        return table.cost(self.rows.rates[row], self.rows.setup[row])

    def _children(self) -> Cost:
        """Costs of the child jobs over the grid: each distinct state is costed once."""
        state = self._child_state()
        parts = []
        for count, sizes in self._instance(state.sizes):
            count = np.broadcast_to(count, self.shape)
            if not self.border.spatial or np.any(count * self.weight > 0):
                parts.append(
                    (count, self._distinct(state, sizes, np.broadcast_to(self.weight, self.shape) * count > 0))
                )
        if not self.border.spatial:
            return parts[0][1]
        return self._together(parts)

    def _distinct(self, state: State, sizes: dict[str, np.ndarray], live: np.ndarray) -> Cost:
        """Cost the distinct child states of the live grid points, scattered back over the grid."""
        if self.depth + 1 == len(self.rows.nest.borders):
            return self._arrays(state, sizes, live)
        columns = [
            np.broadcast_to(v, self.shape)[live]
            for v in (state.row, *sizes.values(), *state.stays_in.values(), state.stays_out, state.fresh, state.final)
        ]
        table = np.stack([c.astype(np.int64) for c in columns], axis=1)
        keys, inverse = np.unique(table, axis=0, return_inverse=True)
        flags = 1 + len(sizes)
        child = _job(
            self.rows,
            self.depth + 1,
            State(
                row=keys[:, 0],
                sizes={r: keys[:, 1 + i] for i, r in enumerate(sizes)},
                stays_in={role: keys[:, flags + i].astype(bool) for i, role in enumerate(ROLES)},
                stays_out=keys[:, flags + 3].astype(bool),
                fresh=keys[:, flags + 4].astype(bool),
                final=keys[:, flags + 5].astype(bool),
            ),
        )
        inverse = inverse.reshape(-1)

        def scatter(values: np.ndarray) -> np.ndarray:
            grid = np.zeros((*self.shape, *values.shape[1:]))
            grid[live] = values[inverse]
            return grid

        return Cost(*(scatter(getattr(child, name)) for name in COLUMNS))

    def _arrays(self, state: State, sizes: dict[str, np.ndarray], live: np.ndarray) -> Cost:
        """The array's jobs at the live grid points: cheaper to cost than to compare."""

        def pick(values: np.ndarray) -> np.ndarray:
            return np.broadcast_to(values, self.shape)[live]

        child = array_job(
            self.rows,
            State(
                row=pick(state.row),
                sizes={r: pick(s) for r, s in sizes.items()},
                stays_in={},
                stays_out=np.zeros(0, dtype=bool),
                fresh=pick(state.fresh),
                final=pick(state.final),
            ),
        )

        def spread_out(values: np.ndarray) -> np.ndarray:
            grid = np.zeros((*self.shape, *values.shape[1:]))
            grid[live] = values
            return grid

        return Cost(*(spread_out(getattr(child, name)) for name in COLUMNS))

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
