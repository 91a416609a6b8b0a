"""Load, execute, store and their overlap: closed forms that broadcast over arrays. All in cycles."""

from __future__ import annotations

import numpy as np


def pair_interval_cycles(rows, *, pair_latency_cycles, window_pairs, min_rows):
    """Interval between instruction pairs that stream `rows` rows each.

    I = max(r, (L + r) / W), r = max(rows, min_rows): the array streams a row a cycle, and a window
    of W pairs, each alive for L + r cycles, lets no more than W start in that time (Little's law).

    Example: r = 8, L = 56, W = 8 -> max(8, 8) = 8; r = 4 -> max(4, 7.5) = 7.5.
    """
    streamed = np.maximum(rows, min_rows)
    return np.maximum(streamed, (pair_latency_cycles + streamed) / window_pairs)


def _chunks(cols, chunk_rows):
    full = np.floor_divide(cols, chunk_rows)
    return full, cols - full * chunk_rows


def nominal_block_cycles(rows, cols, *, chunk_rows, min_rows, preload_rows):
    """One weight block over a tile of `rows` output rows of `cols` columns, with nothing to wait for.

    Each output row is cut in chunks of at most `chunk_rows`; a chunk takes its rows, at least
    `min_rows`; the first chunk of a block at least the `preload_rows` of the next weights.

    Example: 7 rows of 7: 7 x 7 + (16 - 7) = 58.
    """
    full, rest = _chunks(cols, chunk_rows)
    line = full * chunk_rows + np.where(rest > 0, np.maximum(rest, min_rows), 0)
    first = np.maximum(np.where(full > 0, chunk_rows, rest), min_rows)
    return np.where((rows > 0) & (cols > 0), rows * line + np.maximum(0, preload_rows - first), 0.0)


def block_cycles(rows, cols, *, chunk_rows, min_rows, preload_rows, pair_latency_cycles, window_pairs):
    """One weight block with the instruction window: never below `nominal_block_cycles`.

    Pairs follow at `pair_interval_cycles`. At a block's border either its first pair waits for the
    whole preload, or the preload takes one of the W places for the block: the shorter of
    sum(I) + preload - I_first and sum(I) W / (W - 1).

    Example (L = 56, W = 8): 4 rows of 4: min(4 x 7.5 + 16 - 7.5, 30 x 8 / 7) = 34.29.
    """
    window = {"pair_latency_cycles": pair_latency_cycles, "window_pairs": window_pairs, "min_rows": min_rows}
    full, rest = _chunks(cols, chunk_rows)
    whole = pair_interval_cycles(chunk_rows, **window)
    part = pair_interval_cycles(rest, **window)
    pairs = rows * (full * whole + np.where(rest > 0, part, 0))
    first = np.where(full > 0, whole, part)
    limit = np.minimum(pairs + preload_rows - first, pairs * window_pairs / (window_pairs - 1))
    nominal = nominal_block_cycles(rows, cols, chunk_rows=chunk_rows, min_rows=min_rows, preload_rows=preload_rows)
    return np.where((rows > 0) & (cols > 0), np.maximum(nominal, limit), 0.0)


def load_cycles(requests, missed_lines, *, request_cycles, line_cycles):
    """A DMA bound by requests in flight: requests served on chip at one interval, lines from DRAM at another.

    Bytes do not appear: a request that carries a quarter of a line costs as much as a full one.
    """
    return request_cycles * (requests - missed_lines) + line_cycles * missed_lines


def store_cycles(rows, missed_rows, *, store_row_cycles, line_cycles):
    """A store engine: rows absorbed by a cache, and rows that open a line in DRAM (fetched, then written back)."""
    return store_row_cycles * (rows - missed_rows) + 2 * line_cycles * missed_rows


def overlapped_cycles(execute, load, store, tiles, *, exposed_share, overlap_leak):
    """Three engines over `tiles` tiles: (total, leaked, exposed ends), total = max + leaked + exposed.

    M = max(execute, load, store); X = execute + load + store - M is what could hide. All but one
    of n tiles leak a share of it; one tile's first load and last store are exposed:
    leaked = leak X (1 - 1/n), exposed = share X / n. With both shares in [0, 1],
    max <= total <= sum.
    """
    longest = np.maximum(np.maximum(execute, load), store)
    hidden = execute + load + store - longest
    leaked = overlap_leak * hidden * (1 - 1 / tiles)
    exposed = exposed_share * hidden / tiles
    return longest + leaked + exposed, leaked, exposed
