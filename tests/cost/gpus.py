"""Two GPUs by their data sheets."""

from sim.cost.gpu.device import Generation, GpuDevice

# NVIDIA A100 data sheet (2021) and H100 data sheet (2023), SXM.
A100 = GpuDevice(
    name="a100-sxm", generation=Generation.AMPERE, sms=108, clock_hz=1.41e9,
    peak_flop_per_s={"bf16": 312e12, "int8": 624e12, "fp32": 19.5e12, "tf32": 156e12},
    dram_bytes_per_s=2.039e12, l2_bytes=40e6, smem_bytes_per_sm=164 * 1024,
    algorithms=("direct", "winograd_4x4"),
)  # fmt: skip
H100 = GpuDevice(
    name="h100-sxm", generation=Generation.HOPPER, sms=132, clock_hz=1.83e9,
    peak_flop_per_s={"bf16": 989e12, "fp8_e4m3": 1979e12, "fp32": 67e12},
    dram_bytes_per_s=3.35e12, l2_bytes=50e6, smem_bytes_per_sm=228 * 1024, lanes_per_sm=128,
)  # fmt: skip
