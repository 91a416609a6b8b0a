"""Results as terminal tables: within the console's width, colour only where the console has it.

Every function returns a rich renderable. Text that a user wrote goes in as `Text`, so that markup
in a name is shown and not obeyed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sim.results import Estimate
from sim.view import rows

_BLOCKS = " ▏▎▍▌▋▊▉█"
NARROW = 80
"""Below this width a table leaves out its secondary columns."""


def bar(share: float, width: int = 14) -> Text:
    """A bar of eighth blocks: `share` of `width` cells, at least a sliver for what is not zero."""
    eighths = min(8 * width, max(1 if share > 0 else 0, round(8 * width * share)))
    full, part = divmod(eighths, 8)
    return Text(("█" * full + (_BLOCKS[part] if part else "")).ljust(width), style="cyan")


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; the first `left` columns hold text, the others numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        text = i < left
        table.add_column(name, justify="left" if text else "right", no_wrap=True, overflow="ellipsis")
    return table


def verdict(estimate: Estimate) -> Text:
    return Text(rows.verdict(estimate), style="bold" if estimate.infeasible is None else "bold red")


def breakdown(estimate: Estimate) -> Table:
    """Where the latency goes: each term, its time and its share."""
    table = _table("Where the time goes", "term", "share", "", "time", left=2)
    table.columns[2].justify = "right"
    for term, seconds, share in rows.terms(estimate):
        table.add_row(rows.TERM_WORDS[term], bar(share, 24), rows.share_text(share), rows.time_text(seconds))
    table.add_section()
    table.add_row("total", "", "100 %", rows.time_text(estimate.latency_s), style="bold")
    return table


def memory(estimate: Estimate) -> Table:
    """Traffic and peak occupancy per memory, outermost first."""
    table = _table("Memory", "memory", "read", "written", "peak held")
    for name, traffic in estimate.traffic_bytes.items():
        peak = estimate.peak_memory_bytes.get(name)
        peak_text = "-" if peak is None else rows.size_text(peak)
        table.add_row(Text(name), rows.size_text(traffic.read), rows.size_text(traffic.write), peak_text)
    return table


def per_op(estimate: Estimate, *, limit: int | None = None, width: int = 100) -> Table:
    """Ops by time with what binds them, utilisation, traffic at the home memory and tiles."""
    home = next(iter(estimate.traffic_bytes), "")
    names = ["op", "bound by", "", "share", "time", "MAC util.", home]
    wide = width >= NARROW
    ops = rows.heaviest(estimate)
    shown = ops[:limit]
    table = _table("Ops by time", *(names if wide else names[:5]), left=3)
    if wide:
        table.add_column("tiles", no_wrap=True, overflow="ellipsis", max_width=24)
    table.columns[0].min_width = 12
    for op in shown:
        share = op.latency_s / estimate.latency_s
        cells: list[RenderableType] = [
            Text(op.name),
            Text(rows.bound_text(op.bound)),
            bar(share, 8),
            rows.share_text(share),
            rows.time_text(op.latency_s),
        ]
        if wide:
            moved = rows.size_text(rows.traffic_bytes(op, home))
            cells += [rows.share_text(op.mac_utilization), moved, Text(rows.tile_text(op.mapping))]
        table.add_row(*cells)
    if len(shown) < len(ops):
        rest = sum(op.latency_s for op in ops[len(shown) :])
        label = f"{len(ops) - len(shown)} more"
        table.add_row(label, "", "", rows.share_text(rest / estimate.latency_s), rows.time_text(rest), style="dim")
    return table


def by_module(estimate: Estimate, *, depth: int = 2) -> Table:
    """The module tree with the time, work and energy of each branch."""
    table = _table("By module", "module", "", "share", "time", "MACs", "ops", "energy", left=2)
    for row in rows.modules(estimate, depth=depth):
        name = "  " * max(0, row.depth - 1) + (row.path.rpartition(".")[2] if row.path else estimate.workload_name)
        share = row.latency_s / estimate.latency_s
        table.add_row(
            Text(name),
            bar(share),
            rows.share_text(share),
            rows.time_text(row.latency_s),
            rows.count_text(row.macs),
            str(row.ops),
            rows.energy_text(row.energy_j),
            style="bold" if not row.path else "",
        )
    return table


def what_if(estimate: Estimate) -> Table:
    """What a larger resource would give, best first."""
    table = _table("What if", "resource", "factor", "latency", "saved")
    for entry in sorted(estimate.what_if, key=lambda w: w.latency_s):
        saved = 1 - entry.latency_s / estimate.latency_s
        factor = f"x {entry.factor:g}"
        table.add_row(Text(entry.resource), factor, rows.time_text(entry.latency_s), rows.share_text(saved))
    return table


def comparison(estimates: Sequence[Estimate]) -> Table:
    """Several results side by side, one column each."""
    table = _table("Side by side", "", *(f"{e.workload_name} on {e.hardware_name}" for e in estimates))
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"

    def line(name: str, texts: list[str]) -> None:
        table.add_row(name, *(Text(text) for text in texts))

    line("precision", [e.precision for e in estimates])
    line("batch", [str(e.batch) for e in estimates])
    line("latency", [rows.time_text(e.latency_s) for e in estimates])
    line("roofline", [rows.time_text(e.roofline_latency_s) for e in estimates])
    line("throughput", [f"{rows.count_text(e.throughput_per_s)}/s" for e in estimates])
    line("MAC utilisation", [rows.share_text(e.mac_utilization) for e in estimates])
    line("energy", [rows.energy_text(e.energy_j) for e in estimates])
    line("calibration", [str((e.calibration or {}).get("device", "none")) for e in estimates])
    for term, words in rows.TERM_WORDS.items():
        if any(e.breakdown_s[term] for e in estimates):
            line(f"  {words}", [rows.time_text(e.breakdown_s[term]) for e in estimates])
    return table


def notes(estimate: Estimate) -> Text:
    """What the numbers rest on: every choice that was made for the user, then the remarks."""
    choices = [
        f"{estimate.precision}, best of the {estimate.map_space} mappings for {estimate.objective}",
        f"{estimate.buffering} buffering",
        f"calibrated on {estimate.calibration.get('device')}" if estimate.calibration else "data sheet only",
    ]
    if estimate.overrides:
        choices.append("set " + ", ".join(f"{key}={value}" for key, value in estimate.overrides.items()))
    lines = ["Assumes: " + "; ".join(choices) + ".", *(f"Note: {note}" for note in estimate.notes)]
    lines += [f"Without a cost rule, costed as memory traffic: {op}" for op in estimate.unsupported]
    return Text("\n".join(lines), style="dim")


def report(
    estimate: Estimate, *, ops: bool = False, module_tree: bool = False, width: int = 100, limit: int = 8
) -> RenderableType:
    """What `dovetail estimate` prints for one chip."""
    if estimate.infeasible is not None:
        tensors = estimate.infeasible.get("tensors") or ()
        lines = [f"  {tensor}" for tensor in tensors] if isinstance(tensors, list | tuple) else []
        return Group(verdict(estimate), Text("\n".join(lines)), notes(estimate))
    parts: list[RenderableType] = [verdict(estimate), Text(), breakdown(estimate)]
    parts.append(per_op(estimate, limit=None if ops else limit, width=width))
    if module_tree:
        parts.append(by_module(estimate))
    parts.append(memory(estimate))
    if estimate.what_if:
        parts.append(what_if(estimate))
    return Group(*parts, notes(estimate))
