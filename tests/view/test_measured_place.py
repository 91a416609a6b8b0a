"""The place of a measured network, by hand."""

import pytest

import sim
from sim.view.points import measured_place


def test_a_network_lies_where_it_was_measured():
    """64 x 32 x 16 MACs are 65,536 FLOP; 4 (64 x 16 + 16 x 32 + 64 x 32) = 14,336 B; in 1 us 65.5 GFLOP/s."""
    bound = sim.roofline(sim.gemm(64, 32, 16, dtype="fp32"), sim.load_hardware("epyc-zen4"), "fp32")
    assert measured_place(bound, 1e-6) == pytest.approx((65536 / 14336, 65.536e9))
