"""From a validated chip file to a `Chip`: cross checks, base units, provenance of every number."""

from __future__ import annotations

from collections.abc import Iterator

from sim.errors import ConfigError, PrecisionError, nearest, several
from sim.hardware import chip as c
from sim.hardware import schema as s
from sim.hardware.technology_data import DRAM_PJ_PER_BIT, SRAM_KINDS
from sim.units import format_times
from sim.workload.precision import parse_precision

RESERVED = ("clock", "technology", "system", "overheads")
"""Words that start an override path and so cannot name a component."""


def compile_chip(spec: s.ChipSpec, *, where: str) -> c.Chip:
    """The chip of a file. Raises ConfigError with every problem, one a line, each with its place."""
    provenance, problems = _provenance(spec)
    problems += _cross_checks(spec)
    if problems:
        raise ConfigError(several(f"{where}: {problem}" for problem in problems))
    technology = spec.technology
    return c.Chip(
        name=spec.name,
        title=spec.title,
        clock_hz=spec.clock,
        default_precision=spec.default_precision,
        memories=tuple(_memory(m) for m in spec.memories),
        units=tuple(_unit(u, spec) for u in spec.units),
        links=tuple(
            c.Link(name=k.name, ends=k.ends, bandwidth=k.bandwidth, latency_s=k.latency, energy_j_per_byte=k.energy)
            for k in spec.links
        ),
        dma_engines=tuple(c.DmaEngines(name=e.name, count=e.count, units=e.units) for e in spec.dma_engines),
        technology=c.Technology() if technology is None else c.Technology(
            node_nm=technology.node, max_clock_hz=technology.max_clock, area_mm2=technology.area,
            power_w=technology.power, idle_power_w=technology.idle_power, voltage_v=technology.voltage,
            dies=technology.dies, area_fit=technology.area_fit,
            power_fit=technology.power_fit, idle_power_fit=technology.idle_power_fit,
        ),
        sources=dict(spec.sources),
        provenance=provenance,
        notes=spec.notes,
        system=None if spec.system is None else _system(spec.system),
        algorithms=spec.algorithms,
        host_link=spec.host_link,
        calibration=spec.calibration,
        overrides=dict(spec.overrides),
    )  # fmt: skip


def _memory(m: s.MemorySpec) -> c.Memory:
    return c.Memory(
        name=m.name, kind=m.kind, capacity_bytes=m.capacity,
        read=m.bandwidth or m.read_bandwidth, write=m.bandwidth or m.write_bandwidth,  # type: ignore[arg-type]
        shared_port=m.bandwidth is not None, latency_s=m.latency, efficiency=m.efficiency, burst_bytes=m.burst,
        outstanding=m.outstanding, request_bytes=m.request, holds=frozenset(m.holds),
        double_buffered=m.double_buffered, residency=m.residency,
        read_energy_j_per_byte=m.read_energy, write_energy_j_per_byte=m.write_energy,
    )  # fmt: skip


def _level(level: s.LevelSpec) -> c.Level:
    if level.memory:
        return _memory(level.memory)
    if level.fanout:
        return c.Fanout(name=level.fanout.name, count=level.fanout.count, multicast=level.fanout.multicast)
    a = level.array
    assert a is not None
    return c.Array(
        name=a.name, rows=a.rows, cols=a.cols, dataflow=a.dataflow, skew=a.skew, folds=a.folds, preload=a.preload,
        macs_per_cycle=dict(a.macs_per_cycle), accumulate_bits=a.accumulate, weight_sparsity=dict(a.weight_sparsity),
        sparse_min_channels=a.sparse_min_channels, sparse_pass_bytes=a.sparse_pass, skips_zeros=a.skips_zeros,
        depthwise_macs_per_cycle=dict(a.depthwise_macs_per_cycle), drain_bytes_per_cycle=a.drain_bandwidth,
        mac_energy_j=dict(a.mac_energy),
    )  # fmt: skip


def _unit(u: s.UnitSpec, spec: s.ChipSpec) -> c.Unit:
    overheads = u.overheads or spec.overheads
    v = u.vector
    return c.Unit(
        name=u.name, count=u.count, home=u.home, hierarchy=tuple(_level(level) for level in u.hierarchy),
        vector=c.VectorUnit(
            name=v.name, lanes=v.lanes, rates=dict(v.rates),
            fallback={name: dict(parts) for name, parts in v.fallback.items()}, energy_j=dict(v.energy),
        ),
        clock_hz=spec.clock if u.clock is None else u.clock, costing=u.costing, buffering=u.buffering,
        launch_s=overheads.launch if overheads else 0.0, dma_setup_s=overheads.dma_setup if overheads else 0.0,
        options=dict(u.options),
    )  # fmt: skip


