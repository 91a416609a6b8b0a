"""Every bundled workload on every bundled chip: an answer or a reasoned refusal, in how much time, and law 1.

    python benchmarks/matrix.py [--workload NAME ...] [--hw NAME ...] [-p KNOB=VALUE ...] [--what-if] [--no-law]
                                [--bound 60] [--limit 240] [-o rows.jsonl] [--resume]

Each pair runs in a process forked for it, with the trace cached; its time is user CPU time without
imports (about 0.7 s). What it does is what `dovetail estimate WORKLOAD --hw HW` computes, the
document included; with `--what-if` also the rest that the command tells by default: what fusion and
kept tensors save, the stream of inferences, and some twenty what-ifs. Then, timed apart, law 1 of
docs/laws.md on the data sheet's rates: roofline <= estimate, roofline <= simulate, and both within 2 % of each other
where the simulator saw no contention.

Rows go to a JSON Lines file as they come; `--resume` keeps the pairs that it holds. `--limit` kills a
pair. Exits with 1 where a pair crashes, is killed, takes longer than `--bound` seconds or breaks the
law. A network that does not fit a chip, or a precision that it lacks, is an answer too, and its
reason is shown. `-p` holds for the workloads that have the knob.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import sim  # noqa: E402
from sim.analytical import read  # noqa: E402
from sim.errors import DovetailError  # noqa: E402
from sim.hardware.load import list_hardware  # noqa: E402
from sim.savings import with_savings  # noqa: E402
from sim.schedule.build import to_schedule  # noqa: E402
from sim.schedule.loads import LOAD  # noqa: E402
from sim.schedule.network import Options, Shared, cost_network  # noqa: E402
from sim.steady import with_steady  # noqa: E402
from sim.whatif import with_what_if  # noqa: E402
from sim.workload.load import list_workloads  # noqa: E402
from sim.workload.precision import parse_precision  # noqa: E402

AGREE = 0.02
FORK = get_context("fork")
MEMORY_BYTES = 6 * 2**30
SHOWN = 15
"""How many of the slowest pairs, and of those in which the rungs lie furthest apart, are listed."""

Row = dict[str, object]


def answer(workload: str, knobs: dict[str, object], hardware: str, what_if: bool, law: bool) -> Row:
    """What `dovetail estimate` finds and how law 1 holds, or why it refuses."""
    start = os.times().user
    try:
        graph, chip = sim.load_workload(workload, **knobs), sim.load_hardware(hardware)
        precision, shared = parse_precision(chip.default_precision), Shared()
        options = Options()
        network = cost_network(graph, [chip], precision, options, shared=shared)
        found = read(network, 0, precision=precision.name, options=options)
        first = os.times().user
        if what_if:
            for more in (with_savings, with_steady):
                found = more(found, network.of(0), graph, chip, precision, options, shared)
            found = with_what_if(found, graph, chip, precision=precision.name, shared=shared)
        document = json.dumps(found.to_dict(), allow_nan=False)
        end = os.times().user
        row: Row = {"verdict": "answer", "latency_s": found.latency_s, "json_bytes": len(document)}
        row |= {"first_user_s": round(first - start, 2), "user_s": round(end - start, 2)}
        if found.infeasible is not None:
            return row | {"verdict": "refusal", "latency_s": None, "reason": found.infeasible["reason"][:300]}
        # (Weights that come on chip to stay may load wholly behind the op before.)
        inside = any("run inside the layers' kernels" in note for note in found.notes)
        free = [op.name for op in found.ops if not op.latency_s > 0 and op.kind != LOAD and not inside]
        if free:
            return row | {"verdict": "crash", "reason": f"{len(free)} ops take no time: {', '.join(free[:4])}"}
        if law:
            options = Options(calibration="none")
            if found.calibration is not None:
                network = cost_network(graph, [chip], precision, options, shared=shared)
            bare = read(network, 0, precision=precision.name, options=options)
            run = sim.simulate(to_schedule(network, 0), chip)
            row |= {
                "roofline_s": bare.roofline_latency_s, "estimate_s": bare.latency_s, "simulate_s": run.latency_s,
                "contended_s": run.contended_s, "events": run.events, "law_user_s": round(os.times().user - end, 2),
            }  # fmt: skip
        return row
    except DovetailError as error:
        user_s = round(os.times().user - start, 2)
        return {"verdict": "refusal", "reason": " ".join(str(error).split())[:300], "user_s": user_s}
    except Exception as error:  # a bug, which this script is there to find
        return {"verdict": "crash", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def pair(workload: str, knobs: dict[str, object], hardware: str, *, what_if: bool, law: bool, limit_s: int) -> Row:
    """One pair in a process forked for it, so that no cache of an earlier pair helps."""

    def child(end: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        end.send(answer(workload, knobs, hardware, what_if, law))

    here, there = FORK.Pipe(duplex=False)
    before = os.times().children_user
    process = FORK.Process(target=child, args=(there,))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = {"verdict": "killed", "reason": f"over {limit_s} s of CPU or {MEMORY_BYTES / 2**30:g} GiB"}
    process.join()
    spent = {"user_s": round(os.times().children_user - before, 2)}
    return {"workload": workload, "knobs": knobs, "hardware": hardware, "what_if": what_if} | spent | found


def law_1(row: Row) -> str | None:
    """None where the law holds or nothing was simulated; else what of it fails."""
    if "simulate_s" not in row:
        return None
    roofline, estimate, simulate = (float(row[f"{k}_s"]) for k in ("roofline", "estimate", "simulate"))  # type: ignore[arg-type]
    if roofline > min(estimate, simulate):
        return "below the roofline"
    if row["contended_s"] == 0 and abs(simulate / estimate - 1) > AGREE:
        return "simulate and estimate disagree"
    return None


def rows_of(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(rows: list[Row], bound_s: float) -> Iterator[str]:
    """The summary, line by line."""
    verdicts = Counter(str(row["verdict"]) for row in rows)
    yield f"{len(rows)} pairs: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    slow = sorted(rows, key=lambda row: -float(row["user_s"]))  # type: ignore[arg-type]
    times = [float(row["user_s"]) for row in slow]  # type: ignore[arg-type]
    over = sum(t > bound_s for t in times)
    yield f"user CPU time: median {times[len(times) // 2]:.1f} s, largest {times[0]:.1f} s, over {bound_s:g} s: {over}"
    for row in slow[:SHOWN]:
        yield f"  {row['user_s']:>7} s  {row['workload']} on {row['hardware']} ({row['verdict']})"
    yield from _law_table([row for row in rows if "simulate_s" in row])
    for row in rows:
        if row["verdict"] != "answer":
            yield f"  {row['verdict']}: {row['workload']} on {row['hardware']}: {row['reason']}"


def _law_table(ran: list[Row]) -> Iterator[str]:
    if not ran:
        return
    failed = [row for row in ran if law_1(row)]
    contended = sum(row["contended_s"] != 0 for row in ran)
    yield f"law 1: holds on {len(ran) - len(failed)} of {len(ran)} pairs, {contended} of them contended"

    def apart(row: Row) -> float:
        return float(row["simulate_s"]) / float(row["estimate_s"]) - 1  # type: ignore[arg-type]

    for row in failed + sorted((r for r in ran if r not in failed), key=lambda row: -abs(apart(row)))[:SHOWN]:
        said = law_1(row)
        yield (
            f"  {row['workload']} on {row['hardware']}: roofline {row['roofline_s']:.4g} s, estimate "
            f"{row['estimate_s']:.4g} s, simulate {apart(row):+.3%}{f'  FAIL: {said}' if said else ''}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", nargs="*", default=[d.path.stem for d in list_workloads()])
    parser.add_argument("--hw", nargs="*", default=list_hardware())
    parser.add_argument("-p", action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--bound", type=float, default=60, help="seconds that a pair may take")
    parser.add_argument("--limit", type=int, default=240, help="seconds after which a pair is killed")
    parser.add_argument("--what-if", action="store_true")
    parser.add_argument("--no-law", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep the pairs that the output holds")
    options = parser.parse_args()
    wanted = [(workload, hardware) for workload in options.workload for hardware in options.hw]
    rows = [r for r in rows_of(options.output) if (r["workload"], r["hardware"]) in wanted] if options.resume else []
    done = {(row["workload"], row["hardware"]) for row in rows}
    if options.output is not None and not options.resume:
        options.output.write_text("", encoding="utf-8")
    given = dict(text.split("=", 1) for text in options.p)
    has = {d.path.stem: set(d.knobs) for d in list_workloads()}
    for workload, hardware in wanted:
        if (workload, hardware) in done:
            continue
        knobs: dict[str, object] = {k: v for k, v in given.items() if k in has.get(workload, given)}
        sim.load_workload(workload, **knobs)  # fills the cache of traces
        rows.append(
            pair(workload, knobs, hardware, what_if=options.what_if, law=not options.no_law, limit_s=options.limit)
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if options.output is not None:
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows, options.bound)))
    fine = all(
        r["verdict"] in ("answer", "refusal") and float(r["user_s"]) <= options.bound and not law_1(r)  # type: ignore[arg-type]
        for r in rows
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
