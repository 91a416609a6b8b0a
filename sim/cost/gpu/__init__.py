"""GPU kernels: time of matrix products, attention, convolutions and vector kernels on a GPU.

Pure functions that broadcast over problems. A GPU is a `GpuDevice` (from the data sheet, by
`device_from_chip`), its few measured constants a `GpuConstants` (`constants_for`).

Kernels              gemm, conv, attention, vector; eager (ops as a framework launches them); result (what each returns)
What they rest on    device (the data sheet), constants (what is fitted), sets (fitted, by generation)
"""

from sim.cost.gpu.attention import attention_decode_s, attention_prefill_s, attention_s
from sim.cost.gpu.conv import conv_s
from sim.cost.gpu.device import Generation, GpuDevice, device_from_chip
from sim.cost.gpu.gemm import gemm_s
from sim.cost.gpu.result import KernelTime
from sim.cost.gpu.sets import GpuConstants, constants_for
from sim.cost.gpu.vector import vector_s

__all__ = [
    "Generation", "GpuConstants", "GpuDevice", "KernelTime", "attention_decode_s", "attention_prefill_s",
    "attention_s", "constants_for", "conv_s", "device_from_chip", "gemm_s", "vector_s",
]  # fmt: skip