def _system(spec: s.SystemSpec) -> c.System:
    return c.System(chips=spec.chips, topology=spec.topology, link=spec.link, ports=spec.ports, pipeline=spec.pipeline)


def parts(spec: s.ChipSpec) -> Iterator[tuple[str, str, s.Spec]]:
    """(place in the file, prefix of its override paths, part) of everything that states numbers."""
    yield "clock", "", spec
    for i, memory in enumerate(spec.memories):
        yield f"memories[{i}]", memory.name, memory
    for i, unit in enumerate(spec.units):
        place = f"units[{i}]"
        yield place, unit.name, unit
        for j, level in enumerate(unit.hierarchy):
            kind = next(iter(level.model_fields_set))
            inner = getattr(level, kind)
            yield f"{place}.hierarchy[{j}].{kind}", inner.name, inner
        yield f"{place}.vector", unit.vector.name, unit.vector
        overheads = unit.overheads or spec.overheads
        if overheads:
            yield f"{place}.overheads" if unit.overheads else "overheads", unit.name, overheads
    for i, link in enumerate(spec.links):
        yield f"links[{i}]", link.name, link
    for i, engines in enumerate(spec.dma_engines):
        yield f"dma_engines[{i}]", engines.name, engines
    if spec.technology:
        yield "technology", "technology", spec.technology
    if spec.system:
        yield "system", "system", spec.system


def _provenance(spec: s.ChipSpec) -> tuple[dict[str, str], list[str]]:
    """Dotted path -> source of every stated number, and what is wrong with the sources."""
    provenance: dict[str, str] = {}
    problems: list[str] = []
    for place, prefix, part in parts(spec):
        stated = part.stated()
        source = part.source  # type: ignore[attr-defined]
        if source is None:
            if stated:
                problems.append(f"{place}.source: missing: {', '.join(stated)} need a source")
            continue
        table = source if isinstance(source, dict) else {"default": source}
        for name, text in table.items():
            problems += _check_source(f"{place}.source", text, spec.sources)
            if name != "default" and name.split(".")[0] not in stated:
                problems.append(f"{place}.source: {name} is not a number stated here.{nearest(name, stated)}")
        for name in stated:
            inner = {key: text for key, text in table.items() if key == name or key.startswith(name + ".")}
            if name not in inner and "default" in table:
                inner[name] = table["default"]
            value = getattr(part, name)
            covered = name in inner or (isinstance(value, dict) and all(f"{name}.{key}" in inner for key in value))
            if not covered:
                problems.append(f'{place}.source: {name} has none: name it, or give "default"')
            for key, text in inner.items():
                provenance[f"{prefix}.{key}" if prefix else key] = text
    return dict(sorted(provenance.items())), list(dict.fromkeys(problems))


def _check_source(place: str, text: str, sources: dict[str, str]) -> list[str]:
    word, _, why = text.partition(":")
    word = word.strip()
    if word in ("estimated", "derived", "override") and not why.strip():
        return [f'{place}: "{text}" must say why, such as "{word}: one lane per column"']
    if word in s.SOURCE_WORDS or word in sources:
        return []
    choices = [*sources, *s.SOURCE_WORDS]
    return [f'{place}: "{text}" is no key of sources: expected one of {", ".join(choices)}.{nearest(word, choices)}']


def _cross_checks(spec: s.ChipSpec) -> list[str]:
    problems: list[str] = []
    named = [(place, prefix) for place, prefix, part in parts(spec) if hasattr(part, "name") and prefix]
    seen: dict[str, str] = {}
    for place, name in named:
        if name in RESERVED:
            problems.append(f'{place}.name: "{name}" is a reserved word: choose another name')
        if name in seen:
            problems.append(f'{place}.name: "{name}" is already the name of {seen[name]}: names are unique in a chip')
        seen.setdefault(name, place)
    memories = [m.name for m in spec.memories]
    for i, unit in enumerate(spec.units):
        if unit.home not in memories:
            problems.append(
                f'units[{i}].home: "{unit.home}" is not one of the memories: {", ".join(memories)}.'
                f"{nearest(unit.home, memories)}"
            )
    for i, link in enumerate(spec.links):
        problems += [
            f'links[{i}].ends: "{end}" is no component, host or chip.{nearest(end, seen)}'
            for end in link.ends
            if end not in seen and end not in ("host", "chip")
        ]
    used = {unit.home for unit in spec.units} | {end for link in spec.links for end in link.ends}
    problems += [
        f"memories[{i}]: {name} is the home of no unit: nothing would use it. A buffer between home and array belongs "
        "into the unit's hierarchy, where each copy of the unit has its own"
        for i, name in enumerate(memories)
        if name not in used
    ]
    served: dict[str, str] = {}
    units = [u.name for u in spec.units]
    for i, engines in enumerate(spec.dma_engines):
        for name in engines.units:
            where = f'dma_engines[{i}].units: "{name}"'
            if name not in units:
                problems.append(f"{where} is no unit: {', '.join(units)}.{nearest(name, units)}")
            if name in served:
                problems.append(f'{where} has its transfers moved by "{served[name]}" already')
            served[name] = engines.name
    if spec.host_link is not None:
        if spec.host_link not in [k.name for k in spec.links]:
            problems.append(f'host_link: "{spec.host_link}" is not the name of a link.{nearest(spec.host_link, seen)}')
        problems += _ends_check(spec, "host_link", spec.host_link, "host")
    problems += _algorithms_check(spec)
    return problems + _kind_check(spec) + _system_check(spec) + _precision_check(spec) + _clock_check(spec)


