"""What our kernels do, in ops that the recorder knows, so that the simulator costs them beside their measurement.

Each is one launch on the device and several ops here (see `sim.baseline.compare.one_launch_s`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from sim.baseline.ops import BLOCK, OpSpec, kept_blocks

Made = tuple[nn.Module, tuple[torch.Tensor, ...]]


def _linear(p: Mapping[str, int], dtype: torch.dtype) -> Made:
    x = torch.empty(p["m"], p["k"], dtype=dtype, device="meta")
    return nn.Linear(p["k"], p["n"], bias=False, dtype=dtype, device="meta"), (x,)


def int4_gemm(p: Mapping[str, int], dtype: torch.dtype) -> Made:
    """A layer whose weights the estimate's precision (w4a16) narrows; scales and zeros are left out (6 % of them)."""
    return _linear(p, dtype)


def two_to_four(spec: OpSpec) -> Made:
    """The dense layer of a 2:4 product (a library's kernel): `sim.workload.passes.sparsify` marks its weight."""
    return _linear(spec.params, _dtype(spec))


class _BlockSparse(nn.Module):
    def __init__(self, p: Mapping[str, int], dtype: torch.dtype) -> None:
        super().__init__()
        rows, width = p["n"] // BLOCK, kept_blocks(p["k"], p["keep_percent"]) * BLOCK
        self.values = nn.Parameter(torch.empty(rows, width, BLOCK, dtype=dtype, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, width, _ = self.values.shape
        return torch.bmm(x[:, :width].expand(rows, -1, -1), self.values)


def block_sparse_gemm(p: Mapping[str, int], dtype: torch.dtype) -> Made:
    """One product per block row over its kept columns; all rows are taken to keep the same columns of the input."""
    return _BlockSparse(p, dtype), (torch.empty(p["m"], p["k"], dtype=dtype, device="meta"),)


class _Detection(nn.Module):
    def __init__(self, candidates: int) -> None:
        super().__init__()
        self.candidates = candidates

    def forward(self, deltas: torch.Tensor, logits: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        scores, order = logits.amax(-1).sigmoid().topk(min(self.candidates, logits.shape[1]))
        here, moved = anchors[order], deltas.gather(1, order[..., None].expand(-1, -1, 4))
        centre = here[..., :2] + moved[..., :2] * here[..., 2:]
        half = 0.5 * here[..., 2:] * moved[..., 2:].exp()
        boxes = torch.cat([centre - half, centre + half], -1)
        return torch.ops.dovetail.onnx_nms(boxes, scores[:, None], self.candidates)


def detection_postprocess(p: Mapping[str, int], dtype: torch.dtype) -> Made:
    """Every candidate is compared with every other: the most that suppression may take, whatever the data."""
    import sim.workload.trace.onnx_layers  # noqa: F401  (defines the suppression)

    shapes = ((p["batch"], p["boxes"], 4), (p["batch"], p["boxes"], p["classes"]), (p["boxes"], 4))
    return _Detection(p["candidates"]), tuple(torch.empty(shape, device="meta") for shape in shapes)


PLAIN: Mapping[str, Callable[[Mapping[str, int], torch.dtype], Made]] = {
    "gemm_int4": int4_gemm,
    "gemm_block_sparse": block_sparse_gemm,
    "detection_postprocess": detection_postprocess,
}


def plain(spec: OpSpec) -> Made:
    """(module, operands on meta) of one of our kernels."""
    return PLAIN[spec.kind](spec.params, _dtype(spec))


def _dtype(spec: OpSpec) -> torch.dtype:
    return {"w4a16": torch.float16, "fp16": torch.float16, "bf16": torch.bfloat16}.get(spec.precision, torch.float32)


__all__ = ["PLAIN", "plain", "two_to_four"]
