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
# # Calibrate your own machine
#
# A data sheet knows peaks. How near a library comes to them, only a clock can tell. Three steps: measure some
# operations, fit the few constants of a cost model to them, and look at how far off it is on what it has not seen.

# %%
# %matplotlib inline
import json
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import sim
from sim.baseline.device import open_device
from sim.baseline.graphs import record_graph
from sim.baseline.record import read_baseline
from sim.baseline.timing import Plan
from sim.hardware.calibration import write_calibration
from sim.resources import data_dir

# %% [markdown]
# ## Measure
#
# A number is a median whose confidence interval is narrow. Where other processes disturb the machine there is no
# number, but the reason: a wrong number would be worse. This machine, four matrix products, half a second each:

# %%
machine = open_device("cpu")
print(machine.key)
for m, n, k in ((1, 1024, 1024), (64, 1024, 1024), (512, 512, 512), (1024, 1024, 1024)):
    record = sim.measure("gemm", knobs={"m": m, "n": n, "k": k}, plan=Plan(time_limit_s=0.5, max_samples=60))
    if record.median_s is None:
        print(f"{m} x {n} x {k}: no number, {record.marks[0]}")
    else:
        print(f"{m} x {n} x {k}: {record.median_s * 1e6:.0f} µs, {2 * m * n * k / record.median_s / 1e9:.0f} GFLOP/s")

# %% [markdown]
# ## What the data sheet says
#
# A whole set of points takes some minutes (`dovetail measure cpu-ops`, then `dovetail measure cpu-workloads`), so we
# go on with one that ships: two cores of an AMD Zen 4. The chip file is the data sheet; without a calibration an
# estimate assumes its peaks.

# %%
DEVICE, CHIP = "amd-epyc-f25m17-avx512-zen4-2c", "epyc-zen4"
chip = sim.load_hardware(CHIP)
file = data_dir("baselines") / f"{DEVICE}.jsonl"
records = [r for r in read_baseline(file).records if r.op in ("gemm", "conv2d") and r.precision == "fp32"]
records = [r for r in records if r.median_s is not None and r.phase == "warm" and r.mode == "eager"]


def estimated_s(record, calibration):
    return sim.estimate(record_graph(record), chip, precision="fp32", calibration=calibration).latency_s


def pairs(calibration):
    names = [f"{r.op} {' '.join(str(value) for value in r.knobs.values())}" for r in records]
    return {name: (r.median_s, estimated_s(r, calibration)) for name, r in zip(names, records, strict=True)}


before = pairs("none")
print(f"{len(before)} products and convolutions in fp32")

# %% [markdown]
# ## Fit
#
# Few constants, each with a physical meaning and a range: the share of the peak that a product reaches, the size at
# which it reaches half of that, the rate of each memory. Families of shapes are held out to score the fit. Here we fit
# the operations alone; with whole networks in the file (`sim.calibrate(DEVICE)`) the sums are scored as well.

# %%
folder = Path(tempfile.mkdtemp())
lines = [line for line in file.read_text(encoding="utf-8").splitlines() if json.loads(line).get("op")]
(folder / "ops.jsonl").write_text("\n".join(lines), encoding="utf-8")
calibration = sim.calibrate(DEVICE, chip=chip, baseline=folder / "ops.jsonl")
for name, value in calibration.constants.items():
    print(f"{name:28s} {value:.4g}")
for name, error in calibration.error.items():
    print(f"held out, {name:10s} {error['rows']:3.0f} rows, median error {error['median_error']:.0%}")
if calibration.at_limits:
    print("at the end of their physical range:", ", ".join(calibration.at_limits))

# %% [markdown]
# A constant at the end of its range says that the model lacks something there. That is a finding and no reason to widen
# the range.
#
# ## Before and after

# %%
write_calibration(folder / "mine.json", calibration)
after = pairs(str(folder / "mine.json"))
figure = Figure(figsize=(11, 5), layout="constrained")
left, right = figure.subplots(1, 2)
sim.plot.measured_against_estimated(before, tolerance=0.2, ax=left).set_title("data sheet only", loc="left")
sim.plot.measured_against_estimated(after, tolerance=0.2, ax=right).set_title("calibrated on these", loc="left")
figure

# %% [markdown]
# The right side is a fit and proves nothing by itself: the honest number is the held-out error above. What the
# calibrations that ship are off by stands in `baselines/README.md`.
#
# ## On your machine
#
# ```
# dovetail calibrate --device cpu
# dovetail estimate resnet50 --hw YOUR-DEVICE.yaml --calibration YOUR-DEVICE.json
# ```
#
# The first command measures and fits within ten minutes, and prints the second with the name of your device.
