"""Run ZigZag on the shapes of `zigzag.py`, in ZigZag's own environment, and print its mappings as JSON.

    python -m venv ENV && ENV/bin/pip install zigzag-dse==3.9.1 six
    ENV/bin/python benchmarks/peers/theirs/run_zigzag.py [--hw tpu_like ...] [--network] > found.json
    python benchmarks/peers/zigzag.py --mappings found.json

LOMA, lpf_limit 6, uneven, aim latency; the hardware and mapping files are those of its wheel.
`{hardware: {work: {"cycles", "cpu_s", "layers": [{"name", "cycles", "temporal", "spatial"}]}}}`;
`temporal` is operand -> levels from the inside out -> [dimension, trips]. Imports nothing of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import zigzag
from zigzag.api import get_hardware_performance_zigzag

GEMMS = ((512, 512, 512), (37, 1000, 2048), (197, 768, 768), (12544, 64, 147), (1, 4096, 4096), (1024, 1024, 1024),
         (128, 4096, 11008), (4096, 4096, 4096))  # fmt: skip
MAPPINGS = {"tpu_like": "tpu_like", "meta_prototype": "meta_prototype_like", "tesla_npu_like": "tesla_npu_like",
            "eyeriss_like": "default"}  # fmt: skip
INPUTS = Path(zigzag.__file__).parent / "inputs"


def gemm(m: int, n: int, k: int) -> list[dict]:
    return [
        {
            "id": 0, "name": "gemm", "operator_type": "Gemm", "equation": "O[ox][k]+=I[ox][c]*W[c][k]",
            "loop_dims": ["OX", "K", "C"], "loop_sizes": [m, n, k],
            "operand_precision": {"I": 8, "W": 8, "O": 16, "O_final": 8}, "operand_source": {"I": 0, "W": 0},
        }
    ]  # fmt: skip


def loops(mapping: dict) -> dict:
    """Operand -> levels from the inside out -> [dimension, factor]."""
    return {str(op): [[[str(dim), float(n)] for dim, n in level] for level in levels] for op, levels in mapping.items()}


def layers(answers: object) -> list[dict]:
    found = []
    for cost, _ in answers:  # type: ignore[attr-defined]
        if not hasattr(cost, "temporal_mapping"):
            continue
        found.append(
            {
                "name": cost.layer.name,
                "cycles": float(cost.latency_total2),
                "last_store_cycles": float(cost.latency_total2 - cost.latency_total1),
                "temporal": loops(cost.temporal_mapping.mapping_dic_stationary),
                "spatial": str(cost.spatial_mapping_int),
            }
        )
    return found


def run(workload: object, hardware: str) -> dict:
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        _, cycles, answers = get_hardware_performance_zigzag(
            workload=workload,
            accelerator=str(INPUTS / "hardware" / f"{hardware}.yaml"),
            mapping=str(INPUTS / "mapping" / f"{MAPPINGS[hardware]}.yaml"),
            opt="latency",
            dump_folder=folder,
            loma_show_progress_bar=False,
        )
    inner = answers[0][1] if len(answers) == 1 and isinstance(answers[0][1], list) else answers
    return {"cycles": float(cycles), "cpu_s": time.process_time() - start, "layers": layers(inner)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hw", action="append", choices=list(MAPPINGS))
    parser.add_argument("--network", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    found: dict[str, dict] = {}
    for hardware in arguments.hw or MAPPINGS:
        works: dict[str, object] = {",".join(map(str, g)): gemm(*g) for g in GEMMS}
        if arguments.network:
            works["resnet18"] = str(INPUTS / "workload" / "resnet18.onnx")
        found[hardware] = {}
        for name, workload in works.items():
            try:
                found[hardware][name] = run(workload, hardware)
            except Exception as error:  # a peer's failure is a row, not the end of the run
                found[hardware][name] = {"error": f"{type(error).__name__}: {error}"}
            print(hardware, name, found[hardware][name].get("cycles"), file=sys.stderr, flush=True)
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
