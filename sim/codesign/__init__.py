"""Which model on which chip: search spaces, their evaluation, and the study that explores them.

Nothing heavy is loaded before a search runs: optuna lives in `study` alone.

The space            schema (of a search file), space, ranges (of a parameter), named (files), checks (before
                     anything is costed)
A trial              scenario and choice (what is asked), evaluate (one model on many chips), bounds and guide (which
                     chips are not worth it), streams (by events)
Quality              quality (table, law, callable), trained, recipes (compression without weights)
The search           study (samplers, storage, workers)
What was found       found, pareto, importance, answer (the folder)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.codesign.found import Found
    from sim.codesign.space import Space

__all__ = ["search"]


def search(
    space: str | Path | Space,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    storage: str | Path | None = None,
    workers: int = 1,
    seed: int | None = None,
    short: bool = False,
    output: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Found:
    """Search a space file (path or bundled name) and return what was found.

    Args:
        trials: total of the study, those already in `storage` included; the file's budget if None.
        storage: journal file, or URL (`sqlite:///...`, `grpc://host:port`); a journal in `output`
            when there is one, else memory.
        workers: processes; with one, the same seed gives the same study.
        short: apply the file's `short:` block.
        output: folder for the Pareto set, winners, figures and text; nothing is written if None.
        progress: receives one line per finished trial; before them, what was skipped in the files that are named.
    Raises: ConfigError, WorkloadError: the space; ConfigError: storage unreachable, or of another space.
    """
    from sim.codesign.space import Space, load_space
    from sim.codesign.study.run import run_study

    found = space if isinstance(space, Space) else load_space(space, short=short)
    if progress is not None and found is not space:  # who loaded a space has its notes
        for note in found.notes:
            progress(note)
    return run_study(
        found, trials=trials, timeout_s=timeout_s, storage=None if storage is None else str(storage), workers=workers,
        seed=seed, output=None if output is None else Path(output), progress=progress,
    )  # fmt: skip
