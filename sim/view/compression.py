"""Figures of compression: what each layer bears, and what quality costs in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

from sim.view import rows
from sim.view.fitted import FittedTable, fitted, number, words
from sim.view.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from sim.compression.benefit import Cost
    from sim.compression.model import Report
    from sim.compression.quality import Quality
    from sim.compression.sensitivities import Sensitivity
    from sim.compression.study import Study

COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK)

LINEAR_LOSS = 0.1
"""Below this loss the axis of sensitivities is linear: gains by chance are drawn too."""
NAMES_SHOWN = 6
"""Layers that a line of the tables names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A recipe's result on one chip. `quality_error` is a standard error or None."""

    name: str
    latency_s: float
    quality: float
    quality_error: float | None = None


def sensitivity_series(found: Sequence[Sensitivity]) -> tuple[list[str], dict[str, list[float]]]:
    """Layers in order of appearance, and choice -> loss per layer (nan where a choice did not fit)."""
    layers = list(dict.fromkeys(row.layer for row in found))
    losses = {(row.layer, row.choice): row.loss for row in found}
    choices = dict.fromkeys(row.choice for row in found)
    return layers, {c: [losses.get((layer, c), float("nan")) for layer in layers] for c in choices}


def sensitivity(found: Sequence[Sensitivity], *, metric: str, ax: Axes | None = None) -> Axes:
    """Quality lost per layer when it alone takes each choice (width or pattern), grouped bars."""
    ax = _axes(ax)
    layers, series = sensitivity_series(found)
    width = 0.8 / max(1, len(series))
    for i, (choice, losses) in enumerate(series.items()):
        places = [k + (i - (len(series) - 1) / 2) * width for k in range(len(layers))]
        ax.bar(places, losses, width, label=choice, color=COLOURS[i % len(COLOURS)])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(layers)), [literal(layer) for layer in layers], rotation=60, ha="right")
    ax.set_ylabel(f"loss of {metric}, this layer alone")
    ax.set_yscale("symlog", linthresh=LINEAR_LOSS)  # int2 loses a hundred times what int8 does
    ax.yaxis.set_major_formatter("{x:g}")
    ax.margins(y=0.08)
    if not any(loss for losses in series.values() for loss in losses if isfinite(loss)):
        ax.set_ylim(-LINEAR_LOSS, LINEAR_LOSS)
        ax.text(0.5, 0.55, "no layer loses anything", transform=ax.transAxes, ha="center")
    ax.legend(title="layer stored as", frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1))
    return ax


def frontier(candidates: Sequence[Candidate], *, higher_is_better: bool) -> tuple[Candidate, ...]:
    """Candidates that none beats in both latency and quality, fastest first; ties are kept."""
    sign = 1.0 if higher_is_better else -1.0

    def beaten(c: Candidate) -> bool:
        return any(
            o.latency_s <= c.latency_s
            and sign * o.quality >= sign * c.quality
            and (o.latency_s < c.latency_s or sign * o.quality > sign * c.quality)
            for o in candidates
        )

    return tuple(sorted((c for c in candidates if not beaten(c)), key=lambda c: c.latency_s))


def quality_latency(
    candidates: Sequence[Candidate], *, metric: str, higher_is_better: bool, chip: str, ax: Axes | None = None
) -> Axes:
    """Quality against latency on one chip, a point per recipe, the frontier as a line."""
    ax = _axes(ax)
    _draw(ax, candidates, metric=metric, higher_is_better=higher_is_better, chip=chip)
    _name(ax, candidates, higher_is_better=higher_is_better)
    return ax


def _draw(ax: Axes, candidates: Sequence[Candidate], *, metric: str, higher_is_better: bool, chip: str) -> None:
    """Points, error bars, the frontier and the axes, without the names."""
    best = frontier(candidates, higher_is_better=higher_is_better)
    xs, ys = [1e6 * c.latency_s for c in best], [c.quality for c in best]
    ax.step(xs, ys, where="post", color="0.6", zorder=1, label="front: none is both faster and better")
    for c in candidates:
        error = None if c.quality_error is None else 2 * c.quality_error
        colour = BLUE if c in best else GREY
        ax.errorbar(1e6 * c.latency_s, c.quality, yerr=error, fmt="o", color=colour, elinewidth=1, zorder=2)
    ax.margins(x=0.2, y=0.08)
    ax.set_xlabel(f"latency on {literal(chip)} [µs]")
    bars = " (bars: ±2 standard errors)" if any(c.quality_error is not None for c in candidates) else ""
    ax.set_ylabel(f"{literal(metric)}{bars}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)


def _name(ax: Axes, candidates: Sequence[Candidate], *, higher_is_better: bool) -> None:
    """Names beside the points where there is room, those that find none in the legend."""
    from sim.view.labels import Room, place_labels

    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout settles where the axes are
    room = Room(ax)
    best = frontier(candidates, higher_is_better=higher_is_better)
    for one, next_ in pairwise(best):
        xs = [1e6 * one.latency_s, 1e6 * next_.latency_s, 1e6 * next_.latency_s]
        room.take_line(xs, [one.quality, one.quality, next_.quality])
    for c in candidates:
        x, error = 1e6 * c.latency_s, 2 * (c.quality_error or 0.0)
        room.take_line([x, x], [c.quality - error, c.quality + error])
        room.take_disc(x, c.quality, 4)
    byspeed = sorted(candidates, key=lambda c: c.latency_s)
    place_labels(ax, [(1e6 * c.latency_s, c.quality, c.name) for c in byspeed], room)
    named = {text.get_text() for text in ax.texts}
    left = [c for c in candidates if literal(c.name) not in named]
    for c in left:
        ax.plot([], [], "o", color=GREY, label=f"{literal(c.name)}: {1e6 * c.latency_s:.3g} µs, {c.quality:.4g}")
    if left:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4.5), layout="constrained").subplots()


