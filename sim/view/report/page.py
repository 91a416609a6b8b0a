"""The page itself: data, style and script in one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from sim._version import __version__
from sim.view import palette, rows
from sim.view.report import verdicts
from sim.view.report.estimates import Pool, estimate_view
from sim.view.report.others import (
    measured_view,
    simulation_view,
    study_view,
    table_view,
    together,
    trace_view,
    validation_view,
)
from sim.view.report.sources import Content, read_sources

_SCRIPTS = ("base.js", "bars.js", "roofline.js", "timeline.js", "ops.js", "designs.js", "page.js")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
 script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main id="page"><h1>{title}</h1>{verdicts}
<noscript><p>The figures and tables below need JavaScript; nothing is loaded from the network.</p></noscript></main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def report(paths: Iterable[str | Path], note: Callable[[str], None] = lambda line: None) -> str:
    """The report of saved results as HTML; `note` as `read_sources`. Raises: ResultError, as `read_sources`."""
    return page(read_sources(paths, note))


def page(content: Content) -> str:
    """The HTML text. Data goes in as JSON that cannot end its element; the script writes text, never markup."""
    data = view(content)
    return _PAGE.format(
        title=escape(data["title"]),
        verdicts="".join(f'<p class="verdict">{escape(words)}</p>' for words in data["verdicts"]),
        style=_asset("report.css"),
        script='"use strict";\n(() => {\n' + "\n".join(map(_asset, _SCRIPTS)) + "\n})();",
        data=_json(data),
    )


def view(content: Content) -> dict[str, Any]:
    """All that the page draws, in JSON's own types."""
    pool = Pool()
    apart = rows.told_apart([saved.estimate for saved in content.estimates])
    estimates = [estimate_view(saved, pool, told) for saved, told in zip(content.estimates, apart, strict=True)]
    simulations = [simulation_view(document) for document in content.simulations]
    return {
        "title": _title(content),
        "version": __version__,
        "kinds": dict(palette.KINDS),
        "colours": list(palette.CYCLE),
        "verdicts": _verdicts(content, estimates),
        "estimates": estimates,
        "simulations": simulations,
        "traces": [trace_view(name, document) for name, document in content.traces],
        "bounds": [_bound(document) for document in content.rooflines],
        "tables": [table_view(table) for table in (together(content.tables), *content.tables) if table is not None],
        "summaries": content.summaries,
        "studies": [study_view(document) for document in content.studies],
        "winners": content.winners,
        "measured": measured_view(content.records, [saved.estimate for saved in content.estimates]),
        "records": [_record(document) for document in content.records],
        "validations": [validation_view(document) for document in content.validations],
        "texts": pool.texts,
    }  # fmt: skip


def _verdicts(content: Content, estimates: list[dict[str, Any]]) -> list[str]:
    found = [e["verdict"] for e in estimates]
    found += map(verdicts.simulation, content.simulations)
    found += map(verdicts.study, content.studies)
    found += map(verdicts.table, content.tables)
    return [words for words in (*found, *map(verdicts.validation, content.validations)) if words]


def _title(content: Content) -> str:
    names = list(dict.fromkeys(saved.estimate.workload_name for saved in content.estimates))
    chips = list(dict.fromkeys(saved.estimate.hardware_name for saved in content.estimates))
    if names:
        return f"{', '.join(names)} on {', '.join(chips)}"
    if content.studies:
        return "Search: " + ", ".join(str(document["space"]) for document in content.studies)
    if content.tables or content.winners:
        return "Designs: " + (", ".join(table.name for table in content.tables) or "winners")
    if content.simulations:
        return verdicts.name_of(content.simulations[0])
    return "Validation" if content.validations else "Measurements" if content.records else "Roofline"


def _bound(document: dict[str, Any]) -> dict[str, Any]:
    """A saved roofline as the drawing needs it, with its verdict."""
    from sim.cost.roofline import Roofline
    from sim.view.points import view_of

    bound = Roofline.from_dict(document)
    found = view_of(bound)
    return {
        "title": found.title,
        "subtitle": found.caption,
        "bound": rows.bound_text(bound.bound),
        "points": [[p.x, p.y, p.share, p.kind, p.label, p.on_chip] for p in found.points],
        "roofs": [[r.memory_label, r.bandwidth_bytes_per_s, r.peak_flop_per_s, r.home] for r in found.roofs],
        "flats": [list(flat) for flat in found.flats],
        "x": list(found.x_limits),
        "y": list(found.y_limits),
    }


def _record(document: dict[str, Any]) -> list[Any]:
    knobs = " ".join(f"{key}={value}" for key, value in (document.get("knobs") or {}).items())
    target = document.get("workload") or document.get("op")
    keys = ("device", "precision", "mode", "median_s", "n", "date", "source")
    return [f"{target} {knobs}", *(document.get(key) for key in keys)]


def _json(data: dict[str, Any]) -> str:
    """Compact JSON in which no text can open or close an element or a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _asset(name: str) -> str:
    return files("sim.view.report").joinpath("assets", name).read_text(encoding="utf-8")
