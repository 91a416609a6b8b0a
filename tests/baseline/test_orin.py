"""Orin's DLA: all six networks of the vendor's table, and what of them gates."""

from sim.baseline.checks import all_checks
from sim.baseline.checks.edge_detectors import ssd_mobilenet_v1
from sim.baseline.checks.orin import DEPTHWISE, NETWORKS, SMALL, _ssd_mobilenet_v1
from sim.baseline.published import facts


def test_every_network_of_the_table_is_estimated():
    assert {*NETWORKS, *SMALL} == {one.workload for one in facts("nvdla-v2-orin", "throughput")}


def test_scaling_gates_and_says_where_it_rests_on_an_estimated_rate():
    scaling = [check for check in all_checks("orin-dla") if ".scaling." in check.id]
    assert len(scaling) == 3 * len(NETWORKS) + len(SMALL)
    assert all(check.gate for check in scaling)
    (rests,) = [check for check in scaling if any(name in check.quantity for name in DEPTHWISE)]
    assert "depthwise layers is estimated" in rests.note


def test_trace_of_ssd_mobilenet_has_the_macs_of_the_layer_list():
    assert _ssd_mobilenet_v1(2).macs == 2 * sum(layer.macs for layer in ssd_mobilenet_v1())
