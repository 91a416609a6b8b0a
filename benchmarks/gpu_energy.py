"""Energies of a GPU from its measured runs: four numbers by least squares, and each run predicted without itself.

    PYTHONPATH=. python benchmarks/gpu_energy.py --baseline baselines/nvidia-h200.jsonl --hw h200

energy = idle power x measured time + DRAM bytes x e_D + on-chip energy as the chip states it x s + MACs x e_M, where
the bytes and MACs are the estimate's. Prints the four numbers, and for each run the error of its own fit and of the
fit to all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import numpy as np
from scipy.optimize import nnls

import sim
from sim.baseline.graphs import record_graph
from sim.baseline.record import BaselineRecord, read_baseline


def columns(record: BaselineRecord, hardware: str) -> list[float]:
    """Measured seconds, bytes of the home memory, energy on chip as stated [J], MACs."""
    chip = sim.load_hardware(hardware)
    found = sim.estimate(record_graph(record), chip, precision=record.precision, inputs="resident")
    home, units = chip.main_unit.home, [m.name for m in chip.main_unit.memories]
    moved = found.traffic_bytes[home].read + found.traffic_bytes[home].write
    on_chip = sum(found.energy_breakdown_j.get(name, 0.0) for name in units)
    return [float(record.median_s or 0.0), moved, on_chip, found.macs]


def solve(rows: np.ndarray, energy_j: np.ndarray) -> np.ndarray:
    """Non-negative least squares of the relative errors."""
    scale = np.max(rows, axis=0)
    return nnls(rows / scale / energy_j[:, None], np.ones(len(energy_j)))[0] / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--hw", required=True)
    arguments = parser.parse_args()
    latest = read_baseline(arguments.baseline).latest.values()
    records = [r for r in latest if r.energy_j is not None and r.median_s is not None]
    energy_j = np.array([float(r.energy_j or 0.0) for r in records])
    rows = np.array([columns(r, arguments.hw) for r in records])
    idle_w, dram, on_chip, mac = solve(rows, energy_j)
    print(
        f"{len(records)} runs: {idle_w:.0f} W, {dram * 1e12:.1f} pJ/B, on chip x {on_chip:.2f}, {mac * 1e12:.2f} pJ/MAC"
    )
    left_out = []
    for i, record in enumerate(records):
        others = np.arange(len(records)) != i
        own = float(rows[i] @ np.array([idle_w, dram, on_chip, mac]) / energy_j[i] - 1)
        left_out.append(float(rows[i] @ solve(rows[others], energy_j[others]) / energy_j[i] - 1))
        knobs = " ".join(str(v) for v in record.knobs.values() if v is not None)
        print(f"{record.target} {knobs}: {energy_j[i]:.4g} J, {own:+.1%}, left out {left_out[-1]:+.1%}")
    print(f"left out: median {median(map(abs, left_out)):.1%}, largest {max(map(abs, left_out)):.1%}")


if __name__ == "__main__":
    main()
