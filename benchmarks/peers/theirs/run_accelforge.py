"""Run AccelForge on the shapes of `accelforge.py`, in AccelForge's own environment, and print its mappings as JSON.

    python3.12 -m venv ENV && ENV/bin/pip install accelforge==1.0.467
    ENV/bin/python benchmarks/peers/theirs/run_accelforge.py > found.json
    python benchmarks/peers/accelforge.py --mappings found.json

Bundled Eyeriss and TPU v4i, one product at a time, one process, aim latency. Eyeriss asks CACTI, whose binary in the
wheel needs glibc 2.38; where there is an older one, `make` in `hwcomponents_cacti/cacti` makes another.
`{chip: {work: {"latency_s", "cpu_s", "nodes": [...]}}}`; nodes from the outside in: {"store": [role], "memory"},
{"loop": rank, "tile"} and {"loop": rank, "tile", "over": dimension}. Imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import accelforge
from accelforge.frontend.mapper.metrics import Metrics
from accelforge.mapper.FFM.main import map_workload_to_arch
from accelforge.util.parallel import set_n_parallel_jobs

GEMMS = ((512, 512, 512), (37, 1000, 2048), (197, 768, 768), (12544, 64, 147), (1, 4096, 4096), (1024, 1024, 1024),
         (128, 4096, 11008), (4096, 4096, 4096))  # fmt: skip
WORK = """workload:
  iteration_space_shape: {{m: 0 <= m < {0}, n: 0 <= n < {1}, k: 0 <= k < {2}}}
  bits_per_value: {{All: 8}}
  einsums:
  - name: product
    tensor_accesses:
    - {{name: A, projection: [m, k]}}
    - {{name: W, projection: [k, n]}}
    - {{name: C, projection: [m, n], output: True}}
    renames: {{input: A, weight: W, output: C}}
"""
ROLE = {"A": "input", "W": "weight", "C": "output"}


def node(one: object) -> dict | None:
    if hasattr(one, "tensors") and hasattr(one, "component"):
        return {"store": [ROLE[str(name)] for name in one.tensors], "memory": str(one.component)}
    if not hasattr(one, "rank_variable"):
        return None
    over = {"over": str(one.name)} if type(one).__name__ == "Spatial" else {}
    return {"loop": str(one.rank_variable).upper(), "tile": int(one.tile_shape)} | over


def run(chip: str, shape: tuple[int, int, int]) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.yaml"
        work.write_text(WORK.format(*shape), encoding="utf-8")
        start = time.process_time()
        spec = accelforge.Spec.from_yaml(getattr(accelforge.examples.arches, chip), str(work))
        spec.mapper.metrics = Metrics.LATENCY
        found = map_workload_to_arch(spec, print_progress=False, eval_in_detail=False)
        spent = time.process_time() - start
    row = found.data.iloc[0]
    nodes = [made for made in map(node, row["Total<SEP>mapping"]().nodes) if made]
    return {"latency_s": float(row["Total<SEP>latency"]), "cpu_s": spent, "nodes": nodes}


def main() -> None:
    set_n_parallel_jobs(1)
    found: dict[str, dict] = {}
    for chip in ("tpu_v4i", "eyeriss"):
        found[chip] = {}
        for shape in GEMMS:
            name = ",".join(map(str, shape))
            found[chip][name] = run(chip, shape)
            print(chip, name, found[chip][name]["latency_s"], file=sys.stderr, flush=True)
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
