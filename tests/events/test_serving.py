"""Serving a language model: step by step by hand, pages, preemption, conservation."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from nests import group, schedule, steps

from sim.errors import ConfigError, InfeasibleError
from sim.events.limits import find_limit
from sim.events.scenario import Requests, parse_scenario
from sim.events.serving import Cache, Request, StepTable, offered_utilization, serve
from sim.events.serving_scenario import Footprint, draw_requests, run_serving, size_cache, step_tables
from sim.events.ticks import to_ticks
from sim.hardware.chip import Chip, Memory, System
from sim.hardware.load import load_hardware

TABLE = StepTable(
    batches=(1, 2),
    contexts=(0, 1000),
    decode_table=np.array([[1e-3, 1e-3], [1.5e-3, 1.5e-3]]),
    prompts=(0, 100),
    prefill_table=np.array([0.0, 10e-3]),
)
"""Decode 1 ms for one, 1.5 ms for two requests (0.5 more each), prefill 0.1 ms a token."""

ROOMY = Cache(pages=1000, page_tokens=16, bytes_per_token=2.0)


def request(at_s, prompt=10, output=3):
    return Request(arrival_s=at_s, prompt_tokens=prompt, output_tokens=output)


def test_one_request():
    """Prefill 10 tokens: 1 ms gives the first token; two decodes of 1 ms: TTFT 1, TPOT 1, end 3 ms."""
    (done,) = serve([request(0.0)], TABLE, ROOMY, max_batch=4, prefill_chunk=64).requests
    assert (done.ttft_s, done.tpot_s, done.finish_s) == pytest.approx((1e-3, 1e-3, 3e-3))


def test_two_requests_join_in_one_batch():
    """A prefills 0-1, B arrives at 0.5, is admitted at 1: a mixed step of A's decode and B's prefill,
    1 + 1 - 1 (weights once) = 1 ms: 1-2; both decode: 1.5 ms to 3.5, where A has its third token. B: one more
    decode alone, 4.5. B's TTFT = 1.5, TPOT = 2.5 / 2. Events: four steps, the start and the end of the process."""
    run = serve([request(0.0), request(0.5e-3)], TABLE, ROOMY, max_batch=4, prefill_chunk=64)
    a, b = sorted(run.requests, key=lambda r: r.arrival_s)
    assert a.finish_s == pytest.approx(3.5e-3)
    assert (b.queueing_s, b.ttft_s, b.tpot_s, b.finish_s) == pytest.approx((0.5e-3, 1.5e-3, 1.25e-3, 4.5e-3))
    assert run.steps == 4
    assert run.events == run.steps + 2


def test_chunked_prefill():
    """A prompt of 35 tokens in chunks of 15: 1.5 + 1.5 ms, and the last 5 tokens as long as reading the weights takes,
    1 ms and not 0.5: first token at 4 ms."""
    (done,) = serve([request(0.0, prompt=35, output=1)], TABLE, ROOMY, max_batch=1, prefill_chunk=15).requests
    assert done.ttft_s == pytest.approx(4e-3)
    assert done.tpot_s is None


def test_a_prompt_shorter_than_the_tables_reads_the_weights():
    """The line through 100 tokens in 10 ms and 200 in 20 gives 0.1 ms, or 0.1 mJ, for one token: a tenth of what a
    decode of one request takes. In one step two such prompts share the reading: 1 + 1 - 1 ms."""
    table = replace(TABLE, prompts=(100, 200), prefill_table=np.array([10e-3, 20e-3]))
    asked = [request(0.0, prompt=1, output=1), request(0.0, prompt=1, output=1)]
    run = serve(asked, table, ROOMY, max_batch=2, prefill_chunk=64, energy=table)
    assert [r.ttft_s for r in run.requests] == pytest.approx([1e-3, 1e-3])
    assert run.energy_j == pytest.approx(1e-3)
    assert table.chunk(100, 0) == pytest.approx(10e-3)


