"""Results as terminal tables: within the console's width, colour only where the console has it.

Every function returns a rich renderable. Text that a user wrote goes in as `Text`, so that markup
in a name is shown and not obeyed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.cost.roofline import Roofline, RooflinePoint
from sim.results import Estimate, OpEstimate
from sim.view import rows
from sim.view.fitted import Column, FittedTable, Shorten, fitted, number, words

NAME = 28
"""Cells that an op's name keeps: enough to tell the layers of a block apart."""
TILES = 20
"""Cells without which tiles are not shown: two ranks of one memory."""
_BLOCKS = " ▏▎▍▌▋▊▉█"


def bar(share: float, width: int = 14) -> Text:
    """A bar of eighth blocks: `share` of `width` cells, at least a sliver for what is not zero."""
    eighths = min(8 * width, max(1 if share > 0 else 0, round(8 * width * share)))
    full, part = divmod(eighths, 8)
    return Text(("█" * full + (_BLOCKS[part] if part else "")).ljust(width), style="cyan")


def plain_table(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; the first `left` columns hold text, which wraps, the others numbers, which do not."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False,
                  min_width=min(len(title), 56))  # fmt: skip
    for i, name in enumerate(columns):
        text = i < left
        table.add_column(name, justify="left" if text else "right", no_wrap=not text, overflow="ellipsis")
    return table


def verdict(estimate: Estimate) -> Text:
    return Text(rows.verdict(estimate), style="bold" if estimate.infeasible is None else "bold red")


def breakdown(estimate: Estimate) -> Table:
    """Where the latency goes: each term, its time and its share."""
    table = plain_table("Where the time goes", "term", "share", "", "time", left=2)
    table.columns[2].justify = "right"
    for term, seconds, share in rows.terms(estimate):
        table.add_row(rows.TERM_WORDS[term], bar(share, 24), rows.share_text(share), rows.time_text(seconds))
    table.add_section()
    table.add_row("total", "", "100 %", rows.time_text(estimate.latency_s), style="bold")
    return table


def energy(estimate: Estimate) -> FittedTable:
    """Where the energy goes: each component, its share, its energy an inference and its power while that runs."""
    found = rows.energies(estimate)
    heads = (words("component", at_least=16), words("", drop=2, at_least=14), number("share"), number("energy"),
             number("power", drop=1))  # fmt: skip
    lines: list[list[str | Text]] = [
        [
            name,
            bar(share),
            rows.share_text(share),
            rows.energy_text(joules),
            rows.power_text(joules / estimate.latency_s),
        ]
        for name, joules, share in found
    ]
    total = estimate.energy_j or 0.0
    lines.append(["total", "", "100 %", rows.energy_text(total), rows.power_text(total / estimate.latency_s)])
    return fitted("Energy", heads, lines, styles=[*[""] * len(found), "bold"])


def memory(estimate: Estimate) -> Table:
    """Traffic and peak occupancy per memory, outermost first."""
    table = plain_table("Memory", "memory", "read", "written", "peak held")
    for name, traffic in estimate.traffic_bytes.items():
        peak = estimate.peak_memory_bytes.get(name)
        peak_text = "-" if peak is None else rows.size_text(peak)
        table.add_row(Text(name), rows.size_text(traffic.read), rows.size_text(traffic.write), peak_text)
    return table


def per_op(estimate: Estimate, *, limit: int | None = None) -> FittedTable:
    """Ops by time with what binds them, utilisation, traffic at the home memory and tiles; up to a limit, equal layers
    are one row of their sums."""
    home = next(iter(estimate.traffic_bytes), "")
    every = [[op] for op in rows.heaviest(estimate)] if limit is None else rows.equal_layers(estimate)
    shown, rest = every[:limit], [op for ops in every[limit:] for op in ops] if limit is not None else []
    heads = [ops[0] for ops in shown]
    seconds = [rows.seconds_of(ops) for ops in shown]
    longest = max(seconds, default=0.0)
    names, styles = [Text(rows.layers_text(ops)) for ops in shown], [""] * len(shown)
    if rest:
        names, styles = [*names, Text(f"{len(rest)} more")], [*styles, "dim"]

    def column(title: str, cells: Iterable[Text | str], **how: Any) -> Column:
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        return Column(title=title, cells=(*texts, *[Text("")] * (len(names) - len(texts))), **how)

    sums = [*shown, rest] if rest else shown
    used = (sum((op.mac_utilization or 0.0) * op.latency_s for op in ops) for ops in shown)
    shares = (None if op.mac_utilization is None else u / s for op, u, s in zip(heads, used, seconds, strict=True))
    columns = (
        column("op", names, shorten=Shorten.LEFT, left=True, at_least=NAME),
        *([column("types", (op.precision for op in heads), left=True)] if _mixed(estimate) else []),
        column("bound by", (rows.bound_text(op.bound) for op in heads), left=True, drop=1),
        column("", (bar(s / longest, 8) for s in seconds), left=True, drop=6),
        column("share", (rows.share_text(rows.seconds_of(ops) / estimate.latency_s) for ops in sums)),
        column("time", (rows.time_text(rows.seconds_of(ops)) for ops in sums)),
        column("MAC util.", map(rows.share_text, shares), drop=2),
        column(home, (rows.size_text(sum(rows.traffic_bytes(op, home) for op in ops)) for ops in shown), drop=3),
        *([column("energy", map(_joules, sums), drop=3 if limit is None else 4)] if any(map(_stated, every)) else []),
        *([column("saved", map(rows.saved_text, shown), drop=3)] if estimate.saved else []),
        column(
            "tiles",
            (rows.tile_text(op.mapping) for op in heads),
            drop=5,
            shorten=Shorten.RIGHT,
            left=True,
            at_least=TILES,
        ),
    )
    return FittedTable(title="Ops by time", columns=columns, styles=styles)


