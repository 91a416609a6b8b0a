"""Rows that norms and softmaxes reduce on a GPU that is costed by kernels."""

import pytest
import torch
from torch import nn

import sim
from sim.schedule.gpu_kernels import reduced_rows
from sim.workload.graph import VectorOp

IMAGE = torch.empty(2, 64, 16, 24)


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (nn.LayerNorm(24), 2 * 64 * 16),
        (nn.LayerNorm((16, 24)), 2 * 64),
        (nn.GroupNorm(8, 64), 2 * 8),
        (nn.InstanceNorm2d(64), 2 * 64),
        (nn.BatchNorm2d(64), 64),  # the scales; in inference nothing is reduced
        (nn.RMSNorm(24), 2 * 64 * 16),
        (nn.Softmax(-1), 2 * 64 * 16),
        (nn.Softmax(1), 2 * 16 * 24),
        (nn.LogSoftmax(1), 2 * 16 * 24),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, nn.Module) else "",
)
def test_rows_by_hand(layer, rows):
    (op,) = [op for op in sim.trace(layer, IMAGE).ops if isinstance(op, VectorOp)]
    assert reduced_rows(op) == rows


def test_a_batch_norm_that_nothing_folds_streams():
    """24.6 million elements in bf16, once in and once out of DRAM at 3.35 TB/s: 29 us, and no more than half again."""
    graph = sim.trace(nn.BatchNorm1d(64), torch.empty(12000, 64, 32))
    (op,) = [op for op in sim.estimate(graph, sim.load_hardware("h100-sxm")).ops if "norm" in op.name]
    assert 2 * 2 * 12000 * 64 * 32 / 3.35e12 < op.latency_s < 1.6 * 2 * 2 * 12000 * 64 * 32 / 3.35e12
