"""Scenarios: strict files, load checks, arrivals, limits. Schedules are hand-made, chips bare."""

from __future__ import annotations

import json

import numpy as np
import pytest
from nests import group, schedule, service, steps

import sim
from sim.errors import ConfigError, InfeasibleError
from sim.events import arrivals
from sim.events.experiment import run_scenario
from sim.events.limits import find_limit
from sim.events.scenario import list_scenarios, load_scenario, parse_scenario
from sim.events.stated import calibration
from sim.hardware.chip import Chip, Memory
from sim.hardware.dump import chip_hash

CHIP = Chip(
    name="toy", title="", clock_hz=1e9, default_precision="int8", memories=(Memory(name="DRAM"),), units=()
)  # fmt: skip


def build(workload, knobs, precision, chip):
    """ "4ms": one group of 4 ms times `batch`; "bytes": 1 MB in 1 ms."""
    if workload == "bytes":
        return schedule(group(steps(repeat=[1], compute=[0.0], inner=[1e6])))
    return service(float(workload.removesuffix("ms")) * 1e-3 * knobs.get("batch", 1))


def document(*, rate="100 Hz", workload="4ms", stream=None, **rest):
    made = {"name": "s", "workload": workload, "target": "NPU[0]", "arrivals": {"kind": "periodic", "rate": rate}}
    return {"name": "t", "hardware": "toy", "length": "1 s", **rest, "streams": [made | (stream or {})]}


def scenario(**parts):
    return parse_scenario(document(**parts), where="t.yaml")


def test_periodic_stream_alone():
    """100 jobs of 4 ms, 10 ms apart: no queueing, every latency 4 ms, the unit 40 % busy."""
    result = run_scenario(scenario(stream={"deadline": "5 ms"}), CHIP, build=build)
    stream = result.streams["s"]
    assert (stream.released, stream.finished, stream.missed) == (100, 100, {})
    assert stream.latency_p50_s == stream.latency_max_s == pytest.approx(4e-3)
    assert result.offered["NPU[0]"] == pytest.approx(0.4)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["scenario"] == "t"


@pytest.mark.parametrize(("rate_hz", "length_s", "jobs"), [(49, 1, 49), (98, 0.5, 49), (3, 1.1, 4)])
def test_no_periodic_job_comes_as_the_length_ends(rate_hz, length_s, jobs):
    """Jobs are released below the length: at 49 Hz for a second those at 0 to 48 / 49 s, and none at 49 / 49 s."""
    result = run_scenario(scenario(rate=f"{rate_hz} Hz", length=f"{length_s} s"), CHIP, build=build)
    assert result.streams["s"].released == jobs
    assert result.first.run_s == pytest.approx(length_s, rel=1e-12)


def test_what_is_prefetched_behind_the_group_before_is_no_load():
    """6 ms of compute, beside which the next group's 4 MB come in 4 ms, and 2 ms more: 8 ms every 10."""
    job = schedule(
        group(steps(repeat=[1], compute=[6e-3])),
        group(steps(repeat=[1], compute=[2e-3], first=4e6), name="next", deps=(0,), prefetch={"DRAM": 4e6}),
    )
    result = run_scenario(scenario(), CHIP, build=lambda *_: job)
    assert result.offered == {"NPU[0]": pytest.approx(0.8), "DRAM": pytest.approx(0.4)}
    assert result.streams["s"].latency_max_s == pytest.approx(8e-3)


def test_rates_are_over_the_whole_length():
    """10 jobs of 4 ms in 1 s, the last ends at 904 ms: 10 a second, not 10 in 904 ms."""
    stream = run_scenario(scenario(rate="10 Hz"), CHIP, build=build).streams["s"]
    assert (stream.finished, stream.throughput_per_s, stream.goodput_per_s) == (10, 10.0, 10.0)
    late = run_scenario(scenario(rate="10 Hz", workload="94ms", warmup="100 ms"), CHIP, build=build).streams["s"]
    assert late.throughput_per_s == pytest.approx(9 / 0.9)  # ends at 194, 294, ..., 994 ms


