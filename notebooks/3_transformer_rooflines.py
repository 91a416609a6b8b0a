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
# # A transformer on four machines
#
# The same model asks two different things of a machine. Reading a prompt (*prefill*) multiplies matrices by matrices:
# every weight is used once for each token. Writing the answer (*decode*) multiplies matrices by one vector: every
# weight is fetched and used once. The roofline (Williams, Waterman, Patterson, CACM 52(4), 2009) shows what follows.

# %%
# %matplotlib inline
import sim

CHIPS = ("h100-sxm", "tpu-v5e", "jetson-orin", "xeon-spr")
CONTEXT = 512
graphs = {phase: sim.load_workload("llama", phase=phase, context=CONTEXT) for phase in ("prefill", "decode")}
for phase, graph in graphs.items():
    print(f"{phase}: {graph.macs / 1e9:.1f} GMAC, {graph.parameters / 1e9:.2f} billion parameters")

# %% [markdown]
# ## The intensity of a phase
#
# Operational intensity is the work for each byte that must cross the memory's border at least once. The machine's
# ridge is where its memory just keeps up with its arithmetic: left of it the memory binds, right of it the
# arithmetic.

# %%
bounds = {
    (phase, name): sim.roofline(graph, sim.load_hardware(name), "bf16")
    for phase, graph in graphs.items()
    for name in CHIPS
}
print(f"{'':12s} {'ridge':>6s} | {'prefill':>10s} {'bound by':12s} | {'decode':>10s} {'bound by':12s}")
for name in CHIPS:
    first, second = bounds["prefill", name], bounds["decode", name]
    ridge = first.ridges_flop_per_byte["bf16"][first.home]
    print(
        f"{name:12s} {ridge:6.0f} | {first.latency_s * 1e3:7.2f} ms {first.bound:12s} | "
        f"{second.latency_s * 1e3:7.2f} ms {second.bound:12s}"
    )

# %% [markdown]
# Every machine is bound by arithmetic in prefill and by memory in decode. So what a machine is worth depends on the
# phase:

# %%
for phase in graphs:
    fastest = sorted(CHIPS, key=lambda name: bounds[phase, name].latency_s)
    base = bounds[phase, fastest[0]].latency_s
    print(phase, ", ".join(f"{name} {bounds[phase, name].latency_s / base:.1f}x" for name in fastest))

# %% [markdown]
# ## Every op under the roof
#
# In prefill the discs stand at the flat roof, in decode far down the slant.

# %%
sim.plot.roofline_grid([bounds["prefill", name] for name in CHIPS[:2]])

# %%
sim.plot.roofline_grid([bounds["decode", name] for name in CHIPS[:2]])

# %% [markdown]
# ## Batches turn decode into prefill
#
# Weights are fetched once for the whole batch, so the intensity grows with it until the KV caches, of which each
# sequence has its own, outweigh the weights.

# %%
for batch in (1, 8, 64, 256):
    graph = sim.load_workload("llama", phase="decode", context=CONTEXT, batch=batch)
    bound = sim.roofline(graph, sim.load_hardware("h100-sxm"), "bf16")
    rate = batch / bound.latency_s
    print(f"batch {batch:3d}: {bound.latency_s * 1e3:6.3f} ms a step, {rate:9.0f} tokens/s, bound by {bound.bound}")

# %% [markdown]
# ## Fewer bits
#
# Decode moves weights, so four-bit weights make the bound almost four times lower, although the arithmetic stays the
# same.

# %%
for precision in ("bf16", "w8a16", "w4a16"):
    try:
        bound = sim.roofline(graphs["decode"], sim.load_hardware("h100-sxm"), precision)
        print(f"{precision:6s} {bound.latency_s * 1e3:.3f} ms")
    except sim.DovetailError as refused:
        print(f"{precision:6s} {refused}")

# %% [markdown]
# All of these are bounds: no launch, no waiting, nothing between ops. `sim.estimate` adds what the bound leaves out,
# and shows how far a machine is from it.
