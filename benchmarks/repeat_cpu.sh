#!/bin/sh
# Do two runs in different processes agree within the spread that they state? About half an hour on a machine that does
# nothing else: a run of five rounds over cpu-repeat, a second, independent one of three rounds over as many of its points
# as six minutes allow, and the share of points that agree (95 % are asked for).
#
#     PYTHON=python sh benchmarks/repeat_cpu.sh [FOLDER]
#
# FOLDER (default: build/repeat-cpu) keeps every round: a killed script goes on where it stopped.
set -eu
python=${PYTHON:-python}
folder=${1:-build/repeat-cpu}
mkdir -p "$folder"
$python -m sim measure cpu-repeat --rounds 5 -o "$folder/first.jsonl" || true
$python -m sim measure cpu-repeat --rounds 3 --time-limit 360 -o "$folder/second.jsonl" || true
PYTHONPATH=. $python benchmarks/repeat_baseline.py "$folder/first.jsonl" "$folder/second.jsonl"
