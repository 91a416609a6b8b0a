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
# # Co-design: a chip and a network together
#
# A chip chosen for a given network and a network chosen for a given chip are two halves of one question. Here we
# look for a small language model that writes one token at a time, and for the memory system under it: what is the
# lowest loss for a given energy per token? Nothing is trained: the loss comes from a published scaling law.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import sim
from sim.compression.quality import scaling_law
from sim.view.search import frontier

FIXED = {"phase": "decode", "context": 256, "vocabulary": 4000, "heads": 8, "kv_heads": 2}
chip = sim.load_hardware("systolic")

# %% [markdown]
# ## The network, on a given chip
#
# A larger network loses less and costs more. In decode every weight is read once for one token, so that energy and
# time follow the parameters:

# %%
for width, depth in ((256, 2), (256, 6), (512, 4), (512, 8)):
    graph = sim.load_workload("decoder", width=width, depth=depth, **FIXED)
    estimate = sim.estimate(graph, chip)
    loss = scaling_law(parameters=graph.parameters, tokens=1e11, weight_bits=8, activation_bits=8, kv_bits=8)
    print(
        f"width {width}, depth {depth}: {graph.parameters / 1e6:5.1f} million parameters, loss {loss.value:.3f}, "
        f"{estimate.latency_s * 1e3:5.2f} ms, {estimate.energy_j * 1e3:5.2f} mJ a token"
    )

# %% [markdown]
# ## The chip, for a given network
#
# One call costs every combination. A matrix times a vector passes one row of inputs over each tile of weights, so that
# this array spends most of its time filling, draining and loading the next tile. More rows mean fewer tiles and buy
# most; a faster DRAM pays off only once the array has 64 rows, and only up to 34 GB/s. Both cost area.

# %%
graph = sim.load_workload("decoder", width=512, depth=4, **FIXED)
grid = {"array.rows": [8, 16, 32, 64], "DRAM.bandwidth": ["17 GB/s", "34 GB/s", "68 GB/s", "136 GB/s"]}
table = sim.sweep(graph, chip, grid)
figure = Figure(figsize=(11, 4), layout="constrained")
left, right = figure.subplots(1, 2)
sim.plot.heat_map(table, "array.rows", "DRAM.bandwidth", ax=left)
sim.plot.pareto(table, "latency_s", "area_mm2", ax=right)
figure

# %% [markdown]
# ## Both at once
#
# A search space is a YAML file: knobs of the workload, precisions, keys of the chip, what is wanted and what is
# forbidden. The chip keys are swept inside each trial, where a roofline that already loses saves the full estimate.

# %%
SPACE = """
schema: dovetail.search/1
name: small-decoder
title: A small decoder and its memory system
workloads:
  - workload: decoder
    knobs: {phase: decode, context: 256, vocabulary: 4000, heads: 8, kv_heads: 2,
            width: {choices: [256, 512]}, depth: {choices: [2, 4, 8]}}
compression: {precision: [bf16, int8]}
chip: systolic
hardware:
  DRAM.bandwidth: {choices: [17 GB/s, 34 GB/s, 68 GB/s]}
  array.rows: {choices: [8, 32]}
objectives: [energy, quality, area]
constraints: {deadline: 2 ms, area: 40 mm2}
quality: {method: scaling_law, tokens: 1e11, law: besiroglu, post_training: true}
budget: {trials: 8, estimates: 6, winners: 1, timeout: 120 s}
sampler: {name: nsga2, population: 4}
"""
folder = Path(tempfile.mkdtemp())
(folder / "space.yaml").write_text(SPACE)
found = sim.search(folder / "space.yaml")
print(f"{found.trials} trials, {found.costed} full estimates, {len(found.front)} designs that none beats")
for row in found.front:
    energy, loss, area = row.values
    choice = ", ".join(f"{name} {value}" for name, value in row.parameters.items() if name != "workload")
    print(f"  {energy * 1e3:5.2f} mJ, loss {loss:.3f}, {area:5.1f} mm²: {choice}")

# %%
frontier(found, x=0, y=1).figure

# %% [markdown]
# ## Is the winner real?
#
# The estimate is a closed form. The event simulator executes the same schedule step by step; before a winner is
# reported, `dovetail search` runs it there, and so do we:

# %%
best = found.front[0].parameters
knobs = {**FIXED, "width": best["decoder.width"], "depth": best["decoder.depth"]}
winner = sim.load_hardware("systolic", {key: best[key] for key in ("DRAM.bandwidth", "array.rows")})
run = sim.simulate(sim.load_workload("decoder", **knobs), winner, precision=best["precision"])
closed = sim.estimate(sim.load_workload("decoder", **knobs), winner, precision=best["precision"])
print(f"simulated {run.latency_s * 1e6:.1f} µs, estimated {closed.latency_s * 1e6:.1f} µs")

# %% [markdown]
# On the command line: `dovetail new search my-space`, edit the file, `dovetail search my-space.yaml -o found` and
# `dovetail report found`. `docs/search.md` explains the keys, what comes out, and many machines; `searches/README.md`
# the samplers and the searches that ship.