def test_batch_limit_queues():
    """One at a time: B waits for A's 3 ms."""
    run = serve([request(0.0), request(0.0)], TABLE, ROOMY, max_batch=1, prefill_chunk=64)
    assert [r.queueing_s for r in run.requests] == pytest.approx([0.0, 3e-3])


def test_pages_run_out_and_the_newest_starts_over():
    """Three pages of 8: two prompts of 7 take one page each and fit one token more (8); the third page
    goes to A for its ninth token, B finds none and is put back, and ends after A with all its tokens."""
    cache = Cache(pages=3, page_tokens=8, bytes_per_token=1.0)
    asked = [request(0.0, prompt=7, output=6), request(0.0, prompt=7, output=6)]
    run = serve(asked, TABLE, cache, max_batch=4, prefill_chunk=64)
    assert run.preemptions == 1
    assert [r.preemptions for r in run.requests] == [0, 1]
    assert run.peak_kv_bytes == run.kv_capacity_bytes == 24


def test_everything_is_served_and_pages_return():
    spec = Requests(
        count=400, arrivals={"kind": "poisson", "rate": "60 Hz"}, prompt_tokens=30, prompt_sigma=0.8,
        output_tokens=10, output_sigma=0.7, max_tokens=200,
    )  # fmt: skip
    asked = draw_requests(spec, 0)
    cache = Cache(pages=40, page_tokens=8, bytes_per_token=1.0)
    run = serve(asked, TABLE, cache, max_batch=8, prefill_chunk=64)
    assert sorted(r.arrival_s for r in run.requests) == sorted(r.arrival_s for r in asked)
    assert sum(r.output_tokens for r in run.requests) == sum(r.output_tokens for r in asked)
    assert run.timeline.counters["kv_cache bytes"][-1][1] == 0
    assert max(v for _, v in run.timeline.counters["kv_cache bytes"]) <= run.kv_capacity_bytes
    for r in run.requests:
        assert 0 <= r.queueing_s <= r.ttft_s <= r.finish_s - r.arrival_s + 1e-12
    again = serve(asked, TABLE, cache, max_batch=8, prefill_chunk=64)
    assert run.requests == again.requests


def test_offered_load():
    """In a full batch of two one prompt is read (1 ms, no more than the weights take) or two tokens decoded (1.5 ms); a
    request is in three steps of which two decode. The least is 3 x (1 - 0.5) / 2 + 2 x 0.5 = 1.75 ms: a prompt beside
    every other request's first decode. So 571.4 requests a second are the most, which the server reaches."""
    assert offered_utilization([request(0.0)], 1 / 1.75e-3, TABLE, ROOMY, 2, 64) == pytest.approx(1.0)
    below, above = (
        serve([request(k / rate) for k in range(2000)], TABLE, ROOMY, max_batch=2, prefill_chunk=64)
        for rate in (565.0, 580.0)
    )
    assert below.percentiles("queueing_s")["max"] < 2e-3
    assert above.percentiles("queueing_s")["max"] > 20e-3
    assert len(above.requests) / above.latency_s == pytest.approx(571.4, rel=1e-3)


def test_offered_load_of_one_token():
    """Requests of one token take no decode: two prompts are read in one step of 1 ms."""
    assert offered_utilization([request(0.0, output=1)], 2000.0, TABLE, ROOMY, 2, 64) == pytest.approx(1.0)
    one = offered_utilization([request(0.0, prompt=100, output=2)], 1 / 11e-3, TABLE, ROOMY, 1, 128)
    assert one == pytest.approx(1.0), "alone in its batch: 10 ms to read and 1 ms to decode"


def test_offered_load_counts_each_prompt():
    """Half the prompts are 10 tokens (no more than the shared reading), half 190 in chunks of 100: 10 - 1 and 9 - 1,
    so 8.5 ms on average; 1.5 chunks and two tokens are 3.5 steps of half of 0.5 ms, and 0.5 ms a token: 10.375 ms."""
    asked = [request(0.0), request(0.0, prompt=190)]
    assert offered_utilization(asked, 100.0, TABLE, ROOMY, 2, 100) == pytest.approx(1.0375)


