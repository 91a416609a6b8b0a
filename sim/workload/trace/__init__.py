"""Front ends: a PyTorch model becomes a workload graph. Importing this package imports torch.

The recorder         run (`trace`), recorder (writes down what a model does on meta tensors), builder (calls to ops and
                     tensors), twins (functions of a module that is copied), rules (what work an op is), source
                     (which line of the user's), autocast (which torch refuses on meta)
Data that is not     questions (about it, recognised), policy (answers them); known (constants), sure (no NaN), choices
there                and dealt (of experts), dynamic (sizes), packed (sequences), loops and control (flow)
Other front ends     export (torch.export); onnx, with onnx_ops, onnx_layers, onnx_rare and onnx_quantised
"""

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
