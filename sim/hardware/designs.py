"""Many chips at once: one topology, and a struct of arrays of what varies.

Costs are pure functions over columns; a row is the chip that the same overrides make one by one,
so that a sweep and a single estimate see the same numbers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, product
from math import prod
from typing import Any

import numpy as np

from sim.errors import ConfigError, expect, listed, nearest
from sim.hardware.chip import Array, Chip, Fanout, Link, Memory, Rate, Unit, VectorUnit

_READERS: dict[type, dict[str, Callable[[Any], Any]]] = {
    Memory: {
        "capacity": lambda m: m.capacity_bytes, "bandwidth": lambda m: m.read, "read_bandwidth": lambda m: m.read,
        "write_bandwidth": lambda m: m.write, "latency": lambda m: m.latency_s, "efficiency": lambda m: m.efficiency,
        "burst": lambda m: m.burst_bytes, "outstanding": lambda m: m.outstanding, "request": lambda m: m.request_bytes,
        "read_energy": lambda m: m.read_energy_j_per_byte, "write_energy": lambda m: m.write_energy_j_per_byte,
        "kind": lambda m: m.kind, "double_buffered": lambda m: m.double_buffered,
        "residency": lambda m: m.residency,
    },
    Fanout: {"count": lambda f: f.count, "multicast": lambda f: f.multicast},
    Array: {
        "rows": lambda a: a.rows, "cols": lambda a: a.cols, "dataflow": lambda a: a.dataflow.value,
        "skew": lambda a: a.skew.value, "folds": lambda a: a.folds.value, "preload": lambda a: a.preload.value,
        "macs_per_cycle": lambda a: a.macs_per_cycle, "accumulate": lambda a: a.accumulate_bits,
        "weight_sparsity": lambda a: a.weight_sparsity, "sparse_min_channels": lambda a: a.sparse_min_channels,
        "sparse_pass": lambda a: a.sparse_pass_bytes, "skips_zeros": lambda a: a.skips_zeros,
        "depthwise_macs_per_cycle": lambda a: a.depthwise_macs_per_cycle,
        "drain_bandwidth": lambda a: a.drain_bytes_per_cycle, "mac_energy": lambda a: a.mac_energy_j,
    },
    VectorUnit: {"lanes": lambda v: v.lanes, "rates": lambda v: v.rates, "energy": lambda v: v.energy_j},
    Unit: {
        "count": lambda u: u.count, "clock": lambda u: u.clock_hz, "launch": lambda u: u.launch_s,
        "dma_setup": lambda u: u.dma_setup_s, "options": lambda u: u.options, "costing": lambda u: u.costing.value,
        "buffering": lambda u: u.buffering.value, "home": lambda u: u.home,
    },
    Link: {
        "bandwidth": lambda k: k.bandwidth, "latency": lambda k: k.latency_s, "energy": lambda k: k.energy_j_per_byte,
    },
}  # fmt: skip
_OPTIONAL = {
    Memory: lambda m: (m.kind, *_given(m.outstanding, m.read_energy_j_per_byte, m.write_energy_j_per_byte)),
    Array: lambda a: (
        *a.macs_per_cycle, "", *a.weight_sparsity, "", *a.depthwise_macs_per_cycle, "", *a.mac_energy_j,
        *_given(a.drain_bytes_per_cycle, a.sparse_pass_bytes),
    ),
    VectorUnit: lambda v: (*v.rates, "", *v.energy_j, *((name, *made.items()) for name, made in v.fallback.items())),
}  # fmt: skip
"""Type of a component -> which of the things that it need not state it states, its kind, and what fallbacks take."""
_TECHNOLOGY = {
    "node": "node_nm", "max_clock": "max_clock_hz", "area": "area_mm2", "power": "power_w",
    "idle_power": "idle_power_w", "voltage": "voltage_v", "dies": "dies",
    "area_fit": "area_fit", "power_fit": "power_fit", "idle_power_fit": "idle_power_fit",
}  # fmt: skip
_SYSTEM = {name: name for name in ("chips", "topology", "link", "ports", "pipeline")}

SET_FIRST = "technology.max_clock"
"""The path that is set before others: the fastest clock says where on the V-f curve a stated supply lies."""
MOST_VALUES = 10_000
"""Of one path: each is a chip that is made and checked, which takes milliseconds."""
MOST_DESIGNS = 100_000
"""Of a grid or a table: a row takes 2.6 kB for one product, 45 kB for ResNet-50 (measured)."""


def check_number_of_values(count: int, *, where: str) -> None:
    """Raises: ConfigError: more than MOST_VALUES."""
    if count > MOST_VALUES:
        raise ConfigError(f"{where}: {count:,} values, at most {MOST_VALUES:,} are taken: choose wider steps")


def check_number_of_designs(count: int, *, where: str) -> None:
    """Raises: ConfigError: more than MOST_DESIGNS."""
    if count > MOST_DESIGNS:
        raise ConfigError(
            f"{where}: {count:,} combinations, at most {MOST_DESIGNS:,} are costed at once: choose fewer values, or "
            "let `dovetail search` choose among them"
        )


def clock_of(chip: Chip, name: str) -> float:
    """The clock of the unit in which the component lies; the chip's for what units share (Hz)."""
    for unit in chip.units:
        if name in (unit.name, unit.vector.name) or any(level.name == name for level in unit.hierarchy):
            return unit.clock_hz
    return chip.clock_hz


