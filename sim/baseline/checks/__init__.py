"""The registry of checks: one module per subject, one function per group.

What a check is      check
Parts                array (SCALE-Sim), technology, waiting (Gemmini), kernels (of GPUs)
Chips                edge (NVDLA, Tesla's FSD), orin, eyeriss, tpu, hailo; systems (language models on GPUs)
Through `estimate`   whole (networks, by the public API), measured (the devices in `baselines/`)
Layer lists          networks, edge_networks, edge_detectors, edge_yolo
"""

from sim.baseline.checks import (
    array,
    edge,
    eyeriss,
    hailo,
    kernels,
    measured,
    orin,
    systems,
    technology,
    tpu,
    waiting,
    whole,
)
from sim.baseline.checks.check import Check, CheckResult, Rule, all_checks, group

__all__ = [
    "Check",
    "CheckResult",
    "Rule",
    "all_checks",
    "array",
    "edge",
    "eyeriss",
    "group",
    "hailo",
    "kernels",
    "measured",
    "orin",
    "systems",
    "technology",
    "tpu",
    "waiting",
    "whole",
]