def _algorithms_check(spec: s.ChipSpec) -> list[str]:
    """A convolution always has the direct algorithm, and the others only from the kernels of a GPU."""
    if "direct" not in spec.algorithms:
        return ["algorithms: direct is missing: convolutions that the others cannot compute run in it"]
    others = [name for name in spec.algorithms if name != "direct"]
    recosted = any(path.endswith(".costing") for path in spec.overrides)  # --set cannot take algorithms back
    if not others or recosted or c.Costing.GPU_KERNELS in [unit.costing for unit in spec.units]:
        return []
    costed = ", ".join(f"{unit.name} as {unit.costing.value}" for unit in spec.units)
    return [f"algorithms: {others[0]} is taken by units that are costed as gpu_kernels alone; here are {costed}"]


def _ends_check(spec: s.ChipSpec, key: str, name: str, far: str) -> list[str]:
    """What crosses a link between the chip and what is `far` lies in the home memory of the unit that runs a model."""
    unit = spec.units[0]
    elsewhere = {m.name for m in spec.memories} - {unit.home}
    return [
        f"{key}: {name} joins {' and '.join(link.ends)}: expected a link with {far} at one end and at the other "
        f"{unit.home}, the home of {unit.name}, where what crosses it lies"
        for link in spec.links
        if link.name == name and (far not in link.ends or elsewhere & set(link.ends))
    ]


def _kind_check(spec: s.ChipSpec) -> list[str]:
    """Outside the units memories are DRAM as a rule: the default of those inside would price gigabytes as SRAM."""
    if spec.technology is None or spec.technology.node is None:
        return []
    kinds = f"{', '.join(sorted(DRAM_PJ_PER_BIT))}, or on the die {', '.join(sorted(SRAM_KINDS))}"
    return [
        f"memories[{i}].kind: missing: area, power and energy of {memory.name} follow from it at the node stated; "
        f"expected one of {kinds}"
        for i, memory in enumerate(spec.memories)
        if "kind" not in memory.model_fields_set
    ]


def _system_check(spec: s.ChipSpec) -> list[str]:
    if spec.system is None:
        return []
    links = [k.name for k in spec.links]
    if spec.system.link not in links:
        expected = f"one of {', '.join(links)}" if links else "a link, with bandwidth and latency, under links"
        return [f'system.link: "{spec.system.link}" is no link: expected {expected}.{nearest(spec.system.link, links)}']
    at = links.index(spec.system.link)
    problems = _ends_check(spec, "system.link", spec.system.link, "chip")
    if spec.links[at].bandwidth.per_s is None:
        problems.append(
            f"links[{at}].bandwidth: expected a rate per second, since the chips of a system share no clock"
        )
    if "latency" not in spec.links[at].model_fields_set:
        problems.append(f"links[{at}].latency: missing: the link of a system needs the latency of one hop")
    return problems


def _precision_check(spec: s.ChipSpec) -> list[str]:
    array = spec.units[0].hierarchy[-1].array
    assert array is not None
    try:
        compute = parse_precision(spec.default_precision, array.macs_per_cycle).compute
    except PrecisionError as error:
        return [f"default_precision: {error}"]
    if compute in array.macs_per_cycle:
        return []
    has = ", ".join(array.macs_per_cycle)
    return [f"default_precision: {spec.default_precision} is not a rate of {array.name}, which has {has}"]


def _clock_check(spec: s.ChipSpec) -> list[str]:
    if spec.clock <= 0:
        return ["clock: must be above 0"]
    limit = spec.technology.max_clock if spec.technology else None
    if limit is None:
        return []
    clocks = {"clock": spec.clock} | {f"units[{i}].clock": unit.clock or 0.0 for i, unit in enumerate(spec.units)}
    most = f"technology.max_clock, {limit / 1e9:g} GHz"
    return [
        f"{place}: {clock / 1e9:g} GHz is above {most} ({format_times(clock / limit)})"
        for place, clock in clocks.items()
        if clock > limit
    ]
