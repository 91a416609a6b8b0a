"""Op rules; importing this package fills the table."""

from sim.workload.trace.rules import attention, elementwise, linalg, movement, products, reductions, scans
from sim.workload.trace.rules.registry import register_rule, rule_for

__all__ = [
    "attention",
    "elementwise",
    "linalg",
    "movement",
    "products",
    "reductions",
    "register_rule",
    "rule_for",
    "scans",
]
