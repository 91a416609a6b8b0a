"""Measure points on this machine and append each record at once.

No printing: progress goes to a callback. Nothing here needs more than torch, NumPy and PyYAML, so that
a machine with a GPU and little else can run a grid.
"""

from __future__ import annotations

import gc
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from sim.baseline.device import CpuDevice, CudaDevice, open_device
from sim.baseline.grid import Point, in_turn, make_point
from sim.baseline.nvml import held_down
from sim.baseline.ops import OP_KINDS, Work, op_spec
from sim.baseline.peaks import bound_s
from sim.baseline.record import BaselineRecord, Kind, Mode, Phase, append_record, claimed, read_baseline
from sim.baseline.samplers import (
    MAX_GRAPH_CALLS,
    SAMPLE_S,
    Call,
    captured,
    copies_for_cold,
    cpu_sampler,
    cuda_eager_sampler,
    energy_per_call_j,
    keep_freed_memory,
    repeated,
    rotation,
)
from sim.baseline.timing import HELD_DOWN_FLOOR, Plan, Timing, calls_per_sample, repeat, with_floor
from sim.baseline.workloads import CUDA_METHOD, INT8_METHOD, build_workload, resolve_knobs, workload_work
from sim.errors import DovetailError, MeasurementError, expect, nearest

ONE_PROCESS = (
    "launched one by one from one process: the host's pace differs between processes by more than is stated, measure "
    "with --rounds"
)
"""Mark of an eager record of a GPU. On the H200 pairs of processes differed by 6 to 12 % in the median, a few points by
half and more, whatever the scatter within each was."""
CLOCK_CHANGE = 0.05
"""Relative change of the clock between the start and the end of a point above which the record is marked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What every record of a run shares."""

    command: str = ""
    commit: str = ""
    env: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A point ready to be timed."""

    calls: Sequence[Call]
    work: Work | None
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run over a grid did."""

    records: tuple[BaselineRecord, ...]
    skipped: tuple[tuple[Point, str], ...]
    already: int
    """Points that the file already held."""
    left: int = 0
    """Points not reached before the time was up."""


def measure(
    target: str, *, device: str = "cpu", precision: str = "fp32", mode: str = "eager", phase: str = "warm",
    knobs: Mapping[str, object] | None = None, threads: int | None = None, plan: Plan | None = None,
) -> BaselineRecord:  # fmt: skip
    """Measure one op (a name of `sim.baseline.ops.OP_KINDS`) or workload here and now.

    `plan` says when to stop; a noisy machine gives a record without `median_s` and with the reason in `marks`.

    Raises: MeasurementError: no such device, too little memory, a combination that torch does not offer;
        WorkloadError: an unknown workload or knob.
    """
    expect(target, str, "the name of an op or a workload", where="measure", error=MeasurementError)
    if not target:
        raise MeasurementError("measure: expected the name of an op or a workload, got ''")
    expect(device, str, 'a device such as "cpu"', where="measure: device", error=MeasurementError)
    expect({} if knobs is None else knobs, Mapping, 'a map such as {"m": 64}', where="measure: knobs",
           error=MeasurementError)  # fmt: skip
    expect(plan or Plan(), Plan, "a sim.baseline.timing.Plan", where="measure: plan", error=MeasurementError)
    for what, value, enum in (("mode", mode, Mode), ("phase", phase, Phase)):
        if value not in list(enum):
            raise MeasurementError(f"measure: {what} is {value!r}, expected {', '.join(enum)}.{nearest(value, enum)}")
    is_op = target in OP_KINDS
    point = make_point(
        op=target if is_op else None,
        workload=None if is_op else target,
        knobs=knobs or {},
        precision=precision,
        mode=Mode(mode),
        phase=Phase(phase),
        plan=plan or Plan(),
    )
    point = resolved(point, strict=True)
    machine = open_device(device, threads)
    prepare_process(machine)
    return measure_point(point, machine, origin(machine, command=f"measure({target!r})"))


def prepare_process(machine: CpuDevice | CudaDevice) -> None:
    """Threads, pinning, allocator: settings of this process that hold for all points."""
    import torch

    torch.manual_seed(0)
    if isinstance(machine, CpuDevice):
        machine.pin()
        torch.set_num_threads(machine.threads)
        keep_freed_memory()


