"""Functions as modules, and their graphs."""

from torch import nn

from sim.workload.trace import trace


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function, **tensors):
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)

    def forward(self, *args):
        return self.function(self, *args)


def graph_of(function, *inputs, **tensors):
    return trace(Call(function, **tensors), inputs)
