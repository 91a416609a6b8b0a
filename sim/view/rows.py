"""The data step of tables and figures: what a result says, as plain rows without any drawing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from sim.cost.roofline import RooflinePoint
from sim.hardware.money import die_cost_words
from sim.results import Estimate, OpEstimate, Term
from sim.units import DECIMAL, Dimension, format_quantity

TERM_WORDS = {
    Term.COMPUTE: "computing",
    Term.EXPOSED_MEMORY: "waiting for memory",
    Term.FILL_DRAIN: "fill and drain",
    Term.PRELOAD: "weight preload",
    Term.DMA_SETUP: "DMA set-up",
    Term.VECTOR: "vector unit",
    Term.LAUNCH: "launch",
    Term.COMMUNICATION: "communication",
    Term.DEQUANTISE: "dequantisation",
    Term.QUEUEING: "queueing",
}
"""Latency terms in words; every value of `Term` has one."""


_MICRO = re.compile(r"(?<=\d )u(?=[sJW]\b)")
_PERCENT = re.compile(r"(\d)%")


def time_text(seconds: float) -> str:
    """1.93 ms, 710 µs; "infeasible" where there is no latency."""
    return _micro(format_quantity(seconds, Dimension.TIME)) if isfinite(seconds) else "infeasible"


def _micro(text: str) -> str:
    """ "710 us", as files write it, -> "710 µs"."""
    return text.replace(" u", " µ")


def note_text(note: str) -> str:
    """A result's note with its quantities as tables write them: "saves 3 us (4%)" -> "saves 3 µs (4 %)"."""
    return _PERCENT.sub(r"\1 %", _MICRO.sub("µ", note))


def size_text(size_bytes: float) -> str:
    """What a cache leaves of a byte is none: 6e-06 -> "0 B"."""
    return format_quantity(0.0 if 0 < size_bytes < 0.5 else size_bytes, Dimension.SIZE)


def energy_text(energy_j: float | None) -> str:
    return "-" if energy_j is None else _micro(format_quantity(energy_j, Dimension.ENERGY))


def share_text(share: float | None) -> str:
    """0.073 -> "7.3 %", 0.62 -> "62 %"."""
    if share is None or not isfinite(share):
        return "-"
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"


def bare_words(name: str) -> str:
    """ "latency_s" -> "latency", "mac_utilization" -> "MAC util.": the head of a column whose cells carry the unit."""
    return {
        "latency_s": "latency",
        "throughput_per_s": "throughput",
        "energy_j": "energy",
        "area_mm2": "area",
        "mac_utilization": "MAC util.",
    }.get(name, name)


def change_text(change: float) -> str:
    """-0.22 -> "-22 %", 1.392 -> "+139 %", nothing for what rounds to nothing."""
    if abs(change) < 0.0005:
        return "0 %"
    return f"{100 * change:+.0f} %" if abs(change) >= 0.0995 else f"{100 * change:+.1f} %"


def count_text(count: float, unit: str = "") -> str:
    """Three digits and a decimal prefix: 4.09e9, "MAC" -> "4.09 GMAC"."""
    scales = [(name, 10.0**power) for name, power in DECIMAL.items() if power >= 0]
    prefix, scale = next(((n, s) for n, s in reversed(scales) if abs(count) >= 0.9995 * s), ("", 1.0))
    return f"{count / scale:.3g} {prefix}{unit}".rstrip()


def intensity_text(flop_per_byte: float) -> str:
    """Three digits, and all of a large one: 6182.4 -> "6,182"."""
    return f"{flop_per_byte:.3g}" if flop_per_byte < 999.5 else f"{flop_per_byte:,.0f}"


def bound_text(bound: str) -> str:
    """ "memory:DRAM" -> "DRAM bandwidth"."""
    kind, _, name = bound.partition(":")
    return {"memory": f"{name} bandwidth", "link": f"link {name}"}.get(kind, bound)


def kind_of(op: OpEstimate | RooflinePoint) -> str:
    """A handful of kinds that a reader tells apart by colour."""
    kind = op.kind.lower()
    if "attention" in kind or "sdpa" in kind:
        return "attention"
    if "conv" in kind:
        return "convolution"
    if op.macs:
        return "matrix product"
    return "vector" if op.vector_ops else "data movement"