def study_candidates(study: Study) -> dict[str, tuple[Candidate, ...]]:
    """Chip -> the uncompressed model and every recipe on it; empty without chips or qualities."""
    found: dict[str, list[Candidate]] = {}
    for result in study.results:
        for benefit in result.benefits:
            if study.quality is None or result.quality is None:
                continue
            here = found.setdefault(
                benefit.chip,
                [_candidate(f"as trained, {benefit.before.precision}", benefit.before.latency_s, study.quality)],
            )
            here.append(_candidate(result.recipe, benefit.after.latency_s, result.quality))
    return {chip: tuple(here) for chip, here in found.items()}


def _candidate(name: str, latency_s: float, quality: Quality) -> Candidate:
    return Candidate(name=name, latency_s=latency_s, quality=quality.value, quality_error=quality.standard_error)


def study_figure(study: Study) -> Figure:
    """Quality against latency, one panel per chip.

    Raises: ResultError: the study has no chip or no quality, so there is nothing to draw.
    """
    from matplotlib.figure import Figure

    from sim.errors import ResultError

    panels = study_candidates(study)
    if not panels or study.quality is None:
        raise ResultError("figure: quality against latency needs at least one --hw and a workload with a task")
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    better = study.quality.higher_is_better
    for ax, (chip, here) in zip(axes, panels.items(), strict=True):
        _draw(ax, here, metric=study.quality.metric, higher_is_better=better, chip=chip)
    for ax, here in zip(axes, panels.values(), strict=True):  # the layout is that of all panels
        _name(ax, here, higher_is_better=better)
    return figure


def sensitivity_figure(study: Study) -> Figure:
    """Loss per layer and width. Raises: ResultError: the study measured no sensitivities."""
    from matplotlib.figure import Figure

    from sim.errors import ResultError

    if not study.sensitivity or study.quality is None:
        raise ResultError("figure: this study measured no sensitivities")
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    sensitivity(study.sensitivity, metric=study.quality.metric, ax=figure.subplots())
    return figure


def study_tables(study: Study) -> list[FittedTable | str]:
    """Quality per recipe, cost per chip and recipe, then what was left alone and what chips lack."""
    sizes = [("as trained", study.quality, study.parameter_bytes)]
    sizes += [(r.recipe, r.quality, r.parameter_bytes) for r in study.results]
    lines = [(name, *_quality_cells(value), rows.size_text(size)) for name, value, size in sizes]
    heads = (
        words("recipe"),
        number("quality"),
        number("± s.e.", drop=2),
        words("method", drop=1),
        number("parameters"),
    )
    parts: list[FittedTable | str] = [fitted(f"{study.workload}: quality and parameters", heads, lines)]
    chips = dict.fromkeys(benefit.chip for result in study.results for benefit in result.benefits)
    parts += [_chip_table(study, chip) for chip in chips]
    parts += [f"note: {note}" for note in study.notes]
    for result in study.results:
        for benefit in result.benefits:
            parts += [f"{result.recipe} on {benefit.chip}: {note}" for note in benefit.notes]
        parts += [f"{result.recipe}: {line}" for report in result.reports for line in _report_lines(report)]
    return parts


def _report_lines(report: Report) -> list[str]:
    """What a step left alone, grouped by reason, and its notes."""
    reasons: dict[str, list[str]] = {}
    for layer, why in report.untreated.items():
        reasons.setdefault(why, []).append(layer)
    lines = [f"{report.technique} left alone {_some(names)}: {why}" for why, names in reasons.items()]
    return lines + [f"{report.technique}: {note}" for note in report.notes]


def _some(names: Sequence[str]) -> str:
    """The first few; the rest by their number (the JSON document has all)."""
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown} and {len(names) - NAMES_SHOWN} more"


def _quality_cells(quality: Quality | None) -> tuple[str, str, str]:
    if quality is None:
        return "unknown", "", "none"
    error = "" if quality.standard_error is None else f"{quality.standard_error:.2g}"
    return f"{quality.value:.4g} {quality.metric}", error, str(quality.method)


def _chip_table(study: Study, chip: str) -> FittedTable:
    """One inference on one chip: the model as trained, then every recipe."""
    found = [(r.recipe, b) for r in study.results for b in r.benefits if b.chip == chip]
    lines = [("as trained", *_cost_cells(found[0][1].before, "1"))]
    lines += [(recipe, *_cost_cells(benefit.after, f"{benefit.speedup:.2f}")) for recipe, benefit in found]
    heads = (words("recipe"), words("runs as", drop=1), number("latency"), number("speed-up"), number("energy", drop=2),
             number("DRAM traffic", drop=3), number("weights", drop=4))  # fmt: skip
    batch = study.knobs.get("batch", 1)
    return fitted(f"{'One inference' if batch == 1 else f'A batch of {batch}'} on {chip}", heads, lines)


def _cost_cells(cost: Cost, speedup: str) -> tuple[str, ...]:
    energy = "unknown" if cost.energy_j is None else rows.energy_text(cost.energy_j)
    traffic, weights = map(rows.size_text, (cost.dram_bytes, cost.weight_bytes))
    return cost.precision, rows.time_text(cost.latency_s), f"{speedup} x", energy, traffic, weights