def test_use_and_throughput_are_over_the_whole_length():
    """The same 10 jobs of 4 ms: 40 ms of 1 s, though the last ends at 904 ms, and 10 a second. A run that ends later
    than its length counts until then: 11 jobs of 100 ms, the last from 1.0 to 1.1 s."""
    run = run_scenario(scenario(rate="10 Hz"), CHIP, build=build).first
    assert (run.latency_s, run.run_s) == (pytest.approx(0.904), 1.0)
    assert run.engines["NPU[0]"].utilization == pytest.approx(0.04)
    assert run.throughput_per_s == pytest.approx(10)
    moved = run_scenario(scenario(rate="10 Hz", workload="bytes"), CHIP, build=build).first.ports["DRAM"]
    assert moved.achieved_bytes_per_s == pytest.approx(10e6)
    late = run_scenario(scenario(rate="10 Hz", workload="100ms", length="1.01 s"), CHIP, build=build).first
    assert late.run_s == pytest.approx(1.1)
    assert late.engines["NPU[0]"].utilization == pytest.approx(1.0)


def test_idle_power_flows_for_the_whole_length(monkeypatch):
    """A watt that always flows takes a joule in 1 s, and 10 jobs of 0.1 J another: 2 W on average."""
    monkeypatch.setattr("sim.events.experiment.idle_power_of", lambda chip: 1.0)
    job = schedule(group(steps(repeat=[1], compute=[4e-3]), energy_j=0.1))
    run = run_scenario(scenario(rate="10 Hz"), CHIP, build=lambda *_: job).first
    assert run.energy_breakdown_j == {"jobs": pytest.approx(1.0), "idle": pytest.approx(1.0)}
    assert run.power_w == pytest.approx(2.0)


def test_copies_spread_over_instances():
    """Two copies, half a period apart, 8 ms each on two instances: each unit is 80 % busy, nobody waits."""
    stream = {"copies": 2, "target": "NPU", "arrivals": {"kind": "periodic", "rate": "100 Hz", "phase": "spread"}}
    result = run_scenario(scenario(workload="8ms", stream=stream), CHIP, build=build)
    assert result.streams["s"].queueing_mean_s == 0
    assert result.streams["s"].finished == 200
    assert result.offered == {"NPU[0]": pytest.approx(0.8), "NPU[1]": pytest.approx(0.8)}


@pytest.mark.parametrize("grain", ["folded", "expand"])
@pytest.mark.parametrize("turn", [1, -1])
def test_an_instance_that_becomes_free_at_this_tick_is_free(grain, turn):
    """Jobs of 4 ms on two instances: a every 4 ms from 0, b every 8 from 1. Each a ends at the tick at which the next
    one comes, so one instance is always free: nobody waits, whichever stream is listed first."""
    made = [
        {"name": name, "workload": "4ms", "target": "NPU", "arrivals": {"kind": "periodic", "rate": rate, "phase": at}}
        for name, rate, at in (("a", "250 Hz", "0 ms"), ("b", "125 Hz", "1 ms"))
    ]
    whole = {"name": "t", "hardware": "toy", "length": "1 s", "grain": grain, "streams": made[::turn]}
    result = run_scenario(parse_scenario(whole, where="t.yaml"), CHIP, build=build)
    found = {name: (stream.finished, stream.queueing_mean_s) for name, stream in result.streams.items()}
    assert found == {"a": (250, 0), "b": (125, 0)}


