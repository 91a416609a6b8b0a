"""The star of a measured network, by hand."""

import matplotlib.figure
import pytest

import sim
from sim.view.measured_point import measured_point


def test_the_star_stands_where_it_was_measured():
    """64 x 32 x 16 MACs are 65,536 FLOP; 4 (64 x 16 + 16 x 32 + 64 x 32) = 14,336 B; in 1 us 65.5 GFLOP/s."""
    bound = sim.roofline(sim.gemm(64, 32, 16, dtype="fp32"), sim.load_hardware("epyc-zen4"), "fp32")
    ax = matplotlib.figure.Figure().subplots()
    ax.set(xscale="log", yscale="log", xlim=(1, 10), ylim=(1e11, 1e12))
    measured_point(bound, 1e-6, ax=ax)
    (star,) = ax.collections
    assert star.get_offsets()[0].tolist() == pytest.approx([65536 / 14336, 65.536e9])
    assert ax.get_ylim()[0] < 65.5e9
