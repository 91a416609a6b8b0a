"""Cycles of one tile job on a systolic or broadcast array. Pure functions that broadcast.

A GEMM of M x N x K is cut into *folds*: the array holds a rows x cols patch of two dimensions and
streams the third. Every form below is

    cycles = folds * per_fold(stream) + once(stream)

which makes the sum over all tiles of a mapping separable in M, N and K: `folds` is a product of
per-dimension counts, and `per_fold` and `once` depend on the streamed dimension alone.

| dataflow | rows hold | cols hold | streamed |
|---|---|---|---|
| output_stationary | M | N | K |
| weight_stationary | K | N | M |
| input_stationary | K | M | N |
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from sim.errors import ConfigError, nearest
from sim.hardware.chip import Dataflow, Folds, Preload, Skew

Word = TypeVar("Word", bound=Enum)


class Binding(NamedTuple):
    """Which GEMM dimension the rows hold, the columns hold, and the array streams."""

    rows: str
    cols: str
    stream: str


BINDINGS = {
    Dataflow.OUTPUT_STATIONARY: Binding("M", "N", "K"),
    Dataflow.WEIGHT_STATIONARY: Binding("K", "N", "M"),
    Dataflow.INPUT_STATIONARY: Binding("K", "M", "N"),
    Dataflow.ROW_STATIONARY: Binding("N", "M", "K"),
}
"""Row stationary: sets of filter rows take the rows (one set per output channel), output rows the
columns; window rows that share a set are folded into the counts by `sim.mapping.dims`."""


def ceil_div(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """ceil(a / b) of non-negative integers, exact."""
    return -(-np.asarray(a) // np.asarray(b))


def fold_cycles(
    stream: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    dataflow: Dataflow,
    preload: Preload,
    folds: Folds,
    skew: Skew,
    drain_cycles: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """(per_fold, once): cycles of a tile job are folds * per_fold + once.

    With s = rows + cols - 2 (0 for a broadcast array), t the streamed extent:

    output stationary, serial       per_fold = t + s [+ drain]      once = 0
    output stationary, pipelined    per_fold = max(t, drain)        once = max(0, t + s - max(t, drain))
    held operand, exposed, serial   per_fold = rows + t + s         once = 0
    held operand, exposed, pipelined per_fold = rows + t            once = s
    held operand, hidden, serial    per_fold = max(rows, t + s)     once = rows + t + s - per_fold
    held operand, hidden, pipelined per_fold = max(rows, t)         once = rows + t + s - per_fold

    so that `exposed, serial` on a systolic array is SCALE-Sim's fold (R + C + t - 2 and
    2R + C + t - 2; Samajdar et al., ISPASS 2020, eq. 1-3, in the form of its released code). An
    output-stationary array has nothing to preload. `drain` is `rows` when results shift out along
    the columns, or `drain_cycles` (the results of a fold over the port's rate) when a port bounds them:
    then no job is shorter than the drains of its folds, the last one's included (else tiles of one fold
    would not pay for their results), and serial folds wait for each (of `rows` SCALE-Sim's form shows nothing).

    Args: stream: streamed extent [cycles]; rows, cols: array sides; all broadcast.
    """
    t, rows = np.asarray(stream), np.asarray(rows)
    s = rows + np.asarray(cols) - 2 if skew is Skew.SYSTOLIC else 0
    if dataflow in (Dataflow.OUTPUT_STATIONARY, Dataflow.ROW_STATIONARY):
        if folds is Folds.SERIAL:
            by_port = drain_cycles if drain_cycles is not None and dataflow is Dataflow.OUTPUT_STATIONARY else 0
            return t + s + by_port, np.zeros_like(t)
        per_fold = np.maximum(t, rows if drain_cycles is None else drain_cycles)
        return per_fold, np.maximum(t + s - per_fold, 0)
    if preload is Preload.EXPOSED:
        if folds is Folds.SERIAL:
            return rows + t + s, np.zeros_like(t)
        return rows + t, np.zeros_like(t) + s
    per_fold = np.maximum(rows, t + s if folds is Folds.SERIAL else t)
    return per_fold, rows + t + s - per_fold


def _word(kind: type[Word], word: object, name: str) -> Word:
    try:
        return kind(word)
    except ValueError:
        known = [one.value for one in kind]
        raise ConfigError(
            f"array_cycles: {name}={word!r}: expected one of {', '.join(known)}.{nearest(word, known)}"
        ) from None


def array_cycles(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    rows: ArrayLike,
    cols: ArrayLike,
    dataflow: Dataflow | str,
    preload: Preload | str = Preload.EXPOSED,
    folds: Folds | str = Folds.SERIAL,
    skew: Skew | str = Skew.SYSTOLIC,
    drain_cycles: ArrayLike | None = None,
) -> np.ndarray:
    """Cycles of a GEMM M x N x K that lies whole in the innermost memory, no stalls.

    Example: 512 cubed on 128 x 128, output stationary, serial: 16 folds of 128 + 128 + 512 - 2
    = 12,256 (SCALE-Sim v3 reports the last index, 12,255).

    Raises: ConfigError: a size below 1, or a word that is none of its kind.
    >>> int(array_cycles(512, 512, 512, rows=128, cols=128, dataflow="output_stationary"))
    12256
    """
    dataflow, preload = _word(Dataflow, dataflow, "dataflow"), _word(Preload, preload, "preload")
    folds, skew = _word(Folds, folds, "folds"), _word(Skew, skew, "skew")
    for name, size in {"m": m, "n": n, "k": k, "rows": rows, "cols": cols}.items():
        given = np.asarray(size)
        if given.dtype.kind not in "iuf" or not np.all(given >= 1):
            raise ConfigError(f"array_cycles: {name}={size!r}: expected numbers of at least 1")
    extents = {"M": np.asarray(m), "N": np.asarray(n), "K": np.asarray(k)}
    binding = BINDINGS[dataflow]
    per_fold, once = fold_cycles(
        extents[binding.stream],
        rows=rows,
        cols=cols,
        dataflow=dataflow,
        preload=preload,
        folds=folds,
        skew=skew,
        drain_cycles=drain_cycles,
    )
    return ceil_div(extents[binding.rows], rows) * ceil_div(extents[binding.cols], cols) * per_fold + once