def test_a_long_queue_is_seen_behind_many_later_jobs(tmp_path):
    """100 jobs of 10 ms wait for NPU[0] from 0 to 1 s, and 10,000 jobs a second come to the CPU meanwhile: a job for
    whichever NPU is free goes to NPU[1], where nobody waits."""
    (tmp_path / "all.txt").write_text("0 ms\n" * 100)
    made = [
        {"workload": "10ms", "target": "NPU[0]", "arrivals": {"kind": "file", "path": str(tmp_path / "all.txt")}},
        {"workload": "cpu", "target": "CPU", "arrivals": {"kind": "periodic", "rate": "10 kHz"}},
        {"workload": "10ms", "target": "NPU", "arrivals": {"kind": "periodic", "rate": "5 Hz", "phase": "150 ms"}},
    ]
    made = [{"name": name} | stream for name, stream in zip(("old", "small", "new"), made, strict=True)]
    whole = parse_scenario({"name": "t", "hardware": "toy", "length": "1 s", "streams": made}, where="t.yaml")

    def build_here(workload, *rest):
        return service(1e-5, unit="CPU") if workload == "cpu" else build(workload, *rest)

    result = run_scenario(whole, CHIP, build=build_here, check=False)
    assert result.streams["new"].latency_max_s == pytest.approx(10e-3)
    assert result.first.engines["NPU[0]"].busy_s == pytest.approx(1.0)


def test_stages_on_another_unit():
    """1 ms before on the CPU and 2 ms after: 4 + 3 = 7 ms."""
    stream = {
        "before": {"name": "in", "unit": "CPU", "time": "1 ms", "power": "2 W"},
        "after": {"name": "out", "unit": "CPU", "time": "2 ms"},
    }
    result = run_scenario(scenario(stream=stream), CHIP, build=build)
    assert result.streams["s"].latency_max_s == pytest.approx(7e-3)
    assert result.offered["CPU[0]"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"policy": "prioritty"}, ["policy", 'unknown policy "prioritty"', 'Did you mean "priority"']),
        ({"wamup": "1 ms"}, ["wamup", "unknown key", '"warmup"']),
        ({"rate": "36"}, ["streams[0].arrivals.rate", "no unit"]),
        ({"rate": "36 ms"}, ["streams[0].arrivals.rate", "is a time"]),
        ({"rate": "inf Hz"}, ["streams[0].arrivals.rate", "finite"]),
        ({"stream": {"arrivals": {"kind": "periodical"}}}, ["streams[0].arrivals", 'Did you mean "periodic"']),
        ({"stream": {"arrivals": {"rate": "1 Hz"}}}, ["streams[0].arrivals", "kind is missing"]),
        ({"stream": {"arrivals": {"kind": "periodic", "rate": "1 Hz", "phase": "spred"}}}, ["phase: ", "or spread"]),
        ({"stream": {"deadline": "0 ms"}}, ["streams[0].deadline", "greater than 0"]),
        ({"stream": {"cnt": 3}}, ["streams[0].cnt: unknown key. Expected one of name, workload"]),
        ({"stream": {"priority": "high"}}, ["streams[0].priority: expected a whole number, got 'high'"]),
        (
            {"stream": {"arrivals": {"kind": "periodic", "rate": "1 Hz", "jiter": "1 ms"}}},
            ['arrivals.jiter: unknown key. Did you mean "jitter"?'],
        ),
        (
            {"stream": {"arrivals": {"kind": "poisson", "rate": "1 Hz", "jitter": "1 ms"}}},
            ["arrivals.jitter: unknown key. Expected one of kind, rate"],
        ),
        ({"warmup": "2 s"}, ["warmup takes the whole length"]),
        ({"stream": {"name": "camera[left]"}}, ['streams[0].name: "camera[left]": expected a name without [']),
        ({"stream": {"name": " "}}, ["streams[0].name: "]),
        ({"policy": "time_partition"}, ["slots"]),
        ({"policy": "edf", "schema": "dovetail.scenario/9"}, ["dovetail.scenario/9", 'policy "edf"', '/1"?;\n']),
        ({"slots": [{"stream": "x", "length": "1 ms"}]}, ['unknown stream "x"']),
        ({"policy": "time_partition", "slots": [{"stream": "s", "length": "0 s"}]}, ["slots[0].length"]),
    ],
)
def test_bad_files_say_where_and_what(parts, words):
    with pytest.raises(ConfigError) as error:
        scenario(**parts)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_half_widths_of_counts_have_no_exponent():
    """1,034 to two digits are 1,000."""
    from sim.events.statistics import Interval
    from sim.view.simulation import spread

    wide = Interval(mean=21116.4, half_width=1034.0, level=0.95, replications=3)
    assert spread(wide, "goodput_per_s") == "21,120 ± 1,000 /s"
    assert spread(Interval(mean=9.25, half_width=0.5, level=0.95, replications=3), "goodput_per_s") == "9.25 ± 0.5 /s"


