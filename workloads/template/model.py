"""A perceptron: this line is what `dovetail list` shows. Then: what it is, its source, its parameters and MACs.

A workload is one file with build(**knobs) -> (module, example inputs). The module runs once, in eval mode, on
PyTorch's meta device: shapes without data, so weights are neither needed nor made.
    dovetail show FILE                               what is in it
    dovetail trace FILE -p hidden=512                what was recorded, and what was assumed about data
    dovetail estimate FILE --hw edge-npu --per-op    what it costs
Lines that begin with "# " and code are options: take the "# " away.
"""

# from typing import Literal

import torch
from torch import nn

# from sim.workload.graph import Primitive
# from sim.workload.trace import DataPolicy, Vector, register_rule

#: A run without data cannot know how many boxes pass a threshold: state what a mask keeps, what .item() gives,
#: and which way a branch goes.
# POLICY = DataPolicy(fraction=0.1, number=1, truth=True)

#: An op of your own: its shape, and a rule that says what work it is.
# @torch.library.custom_op("mylib::gate", mutates_args=())
# def gate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
#     return torch.sigmoid(x) * y
#
#
# @gate.register_fake
# def _(x, y):
#     return torch.empty_like(x)
#
#
# @register_rule("mylib.gate")
# def gate_cost(call):
#     n = call.out.numel()
#     return Vector({Primitive.EXP: n, Primitive.RECIPROCAL: n, Primitive.ADD: n, Primitive.MUL: n})


class Model(nn.Module):
    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden if i else inputs, hidden) for i in range(layers))
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        # x = gate(x, x)
        return self.head(x)


#: Knobs need a default and an annotation: int, float, str, bool, Literal[...], or one of these with `| None`. They
#: are what -p sets, what `sweep` and `search` vary; `batch` is known by name.
def build(
    inputs: int = 784,
    hidden: int = 1024,
    layers: int = 2,
    outputs: int = 10,
    batch: int = 1,
    # size: Literal["small", "large"] = "small",
):
    # hidden = {"small": hidden, "large": 4 * hidden}[size]
    return Model(inputs, hidden, layers, outputs), (torch.empty(batch, inputs),)


#: Another model of this file: `dovetail estimate FILE:head --hw edge-npu`.
# def head(hidden: int = 1024, outputs: int = 10):
#     return nn.Linear(hidden, outputs), (torch.empty(1, hidden),)