def test_offered_load_of_prompts_that_fill_the_chunks_of_every_step():
    """A step reads 10 tokens of prompts: one of 60 takes six steps of 1 ms, in however large a batch."""
    asked = [request(0.0, prompt=60, output=1) for _ in range(200)]
    run = serve(asked, TABLE, ROOMY, max_batch=8, prefill_chunk=10)
    assert run.latency_s == pytest.approx(200 * 6e-3)
    assert offered_utilization(asked, 1 / 6e-3, TABLE, ROOMY, 8, 10) == pytest.approx(1.0)


def test_a_step_reads_what_the_cache_holds():
    """A decode of one request takes 1 ms and 0.1 ms for each token in the cache before it. A prompt of 10: the first
    decode finds 10 there and the second 11. Pages of 5: two hold the prompt; the token that the first decode reads
    takes a third, which holds the next four as well: no page for the sixth token, which nothing reads."""
    table = replace(TABLE, decode_table=np.array([[1e-3, 101e-3], [1e-3, 101e-3]]))
    (done,) = serve([request(0.0, output=3)], table, ROOMY, max_batch=4, prefill_chunk=64).requests
    assert done.tpot_s == pytest.approx((2.0e-3 + 2.1e-3) / 2)
    run = serve([request(0.0, output=6)], table, Cache(pages=3, page_tokens=5, bytes_per_token=1.0),
                max_batch=4, prefill_chunk=64)  # fmt: skip
    assert (len(run.requests), run.preemptions, run.peak_kv_bytes) == (1, 0, 15)
    held = run.timeline.counters["kv_cache bytes"]
    assert held == ((0, 10.0), (to_ticks(run.requests[0].ttft_s), 15.0), (to_ticks(run.latency_s), 0.0))


def halves(share: float) -> StepTable:
    """`TABLE` on two chips, the slower of which takes `share` of every step."""
    own = replace(TABLE, decode_table=share * TABLE.decode_table, prefill_table=share * TABLE.prefill_table)
    return replace(TABLE, stages=2, slowest=own)


def test_a_batch_for_each_stage():
    """Two requests, one in each batch: 1 ms to read, 2 to decode, side by side in equal stages. In one batch the
    decodes take 1.5 ms each. Where one stage takes 0.8 of a step, the second batch waits for it: 3 x 1.6 ms."""
    asked = [request(0.0), request(0.0)]
    run = serve(asked, halves(0.5), ROOMY, max_batch=4, prefill_chunk=64)
    assert [r.finish_s for r in run.requests] == pytest.approx([3e-3, 3e-3])
    assert (run.steps, run.largest_batch, run.mean_batch, run.utilization) == (6, 2, 1.0, pytest.approx(1.0))
    assert serve(asked, TABLE, ROOMY, max_batch=4, prefill_chunk=64).latency_s == pytest.approx(4e-3)
    uneven = serve(asked, halves(0.8), ROOMY, max_batch=4, prefill_chunk=64)
    assert uneven.latency_s == pytest.approx(1.6e-3 + 1.6e-3 + 1.6e-3)


def test_batches_of_stages_share_the_cache():
    """Four pages: each of two requests fills two, and one of them must give way when both want a third."""
    cache = Cache(pages=4, page_tokens=5, bytes_per_token=1.0)
    run = serve([request(0.0, output=6), request(0.0, output=6)], halves(0.5), cache, max_batch=2, prefill_chunk=64)
    assert len(run.requests) == 2
    assert run.preemptions >= 1
    assert run.peak_kv_bytes == 20
    assert run.timeline.counters["kv_cache bytes"][-1][1] == 0


def test_no_batch_of_stages_takes_the_pages_of_the_others():
    """Two pages for four requests of one each: a request in each batch, 1 ms to read and 2 to decode, twice. The first
    batch took both, 1 ms to read and 3 to decode, beside an idle one."""
    cache = Cache(pages=2, page_tokens=12, bytes_per_token=1.0)
    run = serve([request(0.0) for _ in range(4)], halves(0.5), cache, max_batch=4, prefill_chunk=64)
    assert [r.finish_s for r in run.requests] == pytest.approx([3e-3, 3e-3, 6e-3, 6e-3])
    assert (run.mean_batch, run.utilization) == (1.0, pytest.approx(1.0))


