"""Eyeriss by hand, and which of its rows may gate."""

import pytest

from sim.baseline.checks import all_checks
from sim.baseline.checks.eyeriss import GLB_BYTES, Passes, active_pes, dram_bytes, vgg_passes
from sim.baseline.checks.networks import alexnet, square, vgg16


def test_active_elements_by_hand():
    """12 rows hold one set of 11, two of 5 or four of 3 kernel rows; 55 outputs are four strips of 13.75, 27 two of
    13.5, 13 one: 11 x 13.75, 2 x 5 x 13.5, 4 x 3 x 13."""
    assert [active_pes(layer) for layer in alexnet()] == [151.25, 135, 156, 156, 156]


def test_bytes_of_a_layer_by_hand():
    """8 x 8 in strips of 4, 3x3: a strip reads 6 rows. 2 filters of 4 a pass: inputs twice, 2 x 8 x 12 x 3 channels at
    half size = 288; outputs 4 x 64 / 2 = 128; weights 4 x 3 x 9 = 108; two bytes each."""
    layer = square("x", 3, 4, 8, 3)
    assert dram_bytes(layer, Passes(e=4, m=2, n=1), batch=1, saved=0.5, first=False) == 2 * (288 + 128 + 108)


def test_partial_sums_of_a_pass_fit_the_buffer():
    for layer in vgg16():
        passes = vgg_passes(layer, 0.5, first=False)
        assert 2 * passes.n * passes.m * passes.e * layer.p <= GLB_BYTES


def test_only_what_verified_facts_give_is_a_gate():
    checks = list(all_checks("eyeriss"))
    gates = {check.id.removeprefix("eyeriss.alexnet.") for check in checks if check.gate}
    assert gates == {"active", "processing", "total-given-dram"}
    informs = [check for check in checks if not check.gate and ".conv" not in check.id]
    assert all(check.note.startswith("informs: ") for check in informs)


def test_filters_that_fill_the_elements_come_again_for_every_strip():
    """168 x 224 words (37,632) hold 65 x 64 filters of 3 x 3 (37,440) but not 66 x 64: two strips of 4 rows read those
    twice."""
    for k, times in ((65, 1), (66, 2)):
        layer = square("x", 64, k, 8, 3)
        moved = dram_bytes(layer, Passes(e=4, m=k, n=1), batch=1, saved=0.5, first=False)
        maps = 64 * 8 * 12 / 2 + layer.outputs / 2
        assert moved == 2 * (maps + times * layer.weights)


def test_bytes_of_vgg_are_computed():
    """Published: 321.1 MB. What is computed informs, since the paper's passes are not known."""
    (row,) = (check.run() for check in all_checks("eyeriss.vgg.dram"))
    assert (row.verdict, row.rel_error) == ("info", pytest.approx(0.0, abs=0.15))
