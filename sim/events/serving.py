"""A language model that serves requests: continuous batching over a paged KV cache.

Each step decodes one token for every request in the batch and, beside it, up to `prefill_chunk`
prompt tokens of requests that were admitted but not read yet (chunked prefill: Agrawal et al.,
"Sarathi-Serve", OSDI 2024; iteration-level batching: Yu et al., "Orca", OSDI 2022; pages and
preemption by recomputation: Kwon et al., "PagedAttention", SOSP 2023). The time of a step comes from
a table of schedules over (batch, context), interpolated linearly; `benchmarks/events.py --table`
compares points between with schedules of their own.

Assumes: tokens of a step finish together; requests are admitted first come, first served; a prompt
chunk and the decoding batch share one reading of the weights, so a mixed step takes
decode + chunk - (decode of one request at the shortest context), and no less than either; every
chunk reads the weights, so none takes less than that decode. A pipeline of chips has as many batches under way as
stages, which share the requests and the cache; each takes its own steps, and while k of them are under way a step takes
no less than k times its slowest stage (as the micro-batches of vLLM and Megatron-LM, Narayanan et al., SC 2021).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf

import numpy as np
import simpy

from sim.errors import ConfigError, InfeasibleError
from sim.events.progress import Progress
from sim.events.serving_result import RequestResult, ServingResult
from sim.events.ticks import to_seconds, to_ticks
from sim.events.timeline import Recorder

_PROGRESS_EVERY = 1024


@dataclass(frozen=True, kw_only=True)
class StepTable:
    """Time (s) or energy (J) of a step: decode over (batch, context), prefill over prompt length.

    Both are interpolated linearly and continued linearly beyond the table.
    """

    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    decode_table: np.ndarray
    """Shape (batches, contexts)."""
    prompts: tuple[int, ...]
    prefill_table: np.ndarray
    stages: int = 1
    """Of a pipeline of chips, with a batch of its own each."""
    slowest: StepTable | None = None
    """What a step takes of the slowest of these stages, or of a send between two."""

    def __post_init__(self) -> None:
        for name, axis in (("batches", self.batches), ("contexts", self.contexts), ("prompts", self.prompts)):
            if len(axis) < 2 or any(b <= a for a, b in pairwise(axis)):
                raise ConfigError(f"step table: {name} {axis}: expected two or more rising values")

    def decode(self, batch: float, context: float) -> float:
        """One token for each of `batch` requests whose contexts have the given mean."""
        i, u = _cell(self.batches, batch)
        j, v = _cell(self.contexts, context)
        t = self.decode_table
        low = t[i, j] + v * (t[i, j + 1] - t[i, j])
        high = t[i + 1, j] + v * (t[i + 1, j + 1] - t[i + 1, j])
        return float(low + u * (high - low))

    def prefill(self, prompt: float) -> float:
        i, u = _cell(self.prompts, prompt)
        return float(self.prefill_table[i] + u * (self.prefill_table[i + 1] - self.prefill_table[i]))

    def chunk(self, tokens: int, before: int) -> float:
        """Reads `tokens` more of a prompt of which `before` are in the cache."""
        more = self.prefill(before + tokens) - self.prefill(before) if before else 0.0
        return max(self.prefill(tokens), more, self.one)

    @property
    def one(self) -> float:
        """Decode of one request at the shortest context: what reading the weights takes."""
        return self.decode(1, self.contexts[0])

    def step(self, batch: int, context: float, chunks: Sequence[tuple[int, int]], under_way: int = 1) -> float:
        """A step of `batch` decoding requests and prompt chunks (tokens, before), one of those `under_way`."""
        parts = [self.chunk(tokens, before) for tokens, before in chunks]
        if batch:
            parts.append(self.decode(batch, context))
        alone = max(*parts, sum(parts) - self.one * (len(parts) - 1))
        return max(alone, under_way * self.slowest.step(batch, context, chunks)) if self.slowest else alone

    def crowded(self, batches: float) -> StepTable:
        """The same with so many batches under way, in the mean, as a table of one stage."""
        if self.slowest is None:
            return replace(self, stages=1)
        return replace(
            self,
            decode_table=np.maximum(self.decode_table, batches * self.slowest.decode_table),
            prefill_table=np.maximum(self.prefill_table, batches * self.slowest.prefill_table),
            stages=1,
            slowest=None,
        )


def _cell(axis: Sequence[int], at: float) -> tuple[int, float]:
    i = min(max(bisect_right(axis, at) - 1, 0), len(axis) - 2)
    return i, (at - axis[i]) / (axis[i + 1] - axis[i])


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    arrival_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Paged KV cache: `pages` of `page_tokens` tokens, each token `bytes_per_token`."""

    pages: int
    page_tokens: int
    bytes_per_token: float

    def needed(self, tokens: int) -> int:
        return -(-tokens // self.page_tokens)


class _Active:
    """A request in the batch. `read` of its `prompt` tokens are in the cache; then it decodes."""

    __slots__ = (
        "admitted",
        "first",
        "generated",
        "index",
        "pages",
        "preemptions",
        "prompt",
        "read",
        "request",
        "waited",
    )

    def __init__(self, request: Request, index: int) -> None:
        self.request, self.index = request, index
        self.prompt = request.prompt_tokens
        self.read = self.generated = self.pages = self.preemptions = 0
        self.admitted: int | None = None
        self.first: int | None = None
        self.waited = 0

    @property
    def context(self) -> int:
        """Its tokens so far. All but the newest are in the cache, which the step that reads it writes."""
        return self.request.prompt_tokens + self.generated


class Server:
    """The engine loop of each batch as a SimPy process: one event a step."""

    def __init__(self, env: simpy.Environment, requests: Sequence[Request], table: StepTable, cache: Cache, *,
                 energy: StepTable | None, warmup_s: float, max_batch: int, prefill_chunk: int,
                 recorder: Recorder) -> None:  # fmt: skip
        self.env, self.table, self.cache, self.energy = env, table, cache, energy
        self.energy_j, self.observed = 0.0, to_ticks(warmup_s)
        self.max_batch, self.prefill_chunk, self.recorder = max_batch, prefill_chunk, recorder
        self.coming = deque(_Active(r, i) for i, r in enumerate(sorted(requests, key=lambda r: r.arrival_s)))
        self.waiting: deque[_Active] = deque()
        self.batches: list[list[_Active]] = [[] for _ in range(table.stages)]
        self.under_way, self.step_ended = 0, env.event()
        self.free = cache.pages
        self.done: list[RequestResult] = []
        self.steps = self.made = self.preemptions = self.busy = self.batch_sum = 0
        self.lowest_free, self.largest_batch = cache.pages, 0
        for number in range(table.stages):
            env.process(self._run(number))

    def _run(self, number: int) -> Iterator[simpy.Event]:
        env, batch = self.env, self.batches[number]
        while self.coming or self.waiting or batch:
            while self.coming and to_ticks(self.coming[0].request.arrival_s) <= env.now:
                self.waiting.append(self.coming.popleft())
            self._admit(batch)
            decoding = self._with_room(batch, [r for r in batch if r.read == r.prompt])
            if not batch:
                yield self._news()
                continue
            chunks = self._chunks(batch)
            context = sum(r.context for r in decoding) / len(decoding) - 1 if decoding else 0.0
            read = [(n, r.read) for r, n in chunks]
            self.under_way += 1
            duration = max(1, to_ticks(self.table.step(len(decoding), context, read, self.under_way)))
            if self.energy and env.now >= self.observed:
                self.energy_j += self.energy.step(len(decoding), context, read)
            start = env.now
            yield env.timeout(duration)
            self.under_way -= 1
            self._finish_step(number, decoding, chunks, start)

    def _news(self) -> simpy.Event:
        """The next arrival or, where other batches may give room or work, the end of a step."""
        env = self.env
        arrival = [env.timeout(to_ticks(self.coming[0].request.arrival_s) - env.now)] if self.coming else []
        return arrival[0] if len(self.batches) == 1 else env.any_of([*arrival, self.step_ended])

    def _admit(self, batch: list[_Active]) -> None:
        """First come, first served, while pages for the whole prompt are free; to each batch its share of requests and,
        where another holds fewer, of pages: the first to ask would take all, and the others stand idle."""
        held = sum(map(len, self.batches))
        share = -(-min(self.max_batch, held + len(self.waiting)) // len(self.batches))
        while self.waiting and len(batch) < share and held < self.max_batch:
            head = self.waiting[0]
            pages = self.cache.needed(head.context)
            if pages > self.free or self._others_turn(batch, pages):
                return
            self.waiting.popleft()
            self._take(head, pages)
            if head.admitted is None:
                head.admitted = self.env.now
                head.waited = self.env.now - to_ticks(head.request.arrival_s)
            head.prompt, head.read = head.context, 0
            batch.append(head)
            held += 1

    def _others_turn(self, batch: list[_Active], pages: int) -> bool:
        """Whether a batch that has its share of the pages leaves the head of the queue to one that holds fewer."""
        held = [sum(r.pages for r in one) for one in self.batches]
        own = sum(r.pages for r in batch)
        return own > min(held) and (own + pages) * len(held) > self.cache.pages

    def _take(self, request: _Active, pages: int) -> None:
        request.pages += pages
        self.free -= pages
        self.lowest_free = min(self.lowest_free, self.free)
        self.recorder.add("kv_cache bytes", self.env.now, pages * self.cache.page_tokens * self.cache.bytes_per_token)

    def _release(self, request: _Active) -> None:
        amount = request.pages * self.cache.page_tokens * self.cache.bytes_per_token
        self.free += request.pages
        self.recorder.add("kv_cache bytes", self.env.now, -amount)
        request.pages = 0

    def _with_room(self, batch: list[_Active], decoding: list[_Active]) -> list[_Active]:
        """Gives each a page for the token it reads; without one, the batch's newest is put back and starts over."""
        kept = []
        for request in decoding:
            if request.pages == 0:
                continue
            while request.pages and self.cache.needed(request.context) > request.pages:
                if self.free:
                    self._take(request, 1)
                else:
                    self._preempt(batch)
            if request.pages:
                kept.append(request)
        return [r for r in kept if r.pages]

    def _preempt(self, batch: list[_Active]) -> None:
        request = batch.pop()
        self._release(request)
        request.preemptions += 1
        self.preemptions += 1
        self.waiting.appendleft(request)

    def _chunks(self, batch: list[_Active]) -> list[tuple[_Active, int]]:
        left, chunks = self.prefill_chunk, []
        for request in batch:
            if request.read < request.prompt and left:
                n = min(left, request.prompt - request.read)
                chunks.append((request, n))
                left -= n
        return chunks

    def _finish_step(self, number: int, decoding: list[_Active], chunks: list[tuple[_Active, int]], start: int) -> None:
        now, batch = self.env.now, self.batches[number]
        self.made += 1
        if now > self.observed:
            self.steps += 1
            self.busy += now - max(start, self.observed)
            self.batch_sum += len(batch)
        self.largest_batch = max(self.largest_batch, sum(map(len, self.batches)))
        kind = "prefill + decode" if chunks and decoding else "prefill" if chunks else "decode"
        engine = f"engine[{number}]" if len(self.batches) > 1 else "engine"
        self.recorder.slice(engine, kind, start, now, "compute", kind, self.made)
        for request, n in chunks:
            request.read += n
            if request.read == request.prompt:
                decoding.append(request)
        for request in decoding:
            request.generated += 1
            if request.first is None:
                request.first = now
            if request.generated == request.request.output_tokens:
                batch.remove(request)
                self._end(request)
        if len(self.batches) > 1:
            ended, self.step_ended = self.step_ended, self.env.event()
            ended.succeed()

    def overdue(self, warmup_s: float, ttft_deadline_s: float | None) -> int:
        """Requests that still wait for a first token later than its deadline."""
        if ttft_deadline_s is None:
            return 0
        waiting = [*self.waiting, *self.coming, *(r for batch in self.batches for r in batch if r.first is None)]
        latest = to_seconds(self.env.now) - ttft_deadline_s
        return sum(warmup_s <= r.request.arrival_s < latest for r in waiting if r.first is None)

    def _end(self, request: _Active) -> None:
        self._release(request)
        asked, now = request.request, self.env.now
        later = asked.output_tokens - 1
        assert request.first is not None  # its last token came after its first
        self.done.append(
            RequestResult(
                arrival_s=asked.arrival_s,
                finish_s=to_seconds(now),
                queueing_s=to_seconds(request.waited),
                ttft_s=to_seconds(request.first) - asked.arrival_s,
                tpot_s=to_seconds(now - request.first) / later if later else None,
                output_tokens=asked.output_tokens,
                preemptions=request.preemptions,
            )
        )


def offered_utilization(
    requests: Sequence[Request], rate_per_s: float, table: StepTable, cache: Cache, max_batch: int, prefill_chunk: int
) -> float:
    """rate x least time of a mean request where the batch is always full; above 1 the queue grows without bound.

    The batch is full when `max_batch` requests run or the pages are used up by requests half done. A
    request takes what its prompt's chunks add to the steps, which grows faster than its length, and its
    share of the steps that it is in: one for each chunk, the last of which makes its first token, and one
    for each later token. A step takes what it takes with one token to decode, and the rest by token; it reads no more
    than `prefill_chunk` prompt tokens, whosever they are, so long prompts need steps that no decoding fills. A pipeline
    shares requests and pages out to a batch for each stage.

    Example: prompts of 1,024 tokens in chunks of 128 and one token out: eight steps each, in however large a batch.
    """
    prompt = float(np.mean([r.prompt_tokens for r in requests]))
    output = float(np.mean([r.output_tokens for r in requests]))
    fit = cache.pages * cache.page_tokens / (prompt + output / 2)
    batches = max(1.0, min(table.stages, max_batch, fit))
    batch, table = max(1.0, min(max_batch, fit) / batches), table.crowded(batches)
    context = prompt + output / 2 - 1
    first, full = table.decode(1, context), table.decode(batch, context)
    each = (full - first) / (batch - 1) if batch > 1 else first - table.one

    def reading(tokens: int) -> float:
        chunks = ((min(prefill_chunk, tokens - at), at) for at in range(0, tokens, prefill_chunk))
        return sum(table.chunk(n, before) - table.one for n, before in chunks)

    chunks = float(np.mean([-(-r.prompt_tokens // prefill_chunk) for r in requests]))
    steps = (chunks + output - 1) / batch
    more = max(0.0, prompt / prefill_chunk - steps)
    share = (first - each) * steps + each * (output - 1) + more * min(first - each, table.one)
    share = max(share, table.one * (steps + more))
    return rate_per_s / batches * (float(np.mean([reading(r.prompt_tokens) for r in requests])) + share)


def serve(
    requests: Sequence[Request],
    table: StepTable,
    cache: Cache,
    *,
    max_batch: int,
    prefill_chunk: int,
    energy: StepTable | None = None,
    idle_power_w: float | None = None,
    ttft_deadline_s: float | None = None,
    tpot_deadline_s: float | None = None,
    warmup_s: float = 0.0,
    seed: int = 0,
    record: int = 50_000,
    progress: Progress | None = None,
) -> ServingResult:
    """Serves all requests.

    Args:
        energy: a table in joules; without it the result states no energy.
        idle_power_w: flows whatever runs, and is added to it.
        warmup_s: requests that arrive earlier are served and left out of the result's requests.

    Raises:
        InfeasibleError: a request that no empty cache could hold.
    """
    longest = max(requests, key=lambda r: r.prompt_tokens + r.output_tokens)
    needed = cache.needed(longest.prompt_tokens + longest.output_tokens - 1)  # (nothing reads the last token)
    if needed > cache.pages:
        raise InfeasibleError(
            f"a request of {longest.prompt_tokens} + {longest.output_tokens} tokens needs "
            f"{needed} pages of the KV cache, which has {cache.pages}"
        )
    env, recorder = simpy.Environment(initial_time=0), Recorder(record)
    server = Server(
        env, requests, table, cache,
        energy=energy, warmup_s=warmup_s, max_batch=max_batch, prefill_chunk=prefill_chunk, recorder=recorder,
    )  # fmt: skip
    events, partial = 0, False
    try:
        while env.peek() != float("inf"):
            env.step()
            events += 1
            if progress and events % _PROGRESS_EVERY == 0:
                progress(len(server.done) / len(requests))
    except KeyboardInterrupt:
        partial = True
    observed_s, page_bytes = max(0.0, to_seconds(env.now) - warmup_s), cache.page_tokens * cache.bytes_per_token
    return ServingResult(
        latency_s=observed_s,
        requests=tuple(r for r in server.done if r.arrival_s >= warmup_s),
        ended=tuple(r for r in server.done if r.finish_s >= warmup_s),
        steps=server.steps,
        events=events,
        mean_batch=server.batch_sum / server.steps if server.steps else 0.0,
        largest_batch=server.largest_batch,
        peak_kv_bytes=(cache.pages - server.lowest_free) * page_bytes,
        kv_capacity_bytes=cache.pages * page_bytes,
        preemptions=server.preemptions,
        utilization=to_seconds(server.busy) / (table.stages * observed_s) if observed_s else 0.0,
        energy_j=server.energy_j + (idle_power_w or 0.0) * observed_s if energy and idle_power_w != inf else None,
        ttft_deadline_s=ttft_deadline_s,
        tpot_deadline_s=tpot_deadline_s,
        timeline=recorder.timeline(),
        overdue=server.overdue(warmup_s, ttft_deadline_s),
        seed=seed,
        partial=partial,
    )
