"""Measured rows of a Gemmini on FireSim: the mapping string, and cycles predicted for it.

The rows give a layer, the mapping that was run, and cycles of the RTL. Only this module knows the
format; the model is `sim.cost.waiting`, its machine and constants `baselines/waiting/gemmini-16x16.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, prod
from pathlib import Path

import numpy as np

from sim.baseline.kernel_rows import SIZE, Hardware, Kind, Prediction, families, register
from sim.baseline.kernel_table import POSITIVE, Column, Law, Rows
from sim.cost.waiting import (
    TileLoops,
    WaitingConstants,
    WaitingCost,
    WaitingMachine,
    count_tiles,
    load_waiting,
    stack_counts,
    waiting_cost,
)
from sim.cost.waiting.tiles import RANKS
from sim.errors import CalibrationError, MappingError, nearest
from sim.hardware.chip import Chip
from sim.resources import data_dir

MEASURED = "measured_cycles_given_mapping"
"""Column: cycles of the RTL for the row's mapping, just after the same layer had run."""
MEASURED_OWN = "measured_cycles_own_tiling"
"""Column: cycles with the machine's own tiler, which ran first and includes its search on the host."""
COLUMNS = ("N", *RANKS, "Hstride", "Wstride", "mapping")

DEFAULT = "gemmini-16x16"
"""Waiting constants of rows that name no chip."""

