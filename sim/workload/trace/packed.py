"""Packed sequences (torch.nn.utils.rnn): lengths are data, so the policy says how many steps a sequence has.

A packed batch is its steps one after the other, those of all sequences in a row. Without data all sequences are equally
long; the sizes of the steps are numbers all the same, which torch wants on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Steps = Callable[[int], int]
"""How many steps of at most so many are kept."""


class Packed:
    """Packs and unpacks; remembers which tensors are the sizes of steps."""

    def __init__(self) -> None:
        self._sizes: dict[int, Tensor] = {}

    def is_sizes(self, tensor: object) -> bool:
        return id(tensor) in self._sizes

    def answer(self, func: Any, args: tuple, kept: Steps) -> object:
        """The result of a call that packs or unpacks, made of plain ops; NotImplemented of any other."""
        if func is torch._VF._pack_padded_sequence:
            return self._pack(args[0], bool(args[2]), kept)
        if func is torch._VF._pad_packed_sequence:
            return self._unpack(*args)
        return NotImplemented

    def _pack(self, x: Tensor, batch_first: bool, kept: Steps) -> tuple[Tensor, Tensor]:
        x = x.transpose(0, 1) if batch_first else x
        steps, batch = kept(x.shape[0]), x.shape[1]
        sizes = torch.full((steps,), batch, dtype=torch.int64, device="cpu")
        self._sizes[id(sizes)] = sizes
        return x[:steps].reshape(steps * batch, *x.shape[2:]), sizes

    def _unpack(
        self, data: Tensor, sizes: Tensor, batch_first: bool, value: float, length: int
    ) -> tuple[Tensor, Tensor]:
        batch = data.shape[0] // len(sizes)
        x = data.view(len(sizes), batch, *data.shape[1:])
        if length > len(sizes):
            x = torch.nn.functional.pad(x, (0, 0) * (x.dim() - 1) + (0, length - len(sizes)), value=value)
        lengths = torch.full((batch,), len(sizes), dtype=torch.int64, device="cpu")
        return x.transpose(0, 1).contiguous() if batch_first else x, lengths

    def layer(self, steps: Callable[..., tuple], args: tuple) -> tuple:
        """A recurrent layer (`steps` takes it apart) on a packed batch."""
        data, sizes, *rest = args
        batch = data.shape[0] // len(sizes)
        out, *states = steps(data.view(len(sizes), batch, *data.shape[1:]), *rest, False)
        return (out.reshape(len(sizes) * batch, *out.shape[2:]), *states)
