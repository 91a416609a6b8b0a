"""Folding: groups under way are advanced by arithmetic between the events of everything else.

A group that shares no port with another one under way is a single job whose end is known in closed
form (run-length sums over its step classes). As soon as another group arrives on one of its ports
it is taken up where it stands, in the middle of a step if need be, and the groups that share are
advanced phase by phase, with speeds re-solved max-min fair at each change, in plain arithmetic and
without events. When it is alone again it becomes one job again at its next step. So the kernel
costs one event per start and end of a group, and answers to the tick as the expanded simulation.

A group that is one fluid phase (see `sim.events.summary`) is treated alike: there nothing but the
starts and ends of groups changes the speeds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import simpy

from sim.events.channels import _ALONE, ROUNDING_TICKS, DmaQueues, Sharing, ticks_left
from sim.events.fluid import Demand, Uses
from sim.events.ticks import ADVANCE, Clock
from sim.events.work import Phase, Step, Work

_NEVER = float("inf")
_NOTHING = Step(0, ())
"""The step of a job that has not been taken up yet."""


class Running:
    """A group under way: either `folded` (only its end matters) or at a phase of a step."""

    __slots__ = (
        "asked", "base", "compute_end", "done", "engine", "folded", "j", "k", "left", "number", "phase", "ports",
        "prefetch", "prefetch_left", "priority", "remaining", "since", "slack_base", "speed", "step", "waits", "work",
    )  # fmt: skip

    def __init__(
        self, work: Work, prefetch: Phase | None, priority: int, engine: str, queue: str | None, done: simpy.Event
    ) -> None:
        self.work = work
        self.engine = engine
        self.asked = 0
        self.waits = False
        self.prefetch = prefetch
        self.prefetch_left = float(prefetch.ticks) if prefetch else 0.0
        self.ports = work.used_ports | {port for port, _ in prefetch.uses} if prefetch else work.used_ports
        if queue and self.ports:
            self.ports |= {queue}
        self.priority = priority
        self.done = done
        self.folded = False
        self.since = self.base = self.slack_base = 0
        self.j = self.left = self.k = 0
        self.step = _NOTHING
        self.phase: Phase | None = None
        self.remaining = 0.0
        self.compute_end = 0
        self.speed = 1.0

    @property
    def uses(self) -> Uses:
        """What it asks of the ports in this phase."""
        return self.phase.uses if self.phase is not None else ()

    @property
    def end(self) -> int:
        """When a folded job ends."""
        return self.since + self.work.total - self.base

    def fold(self, now: int) -> None:
        """From the border of a step on: only the end counts."""
        repeats = int(self.work.repeat[self.j])
        done = repeats - self.left
        per_step = int(self.work.alone[self.j])
        idle = max(0, int(self.work.compute[self.j]) - int(self.work.moves[self.j]))
        self.folded, self.since = True, now
        self.base = int(self.work.cumulative[self.j]) + done * per_step
        self.slack_base = int(self.work.slack[self.j]) + done * idle

    def finish(self) -> None:
        """A folded job is over: what of the prefetch fitted into the idle time of its DMA engine?"""
        self.prefetch_left = max(0.0, self.prefetch_left - (int(self.work.slack[-1]) - self.slack_base))

    def unfold(self, now: int) -> None:
        """Takes the job up at `now`, in the middle of a step."""
        work, position = self.work, self.base + now - self.since
        self.folded = False
        self.j = min(bisect_right(work.cumulative, position) - 1, len(work.repeat) - 1)
        into = position - int(work.cumulative[self.j])
        per_step = max(1, int(work.alone[self.j]))
        done, within = divmod(into, per_step)
        self.left = int(work.repeat[self.j]) - done
        self.step = work.step(self.j)
        idle_per_step = max(0, self.step.compute - int(work.moves[self.j]))
        idle_here = min(idle_per_step, max(0, within - int(work.moves[self.j])))
        slack = int(work.slack[self.j]) + done * idle_per_step + idle_here - self.slack_base
        self.prefetch_left = max(0.0, self.prefetch_left - slack)
        self.compute_end = now - within + self.step.compute
        self.k, self.phase = 0, None
        for k, phase in enumerate(self.step.chain):
            if within < phase.ticks:
                self.k, self.phase, self.remaining = k, phase, float(phase.ticks - within)
                self.asked = now - within
                return
            within -= phase.ticks
        self.k = len(self.step.chain)
        if self.prefetch_left > ROUNDING_TICKS and self.compute_end > now:
            self.phase, self.remaining, self.asked = self.prefetch, self.prefetch_left, now - within


class Kernel:
    """Advances all running groups; one SimPy process for the whole machine."""

    def __init__(self, env: Clock, queues: DmaQueues | None = None) -> None:
        self.env = env
        self.queues = queues or DmaQueues()
        self.running: list[Running] = []
        self.contended = 0
        self.moved: dict[str, float] = {}
        self.steps = 0
        """Phase changes done by arithmetic."""
        self._sharing = Sharing()
        self._now = 0
        self._wake = env.event()
        env.process(self._run())

    @property
    def idle(self) -> bool:
        return not self.running

    def at_once(self, work: Work, prefetch: Phase | None) -> float:
        """A group that ran from start to end beside nothing; returns the ticks left of `prefetch`."""
        self._count(work)
        return max(0.0, prefetch.ticks - int(work.slack[-1])) if prefetch else 0.0

    def start(self, work: Work, prefetch: Phase | None, priority: int, engine: str = "") -> Running:
        """Begins a group's body now; the returned job's `done` happens at its end."""
        job = Running(work, prefetch, priority, engine, self.queues.name(engine), self.env.event())
        self._advance(self.env.now)
        self.running.append(job)
        job.left = int(work.repeat[0])
        if self._alone(job):
            job.fold(self.env.now)
        else:
            for other in self.running:
                if other.folded and not self._alone(other) and other.end > self.env.now:
                    other.unfold(self.env.now)
            self._enter_class(job, 0)
        if not self._wake.triggered:
            self._wake.succeed()
        return job

    def _alone(self, job: Running) -> bool:
        """Whether it shares no port with another group under way (its prefetch included)."""
        return all(other is job or job.ports.isdisjoint(other.ports) for other in self.running)

    def _run(self) -> Iterator[simpy.Event]:
        while True:
            if not self.running:
                self._wake = self.env.event()
                yield self._wake
                continue
            self._advance(self.env.peek())
            ended = [job for job in self.running if self._over(job)]
            if self._now > self.env.now:
                yield self.env.timeout(self._now - self.env.now)
                ended = [job for job in self.running if self._over(job)]
            elif not ended:
                yield self.env.after_all(ADVANCE)
                continue
            for job in ended:
                self._end(job)

    def _over(self, job: Running) -> bool:
        return job.end <= self._now if job.folded else job.j >= len(job.work.repeat)

    def _end(self, job: Running) -> None:
        self.running.remove(job)
        if job.folded:
            job.finish()
        self._count(job.work)
        job.done.succeed()

    def _count(self, work: Work) -> None:
        for port, amount in work.moved_bytes.items():
            self.moved[port] = self.moved.get(port, 0.0) + amount

    def _advance(self, horizon: float) -> None:
        """Moves the state on to `horizon`, or to the first end of a group before it."""
        while self._now < horizon:
            single = [job for job in self.running if not job.folded]
            if not single:  # the common case: nothing but ends matter
                until = min([job.end for job in self.running], default=_NEVER)
                if until <= self._now or horizon == until == _NEVER:
                    return
                self._now = int(min(until, horizon))
                continue
            if any(self._over(job) for job in self.running):
                return
            for job in single:
                self._settle(job)
            if any(self._over(job) for job in self.running):
                return
            single = [job for job in single if not job.folded]
            moving = [job for job in single if job.uses]
            self._solve(moving)
            until = self._next(single, horizon)
            if until == _NEVER:
                return
            self._move(single, moving, int(until) - self._now)
            self._now = int(until)
        for job in [job for job in self.running if not job.folded]:
            self._settle(job)

    def _solve(self, asking: list[Running]) -> None:
        for job in asking:
            job.waits = False
        moving = self.queues.admitted(asking, _hold)
        if len(moving) == 1 and not any(use > 1 for _, use in moving[0].uses):
            moving[0].speed = 1.0
        elif moving:
            speeds = self._sharing.speeds(tuple(Demand(job.uses, job.priority) for job in moving))
            for job, speed in zip(moving, speeds, strict=True):
                job.speed = speed

    def _next(self, single: list[Running], horizon: float) -> float:
        until = horizon
        for job in self.running:
            if job.folded:
                until = min(until, job.end)
        for job in single:
            if job.phase is None or (job.k == len(job.step.chain) and job.prefetch is not None):
                until = min(until, job.compute_end)
            if job.phase is not None:
                speed = job.speed if job.phase.uses else 1.0
                until = min(until, self._now + ticks_left(job.remaining, speed))
        return until

    def _move(self, single: list[Running], moving: list[Running], elapsed: int) -> None:
        if any(job.speed < _ALONE for job in moving):
            self.contended += elapsed
        for job in single:
            if job.phase is None:
                continue
            if job.waits and job.phase.uses:
                self.queues.wait(job.engine, elapsed)
            job.remaining -= elapsed * (job.speed if job.phase.uses else 1.0)
            if job.k == len(job.step.chain):
                job.prefetch_left = max(0.0, job.remaining)

    def _settle(self, job: Running) -> None:
        """Passes every phase and step border that lies at the present moment."""
        while job.j < len(job.work.repeat):
            fetching = job.k == len(job.step.chain)
            under_way = job.phase is not None and job.remaining > ROUNDING_TICKS
            if under_way and (not fetching or job.compute_end > self._now):
                return
            self.steps += 1
            if job.phase is not None and not fetching:
                job.k += 1
            job.phase = None
            if job.k < len(job.step.chain):
                self._begin_phase(job, job.step.chain[job.k])
                continue
            if job.compute_end > self._now:
                if job.prefetch_left > ROUNDING_TICKS:
                    job.phase, job.remaining, job.asked = job.prefetch, job.prefetch_left, self._now
                return
            job.left -= 1
            if job.left == 0:
                if not self._enter_class(job, job.j + 1):
                    return
            else:
                self._begin_step(job)
            if self._alone(job):
                job.fold(self._now)
                return

    def _enter_class(self, job: Running, j: int) -> bool:
        job.j = j
        while job.j < len(job.work.repeat) and int(job.work.repeat[job.j]) == 0:
            job.j += 1
        if job.j >= len(job.work.repeat):
            job.phase = None
            return False
        job.left = int(job.work.repeat[job.j])
        job.step = job.work.step(job.j)
        self._begin_step(job)
        return True

    def _begin_step(self, job: Running) -> None:
        job.compute_end = self._now + job.step.compute
        job.k, job.phase = 0, None
        if job.step.chain:
            self._begin_phase(job, job.step.chain[0])

    def _begin_phase(self, job: Running, phase: Phase) -> None:
        job.phase, job.remaining, job.asked, job.waits = phase, float(phase.ticks), self._now, False


def _hold(job: Running) -> None:
    job.speed, job.waits = 0.0, True
