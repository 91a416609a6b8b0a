"""Area, power and energy per action of a chip or of many designs, from its technology.

Everything here takes a `Chip` (and returns a float, or None where the model cannot say) or
`Designs` (and returns an array, NaN there). Peak power is all components at their full rate at once:
an upper bound, not a TDP. A file may state area or power: the model is then scaled to meet it.
Left out: launch and DMA set-up times, latencies and burst sizes have no price.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any

import numpy as np

from sim.errors import ConfigError
from sim.hardware import technology as tech
from sim.hardware import technology_data as data
from sim.hardware.chip import Array, Chip, Costing, Fanout, Link, Memory, Unit, VectorUnit
from sim.hardware.designs import Designs
from sim.hardware.supply import supply_share

Subject = Chip | Designs


def _designs(subject: Subject) -> Designs:
    return subject if isinstance(subject, Designs) else Designs(subject)


def _result(subject: Subject, column: np.ndarray) -> Any:
    """An array for designs; a float or None for a chip."""
    column = np.broadcast_to(column, (len(_designs(subject)),))
    if isinstance(subject, Designs):
        return column
    return None if np.isnan(column[0]) else float(column[0])


def _alike(of: Callable[..., Any]) -> Callable[..., Any]:
    """Of designs that state different things, `of` each part that states the same."""

    @wraps(of)
    def parted(subject: Subject, *names: str) -> Any:
        if not isinstance(subject, Designs):
            return of(subject, *names)
        column = np.empty(len(subject))
        for places, part in subject.alike:
            column[places] = of(part, *names)
        return column

    return parted


def _has_node(d: Designs) -> bool:
    return not np.isnan(d.column("technology.node")).any()


def _copies(d: Designs) -> Iterator[tuple[Unit | None, Any, np.ndarray]]:
    """(unit, component, how many of it the chip has) of everything on the chip."""
    one = np.ones(len(d))
    for memory in d.like.memories:
        yield None, memory, one
    for unit in d.like.units:
        count = one * d.column(f"{unit.name}.count")
        for level in unit.hierarchy:
            yield unit, level, count
            if isinstance(level, Fanout):
                count = count * d.column(f"{level.name}.count")
        yield unit, unit.vector, one * d.column(f"{unit.name}.count")  # lanes are those of the whole unit
    for link in d.like.links:
        yield None, link, one


def _bandwidths(memory: Memory) -> list[str]:
    return [f"{memory.name}.bandwidth"] if memory.shared_port else [
        f"{memory.name}.read_bandwidth", f"{memory.name}.write_bandwidth",
    ]  # fmt: skip


# Energy per action


@_alike
def mac_energy_j(subject: Subject, array: str, dtype: str) -> Any:
    """Energy of one MAC of an array in a compute dtype [J]: stated, else by node and supply."""
    d = _designs(subject)
    stated = _component(d, array).mac_energy_j
    if dtype in stated:
        return _result(subject, d.column(f"{array}.mac_energy.{dtype}"))
    if not _has_node(d):
        return _result(subject, np.array(np.nan))
    modelled = tech.mac_energy_j(
        dtype=dtype, node_nm=d.column("technology.node"), voltage_share=supply_share(d),
        integer=_integer(_component(d, array)),
    )  # fmt: skip
    return _result(subject, modelled)


@_alike
def vector_energy_j(subject: Subject, vector: str, primitive: str) -> Any:
    """Energy of one primitive of a vector unit [J]: stated, else that of what a fallback makes it of, else by node and
    supply."""
    d = _designs(subject)
    unit = _component(d, vector)
    if primitive in unit.energy_j:
        return _result(subject, d.column(f"{vector}.energy.{primitive}"))
    if primitive not in unit.rates and primitive in unit.fallback:
        parts = unit.fallback[primitive].items()
        return _result(subject, np.asarray(sum(times * vector_energy_j(d, vector, part) for part, times in parts)))
    if not _has_node(d):
        return _result(subject, np.array(np.nan))
    node = d.column("technology.node")
    return _result(subject, tech.primitive_energy_j(primitive=primitive, node_nm=node, voltage_share=supply_share(d)))


@_alike
def memory_energy_j_per_byte(subject: Subject, memory: str, direction: str) -> Any:
    """Energy of one byte read from or written to ("read", "write") a memory [J/byte]: stated, else by
    kind (DRAM) or capacity, node and supply (on chip). Endless memories have none."""
    d = _designs(subject)
    stated = d.column(f"{memory}.{direction}_energy")
    if not np.isnan(stated).any():
        return _result(subject, stated)
    part = _component(d, memory)
    if part.kind in data.DRAM_PJ_PER_BIT:
        return _result(subject, np.array(tech.dram_energy_j_per_byte(kind=part.kind)))
    if not _has_node(d):
        return _result(subject, np.array(np.nan))
    capacity = d.column(f"{memory}.capacity")
    modelled = tech.sram_energy_j_per_byte(
        capacity_bytes=np.where(np.isinf(capacity), np.nan, capacity),
        node_nm=d.column("technology.node"), voltage_share=supply_share(d),
    )  # fmt: skip
    return _result(subject, np.where(np.isnan(stated), modelled, stated))


UNMODELLED = {
    Costing.ROOFLINE: "is costed by roofline, which does not count what moves on chip",
    Costing.CPU: "is costed as a CPU, whose instructions and what moves between its caches are not counted",
}
"""Why the energy of a network is unknown on units of a kind, whatever their chip states."""


def why_no_energy(chip: Chip, dtype: str) -> str | None:
    """Why the energy of a network cannot be told, in words; None where it can.

    By what its main unit is costed, or because neither the file nor the node gives the energy of an action, or because
    a part without end has no idle power.
    """
    unit = chip.main_unit
    if unit.costing in UNMODELLED:
        return f"{unit.name} {UNMODELLED[unit.costing]}"
    memories = (chip.memory(unit.home), *unit.memories)
    known = {f"{unit.array.name}.mac_energy": mac_energy_j(chip, unit.array.name, dtype)}
    for way in ("read", "write"):
        known |= {f"{m.name}.{way}_energy": memory_energy_j_per_byte(chip, m.name, way) for m in memories}
    known |= {f"{unit.vector.name}.energy": vector_energy_j(chip, unit.vector.name, p) for p in unit.vector.rates}
    missing = [name for name, value in known.items() if value is None]
    if not missing:
        return _why_no_idle_power(chip)
    source = "no technology.node to derive it from" if chip.technology.node_nm is None else (
        "the node gives none for memories without end"
    )  # fmt: skip
    return f"the chip file states no {', '.join(missing)} and {source}"


def _why_no_idle_power(chip: Chip) -> str | None:
    """The parts without end, to whose leakage and standby there is no end either; None where idle power is finite."""
    designs = Designs(chip)
    if not np.isinf(idle_power_w(designs)[0]):
        return None
    endless = [path for path in resource_paths(chip) if np.isinf(designs.column(path)[0])]
    return f"{' and '.join(endless)} without end would make idle power infinite"


def check_energies(chip: Chip, dtype: str, *, where: str = "") -> None:
    """Raises: ConfigError: the energy of a network on the chip cannot be told (`why_no_energy`)."""
    if why := why_no_energy(chip, dtype):
        fix = "" if chip.technology.node_nm is not None else "add technology: {node: ...} or "
        raise ConfigError(f"{where}energy is asked of {chip.name}, but {why}; {fix}ask for latency")


@_alike
def link_energy_j_per_byte(subject: Subject, link: str) -> Any:
    """Energy of one byte over a link [J/byte]: stated, else LINK_PJ_PER_BIT."""
    d = _designs(subject)
    stated = d.column(f"{link}.energy")
    return _result(subject, np.where(np.isnan(stated), data.LINK_PJ_PER_BIT * 8e-12, stated))


def _component(d: Designs, name: str) -> Any:
    return d.like.component(name)


def _integer(array: Array) -> bool:
    """Whether an array has no floating types, so that mixed widths are integers too."""
    return not any(dtype.startswith(("fp", "bf", "tf")) for dtype in array.macs_per_cycle)


# Area


def area_breakdown_mm2(subject: Subject) -> dict[str, Any] | None:
    """Modelled area of each component [mm2], unscaled; None without a node.

    Interfaces of DRAM and links count on the die, DRAM itself does not.
    """
    d = _designs(subject)
    if not _has_node(d):
        return None
    parts = {part.name: copies * _area(d, part) for _, part, copies in _copies(d)}
    units = sum(d.column(f"{unit.name}.count") for unit in d.chip.units)
    parts["control"] = units * tech.control_area_mm2(node_nm=d.column("technology.node"))
    return {name: _result(subject, np.asarray(column)) for name, column in parts.items()}


def _area(d: Designs, part: Any) -> np.ndarray:
    """Area of one instance."""
    node = d.column("technology.node")
    if isinstance(part, Memory):
        paths = _bandwidths(part)
        if part.kind in data.DRAM_PJ_PER_BIT:
            rate = sum(d.column(path) for path in paths) / 1e9
            return np.asarray(rate * data.DRAM_PHY_MM2_PER_GB_S[part.kind])
        width = sum(d.bytes_per_cycle(path) for path in paths)
        if part.outstanding is not None:  # a register pair (address, tag) per request in flight
            width = width + d.column(f"{part.name}.outstanding")
        return tech.sram_area_mm2(capacity_bytes=d.column(f"{part.name}.capacity"), bytes_per_cycle=width, node_nm=node)
    if isinstance(part, Array):
        return _array_area(d, part, node)
    if isinstance(part, VectorUnit):
        per_lane = sum(
            d.column(f"{part.name}.rates.{name}") * tech.primitive_area_mm2(primitive=name, node_nm=node)
            for name in part.rates
        )
        return np.asarray(d.column(f"{part.name}.lanes") * per_lane)
    if isinstance(part, Link):
        return d.column(f"{part.name}.bandwidth") / 1e9 * data.LINK_MM2_PER_GB_S
    return np.zeros(len(d))  # a fan-out is its copies


def cell_register_bits(d: Designs, array: Array) -> np.ndarray:
    """Flip-flops of one cell: an activation, a weight (two where preloads hide), a partial sum.

    A type at half rate takes half of the cell's width. Where an adder tree reduces (no skew, outputs
    not stationary) a cell holds its product instead of a partial sum.
    """
    name = array.name
    width = np.max(
        [tech.operand_bits(t) * d.column(f"{name}.macs_per_cycle.{t}") for t in array.macs_per_cycle], axis=0
    )
    hidden = d.column(f"{name}.preload") == "hidden"
    sums = np.where(_tree(d, array), 2 * width, d.column(f"{name}.accumulate"))
    return np.asarray(width * (2 + hidden) + sums)


def _tree(d: Designs, array: Array) -> np.ndarray:
    """Whether products are summed over cells in one cycle."""
    stays = np.isin(d.column(f"{array.name}.dataflow"), ("output_stationary", "row_stationary"))
    return np.asarray((d.column(f"{array.name}.skew") == "none") & ~stays)


def _array_area(d: Designs, array: Array, node: np.ndarray) -> np.ndarray:
    integer, tree = _integer(array), _tree(d, array)
    modes = []
    for dtype in array.macs_per_cycle:
        chained, summed = (tech.mac_area_mm2(dtype=dtype, node_nm=node, integer=integer, tree=t) for t in (False, True))
        modes.append(d.column(f"{array.name}.macs_per_cycle.{dtype}") * np.where(tree, summed, chained))
    widest = np.max(modes, axis=0)
    # Summed one after the other: what NumPy adds up pairwise depends, to the last bit, on the number of designs.
    mac = widest + data.SHARED_MODE * (sum(modes) - widest)
    extra = 1.0 + data.SPARSE_MUX * d.column(f"{array.name}.skips_zeros")
    for pattern in array.weight_sparsity:
        extra = extra + data.SPARSE_MUX * d.column(f"{array.name}.weight_sparsity.{pattern}")
    cells = d.column(f"{array.name}.rows") * d.column(f"{array.name}.cols")
    registers = tech.register_area_mm2(bits=cell_register_bits(d, array), node_nm=node)
    area = cells * data.CELL_OVERHEAD * (mac * extra + registers)
    for dtype in array.depthwise_macs_per_cycle:  # MACs of their own, one after the other with their partial sum
        one = tech.mac_area_mm2(dtype=dtype, node_nm=node, integer=integer)
        bits = 2 * tech.operand_bits(dtype) + d.column(f"{array.name}.accumulate")
        beside = one + tech.register_area_mm2(bits=bits, node_nm=node)
        area = area + d.column(f"{array.name}.depthwise_macs_per_cycle.{dtype}") * data.CELL_OVERHEAD * beside
    if array.drain_bytes_per_cycle is not None:
        width = d.column(f"{array.name}.drain_bandwidth")
        area = area + tech.sram_area_mm2(capacity_bytes=0.0, bytes_per_cycle=width, node_nm=node)
    if array.sparse_pass_bytes is not None:  # where the weights of a pass lie
        held = d.column(f"{array.name}.sparse_pass")
        area = area + tech.sram_area_mm2(capacity_bytes=held, bytes_per_cycle=0.0, node_nm=node)
    return np.asarray(area)


@_alike
def chip_area_mm2(subject: Subject) -> Any:
    """Die area [mm2]: stated, or modelled and scaled to what the file states; None without either."""
    d = _designs(subject)
    return _result(subject, _fitted(d, "area", model_area_mm2))


def area_parts_mm2(subject: Subject) -> dict[str, float]:
    """Component -> area [mm2] of a chip, or of the first of some designs, scaled so that the parts sum to
    `chip_area_mm2`; empty where no node gives them."""
    d = _designs(subject)
    return _parts(area_breakdown_mm2(d), chip_area_mm2(d))


def _parts(modelled: Mapping[str, np.ndarray] | None, total: np.ndarray) -> dict[str, float]:
    """What the model says of each component of the first design, in proportion to its total."""
    if modelled is None or not np.isfinite(total[0]):
        return {}
    first = {name: float(column[0]) for name, column in modelled.items() if column[0]}
    scale = float(total[0]) / sum(first.values())
    return {name: value * scale for name, value in first.items()}


def model_area_mm2(d: Designs) -> np.ndarray:
    """(D,) area of a chip by its parts [mm2]; nan without a node."""
    breakdown = area_breakdown_mm2(d)
    return np.full(len(d), np.nan) if breakdown is None else np.asarray(sum(breakdown.values()))


def _fitted(d: Designs, field: str, model: Any) -> np.ndarray:
    """The stated value of the chip itself; for what an override made, the model times its fit."""
    key = f"fitted {field}"
    if key not in d._columns:
        d._columns[key] = _times_fit(d, field, model)
    return d._columns[key]


def _times_fit(d: Designs, field: str, model: Any) -> np.ndarray:
    unit = {"area": "mm2"}.get(field, "w")
    technology = d.chip.technology
    stated = getattr(technology, f"{field}_{unit}")
    if stated is not None and not d.choices:
        return np.full(len(d), stated)
    fit = getattr(technology, f"{field}_fit")
    if stated is not None and technology.node_nm is not None:
        fit = fit_of(stated, float(model(Designs(d.chip))[0]))
    modelled = model(d)
    return modelled if fit is None else modelled * fit


def fit_of(stated: float, modelled: float) -> float | None:
    """Stated over modelled; None of a part without end, of whose area and power nothing is a share."""
    return stated / modelled if np.isfinite(modelled) else None


# Power


def power_breakdown_w(subject: Subject) -> dict[str, Any] | None:
    """Modelled power of each component at its full rate, `leakage` and `clock` [W]; None without a node.

    An array runs its dearest precision, a vector unit its dearest primitive, a port of both ways the dearer one; DRAM
    includes standby.
    """
    d = _designs(subject)
    if not _has_node(d):
        return None
    result = {part.name: copies * _power(d, unit, part) for unit, part, copies in _copies(d)}
    result["leakage"] = np.asarray(_leakage(d))
    result["clock"] = _clock_w(d)
    return {name: _result(subject, column) for name, column in result.items()}


def _power(d: Designs, unit: Unit | None, part: Any) -> np.ndarray:
    """Dynamic power of one instance at its full rate."""
    if isinstance(part, Memory):
        energies = [memory_energy_j_per_byte(d, part.name, direction) for direction in ("read", "write")]
        if part.shared_port:
            energies = [np.maximum(*energies)]
        power = sum(d.column(path) * energy for path, energy in zip(_bandwidths(part), energies, strict=True))
        return np.asarray(power) + _standby(d, part)
    if isinstance(part, Array):
        assert unit is not None
        rates = [
            d.column(f"{part.name}.macs_per_cycle.{dtype}") * mac_energy_j(d, part.name, dtype)
            for dtype in part.macs_per_cycle
        ]
        cells = d.column(f"{part.name}.rows") * d.column(f"{part.name}.cols")
        return cells * np.max(rates, axis=0) * d.column(f"{unit.name}.clock")
    if isinstance(part, VectorUnit):
        assert unit is not None
        rates = [d.column(f"{part.name}.rates.{p}") * vector_energy_j(d, part.name, p) for p in part.rates]
        return d.column(f"{part.name}.lanes") * np.max(rates, axis=0) * d.column(f"{unit.name}.clock")
    if isinstance(part, Link):
        return d.column(f"{part.name}.bandwidth") * link_energy_j_per_byte(d, part.name)
    return np.zeros(len(d))


def _standby(d: Designs, memory: Memory) -> np.ndarray:
    if memory.kind not in data.DRAM_STANDBY_W_PER_GIB:
        return np.zeros(len(d))
    return d.column(f"{memory.name}.capacity") / 2**30 * data.DRAM_STANDBY_W_PER_GIB[memory.kind]


def _leakage(d: Designs) -> np.ndarray:
    area = _fitted(d, "area", model_area_mm2)
    return tech.leakage_w(area_mm2=area, node_nm=d.column("technology.node"), voltage_share=supply_share(d))


def _clock_w(d: Designs) -> np.ndarray:
    """Power of clocking the flip-flops of arrays and of memories made of registers; nothing is gated."""
    bit_hz = np.zeros(len(d))
    for unit, part, copies in _copies(d):
        if isinstance(part, Array):
            assert unit is not None
            bits = d.column(f"{part.name}.rows") * d.column(f"{part.name}.cols") * cell_register_bits(d, part)
        elif isinstance(part, Memory) and part.kind == "register":
            bits = 8.0 * d.column(f"{part.name}.capacity")
        else:
            continue
        bit_hz = bit_hz + copies * bits * d.column(f"{unit.name}.clock" if unit else "clock")
    node = d.column("technology.node")
    return np.asarray(bit_hz * tech.clock_energy_j(node_nm=node, voltage_share=supply_share(d)))


@_alike
def peak_power_w(subject: Subject) -> Any:
    """Power with every component at its full rate [W], scaled to the stated power where there is one."""
    return _result(subject, _fitted(_designs(subject), "power", model_power_w))


def peak_power_parts_w(subject: Subject) -> dict[str, float]:
    """Component -> power at its full rate [W], as `area_parts_mm2`; the parts sum to `peak_power_w`."""
    d = _designs(subject)
    return _parts(power_breakdown_w(d), peak_power_w(d))


def model_power_w(d: Designs) -> np.ndarray:
    """(D,) power by its parts with everything busy [W]; nan without a node."""
    breakdown = power_breakdown_w(d)
    return np.full(len(d), np.nan) if breakdown is None else np.asarray(sum(breakdown.values()))


@_alike
def idle_power_w(subject: Subject) -> Any:
    """Power that flows all the time [W]: leakage, clocks, DRAM standby, scaled to the stated idle power."""
    return _result(subject, _fitted(_designs(subject), "idle_power", model_idle_w))


def model_idle_w(d: Designs) -> np.ndarray:
    """(D,) power that flows all the time by its parts [W]; nan without a node."""
    if not _has_node(d):
        return np.full(len(d), np.nan)
    standby = sum(copies * _standby(d, part) for _, part, copies in _copies(d) if isinstance(part, Memory))
    return np.asarray(_leakage(d) + _clock_w(d) + standby)


def resource_paths(chip: Chip) -> list[str]:
    """The override paths of everything of which more makes a chip faster: the resources of law 9 (docs/laws.md)."""
    paths = ["clock"]
    for name, part in chip.components():
        if isinstance(part, Memory):
            paths.append(f"{name}.capacity")
            paths += (
                [f"{name}.bandwidth"] if part.shared_port else [f"{name}.read_bandwidth", f"{name}.write_bandwidth"]
            )
            paths += [f"{name}.outstanding"] if part.outstanding is not None else []
        elif isinstance(part, Fanout | Unit):
            paths.append(f"{name}.count")
        elif isinstance(part, Array):
            paths += [f"{name}.rows", f"{name}.cols", *(f"{name}.macs_per_cycle.{t}" for t in part.macs_per_cycle)]
            paths += [f"{name}.weight_sparsity.{pattern}" for pattern in part.weight_sparsity]
            paths += [f"{name}.depthwise_macs_per_cycle.{t}" for t in part.depthwise_macs_per_cycle]
            paths += [f"{name}.sparse_pass"] if part.sparse_pass_bytes is not None else []
            paths += [f"{name}.drain_bandwidth"] if part.drain_bytes_per_cycle is not None else []
        elif isinstance(part, VectorUnit):
            paths += [f"{name}.lanes", *(f"{name}.rates.{primitive}" for primitive in part.rates)]
        elif isinstance(part, Link):
            paths.append(f"{name}.bandwidth")
    return paths
