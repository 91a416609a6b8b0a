"""Scaling laws against numbers computed by hand, the table, ranges, intervals."""

import numpy as np
import pytest

from sim.compression.published import PUBLISHED, SOURCES
from sim.compression.quality import (
    BESIROGLU,
    HOFFMANN,
    Method,
    by_callable,
    effective_parameters,
    ptq_penalty,
    scaling_law,
    table,
)
from sim.compression.quality import trained as judged
from sim.compression.statistics import paired_bootstrap
from sim.errors import WorkloadError


def test_chinchilla_itself():
    """70e9 parameters, 1.4e12 tokens. Hoffmann: 70e9^0.34 = e^(24.97169 x 0.34) = 4867.7, 406.4 / 4867.7 =
    0.08349; 1.4e12^0.28 = e^(27.96749 x 0.28) = 2517.2, 410.7 / 2517.2 = 0.16316; L = 1.93665."""
    assert HOFFMANN.loss(parameters=70e9, tokens=1.4e12) == pytest.approx(1.93665, abs=1e-5)
    assert HOFFMANN.standard_error(parameters=70e9, tokens=1.4e12) is None


def test_the_refit_and_its_error():
    """1e9 parameters, 20e9 tokens: 1e9^0.3478 = e^(20.72327 x 0.3478) = 1349.58, A term 0.35715;
    20e9^0.3658 = e^(23.71900 x 0.3658) = 5862.96, B term 0.35570; L = 2.53005.
    Slopes x errors: e 0.03; a 124.58 / 1349.58 = 0.09231; b 1293.23 / 5862.96 = 0.22058;
    alpha 0.35715 x 20.72327 x 0.02 = 0.14803; beta 0.35570 x 23.719 x 0.02 = 0.16874; root of squares 0.32933."""
    assert BESIROGLU.loss(parameters=1e9, tokens=20e9) == pytest.approx(2.53005, abs=1e-5)
    assert BESIROGLU.standard_error(parameters=1e9, tokens=20e9) == pytest.approx(0.32933, abs=1e-5)


def test_effective_parameters_by_hand():
    """Eight bits everywhere: (1 - e^-2.99121)(1 - e^-3.61958)(1 - e^-8.35247)
    = 0.94977 x 0.97320 x 0.99976 = 0.9241."""
    eight = effective_parameters(parameters=1.0, weight_bits=8, activation_bits=8, kv_bits=8)
    assert eight == pytest.approx(0.9241, abs=1e-4)
    low = effective_parameters(parameters=1.0, weight_bits=4, activation_bits=8, kv_bits=4)
    assert low == pytest.approx(0.74, abs=5e-3)


def test_ptq_penalty_by_hand():
    """1e9 parameters, 20e9 tokens, 4 bits: 20e9^0.5068 = e^12.02079 = 166,174; 1e9^0.3439 = e^7.12673 = 1244.8;
    e^(-4 / 0.5907) = e^-6.77163 = 0.00114583; 0.0598 x 133.494 x 0.00114583 = 0.0091471."""
    assert ptq_penalty(parameters=1e9, tokens=20e9, weight_bits=4) == pytest.approx(0.0091471, rel=1e-4)


def test_fewer_bits_never_help_and_more_tokens_make_ptq_worse():
    losses = [scaling_law(parameters=1e9, tokens=20e9, weight_bits=b).value for b in (16, 8, 6, 4, 3)]
    assert losses == sorted(losses)
    assert ptq_penalty(parameters=1e9, tokens=26e9, weight_bits=4) > ptq_penalty(
        parameters=1e9, tokens=2e9, weight_bits=4
    )


def test_sixteen_bits_are_the_plain_law():
    plain = scaling_law(parameters=1e9, tokens=20e9)
    assert plain.value == BESIROGLU.loss(parameters=1e9, tokens=20e9)
    assert plain.in_range
    assert plain.notes == ()


def test_outside_its_range_it_says_so():
    tiny = scaling_law(parameters=1e6, tokens=20e9)
    assert not tiny.in_range
    assert "parameters 1e+06 outside" in tiny.notes[0]
    big = scaling_law(parameters=7e9, tokens=20e9, weight_bits=4, post_training=True)
    assert not big.in_range
    assert any("precision law: parameters 7e+09 outside" in note for note in big.notes)
    with pytest.raises(WorkloadError, match='Did you mean "hoffmann"'):
        scaling_law(parameters=1e9, tokens=20e9, law="hofmann")


def test_table_names_its_source_and_never_guesses():
    found = table("resnet50 (Orin DLA)", "int8")
    assert (found.value, found.method) == (76.34, Method.TABLE)
    assert "Jetson AGX Orin" in found.source
    with pytest.raises(WorkloadError, match="there are int8, w8a8 qat, w4a4 qat"):
        table("resnet50", "int3")
    with pytest.raises(WorkloadError, match='Did you mean "resnet50"'):
        table("resnet5O", "int8")


def test_every_published_row_has_a_known_source_and_int8_costs_under_two_points():
    assert {row.source for row in PUBLISHED} <= set(SOURCES)
    assert {row.confidence for row in PUBLISHED} == {"read", "recalled"}
    assert len({(r.model, r.scheme, r.metric) for r in PUBLISHED}) == len(PUBLISHED)
    assert all(0 <= row.loss < 2 for row in PUBLISHED if row.scheme == "int8")


def test_callable_and_trained(net, task):
    mine = by_callable(lambda module: 3, net, metric="points", higher_is_better=True)
    assert (mine.value, mine.method) == (3.0, Method.CALLABLE)
    for bad in (lambda _: float("nan"), lambda _: "good"):
        with pytest.raises(WorkloadError, match="expected a finite number"):
            by_callable(bad, net, metric="points", higher_is_better=True)
    known = judged(net, task)
    p = known.value / 100
    # Standard error of a share: sqrt(p (1 - p) / (n - 1)).
    assert known.standard_error == pytest.approx(100 * (p * (1 - p) / 999) ** 0.5, rel=1e-4)


def test_bootstrap_interval_matches_the_normal_one():
    """One seed, 4,000 differences of standard deviation 10: 1.96 x 10 / sqrt(4000) = 0.310 each way, within 8 %."""
    draws = np.random.default_rng(0).normal(1.0, 10.0, (1, 4000))
    got = paired_bootstrap(draws)
    assert got.mean == draws.mean()
    half = 1.96 * draws.std() / 4000**0.5
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.08)
    assert paired_bootstrap(draws) == got
    constant = paired_bootstrap(np.full((3, 50), 2.0))
    assert (constant.low, constant.high) == (2.0, 2.0)
