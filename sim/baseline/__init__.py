"""Measured and published truth: taking it, reading it, fitting constants to it, checking against it.

Taking it            runner (points one by one), grid, ops and workloads (what is timed), builders, samplers, timing,
                     device, nvml, rounds (several processes), kernels (of our own)
Records              record, import_profile (profiles of other tools), published, peaks (what no run can beat)
Beside estimates     graphs (of what was measured), compare, modes, own_chip (the machine under test as a chip)
Fitting              calibrate, fitting, residuals; table, cpu_rows and gpu_rows (records as rows of work)
  kernels, Gemmini   fit, joint, kernel_rows, kernel_table; waiting_fit, gemmini
Checks               validate, checks (one module a subject), score (a table of measurements)
"""

from sim.baseline.record import BaselineRecord, read_baseline, records_with_numbers
from sim.baseline.runner import measure

__all__ = ["BaselineRecord", "measure", "read_baseline", "records_with_numbers"]
