"""Weights streamed past a weight-stationary array."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.waiting import WeightStream, stream_layers
from sim.errors import ConfigError

MACHINE = WeightStream(
    rows=4, cols=4, clock_hz=1e6, weight_bandwidth_bytes_per_s=0.5e6, input_bandwidth_bytes_per_s=2e6,
    shift_cycles=4, border_cycles=10,
)  # fmt: skip


def test_memory_bound_by_hand():
    """8 x 8 weights on 4 x 4: 4 tiles; half a byte a cycle: 128 cycles. 6 rows: 24 active, 16 shift, 88 stall.
    Two borders: 20; 16 input bytes at 2 a cycle: 8."""
    cycles = stream_layers(MACHINE, [(8, 8)], rows_streamed=6, borders=2, input_bytes=16)
    found = cycles.active, cycles.weight_shift, cycles.weight_stall, cycles.border, cycles.input_stall
    assert found == (24, 16, 88, 20, 8)
    assert cycles.total == 156
    assert cycles.flop_per_s(1e6) == pytest.approx(2 * 6 * 64 / 156e-6)


def test_border_tiles_fetch_only_what_exists():
    """5 x 5 weights: 4 tiles, but 25 bytes: 50 cycles."""
    cycles = stream_layers(MACHINE, [(5, 5)], rows_streamed=1, borders=0, input_bytes=0)
    assert cycles.total == 50


def test_compute_bound_hides_the_shift():
    """100 rows a tile: 400 cycles, all active."""
    cycles = stream_layers(MACHINE, [(8, 8)], rows_streamed=100, borders=0, input_bytes=0)
    assert (cycles.active, cycles.weight_shift, cycles.weight_stall) == (400, 0, 0)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=6),
    st.integers(1, 50),
    st.floats(1e4, 1e8),
)
def test_laws(layers, rows, bandwidth):
    """Parts are not negative, MACs fit the active cycles, more bandwidth is never slower."""
    slow = stream_layers(replace(MACHINE, weight_bandwidth_bytes_per_s=bandwidth), layers,
                         rows_streamed=rows, borders=0, input_bytes=0)  # fmt: skip
    fast = stream_layers(replace(MACHINE, weight_bandwidth_bytes_per_s=2 * bandwidth), layers,
                         rows_streamed=rows, borders=0, input_bytes=0)  # fmt: skip
    assert min(slow.active, slow.weight_shift, slow.weight_stall) >= 0
    assert slow.macs <= 16 * slow.active
    assert fast.total <= slow.total


def test_nothing_to_do():
    with pytest.raises(ConfigError, match="0 layers"):
        stream_layers(MACHINE, [], rows_streamed=1, borders=0, input_bytes=0)
