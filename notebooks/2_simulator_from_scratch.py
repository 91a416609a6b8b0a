# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A simulator of an accelerator, from scratch
#
# Dovetail answers with a latency and its reasons. Where do they come from? We build the core again in small steps, in
# plain Python, for one matrix product on one chip: the cycles of a systolic array, tiles that fit on chip, transfers
# behind the computation, and a search for the best tiles. At the end our sixty lines and `sim.evaluate` agree to the
# last cycle.

# %%
# %matplotlib inline
from itertools import permutations, product
from math import ceil, inf

import sim

# %% [markdown]
# ## 1. One array, one tile
#
# A weight-stationary systolic array of $R \times C$ multipliers holds an $R \times C$ patch of the weights. A fold of
# it
#
# 1. shifts the patch in, $R$ cycles;
# 2. streams the $M$ rows of the input through, $M$ cycles;
# 3. waits for the skew, since a value needs $R + C - 2$ cycles from corner to corner.
#
# A product of $M \times N \times K$ needs $\lceil K/R \rceil \lceil N/C \rceil$ folds, so it takes
#
# $$\left\lceil\frac{K}{R}\right\rceil \left\lceil\frac{N}{C}\right\rceil (2R + C + M - 2)$$
#
# cycles when nothing overlaps. SCALE-Sim (Samajdar et al., ISPASS 2020) uses the same form.

# %%
ROWS = COLS = 64


def array_cycles(m, n, k):
    return ceil(k / ROWS) * ceil(n / COLS) * (2 * ROWS + COLS + m - 2)


M = N = K = 512
cycles = array_cycles(M, N, K)
ideal = M * N * K / (ROWS * COLS)
print(f"{cycles} cycles; with every multiplier busy in every cycle it would be {ideal:.0f}: {ideal / cycles:.0%}")

# %% [markdown]
# A long stream hides the fill: the utilisation grows with $M$. And a side that is no multiple of 64 leaves rows idle.

# %%
for m in (1, 64, 512, 4096):
    print(f"M = {m:4d}: {m * N * K / ROWS / COLS / array_cycles(m, N, K):6.1%}")
print(f"K = 65 : {M * N * 65 / ROWS / COLS / array_cycles(M, N, 65):6.1%}")

# %% [markdown]
# ## 2. Tiles
#
# The operands live in DRAM, the array reads from SRAM. If SRAM holds only tiles, the loops over tiles decide how
# often each operand crosses the border. A tile is moved again whenever it differs from the one before. An output that
# comes back while its sum is unfinished is read and written at the width of the accumulator, four bytes instead of
# one.

# %%
ACCUMULATOR = 4  # bytes of a partial sum; inputs, weights and finished outputs have one


def steps(tiles, order):
    """Every tile job of a loop nest: its box and its place, in the order of execution."""
    sizes = {"M": M, "N": N, "K": K}
    counts = [range(ceil(sizes[rank] / tiles[rank])) for rank in order]
    for place in product(*counts):
        at = dict(zip(order, place, strict=True))
        yield at, {rank: min(tiles[rank], sizes[rank] - at[rank] * tiles[rank]) for rank in order}


def same(place, other, ranks):
    return other is not None and all(place[r] == other[r] for r in ranks)


def moves(tiles, order):
    """Per step: (box, bytes to load for it, bytes to store when it is replaced)."""
    jobs = list(steps(tiles, order))
    last_k = max(at["K"] for at, _ in jobs)
    found, seen = [], set()
    for i, (at, box) in enumerate(jobs):
        before = jobs[i - 1][0] if i else None
        after = jobs[i + 1][0] if i + 1 < len(jobs) else None
        load = store = 0
        if not same(at, before, "MK"):
            load += box["M"] * box["K"]
        if not same(at, before, "KN"):
            load += box["K"] * box["N"]
        out = (at["M"], at["N"])
        if not same(at, before, "MN") and out in seen:
            load += ACCUMULATOR * box["M"] * box["N"]  # a partial sum comes back
        seen.add(out)
        if not same(at, after, "MN"):
            store = box["M"] * box["N"] * (1 if at["K"] == last_k else ACCUMULATOR)
        found.append((box, load, store))
    return found


for order in ("NMK", "KNM"):
    traffic = sum(load + store for _, load, store in moves({"M": 128, "N": 256, "K": 256}, order))
    print(f"loops {order}: {traffic / 1e6:.2f} MB through DRAM")
print(f"compulsory: {(M * K + K * N + M * N) / 1e6:.2f} MB")

# %% [markdown]
# With the reduction outermost, every partial sum makes a round trip. Order matters as much as size.
#
# ## 3. Ports: how long do the bytes take?
#
# DRAM gives 34 GB/s, so 34 bytes in each cycle of 1 ns. SRAM has one port of 256 bytes a cycle, and everyone uses it:
# what arrives from DRAM is written, what leaves is read, and the array takes its operands from it. A fold reads its
# weights, streams the input, and adds to the partial sums (reads and writes four bytes) unless the sum begins or
# ends.

