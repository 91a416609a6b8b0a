"""Draw one figure of each kind into docs/gallery/. Usage: python docs/gallery.py [NAME ...]

Everything is computed here; nothing is read but bundled files.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import sim
from sim.results import WhatIf

FOLDER = Path(__file__).parent / "gallery"
WORKLOAD, CHIP = "mobilenet_v2", "edge-npu"


def _estimate() -> Any:
    return sim.estimate(sim.load_workload(WORKLOAD), sim.load_hardware(CHIP))


def roofline() -> Any:
    return sim.plot.roofline(_estimate())


def breakdown() -> Any:
    chips = (CHIP, "tesla-fsd-npu", "systolic")
    return sim.plot.breakdown([sim.estimate(sim.load_workload(WORKLOAD), sim.load_hardware(name)) for name in chips])


def timeline() -> Any:
    """Two cameras and a planner on one unit: the first 60 ms."""
    ax = sim.plot.timeline(_cameras().first.timeline)
    ax.set_xlim(0, 60)
    return ax


def memory() -> Any:
    """Tensors and tiles on an accelerator with a scratchpad, against its capacities."""
    chip = sim.load_hardware(CHIP)
    capacities = {memory.name: memory.capacity_bytes for memory in (*chip.memories, *chip.main_unit.memories)}
    return sim.plot.memory(_estimate(), capacities_bytes=capacities)


def _cameras() -> Any:
    from sim.events.experiment import run_scenario
    from sim.events.scenario import parse_scenario

    def stream(name: str, workload: str, rate: str, deadline: str, **more: object) -> dict[str, object]:
        arrivals = {"kind": "periodic", "rate": rate}
        return {"name": name, "workload": workload, "target": "npu", "arrivals": arrivals, "deadline": deadline, **more}

    streams = [stream("camera", WORKLOAD, "36 Hz", "20 ms", copies=2), stream("planner", "resnet18", "20 Hz", "50 ms")]
    document = {"name": "cameras", "hardware": CHIP, "length": "0.1 s", "policy": "priority", "streams": streams}
    return run_scenario(parse_scenario(document, where="gallery"), sim.load_hardware(CHIP))


def heat_map() -> Any:
    """Latency over array and DRAM: where a column has one colour, the memory does not matter."""
    grid = {"array.rows": [16, 32, 64, 128], "DRAM.bandwidth": [f"{rate} GB/s" for rate in (8, 17, 34, 68)]}
    table = sim.sweep(sim.load_workload(WORKLOAD), sim.load_hardware("systolic"), grid)
    return sim.plot.heat_map(table, "array.rows", "DRAM.bandwidth")


def pareto() -> Any:
    grid = {"array.rows": [16, 32, 64, 128], "array.cols": [16, 32, 64, 128], "DRAM.bandwidth": ["17 GB/s", "34 GB/s"]}
    table = sim.sweep(sim.load_workload(WORKLOAD), sim.load_hardware("systolic"), grid)
    return sim.plot.pareto(table, "latency_s", "area_mm2")


def tornado() -> Any:
    """Each resource doubled, one at a time, by an estimate each."""
    graph, chip = sim.load_workload(WORKLOAD), sim.load_hardware("systolic")
    changes = {"array.rows": 128, "array.cols": 128, "DRAM.bandwidth": "68 GB/s", "SRAM.bandwidth": "512 B/cycle",
               "SRAM.capacity": "8 MiB", "simd.lanes": 128, "clock": "2 GHz"}  # fmt: skip
    found = [
        WhatIf(resource=path, factor=2.0, latency_s=sim.estimate(graph, chip.set(path, value)).latency_s)
        for path, value in changes.items()
    ]
    return sim.plot.tornado(replace(sim.estimate(graph, chip), what_if=tuple(found)))


def validation() -> Any:
    from sim.baseline.validate import validate

    return sim.plot.validation(validate().to_dict(sim.__version__))


def measured_against_estimated() -> Any:
    """Published cycles of a systolic array against ours, as times at 1 GHz."""
    from sim.baseline.validate import validate

    checks = [row for row in validate().results if row.check.unit == "cycles" and row.ours]
    pairs = {row.check.id: (row.check.theirs / 1e9, row.ours / 1e9) for row in checks}
    return sim.plot.measured_against_estimated(pairs, reference="SCALE-Sim v3 at 1 GHz")


def held_out() -> Any:
    """Networks of a measured GPU, their models left out of the fit, with the intervals that the others give."""
    from sim.baseline.calibrate import calibration_of, fit
    from sim.baseline.calibrate import held_out as points

    fitted = fit("nvidia-h200")
    found = calibration_of("nvidia-h200", fitted)
    return sim.plot.held_out(points(fitted, found), networks=True, device=found.device)


FIGURES = {
    f.__name__: f
    for f in (
        roofline,
        breakdown,
        timeline,
        memory,
        heat_map,
        tornado,
        pareto,
        measured_against_estimated,
        held_out,
        validation,
    )
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIGURES:
        path = FOLDER / f"{name}.png"
        FIGURES[name]().figure.savefig(path, dpi=80, bbox_inches="tight")
        print(path)


if __name__ == "__main__":
    main()