def traffic_bytes(op: OpEstimate, memory: str) -> float:
    """Bytes that an op moves over a memory, both directions."""
    return sum(t.read + t.write for t in op.traffic_bytes.get(memory, {}).values())


def saved_text(ops: Sequence[OpEstimate]) -> str:
    """Time that fusion and kept tensors save ops, signed: "-0.3 us" where it pays for others."""
    if any(op.saved is None for op in ops):
        return "-"
    seconds = sum(op.saved.latency_s for op in ops if op.saved)
    return ("-" if seconds < 0 else "") + time_text(abs(seconds)) if abs(seconds) > 1e-12 else "0"


def terms(estimate: Estimate) -> list[tuple[Term, float, float]]:
    """(term, seconds, share) of the terms that take time, largest first."""
    rows = [(term, s, s / estimate.latency_s) for term, s in estimate.breakdown_s.items() if s]
    return sorted(rows, key=lambda row: -row[1])


IDLE_WORDS = "idle (leakage, clocks, refresh)"
"""`leakage` of an energy breakdown: all power that flows whatever runs."""


def component_words(name: str) -> str:
    """A component of an energy breakdown as tables and pages name it."""
    return IDLE_WORDS if name == "leakage" else name


def energies(estimate: Estimate) -> list[tuple[str, float, float]]:
    """(component, joules, share) of what takes energy, largest first; they sum to the total. Empty where unknown."""
    if estimate.energy_j is None:
        return []
    found = [
        (component_words(name), joules, joules / estimate.energy_j)
        for name, joules in estimate.energy_breakdown_j.items()
        if joules
    ]
    return sorted(found, key=lambda row: -row[1])


def area_text(area_mm2: float) -> str:
    """ "57 mm2": three digits."""
    return f"{area_mm2:.3g} mm2" if area_mm2 < 999.5 else f"{area_mm2:,.0f} mm2"


def power_text(power_w: float) -> str:
    return _micro(format_quantity(power_w, Dimension.POWER))