# %%
DRAM, SRAM = 34.0, 256.0  # bytes per cycle


def array_bytes(box, fresh, final):
    """SRAM bytes of one tile job on the array."""
    m, n, k = box["M"], box["N"], box["K"]
    passes = ceil(k / ROWS)
    read = m * k * ceil(n / COLS) + k * n + ACCUMULATOR * m * n * (passes - fresh)
    return read + m * n * (ACCUMULATOR * (passes - 1) + (1 if final else ACCUMULATOR))


# %% [markdown]
# ## 4. Overlap
#
# With two buffers per tile, step $i$ computes while the tiles of step $i + 1$ arrive and the output of step $i - 1$
# leaves. A step lasts as long as the slowest of the array and the ports; the first load and the last store are
# exposed:
#
# $$T = x_0 + \sum_i \max\left(c_i,\; \max_p \left(x_{i+1,p} + y_{i-1,p} + z_{i,p}\right)\right) + y_n$$
#
# where $c$ is the array's time, $x$ the loads, $y$ the stores, and $z$ what the array itself takes from the port.


# %%
def latency_cycles(tiles, order):
    jobs = moves(tiles, order)
    at = [place for place, _ in steps(tiles, order)]
    last_k = max(place["K"] for place in at)
    total = jobs[0][1] / DRAM  # the slower of the two ports
    for i, (box, _, _) in enumerate(jobs):
        loaded = jobs[i + 1][1] if i + 1 < len(jobs) else 0
        stored = jobs[i - 1][2] if i else 0
        own = array_bytes(box, fresh=at[i]["K"] == 0, final=at[i]["K"] == last_k)
        moved = loaded + stored
        total += max(array_cycles(box["M"], box["N"], box["K"]), moved / DRAM, (moved + own) / SRAM)
    return total + jobs[-1][2] / DRAM


tiles = {"M": 128, "N": 256, "K": 256}
print(f"{latency_cycles(tiles, 'NMK'):.2f} cycles")

# %% [markdown]
# ## 5. The same with Dovetail
#
# `systolic` is this chip; we switch off what we have not modelled: the set-up of each transfer, the launch of the op,
# and the latency of DRAM.

# %%
chip = sim.load_hardware("systolic", {"npu.dma_setup": "0 s", "npu.launch": "0 s", "DRAM.latency": "0 s"})
einsum = sim.gemm(M, N, K, dtype="int8").ops[0].einsum


def loop_nest(tiles, order):
    loops = [{"loop": rank, "tile": tiles[rank]} for rank in order]
    stores = [{"store": operand, "memory": "SRAM"} for operand in ("input", "weight", "output")]
    return sim.Mapping.from_dict({"nodes": loops + stores})


for order in ("NMK", "KNM", "MKN"):
    ours, theirs = latency_cycles(tiles, order), sim.evaluate(einsum, chip, loop_nest(tiles, order)).cycles
    print(f"{order}: ours {ours:.2f}, sim.evaluate {theirs:.2f} cycles")
    assert abs(ours - theirs) < 1e-6 * theirs

# %% [markdown]
# ## 6. The best tiles
#
# Nothing says that these tiles are good. SRAM holds 4 MiB, twice each tile, so there is a choice: try every power of
# two and every order. This is a mapper.

# %%
CAPACITY = 4 * 2**20
sizes = [2**i for i in range(5, 10)]


def fits(tiles):
    m, n, k = tiles["M"], tiles["N"], tiles["K"]
    return 2 * (m * k + k * n + ACCUMULATOR * m * n) <= CAPACITY


choices = [dict(zip("MNK", shape, strict=True)) for shape in product(sizes, repeat=3)]
found = [
    (latency_cycles(t, "".join(o)), t, "".join(o))
    for t in choices
    if fits(t) and t["M"] >= 128
    for o in permutations("MNK")
]
best, best_tiles, best_order = min(found, key=lambda entry: entry[0])
print(f"{len(found)} mappings; the best takes {best:.0f} cycles: tiles {best_tiles}, loops {best_order}")
print(f"the worst takes {max(found, key=lambda entry: entry[0])[0] / best:.1f} times as long")

# %% [markdown]
# `sim.estimate` searches all integers, not only powers of two, so it must be at least as good:

# %%
estimate = sim.estimate(sim.gemm(M, N, K, dtype="int8"), chip)
print(f"sim.estimate: {estimate.cycles:.0f} cycles with {estimate.ops[0].mapping['nodes'][:-3]}")
assert estimate.cycles <= best * (1 + 1e-9)
assert inf > best >= ideal

# %% [markdown]
# ## 7. Why
#
# A number without its reason is half an answer. The terms sum to the latency; each is the exposed part only.

# %%
sim.plot.breakdown(estimate).figure

# %% [markdown]
# ## What is left out here
#
# Convolutions with sliding windows, several levels of memory and several cores, sparse and narrow operands, the
# vector unit, fusion, what stays on chip between ops, and weights that arrive behind the op before: the
# [concepts](../docs/concepts.md) have a section on each.