def test_unknown_resource_and_instance():
    with pytest.raises(ConfigError, match=r'unknown resource "NPX".*Did you mean "NPU"'):
        run_scenario(scenario(stream={"target": "NPX"}), CHIP, build=build)
    with pytest.raises(ConfigError, match=r"streams\[0\] \(s\): target: NPU\[2\]: toy has 2 NPU, numbered from 0"):
        run_scenario(scenario(stream={"target": "NPU[2]"}), CHIP, build=build)


def test_a_stream_without_a_slot_is_refused():
    """It would wait for ever."""
    two = document(policy="time_partition", slots=[{"stream": "s", "length": "5 ms"}])
    two["streams"].append({**two["streams"][0], "name": "left out"})
    with pytest.raises(ConfigError, match='stream "left out" has none'):
        parse_scenario(two, where="t.yaml")


def test_too_many_jobs_and_none(tmp_path):
    with pytest.raises(ConfigError, match=r"streams\[0\] \(s\): 1e\+11 jobs arrive"):
        run_scenario(scenario(length="1e9 s"), CHIP, build=build)
    (tmp_path / "late.txt").write_text("5 s\n")
    late = scenario(stream={"arrivals": {"kind": "file", "path": str(tmp_path / "late.txt")}})
    (note,) = run_scenario(late, CHIP, build=build).notes
    assert note.startswith("s: no job arrived")


def test_overload_is_refused():
    """4 ms at 325 Hz: utilisation 1.3."""
    with pytest.raises(
        InfeasibleError, match=r"NPU\[0\]: utilisation 1.30: the queue grows .* divide the rates by at least 1.3,"
    ):
        run_scenario(scenario(rate="325 Hz"), CHIP, build=build)
    with pytest.raises(InfeasibleError, match=r"DRAM: utilisation 1.50"):
        run_scenario(
            scenario(workload="bytes", rate="750 Hz", stream={"copies": 2, "target": "NPU"}), CHIP, build=build
        )


def test_impossible_deadline():
    with pytest.raises(InfeasibleError, match="deadline of 3 ms is shorter than the service time alone, 4 ms"):
        run_scenario(scenario(stream={"deadline": "3 ms"}), CHIP, build=build)


