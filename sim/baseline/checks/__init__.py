"""The registry of checks: one module per subject, one function per group."""

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
