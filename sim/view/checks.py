"""Checks and scores as tables: ours beside theirs, how far apart, and whether that is near enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.view import rows
from sim.view.fitted import FittedTable, Shorten, fitted, number, words

if TYPE_CHECKING:
    from sim.baseline.checks import Check
    from sim.baseline.validate import Validation
    from sim.hardware.calibration import Calibration


def check_table(validation: Validation) -> FittedTable:
    """One line a check. Ids are never shortened: they are what `again` asks for. Places in sources and notes are
    in the JSON."""
    lines, styles = [], []
    for row in validation.results:
        check = row.check
        ours = "-" if row.ours is None else _number(row.ours)
        error = "-" if row.rel_error is None else rows.change_text(row.rel_error)
        lines.append((check.id, ours, _theirs(check), check.unit, error, _tolerance(check), row.verdict,
                      check.quantity, _key(check.source)))  # fmt: skip
        styles.append("bold red" if row.verdict == "fail" else "")
    heads = (
        words("check", shorten=Shorten.NEVER), number("ours"), number("theirs"), words("unit", at_least=9),
        number("error"), number("tolerance", drop=1), words("verdict", shorten=Shorten.NEVER),
        words("quantity", drop=2, at_least=24), words("source", drop=3, at_least=10),
    )  # fmt: skip
    return fitted("Ours against published or measured", heads, lines, styles=styles)


def again(validation: Validation) -> str:
    """The commands that reproduce the rows of the table."""
    from sim.baseline.checks.check import DATA_PREFIX

    command = "dovetail validate --check CHECK"
    on_data = sorted({row.check.id.partition(".")[0] for row in validation.results if row.check.needs_data})
    data = f"; a row of {' or '.join(on_data)}: {DATA_PREFIX}{command}" if on_data else ""
    return f"A row again: {command}{data}. Notes and whole sources: --json"


def _number(value: float) -> str:
    """Four digits, without an exponent for large counts."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def _theirs(check: Check) -> str:
    """Their number; of a one-sided row as the bound that it is, for its error alone would tell nothing."""
    from sim.baseline.checks import Rule

    sign = {Rule.AT_LEAST: "≥ ", Rule.AT_MOST: "≤ "}.get(check.rule, "")
    return sign + _number(check.theirs)


def _key(source: str) -> str:
    """The source without its place and confidence."""
    return source.split(",")[0].split(" (")[0]


def _tolerance(check: Check) -> str:
    """How near ours must be, in words of the table."""
    from sim.baseline.checks import Rule

    words_of = {
        Rule.RELATIVE: f"{100 * check.tolerance:g} %",
        Rule.POINTS: f"{check.tolerance:g} points",
        Rule.AT_LEAST: "at least",
        Rule.AT_MOST: "at most",
    }
    return words_of[check.rule]


_ERRORS = ("mean_error", "median_error", "p90_error", "bias")


def score_table(documents: Iterable[Mapping[str, Any]]) -> FittedTable:
    """Scores of files of measured rows. Flagged rows lie outside the model and are not scored."""
    lines = []
    for one in documents:
        rank = "-" if one["spearman"] is None else f"{one['spearman']:.3f}"
        counts = (str(one["rows"]), str(one.get("flagged_rows", 0)))
        chip = str(one.get("hardware") or "-")
        lines.append((Path(str(one["path"])).name, chip, str(one["kind"]), *counts, *_errors(one), rank))
    heads = (
        words("file", at_least=36), words("chip", shorten=Shorten.NEVER, drop=3), words("kind", drop=5), number("rows"),
        number("flagged", drop=4), number("mean", drop=1), number("median"), number("p90"), number("bias", drop=2),
        number("Spearman", drop=2),
    )  # fmt: skip
    return fitted("Ours against measured rows", heads, lines)


def score_notes(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each file whose score needs one."""
    return [f"{Path(str(one['path'])).name}: {one['note']}" for one in documents if one.get("note")]


def _errors(one: Mapping[str, Any]) -> list[str]:
    return [f"{100 * (one[key] or 0.0):.1f} %" for key in _ERRORS]


def calibration_table(found: Calibration) -> FittedTable:
    """Held-out errors by class of ops and for whole networks."""
    heads = (words("held out"), number("rows"), number("mean", drop=1), number("median"), number("p90"),
             number("bias", drop=2))  # fmt: skip
    return fitted("Error", heads, [(name, str(one["rows"]), *_errors(one)) for name, one in found.error.items()])
