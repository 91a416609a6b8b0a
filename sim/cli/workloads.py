"""`dovetail trace`: a model becomes a workload graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sim.cli import complete
from sim.cli.estimate import KnobOption


def trace(
    workload: Annotated[
        str,
        typer.Argument(
            help="A bundled name, model.py, model.py:function, model.onnx, model.pt2 or graph.json.",
            autocompletion=complete.workloads,
        ),
    ],
    p: KnobOption = None,
    via: Annotated[
        str | None, typer.Option(help="Front end of a model in Python: recorder (default) or export.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the graph as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the graph as one JSON document.")] = False,
) -> None:
    """Trace WORKLOAD and say what it is made of."""
    from sim.cli.progress import Progress
    from sim.workload.load import load_workload
    from sim.workload.serialize import graph_to_dict, save_graph
    from sim.workload.summary import knobs_of, summary_lines

    with Progress(f"tracing {workload}") as progress:
        graph = load_workload(workload, via=via, progress=progress.traced, **knobs_of(p or []))
    if output is not None:
        save_graph(graph, output)
        typer.echo(f"wrote {output}", err=True)
    if as_json:
        typer.echo(json.dumps(graph_to_dict(graph)))
        return
    for line in summary_lines(graph):
        typer.echo(line)
