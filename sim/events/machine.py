"""The machine: unit instances that run one group at a time, ports that are shared, jobs that come.

A job is one execution of a schedule. Its groups become ready when the groups they depend on have
ended and it is their turn on their unit instance (issue order); among the ready groups of all jobs
the unit's policy chooses. Unit instances are SimPy processes. A prefetch for the next group is moved
when the engine's own chain of a step has ended and the array still computes: it uses the idle time
of the DMA engine. What happens inside a group is told by `Channels` (every tile an event chain) or by
the `Kernel` (folded).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field

import simpy

from sim.events.channels import ROUNDING_TICKS, Channels, DmaQueues
from sim.events.kernel import Kernel
from sim.events.policies import Policy
from sim.events.ticks import CHOOSE, Clock
from sim.events.timeline import Recorder
from sim.events.work import Phase, Work

_TRACK = {"compute": "array", "load": "dma", "store": "dma", "inner": "dma", "setup": "dma", "latency": "dma"}


@dataclass(frozen=True, kw_only=True)
class Program:
    """A schedule made ready for one place: a compiled group and a unit instance for each position."""

    works: tuple[Work, ...]
    engines: tuple[str, ...]
    """Unit instance of each group, such as "NPU[1]"."""
    deps: tuple[tuple[int, ...], ...]
    waits: tuple[int, ...]
    """How many groups must end before each: those it depends on and the one before on its engine."""
    releases: tuple[tuple[int, ...], ...]
    """The groups that wait for each."""
    following: tuple[int | None, ...]
    """The next group on the same engine."""
    held_bytes: tuple[Mapping[str, float], ...] = ()
    """Memory -> bytes held from the start of each group to that of the next."""
    lasting_bytes: Mapping[str, float] = field(default_factory=dict)
    """Of these, what the stream holds all the time: weights and caches."""
    energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group of one job: when it could run, ran and ended (ticks)."""

    at: int
    ready: int
    start: int
    end: int


class Job:
    """One execution of a program. `finish` is None until it has ended."""

    def __init__(
        self,
        program: Program,
        *,
        stream: str,
        number: int,
        listed: int,
        release: int,
        deadline: int | None,
        priority: int,
        period: int | None,
        done: simpy.Event,
    ) -> None:
        self.program = program
        self.stream = stream
        self.number = number
        self.listed = listed
        """Position of its stream among all."""
        self.release = release
        self.deadline = deadline
        self.priority = priority
        self.period = period
        self.done = done
        self.start: int | None = None
        self.finish: int | None = None
        self.records: list[GroupRecord] = []
        self.waiting = list(program.waits)
        self.prefetched: dict[int, float] = {}
        """Position -> share of its prefetch that is done."""
        self.held: dict[str, float] = {}
        """Memory -> bytes held now, beyond what its stream holds all the time."""

    @property
    def age(self) -> tuple[int, int, int]:
        """Which job is the older one: by release, then the stream listed first, then by number. No two are alike, or
        jobs released together would take turns group by group."""
        return self.release, self.listed, self.number

    @property
    def ended(self) -> int:
        """Tick of its end; asked only of jobs that have ended."""
        assert self.finish is not None
        return self.finish


@dataclass(slots=True, eq=False)
class Task:
    """A group of a job that is ready."""

    job: Job
    at: int
    ready: int

    @property
    def work(self) -> Work:
        return self.job.program.works[self.at]

    @property
    def name(self) -> str:
        return self.work.group.name

    @property
    def alone(self) -> int:
        return self.work.launch + self.work.total


