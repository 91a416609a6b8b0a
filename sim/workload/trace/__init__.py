"""Front ends: a PyTorch model becomes a workload graph. Importing this package imports torch."""

from sim.workload.trace.policy import DataPolicy
from sim.workload.trace.rules.registry import (
    Call,
    Grouped,
    Movement,
    Product,
    Vector,
    View,
    Window,
    register_rule,
    unregister_rule,
)
from sim.workload.trace.run import trace

__all__ = [
    "Call",
    "DataPolicy",
    "Grouped",
    "Movement",
    "Product",
    "Vector",
    "View",
    "Window",
    "register_rule",
    "trace",
    "unregister_rule",
]
