"""Rows that norms reduce on a GPU that is costed by kernels."""

import pytest
import torch
from torch import nn

import sim


@pytest.mark.parametrize("shape", [(12000, 64, 32), (1, 64, 384000)])
def test_a_batch_norm_that_nothing_folds_streams(shape):
    """24.6 million elements in bf16, once in and once out of DRAM at 3.35 TB/s: 29 us, and no more than half again,
    however long the last axis is: inference reduces no rows."""
    graph = sim.trace(nn.BatchNorm1d(64), torch.empty(shape))
    (op,) = [op for op in sim.estimate(graph, sim.load_hardware("h100-sxm")).ops if "norm" in op.name]
    assert 2 * 2 * 12000 * 64 * 32 / 3.35e12 < op.latency_s < 1.6 * 2 * 2 * 12000 * 64 * 32 / 3.35e12
