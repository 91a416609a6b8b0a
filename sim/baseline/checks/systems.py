"""Language models on one and on several GPUs against the vendor's first-token latencies.

They inform: the library is an early version, its kernels are not those that our constants were measured
with, and one chip beside four tells the products from the collectives.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from sim.baseline.checks.check import Check, against, group
from sim.baseline.checks.whole import hardware
from sim.baseline.published import fact

PRECISIONS = {"h100-sxm": ("FP8", "fp8_e4m3"), "a100-sxm": ("FP16", "fp16")}
"""What the vendor's table says, and our name of it."""
MODELS = {"LLaMA 7B": ("7b", 1), "LLaMA 70B": ("70b", 4)}
"""Size of the bundled workload, and GPUs that share it (tensor parallel)."""
LENGTHS = (128, 2048)


def _ttft_ms(chip: str, size: str, gpus: int, length: int) -> float | None:
    """Prefill at batch 1; None where a chip is not bundled."""
    import sim

    name = chip if gpus == 1 else f"{chip}-x8"
    if hardware(name) is None:
        return None
    target = sim.load_hardware(name, {} if gpus == 1 else {"system.chips": gpus})
    graph = sim.load_workload("llama", size=size, phase="prefill", context=length)
    found = sim.estimate(graph, target, precision=PRECISIONS[chip][1], inputs="resident")
    return found.latency_s * 1e3


@group("systems")
def systems() -> Iterator[Check]:
    """Llama on one and on four GPUs."""
    for chip, (theirs, _) in PRECISIONS.items():
        for model, (size, gpus) in MODELS.items():
            for length in LENGTHS:
                yield against(
                    fact(
                        chip, "ttft", workload=model,
                        scenario=f"first token, input {length}, tensor parallel {gpus}, {theirs}",
                    ),
                    partial(_ttft_ms, chip, size, gpus, length),
                    id=f"systems.{chip}.llama-{size}.{length}",
                    quantity=f"{model} on {gpus} {chip}, {theirs}: first token after {length}",
                    tolerance=0.35,
                    gate=False,
                    note="informs: an early version of the library",
                )  # fmt: skip
