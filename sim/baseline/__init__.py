"""Measured baselines: timing of ops and workloads on real devices, their records, importers, own kernels."""

from sim.baseline.record import BaselineRecord, read_baseline, records_with_numbers
from sim.baseline.runner import measure

__all__ = ["BaselineRecord", "measure", "read_baseline", "records_with_numbers"]
