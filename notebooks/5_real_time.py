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
# # A real-time system
#
# A network that takes 3.4 ms alone may still miss a deadline of 20 ms: frames come from several cameras at once, and
# another network shares the memory. Averages do not show this, events do. We run the same schedule that
# `sim.estimate` reads, but in simulated time, with all who compete.

# %%
# %matplotlib inline
import sim
from sim.events.experiment import run_scenario
from sim.events.scenario import parse_scenario


def scenario(cameras, policy="earliest_deadline_first", deadline="20 ms"):
    return parse_scenario(
        {
            "name": "cameras",
            "hardware": "edge-npu",
            "length": "0.3 s",
            "policy": policy,
            "streams": [
                {
                    "name": "camera",
                    "workload": "mobilenet_v2",
                    "copies": cameras,
                    "target": "npu",
                    "arrivals": {"kind": "periodic", "rate": "36 Hz", "jitter": "0.5 ms"},
                    "deadline": deadline,
                    "priority": 1,
                },
                {
                    "name": "planner",
                    "workload": "resnet18",
                    "target": "npu",
                    "arrivals": {"kind": "periodic", "rate": "10 Hz"},
                    "deadline": "100 ms",
                    "priority": 2,
                },
            ],
        },
        where="this notebook",
    )


chip = sim.load_hardware("edge-npu")
for workload in ("mobilenet_v2", "resnet18"):
    alone = sim.estimate(sim.load_workload(workload), chip)
    print(f"{workload:13s} alone: {alone.latency_s * 1e3:.2f} ms")

# %% [markdown]
# ## How many cameras?
#
# Frames arrive every 27.8 ms from each camera, the planner runs ten times a second on the same unit.

# %%
for cameras in (1, 4, 6):
    try:
        found = run_scenario(scenario(cameras), chip).streams["camera"]
    except sim.DovetailError as refused:
        print(f"{cameras} cameras: {str(refused)[:110]}")
        continue
    print(
        f"{cameras} cameras: median {found.latency_p50_s * 1e3:5.2f} ms, worst {found.latency_max_s * 1e3:5.2f} ms, "
        f"{found.miss_rate:.1%} missed"
    )

# %% [markdown]
# The median hides what the worst case shows: frames that arrive together wait for each other, and a planner's run
# that has begun is not interrupted within a group of ops. A load above what the unit can do is refused before it is
# simulated.
#
# ## Who ran when
#
# The first hundred milliseconds with four cameras: a bar is a group of ops, a gap is idle time.

# %%
run = run_scenario(scenario(4), chip)
ax = sim.plot.timeline(run.first.timeline)
ax.set_xlim(0, 100)
ax.figure

# %% [markdown]
# ## Does the order matter?
#
# The same load under another policy: first come, first served, or by priority.

# %%
for policy in ("earliest_deadline_first", "fifo", "priority"):
    try:
        streams = run_scenario(scenario(4, policy), chip).streams
    except sim.DovetailError as refused:
        print(f"{policy}: {refused}")
        continue
    worst = ", ".join(f"{name} {found.latency_max_s * 1e3:.2f} ms" for name, found in streams.items())
    print(f"{policy}: worst {worst}")
