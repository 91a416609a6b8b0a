"""The CUDA timing path without a GPU: events, streams and graphs are fakes that move a fake clock.

Launching a call one by one costs 10 us, a call inside a replayed graph 2 us.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from sim.baseline import runner, samplers
from sim.baseline.grid import make_point
from sim.baseline.peaks import Peaks
from sim.baseline.record import Mode
from sim.baseline.runner import Prepared
from sim.baseline.timing import HELD_DOWN_FLOOR, REPEAT_FLOOR, Plan
from sim.errors import MeasurementError

LAUNCHED_S, REPLAYED_S = 10e-6, 2e-6


class FakeCuda:
    """Stands in for the parts of torch.cuda that the sampler uses."""

    def __init__(self):
        self.now_s, self.capturing, self.calls = 0.0, None, []
        fake = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at_s = fake.now_s

            def synchronize(self):
                fake.now_s += 1e-6  # returning to the host: after the event, so that it is not in the time

            def elapsed_time(self, end):
                return (end.at_s - self.at_s) * 1e3

        class CUDAGraph:
            captured = 0

            def replay(self):
                fake.now_s += self.captured * REPLAYED_S

        self.Event, self.CUDAGraph = Event, CUDAGraph
        self.Stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.current_stream = lambda: SimpleNamespace(wait_stream=lambda other: None)
        self.synchronize = lambda: None
        self.current_device = lambda: 0
        self.waits = False  # the generator, for the end of a capture
        generator = SimpleNamespace(
            clone_state=lambda: self.waits, graphsafe_set_state=lambda state: setattr(self, "waits", state)
        )
        self.default_generators = (generator,)

    @contextmanager
    def stream(self, stream):
        yield

    @contextmanager
    def graph(self, graph):
        self.capturing, self.waits = graph, True
        yield
        self.capturing, self.waits = None, False

    def call(self, name):
        def run():
            self.calls.append(name)
            if self.capturing is None:
                self.now_s += LAUNCHED_S
            else:
                self.capturing.captured += 1

        return run


class FakeGpu:
    """100 W whatever it does."""

    def __init__(self, cuda):
        self.cuda, self.throttled = cuda, lambda: ""

    def clocks(self):
        return {"core_hz": 1.98e9}

    def energy_j(self):
        return 100.0 * self.cuda.now_s

    def power_w(self):
        return 100.0


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    faked = ("Event", "CUDAGraph", "Stream", "current_stream", "synchronize", "stream", "graph", "current_device")
    for name in (*faked, "default_generators"):
        monkeypatch.setattr(torch.cuda, name, getattr(fake, name))
    clock = SimpleNamespace(perf_counter=lambda: fake.now_s, perf_counter_ns=lambda: int(fake.now_s * 1e9))
    monkeypatch.setattr(runner, "time", clock)
    energy = samplers.energy_per_call_j
    monkeypatch.setattr(runner, "energy_per_call_j", lambda run, **rest: energy(run, clock=clock.perf_counter, **rest))
    return fake


def timed(cuda, mode, copies, energy_s=0.0):
    plan = Plan(time_limit_s=0.1, warmup_s=0.0)
    point = make_point(
        op="relu",
        workload=None,
        knobs={"rows": 1, "columns": 8},
        precision="fp32",
        mode=mode,
        plan=plan,
        energy_s=energy_s,
    )
    calls = [cuda.call(i) for i in range(copies)]
    return runner._time_cuda(Prepared(calls=calls, work=None, method=""), point, FakeGpu(cuda))


def test_eager_counts_the_launches(cuda):
    timing, clocks, energy_j, _, method = timed(cuda, Mode.EAGER, 1)
    assert timing.median_s == pytest.approx(LAUNCHED_S)
    assert clocks == {"core_hz_before": 1.98e9, "core_hz_after": 1.98e9}
    assert energy_j is None
    assert "100 calls launched one by one" in method  # 1 ms a sample / 10 us


def test_graph_counts_the_work_and_rotates_all_operand_sets(cuda):
    """130 operand sets: a graph of 130 calls (more than the 100 that a sample needs), each set once."""
    timing, _, _, _, method = timed(cuda, Mode.GRAPH, 130)
    assert timing.median_s == pytest.approx(REPLAYED_S)
    assert "a graph of 130 calls" in method
    assert cuda.calls[-130:] == list(range(130))


def test_energy_is_power_times_time(cuda):
    """100 W x 2 us in the graph = 0.2 mJ a call."""
    _, _, energy_j, power_w, method = timed(cuda, Mode.GRAPH, 1, energy_s=0.5)
    assert energy_j == pytest.approx(100 * REPLAYED_S, rel=1e-6)
    assert power_w == 100.0
    assert "idle power included" in method


def test_an_op_that_synchronises_cannot_be_captured(cuda):
    def synchronising():
        if cuda.capturing is not None:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with pytest.raises(MeasurementError, match="cannot be captured in a CUDA graph: operation not permitted"):
        samplers.captured([synchronising], inner=1)
    assert not cuda.waits  # else no later point could draw its operands


def test_a_captured_fault_does_not_hide_the_reason(cuda):
    """A point whose call fails is refused with torch's own first line."""

    def failing():
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED\ndetails")

    point = make_point(op="relu", workload=None, knobs={"rows": 1, "columns": 8}, precision="fp32", plan=Plan())
    gpu = FakeGpu(cuda)
    gpu.disturbed = lambda: ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "prepare", lambda *_: Prepared(calls=[failing], work=None, method=""))
        with pytest.raises(MeasurementError, match=r"^RuntimeError: CUBLAS_STATUS_NOT_SUPPORTED$"):
            runner.measure_point(point, gpu, runner.Origin())


class WholeGpu(FakeGpu):
    """With all that a record needs, and a driver that holds the clock down for `reason`."""

    key, backend, threads, peaks = "fake-gpu", "cuda", None, Peaks()

    def __init__(self, cuda, reason):
        super().__init__(cuda)
        self.throttled, self.disturbed = (lambda: reason), (lambda: "")


def recorded(cuda, mode, reason=""):
    point = make_point(
        op="relu", workload=None, knobs={"rows": 1, "columns": 8}, precision="fp32", mode=mode,
        plan=Plan(time_limit_s=0.1, warmup_s=0.0),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        ready = Prepared(calls=[cuda.call(0)], work=None, method="")
        patch.setattr(runner, "prepare", lambda *_: ready)
        return runner.measure_point(point, WholeGpu(cuda, reason), runner.Origin())


def test_a_process_at_the_power_limit_states_a_wider_spread(cuda):
    """The clock is boost or not, as the limiter was left: 15 %, where a free clock repeats within 3 %."""
    free, capped = (recorded(cuda, Mode.GRAPH, reason) for reason in ("", "software power cap"))
    assert free.spread.stated_s == pytest.approx(REPEAT_FLOOR * REPLAYED_S)
    assert free.marks == ()
    assert capped.spread.stated_s == pytest.approx(HELD_DOWN_FLOOR * REPLAYED_S)
    assert capped.marks == ("software power cap",)


def test_what_is_launched_from_one_process_says_that_the_host_sets_its_pace(cuda):
    assert recorded(cuda, Mode.EAGER).marks == (runner.ONE_PROCESS,)
