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
# # A first estimate in five minutes
#
# How long does ResNet-50 take on a chip, and why? Nothing is downloaded and no weights are needed: the model is
# traced on shapes alone.

# %%
# %matplotlib inline
import torch

import sim

graph = sim.load_workload("resnet50", batch=1)
chip = sim.load_hardware("tesla-fsd-npu")
estimate = sim.estimate(graph, chip)
print(f"{estimate.latency_s * 1e6:.0f} µs, bound from below by {estimate.roofline_latency_s * 1e6:.0f} µs")

# %% [markdown]
# ## Why that long?
#
# The terms sum to the latency: time in which the multipliers run, and the exposed part of everything else. The black
# mark is the data sheet's roofline, which no schedule can beat.

# %%
sim.plot.breakdown(estimate).figure

# %% [markdown]
# ## Which ops?
#
# Each has a latency, the resource that binds it, and the same terms. They sum to the network.

# %%
for op in sorted(estimate.ops, key=lambda op: -op.latency_s)[:5]:
    print(f"{op.name:36s} {op.latency_s * 1e6:6.1f} µs  {op.latency_s / estimate.latency_s:5.1%}  bound by {op.bound}")

# %%
sim.plot.roofline(estimate).figure

# %% [markdown]
# The discs on the slant wait for DRAM: layers with many weights and little work for each. More bandwidth should help
# more than twice the rows of the array. Try it:

# %%
table = sim.sweep(graph, chip, {"array.rows": [96, 192], "DRAM.bandwidth": ["68 GB/s", "136 GB/s"]})
for row in table.rows():
    print(f"{row['array.rows']:4d} rows, {row['DRAM.bandwidth']:9s} {row['latency_s'] * 1e6:6.0f} µs")

# %% [markdown]
# ## Your own model
#
# Any module with example inputs; `meta` tensors have a shape and no data. In a file with a function `build` it works
# on the command line too: `dovetail estimate model.py --hw tesla-fsd-npu`.

# %%
with torch.device("meta"):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(64 * 16 * 16, 10),
    )
    own = sim.trace(model, (torch.empty(1, 3, 64, 64),))
result = sim.estimate(own, chip)
print(f"{result.latency_s * 1e6:.1f} µs, {result.macs / 1e6:.1f} million MACs")
sim.plot.breakdown(result).figure
