"""The shipped calibrations: documents that fit the code, intervals that hold."""

import json
from dataclasses import fields

import pytest
from scipy.stats import binom

from sim._version import __version__
from sim.baseline.calibrate import bundled_chip
from sim.cost.cpu import CpuConstants
from sim.cost.gpu.eager import EagerConstants
from sim.hardware.calibration import calibration_from_dict, calibrations

FAMILIES = {"cpu": CpuConstants, "gpu_eager": EagerConstants}
CPUS = {name: one for name, one in calibrations().items() if one.costing == "cpu"}


@pytest.mark.parametrize("device", sorted(calibrations()))
def test_documents_fit_the_code(device):
    """Constants by name and inside their ranges, a chip that uses them, and errors that are stated."""
    found = calibrations()[device]
    constants = FAMILIES[found.costing](**found.constants)
    for f in fields(constants):
        value = getattr(constants, f.name)
        assert value == f.metadata["datasheet"] or f.metadata["low"] * 0.999 <= value <= f.metadata["high"] * 1.001
    assert bundled_chip(device) is not None
    assert {"ops", "networks"} <= set(found.error)


@pytest.mark.parametrize("device", sorted(calibrations()))
def test_documents_say_what_wrote_them_and_old_ones_are_read(device):
    document = json.loads(json.dumps(calibrations()[device].to_dict()))
    assert (document["schema"], document.pop("version")) == ("dovetail.calibration/1", __version__)
    assert calibration_from_dict(document, "old file") == calibrations()[device]


def test_held_out_errors_of_the_quiet_machine_meet_the_goal():
    """What the calibration was asked for, on the file that two further runs agree with (baselines/README.md): whole
    networks of models left out 8 % in the median and 20 % at the ninetieth percentile, in order (Spearman 0.98),
    operations of families left out 12 %, intervals at 90 % no wider than 60 %."""
    found = CPUS["amd-epyc-f25m17-avx512-zen4-2c"]
    networks = found.error["networks"]
    assert networks["median_error"] <= 0.08
    assert networks["p90_error"] <= 0.20
    assert networks["spearman"] >= 0.98
    assert found.error["ops"]["median_error"] <= 0.12
    assert found.residuals.median_width <= 0.60


def test_held_out_errors_of_the_measured_gpu_meet_the_goal():
    """What was asked for: whole networks of models left out, replayed from a graph, 8 % in the median and 20 % at the
    ninetieth percentile; launched op by op, on a noisy host, 15 % in the median; intervals at 90 %
    no wider than 60 %."""
    found = calibrations()["nvidia-h200"]
    replayed, launched = found.error["networks, graph"], found.error["networks, eager"]
    assert replayed["rows"] >= 40
    assert replayed["median_error"] <= 0.08
    assert replayed["p90_error"] <= 0.20
    assert launched["median_error"] <= 0.15
    assert found.residuals.models >= 15
    assert found.residuals.median_width <= 0.60


def test_intervals_hold_for_models_that_were_left_out():
    """All measured devices together: the covered points lie inside the 95 % band of a binomial with 0.9."""
    points = sum(one.residuals.points for one in calibrations().values())
    covered = sum(one.residuals.covered for one in calibrations().values())
    low, high = binom.ppf([0.025, 0.975], points, 0.9)
    assert points >= 100
    assert low <= covered <= high