def read_path(chip: Chip, path: str) -> Any:
    """What stands at an override path of `chip`, in base units; bandwidths as `Rate`.

    Raises: ConfigError: no such component or field.
    """
    name, _, rest = path.partition(".")
    if name == "clock" and not rest:
        return chip.clock_hz
    if name == "technology" and rest in _TECHNOLOGY:
        return getattr(chip.technology, _TECHNOLOGY[rest])
    if name == "system" and rest in _SYSTEM and chip.system is not None:
        return getattr(chip.system, _SYSTEM[rest])
    components = dict(chip.components())
    if name not in components:
        raise ConfigError(f'{chip.name}: "{name}" is no component.{nearest(name, components)}')
    readers = _READERS[type(components[name])]
    field_name, _, key = rest.partition(".")
    if field_name not in readers:
        raise ConfigError(f'{chip.name}: "{field_name}" is no field of {name}.{nearest(field_name, readers)}')
    value = readers[field_name](components[name])
    if key:
        if key not in value:
            raise ConfigError(f"{chip.name}: {name}.{field_name} has no {key}: it has {', '.join(value)}")
        return value[key]
    return value


def _given(*values: object) -> list[bool]:
    return [value is not None for value in values]


def _stated(chip: Chip) -> tuple[object, ...]:
    """What a chip states at all: equal for two that differ in numbers alone."""
    parts = (part for _, part in chip.components())
    return chip.technology.node_nm is None, *(_OPTIONAL[type(p)](p) for p in parts if type(p) in _OPTIONAL)


def _number(value: Any) -> Any:
    return np.nan if value is None else value