def die(estimate: Estimate) -> str:
    """Area with its largest parts, and what a die costs, in a sentence; "" where the area is unknown."""
    if estimate.area_mm2 is None:
        return ""
    largest = sorted(estimate.area_breakdown_mm2.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {share_text(area / estimate.area_mm2)}" for name, area in largest)
    line = f"Silicon of {area_text(estimate.area_mm2)}" + (f": {shares}" if shares else "")
    cost = f" {die_cost_words(estimate.die_cost)}." if estimate.die_cost else ""
    return f"{line}.{cost}"


def die_cost_notes(estimate: Estimate) -> list[str]:
    """What the cost that `die` tells rests on."""
    told = estimate.infeasible is None and estimate.die_cost.get("assumes")
    return [f"Die cost: {estimate.die_cost['assumes']}."] if told else []


def bounds(estimate: Estimate) -> list[tuple[str, float]]:
    """(what binds, share of the latency spent in ops that it binds), largest first."""
    shares: dict[str, float] = {}
    for op in estimate.ops:
        shares[op.bound] = shares.get(op.bound, 0.0) + op.latency_s / estimate.latency_s
    return sorted(shares.items(), key=lambda row: -row[1])


@dataclass(frozen=True, slots=True)
class Change:
    """What a larger resource or another precision does to the latency: factor -> latency [s]."""

    resource: str
    latency_s: Mapping[float, float]

    @property
    def best_s(self) -> float:
        return min(self.latency_s.values())


PRECISION = "precision "
"""Begins the resource of a what-if that is another precision and not a larger part."""
FELT = 0.005
"""Relative change of the latency that is told in a line of its own."""


def changes(estimate: Estimate) -> tuple[list[Change], list[Change], list[str]]:
    """(larger resources, other precisions, resources that change next to nothing), fastest first."""
    found: dict[str, dict[float, float]] = {}
    for entry in estimate.what_if:
        found.setdefault(entry.resource, {})[entry.factor] = entry.latency_s
    every = sorted((Change(name, by_factor) for name, by_factor in found.items()), key=lambda c: c.best_s)
    larger = [change for change in every if not change.resource.startswith(PRECISION)]
    felt = [c for c in larger if any(abs(s / estimate.latency_s - 1) >= FELT for s in c.latency_s.values())]
    others = [Change(c.resource.removeprefix(PRECISION), c.latency_s) for c in every if c not in larger]
    return felt, others, [change.resource for change in larger if change not in felt]


WHAT_IF = "what if: "
"""Begins a note on changed chips that were left out; of a network that does not run, nearly all are."""


def remedies(estimate: Estimate) -> list[str]:
    """What would make a network run that does not: each resource by the least factor, and other precisions.

    Example: "SRAM.capacity x 2 (3.1 ms)", "precision int4 (1.2 ms)".
    """
    least: dict[str, tuple[float, float]] = {}
    for entry in estimate.what_if:
        least[entry.resource] = min(least.get(entry.resource, (inf, inf)), (entry.factor, entry.latency_s))
    return [
        f"{name} ({time_text(seconds)})"
        if name.startswith(PRECISION)
        else f"{name} x {factor:g} ({time_text(seconds)})"
        for name, (factor, seconds) in least.items()
    ]


def heaviest(estimate: Estimate) -> list[OpEstimate]:
    """Ops by latency, largest first; ties stay in the order of the network."""
    return sorted(estimate.ops, key=lambda op: -op.latency_s)


def equal_layers(estimate: Estimate) -> list[list[OpEstimate]]:
    """Ops that differ in the numbers of their modules alone (the same work, types, tiles and binding resource), those
    that take longest together first."""
    alike: dict[tuple, list[OpEstimate]] = {}
    for op in heaviest(estimate):
        work = (op.kind, op.macs, op.vector_ops, op.bound, op.precision, tile_text(op.mapping))
        alike.setdefault((_numberless(op.name), *work), []).append(op)
    return sorted(alike.values(), key=lambda ops: -seconds_of(ops))


def seconds_of(ops: Sequence[OpEstimate]) -> float:
    return sum(op.latency_s for op in ops)


def layers_text(ops: Sequence[OpEstimate]) -> str:
    """ "layers.*.up x 32"; the name of a single one."""
    return ops[0].name if len(ops) == 1 else f"{_numberless(ops[0].name)} x {len(ops)}"


def _numberless(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module of the user's model with everything below it."""

    path: str
    depth: int
    ops: int
    macs: int
    latency_s: float
    energy_j: float | None


def modules(estimate: Estimate, *, depth: int = 2) -> list[ModuleRow]:
    """The module tree down to `depth`, in the order of the network; each row includes its children.

    Rows of one depth sum to their parent, and the root's row (path "") to the network.
    """
    found: dict[str, list[OpEstimate]] = {"": []}
    for op in estimate.ops:
        parts = op.module.split(".") if op.module else []
        found[""].append(op)
        for level in range(1, min(depth, len(parts)) + 1):
            found.setdefault(".".join(parts[:level]), []).append(op)
    return [
        ModuleRow(
            path=path,
            depth=path.count(".") + 1 if path else 0,
            ops=len(ops),
            macs=sum(op.macs for op in ops),
            latency_s=sum(op.latency_s for op in ops),
            energy_j=_sum_known(op.energy_j for op in ops),
        )
        for path, ops in sorted(found.items(), key=lambda item: _first_position(item[0], list(found)))
    ]


def _first_position(path: str, order: Sequence[str]) -> tuple[int, ...]:
    """Where the path and each of its ancestors were first seen: a depth-first order."""
    parts = path.split(".") if path else []
    return tuple(order.index(".".join(parts[: level + 1])) for level in range(len(parts)))


def _sum_known(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if any(value is None for value in known) else sum(v for v in known if v is not None)


def tile_text(mapping: Mapping[str, object] | None) -> str:
    """The tile that each memory holds: "SRAM M128 N96 K512"; ranks that are not tiled are left out."""
    nodes = (mapping or {}).get("nodes")
    if not isinstance(nodes, list | tuple):
        return "-"
    current: dict[str, int] = {}
    held: dict[str, dict[str, int]] = {}
    for node in nodes:
        if "loop" in node:
            current[node["loop"]] = node["tile"]
        else:
            held[node["memory"]] = dict(current)
    texts = [f"{memory} {' '.join(f'{r}{n}' for r, n in tile.items()) or 'all'}" for memory, tile in held.items()]
    return "; ".join(texts) or "-"


CHANGES_TOLD = 4
"""Changes of a chip that a verdict names; of more it gives the number."""


def told_apart(estimates: Sequence[Estimate]) -> list[str]:
    """Of each result, what to add to its name among those of one workload on one chip: " (DRAM.bandwidth=34 GB/s)".

    The precision, knobs and changes of the chip that differ among them, and a number where nothing does: " [2]". Empty
    where there is no other of that name, or where what differs is left as it is.
    """
    found = [""] * len(estimates)
    names = [(e.workload_name, e.hardware_name) for e in estimates]
    for name in dict.fromkeys(names):
        places = [i for i, other in enumerate(names) if other == name]
        if len(places) == 1:
            continue
        choices = [{"precision": e.precision, **e.knobs, **e.overrides} for e in (estimates[i] for i in places)]
        keys = dict.fromkeys(key for choice in choices for key in choice)
        differ = [key for key in keys if len({str(choice.get(key)) for choice in choices}) > 1]
        told = [", ".join(f"{key}={choice[key]}" for key in differ if key in choice) for choice in choices]
        for k, i in enumerate(places):
            what = f" ({told[k]})" if told[k] else ""
            found[i] = f"{what} [{told[: k + 1].count(told[k])}]" if told.count(told[k]) > 1 else what
    return found


def _below(estimate: Estimate) -> str:
    """Why an estimate may be below its roofline: what it rests on is not the data sheet."""
    if estimate.calibration is None:
        return "it has latencies that were stated, not modelled"
    return "its constants were measured, not the sheet's"


def verdict(estimate: Estimate) -> str:
    """One paragraph: how long, what binds, how far from the roofline."""
    changes = [f"{key}={value}" for key, value in estimate.overrides.items()]
    told = changes if len(changes) <= CHANGES_TOLD else [f"{len(changes)} changes of the chip"]
    what = ", ".join([estimate.precision, f"batch {estimate.batch}", *told])
    subject = f"{estimate.workload_name} on {estimate.hardware_name} ({what})"
    if estimate.infeasible is not None or not isfinite(estimate.latency_s):
        reason = (estimate.infeasible or {}).get("reason", "no mapping fits")
        return f"{subject} is infeasible: {reason}"
    parts = [f"{subject} takes {time_text(estimate.latency_s)}"]
    if estimate.latency_interval_s is not None:
        low, high = estimate.latency_interval_s
        parts[0] += f" ({time_text(low)} to {time_text(high)})"
    parts[0] += f", {count_text(estimate.throughput_per_s)} inferences a second."
    found = bounds(estimate)
    if found:
        (first, share), *others = [(bound_text(b), share_text(s)) for b, s in found[:2]]
        words = "".join([f"Ops bound by {first} take {share} of that time", *(f", by {b} {s}" for b, s in others)])
        largest = ", ".join(f"{TERM_WORDS[term]} {share_text(share)}" for term, _, share in terms(estimate)[:2])
        parts.append(f"{words}; its largest terms: {largest}.")
    ratio = estimate.roofline_latency_s / estimate.latency_s
    parts.append(f"The data sheet's roofline is {time_text(estimate.roofline_latency_s)}, {share_text(ratio)} of it.")
    if estimate.below_datasheet_roofline:
        parts.append(f"The estimate is below that roofline: {_below(estimate)}. Look twice.")
    if estimate.mac_utilization is not None:
        parts.append(f"The multipliers are busy {share_text(estimate.mac_utilization)} of the time.")
    if estimate.energy_j is not None:
        each = f"{energy_text(estimate.energy_j / estimate.batch)} an inference"
        whole = "" if estimate.batch == 1 else f", {energy_text(estimate.energy_j)} the batch"
        parts.append(f"Energy {each}{whole}.")
    return " ".join(parts)
