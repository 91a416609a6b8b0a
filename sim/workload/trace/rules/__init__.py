"""Op rules; importing this package fills the table.

The table            registry
What multiplies      products, attention, linalg (dense solvers)
What does not        elementwise, reductions (norms and pools among them), scans, movement
Of gradients         backward (that a model takes while it runs)
"""

from sim.workload.trace.rules import attention, backward, elementwise, linalg, movement, products, reductions, scans
from sim.workload.trace.rules.registry import register_rule, rule_for

__all__ = [
    "attention",
    "backward",
    "elementwise",
    "linalg",
    "movement",
    "products",
    "reductions",
    "register_rule",
    "rule_for",
    "scans",
]