OUTERMOST = 3
"""Number of the level of DRAM; scratchpad, accumulator and array are 2, 1 and 0."""
_LEVEL = re.compile(r"^L(?P<level>[0-3])\[(?P<keeps>[WIO]*)\] (?P<loops>.+)$")
_LOOP = re.compile(r"^(?P<rank>[NCKPQRS])(?P<count>[1-9]\d*)(?P<spatial>X?)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One loop of a mapping string: `K16X` is 16 spatial iterations of rank K."""

    rank: str
    count: int
    spatial: bool = False

    def __str__(self) -> str:
        return f"{self.rank}{self.count}{'X' if self.spatial else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level: its number, the tensors that it keeps, its loops from the outside in."""

    number: int
    keeps: str
    loops: tuple[Loop, ...]

    def __str__(self) -> str:
        return f"L{self.number}[{self.keeps}] {' '.join(map(str, self.loops))}"


def parse_mapping(text: str) -> tuple[Level, ...]:
    """Levels of a mapping string, outermost first; `format_mapping` is its inverse.

    Raises: MappingError: a part that is neither a level nor a loop, or levels out of order.
    """
    levels = []
    for part in text.split(" - "):
        found = _LEVEL.match(part.strip())
        if not found:
            raise MappingError(f'mapping "{text}": "{part}" is not a level such as "L3[WIO] K4 P7"')
        loops = []
        for word in found["loops"].split():
            loop = _LOOP.match(word)
            if not loop:
                raise MappingError(f'mapping "{text}": "{word}" is not a loop such as "K16" or "K16X"')
            loops.append(Loop(rank=loop["rank"], count=int(loop["count"]), spatial=bool(loop["spatial"])))
        levels.append(Level(number=int(found["level"]), keeps=found["keeps"], loops=tuple(loops)))
    numbers = [level.number for level in levels]
    if numbers != sorted(numbers, reverse=True) or len(set(numbers)) != len(numbers):
        raise MappingError(f'mapping "{text}": levels {numbers}, expected falling numbers')
    return tuple(levels)


def format_mapping(levels: Iterable[Level]) -> str:
    """The mapping string of some levels."""
    return " - ".join(map(str, levels))


def output_side(size: int, stride: int, kernel: int) -> int:
    """Output side that was run: input side = size x stride, padding floor(kernel / 2).

    Equal to `size` but for even kernels: 2x2 at stride 1 gives size + 1.
    """
    return (size * stride + 2 * (kernel // 2) - kernel) // stride + 1


def _number(row: Mapping[str, object], column: str) -> int:
    try:
        value = float(str(row[column]))
    except KeyError:
        raise MappingError(f"lacks column {column}: expected {', '.join(COLUMNS)}") from None
    except ValueError:
        raise MappingError(f'{column} is "{row[column]}", expected an integer') from None
    if not value.is_integer() or value < 1:
        raise MappingError(f"{column} is {value:g}, expected an integer >= 1")
    return int(value)


def tile_loops(row: Mapping[str, object]) -> TileLoops:
    """The tile loops that the machine ran for one row.

    The tile of a rank is the product of its loops inside the outermost level; the outermost level's
    loops, as written, are the tile loops. A rank that has more tiles than its loops say (the ragged
    border of a padded output) is looped outermost. Batch must be 1 and strides equal.

    Raises: MappingError: a missing column, unequal strides, a batch above 1, a malformed mapping.
    """
    sizes = {rank: _number(row, rank) for rank in RANKS}
    stride, across = _number(row, "Hstride"), _number(row, "Wstride")
    if stride != across or _number(row, "N") != 1:
        raise MappingError(f"N {row['N']}, strides {stride} and {across}; expected N 1 and equal strides")
    levels = parse_mapping(str(row["mapping"]))
    outer, inner = (levels[0].loops, levels[1:]) if levels[0].number == OUTERMOST else ((), levels)
    tiles = {rank: prod(lp.count for lv in inner for lp in lv.loops if lp.rank == rank) for rank in RANKS}
    window = not sizes["Q"] == sizes["R"] == sizes["S"] == 1
    if window:
        sizes["P"] = output_side(sizes["P"], stride, sizes["R"])
        sizes["Q"] = output_side(sizes["Q"], stride, sizes["S"])
    tiles = {rank: min(tiles[rank], sizes[rank]) for rank in RANKS}
    order = tuple(loop.rank for loop in outer if loop.count > 1)
    ragged = tuple(r for r in RANKS if r not in order and ceil(sizes[r] / tiles[r]) > 1)
    return TileLoops(sizes=sizes, tiles=tiles, order=ragged + order, stride=stride, window=window)


def own_tile_loops(row: Mapping[str, object]) -> TileLoops:
    """The tile loops of the machine's own tiler, from the `auto_tiling` column.

    The column reads R_S_P_Q_C_K_N, tiles of one hardware loop; loops outer to inner Q, P, K, S, R, C.
    """
    words = str(row["auto_tiling"]).split("_")
    if len(words) != 7 or not all(word.isdigit() for word in words):
        raise MappingError(f'auto_tiling "{row["auto_tiling"]}": expected R_S_P_Q_C_K_N')
    tile = dict(zip("RSPQCK", map(int, words[:6]), strict=True))
    given = tile_loops(row)
    tiles = {rank: min(tile[rank], given.sizes[rank]) for rank in RANKS}
    return TileLoops(
        sizes=given.sizes, tiles=tiles, order=("Q", "P", "K", "S", "R", "C"), stride=given.stride, window=given.window
    )


def constants_file(chip: Chip | None = None) -> Path:
    """Where machine and constants of a chip's waiting are: its unit's option `waiting`.

    Raises: CalibrationError: the chip has no such option, or no file has its name.
    """
    folder = data_dir("baselines") / "waiting"
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    name = DEFAULT if chip is None else chip.main_unit.options.get("waiting")
    if name not in known:
        where = DEFAULT if chip is None else f"{chip.name}: units.{chip.main_unit.name}.options.waiting"
        raise CalibrationError(
            f"{where} is {name!r}, expected a set of waiting constants: {', '.join(known)}.{nearest(str(name), known)}"
        )
    return folder / f"{name}.yaml"


def cost_rows(
    rows: Sequence[Mapping[str, object]],
    *,
    waiting: tuple[WaitingMachine, WaitingConstants] | None = None,
    own_tiling: bool = False,
) -> WaitingCost:
    """Cost of each row; warm for the given mapping, cold for the machine's own tiler (it ran first)."""
    machine, constants = waiting or load_waiting(constants_file())
    make = own_tile_loops if own_tiling else tile_loops
    share = constants.usable_cache_share
    counts = []
    for number, row in enumerate(rows, start=1):
        try:
            _fits_mesh(row, machine)
            counts.append(count_tiles(make(row), machine, usable_cache_share=share, warm=not own_tiling))
        except MappingError as error:
            raise MappingError(f"Gemmini row {number}: {error}") from error
    return waiting_cost(stack_counts(counts), machine, constants)


def _fits_mesh(row: Mapping[str, object], machine: WaitingMachine) -> None:
    """Raises: MappingError: another mesh than the constants', or a loop over more of it than there is."""
    if "meshX" in row and _number(row, "meshX") != machine.array_cols:
        raise MappingError(f"meshX is {_number(row, 'meshX')}, the constants hold for a mesh of {machine.array_cols}")
    side = max(machine.array_rows, machine.array_cols)
    for loop in (loop for level in parse_mapping(str(row["mapping"])) for loop in level.loops):
        if loop.spatial and loop.count > side:
            raise MappingError(f"{loop} spreads over {loop.count} of a mesh of {side}")


def predict_rows(
    rows: Sequence[Mapping[str, object]], *, waiting: tuple[WaitingMachine, WaitingConstants] | None = None
) -> np.ndarray:
    """Predicted cycles of each row (mappings from column to value) for its given mapping."""
    return cost_rows(rows, waiting=waiting).cycles


def _predict(rows: Rows, chip: Chip | None, precision: str | None, constants: object) -> Prediction:
    """Cycles of each row of a table of columns."""
    table = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
    cycles = predict_rows(table, waiting=load_waiting(constants_file(chip)))
    return Prediction(cycles, np.zeros(len(cycles), dtype=bool))


def _each(holds: Callable[..., bool], *columns: str) -> Callable[[Rows], np.ndarray]:
    """Row by row: whether `holds` is true of the values of these columns."""
    return lambda rows: np.array([holds(*values) for values in zip(*(rows[name] for name in columns), strict=True)])


def _is_mapping(text: str) -> bool:
    try:
        return bool(parse_mapping(str(text)))
    except MappingError:
        return False


def _covers(rank: str, size: float, mapping: str) -> bool:
    return prod(loop.count for level in parse_mapping(mapping) for loop in level.loops if loop.rank == rank) >= size


GEMMINI = register(
    Kind(
        name="gemmini",
        columns={
            "N": Column("1, a batch of one", lambda v: v == 1),
            **dict.fromkeys((*RANKS, "Hstride", "Wstride"), SIZE),
            "mapping": Column(
                'levels of falling number and their loops, such as "L3[WIO] K4 P7 - L1[O] C16X"',
                np.vectorize(_is_mapping, otypes=[bool]),
                text=True,
            ),
            MEASURED: POSITIVE,
        },
        laws=(
            Law(("Hstride", "Wstride"), "equal strides", lambda r: r["Hstride"] == r["Wstride"]),
            *(
                Law(
                    (rank, "mapping"),
                    f"loops of {rank} that cover the layer",
                    _each(partial(_covers, rank), rank, "mapping"),
                )
                for rank in RANKS
            ),
        ),
        measured=MEASURED,
        family=lambda r: families(*(r[name] for name in ("N", *RANKS))),
        predict=_predict,
        hardware=Hardware.CHIP,
    )
)