def test_recorded_arrivals_and_their_errors(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("# camera\n0 ms\n\n12.5 ms\n2 s\n")
    assert arrivals.recorded(path, length_s=1.0).tolist() == [0.0, 0.0125]
    for text, line in (("1 ms\nx\n", 2), ("1 ms\n\n5\n", 3), ("5 ms\n1 ms\n", 2)):
        path.write_text(text)
        with pytest.raises(ConfigError, match=f"a.txt:{line}: "):
            arrivals.recorded(path, length_s=1.0)


def test_arrival_rates():
    """Counts of 1000 s at 50 Hz lie within 5 standard deviations (Poisson: sqrt 50,000 = 224)."""
    rng = np.random.default_rng(1)
    assert abs(len(arrivals.poisson(rate_hz=50, length_s=1000, rng=rng)) - 50_000) < 5 * 224
    bursts = arrivals.bursts(rate_hz=5, size=10, gap_s=1e-3, length_s=1000, rng=rng)
    assert abs(len(bursts) - 50_000) < 5 * 10 * np.sqrt(5000)
    jittered = arrivals.periodic(period_s=0.1, phase_s=0.05, jitter_s=0.01, length_s=10, rng=rng)
    late = jittered - (0.05 + 0.1 * np.arange(100))
    assert late.min() >= 0
    assert late.max() < 0.01


def test_closed_stream_is_always_busy():
    result = run_scenario(scenario(stream={"arrivals": {"kind": "closed"}}), CHIP, build=build)
    assert result.streams["s"].finished == 250
    assert result.first.engines["NPU[0]"].utilization == pytest.approx(1.0)


def test_limit_of_a_deterministic_stream():
    """4 ms jobs with a 5 ms deadline pass up to 250 Hz, 2.5 times the file's 100 Hz; above, the load check says no."""
    limit = find_limit(scenario(length="4 s", stream={"deadline": "5 ms"}), CHIP, "rate", build=build)
    assert limit.value <= 2.5 < limit.above
    assert limit.above - limit.value <= 0.01 * limit.value


def test_limit_of_copies_and_batch():
    """Copies at once on one unit with 4 ms each and a deadline of 9 ms: two end by 8 ms, a third would at 12.
    Batch b takes 4 b ms: two by 8 ms."""
    base = scenario(length="40 s", rate="10 Hz", stream={"deadline": "9 ms", "knobs": {"batch": 1}})
    for quantity in ("copies", "batch"):
        limit = find_limit(base, CHIP, quantity, build=build)
        assert (limit.value, limit.above) == (2, 3)


def test_limit_needs_enough_jobs():
    with pytest.raises(ConfigError, match=r"0 misses of 100 jobs only show a rate below 2\.95%"):
        find_limit(scenario(stream={"deadline": "5 ms"}), CHIP, "rate", build=build)


def test_same_seed_same_result():
    parts = {"stream": {"arrivals": {"kind": "poisson", "rate": "150 Hz"}}, "replications": 2}
    one, two, other = (run_scenario(scenario(**parts), CHIP, build=build, seed=s).to_dict() for s in (1, 1, 2))
    assert json.dumps(one) == json.dumps(two) != json.dumps(other)


def test_a_scenarios_documents_state_how_it_was_made():
    """Chip with hash, the defaults with which models are scheduled, and each stream's workload and precision."""
    made = scenario(stream={"deadline": "5 ms", "precision": "bf16", "knobs": {"batch": 1}})
    limit = find_limit(scenario(stream={"deadline": "5 ms"}, miss_bound=0.1), CHIP, "rate", build=build)
    for told, precision in ((run_scenario(made, CHIP, build=build).to_dict(), "bf16"), (limit.to_dict(), "int8")):
        assert told["scenario"] == "t"
        assert told["hardware"] == {"name": "toy", "hash": chip_hash(CHIP), "overrides": {}}
        assert (told["objective"], told["map_space"]) == ("latency", "even")
        assert told["calibration"] is None
        assert (told["workloads"]["s"]["name"], told["workloads"]["s"]["precision"]) == ("4ms", precision)


@pytest.mark.parametrize(("chip", "device"), [("h100-sxm", "h100-sxm"), ("tesla-fsd-npu", None)])
def test_the_calibration_of_a_chip_as_a_whole(chip, device):
    """The device, date and errors that an estimate of one workload names; null with data-sheet constants."""
    found = calibration(sim.load_hardware(chip))
    assert (found and found["device"]) == device
    if found:
        alone = sim.estimate(sim.load_workload("mlp"), sim.load_hardware(chip)).calibration
        assert found["date"] == alone["date"]
        assert alone["error"].items() <= found["error"].items()
    assert calibration(sim.load_hardware(chip), "none") is None


def test_interrupt_keeps_what_was_simulated():
    """Ctrl-C in the middle: the result is marked partial and holds the jobs that had ended."""

    def interrupt(share, what="simulated"):
        if what == "simulated":
            raise KeyboardInterrupt

    result = run_scenario(scenario(length="60 s"), CHIP, build=build, progress=interrupt)
    assert result.partial
    assert 0 < result.streams["s"].finished < 6000


@pytest.mark.parametrize("name", ["autopilot", "robot", "neighbours", "llm-serving-h100", "llm-serving-tpu"])
def test_bundled_scenarios_are_valid(name):
    assert name in list_scenarios()
    assert load_scenario(name).name == name


def test_unknown_scenario():
    with pytest.raises(ConfigError, match=r'unknown scenario "autopilto".*Did you mean "autopilot"'):
        load_scenario("autopilto")


def test_stage_of_equal_parts():
    """Four parts of 1 ms side by side on four cores outside the chip, then 4 ms: 5 ms; each core is busy 1 of 10 ms."""
    stage = {"name": "in", "unit": "host", "time": "1 ms", "parallel": 4, "instances": 4, "power": "2 W"}
    result = run_scenario(scenario(stream={"before": stage}), CHIP, build=build)
    assert result.streams["s"].latency_max_s == pytest.approx(5e-3)
    assert [result.offered[f"host[{i}]"] for i in range(4)] == pytest.approx([0.1] * 4)
    with pytest.raises(ConfigError, match="4 parts on 2 instances"):
        run_scenario(scenario(stream={"before": {**stage, "instances": 2}}), CHIP, build=build)
    with pytest.raises(ConfigError, match=r'unknown resource "CPX".*Did you mean "CPU"'):
        run_scenario(scenario(stream={"before": {"name": "in", "unit": "CPX", "time": "1 ms"}}), CHIP, build=build)


@pytest.mark.parametrize("grain", ["folded", "expand", "summary"])
def test_equal_parts_stand_side_by_side_on_the_unit_of_another_stage(grain):
    """1 ms on whichever host core is free, 4 ms on the NPU, then four parts of 1 ms on cores 0 to 3: 6 ms, the parts
    not one after the other on the core of the first stage. Of 100 jobs a second each core has 10 % for its part and 2.5
    for a quarter of the first stages, 0.125 in all."""
    before = {"name": "in", "unit": "host", "time": "1 ms", "instances": 4}
    after = {"name": "out", "unit": "host", "time": "1 ms", "instances": 4, "parallel": 4}
    whole = scenario(stream={"before": before, "after": after}, grain=grain)
    result = run_scenario(whole, CHIP, build=build)
    assert result.streams["s"].latency_max_s == pytest.approx(6e-3)
    assert [result.offered[f"host[{i}]"] for i in range(4)] == pytest.approx([0.125] * 4)
    own = after | {"unit": "NPU", "instances": 2, "parallel": 2}  # two parts on the unit of the job itself: 1 + 4 + 1
    result = run_scenario(
        scenario(stream={"before": before, "after": own, "target": "NPU"}, grain=grain), CHIP, build=build
    )
    assert result.streams["s"].latency_max_s == pytest.approx(6e-3)
    assert [result.offered[f"NPU[{i}]"] for i in range(2)] == pytest.approx([0.3] * 2)


def test_limit_of_an_unknown_knob():
    base = parse_scenario(document(workload="mlp", stream={"deadline": "5 ms"}), where="t")
    with pytest.raises(ConfigError, match=r'"bath": expected rate, copies, or a whole-number knob of mlp.*"batch"'):
        find_limit(base, CHIP, "bath", build=build)


def test_interrupted_search_keeps_its_trials():
    said = []

    def interrupt(share, what="simulated"):
        said.append(what)
        if what.startswith("trial 3"):
            raise KeyboardInterrupt

    limit = find_limit(
        scenario(length="4 s", stream={"deadline": "5 ms"}), CHIP, "rate", build=build, progress=interrupt
    )
    assert limit.partial
    assert [t.value for t in limit.trials] == [1, 2]
    assert {"trial 1, rate 1: simulated", "trial 2, rate 2: simulated"} < set(said)
