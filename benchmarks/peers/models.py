"""SCALE-Sim and LLMCompass, which search no mapping space that ours has: their numbers beside ours.

    python benchmarks/peers/models.py

SCALE-Sim 3.0.0: compute cycles of its CALC mode in three dataflows. A closed form gives them, but for the one cycle
more in which its count begins. LLMCompass (commit 2e015fd2ee75): products in fp16 on its GA100. Both say what a GPU
takes; two of the products have been measured (A100 SXM, bf16, vLLM, ai-dynamo/aiconfigurator 095f58a5). Ours stands
twice: with a data sheet alone, and with constants fitted to other products of the same measurements. Their numbers:
one run each on two cores, CPU seconds with imports.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.mapping import array_cycles  # noqa: E402

Answer = TypeVar("Answer")
Shape = tuple[int, int, int]
"""M, N, K of a product."""

FLOWS = ("output_stationary", "weight_stationary", "input_stationary")
SCALE_SIM: dict[Shape, tuple[tuple[int, float], ...]] = {
    (512, 512, 512): ((146_943, 20.5), (155_135, 15.7), (155_135, 16.9)),
    (37, 1000, 2048): ((135_039, 15.2), (268_287, 15.9), (140_031, 14.5)),
    (197, 768, 768): ((139_439, 19.9), (167_615, 15.6), (144_815, 15.3)),
    (12544, 64, 147): ((163_855, 22.7), (126_379, 14.0), (309_679, 65.7)),
    (1, 4096, 4096): ((532_223, 64.5), (1_556_479, 88.6), (536_319, 74.3)),
}
"""(cycles on 32 x 32, CPU s) of each of `FLOWS`."""
LLM_COMPASS: dict[Shape, tuple[float, float]] = {
    (512, 512, 512): (1.635, 29), (37, 1000, 2048): (2.284, 37), (197, 768, 768): (1.907, 37),
    (12544, 64, 147): (4.536, 37), (1, 4096, 4096): (16.39, 4), (1024, 1024, 1024): (9.029, 37),
    (128, 4096, 11008): (48.73, 22), (4096, 4096, 4096): (412.9, 40),
}  # fmt: skip
"""(us, CPU s)"""
MEASURED_US: dict[Shape, float] = {(1, 4096, 4096): 24.08, (4096, 4096, 4096): 539.5}


def timed(run: Callable[[], Answer]) -> tuple[Answer, float]:
    """(answer, CPU seconds)."""
    start = time.process_time()
    answer = run()
    return answer, time.process_time() - start


def scale_sim() -> int:
    """Rows that differ."""
    wrong = 0
    print(f"{'32 x 32':18}{'dataflow':>20}{'ours':>12}{'SCALE-Sim':>12}{'CPU s':>10}{'theirs':>8}")
    for shape, theirs in SCALE_SIM.items():
        for flow, (cycles, their_s) in zip(FLOWS, theirs, strict=True):
            closed = partial(
                array_cycles,
                *shape,
                rows=32,
                cols=32,
                dataflow=flow,
                preload="exposed",
                folds="serial",
                skew="systolic",
            )
            ours, spent_s = timed(closed)
            wrong += int(ours) - 1 != cycles
            print(f"{name(shape):18}{flow:>20}{int(ours) - 1:>12,}{cycles:>12,}{spent_s:>10.6f}{their_s:>8}")
    return wrong


def llm_compass() -> None:
    """A product on an A100, in microseconds."""
    chip = sim.load_hardware("a100-sxm")
    columns = f"{'data sheet':>12}{'calibrated':>12}{'LLMCompass':>12}{'measured':>10}{'CPU s':>8}{'theirs':>8}"
    print(f"\n{'A100, us':18}{columns}")
    for shape, (theirs_us, their_s) in LLM_COMPASS.items():
        graph = sim.gemm(*shape, dtype="bf16")
        estimate = partial(sim.estimate, graph, chip, precision="bf16", inputs="resident")
        sheet, fitted = (1e6 * estimate(calibration=choice).latency_s for choice in ("none", "auto"))
        _, spent_s = timed(estimate)
        measured = f"{MEASURED_US[shape]:.1f}" if shape in MEASURED_US else "-"
        print(
            f"{name(shape):18}{sheet:>12.2f}{fitted:>12.2f}{theirs_us:>12.2f}{measured:>10}{spent_s:>8.3f}{their_s:>8}"
        )


def name(shape: Shape) -> str:
    return ",".join(map(str, shape))


def main() -> int:
    wrong = scale_sim()
    llm_compass()
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
