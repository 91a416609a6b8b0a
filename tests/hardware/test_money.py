"""What a die costs in numbers and words, and why it is unknown where it is."""

from dataclasses import replace

import numpy as np
import pytest

import sim
from sim.codesign.checks import physical_metrics
from sim.codesign.space import build_space
from sim.errors import ConfigError
from sim.hardware.chip import Technology
from sim.hardware.designs import Designs
from sim.hardware.money import die_cost, die_cost_assumes, die_cost_words
from sim.hardware.physical import chip_area_mm2
from sim.results_io import from_dict


def test_a_die_of_tpu_v1_by_hand():
    """331 mm2 at 28 nm: 70,686 / 331 - 942.5 / sqrt(662) = 176.9 dies of a 300 mm wafer for 2,891 USD, of which
    (1 + 0.331 / 3)^-3 = 73.0 % are good: 22.4 USD."""
    found = die_cost(sim.load_hardware("tpu-v1"))
    assert found["dies_per_wafer"] == pytest.approx(176.9, abs=0.1)
    assert found["yield_share"] == pytest.approx(0.730, abs=0.001)
    assert found["wafer_usd"] == 2891.0
    assert found["usd"] == pytest.approx(2891.0 / (176.9 * 0.730), rel=2e-3)
    assert found["reason"] is None
    assert die_cost_words(found) == "A die costs 22 USD (177 dies a wafer, 73 % of them good)"


def test_every_assumption_is_named():
    """Price with its node and source, wafer, yield model with density and clustering, what is left out."""
    words = die_cost_assumes([28.0, 5.0])
    for part in ("300 mm wafer for 2,891 USD at 28 nm, 16,988 USD at 5 nm", "CSET 2020", "disputed at 5 nm",
                 "less the wafer's edge", "negative binomial", "0.1 defects/cm2", "clustering 3", "unverified",
                 "no masks, test, package or memory"):  # fmt: skip
        assert part in words, part
    assert "trade press" in die_cost_assumes([3.0])


def test_why_a_cost_is_unknown():
    """No node, a memory without end, a die above the reticle: no number, and the reason."""
    chip = sim.load_hardware("systolic")
    bare = replace(chip, technology=Technology())
    large = sim.load_hardware("systolic", {"SRAM.capacity": "2 GiB"})
    assert chip_area_mm2(large) > 858
    for one, why in ((bare, "no technology.node"), (large, "above the reticle of 858 mm2")):
        found = die_cost(one)
        assert found["usd"] is found["assumes"] is None
        assert why in str(found["reason"])
        assert die_cost_words(found).startswith("What a die costs is unknown: ")


@pytest.mark.parametrize("name", ["tesla-fsd-npu", "a100-sxm-x8", "b200", "mi300x"])
def test_an_estimate_tells_area_by_component_and_the_cost_of_a_die(name):
    """Parts sum to the area of all chips; the cost is of one die."""
    chip = sim.load_hardware(name)
    found = sim.estimate(sim.gemm(64, 64, 64), chip)
    assert sum(found.area_breakdown_mm2.values()) == pytest.approx(found.area_mm2)
    assert dict(found.die_cost) == die_cost(chip)
    older = {k: v for k, v in found.to_dict().items() if k not in ("area_breakdown_mm2", "die_cost")}
    assert from_dict(found.to_dict()) == found
    assert (from_dict(older).die_cost, from_dict(older).area_breakdown_mm2) == ({}, {})


def test_what_is_modelled_alone_says_so():
    """No file states the area of the template: its parts are not a whole die. The stated area of TPU v1 is one."""
    own, stated = (die_cost(sim.load_hardware(name)) for name in ("systolic", "tpu-v1"))
    assert die_cost_words(own).startswith("A die of the modelled parts alone costs ")
    assert str(own["assumes"]).startswith("the area of the parts in the chip file alone")
    assert (own["covers"], stated["covers"]) == ("modelled parts alone", "stated area")
    assert "alone" not in str(stated["assumes"])
    larger = die_cost(sim.load_hardware("tpu-v1", {"mxu.rows": 512}))
    assert larger["covers"] == "stated area"  # scaled to it


@pytest.mark.parametrize(("name", "dies"), [("mi300x", 12), ("b200", 2), ("xeon-spr", 4), ("xeon-gnr", 5)])
def test_several_dies_have_no_price_of_one(name, dies):
    chip = sim.load_hardware(name)
    assert str(die_cost(chip)["reason"]) == f"{name} is made of {dies} dies, and how it is divided is not modelled"
    assert die_cost(replace(chip, technology=replace(chip.technology, dies=1)))["reason"] != die_cost(chip)["reason"]
    assert np.isnan(physical_metrics(Designs(chip))["die_cost"]).all()


def test_a_search_for_the_cost_of_several_dies_is_refused():
    space = {
        "schema": "dovetail.search/1", "name": "x", "chip": "mi300x", "workloads": [{"workload": "mlp"}],
        "objectives": ["latency", "die_cost"], "budget": {"trials": 1},
        "hardware": {"DRAM.bandwidth": {"choices": ["5 TB/s", "6 TB/s"]}},
    }  # fmt: skip
    with pytest.raises(ConfigError, match="die_cost is asked, but mi300x is made of 12 dies"):
        build_space(space)
