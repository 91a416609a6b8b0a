"""A lower bound of every even mapping over one border, for whole grids of candidates at once.

A candidate is a tile per rank; its bound holds for every loop order. With double buffers its
time is at least

    first load + max(array cycles, busy time of each port without both ends + last tile) + last store

(the fluid form of the recurrence: the maximum of sums is at most the sum of maxima; during the last tile
nothing is loaded, so that a port has at most one tile of results to move beside it). Traffic is
closed form: an operand is loaded once per trip of the loops that it does not depend on, unless
the innermost class (M, N, K or B) is the one it does not depend on (the least over these classes
is taken port by port); a sliding window keeps its overlap unless reduction loops run inside it.
What designs of equal structure share is made once (`terms.Parts`); a further design costs a handful of
array operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, partial

import numpy as np

from sim.mapping.parts import End, Parts
from sim.mapping.problem import OUTPUT
from sim.mapping.terms import AXIS, CLASSES, Grid, Numbers, Several, Terms, Wiring, wirings
from sim.ordered import among, ascending


def _end_bytes(terms: Terms, wiring: Wiring, way: int) -> np.ndarray:
    return terms.ends(wiring)[way].bytes


def _fed_through(terms: Terms, port: int) -> np.ndarray:
    return terms.fed_by_port.get(port, terms.nothing)


Placed = Sequence[tuple[np.ndarray, Terms]]
"""Terms of candidates, and where each of these stands among all of them."""


def gathered(groups: Placed, of: Callable[[Terms], np.ndarray], dtype: type[np.floating] = np.float64) -> np.ndarray:
    """A number of each candidate."""
    if len(groups) == 1:
        ((_, terms),) = groups
        return terms.flat(of(terms)).astype(dtype, copy=False)
    out = np.empty(sum(len(mine) for mine, _ in groups), dtype=dtype)
    for mine, terms in groups:
        out[mine] = terms.flat(of(terms))
    return out


class Bounds:
    """The bound of the candidates of some grids of one route, one grid after the other."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        one = grids[0]
        self.grids, self.double = grids, one.route.copies == 2
        self.starts = np.cumsum([0] + [grid.tilings for grid in grids])
        self._shapes = np.array([grid.shape for grid in grids]).T
        apart = any(grid.spread or grid.instances > 1 for grid in grids)
        wired = wirings(one.machine, one.route, apart)
        self.kinds = list(dict.fromkeys(wiring for wiring in wired if wiring))
        self.gives = [any(role is OUTPUT for role, _, _ in wiring) for wiring in self.kinds]
        self.wire = tuple(self.kinds.index(wiring) if wiring else None for wiring in wired)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def everywhere(self, dtype: type[np.floating] = np.float64) -> Parts:
        """Of all candidates, whatever the innermost class."""
        terms = [Terms(grid, grid.problem, dtype=dtype) for grid in self.grids]

        def flat(of: Callable[[Terms], np.ndarray]) -> np.ndarray:
            parts = [one.flat(of(one)) for one in terms]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        return self._parts(terms, flat)

    def of_terms(self, groups: Placed, dtype: type[np.floating] = np.float64) -> Parts:
        """Of candidates whose terms are given."""
        return self._parts([terms for _, terms in groups], partial(gathered, groups, dtype=dtype))

    def _parts(self, terms: Sequence[Terms], flat: Callable[[Callable[[Terms], np.ndarray]], np.ndarray]) -> Parts:
        """`flat`: makes one array of what a function says of all terms."""

        def between(name: str) -> list[np.ndarray]:
            """Bytes or transfers between the ends, per kind."""
            return [flat(partial(Terms.least_between, wiring=kind, name=name)) for kind in self.kinds]

        def ends(way: int) -> list[End]:
            counts = [terms[0].ends(kind)[way].count for kind in self.kinds]
            bytes_ = [flat(partial(_end_bytes, wiring=kind, way=way)) for kind in self.kinds]
            return [End(*end) for end in zip(bytes_, counts, strict=True)]

        fed = {port for one in terms for port in one.fed_by_port}
        return Parts(
            wire=self.wire,
            double=self.double,
            cycles=flat(Terms.cycles),
            tail=flat(Terms.last_cycles),
            late=flat(Terms.late_bytes) if any(self.gives) else None,
            gives=self.gives,
            fed=[flat(partial(_fed_through, port=p)) if p in fed else None for p in range(len(self.wire))],
            moved=between("moved"),
            first=ends(0),
            last=ends(1),
            count=cache(partial(between, "count")),
        )

    def class_times(self, numbers: Numbers, chosen: np.ndarray) -> np.ndarray:
        """Bounds per innermost class of n candidates, each on its own design: (4, n); inf where the class has
        no loop (a single tile stands under the first class alone)."""
        out = np.full((len(CLASSES), len(chosen)), np.inf)
        few = ascending(chosen)  # many designs have the same candidates
        which = np.searchsorted(few, chosen)
        for some, terms in self.of_grids(few):
            place = np.full(len(few), -1)
            place[some] = np.arange(len(some))
            mine = np.flatnonzero(place[which] >= 0)
            at, letters = place[which[mine]], terms.letters
            walked = {c: np.broadcast_to(terms.trips[c] > 1, len(some)) for c in letters}
            walked[letters[0]] = walked[letters[0]] | ~np.any(list(walked.values()), axis=0)
            pace, setup, latency = list(1.0 / numbers.rates[mine].T), numbers.setup[mine], numbers.latency[mine]
            for letter in letters:
                time = self.of_class(terms, letter).take(at).time(pace, setup, latency)
                out[AXIS[letter], mine] = np.where(walked[letter][at], time, np.inf)
        return out

    def of_class(self, terms: Terms, letter: str) -> Parts:
        """Of the candidates of `terms` (chosen ones, or a whole grid) with one innermost class."""

        def between(name: str) -> list[np.ndarray]:
            return [terms.between(k, terms.total(k, letter, getattr(terms, name)), name) for k in self.kinds]

        ends = [terms.ends(kind) for kind in self.kinds]
        return Parts(
            wire=self.wire,
            double=self.double,
            cycles=terms.cycles(),
            tail=terms.last_cycles(),
            late=terms.late_bytes() if any(self.gives) else None,
            gives=self.gives,
            fed=[terms.fed_by_port.get(port) for port in range(len(self.wire))],
            moved=between("moved"),
            first=[first for first, _ in ends],
            last=[last for _, last in ends],
            count=partial(between, "count"),
        )

    def walked(self, letter: str, chosen: np.ndarray) -> np.ndarray:
        """Whether candidates have loops of a class."""
        found = np.zeros(len(chosen), dtype=bool)
        for mine, terms in self.of_grids(chosen):
            found[mine] = terms.trips[letter] > 1
        return found

    @cached_property
    def alike(self) -> list[tuple[np.ndarray, Several]]:
        """(numbers of the grids, the grids) of those that use fan-outs alike."""
        found: dict[tuple, list[int]] = {}
        for number, grid in enumerate(self.grids):
            found.setdefault((grid.spread, grid.instances), []).append(number)
        return [(np.array(numbers), Several([self.grids[n] for n in numbers])) for numbers in found.values()]

    def of_grids(self, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, Terms]]:
        """(which of the candidates, their terms), those of grids that use fan-outs alike together."""
        owner = np.searchsorted(self.starts, chosen, side="right") - 1
        shape, rest = self._shapes[:, owner], chosen - self.starts[owner]
        at = np.empty_like(shape)
        for i in reversed(range(len(CLASSES))):
            rest, at[i] = np.divmod(rest, shape[i])
        if len(self.alike) == 1:
            yield np.arange(len(chosen)), self.alike[0][1].terms(owner, at)
            return
        for numbers, grids in self.alike:
            mine = np.flatnonzero(among(owner, numbers))
            if len(mine):
                yield mine, grids.terms(np.searchsorted(numbers, owner[mine]), at[:, mine])

    def tiles(self, ranks: Sequence[str], chosen: np.ndarray) -> np.ndarray:
        """(n, ranks) tiles of candidates; 1 of ranks that are not tiled."""
        out = np.ones((len(chosen), len(ranks)), dtype=np.int64)
        for mine, terms in self.of_grids(chosen):
            for letter in CLASSES:
                for rank, tiles in terms.grid.lists[letter].tiles.items():
                    out[mine, ranks.index(rank)] = terms.along(letter, tiles)
        return out
