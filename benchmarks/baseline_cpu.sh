#!/bin/sh
# Measure this CPU in two processes, compare them, replace its baseline by the first, and fit its constants.
#
#     PYTHON=python sh benchmarks/baseline_cpu.sh [FOLDER]
#
# About half an hour on a machine that does nothing else. FOLDER (default: build/baseline-cpu) keeps both runs, so that
# a killed script goes on where it stopped; each grid runs twice, because points that were too noisy are measured again.
set -eu
python=${PYTHON:-python}
folder=${1:-build/baseline-cpu}
mkdir -p "$folder"
key=$($python -c "from sim.baseline.device import CpuDevice; print(CpuDevice().key)")
for run in first second; do
    for grid in cpu-ops cpu-ops cpu-workloads cpu-workloads; do
        $python -m sim measure "$grid" --device cpu --rounds 1 -o "$folder/$run.jsonl" || true
    done
done
$python benchmarks/repeat_baseline.py "$folder/first.jsonl" "$folder/second.jsonl" || echo "the runs do not agree: see above"
cp "$folder/first.jsonl" "baselines/$key.jsonl"
$python -m sim calibrate --device "$key" --figure "$folder/held-out.png"
