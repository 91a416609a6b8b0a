"""Op rules; importing this package fills the table.

The table            registry
What multiplies      products, attention, linalg (dense solvers)
What does not        elementwise, reductions (norms and pools among them), scans, movement
"""

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
