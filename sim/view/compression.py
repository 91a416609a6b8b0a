"""Figures of compression: what each layer bears, and what quality costs in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from sim.view import rows
from sim.view.fitted import FittedTable, fitted, number, words
from sim.view.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, literal

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
LABEL_GAP = 0.055
"""Distance of two labels beside a figure, in shares of its height."""


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
    best = frontier(candidates, higher_is_better=higher_is_better)
    ax.step([1e6 * c.latency_s for c in best], [c.quality for c in best], where="post", color="0.6", zorder=1)
    for i, c in enumerate(candidates):
        error = None if c.quality_error is None else 2 * c.quality_error
        ax.errorbar(1e6 * c.latency_s, c.quality, yerr=error, fmt="o", color=COLOURS[i % len(COLOURS)], zorder=2)
    low, high = ax.get_ylim()
    # of equal qualities the fastest comes lowest: its line, the longest, passes below the others' points
    byspeed = sorted(candidates, key=lambda c: c.latency_s)
    spread = dict(zip(map(id, byspeed), _spread([(c.quality - low) / (high - low) for c in byspeed]), strict=True))
    heights = [spread[id(c)] for c in candidates]
    for i, (c, height) in enumerate(zip(candidates, heights, strict=True)):
        ax.annotate(
            c.name, (1e6 * c.latency_s, c.quality), xytext=(1.03, height), textcoords="axes fraction", fontsize=8,
            va="center", arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": COLOURS[i % len(COLOURS)],
                        "relpos": (0, 0.5), "shrinkA": 0},
        )  # fmt: skip
    ax.set_xlabel(f"latency on {chip} [µs]")
    ax.set_ylabel(f"{metric} (bars: ±2 standard errors)")
    return ax


def _spread(heights: Sequence[float]) -> list[float]:
    """Heights of labels beside the axes, in shares of its height: in the same order, `LABEL_GAP` apart at least.

    Labels that are too near each other become a group around the mean of their points, which moves into the axes
    where it reaches beyond them and joins the groups that it meets.
    """
    order = sorted(range(len(heights)), key=lambda k: heights[k])
    groups: list[tuple[float, int]] = []  # (mean height of the points, labels)

    def lowest(mean: float, count: int) -> float:
        half = (count - 1) / 2 * LABEL_GAP
        return max(0.0, min(mean, 1.0 - half) - half)

    for k in order:
        mean, count = heights[k], 1
        while groups and lowest(mean, count) < lowest(*groups[-1]) + groups[-1][1] * LABEL_GAP - 1e-9:
            below, more = groups.pop()
            mean, count = (mean * count + below * more) / (count + more), count + more
        groups.append((mean, count))
    placed = [lowest(*group) + i * LABEL_GAP for group in groups for i in range(group[1])]
    found = dict(zip(order, placed, strict=True))
    return [found[k] for k in range(len(heights))]


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
    for ax, (chip, here) in zip(axes, panels.items(), strict=True):
        quality_latency(
            here, metric=study.quality.metric, higher_is_better=study.quality.higher_is_better, chip=chip, ax=ax
        )
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
