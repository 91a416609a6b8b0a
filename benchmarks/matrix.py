"""Every bundled workload on every bundled chip: an answer, or a refusal with its reason, in how much time.

    python benchmarks/matrix.py [--workload NAME ...] [--hw NAME ...] [--bound 60] [--limit 240] [--no-what-if]
                                [-o rows.jsonl] [--resume]

Each pair is what `dovetail estimate WORKLOAD --hw HW` computes, in a process forked for it with the
trace cached; its time is user CPU time without imports (about 0.7 s), document and what-if included.
`--limit` kills a pair. Rows go to a JSON Lines file as they come; `--resume` keeps the pairs that it holds. Exits with
1 where a pair crashes, is killed or takes longer than `--bound` seconds; a network that does not fit
a chip, or a precision that it lacks, is an answer too, and its reason is shown.
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
import sim.analytical  # noqa: E402  (imported before the clock starts)
from sim.errors import DovetailError  # noqa: E402
from sim.hardware.load import list_hardware  # noqa: E402
from sim.workload.load import list_workloads  # noqa: E402

FORK = get_context("fork")
MEMORY_BYTES = 6 * 2**30
SHOWN = 15
"""How many of the slowest pairs are listed."""


def answer(workload: str, hardware: str, what_if: bool) -> dict[str, object]:
    """What `dovetail estimate` finds, or why it refuses."""
    try:
        found = sim.estimate(sim.load_workload(workload), sim.load_hardware(hardware), what_if=what_if)
        document = json.dumps(found.to_dict(), allow_nan=False)
    except DovetailError as error:
        return {"verdict": "refusal", "reason": " ".join(str(error).split())[:300]}
    except Exception as error:  # a bug, which this script is there to find
        return {"verdict": "crash", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    free = [op.name for op in found.ops if not op.latency_s > 0]
    if free and found.infeasible is None:
        return {"verdict": "crash", "reason": f"{len(free)} ops take no time: {', '.join(free[:4])}"}
    return {"verdict": "answer", "latency_s": found.latency_s, "json_bytes": len(document)}


def pair(workload: str, hardware: str, *, what_if: bool, limit_s: int) -> dict[str, object]:
    """One pair in a process forked for it, so that no cache of an earlier pair helps."""

    def child(end: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 5))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        end.send(answer(workload, hardware, what_if))

    here, there = FORK.Pipe(duplex=False)
    before = os.times().children_user
    process = FORK.Process(target=child, args=(there,))
    process.start()
    there.close()
    try:
        found = here.recv()
    except EOFError:
        found = {"verdict": "killed", "reason": "it took too long or too much memory"}
    process.join()
    user_s = round(os.times().children_user - before, 2)
    return {"workload": workload, "hardware": hardware, "what_if": what_if, "user_s": user_s} | found


def rows_of(path: Path | None) -> list[dict[str, object]]:
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(rows: list[dict[str, object]], bound_s: float) -> Iterator[str]:
    """The summary, line by line."""
    verdicts = Counter(str(row["verdict"]) for row in rows)
    yield f"{len(rows)} pairs: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    slow = sorted(rows, key=lambda row: -float(row["user_s"]))  # type: ignore[arg-type]
    over = [row for row in slow if float(row["user_s"]) > bound_s]  # type: ignore[arg-type]
    times = [float(row["user_s"]) for row in slow]  # type: ignore[arg-type]
    middle = times[len(times) // 2]
    yield f"user CPU time: median {middle:.1f} s, largest {times[0]:.1f} s, over {bound_s:g} s: {len(over)}"
    for row in slow[:SHOWN]:
        yield f"  {row['user_s']:>7} s  {row['workload']} on {row['hardware']} ({row['verdict']})"
    for row in rows:
        if row["verdict"] != "answer":
            yield f"  {row['verdict']}: {row['workload']} on {row['hardware']}: {row['reason']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", nargs="*", default=[d.path.stem for d in list_workloads()])
    parser.add_argument("--hw", nargs="*", default=list_hardware())
    parser.add_argument("--bound", type=float, default=60, help="seconds that a pair may take")
    parser.add_argument("--limit", type=int, default=240, help="seconds after which a pair is killed")
    parser.add_argument("--no-what-if", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--resume", action="store_true", help="keep the pairs that the output holds")
    options = parser.parse_args()
    rows = rows_of(options.output) if options.resume else []
    done = {(row["workload"], row["hardware"]) for row in rows}
    if options.output is not None and not options.resume:
        options.output.write_text("", encoding="utf-8")
    for workload in options.workload:
        missing = [hw for hw in options.hw if (workload, hw) not in done]
        if missing:
            sim.load_workload(workload)  # fills the cache of traces
        for hardware in missing:
            rows.append(pair(workload, hardware, what_if=not options.no_what_if, limit_s=options.limit))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            if options.output is not None:
                with options.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(table(rows, options.bound)))
    fine = all(r["verdict"] in ("answer", "refusal") and float(r["user_s"]) <= options.bound for r in rows)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