@dataclass(frozen=True)
class Designs:
    """`chip` with some of its paths varied.

    `choices` maps each varied path to its distinct values as given, `indices` to an int array of
    shape (len,): which choice each design takes. Make one with `Designs.grid` or `Designs.rows`.
    """

    chip: Chip
    choices: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    indices: Mapping[str, np.ndarray] = field(default_factory=dict)
    length: int = 1

    @classmethod
    def grid(cls, chip: Chip, values: Mapping[str, Iterable[object]]) -> Designs:
        """Every combination, in the order of `itertools.product`: the last key runs fastest.

        Raises: ConfigError, UnitError: as `chip.set` for each path and value; an empty list.
        """
        expect(values, Mapping, 'a map such as {"array.rows": [16, 32]}', where=f"{chip.name}: what to vary")
        choices = {
            path: listed(options, where=f"{chip.name}: {path}", such_as='[16, 32] or ["34 GB/s"]')
            for path, options in values.items()
        }
        sizes = [len(options) for options in choices.values()]
        total = prod(sizes)
        for path, size in zip(choices, sizes, strict=True):
            check_number_of_values(size, where=f"{chip.name}: {path}")
        check_number_of_designs(total, where=f"{chip.name}: {', '.join(map(str, choices))}")
        axes = np.unravel_index(np.arange(total), sizes) if sizes else ()
        return cls(chip, choices, dict(zip(choices, axes, strict=True)), total)._checked()

    @classmethod
    def rows(cls, chip: Chip, values: Mapping[str, Sequence[object]]) -> Designs:
        """One design per position of equally long lists (a list of points, not a grid)."""
        lengths = {len(column) for column in values.values()} or {1}
        if len(lengths) != 1 or 0 in lengths:
            raise ConfigError(
                f"{chip.name}: columns of designs must be equally long and not empty, not {sorted(lengths)}"
            )
        choices, indices = {}, {}
        for path, column in values.items():
            distinct = {value: i for i, value in enumerate(dict.fromkeys(column))}
            choices[path] = tuple(distinct)
            indices[path] = np.array([distinct[value] for value in column])
        return cls(chip, choices, indices, lengths.pop())._checked()

    def _checked(self) -> Designs:
        for path in self.choices:
            self.check(path)
        return self

    def check(self, path: str) -> None:
        """Raises: ConfigError: a choice of `path` is wrong on the chip, and with whatever choice of another path (of
        a system, whose numbers bound each other, of all the others) too."""
        choices = {o: [(o, j) for j in range(len(options))] for o, options in self.choices.items() if o != path}
        system = [listed for other, listed in choices.items() if str(other).startswith("system.")]
        for i in range(len(self.choices[path])):
            try:
                self.changed(((path, i),))
            except ConfigError:
                others = (
                    product(*system) if str(path).startswith("system.") else ((o,) for o in chain(*choices.values()))
                )
                if not any(self._stands((*other, (path, i))) for other in others):
                    raise

    def _stands(self, changes: tuple[tuple[str, int], ...]) -> bool:
        try:
            self.changed(changes)
        except ConfigError:
            return False
        return True

    @cached_property
    def leaning(self) -> frozenset[str]:
        """The paths with a choice that stands with another path's alone, as eight stages with eight chips."""
        return frozenset(
            path for path, options in self.choices.items()
            if not all(self._stands(((path, i),)) for i in range(len(options)))
        )  # fmt: skip

    def changed(self, changes: tuple[tuple[str, int], ...]) -> Chip:
        """The chip with some paths set to the i-th of their choices; each is made once.

        Raises: ConfigError: as `Chip.set_all`.
        """
        if not changes:
            return self.chip
        if SET_FIRST in self.choices:
            changes = tuple(sorted(changes, key=lambda change: change[0] != SET_FIRST))
        if changes not in self._chips:
            path, i = changes[-1]
            try:
                self._chips[changes] = self.changed(changes[:-1]).set(path, self.choices[path][i])
            except ConfigError:
                if len(changes) == 1:
                    raise
                self._chips[changes] = self.chip.set_all({path: self.choices[path][i] for path, i in changes})
        return self._chips[changes]

    @cached_property
    def _chips(self) -> dict[tuple[tuple[str, int], ...], Chip]:
        return {}

    def __len__(self) -> int:
        return self.length

    def take(self, rows: np.ndarray) -> Designs:
        """Some of the designs, by their place; chips that were made for these are not made again."""
        return self.at({p: np.broadcast_to(i, (self.length,))[rows] for p, i in self.indices.items()}, len(rows))

    def at(self, indices: Mapping[str, np.ndarray], length: int) -> Designs:
        """Other designs of the same choices; chips that were made for these are not made again."""
        part = Designs(self.chip, self.choices, indices, length)
        shared = {name: getattr(self, name) for name in ("_chips", "_adding", "leaning")}  # depend on choices, not rows
        part.__dict__.update(shared)
        return part

    @cached_property
    def like(self) -> Chip:
        """A chip that states what these designs state: numbers may differ, kinds and names do not (in a part of
        `alike`; of other designs it is what they vary)."""
        return self.chip

    @cached_property
    def alike(self) -> tuple[tuple[np.ndarray, Designs], ...]:
        """(places, designs) of all that state the same things.

        A choice may add what the chip lacks: a type to an array, requests in flight to a memory, a node.
        """
        if not self._adding:
            return ((np.arange(self.length), self),)
        occurring, row = self._occurring(self._adding)
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, changes in enumerate(occurring):
            groups.setdefault(_stated(self.changed(changes)), []).append(i)
        parts = []
        for members in groups.values():
            places = np.flatnonzero(np.isin(row, members))
            part = self.take(places)
            part.__dict__.update({"like": self.changed(occurring[members[0]]), "_adding": ()})
            parts.append((places, part))
        return tuple(parts)

    @cached_property
    def _adding(self) -> tuple[str, ...]:
        """The varied paths of which some choice states what the chip does not, or drops what it does."""
        own = _stated(self.chip)
        return tuple(
            path
            for path, options in self.choices.items()
            if path in self.leaning or any(_stated(self.changed(((path, i),))) != own for i in range(len(options)))
        )

    def row(self, i: int) -> Chip:
        """The chip of design `i`: `chip.set_all` of the varied paths."""
        if not -self.length <= i < self.length:
            raise IndexError(f"design {i} of {self.length}")
        return self.chip.set_all({p: options[int(self.indices[p][i])] for p, options in self.choices.items()})

    def column(self, path: str) -> np.ndarray:
        """The value at `path` of every design, shape (len,), in base units.

        Bandwidths are in bytes/s at the design's clock, names and dataflows are text. A number that
        the chip does not state is NaN.
        """
        if path not in self._columns:
            base = read_path(self.like, path)
            if base is None and not any(p == path or p.startswith(f"{path}.") for p in self.choices):
                # An override scales or drops what the file states; it states nothing new elsewhere.
                column = np.full(self.length, np.nan)
            elif isinstance(base, Rate):
                per_s, per_cycle = self._rate(path)
                column = np.where(np.isnan(per_s), per_cycle * self._clock(path.partition(".")[0]), per_s)
            else:
                column = self.gather(lambda chip: _number(read_path(chip, path)), self._affecting(path))
            self._columns[path] = column
        return self._columns[path]

    def bytes_per_cycle(self, path: str, *, unit: str | None = None) -> np.ndarray:
        """A bandwidth of every design in bytes per cycle of `unit` (default: where the memory lies)."""
        per_s, per_cycle = self._rate(path)
        return np.where(np.isnan(per_cycle), per_s / self._clock(unit or path.partition(".")[0]), per_cycle)

    def _rate(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """(per second, per cycle) of every design, NaN where the rate is stated the other way."""
        paths = self._affecting(path)
        per_s = self.gather(lambda chip: _number(read_path(chip, path).per_s), paths)
        return per_s, self.gather(lambda chip: _number(read_path(chip, path).per_cycle), paths)

    def _clock(self, name: str) -> np.ndarray:
        return self.gather(lambda chip: clock_of(chip, name), [p for p in self.choices if p.endswith("clock")])

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        return {}

    def _affecting(self, path: str) -> list[str]:
        """The varied paths that the value at `path` can depend on."""
        name, _, rest = path.partition(".")
        field_name = rest.partition(".")[0]
        clocks = {p for p in self.choices if p == "clock" or p.endswith(".clock")}
        physical = {p for p in self.choices if p.startswith("technology.")}
        own = {p for p in self.choices if p.partition(".")[0] == name}
        if field_name in ("area", "power", "idle_power", "area_fit", "power_fit", "idle_power_fit"):
            found = set(self.choices)
        elif field_name in ("read_energy", "write_energy", "energy", "mac_energy", "voltage"):
            found = clocks | physical | own
        elif path == "clock" or rest == "clock":
            found = clocks
        elif "bandwidth" in rest:
            found = {p for p in own if "bandwidth" in p}
        else:
            found = {p for p in own if p == path or path.startswith(p + ".") or p.startswith(path + ".")}
        return [p for p in self.choices if p in found]

    @property
    def system_chips(self) -> np.ndarray:
        """(D,) how many chips a design is."""
        return self.gather(
            lambda chip: chip.system.chips if chip.system else 1, [p for p in self.choices if p == "system.chips"]
        )

    def gather(self, value: Callable[[Chip], Any], paths: Sequence[str]) -> np.ndarray:
        """`value(chip)` of every design, given that it depends on `paths` alone."""
        if not paths:
            return np.broadcast_to(np.array([value(self.chip)])[0], (self.length,))
        occurring, row = self._occurring(tuple(paths))
        return np.array([value(self.changed(changes)) for changes in occurring])[row]

    def _occurring(self, paths: tuple[str, ...]) -> tuple[list[tuple[tuple[str, int], ...]], np.ndarray]:
        """(the combinations of these paths' choices that occur, of many perhaps few; which of them each design has)"""
        if self.leaning.intersection(paths):
            paths = tuple(self.choices)
        if paths not in self._combinations:
            sizes = [len(self.choices[path]) for path in paths]
            places = np.ravel_multi_index([self.indices[path] for path in paths], sizes)
            used, row = np.unique(places, return_inverse=True)
            picked = zip(*(index.tolist() for index in np.unravel_index(used, sizes)), strict=True)
            self._combinations[paths] = [tuple(zip(paths, one, strict=True)) for one in picked], row
        return self._combinations[paths]

    @cached_property
    def _combinations(self) -> dict[tuple[str, ...], tuple[list[tuple[tuple[str, int], ...]], np.ndarray]]:
        return {}
