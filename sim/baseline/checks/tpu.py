"""TPU v1 (Jouppi et al., ISCA 2017): six applications whose layers are not published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from math import ceil, sqrt

import numpy as np
import yaml

from sim.baseline.checks.check import Check, Rule, against, group
from sim.baseline.published import fact, facts
from sim.cost.waiting import StreamCycles, WeightStream, stream_layers
from sim.resources import data_dir

CHIP = "tpu-v1"
CLOCK_HZ = 700e6
TPU_V1 = WeightStream(
    rows=256,
    cols=256,
    clock_hz=CLOCK_HZ,
    weight_bandwidth_bytes_per_s=34e9,
    input_bandwidth_bytes_per_s=12.8e9,
    shift_cycles=256,
    border_cycles=2850.0,
)
"""Array, clock, weight memory and shift: section 2 of the paper. Input: PCIe Gen3 x16, 15.8 GB/s less
packet overhead (estimated). Border: MLP0's RAW stalls, 3.3 % of its cycles over 5 layers (Table 3);
the only constant taken from that table, so MLP0's border share is no check."""

GATED = ("MLP0", "MLP1", "LSTM0")
"""Applications that equal square layers can stand for; the others inform."""
GENERATORS = 100


@cache
def applications() -> Mapping[str, Mapping[str, float]]:
    """Table 1: weights, batch, operations per weight byte, layers per kind."""
    path = data_dir("baselines") / "published" / "tpu-v1-apps.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["apps"]


def square_layers(app: str) -> list[tuple[float, float]]:
    """The generator, fixed before any comparison: equal square layers from weights and layer count."""
    table = applications()[app]
    count = int(table["fc"] + table["conv"])
    side = sqrt(table["weights_M"] * 1e6 / count)
    return [(side, side)] * count


def random_layers(app: str, seed: int) -> list[tuple[float, float]]:
    """Another generator: log-normal layer sizes (sigma 0.5) and aspect ratios (sigma 0.5), same weights and count."""
    table, rng = applications()[app], np.random.default_rng(seed)
    count = int(table["fc"] + table["conv"])
    weights = np.exp(rng.normal(0, 0.5, count))
    weights *= table["weights_M"] * 1e6 / weights.sum()
    aspect = np.exp(rng.normal(0, 0.5, count))
    return [(float(sqrt(w * a)), float(sqrt(w / a))) for w, a in zip(weights, aspect, strict=True)]


def run(app: str, layers: list[tuple[float, float]]) -> StreamCycles:
    """Cycles of an application: rows past each weight tile are its operations per weight byte."""
    table = applications()[app]
    return stream_layers(
        TPU_V1,
        layers,
        rows_streamed=int(table["ops_per_weight_byte"]),
        borders=int(table["total_layers"]),
        input_bytes=table["batch"] * layers[0][0],
    )


def _share(app: str, part: str) -> float:
    return 100 * run(app, square_layers(app)).share(part)


def _tops(app: str) -> float:
    return run(app, square_layers(app)).flop_per_s(CLOCK_HZ) / 1e12


def _roofline_tops(app: str) -> float:
    table = applications()[app]
    peak = 2 * TPU_V1.rows * TPU_V1.cols * CLOCK_HZ
    return min(peak, 2 * table["ops_per_weight_byte"] * TPU_V1.weight_bandwidth_bytes_per_s) / 1e12


def _spread(app: str) -> str:
    tops = [run(app, random_layers(app, seed)).flop_per_s(CLOCK_HZ) / 1e12 for seed in range(GENERATORS)]
    return f"{GENERATORS} random generators: {min(tops):.1f} to {max(tops):.1f}, median {np.median(tops):.1f} TOPS"


@group("tpu-v1")
def tpu_v1() -> Iterator[Check]:
    """Cycle fractions and throughput per application, roofline, tile step."""
    parts = {
        "array_active_cycles": "active",
        "weight_stall_cycles": "weight_stall",
        "weight_shift_cycles": "weight_shift",
        "raw_stalls": "border",
        "input_data_stalls": "input_stall",
    }
    for app in applications():
        gate = app in GATED
        for quantity, part in parts.items():
            yield against(
                fact(CHIP, quantity, workload=app),
                partial(_share, app, part),
                id=f"tpu-v1.{app.lower()}.{part.replace('_', '-')}",
                tolerance=10.0,
                rule=Rule.POINTS,
                gate=gate and part in ("active", "weight_stall", "weight_shift"),
                note="equal square layers" if part != "border" else "the border is taken from MLP0's row",
            )
        measured = fact(CHIP, "achieved_throughput", workload=app)
        yield against(
            measured,
            partial(_tops, app),
            id=f"tpu-v1.{app.lower()}.tops",
            tolerance=0.15,
            gate=gate,
            note=f"equal square layers; {_spread(app)}",
        )
        yield Check(
            id=f"tpu-v1.{app.lower()}.roofline",
            source=measured.reference,
            quantity=f"{CHIP} {app} roofline is not below the measured throughput",
            unit="TOPS",
            theirs=measured.value,
            tolerance=0.0,
            gate=True,
            compute=partial(_roofline_tops, app),
            rule=Rule.AT_LEAST,
        )
    (tile,) = facts(CHIP, "tiling_time")
    yield against(
        tile,
        lambda: ceil(600 / 256) ** 2 * TPU_V1.tile_fetch_cycles / CLOCK_HZ * 1e6,
        id="tpu-v1.tile-step",
        tolerance=0.15,
        note="nine full tiles; the counters of LSTM1 say that border tiles fetch only what exists",
    )
