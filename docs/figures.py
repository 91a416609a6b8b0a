"""Draw the README's figures into docs/figures/. Usage: python docs/figures.py"""

from __future__ import annotations

from pathlib import Path

import sim

FOLDER = Path(__file__).parent / "figures"
WORKLOAD, CHIPS = "resnet50", ("tesla-fsd-npu", "h100-sxm")


def main() -> None:
    graph = sim.load_workload(WORKLOAD)
    estimates = [sim.estimate(graph, sim.load_hardware(name)) for name in CHIPS]
    FOLDER.mkdir(exist_ok=True)
    figures = {
        "roofline.png": sim.plot.roofline(estimates[0]).figure,
        "roofline_two_chips.png": sim.plot.roofline_grid(estimates),
        "breakdown.png": sim.plot.breakdown(estimates).figure,
    }
    for name, figure in figures.items():
        figure.savefig(FOLDER / name, dpi=110)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