def origin(machine: CpuDevice | CudaDevice, *, command: str, commit: str | None = None) -> Origin:
    """Environment of a run. `commit` overrides what git says, for a copy without history."""
    import torch

    env = {**machine.env(), "torch": torch.__version__}
    if isinstance(machine, CpuDevice):
        env |= {"quantized_engine": torch.backends.quantized.engine, "mkldnn": torch.backends.mkldnn.is_available()}
    return Origin(command=command, commit=commit if commit is not None else git_commit(), env=env)


def git_commit() -> str:
    """Short commit of the checkout that holds this file, with "+" when files differ; "" outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).resolve().parent
        try:
            done = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short", "HEAD")
    return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "")


def prepare(point: Point, machine: CpuDevice | CudaDevice) -> Prepared:
    """Build the operands or the model. Raises: MeasurementError: with the reason why this point cannot be."""
    if point.precision == "tf32" and machine.backend == "cpu":
        raise MeasurementError("tf32 is a mode of CUDA tensor cores: measure fp32 on the CPU")
    if point.mode is Mode.GRAPH and machine.backend == "cpu":
        raise MeasurementError("graph replay is a mode of CUDA: eager and compile are measured on the CPU")
    return _prepare_op(point, machine) if point.op else _prepare_workload(point, machine)


def _prepare_op(point: Point, machine: CpuDevice | CudaDevice) -> Prepared:
    import torch

    from sim.baseline.builders import build_op

    spec = op_spec(point.target, point.knobs, point.precision)
    if machine.backend not in OP_KINDS[spec.kind].backends:
        raise MeasurementError(
            f"{spec.kind} runs on {', '.join(OP_KINDS[spec.kind].backends)}, not on {machine.backend}"
        )
    work = spec.work
    cold = point.phase is Phase.COLD
    if cold and point.mode is Mode.COMPILE:
        raise MeasurementError("compile is measured warm: each rotated operand set would be compiled anew")
    copies = copies_for_cold(work.in_bytes, machine.cache_bytes) if cold else 1
    needed = copies * (work.in_bytes + work.out_bytes) * 2
    if needed > 0.8 * machine.free_bytes():
        raise MeasurementError(
            f"too little memory: {needed / 2**30:.1f} GiB needed, {machine.free_bytes() / 2**30:.1f} GiB free"
        )
    calls = [build_op(spec, machine.backend) for _ in range(copies)]
    if point.mode is Mode.COMPILE:
        calls = [torch.compile(calls[0])]
    state = f"{copies} operand sets rotated" if cold else "one operand set reused"
    return Prepared(calls=calls, work=work, method=f"{state}, outputs from the framework's allocator")


def _prepare_workload(point: Point, machine: CpuDevice | CudaDevice) -> Prepared:
    name = point.workload_path or point.workload or ""
    work = workload_work(name, point.knobs, point.precision)
    call = build_workload(
        name, point.knobs, precision=point.precision, device=machine.backend, compiled=point.mode is Mode.COMPILE,
        free_bytes=machine.free_bytes(),
    )  # fmt: skip
    method = "whole forward pass without gradients, inputs already on the device"
    method += f"; {CUDA_METHOD}" if machine.backend == "cuda" else ""
    return Prepared(calls=[call], work=work, method=f"{method}; {INT8_METHOD}" if point.precision == "int8" else method)


def measure_point(point: Point, machine: CpuDevice | CudaDevice, run: Origin) -> BaselineRecord:
    """Time one point. Raises: MeasurementError: why it cannot be measured; the caller skips it."""
    import torch

    with torch.inference_mode():
        set_tf32(point.precision == "tf32")
        try:
            ready = prepare(point, machine)
            timed = _time_cpu if isinstance(machine, CpuDevice) else _time_cuda
            machine.disturbed()
            timing, clocks, energy_j, power_w, method = timed(ready, point, machine)  # type: ignore[arg-type]
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise MeasurementError(f"too little memory: {str(error).splitlines()[0]}") from error
        except DovetailError:
            raise
        except Exception as error:  # whatever torch raises is this point's reason, not the run's end
            text = str(error).strip().splitlines()
            raise MeasurementError(f"{type(error).__name__}: {text[0] if text else 'no message'}") from error
    noise = [reason for reason in (machine.disturbed(), timing.reason) if reason]
    marks = noise + [reason for reason in (machine.throttled(),) if reason]
    marks += clock_marks(clocks)
    spread = timing.spread
    if held_down(marks):
        spread = with_floor(spread, median_s=timing.median_s, floor=HELD_DOWN_FLOOR)
    if machine.backend == "cuda" and point.mode is not Mode.GRAPH and not noise:
        marks.append(ONE_PROCESS)
    bound = _bound(ready.work, point, machine)
    marks += [] if noise else bound_marks(timing.median_s, bound)
    return BaselineRecord(
        device=machine.key, backend=machine.backend, kind=Kind.MEASURED, op=point.op, workload=point.workload,
        knobs=point.knobs, precision=point.precision, mode=point.mode, phase=point.phase, threads=machine.threads,
        median_s=None if noise else timing.median_s, spread=spread, n=len(timing.samples_s),
        outliers_s=timing.outliers_s, noisy=bool(noise), energy_j=energy_j, clocks=clocks, power_w=power_w,
        work=ready.work.to_dict() if ready.work else {}, bound_s=bound, marks=tuple(marks), env=run.env,
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), command=run.command, method=f"{method}; {ready.method}",
        commit=run.commit,
    )  # fmt: skip


def set_tf32(allowed: bool) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def _bound(work: Work | None, point: Point, machine: CpuDevice | CudaDevice) -> float | None:
    if work is None:
        return None
    return bound_s(
        macs=work.macs, in_bytes=work.in_bytes, out_bytes=work.out_bytes, peaks=machine.peaks,
        precision="int4" if point.precision == "w4a16" else point.precision, cold=point.phase is Phase.COLD,
        algorithm_gain=work.algorithm_gain,
    )  # fmt: skip


def bound_marks(median_s: float, bound: float | None) -> list[str]:
    """A mark when a time beats its physical bound: the count of work or the measurement is wrong."""
    if bound is None or median_s >= bound:
        return []
    return [f"below the physical bound of {bound:.3g} s: the operands were cached, or the work is counted too high"]


def clock_marks(clocks: Mapping[str, float]) -> list[str]:
    """A mark when the core clock moved by more than CLOCK_CHANGE during the point."""
    before, after = clocks.get("core_hz_before"), clocks.get("core_hz_after")
    if not before or not after or abs(after / before - 1) <= CLOCK_CHANGE:
        return []
    return [f"core clock changed from {before / 1e9:.2f} to {after / 1e9:.2f} GHz"]


def _clocks(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_before": v for name, v in before.items()} | {f"{name}_after": v for name, v in after.items()}


_Timed = tuple[Timing, dict[str, float], float | None, float | None, str]


def _time_cpu(ready: Prepared, point: Point, machine: CpuDevice) -> _Timed:
    call = rotation(ready.calls)
    call()
    start = time.perf_counter()
    call()
    inner = calls_per_sample(time.perf_counter() - start, sample_s=SAMPLE_S["cpu"])
    before = machine.clocks()
    timing = repeat(cpu_sampler(call, inner=inner), clock=time.perf_counter, plan=point.plan)
    clocks = _clocks(before, machine.clocks())
    energy_j = energy_per_call_j(
        call, calls=1, energy_j=machine.energy_j, synchronise=lambda: None, window_s=point.energy_s
    )
    method = (
        f"perf_counter_ns around {inner} calls, {machine.threads} threads on cores {machine.cores[: machine.threads]}"
    )
    return timing, clocks, energy_j, None, method


def _time_cuda(ready: Prepared, point: Point, machine: CudaDevice) -> _Timed:
    import torch

    call, copies = rotation(ready.calls), len(ready.calls)
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    once = cuda_eager_sampler(call, inner=1)
    call_s = min(once() for _ in range(3))
    inner = calls_per_sample(call_s, sample_s=SAMPLE_S["cuda"], at_least=min(copies, 16), at_most=MAX_GRAPH_CALLS)
    if point.mode is Mode.GRAPH:
        inner = max(inner, copies)
        graph = captured(ready.calls, inner=inner)
        replay = cuda_eager_sampler(graph.replay, inner=1)
        run, sample = graph.replay, lambda: replay() / inner
        method = f"CUDA events around the replay of a graph of {inner} calls"
    else:
        sample = cuda_eager_sampler(call, inner=inner)
        run = repeated(call, inner)
        method = f"CUDA events around {inner} calls launched one by one"
    for _ in range(3):
        sample()
    before = machine.clocks()
    timing = repeat(sample, clock=time.perf_counter, plan=point.plan)
    clocks = _clocks(before, machine.clocks())
    energy_j = energy_per_call_j(
        run, calls=inner, energy_j=machine.energy_j, synchronise=torch.cuda.synchronize, window_s=point.energy_s
    )
    power_w = machine.power_w()
    if energy_j is not None:
        method += f"; energy over {point.energy_s} s of repetitions, idle power included"
    return timing, clocks, energy_j, power_w, method


def measure_points(
    points: Sequence[Point], *, machine: CpuDevice | CudaDevice, output: Path, run: Origin,
    progress: Callable[[str], None] = lambda line: None, time_limit_s: float | None = None,
    measure_one: Callable[..., BaselineRecord] | None = None, clock: Callable[[], float] = time.perf_counter,
) -> Outcome:  # fmt: skip
    """Measure what `output` does not hold yet, by `measure_one` (default `measure_point`); append each at once.

    A point that cannot be measured is skipped with its reason; after `time_limit_s` no further point
    is begun, and running again goes on where it stopped. With a limit, ops and workloads take turns.

    Raises: MeasurementError: `output` cannot be written, or the device is lost.
    """
    with claimed(output, progress):
        return _measure_points(
            points, machine, output, run, progress, time_limit_s, measure_one or measure_point, clock
        )


def _measure_points(
    points: Sequence[Point], machine: CpuDevice | CudaDevice, output: Path, run: Origin,
    progress: Callable[[str], None], time_limit_s: float | None, measure_one: Callable[..., BaselineRecord],
    clock: Callable[[], float],
) -> Outcome:  # fmt: skip
    held = read_baseline(output)
    held.name_broken(progress)
    points = [resolved(point) for point in (points if time_limit_s is None else in_turn(points))]
    todo = [p for p in points if p.key(machine.key, machine.threads) not in held.finished]
    records: list[BaselineRecord] = []
    skipped: list[tuple[Point, str]] = []
    start = clock()
    for number, point in enumerate(todo):
        elapsed = clock() - start
        if time_limit_s is not None and elapsed > time_limit_s:
            progress(
                f"time limit of {time_limit_s:.3g} s reached, {len(todo) - number} points left: run again to go on"
            )
            return Outcome(
                records=tuple(records), skipped=tuple(skipped), already=len(points) - len(todo), left=len(todo) - number
            )
        left = f", {elapsed / number * (len(todo) - number):.0f} s left" if number else ""
        try:
            record = measure_one(point, machine, run)
            append_record(output, record)
            records.append(record)
            progress(f"[{number + 1}/{len(todo)}{left}] {point}: {describe(record)}")
        except DovetailError as error:
            skipped.append((point, str(error)))
            progress(f"[{number + 1}/{len(todo)}{left}] {point}: skipped, {error}")
            _stop_if_lost(machine, error)
        _release(machine, compiled=point.mode is Mode.COMPILE)
    return Outcome(records=tuple(records), skipped=tuple(skipped), already=len(points) - len(todo))


def resolved(point: Point, *, strict: bool = False) -> Point:
    """A workload point with its short name and all knobs, so that defaults written out or not make one key.

    A workload that cannot be found is left as it is, and measuring it will say why; unless `strict`.

    Raises: WorkloadError: an unknown workload or knob, if `strict`.
    """
    if point.workload is None or point.workload_path:
        return point
    try:
        name, knobs = resolve_knobs(point.workload, point.knobs)
    except DovetailError:
        if strict:
            raise
        return point
    return replace(point, workload=name, workload_path=point.workload, knobs=knobs)


def describe(record: BaselineRecord) -> str:
    """One line: time, spread, marks."""
    marks = f" [{'; '.join(record.marks)}]" if record.marks else ""
    if record.median_s is None:
        return f"too noisy for a number{marks}"
    spread = record.spread.stated_s / record.median_s if record.spread else 0.0
    return f"{record.median_s * 1e6:.1f} us +-{spread:.1%}, n={record.n}{marks}"


def _stop_if_lost(machine: CpuDevice | CudaDevice, cause: DovetailError) -> None:
    """After a fault in a kernel no further call of this process works: end the run, its records are safe."""
    if machine.backend != "cuda":
        return
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise MeasurementError(f"the GPU stopped answering ({cause}): start again, finished points are kept") from error


def _release(machine: CpuDevice | CudaDevice, *, compiled: bool) -> None:
    import torch

    if compiled:
        torch.compiler.reset()
    gc.collect()
    if machine.backend == "cuda":
        torch.cuda.empty_cache()