def test_a_prompt_beyond_the_share_of_a_batch_takes_pages_that_no_other_wants():
    """Each of two batches holds a page of ten for 100 ms. A prompt of five pages comes at 1.5 ms and is taken up
    when the next steps begin, at 2 ms: it waited until one of the batches was empty, though eight pages were free."""
    cache = Cache(pages=10, page_tokens=110, bytes_per_token=1.0)
    asked = [*(request(0.0, output=100) for _ in range(2)), request(1.5e-3, prompt=550, output=1)]
    run = serve(asked, halves(0.5), cache, max_batch=4, prefill_chunk=64)
    assert [r.queueing_s for r in run.requests if r.arrival_s > 0] == pytest.approx([0.5e-3])


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_offered_load_of_stages_is_that_at_which_they_are_just_busy(share):
    """Requests that always wait: the server's own rate is what gives a load of 1, within the last ones that run out."""
    asked = [request(0.0, prompt=10, output=50) for _ in range(400)]
    run = serve(asked, halves(share), ROOMY, max_batch=4, prefill_chunk=64)
    rate = len(asked) / run.latency_s
    assert offered_utilization(asked, rate, halves(share), ROOMY, 4, 64) == pytest.approx(1.0, rel=0.04)


def test_offered_load_of_fewer_requests_than_stages():
    """One request at a time keeps one of two stages idle: 1 ms to read and 2 to decode, as on one chip."""
    asked = [request(0.0) for _ in range(100)]
    assert serve(asked, halves(0.5), ROOMY, max_batch=1, prefill_chunk=64).latency_s == pytest.approx(0.3)
    assert offered_utilization(asked, 1 / 3e-3, halves(0.5), ROOMY, 1, 64) == pytest.approx(1.0)


def test_offered_load_of_fewer_requests_in_the_cache_than_stages():
    """A page of 12 tokens is room for one request, 1.04 of them half done: 3 ms each, whatever the batch may be. Each
    of two stages was thought to have one under way: a load of 0.5."""
    cache = Cache(pages=1, page_tokens=12, bytes_per_token=1.0)
    asked = [request(0.0) for _ in range(100)]
    assert serve(asked, halves(0.5), cache, max_batch=4, prefill_chunk=64).latency_s == pytest.approx(0.3)
    load = offered_utilization(asked, 1 / 3e-3, halves(0.5), cache, 4, 64)
    assert load == pytest.approx((10 + 3 / 2) / 12)


def test_rates_count_what_ends_after_the_warm_up():
    """One at a time, 3 ms each (1 to read, 2 to decode), all there at 0: a warm-up of 30 ms ends with the tenth. The
    other ninety end in 270 ms: 333 requests, or 1,000 tokens, a second, for 3 mJ each."""
    asked = [request(0.0) for _ in range(99)] + [request(35e-3)]
    run = serve(asked, TABLE, ROOMY, max_batch=1, prefill_chunk=64, warmup_s=30e-3 + 1e-12, energy=TABLE)
    assert (len(run.requests), len(run.ended)) == (1, 90)
    assert run.tokens_per_s == pytest.approx(1000)
    assert run.goodput_per_s == pytest.approx(1000 / 3)
    assert (run.steps, run.mean_batch, run.utilization) == (270, 1.0, pytest.approx(1.0))


