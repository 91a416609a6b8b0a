"""Do two runs of the same grid in different processes agree within the spread that they state?

    PYTHONPATH=. python benchmarks/repeat_baseline.py first.jsonl second.jsonl

Prints the share of common points that agree (asked for: 95 %), also by mode where there are several, those that do not,
and the repeatability: the median difference of ops and of whole workloads, which bounds what a model can be asked for.
Exit code 1 below 95 %.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from sim.baseline.record import read_baseline
from sim.baseline.timing import agree

ASKED = 0.95


def main(first: Path, second: Path) -> int:
    runs = [read_baseline(path).latest for path in (first, second)]
    common = [k for k, r in runs[0].items() if k in runs[1] and r.spread and runs[1][k].spread]
    measured = [k for k in common if all(run[k].median_s is not None for run in runs)]
    if not measured:
        print(f"no common points with a number ({len(common)} common ones are too noisy)")
        return 1
    apart = {}
    for key in measured:
        a, b = ((run[key].median_s, run[key].spread.stated_s) for run in runs)
        if not agree(a, b):
            apart[key] = f"{key}: {a[0] * 1e6:.2f} and {b[0] * 1e6:.2f} us, {b[0] / a[0] - 1:+.1%}"
    print("\n".join(apart.values()))
    modes = {key: runs[0][key].mode.value for key in measured}
    for mode in dict.fromkeys(modes.values()) if len(set(modes.values())) > 1 else ():
        keys = [key for key in measured if modes[key] == mode]
        print(f"{mode}: {sum(key not in apart for key in keys)} of {len(keys)} points agree")
    for what in ("op", "workload"):
        keys = [key for key in measured if getattr(runs[0][key], what) is not None]
        off = [abs(runs[1][key].median_s / runs[0][key].median_s - 1) for key in keys]
        if off:
            print(f"repeatability of {len(off)} {what}s: median {median(off):.1%}, largest {max(off):.1%}")
    share = 1 - len(apart) / len(measured)
    refused = sum(any(run[key].median_s is None for run in runs) for key in runs[0] if key in runs[1])
    below = sum("physical bound" in mark for run in runs for key in measured for mark in run[key].marks)
    stated = median(run[key].spread.stated_s / run[key].median_s for run in runs for key in measured)
    print(
        f"{len(measured)} common points with a number ({refused} refused as too noisy), {share:.1%} agree (asked for "
        f"{ASKED:.0%}) within a median stated spread of {stated:.1%}, {below} marked below their bound"
    )
    return 0 if share >= ASKED else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
