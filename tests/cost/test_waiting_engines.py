"""Execute, load and store engines and their overlap: by hand, then laws."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.waiting import (
    TileLoops,
    WaitingConstants,
    WaitingMachine,
    block_cycles,
    count_tiles,
    load_cycles,
    load_waiting,
    nominal_block_cycles,
    overlapped_cycles,
    pair_interval_cycles,
    store_cycles,
    waiting_cost,
    waiting_from_options,
)
from sim.errors import CalibrationError, MappingError

SHAPE = {"chunk_rows": 16, "min_rows": 4, "preload_rows": 16}
WINDOW = {"pair_latency_cycles": 56.0, "window_pairs": 8}
MACHINE = WaitingMachine(
    array_rows=16, array_cols=16, chunk_rows=16, min_rows=4, window_pairs=8, request_bytes=64,
    store_bytes=16, line_bytes=64, cache_bytes=2**22, store_cache_bytes=2**19,
)  # fmt: skip
CONSTANTS = WaitingConstants(
    pair_latency_cycles=56.0, request_cycles=6.0, line_cycles=20.0, store_row_cycles=4.0,
    exposed_share=0.5, overlap_leak=0.1, usable_cache_share=0.75,
)  # fmt: skip


def test_pair_interval_by_hand():
    """56 cycles of life plus the rows, 8 in flight: 8 rows -> 64 / 8; 4 rows and below -> 60 / 8; 16 rows stream."""
    rows = np.array([1, 4, 8, 16])
    assert pair_interval_cycles(rows, min_rows=4, **WINDOW).tolist() == [7.5, 7.5, 8.0, 16.0]


def test_nominal_block_by_hand():
    """7 rows of 7: 49 + (16 - 7). 2 of 20: chunks 16 and 4, the first covers the preload: 40. 1 of 1: 4 + 12."""
    rows, cols = np.array([7, 2, 1]), np.array([7, 20, 1])
    assert nominal_block_cycles(rows, cols, **SHAPE).tolist() == [58, 40, 16]


def test_block_by_hand():
    """7 rows of 7 at (56 + 7) / 8 = 7.875 a pair: 55.125; the border costs min(16 - 7.875, 55.125 / 7) = 7.875: 63.
    4 rows of 4: 30; min(8.5, 30 / 7) more: 34.286. 1 of 1: the nominal 16 holds. 3 of 32: 6 chunks of 16, streaming."""
    rows, cols = np.array([7, 4, 1, 3]), np.array([7, 4, 1, 32])
    assert block_cycles(rows, cols, **SHAPE, **WINDOW) == pytest.approx([63.0, 240 / 7, 16.0, 96.0])


def test_dma_by_hand():
    """10 requests, 3 of them to DRAM: 7 x 6 + 3 x 20 = 102; 10 stores, 2 opening a line: 8 x 4 + 2 x 2 x 20 = 112."""
    assert load_cycles(10, 3, request_cycles=6.0, line_cycles=20.0) == 102
    assert store_cycles(10, 2, store_row_cycles=4.0, line_cycles=20.0) == 112


def test_overlap_by_hand():
    """100, 60, 20 over 4 tiles, 80 to hide: 0.1 x 80 x 3/4 = 6 leak, 0.5 x 80 / 4 = 10 are exposed."""
    total, leaked, ends = overlapped_cycles(100, 60, 20, 4, exposed_share=0.5, overlap_leak=0.1)
    assert (total, leaked, ends) == (116, 6, 10)


def test_tile_loop_by_hand():
    """32 x 32 channels, 1 x 1 kernel, 8 x 8 output in two tiles of 4 rows.

    Weight blocks: 2 tiles x 2 x 2. A block, 4 rows of 8 at 8 cycles: 32 + min(8, 32 / 7) = 36.571; execute 292.571,
    of which the array 8 x (32 + 8) = 320: more, so that nominal holds: execute 320.
    Requests: input 2 x 4 x 8, weights 2 x 32: 128, warm: 128 x 6 = 768. Stores: 64 pixels x 2: 128 x 4 = 512.
    """
    loops = TileLoops(
        sizes={"C": 32, "K": 32, "P": 8, "Q": 8, "R": 1, "S": 1},
        tiles={"C": 32, "K": 32, "P": 8, "Q": 4, "R": 1, "S": 1},
        order=("Q",),
    )
    counts = count_tiles(loops, MACHINE, usable_cache_share=0.75, warm=True)
    assert (counts.requests, counts.missed_lines, counts.store_rows, counts.missed_rows) == (128, 0, 128, 0)
    cost = waiting_cost(counts, MACHINE, CONSTANTS)
    assert (cost.execute, cost.load, cost.store) == (320, 768, 512)
    assert cost.binds == "load"
    assert cost.cycles == pytest.approx(768 + 0.1 * 832 / 2 + 0.5 * 832 / 2)
    assert sum(cost.terms.values()) == pytest.approx(cost.cycles)


def test_reduction_tiles_store_once():
    """Twice the reduction tiles, each half as deep: the same output is stored once."""
    sizes = {"C": 64, "K": 16, "P": 4, "Q": 4, "R": 1, "S": 1}
    whole = TileLoops(sizes=sizes, tiles=sizes, order=())
    split = TileLoops(sizes=sizes, tiles=sizes | {"C": 32}, order=("C",))
    rows = [count_tiles(x, MACHINE, usable_cache_share=0.75, warm=True).store_rows for x in (whole, split)]
    assert rows == [16, 16]


@st.composite
def tile_loops(draw) -> TileLoops:
    sizes = {rank: draw(st.integers(1, 80)) for rank in "CKPQ"} | {rank: draw(st.integers(1, 3)) for rank in "RS"}
    tiles = {rank: draw(st.integers(1, size)) for rank, size in sizes.items()}
    order = tuple(draw(st.permutations("CKPQRS")))
    return TileLoops(sizes=sizes, tiles=tiles, order=order, stride=draw(st.integers(1, 2)))


@given(tile_loops(), st.booleans())
def test_laws_of_the_cost(loops, warm):
    """Terms sum, the total lies between the longest engine and the sum, the array bounds execute and the MACs."""
    counts = count_tiles(loops, MACHINE, usable_cache_share=0.75, warm=warm)
    cost = waiting_cost(counts, MACHINE, CONSTANTS)
    assert sum(cost.terms.values()) == pytest.approx(cost.cycles)
    assert max(cost.execute, cost.load, cost.store) <= cost.cycles * (1 + 1e-12)
    assert cost.cycles <= (cost.execute + cost.load + cost.store) * (1 + 1e-12)
    assert loops.macs / 256 <= cost.terms["array"] <= cost.execute
    assert 0 <= counts.missed_lines <= counts.requests


@given(tile_loops(), st.sampled_from([
    "pair_latency_cycles", "request_cycles", "line_cycles", "store_row_cycles", "exposed_share", "overlap_leak",
]))  # fmt: skip
def test_monotone_in_each_cost(loops, name):
    """A dearer resource never makes the loop faster (exposed ends weigh more than the leak)."""
    counts = count_tiles(loops, MACHINE, usable_cache_share=0.75, warm=False)
    base = CONSTANTS if name != "request_cycles" else replace(CONSTANTS, request_cycles=4.0)
    dearer = replace(base, **{name: getattr(base, name) * 1.5})
    slow, fast = (waiting_cost(counts, MACHINE, one).cycles for one in (dearer, base))
    assert slow >= fast * (1 - 1e-12)


@given(tile_loops())
def test_warm_is_never_slower_and_larger_caches_never_miss_more(loops):
    counts = {
        (share, warm): count_tiles(loops, MACHINE, usable_cache_share=share, warm=warm).missed_lines
        for share in (0.25, 1.0)
        for warm in (True, False)
    }
    assert counts[1.0, True] <= counts[1.0, False]
    assert counts[1.0, False] <= counts[0.25, False] * (1 + 1e-9)


def test_constants_out_of_range_and_malformed_loops():
    with pytest.raises(CalibrationError, match=r"overlap_leak is 0\.9, expected 0 to 0\.5"):
        replace(CONSTANTS, overlap_leak=0.9)
    sizes = {"C": 2, "K": 2, "P": 2, "Q": 2, "R": 1, "S": 1}
    with pytest.raises(MappingError, match="rank K has 2 tiles and no loop"):
        TileLoops(sizes=sizes, tiles=sizes | {"K": 1}, order=())
    with pytest.raises(MappingError, match="tile 3, expected 1 to 2"):
        TileLoops(sizes=sizes, tiles=sizes | {"K": 3}, order=())


def test_unknown_key_in_a_constants_file(tmp_path: Path):
    file = tmp_path / "bad.yaml"
    file.write_text("schema: dovetail.waiting/1\nsources: {a: b}\nmachine: {array_row: 16}\nconstants: {x: 1}\n")
    with pytest.raises(CalibrationError, match=r'unknown key "array_row".*array_rows'):
        load_waiting(file)


def test_options_of_a_chip_round_trip():
    options = asdict(MACHINE) | asdict(CONSTANTS)
    assert waiting_from_options(options) == (MACHINE, CONSTANTS)
    with pytest.raises(CalibrationError, match=r'unknown option "window_pair".*window_pairs'):
        waiting_from_options(options | {"window_pair": 8})
    with pytest.raises(CalibrationError, match="missing line_cycles"):
        waiting_from_options({key: value for key, value in options.items() if key != "line_cycles"})
