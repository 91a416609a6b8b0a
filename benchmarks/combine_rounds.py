"""Files of single processes, measured one after the other, as one baseline file: what `measure --rounds` does at once.

    PYTHONPATH=. python benchmarks/combine_rounds.py first.jsonl second.jsonl third.jsonl -o h200.jsonl --least 2

For machines that are at hand for minutes only: run `benchmarks/measure_gpu.py` several times, each with its own -o.
A point that fewer processes reached than --least is left out; one that fewer gave a number has none.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sim.baseline.record import append_record, read_baseline
from sim.baseline.rounds import LEAST_ROUNDS, combine_processes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--least", type=int, default=LEAST_ROUNDS, help="processes that a number needs, at least two")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists: combined records would stand beside those in it")
    if not 2 <= arguments.least <= len(arguments.files):
        parser.error(f"--least {arguments.least}: expected two, or up to the {len(arguments.files)} files given")
    records = combine_processes([read_baseline(file) for file in arguments.files], least=arguments.least)
    for record in records:
        append_record(arguments.output, record)
    print(f"{arguments.output}: {len(records)} records, {sum(r.median_s is None for r in records)} without a number")
    return 0


if __name__ == "__main__":
    sys.exit(main())