def _stated(ops: Sequence[OpEstimate]) -> bool:
    return any(op.energy_j for op in ops)


def _joules(ops: Sequence[OpEstimate]) -> str:
    return rows.energy_text(None if any(op.energy_j is None for op in ops) else sum(op.energy_j or 0.0 for op in ops))


def _mixed(estimate: Estimate) -> bool:
    """Whether products differ in the types that they are stored in (a precision policy, a quantised model)."""
    return len({op.precision for op in estimate.ops if op.macs}) > 1


def by_module(estimate: Estimate, *, depth: int = 2) -> FittedTable:
    """The module tree with the time, work and energy of each branch."""
    tree = rows.modules(estimate, depth=depth)
    shares = [row.latency_s / estimate.latency_s for row in tree]

    def name(row: rows.ModuleRow) -> Text:
        own = row.path.rpartition(".")[2] if row.path else estimate.workload_name
        return Text("  " * max(0, row.depth - 1) + own)

    def numbers(title: str, cells: Iterable[str], drop: int = 0) -> Column:
        return Column(title=title, cells=tuple(map(Text, cells)), drop=drop)

    columns = (
        Column(title="module", cells=tuple(map(name, tree)), shorten=Shorten.RIGHT, left=True),
        Column(title="", cells=tuple(map(bar, shares)), left=True, drop=3),
        numbers("share", map(rows.share_text, shares)),
        numbers("time", (rows.time_text(row.latency_s) for row in tree)),
        numbers("MACs", (rows.count_text(row.macs) for row in tree), drop=1),
        numbers("ops", (str(row.ops) for row in tree), drop=4),
        numbers("energy", (rows.energy_text(row.energy_j) for row in tree), drop=2),
    )
    return FittedTable(title="By module", columns=columns, styles=["" if row.path else "bold" for row in tree])


def what_if(estimate: Estimate) -> RenderableType:
    """What a larger resource would give, best first, then the other precisions."""
    larger, precisions, unfelt = rows.changes(estimate)
    factors = sorted({factor for change in larger for factor in change.latency_s})

    def cells(seconds: float | None) -> tuple[str, str]:
        if seconds is None:
            return "-", ""
        return rows.time_text(seconds), rows.change_text(seconds / estimate.latency_s - 1)

    parts: list[RenderableType] = []
    if larger:
        heads = [words("resource", at_least=20), *(number(t) for f in factors for t in (f"x {f:g}", "change"))]
        lines = [[c.resource, *(text for f in factors for text in cells(c.latency_s.get(f)))] for c in larger]
        parts.append(fitted("What if a resource were larger", heads, lines))
    if unfelt:
        parts += [Text(f"Less than {rows.share_text(rows.FELT)} from more: {', '.join(unfelt)}."), Text()]
    if precisions:
        heads = [words("precision"), number("latency"), number("change")]
        lines = [[change.resource, *cells(change.best_s)] for change in precisions]
        parts.append(fitted("In other precisions", heads, lines))
    return Group(*parts)


def roofline(bound: Roofline, *, limit: int = 12) -> RenderableType:
    """The bound per resource, the ridges, and the ops that take longest at best."""
    text = f"{bound.workload_name} on {bound.hardware_name} ({bound.precision}) takes at best "
    text += f"{rows.time_text(bound.latency_s)}: {rows.bound_text(bound.bound)} binds."
    resources = plain_table("Busy at best", "resource", "time", "ceiling")
    ceilings = {("compute", bound.precision): "compute", ("memory", bound.home): f"memory:{bound.home}"}
    heights = {ceilings.get((c.kind, c.name)): c for c in bound.ceilings}
    for name, seconds in sorted(bound.resource_s.items(), key=lambda item: -item[1]):
        ceiling = heights.get(name)
        unit = "B/s" if ceiling is not None and ceiling.kind == "memory" else "FLOP/s"
        height = rows.count_text(ceiling.rate, unit) if ceiling is not None else ""
        resources.add_row(Text(rows.bound_text(name)), rows.time_text(seconds), height)
    ridges = plain_table("Ridge points [FLOP/byte]", "precision", *bound.memories)
    for precision, by_memory in bound.ridges_flop_per_byte.items():
        ridges.add_row(precision, *(rows.intensity_text(by_memory[name]) for name in bound.memories))
    ops = _ops_at_best(bound, limit)
    counted = (
        f"FLOP: 2 a MAC where an op has any (its epilogue is the lanes'), else its vector ops. Bytes: {bound.home}'s"
    )
    counted += ", or, where an op moves none there, those of the memory that is named."
    return Group(Text(text, style="bold"), Text(), resources, ridges, ops, Text(counted))


