"""Small spaces for the tests of searches: one matrix product on the edge NPU."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import sim

SPACE: dict[str, Any] = {
    "schema": "dovetail.search/1",
    "name": "tiny",
    "workloads": [{"workload": "WORKLOAD", "name": "product", "knobs": {"m": {"choices": [32, 64]}}}],
    "compression": {"precision": ["int8", "int4"]},
    "chip": "edge-npu",
    "hardware": {
        "clock": {"choices": ["500 MHz", "1 GHz"], "coarse": True},
        "array.rows": {"choices": [16, 32]},
        "DRAM.bandwidth": {"choices": ["6.4 GB/s", "12.8 GB/s"]},
    },
    "objectives": ["latency", "area"],
    "budget": {"trials": 6, "winners": 2},
    "sampler": {"name": "random", "seed": 3},
}

MODEL = '''"""One matrix product of m x 32 x 64."""

import torch
from torch import nn


def build(m: int = 32):
    return nn.Linear(64, 32, bias=False), (torch.empty(m, 64),)
'''


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    """A space of 4 model sides x 8 chips that may be changed."""
    model = tmp_path / "product.py"
    model.write_text(MODEL)
    found = deepcopy(SPACE)
    found["workloads"][0]["workload"] = str(model)
    return found


@pytest.fixture
def write(tmp_path: Path):
    """Writes a space to a file (JSON is YAML) and returns its path."""

    def writer(space: dict[str, Any], name: str = "space.yaml") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(space))
        return path

    return writer


@pytest.fixture
def reproduced():
    """Runs the commands of a winner in its folder; returns the documents that they print."""

    def run(folder: Path) -> list[dict[str, Any]]:
        environment = {**os.environ, "PYTHONPATH": str(Path(sim.__file__).parents[1])}
        found = []
        for line in (folder / "command.txt").read_text().splitlines():
            words = shlex.split(line)
            assert words[0] == "dovetail"
            done = subprocess.run([sys.executable, "-m", "sim", *words[1:], "--json"], cwd=folder, capture_output=True,
                                  text=True, check=True, env=environment)  # fmt: skip
            found.append(json.loads(done.stdout))
        return found

    return run
