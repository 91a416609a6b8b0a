"""The rule of NVDLA's estimator: a layer by hand, and what folding strides into channels costs."""

import pytest

from sim.baseline.checks.edge import NVDLA_ATOMS, nvdla_frames_per_s, nvdla_layer, nvdla_layer_bytes, nvdla_layer_s
from sim.baseline.checks.networks import resnet50
from sim.baseline.published import fact

LAYERS = {layer.name: layer for layer in resnet50()}
SMALL = {"macs": 64, "buffer_kib": 128, "bandwidth_gb_per_s": 1.0}


def test_last_projection_by_hand():
    """1024 to 2048 channels, 1 x 1 at stride 2, 14 x 14 to 7 x 7; a buffer of 128 KiB, 64 KiB for each operand.

    Folded: 4096 x 2048 weights are 8,388,608 B, the map 4096 x 49 = 200,704 B, in 4 buffer halves. Weights four times:
    33,554,432 + 200,704; the map 128 times would be 8,388,608 + 25,690,112, which is more. Results: 100,352 B.
    As it is: 2,097,152 B of weights in 32 halves: 2,097,152 + 32 x 200,704 is less than 200,704 + 4 x 2,097,152.
    """
    folded = nvdla_layer(LAYERS["conv5_1p"])
    native = nvdla_layer(LAYERS["conv5_1p"], folds_strides=False)
    assert (folded.weight_bytes, native.weight_bytes) == (8_388_608, 2_097_152)
    assert folded.input_bytes == native.input_bytes == 200_704
    assert folded.array_macs == native.array_macs == LAYERS["conv5_1p"].macs
    assert nvdla_layer_bytes(folded, 131_072) == 33_554_432 + 200_704 + 100_352
    assert nvdla_layer_bytes(native, 131_072) == 2_097_152 + 32 * 200_704 + 100_352


def test_image_is_folded_in_any_case():
    """3 channels at stride 2 are 12, counted as 16; 7 x 7 becomes 4 x 4."""
    for folds in (True, False):
        counted = nvdla_layer(LAYERS["conv1"], folds_strides=folds)
        assert counted.weight_bytes == 16 * 4 * 4 * 64
        assert counted.input_bytes == 16 * 112 * 112


def test_layers_without_stride_are_counted_as_they_are():
    for layer in LAYERS.values():
        if layer.stride == 1 and layer.k % 16 == 0:
            counted = nvdla_layer(layer)
            assert counted == nvdla_layer(layer, folds_strides=False)
            assert (counted.array_macs, counted.weight_bytes) == (layer.macs, layer.weights)


def test_three_projections_are_two_fifths_of_a_frame_on_the_small_one():
    projections = [LAYERS[name] for name in ("conv3_1p", "conv4_1p", "conv5_1p")]
    folded, native = (
        sum(nvdla_layer_s(layer, **SMALL, folds_strides=folds) for layer in projections) for folds in (True, False)
    )
    assert folded * nvdla_frames_per_s(**SMALL) == pytest.approx(0.41, abs=0.01)
    assert folded / native > 3.5


@pytest.mark.parametrize("macs", NVDLA_ATOMS)
def test_every_row_of_the_table_holds_by_the_rule_and_none_without_folding(macs):
    row = fact(f"nvdla-{macs}", "throughput")
    knobs = {"buffer_kib": row.knobs["buffer_kib"], "bandwidth_gb_per_s": row.knobs["bandwidth_gb_per_s"]}
    assert nvdla_frames_per_s(macs, **knobs) == pytest.approx(row.value, rel=0.10)
    assert nvdla_frames_per_s(macs, **knobs, folds_strides=False) > 1.15 * row.value
