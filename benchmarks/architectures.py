"""The command of the scripts that trace the architectures of a library: names, sizes, rows in a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection
from dataclasses import asdict
from types import ModuleType
from typing import Any


def command(
    about: str,
    library: ModuleType,
    known: Collection[str],
    run: Callable[[str, str], Any],
    told: Callable[[Any], str],
) -> int:
    """Run the architectures that the user names, or all.

    Args: about: the script's docstring; run: a row (a dataclass with `reason`, empty when all is well) of an
        architecture and a size; told: what is printed of a row.
    Returns: the exit code, 1 where a row has a reason.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="architectures (default: all)")
    parser.add_argument("--size", choices=("small", "full", "both"), default="small")
    parser.add_argument("-o", "--output", help="JSON file for the rows")
    options = parser.parse_args()
    for name in options.names:
        if name not in known:
            parser.error(f'architecture "{name}" is unknown: one of {", ".join(known)}')
    rows = []
    for name in options.names or known:
        for size in ("small", "full") if options.size == "both" else (options.size,):
            rows.append(run(name, size))
            print(f"{'FAIL' if rows[-1].reason else 'ok  '} {told(rows[-1])}", flush=True)
    failed = sum(bool(row.reason) for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} builds are right")
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            json.dump({library.__name__: library.__version__, "rows": [asdict(row) for row in rows]}, file, indent=1)
    return 1 if failed else 0
