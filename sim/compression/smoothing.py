"""SmoothQuant: outliers of activations move into the weights that read them.

References: [1] Xiao et al., SmoothQuant (arXiv 2211.10438), eq. 4.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sim.errors import WorkloadError
from sim.workload.trace.run import arguments, tensors_of

SMALLEST = 1e-5
"""Peaks and factors are no smaller than this, so that a channel of zeros can be divided by."""


def smooth(module: nn.Module, treat: dict[str, nn.Module], calibration: Any, *, alpha: float) -> list[str]:
    """Move activation outliers into weights, exactly, where a LayerNorm feeds linear layers alone [1].

    s_j = max|x_j|^alpha / max|w_j|^(1 - alpha); the norm's scale and shift are divided by s, the
    columns of every linear layer that reads the norm multiplied. Whatever else reads the norm (a
    residual addition, attention, a slice) would see other numbers, and so would a linear layer that
    reads something else too: such norms are left alone. Returns notes on what was done.
    """
    readers = _Readers(module, treat)
    whole = module.register_forward_hook(lambda _module, _args, output: readers.leave(output))
    try:
        with readers:
            run_calibration(module, calibration)
    finally:
        whole.remove()
    if not readers.norms:
        return ["smoothing: no LayerNorm feeds a linear layer; nothing to fold into"]
    notes = []
    for name in readers.norms.values():
        others, linear = readers.others[name], readers.linear_after(name)
        shared = [n for n in linear if readers.sources[n] != {name}]
        if others or shared or not linear:
            why = ", ".join(sorted(others)) or ", ".join(f"what {n} reads elsewhere" for n in shared) or "nothing"
            notes.append(f"smoothing: {name} left alone (not only treated linear layers read it: {why})")
            continue
        _fold(module.get_submodule(name), [treat[n] for n in linear], readers.peak[name], alpha)
        notes.append(f"smoothing: {name} -> {', '.join(linear)}")
    return notes


def _fold(norm: nn.Module, layers: list[nn.Module], peak: torch.Tensor, alpha: float) -> None:
    with torch.no_grad():
        columns = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)
        s = (peak.clamp(min=SMALLEST) ** alpha / columns.clamp(min=SMALLEST) ** (1 - alpha)).clamp(min=SMALLEST)
        norm.weight.div_(s)
        if norm.bias is not None:
            norm.bias.div_(s)
        for layer in layers:
            layer.weight.mul_(s)


class _Readers(TorchFunctionMode):
    """Who reads the outputs of LayerNorms, seen at every function that a forward calls."""

    def __init__(self, module: nn.Module, treat: dict[str, nn.Module]) -> None:
        super().__init__()
        self.norms = {
            id(m.weight): name
            for name, m in module.named_modules()
            if isinstance(m, nn.LayerNorm) and m.weight is not None and m.weight.dim() == 1
        }
        self._linear = {id(m.weight): name for name, m in treat.items() if isinstance(m, nn.Linear)}
        self._made: dict[int, tuple[str, torch.Tensor]] = {}
        """id of an output -> its norm, and the output itself, so that ids stay unique"""
        self.peak: dict[str, torch.Tensor] = {}
        self.sources: dict[str, set[str | None]] = {}
        """linear layer -> the norms that it reads; None stands for anything else"""
        self.others: dict[str, set[str]] = {name: set() for name in self.norms.values()}
        """norm -> what reads it beside treated linear layers"""

    def linear_after(self, norm: str) -> list[str]:
        return [name for name, sources in self.sources.items() if norm in sources]

    def leave(self, output: Any) -> None:
        """The network's own output is read by somebody that we do not see."""
        for name in self._sources(output):
            self.others[name].add("the network's output")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = (args, kwargs)
        parameters = {id(x) for x in tensors_of(given)}
        linear = next((self._linear[i] for i in parameters if i in self._linear), None)
        if func is functional.linear and linear is not None:
            self.sources.setdefault(linear, set()).update(self._sources(given) or {None})
        elif result is None or any(True for _ in tensors_of(result)):  # a shape tells nothing of the numbers
            for name in self._sources(given):
                self.others[name].add(getattr(func, "__name__", str(func)))
            if linear is not None:
                self.sources.setdefault(linear, set()).add(None)
        norm = next((self.norms[i] for i in parameters if i in self.norms), None)
        if func is functional.layer_norm and norm is not None:
            self._made[id(result)] = norm, result
            top = result.detach().abs().reshape(-1, result.shape[-1]).amax(0)
            self.peak[norm] = torch.maximum(self.peak[norm], top) if norm in self.peak else top
        return result

    def _sources(self, values: Any) -> set[str]:
        return {self._made[id(x)][0] for x in tensors_of(values) if id(x) in self._made}


def run_calibration(module: nn.Module, calibration: Any) -> None:
    """Forward the calibration set in evaluation mode: a tensor in batches of 256, else the arguments of one call.

    Raises: WorkloadError: the module refuses the set's shape or dtype.
    """
    one = isinstance(calibration, torch.Tensor)
    batches = [((part,), {}) for part in calibration.split(256)] if one else [arguments(calibration)]
    module.eval()
    with torch.no_grad():
        for args, kwargs in batches:
            try:
                module(*args, **kwargs)
            except (RuntimeError, IndexError, ValueError) as error:
                shapes = ", ".join(f"{tuple(x.shape)} and dtype {x.dtype}" for x in tensors_of(calibration))
                raise WorkloadError(
                    f"calibration set of shape {shapes} does not fit the model: {str(error).splitlines()[0]}"
                ) from error