def beside_bound(estimate: Estimate) -> str:
    """The estimate that a roofline's figure draws, and what it rests on."""
    if estimate.infeasible is not None:
        return "No estimate: it does not fit."
    time = rows.time_text(estimate.latency_s)
    return f"The estimate is {time}, {calibration_words(estimate)}; the bound is the data sheet's."


def calibration_words(estimate: Estimate) -> str:
    """What an estimate rests on."""
    return f"calibrated on {estimate.calibration.get('device')}" if estimate.calibration else "data sheet only"


def _ops_at_best(bound: Roofline, limit: int) -> FittedTable:
    longest = sorted(bound.ops, key=lambda op: -op.roofline_s)
    ops, rest = longest[:limit], longest[limit:]
    more = [f"{len(rest)} more"] if rest else []

    def column(title: str, cells: Iterable[str], last: str = "", **how: Any) -> Column:
        return Column(title=title, cells=tuple(map(Text, [*cells, *([last] if rest else [])])), **how)

    def rate(value: float | None) -> str:
        return "-" if value is None else rows.count_text(value, "FLOP/s")

    def intensity(op: RooflinePoint) -> str:
        value, over = op.operational_intensity_flop_per_byte, op.intensity_over
        return "-" if value is None else rows.intensity_text(value) + (f" ({over})" if over != bound.home else "")

    columns = (
        column("op", (op.name for op in ops), *more, shorten=Shorten.LEFT, left=True, at_least=NAME),
        column("bound by", (rows.bound_text(op.bound) for op in ops), left=True, drop=1),
        column("time", (rows.time_text(op.roofline_s) for op in ops), rows.time_text(sum(o.roofline_s for o in rest))),
        column("FLOP", (rows.count_text(op.roof_flops) for op in ops), drop=3),
        column("FLOP/byte", map(intensity, ops), drop=2),
        column("attainable", (rate(op.attainable_flop_per_s) for op in ops), drop=4),
    )
    return FittedTable(title="Ops by time at best", columns=columns)


def notes(estimate: Estimate) -> Text:
    """What the numbers rest on: every choice that was made for the user, then the remarks."""
    choices = [
        f"{estimate.precision}, best of the {estimate.map_space} mappings for {estimate.objective}",
        f"{estimate.buffering} buffering",
        calibration_words(estimate),
    ]
    if estimate.overrides:
        choices.append("set " + ", ".join(f"{key}={value}" for key, value in estimate.overrides.items()))
    told = [note for note in estimate.notes if estimate.infeasible is None or not note.startswith(rows.WHAT_IF)]
    lines = ["Assumes: " + "; ".join(choices) + ".", *(f"Note: {rows.note_text(note)}" for note in told)]
    lines += rows.die_cost_notes(estimate)
    lines += unruled(estimate.unsupported)
    return Text("\n".join(lines), style="dim")


def unruled(ops: Sequence[str]) -> list[str]:
    """A line for each op that has no cost rule."""
    return [f"Without a cost rule, costed as memory traffic: {op}" for op in ops]


def report(estimate: Estimate, *, ops: bool = False, module_tree: bool = False, limit: int = 8) -> RenderableType:
    """What `dovetail estimate` prints for one chip."""
    if estimate.infeasible is not None:
        tensors = estimate.infeasible.get("tensors") or ()
        lines = [f"  {tensor}" for tensor in tensors] if isinstance(tensors, list | tuple) else []
        lines += [f"It would run with {', '.join(found)}."] if (found := rows.remedies(estimate)) else []
        return Group(verdict(estimate), Text("\n".join(lines)), notes(estimate))
    parts: list[RenderableType] = [verdict(estimate), Text(), breakdown(estimate)]
    parts.append(per_op(estimate, limit=None if ops else limit))
    if module_tree:
        parts.append(by_module(estimate))
    parts.append(memory(estimate))
    if estimate.energy_breakdown_j:
        parts.append(energy(estimate))
    if line := rows.die(estimate):
        parts += [Text(line), Text()]
    if estimate.what_if:
        parts.append(what_if(estimate))
    return Group(*parts, notes(estimate))
