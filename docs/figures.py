"""Draw the README's figures into docs/figures/. Usage: python docs/figures.py [NAME ...]"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sim

FOLDER = Path(__file__).parent / "figures"
WORKLOAD, CHIPS = "resnet50", ("tesla-fsd-npu", "h100-sxm")


def bounds() -> Any:
    """The data sheet's bound of ResNet-50 on two chips: no mapping, no waiting."""
    graph = sim.load_workload(WORKLOAD)
    return sim.plot.roofline_grid([sim.roofline(graph, sim.load_hardware(name)) for name in CHIPS])


def search() -> Any:
    """The front of energy and loss that a search over a decoder and its memory system finds."""
    from sim.view.search import frontier

    return frontier(sim.search(Path(__file__).parent / "small-decoder.yaml", progress=print)).figure


def breakdown() -> Any:
    """Where the estimated time goes."""
    return sim.plot.breakdown(_estimates()).figure


def _estimates() -> list[Any]:
    graph = sim.load_workload(WORKLOAD)
    return [sim.estimate(graph, sim.load_hardware(name)) for name in CHIPS]


FIGURES = {"breakdown": breakdown, "bounds": bounds, "search": search}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        path = FOLDER / f"{name}.png"
        FIGURES[name]().savefig(path, dpi=80)
        print(path)


if __name__ == "__main__":
    main()
