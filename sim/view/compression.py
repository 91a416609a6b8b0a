"""Figures of compression: what each layer bears, and what quality costs in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sim.compression.sensitivities import Sensitivity

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by colour-blind readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A recipe's result on one chip. `quality_error` is a standard error or None."""

    name: str
    latency_s: float
    quality: float
    quality_error: float | None = None


def sensitivity_series(rows: Sequence[Sensitivity]) -> tuple[list[str], dict[str, list[float]]]:
    """Layers in order of appearance, and choice -> loss per layer (nan where a choice did not fit)."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    found = {(row.layer, row.choice): row.loss for row in rows}
    choices = dict.fromkeys(row.choice for row in rows)
    return layers, {c: [found.get((layer, c), float("nan")) for layer in layers] for c in choices}


def sensitivity(rows: Sequence[Sensitivity], *, metric: str, ax: Axes | None = None) -> Axes:
    """Quality lost per layer when it alone takes each choice (width or pattern), grouped bars."""
    ax = _axes(ax)
    layers, series = sensitivity_series(rows)
    width = 0.8 / max(1, len(series))
    for i, (choice, losses) in enumerate(series.items()):
        places = [k + (i - (len(series) - 1) / 2) * width for k in range(len(layers))]
        ax.bar(places, losses, width, label=choice, color=COLOURS[i % len(COLOURS)])
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(range(len(layers)), layers, rotation=60, ha="right")
    ax.set_ylabel(f"loss of {metric}, this layer alone")
    ax.legend(title="layer stored as", frameon=False)
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
        ax.annotate(c.name, (1e6 * c.latency_s, c.quality), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.set_xlabel(f"latency on {chip} [µs]")
    ax.set_ylabel(f"{metric} (bars: ±2 standard errors)")
    return ax


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4.5), layout="constrained").subplots()
