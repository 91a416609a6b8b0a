"""An interpreter that walks every loop of a mapping and keeps books, tile by tile.

Written from the description of the machine alone, on purpose without sharing code with
`sim.mapping.evaluate` (only the array's own cycles and accesses, which have tests by hand, are
called): boxes are lists of intervals, finished sums are counted MAC by MAC region.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from math import prod

import numpy as np

from sim.mapping.array_job import array_accesses, array_time
from sim.mapping.mapping import Loop, Mapping
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT

Box = dict  # rank -> (start, size)


@dataclass
class Job:
    border: int
    box: Box
    children: list = field(default_factory=list)
    """[(wave box, [instance jobs])] in order; empty for the array"""


@dataclass
class Books:
    time: float = 0.0
    busy: np.ndarray | None = None
    array: float = 0.0


class Interpreter:
    def __init__(self, problem, machine, mapping: Mapping, homes, design: int = 0) -> None:
        self.problem, self.machine = problem, machine
        self.rates = machine.rates[design]
        self.setup = float(machine.setup_cycles[design])
        self.latency = float(machine.latency_cycles[design])
        self.borders, self.innermost = self._split(mapping, homes)
        self.traffic = np.zeros((len(machine.levels), 3, 2))

    def _split(self, mapping, homes):
        at = dict(homes)
        borders, loops, stores = [], [], []
        names = [level.name for level in self.machine.levels]

        def close():
            if loops or stores:
                borders.append((list(loops), list(stores)))
                loops.clear()
                stores.clear()

        for node in mapping.nodes:
            if isinstance(node, Loop):
                again = any(node.rank == loop.rank and node.spatial == loop.spatial for loop in loops)
                after_spatial = any(loop.spatial for loop in loops) and not node.spatial
                if stores or again or after_spatial:
                    close()
                loops.append(node)
            else:
                level = names.index(node.memory)
                inside = any(store[2] is node.operand for store in stores)
                if inside or (stores and stores[-1][0] != level and not node.beside):  # filled after this one
                    close()
                stores.append((level, at[node.operand], node.operand, node.double_buffered))
                at[node.operand] = level
        close()
        return borders, at

    # Boxes
    def interval(self, axis, box):
        terms = axis.terms
        if len(terms) == 1:
            start, size = box[terms[0][0]]
            return start, start + size, 1
        window = 1 + sum((box[r][1] - 1) * c for r, c in terms if r in self.problem.reduction)
        low = sum(box[r][0] * c for r, c in terms)
        extent, step = window, 0
        for rank, coefficient in terms:
            if rank not in self.problem.reduction:
                extent += (box[rank][1] - 1) * min(coefficient, extent)
                step = max(step, coefficient)
        return low, low + extent, (1 if window >= step else 0)

    def elements(self, role, box):
        return prod(
            min(hi - lo, axis.size) for axis in self.problem.axes[role] for lo, hi, _ in [self.interval(axis, box)]
        )

    def shared(self, role, old, new):
        common = 1
        for axis in self.problem.axes[role]:
            a, b, dense = self.interval(axis, old)
            c, d, _ = self.interval(axis, new)
            both = min(b, d) - max(a, c)
            if not dense and a != c:
                both = 0
            common *= max(0, min(both, d - c, axis.size))
        return common

    def region(self, role, box):
        return tuple(box[r] for r in self.problem.ranks if r in self.problem.relevant[role])

    # The walk
    def build(self, border: int, box: Box) -> Job:
        job = Job(border, box)
        if border == len(self.borders):
            return job
        loops, _ = self.borders[border]
        temporal = [loop for loop in loops if not loop.spatial]
        spatial = [loop for loop in loops if loop.spatial]
        steps = [range(0, box[loop.rank][1], loop.tile) for loop in temporal]
        for starts in product(*steps):
            wave = dict(box)
            for loop, start in zip(temporal, starts, strict=True):
                base, size = box[loop.rank]
                wave[loop.rank] = (base + start, min(loop.tile, size - start))
            instances = []
            for cuts in product(*[range(0, wave[loop.rank][1], loop.tile) for loop in spatial]):
                inner = dict(wave)
                for loop, start in zip(spatial, cuts, strict=True):
                    base, size = wave[loop.rank]
                    inner[loop.rank] = (base + start, min(loop.tile, size - start))
                instances.append(self.build(border + 1, inner))
            job.children.append((wave, instances))
        return job

    def run(self):
        root = self.build(0, {r: (0, int(n)) for r, n in self.problem.einsum.ranks.items()})
        self.plan, self.chains = {}, {}
        self._chain(root)
        for border in self.chains:
            self._neighbours(border)
        if any(loop.spatial for loops, _ in self.borders for loop in loops):
            self._by_waves(root)
        books = self._cost(root)
        books.time += self.latency
        return books

    def _chain(self, root):
        """Jobs of every border in order of time (the instances of a wave in a row)."""
        level = [root]
        while level:
            self.chains[level[0].border] = level
            level = [child for job in level for _, instances in job.children for child in instances]

    def _neighbours(self, border):
        """What the jobs before and after a job hold, and what was summed before it.

        Where the mapping fans out, what stays is decided for the wave as a whole: an instance that
        sits out a wave is kept up to date.
        """
        done: dict = {}
        chain = self.chains[border]
        for position, job in enumerate(chain):
            before = chain[position - 1] if position else None
            after = chain[position + 1] if position + 1 < len(chain) else None
            out = self.region(OUTPUT, job.box)
            fresh = done.get(out, 0) == 0
            done[out] = done.get(out, 0) + prod(job.box[r][1] for r in self.problem.reduction)
            whole = prod(int(self.problem.einsum.ranks[r]) for r in self.problem.reduction)
            self.plan[id(job)] = {
                "stays_in": {
                    r: before is not None and self.region(r, before.box) == self.region(r, job.box) for r in ROLES
                },
                "stays_out": after is not None and self.region(OUTPUT, after.box) == out,
                "fresh": fresh,
                "final": done[out] == whole,
            }

    def _by_waves(self, job):
        """Replace what stays in the children of a job by the decision for whole waves."""
        plan = self.plan[id(job)]
        for i, (wave, instances) in enumerate(job.children):
            prior = job.children[i - 1][0] if i else None
            later = job.children[i + 1][0] if i + 1 < len(job.children) else None
            for child in instances:
                mine = self.plan[id(child)]
                for r in ROLES:
                    same = lambda a, b, r=r: self.region(r, a) == self.region(r, b)  # noqa: E731
                    mine["stays_in"][r] = same(prior, wave) if prior else plan["stays_in"][r] and same(wave, job.box)
                mine["stays_out"] = (
                    self.region(OUTPUT, later) == self.region(OUTPUT, wave)
                    if later
                    else plan["stays_out"] and self.region(OUTPUT, wave) == self.region(OUTPUT, job.box)
                )
                self._by_waves(child)

    def _cost(self, job) -> Books:
        if job.border == len(self.borders):
            return self._array(job)
        loops, stores = self.borders[job.border]
        ports = len(self.machine.ports)
        n = len(job.children)
        x = np.zeros((n, 2, ports))  # loads of iteration i [double, single]
        y = np.zeros((n + 1, 2, ports))  # y[i]: store during iteration i; y[n]: after the last
        for level, parent, role, double in stores:
            for i, (wave, instances) in enumerate(job.children):
                first = self.plan[id(instances[0])]
                prior = job.children[i - 1] if i else None
                bits = self.problem.bits[role]
                if not first["stays_in"][role]:
                    load = role is not OUTPUT or not first["fresh"]
                    if role is OUTPUT:
                        bits = self.problem.accumulate_bits
                    if load:
                        self._move(
                            x[i],
                            stores_at=(level, parent, role, double),
                            wave=wave,
                            instances=instances,
                            prior=prior if role is not OUTPUT else None,
                            bits=bits,
                            out=False,
                            loops=loops,
                        )
                if role is OUTPUT and not first["stays_out"]:
                    done = any(self.plan[id(one)]["final"] for one in instances)  # arrays may share the reduction
                    bits = self.problem.bits[OUTPUT] if done else self.problem.accumulate_bits
                    self._move(
                        y[i + 1],
                        stores_at=(level, parent, role, double),
                        wave=wave,
                        instances=instances,
                        prior=None,
                        bits=bits,
                        out=True,
                        loops=loops,
                    )
        children = [self._wave(instances, loops) for _, instances in job.children]
        time, busy, array = 0.0, np.zeros(ports), 0.0
        time += (x[0][0] + x[0][1]).max() + (y[n][0] + y[n][1]).max()
        busy += x.sum(axis=(0, 1)) + y.sum(axis=(0, 1))
        for i, child in enumerate(children):
            after = x[i + 1] if i + 1 < n else np.zeros((2, ports))
            stored = y[i] if i else np.zeros((2, ports))
            step = max(child.time, (child.busy + after[0] + stored[0]).max()) + (after[1] + stored[1]).max()
            time += step
            busy += child.busy
            array += child.array
        return Books(time, busy, array)

    def _move(self, ports, *, stores_at, wave, instances, prior, bits, out, loops):
        level, parent, role, double = stores_at

        def fresh(new, old):
            return self.elements(role, new) - (self.shared(role, old, new) if old is not None else 0)

        name = next((loop.fanout for loop in loops if loop.spatial), None)
        inside = next((i for i, loop in enumerate(self.machine.levels) if name and loop.fanout_name == name), None)
        crosses = inside is not None and level >= inside  # then a wave keeps nothing of a window
        whole = fresh(wave, prior[0] if prior and not crosses else None)
        parts = [fresh(job.box, None) for job in instances]
        outer_port, outer, inner_port, inner = self._spread(level, parent, role, whole, parts, loops)
        up, down = self.machine.levels[parent], self.machine.levels[level]
        pairs = (
            [(up.write_port, outer_port), (down.read_port, inner_port)]
            if out
            else [(up.read_port, outer_port), (down.write_port, inner_port)]
        )
        for port, elements in pairs:
            moved = elements * bits / 8
            ports[0 if double else 1][port] += moved / self.rates[port] + (self.setup if moved > 0 else 0)
        index = ROLES.index(role)
        self.traffic[parent, index, 1 if out else 0] += outer * bits / 8
        self.traffic[level, index, 0 if out else 1] += inner * bits / 8

    def _spread(self, level, parent, role, whole, parts, loops):
        """(parent's port, parent's total, child's port, child's total) elements of a move."""
        name = next((loop.fanout for loop in loops if loop.spatial), None)
        inside = next((i for i, loop in enumerate(self.machine.levels) if name and loop.fanout_name == name), None)
        if inside is None or level < inside:
            return whole, whole, whole, whole
        if parent >= inside:
            return max(parts), sum(parts), max(parts), sum(parts)
        outer = whole if self.machine.levels[inside].multicast or role is OUTPUT else sum(parts)
        return outer, outer, max(parts), sum(parts)

    def _wave(self, instances, loops):
        books = [self._cost(job) for job in instances]
        if len(books) == 1:
            return books[0]
        fanout = next(loop.fanout for loop in loops if loop.spatial)
        outside = np.zeros(len(self.machine.ports), dtype=bool)
        for level in self.machine.levels:
            if level.fanout_name == fanout:
                break
            outside[[level.read_port, level.write_port]] = True
        busy = np.array([b.busy for b in books])
        return Books(
            max(b.time for b in books),
            np.where(outside, busy.sum(axis=0), busy.max(axis=0)),
            max(b.array for b in books),
        )

    def _array(self, job) -> Books:
        plan = self.plan[id(job)]
        sizes = {r: np.array([s]) for r, (_, s) in job.box.items()}
        cycles, _, _ = array_time(self.problem, self.machine.array, sizes)
        accesses = array_accesses(self.problem, self.machine.array, sizes)
        busy = np.zeros(len(self.machine.ports))

        def move(role, direction, moved):
            level = self.machine.levels[self.innermost[role]]
            busy[level.write_port if direction else level.read_port] += (
                moved / self.rates[level.write_port if direction else level.read_port]
            )
            self.traffic[self.innermost[role], ROLES.index(role), direction] += moved

        for role in (INPUT, WEIGHT):
            move(role, 0, float(accesses[role.value][0]) * self.problem.bits[role] / 8)
        wide, narrow = self.problem.accumulate_bits / 8, self.problem.bits[OUTPUT] / 8
        passes, out = float(np.ravel(accesses["passes"])[0]), float(accesses["output"][0])
        move(OUTPUT, 1, out * ((passes - 1) * wide + (narrow if plan["final"] else wide)))
        move(OUTPUT, 0, out * wide * (passes - (1 if plan["fresh"] else 0)))
        flat = float(np.ravel(cycles)[0])
        return Books(flat, busy, flat)
