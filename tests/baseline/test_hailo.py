"""The pipeline of Hailo-8: small cases by hand, and where the rank of its estimates breaks."""

from dataclasses import replace

import pytest
from scipy.stats import spearmanr

from sim.baseline.checks.edge_networks import attention, conv, depthwise, linear, resnet_50_slim
from sim.baseline.checks.hailo import (
    HAILO_8,
    VARIANTS,
    controllers_needed,
    feature_groups,
    place,
    placement,
    row_cycles,
    shortest_interval_cycles,
    units_needed,
)
from sim.baseline.published import facts
from sim.baseline.validate import validate
from sim.errors import ResultError

SMALL = replace(
    HAILO_8, clock_hz=1000.0, units=4, controllers=4, usable=1.0, port_bytes_per_cycle=64, host_bytes_per_s=1000.0
)
PAIR = (conv(8, 8, 8), conv(8, 16, 8))
"""One row of one group takes eight cycles; 8 rows of one and of two groups."""


def test_the_chip_has_the_vendors_peak():
    macs = HAILO_8.units * HAILO_8.pixels * HAILO_8.features
    assert 2 * macs * HAILO_8.clock_hz / 1e12 == pytest.approx(26, rel=0.01)
    assert all(chip.pixels * chip.features == 64 for chip in VARIANTS)


def test_a_unit_takes_groups_of_eight_channels_and_whole_rows():
    layer = conv(64, 64, 56, 3)
    row = row_cycles(layer, HAILO_8)
    assert (row, feature_groups(layer, HAILO_8)) == (7 * 64 * 9, 8)
    wanted = {8 * 56 * row: 1, 2 * 56 * row: 4, 56 * row: 8, 56 * row - 1: 16, 28 * row: 16, row: 8 * 56}
    assert {interval: units_needed(layer, interval, HAILO_8) for interval in wanted} == wanted


def test_units_are_those_of_the_vendors_script_for_resnet_50():
    pace = 56 * row_cycles(conv(64, 64, 56, 3), HAILO_8)  # the first 3x3 on its 8 units
    theirs = [16, 8, 8, 3, 16, 16, 16]
    layers = list(resnet_50_slim())
    spatial = [layer for layer in layers if layer.r > 1][: len(theirs)]
    assert [units_needed(layer, pace, HAILO_8) for layer in spatial] == theirs
    assert sum(units_needed(layer, pace, HAILO_8) for layer in layers) == pytest.approx(404, rel=0.15)
    for pixels in (1, 2, 4, 16, 32, 64):
        other = replace(HAILO_8, pixels=pixels, features=64 // pixels)
        assert [units_needed(layer, pace, other) for layer in spatial] != theirs


def test_depthwise_uses_an_eighth_and_a_ragged_row_is_rounded_up():
    assert (row_cycles(depthwise(64, 56), HAILO_8), feature_groups(depthwise(64, 56), HAILO_8)) == (7 * 9, 64)
    assert row_cycles(conv(16, 16, 9), HAILO_8) == 2 * 16


def test_more_than_eight_units_are_parts_and_a_join():
    assert [controllers_needed(units, HAILO_8) for units in (1, 8, 9, 16, 17)] == [1, 1, 3, 3, 4]


def test_the_slowest_layer_sets_the_interval_and_units_are_whole():
    assert shortest_interval_cycles(PAIR, 1, SMALL) == 64  # 1 and 2 units; at 63 they are 2 and 4
    assert shortest_interval_cycles(PAIR, 2, SMALL) == 32  # 2 and 4 of eight; at 31 they are 3 and 6


def test_a_port_of_eight_bytes_holds_a_large_map():
    assert shortest_interval_cycles(PAIR, 1, replace(SMALL, port_bytes_per_cycle=8)) == 16 * 64 / 8


def test_one_context_stays_and_two_are_loaded_once_a_batch():
    one = place(PAIR, SMALL)
    assert (one.contexts, one.frame_s, one.load_s) == (1, 0.064, 0)
    assert one.frames_per_s(1) == one.frames_per_s(8)
    weights_bytes = (64 + 8) + (128 + 16)
    two = place(PAIR, replace(SMALL, weight_capacity_bytes=weights_bytes - 1))
    assert (two.contexts, two.frame_s, two.load_s) == (2, 2 * 0.032, weights_bytes / 1000)
    assert two.frames_per_s(8) == pytest.approx(1 / (0.064 + 0.216 / 8))


def test_softmax_takes_controllers_of_its_own():
    layers = tuple(attention(heads=1, dim_key=8, dim_value=8, queries=8, keys=8))
    assert place(layers, replace(SMALL, softmax_layers=2)).contexts == 1
    assert place(layers, replace(SMALL, softmax_layers=3)).contexts == 2


def test_a_network_without_end_is_refused():
    with pytest.raises(ResultError, match="do not fit in 64 contexts"):
        place([linear(8, 8)] * 300, SMALL)


@pytest.mark.parametrize("row", facts("hailo-8", "throughput", batch=1, scenario=None), ids=lambda row: row.workload)
def test_no_rate_is_above_peak_over_operations(row):
    peak = HAILO_8.units * HAILO_8.pixels * HAILO_8.features * HAILO_8.clock_hz
    assert placement(row.workload).frames_per_s(8) <= peak / (row.knobs["ops_g"] * 1e9 / 2)


def test_the_rank_holds_at_both_batches_and_as_the_constants_move():
    found = {result.check.id: result.ours for result in validate("hailo-8").results}
    for batch in (1, 8):
        assert found[f"hailo-8.rank.all.batch{batch}"] > found[f"hailo-8.rank.operations.batch{batch}"] + 0.04
        assert found[f"hailo-8.rank.lowest.batch{batch}"] >= 0.85
        assert 0.8 < found[f"hailo-8.level.batch{batch}"] < 1.25


@pytest.mark.parametrize(
    ("change", "ranks"), [({"usable": 1.0}, (0.76, 0.82)), ({"softmax_layers": 0}, (0.81, 0.87))], ids=str
)
def test_where_the_rank_breaks_is_as_the_note_says(change, ranks):
    chip = replace(HAILO_8, **change)
    for batch, expected in zip((1, 8), ranks, strict=True):
        rows = facts("hailo-8", "throughput", batch=batch, scenario=None)
        ours = [placement(row.workload, chip).frames_per_s(batch) for row in rows]
        assert spearmanr(ours, [row.value for row in rows])[0] == pytest.approx(expected, abs=0.01)
