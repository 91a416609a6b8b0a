"""Which channels belong together: coupled output channels of a network, found on its fx graph.

Every convolution and linear layer makes a new *channel set*; element-wise modules, batch norms,
pools and depth-wise convolutions pass it on; an addition joins the sets of its operands (a
residual stream is one set). Whatever we do not know freezes the sets that it touches, with the
reason. A set can be pruned when every tensor that carries it is understood.
"""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from sim.compression.model import computed_weight
from sim.errors import WorkloadError
from sim.workload.trace.run import arguments

_PASSING_MODULES = (
    nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.LeakyReLU,
    nn.Identity, nn.Dropout,
)  # fmt: skip
_PASSING_FUNCTIONS = {functional.relu, functional.gelu, functional.silu, functional.dropout, torch.relu}
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_POOLING_FUNCTIONS = {functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d}
_JOINING = {operator.add, operator.iadd, operator.mul, torch.add, torch.mul}
_JOINING_METHODS = {"add", "add_", "mul", "mul_"}
_FLATTEN_METHODS = {"flatten"}
_MAP, _FEATURES = -3, -1
"""Where channels lie in what convolutions and pools read, and in what linear layers read."""


@dataclass(slots=True)
class ChannelSet:
    """Channels that live and die together. `readers` have them as inputs, `repeat` columns each."""

    size: int
    producers: list[str] = field(default_factory=list)
    passers: list[str] = field(default_factory=list)
    """Batch norms and depth-wise convolutions: per-channel state to cut with the set."""
    readers: dict[str, int] = field(default_factory=dict)
    """layer -> columns of its weight per channel (a flattened H x W map: H W)"""
    frozen: str | None = None


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor: its channel set, the axis that they lie on, and how many consecutive places one channel takes there."""

    channels: int
    axis: int
    repeat: int = 1


class _Sets:
    """Union-find over channel sets."""

    def __init__(self) -> None:
        self.items: list[ChannelSet] = []
        self._parent: list[int] = []

    def new(self, size: int) -> int:
        self.items.append(ChannelSet(size))
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def root(self, i: int) -> int:
        while self._parent[i] != i:
            i = self._parent[i]
        return i

    def at(self, i: int) -> ChannelSet:
        return self.items[self.root(i)]

    def join(self, i: int, j: int) -> None:
        i, j = sorted((self.root(i), self.root(j)))  # the older set keeps its place
        if i == j:
            return
        a, b = self.items[i], self.items[j]
        self._parent[j] = i
        a.producers += b.producers
        a.passers += b.passers
        a.readers |= b.readers
        a.frozen = a.frozen or b.frozen or ("channel counts differ" if a.size != b.size else None)

    def roots(self) -> list[ChannelSet]:
        return [s for i, s in enumerate(self.items) if self._parent[i] == i]


def channel_sets(module: nn.Module, example_inputs: Any) -> list[ChannelSet]:
    """All channel sets of a module, in the order of their first producer.

    Raises: WorkloadError: the module's control flow depends on data, so fx cannot trace it.
    """
    try:
        traced = fx.symbolic_trace(module)
        from torch.fx.passes.shape_prop import ShapeProp

        with torch.no_grad():
            ShapeProp(traced).propagate(*_in_order(module, example_inputs))
    except Exception as error:  # fx raises many kinds; all mean the same to the user
        raise WorkloadError(
            f"structured pruning: {type(module).__name__} cannot be traced by torch.fx: {error}"
        ) from error
    sets = _Sets()
    values: dict[fx.Node, _Value | None] = {}
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        values[node] = _visit(node, modules, values, sets)
    _freeze_shared(traced, sets)
    return [s for s in sets.roots() if s.producers]


def _in_order(module: nn.Module, example_inputs: Any) -> list[Any]:
    """All arguments of `forward` in its order, as fx has them: those of `*args` one by one."""
    args, kwargs = arguments(example_inputs)
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    bound.apply_defaults()
    kinds = {name: parameter.kind for name, parameter in bound.signature.parameters.items()}
    each = ([*v] if kinds[name] is inspect.Parameter.VAR_POSITIONAL else [v] for name, v in bound.arguments.items())
    return [value for values in each for value in values]


def _visit(node: fx.Node, modules: dict, values: dict, sets: _Sets) -> _Value | None:
    """The value of a node after its effect on the sets is recorded."""
    inputs = [values[n] for n in node.all_input_nodes if values.get(n) is not None]
    if node.op == "call_module":
        return _visit_module(str(node.target), modules[node.target], node, inputs, sets)
    passing = (node.op == "call_function" and node.target in _PASSING_FUNCTIONS) or (
        node.op == "call_method" and node.target == "relu"
    )
    if passing and inputs:
        return inputs[0]
    if node.op == "call_function" and node.target in _POOLING_FUNCTIONS and _lies(node, inputs, _MAP):
        return inputs[0]
    joining = (node.op == "call_function" and node.target in _JOINING) or (
        node.op == "call_method" and node.target in _JOINING_METHODS
    )
    made = (n.meta.get("tensor_meta") for n in node.all_input_nodes)
    shapes = {tuple(meta.shape) for meta in made if hasattr(meta, "shape")}  # (a dict of tensors has none)
    alike = len({(value.axis, value.repeat) for value in inputs}) == 1
    if joining and len(inputs) == 2 and len(shapes) == 1 and alike:
        sets.join(inputs[0].channels, inputs[1].channels)
        return inputs[0]
    flatten = (node.op == "call_function" and node.target is torch.flatten) or (
        node.op == "call_method" and node.target in _FLATTEN_METHODS
    )
    if flatten and len(inputs) == 1 and tuple(node.args[1:2]) == (1,) and _lies(node, inputs, 1):
        return _flattened(node, inputs[0])
    what = "the network's output" if node.op == "output" else getattr(node.target, "__name__", str(node.target))
    _freeze(inputs, sets, f"read by {what}")
    return None


def _shape(node: fx.Node) -> torch.Size:
    """Of what the node reads first."""
    return node.all_input_nodes[0].meta["tensor_meta"].shape


def _lies(node: fx.Node, inputs: list[_Value], axis: int) -> bool:
    """Whether the channels of the node's input lie on this axis: a linear layer may well read a map's width."""
    return bool(inputs) and inputs[0].axis == axis % len(_shape(node))


def _flattened(node: fx.Node, value: _Value) -> _Value:
    return _Value(value.channels, 1, value.repeat * _shape(node)[2:].numel())


def _visit_module(name: str, layer: nn.Module, node: fx.Node, inputs: list[_Value], sets: _Sets) -> _Value | None:
    if isinstance(layer, _PASSING_MODULES) and inputs:
        return inputs[0]
    if isinstance(layer, _POOLS) and _lies(node, inputs, _MAP):
        return inputs[0]
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1) and _lies(node, inputs, 1):
        return _flattened(node, inputs[0])
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and _lies(node, inputs, 1) and inputs[0].repeat == 1:
        sets.at(inputs[0].channels).passers.append(name)
        return inputs[0]
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        if _lies(node, inputs, _MAP) and layer.groups == layer.in_channels == layer.out_channels:
            sets.at(inputs[0].channels).passers.append(name)
            return inputs[0]
        _freeze(inputs, sets, f"read by grouped convolution {name}")
        return None
    if isinstance(layer, (nn.Linear, nn.Conv2d)):
        axis = _MAP if isinstance(layer, nn.Conv2d) else _FEATURES
        if _lies(node, inputs, axis):
            sets.at(inputs[0].channels).readers[name] = inputs[0].repeat
        else:
            _freeze(inputs, sets, f"read by {name} along another axis")
        made = sets.new(layer.weight.shape[0])
        sets.at(made).producers.append(name)
        return _Value(made, axis % len(_shape(node)))
    _freeze(inputs, sets, f"read by {type(layer).__name__} {name}")
    return None


def _freeze(inputs: list[_Value], sets: _Sets, why: str) -> None:
    for value in inputs:
        sets.at(value.channels).frozen = sets.at(value.channels).frozen or why


def _freeze_shared(traced: fx.GraphModule, sets: _Sets) -> None:
    """A layer called twice couples channels that its two uses keep apart, and so does a weight that two layers share
    (the embedding and the head of a language model): leave them alone."""
    calls: dict[str, int] = {}
    users: dict[nn.Parameter, list[str]] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls[str(node.target)] = calls.get(str(node.target), 0) + 1
        if node.op == "get_attr" and isinstance(read := _attribute(traced, str(node.target)), nn.Parameter):
            users.setdefault(read, []).append(f"the forward as {node.target}")
    for path, layer in traced.named_modules():
        for parameter in layer.parameters(recurse=False):
            users.setdefault(parameter, []).append(path)
    for item in sets.roots():
        for name in (*item.producers, *item.passers, *item.readers):
            layer = traced.get_submodule(name)
            own = list(layer.parameters(recurse=False))
            if computed_weight(layer):
                item.frozen = item.frozen or f"the weight of {name} is computed at every call"
            others = [user for parameter in own for user in users[parameter] if user != name]
            if calls[name] > 1 and own:
                item.frozen = item.frozen or f"{name} is called {calls[name]} times"
            if others:
                item.frozen = item.frozen or f"{name} shares a weight with {others[0]}"


def _attribute(module: nn.Module, path: str) -> object:
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name)
