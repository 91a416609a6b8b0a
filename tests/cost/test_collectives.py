"""Collectives: by hand in the alpha-beta model, and laws over sizes and counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.collectives import (
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    collective_s,
    reduce_scatter_s,
    send_s,
    sent_bytes,
)

LINK = {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6}
SYSTEMS = {
    "message_bytes": st.floats(1, 1e10),
    "chips": st.integers(1, 64),
    "topology": st.sampled_from(["ring", "switch"]),
    "bandwidth_bytes_per_s": st.floats(1e6, 1e12),
    "latency_s": st.floats(0, 1e-3),
}


@pytest.mark.parametrize(
    ("function", "topology", "chips", "message_bytes", "seconds"),
    [
        # ring: 3 steps of 1 us + 1 MB / (1 GB/s) each way
        (reduce_scatter_s, "ring", 4, 4e6, 3 * (1e-6 + 1e-3)),
        (all_reduce_s, "ring", 4, 4e6, 6 * (1e-6 + 1e-3)),
        # recursive halving: log2(4) steps of latency, 3/4 of 4 MB
        (reduce_scatter_s, "switch", 4, 4e6, 2e-6 + 3e-3),
        (all_gather_s, "switch", 4, 4e6, 2e-6 + 3e-3),
        # three chips are no power of two: the ring, 2 steps of 1 us + 1 ms
        (reduce_scatter_s, "switch", 3, 3e6, 2 * (1e-6 + 1e-3)),
        # 800 bytes over eight chips: recursive doubling, 3 x (1 us + 0.8 us) against 6 us + 2 x 0.7 us
        (all_reduce_s, "switch", 8, 800, 3 * 1.8e-6),
        # all-to-all: 3 messages of 1 MB; on a ring 4 hops of 1 MB in the mean, 2 of latency
        (all_to_all_s, "switch", 4, 4e6, 3 * (1e-6 + 1e-3)),
        (all_to_all_s, "ring", 4, 4e6, 2e-6 + 4e-3),
    ],
)
def test_by_hand(function, topology, chips, message_bytes, seconds):
    found = function(message_bytes=message_bytes, chips=chips, topology=topology, **LINK)
    assert float(found) == pytest.approx(seconds, rel=1e-12)


def test_send_by_hand():
    assert send_s(message_bytes=1e6, topology="switch", **LINK) == pytest.approx(1.001e-3)
    assert send_s(message_bytes=1e6, topology="ring", **LINK) == pytest.approx(2.001e-3)


@given(**SYSTEMS)
def test_all_reduce_is_at_most_reduce_scatter_and_all_gather(**system):
    both = reduce_scatter_s(**system) + all_gather_s(**system)
    assert all_reduce_s(**system) <= both * (1 + 1e-12)
    if system["topology"] == "ring":
        assert float(all_reduce_s(**system)) == pytest.approx(float(both))


@given(collective=st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]), **SYSTEMS)
def test_no_algorithm_beats_the_bytes_that_a_chip_must_send(collective, **system):
    """Patarasuk and Yuan 2009: 2 (p - 1)/p n / B for an all-reduce. Nothing for one chip."""
    sent = sent_bytes(collective=collective, message_bytes=system["message_bytes"], chips=system["chips"])
    found = collective_s(collective=collective, **system)
    assert found >= sent / system["bandwidth_bytes_per_s"] * (1 - 1e-12)
    assert system["chips"] > 1 or found == 0


@given(**SYSTEMS)
def test_a_switch_is_never_slower_than_a_ring_and_time_scales(**system):
    switch, ring = (all_reduce_s(**{**system, "topology": t}) for t in ("switch", "ring"))
    assert switch <= ring * (1 + 1e-12)
    faster = {"bandwidth_bytes_per_s": system["bandwidth_bytes_per_s"] * 2, "latency_s": system["latency_s"] / 2}
    assert float(all_reduce_s(**{**system, **faster})) == pytest.approx(float(all_reduce_s(**system)) / 2)


def test_formulas_broadcast():
    sizes, chips = np.array([[1e3], [1e6]]), np.array([2, 4, 6])
    found = all_reduce_s(message_bytes=sizes, chips=chips, topology="switch", **LINK)
    assert found.shape == (2, 3)
    for i, n in enumerate((1e3, 1e6)):
        for j, p in enumerate((2, 4, 6)):
            assert found[i, j] == all_reduce_s(message_bytes=n, chips=p, topology="switch", **LINK)
