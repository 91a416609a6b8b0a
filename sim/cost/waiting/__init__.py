"""Waiting: what a tile loop costs when engines queue, share a memory and overlap imperfectly.

General parts, each a pure function that broadcasts: an execute engine with a window of instruction
pairs in flight, a request-limited DMA, a cache in front of DRAM, a store engine, and an overlap that
leaks and leaves the first load and the last store exposed. A machine is data; nothing here names one.

The loop costed      model, of tiles (as they ran), on a machine (structure and constants)
Its parts            engines (load, execute, store), cache (which lines reach DRAM)
Another loop         weight_stream (weights streamed past the array)
"""

from sim.cost.waiting.cache import (
    Cache,
    alias_factor,
    fetched_lines,
    miss_ratio,
)
from sim.cost.waiting.engines import (
    block_cycles,
    load_cycles,
    nominal_block_cycles,
    overlapped_cycles,
    pair_interval_cycles,
    store_cycles,
)
from sim.cost.waiting.machine import WaitingConstants, WaitingMachine, load_waiting, waiting_from_options
from sim.cost.waiting.model import TileCounts, WaitingCost, count_tiles, stack_counts, waiting_cost
from sim.cost.waiting.tiles import TileLoops
from sim.cost.waiting.weight_stream import StreamCycles, WeightStream, stream_layers

__all__ = [
    "Cache",
    "StreamCycles",
    "TileCounts",
    "TileLoops",
    "WaitingConstants",
    "WaitingCost",
    "WaitingMachine",
    "WeightStream",
    "alias_factor",
    "block_cycles",
    "count_tiles",
    "fetched_lines",
    "load_cycles",
    "load_waiting",
    "miss_ratio",
    "nominal_block_cycles",
    "overlapped_cycles",
    "pair_interval_cycles",
    "stack_counts",
    "store_cycles",
    "stream_layers",
    "waiting_cost",
    "waiting_from_options",
]
