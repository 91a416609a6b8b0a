"""Our kernels on this GPU against plain torch: largest error of each, exit code 1 beyond the tolerance.

PYTHONPATH=. python benchmarks/check_gpu_kernels.py
"""

from __future__ import annotations

import sys

import torch

from sim.baseline.kernels.block_sparse_gemm import block_sparse_gemm, densify, random_block_sparse
from sim.baseline.kernels.detection import detection_postprocess, random_predictions, reference
from sim.baseline.kernels.int4_gemm import dequantise_int4, int4_gemm, quantise_int4

TOLERANCE = 0.02
"""Of the result's largest element: fp16 and bf16 inputs and outputs, fp32 accumulation."""


def int4() -> float:
    weight = quantise_int4(torch.randn(512, 1024, device="cuda"))
    x = torch.randn(70, 1024, device="cuda", dtype=torch.float16)
    return _relative(int4_gemm(x, weight), x.float() @ dequantise_int4(weight).T)


def block_sparse() -> float:
    weight = random_block_sparse(512, 1024, keep_percent=25, dtype=torch.bfloat16, device="cuda")
    x = torch.randn(200, 1024, device="cuda", dtype=torch.bfloat16)
    return _relative(block_sparse_gemm(x, weight), x.float() @ densify(weight).float().T)


def detection() -> float:
    """Largest error of a box corner relative to the image; infinite when other boxes were kept."""
    predictions = random_predictions(4, 8400, 80, device="cuda", seed=1)
    got = detection_postprocess(predictions)
    worst = 0.0
    on_host = type(predictions)(*(t.cpu() for t in predictions))
    for i, (boxes, _, labels) in enumerate(reference(on_host)):
        count = int(got.counts[i])
        if count != len(labels) or got.labels[i, :count].tolist() != labels.tolist():
            return float("inf")
        worst = max(worst, float((got.boxes[i, :count].cpu() - boxes).abs().max()) / 640)
    return worst


def _relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected).abs().max() / expected.abs().max())


def main() -> int:
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    worst = 0.0
    for check in (int4, block_sparse, detection):
        error = check()
        worst = max(worst, error)
        print(f"{check.__name__}: largest relative error {error:.2e}, tolerance {TOLERANCE}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