@pytest.mark.parametrize(
    "arrivals",
    [
        {"kind": "poisson", "rate": 0.01},
        {"kind": "bursts", "rate": 0.01, "size": 8, "gap": 1e-3},
        {"kind": "bursts", "rate": 0.01, "size": 3, "gap": 1e3},
        {"kind": "periodic", "rate": 0.01, "jitter": 90.0},
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_as_many_requests_as_asked(arrivals, count):
    """However few come in a given time, whatever the seed."""
    units = {"rate": "Hz", "gap": "s", "jitter": "s"}
    stated = {key: f"{value} {units[key]}" if key in units else value for key, value in arrivals.items()}
    spec = Requests.model_validate({"count": count, "arrivals": stated, "prompt_tokens": 10, "output_tokens": 5})
    for seed in range(100):
        drawn = draw_requests(spec, seed)
        assert len(drawn) == count
        assert [r.arrival_s for r in drawn] == sorted(r.arrival_s for r in drawn)


def test_lengths_drawn_beyond_all_counting_are_cut():
    """Of a spread of e^50 half the prompts are one token, and most others longer than integers go."""
    spec = Requests(
        count=100, arrivals={"kind": "poisson", "rate": "1 Hz"}, prompt_tokens=10, prompt_sigma=50.0,
        output_tokens=10, output_sigma=50.0, max_tokens=100,
    )  # fmt: skip
    drawn = draw_requests(spec, 0)
    assert {r.prompt_tokens for r in drawn} >= {1, 99}
    assert all(1 <= r.output_tokens <= 100 - r.prompt_tokens for r in drawn)


def test_bad_input():
    with pytest.raises(InfeasibleError, match="needs 2 pages of the KV cache, which has 1"):
        serve([request(0.0)], TABLE, Cache(pages=1, page_tokens=8, bytes_per_token=1.0), max_batch=1, prefill_chunk=8)
    with pytest.raises(ConfigError, match="two or more rising values"):
        StepTable(batches=(1,), contexts=(0, 1), decode_table=np.ones((1, 2)), prompts=(0, 1), prefill_table=np.ones(2))


CHIP = Chip(
    name="toy", title="", clock_hz=1e9, default_precision="bf16", units=(),
    memories=(Memory(name="DRAM", capacity_bytes=1000.0),),
)  # fmt: skip


def build(workload, knobs, precision, chip):
    """Decode: (100 + batch x context / 10) us and uJ, prefill 1 us a token. What does not fit is refused."""
    if knobs["phase"] == "prefill":
        return energetic(knobs["context"] * 1e-6)
    if knobs["batch"] * knobs["context"] * (1 if precision == "w16a16kv8" else 2) > 800:
        raise InfeasibleError("does not fit")
    return energetic((100 + knobs["batch"] * knobs["context"] / 10) * 1e-6)


def energetic(seconds):
    return schedule(group(steps(repeat=[1], compute=[seconds]), energy_j=seconds))


def serving(**parts):
    requests = {"count": 200, "prompt_tokens": 20, "output_tokens": 4}
    requests["arrivals"] = {"kind": "poisson", "rate": parts.pop("rate", "300 Hz")}
    spec = {
        "workload": "toy", "requests": requests, "kv": {"memory": "DRAM", "page_tokens": 4, "reserve": 0.0},
        "max_batch": 4, "table_batches": [1, 2, 8], "table_contexts": [50, 100, 300],
    }  # fmt: skip
    return parse_scenario({"name": "t", "hardware": "toy", "serving": spec | parts.pop("spec", {}), **parts}, where="t")


def held(spec, precision):
    """200 bytes of weights; 2 bytes a token at 16 bits."""
    return Footprint(weights_bytes=200.0, kv_bytes_per_token=1.0 if precision == "w16a16kv8" else 2.0)


def test_steps_are_scheduled_where_the_cache_holds_them():
    """(1000 - 200) / 2 = 400 tokens: a batch of 2 up to context 200, of 8 up to 50; beyond, the line continues.
    The toy is linear in the context, so the continued table is exact."""
    spec = serving().serving
    cache = size_cache(spec, CHIP, held(spec, "bf16"))
    assert cache.pages * cache.page_tokens == 400
    seconds, joules = step_tables(spec, CHIP, build, cache)
    for batch in (1, 2, 8):
        for context in (50, 100, 300):
            assert seconds.decode(batch, context) == pytest.approx((100 + batch * context / 10) * 1e-6)
    assert joules.decode(2, 100) == pytest.approx(120e-6)


@pytest.mark.parametrize(("precision", "width"), [("int8", 4), ("w16a16kv8", 1), ("bf16", 2)])
def test_a_token_takes_as_many_bytes_as_the_chip_keeps_of_it(precision, width):
    """Llama-3.2-1B, one layer: keys and values of 8 heads x 64. Between int8 layers a CPU keeps them in fp32."""
    spec = {"workload": "llama", "knobs": {"layers": 1}, "precision": precision}
    found = run_serving(serving(spec=spec), load_hardware("epyc-zen4"), build=lambda *_: energetic(1e-4))
    assert found.kv_bytes_per_token == 2 * 8 * 64 * width


def test_tables_reach_as_far_as_the_requests():
    """Reading n tokens takes n + n^2 / 1000 us and is scheduled at 50, 100, and, for prompts of 400, at 200 and 400:
    560 us, where the line from 50 to 100 ends at 110 + 300 x 1.15 = 455 us. Of a chip that cannot read 400 at once it
    goes on from 200, 240 + 200 x 1.3 = 500 us, and a note says so. A batch of 8 is scheduled, not drawn from 1 and 2,
    where a step takes as long: 100 us with all the requests at hand, and 200 from 8 on."""

    def made(workload, knobs, precision, chip, most=1000):
        n, prefill = knobs["context"], knobs["phase"] == "prefill"
        if prefill and n > most:
            raise InfeasibleError("does not fit")
        return energetic((n + n * n / 1000 if prefill else 200 if knobs["batch"] >= 8 else 100) * 1e-6)

    requests = {"count": 1, "prompt_tokens": 400, "output_tokens": 1, "arrivals": {"kind": "poisson", "rate": "1 Hz"}}
    asked = {"table_batches": [2, 4], "table_contexts": [50, 100], "requests": requests, "max_batch": 8}
    wide = {"kv": {"memory": "DRAM", "capacity": "100 kB"}}
    roomy = replace(CHIP, memories=(Memory(name="DRAM", capacity_bytes=1e6),))
    runs = run_serving(serving(spec=asked | wide), roomy, build=made, footprint=held)
    assert runs.first.requests[0].ttft_s == pytest.approx(560e-6)
    assert runs.notes == ()
    runs = run_serving(serving(spec=asked | wide), roomy, build=partial(made, most=200), footprint=held)
    assert runs.first.requests[0].ttft_s == pytest.approx(500e-6)
    assert "beyond 200" in runs.notes[0]
    spec = serving(spec=asked | wide | {"requests": requests | {"count": 8}}).serving
    seconds, _ = step_tables(spec, roomy, made, size_cache(spec, roomy, held(spec, "bf16")), None, [request(0.0)] * 8)
    assert seconds.batches == (1, 2, 4, 8)
    assert [seconds.decode(batch, 50) for batch in (1, 4, 6, 8)] == pytest.approx([1e-4, 1e-4, 1.5e-4, 2e-4])


def test_chips_of_a_system_share_weights_and_cache():
    """Four chips of 1,000 bytes hold one copy of the weights: (4 x 1000 - 200) / 2 = 1,900 tokens."""
    system = System(chips=4, topology="ring", link="none")
    spec = serving().serving
    cache = size_cache(spec, replace(CHIP, system=system), held(spec, "bf16"))
    assert cache.pages * cache.page_tokens == 1900


def test_narrower_keys_and_values_double_the_cache():
    wide = run_serving(serving(), CHIP, build=build, footprint=held)
    narrow = run_serving(serving(spec={"precision": "w16a16kv8"}), CHIP, build=build, footprint=held)
    assert narrow.first.kv_capacity_bytes / narrow.kv_bytes_per_token == 2 * (
        wide.first.kv_capacity_bytes / wide.kv_bytes_per_token
    )


def test_replications_pool_and_spread():
    """Every replication has its own requests; energies add up; the document is JSON; same seed, same bytes."""
    runs = run_serving(serving(replications=3, warmup="100 ms"), CHIP, build=build, footprint=held)
    assert len(runs.runs) == 3
    assert len({run.requests[0].arrival_s for run in runs.runs}) == 3
    assert all(r.arrival_s >= 0.1 for r in runs.pooled.requests)
    assert runs.pooled.energy_j == pytest.approx(sum(run.energy_j for run in runs.runs))
    assert runs.intervals()["ttft_mean_s"].half_width > 0
    text = json.dumps(runs.to_dict(), allow_nan=False)
    again = run_serving(serving(replications=3, warmup="100 ms"), CHIP, build=build, footprint=held)
    assert text == json.dumps(again.to_dict())


def test_limits_of_serving():
    """The rate is bounded by the deadline of the first token; the batch by that of the others. Of b requests three
    quarters decode, at 22.5 tokens in the mean: a step takes 100 + 3/4 b x 2.25 us, which is 123.6 for 14 and
    125.3 for 15. A batch too small for the load is no upper limit."""
    base = serving(spec={"ttft_deadline": "2 ms"}, replications=2)
    limit = find_limit(base, CHIP, "rate", build=build, footprint=held)
    assert 1 <= limit.value < limit.above
    assert limit.rate_hz == pytest.approx(300 * limit.value)
    batch = find_limit(base, CHIP, "batch", build=build, footprint=held)
    assert batch.above is None
    assert batch.trials[-1].idle, "a batch that is never full is no limit"
    busy = serving(rate="20 kHz", spec={"tpot_deadline": "125 us"}, replications=2)
    batch = find_limit(busy, CHIP, "batch", build=build, footprint=held)
    assert [(t.value, t.overload) for t in batch.trials[:3]] == [(4, True), (8, True), (16, False)]
    assert (batch.value, batch.above) == (14, 15)
    with pytest.raises(ConfigError, match="expected rate or batch"):
        find_limit(base, CHIP, "copies", build=build, footprint=held)
    with pytest.raises(ConfigError, match="ttft_deadline"):
        find_limit(serving(), CHIP, "rate", build=build, footprint=held)


def test_bad_serving_files():
    poisson = {"kind": "poisson", "rate": "1 Hz"}
    long = {"count": 1, "prompt_tokens": 8000, "output_tokens": 200, "arrivals": poisson}
    for parts, words in (
        ({"length": "1 s"}, "length belongs to streams"),
        ({"spec": {"table_batches": [4, 1]}}, "rising whole numbers"),
        ({"spec": {"kv": {"memory": "DRAM", "bits": 8}}}, "bits: unknown key"),
        ({"spec": {"knobs": {"phase": "prefill"}}}, "phase is what serving itself sets"),
        ({"spec": {"tpot_deadline": "0 s"}}, "tpot_deadline"),
        ({"spec": {"requests": long}}, "together are 8200, above max_tokens .4096.*expected max_tokens: 8200 or more"),
    ):
        with pytest.raises(ConfigError, match=words):
            serving(**parts)
    with pytest.raises(ConfigError, match="nothing is left to observe"):
        run_serving(serving(warmup="1000 s"), CHIP, build=build, footprint=held)
    # 20 tokens would be read in 0.02 ms; their chunk takes no less than a decode at a context of 50, 100 + 50 / 10 us.
    for name, alone in (("ttft_deadline", "0.105 ms"), ("tpot_deadline", "0.102 ms")):
        with pytest.raises(InfeasibleError, match=rf"{name}: 0.01 ms is shorter .*(20 tokens.) alone, {alone}"):
            run_serving(serving(spec={name: "10 us"}), CHIP, build=build, footprint=held)
    with pytest.raises(InfeasibleError, match="900 bytes do not fit DRAM"):
        run_serving(serving(spec={"kv": {"memory": "DRAM", "capacity": "900 B"}}), CHIP, build=build, footprint=held)
    with pytest.raises(InfeasibleError, match="7 bytes hold no page of 4 tokens, which takes 8"):
        run_serving(serving(spec={"kv": {"memory": "DRAM", "capacity": "7 B", "page_tokens": 4}}), CHIP, build=build,
                    footprint=held)  # fmt: skip
    with pytest.raises(InfeasibleError, match=r"utilisation .* the queue grows without bound"):
        run_serving(serving(rate="90 kHz"), CHIP, build=build, footprint=held)
