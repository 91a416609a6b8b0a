"""DMA engines that units queue for: by hand, and folded as expanded."""

from __future__ import annotations

import numpy as np
import pytest
from nests import NS, group, random_schedule, schedule, steps

from sim.errors import ConfigError
from sim.events.run import Stream, run
from sim.events.ticks import to_ticks
from sim.hardware.chip import DmaEngines
from sim.hardware.dump import dump
from sim.hardware.load import load_hardware, loads

ONE = (DmaEngines(name="dma", count=1, units=("NPU",)),)


def moving(*loads: float, compute: float = 0.0):
    return schedule(group(steps(repeat=[1] * len(loads), compute=[compute * NS] * len(loads), inner=list(loads))))


def ends(result):
    return {j.stream: to_ticks(j.finish_s) // 10**6 for j in result.jobs}


@pytest.mark.parametrize("grain", ["expand", "folded"])
def test_first_come_first_served(grain):
    """1 byte = 1 ns. A asks at 0 for 1000 and then for 500, B at 100 for 300. A 0-1000, B 1000-1300 (waited 900),
    A's second 1300-1800 (waited 300). With engines of their own they would share the port fairly."""
    streams = [
        Stream(name="a", schedule=moving(1000, 500), place={"NPU": 0}),
        Stream(name="b", schedule=moving(300), place={"NPU": 1}, arrivals_s=(100 * NS,)),
    ]
    result = run(streams, grain=grain, dma_engines=ONE)
    assert ends(result) == {"b": 1300, "a": 1800}
    assert to_ticks(result.dma_queueing_s["dma"]) == 1200 * 10**6
    assert ends(run(streams, grain=grain)) == {"b": 700, "a": 1800}


@pytest.mark.parametrize("grain", ["expand", "folded"])
def test_other_units_do_not_queue(grain):
    """The CPU has an engine of its own: B takes half the port from A at once, 100 + 2 x 300 = 700."""
    other = schedule(group(steps(repeat=[1], compute=[0.0], inner=[300]), unit="CPU"))
    streams = [Stream(name="a", schedule=moving(1500)), Stream(name="b", schedule=other, arrivals_s=(100 * NS,))]
    assert ends(run(streams, grain=grain, dma_engines=ONE)) == {"b": 700, "a": 1800}


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("count", [1, 2])
def test_folded_equals_expanded(seed, count):
    """Three networks on as many units: to a few ticks, and two engines serve two of the three at a time."""
    rng = np.random.default_rng(seed)
    engines = (DmaEngines(name="dma", count=count, units=("NPU",)),)
    streams = []
    for i in range(3):
        made = random_schedule(rng, groups=3)
        made = type(made)(**{f: getattr(made, f) for f in made.__dataclass_fields__} | {"units": {"NPU": 3}})
        late = float(rng.integers(0, 9000)) * NS
        streams.append(Stream(name=str(i), schedule=made, place={"NPU": i}, arrivals_s=(late,)))
    fine, coarse = (run(streams, grain=g, dma_engines=engines) for g in ("expand", "folded"))
    finishes = [{j.stream: j.finish_s for j in result.jobs} for result in (fine, coarse)]
    assert finishes[1] == pytest.approx(finishes[0], rel=0.005)
    assert coarse.dma_queueing_s["dma"] == pytest.approx(fine.dma_queueing_s["dma"], rel=0.005, abs=1e-8)


def test_chip_file():
    """A chip file with shared engines reads, writes and reads the same; unknown and double units are errors."""
    part = "dma_engines:\n- {name: dma, count: 1, units: [npu, cpu], source: 'estimated: for the test'}\n"
    text = dump(load_hardware("tesla-fsd")) + part
    chip = loads(text)
    assert chip.dma_engines == (DmaEngines(name="dma", count=1, units=("npu", "cpu")),)
    assert loads(dump(chip)) == chip
    with pytest.raises(ConfigError, match=r'dma_engines\[0\].units: "npx" is no unit.*Did you mean "npu"'):
        loads(text.replace("[npu, cpu]", "[npx]"))
    with pytest.raises(ConfigError, match='"npu" has its transfers moved by "dma" already'):
        loads(text.replace("[npu, cpu]", "[npu, npu]"))
