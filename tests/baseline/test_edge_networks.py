"""Networks of the Hailo-8 tables: shapes by hand, parameters and operations against what is published."""

import pytest

from sim.baseline.checks.edge_detectors import EDGE_NETWORKS, HELD_OUT, upsampling
from sim.baseline.checks.edge_networks import attention, conv, depthwise, divisible, linear
from sim.baseline.checks.edge_yolo import yolo_head
from sim.baseline.published import facts

TOLERANCE = 0.05
EXPLAINED = {
    ("damoyolo_tinynasL35_M", "parameters_m"): (28.2, "the authors' count; the vendor's is 33.98"),
    ("yolov10x", "parameters_m"): (29.5, "the authors' count, one-to-one head alone; the vendor's has both"),
    ("detr_resnet_v1_18_bn", "parameters_m"): (
        41.1 - (25.53 - 2.05) + (11.68 - 0.51) - 0.39,
        "the vendor's DETR on ResNet-50, trunks without classifiers and the first 1x1 exchanged; 32.42 on ResNet-18",
    ),
    ("centernet_resnet_v1_18_postprocess", "ops_g"): (31.21 - 4.83, "the vendor counts taps on inserted zeros"),
    ("centernet_resnet_v1_50_postprocess", "ops_g"): (56.92 - 4.83, "the vendor counts taps on inserted zeros"),
    ("vit_tiny_bn", "ops_g"): (2.2 + 0.36, "the vendor leaves out the two products of attention"),
    ("vit_small_bn", "ops_g"): (8.62 + 0.72, "the vendor leaves out the two products of attention"),
}
"""What stands in place of the vendor's number, and why."""

ROWS = {row.workload: row for row in facts("hailo-8", "throughput", batch=1)}


@pytest.mark.parametrize("network", ROWS)
def test_parameters_and_operations_are_the_published_ones(network):
    layers = list({**EDGE_NETWORKS, **HELD_OUT}[network]())
    ours = {
        "parameters_m": sum(layer.parameters for layer in layers) / 1e6,
        "ops_g": 2 * sum(layer.macs for layer in layers) / 1e9,
    }
    for knob, value in ours.items():
        theirs, _ = EXPLAINED.get((network, knob), (ROWS[network].knobs[knob], ""))
        assert value == pytest.approx(theirs, rel=TOLERANCE), knob


def test_every_row_has_its_network_and_every_network_its_row():
    assert set(ROWS) == set(EDGE_NETWORKS) | set(HELD_OUT)
    assert {row.workload for row in ROWS.values() if row.scenario == "held out"} == set(HELD_OUT)


def test_layers_by_hand():
    layer = conv(3, 16, 10, 3, 2)
    assert (layer.macs, layer.weights, layer.parameters) == (16 * 100 * 27, 16 * 27, 16 * 27 + 16)
    assert (layer.inputs, layer.outputs) == (3 * 400, 16 * 100)
    assert depthwise(8, 4).macs == 8 * 16 * 9
    token = linear(6, 5, tokens=7)
    assert (token.macs, token.inputs, token.outputs) == (6 * 5 * 7, 6 * 7, 5 * 7)


def test_attention_multiplies_per_head_and_has_no_parameters():
    score, mix = attention(heads=2, dim_key=3, dim_value=4, queries=5, keys=7)
    assert (score.macs, mix.macs) == (2 * 5 * 7 * 3, 2 * 5 * 7 * 4)
    assert (score.outputs, mix.outputs) == (2 * 7 * 5, 2 * 4 * 5)
    assert score.parameters == mix.parameters == 0


def test_a_transposed_convolution_has_four_taps_per_output():
    layer = upsampling(2, 3, side=5)
    assert layer.macs == 10 * 10 * 3 * 2 * 4
    assert layer.weights == 4 * 4 * 2 * 3


def test_the_reasons_of_the_exceptions_are_the_differences():
    zeros = sum(3 * layer.macs for layer in EDGE_NETWORKS["centernet_resnet_v1_18_postprocess"]() if layer.r == 2)
    assert 2 * zeros / 1e9 == pytest.approx(4.83, abs=0.01)
    products = [layer.macs for layer in EDGE_NETWORKS["vit_tiny_bn"]() if not layer.stored]
    assert 2 * sum(products) / 1e9 == pytest.approx(0.36, abs=0.01)
    second_head = sum(layer.parameters for layer in yolo_head((320, 640, 640))) / 1e6
    assert 29.5 + second_head == pytest.approx(ROWS["yolov10x"].knobs["parameters_m"], rel=0.01)


@pytest.mark.parametrize(("width", "channels"), [(44.8, 48), (33.6, 32), (22.4, 24), (12.0, 16), (11.0, 16), (3.0, 8)])
def test_channels_round_to_eight_and_lose_at_most_a_tenth(width, channels):
    assert divisible(width) == channels
