"""Element-wise and row-wise kernels on a GPU: a memory stream above a launch floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sim.cost.gpu.constants import VectorConstants
from sim.cost.gpu.device import GpuDevice
from sim.cost.gpu.result import KernelTime, hit_rate, soft_max
from sim.errors import UnsupportedOpError, nearest

PASSES = {
    "add": 3, "mul": 3, "sub": 3, "div": 3,
    "relu": 2, "gelu": 2, "tanh": 2, "silu": 2, "sigmoid": 2, "exp": 2,
    "softmax": 2, "layer_norm": 2, "rms_norm": 2,
}  # fmt: skip
"""Op -> tensors that it reads or writes in full."""
CLASS_OF = {
    "softmax": "softmax", "layer_norm": "layer_norm", "rms_norm": "layer_norm",
}  # fmt: skip
"""Op -> class of kernels with constants of its own; everything else is element-wise."""
HOST_OVERLAP = 4.0
"""Exponent of the soft maximum of host and device: close to a hard one, since they overlap fully."""
L2_STEEPNESS = 9.0


def kernel_class(op: str) -> str:
    """The class whose constants `op` uses. Raises UnsupportedOpError on an unknown op."""
    if op not in PASSES:
        raise UnsupportedOpError(f'no GPU kernel model for the vector op "{op}".{nearest(op, PASSES)}')
    return CLASS_OF.get(op, "binary" if PASSES[op] == 3 else "unary")


def vector_s(
    op: str,
    rows: ArrayLike,
    columns: ArrayLike,
    *,
    device: GpuDevice,
    constants: VectorConstants,
    element_bytes: float = 4.0,
    host: bool = False,
) -> KernelTime:
    """One kernel over a rows x columns tensor.

    T = softmax_4(host, device floor + row t_row / S + bytes (1 - hit)/(e B) + bytes hit / B_L2)

    Args:
        host: include the eager host floor (a call that waits for Python); False = graph replay.
    """
    c = constants
    kernel_class(op)
    rows, columns = np.broadcast_arrays(np.asarray(rows, dtype=float), np.asarray(columns, dtype=float))
    moved = PASSES[op] * rows * columns * element_bytes
    hit = hit_rate(moved, c.l2_share * device.l2_bytes, L2_STEEPNESS)
    l2_bytes_per_s = c.l2_bytes_per_clock_sm * device.sms * device.clock_hz
    stream = moved * (1 - hit) / (c.dram_efficiency * device.dram_bytes_per_s) + moved * hit / l2_bytes_per_s
    row = c.row_s * rows / device.sms
    busy = c.device_s + row + stream
    total = soft_max(np.asarray(c.host_s), busy, HOST_OVERLAP) if host else busy
    terms = {"launch": c.device_s + (total - busy), "vector": row, "memory": stream}
    return KernelTime(time_s=total, terms_s=terms, kernel={}, flags={})
