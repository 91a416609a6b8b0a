"""`dovetail list`, `show` and `compare`: what there is, what it is made of, what changed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sim.cli import complete


class Listed(StrEnum):
    WORKLOADS = "workloads"
    HARDWARE = "hardware"


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def list_(
    what: Annotated[Listed | None, typer.Argument(help="Only this; both when left out.")] = None,
    json: JsonOption = False,
) -> None:
    """Bundled workloads and chips; your own files work alike by their path."""
    from sim.cli import common

    found: dict[str, dict[str, str]] = {}
    if what is not Listed.HARDWARE:
        found["workloads"] = _workloads()
    if what is not Listed.WORKLOADS:
        found["hardware"] = _chips()
    if json:
        common.print_json(common.document("list", found))
        return
    from sim.view import inventory

    for title, entries in found.items():
        common.show(inventory.names(title.capitalize(), entries))


def _workloads() -> dict[str, str]:
    from sim.workload.load import list_workloads

    return {found.path.stem: found.summary for found in list_workloads()}


def _chips() -> dict[str, str]:
    import sim
    from sim.hardware.load import list_hardware

    return {name: sim.load_hardware(name).title for name in list_hardware()}


def show(
    name: Annotated[
        str,
        typer.Argument(
            help="Bundled name, model.py or chip.yaml.", autocompletion=complete.names("workloads", "hw_configs")
        ),
    ],
) -> None:
    """A chip: hierarchy, peaks, sources, what is unverified. A workload: docstring, knobs, size."""
    import sim
    from sim.cli import common
    from sim.errors import ConfigError, nearest
    from sim.hardware.load import list_hardware
    from sim.view import inventory

    if name in list_hardware() or name.endswith((".yaml", ".yml")):
        common.show(inventory.chip(sim.load_hardware(name)))
        return
    workloads = _workloads()
    if name not in workloads and ".py" not in name:
        known = [*list_hardware(), *workloads]
        raise ConfigError(
            f'"{name}" is neither a bundled chip nor a bundled workload, nor a path ending in .yaml or .py; '
            f"`dovetail list` names them.{nearest(name, known)}"
        )
    workload = sim.Workload(name)
    description = workload.description
    common.show(inventory.workload(workload.label, description.doc, description.knobs, _cached_size(workload)))


def _cached_size(workload: Any) -> tuple[int, int] | None:
    """(parameters, MACs) with the default knobs, if a trace is in the cache; nothing is traced."""
    from sim.workload.cache import entry_key, load_entry

    found = workload.description
    graph = load_entry(entry_key(found.path, found.function, workload.knobs, "recorder"))
    return None if graph is None else (graph.parameters, graph.macs)


COMPARED = (
    "workload", "hardware", "precision", "calibration", "latency_s", "energy_j", "mac_utilization",
    "roofline_latency_s", "breakdown_s",
)  # fmt: skip
"""What the document of `compare` says of each pair of results."""
COMPARED_OF_SCENARIOS = (
    "scenario", "workloads", "streams", "ttft_s", "tpot_s", "queueing_s", "tokens_per_s", "goodput_per_s", "missed",
    "power_w",
)  # fmt: skip


def compare(
    before: Annotated[Path, typer.Argument(help="A saved result of `estimate` or `simulate --json`.")],
    after: Annotated[Path, typer.Argument(help="Another one.")],
    json: JsonOption = False,
) -> None:
    """Two saved results side by side, and the ops that changed most."""
    from sim.cli import common
    from sim.documents import read_documents
    from sim.errors import ResultError
    from sim.results import ESTIMATE_SCHEMA, SIMULATE_SCHEMA
    from sim.results_io import from_dict
    from sim.view import comparisons

    expected = (ESTIMATE_SCHEMA, SIMULATE_SCHEMA)
    searches = [path for path in (before, after) if path.is_dir() or path.suffix == ".csv"]
    if searches:
        raise ResultError(
            f"{searches[0]}: expected a file of `estimate` or `simulate --json`; searches and tables of designs stand "
            f"side by side on one page: dovetail report {before} {after} -o both.html"
        )
    first, second = (read_documents(path, expected=expected) for path in (before, after))
    estimates = [
        [from_dict(one, where=str(path)) for one in documents if one["schema"] == ESTIMATE_SCHEMA]
        for path, documents in ((before, first), (after, second))
    ]
    if json:
        scenarios = any(one.get("scenario") for one in (*first, *second))
        keys = (*COMPARED, *COMPARED_OF_SCENARIOS) if scenarios else COMPARED
        pairs = zip(first, second, strict=False)
        found = [{key: {"before": a.get(key), "after": b.get(key)} for key in keys} for a, b in pairs]
        common.print_json(common.document("compare", {"results": found}))
    elif any(one["schema"] == SIMULATE_SCHEMA for one in (*first, *second)):
        common.show(comparisons.runs([*first, *second]))
    elif len(first) == len(second) == 1:
        common.show(comparisons.difference(estimates[0][0], estimates[1][0]))
    else:
        common.show(comparisons.comparison([*estimates[0], *estimates[1]]))