class Engine:
    """One unit instance."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.ready = machine.policy.queue()
        self.busy = 0
        """Ticks with a group on it, launches included."""
        self.wake = machine.env.event()
        machine.env.process(self._run())

    def offer(self, task: Task) -> None:
        self.ready.add(task)
        if not self.wake.triggered:
            self.wake.succeed()

    def _run(self) -> Iterator[simpy.Event]:
        env = self.machine.env
        while True:
            # The choice is among all that comes at this tick, such as the next job of a closed stream.
            if env.peek() == env.now:
                yield env.after_all(CHOOSE)
            task, again = self.ready.take(env.now)
            if task is None:
                self.wake = env.event()
                yield self.wake if again is None else self.wake | env.timeout(again - env.now)
                continue
            start = env.now
            yield from self.machine.execute(self, task)
            self.busy += env.now - start
            self.machine.complete(self, task, start)


class Machine:
    """All engines and ports, and the jobs on them."""

    def __init__(
        self,
        env: Clock,
        policy: Policy,
        *,
        expand: bool,
        port_priority: bool,
        recorder: Recorder,
        queues: DmaQueues,
    ) -> None:
        self.env = env
        self.policy = policy
        self.port_priority = port_priority
        self.recorder = recorder
        self.queues = queues
        self.ports: Channels | Kernel = Channels(env, queues) if expand else Kernel(env, queues)
        self.engines: dict[str, Engine] = {}
        self.lasting: set[str] = set()
        """Streams whose weights are in memory."""

    @property
    def contended(self) -> int:
        """Ticks in which some transfer ran slower than alone."""
        return self.ports.contended

    @property
    def moved_bytes(self) -> dict[str, float]:
        """Bytes per port so far."""
        return self.ports.moved

    @property
    def arithmetic_steps(self) -> int:
        """Phases that were passed without an event; 0 where every tile is one."""
        return self.ports.steps if isinstance(self.ports, Kernel) else 0

    def submit(self, job: Job) -> None:
        """Releases a job now: its first groups become ready."""
        stream = job.stream.partition("[")[0]
        if stream not in self.lasting:  # its copies share one set of weights
            self.lasting.add(stream)
            for memory, held in job.program.lasting_bytes.items():
                self._count(stream, memory, held)
        for engine in dict.fromkeys(job.program.engines):
            if engine not in self.engines:
                self.engines[engine] = Engine(self, engine)
        for at, waiting in enumerate(job.waiting):
            if waiting == 0:
                self._offer(job, at)

    def _offer(self, job: Job, at: int) -> None:
        self.engines[job.program.engines[at]].offer(Task(job, at, self.env.now))

    def execute(self, engine: Engine, task: Task) -> Iterator[simpy.Event]:
        """Runs one group: launch, then its body; without an event where none can come between."""
        job, work = task.job, task.work
        if job.start is None:
            job.start = self.env.now
        self._hold(job, job.program.held_bytes[task.at])
        work = work.without(job.prefetched.pop(task.at, 0.0))
        following = job.program.following[task.at]
        prefetch = job.program.works[following].prefetch if following is not None else None
        priority = job.priority if self.port_priority else 0
        end, ports = self.env.now + work.launch + work.total, self.ports
        if isinstance(ports, Kernel) and ports.idle and end < self.env.peek():
            self.env.skip(end)
            left = ports.at_once(work, prefetch)
        else:
            if work.launch:
                yield self.env.timeout(work.launch)
            if isinstance(ports, Kernel):
                running = ports.start(work, prefetch, priority, engine.name)
                yield running.done
                left = running.prefetch_left
            else:
                left = yield from self._expand(ports, engine, task, work, prefetch, priority)
        if following is not None and prefetch and prefetch.ticks:
            job.prefetched[following] = 1.0 - left / prefetch.ticks

    def _expand(
        self, channels: Channels, engine: Engine, task: Task, work: Work, prefetch: Phase | None, priority: int
    ) -> Generator[simpy.Event, object, float]:
        """Every tile: the chain on the DMA engine beside the compute on the array, then the barrier. Returns the ticks
        of `prefetch` that are left."""
        env, left = self.env, float(prefetch.ticks) if prefetch else 0.0
        for j in range(len(work.repeat)):
            step = work.step(j)
            for _ in range(int(work.repeat[j])):
                computing = env.timeout(step.compute) if step.compute else None
                if computing is not None:
                    self._log(engine, task, "compute", env.now, env.now + step.compute)
                for phase in step.chain:
                    start = env.now
                    if phase.uses:
                        yield channels.start(phase, priority, engine=engine.name).done
                    else:
                        yield env.timeout(phase.ticks)
                    self._log(engine, task, phase.label, start, env.now)
                if computing is None or computing.processed:
                    continue
                idle = env.now
                if prefetch and prefetch.uses and left > ROUNDING_TICKS:
                    transfer = channels.start(prefetch, priority, left, engine.name)
                    yield transfer.done | computing
                    left = channels.cancel(transfer)
                if not computing.processed:
                    yield computing
                if prefetch and not prefetch.uses:
                    left = max(0.0, left - (env.now - idle))
        return left

    def _log(self, engine: Engine, task: Task, label: str, start: int, end: int) -> None:
        track = f"{engine.name}.{_TRACK[label]}"
        self.recorder.slice(track, task.name, start, end, label, task.job.stream, task.job.number)

    def complete(self, engine: Engine, task: Task, start: int) -> None:
        """Ends a group: records it and releases what waited for it."""
        job, now = task.job, self.env.now
        job.records.append(GroupRecord(task.at, task.ready, start, now))
        self.recorder.slice(engine.name, task.name, start, now, "group", job.stream, job.number)
        for at in job.program.releases[task.at]:
            job.waiting[at] -= 1
            if job.waiting[at] == 0:
                self._offer(job, at)
        if len(job.records) == len(job.program.works):
            job.finish = now
            self._hold(job, dict.fromkeys(job.held, 0.0))
            if job.deadline is not None and now > job.deadline:
                self.recorder.instant(engine.name, f"{job.stream}: deadline missed", now)
            job.done.succeed(job)

    def _hold(self, job: Job, held: Mapping[str, float]) -> None:
        """A job's memory changes to `held`; what its stream keeps all the time is counted there."""
        for memory, amount in held.items():
            own = max(0.0, amount - job.program.lasting_bytes.get(memory, 0.0))
            change = own - job.held.get(memory, 0.0)
            if change:
                job.held[memory] = own
                self._count(job.stream.partition("[")[0], memory, change)

    def _count(self, stream: str, memory: str, change: float) -> None:
        self.recorder.add(f"{memory} bytes", self.env.now, change)
        self.recorder.add(f"{memory} bytes: {stream}", self.env.now, change)
