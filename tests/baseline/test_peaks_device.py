"""Physical bounds and what is read of the machine; expected values by hand."""

import pytest

from sim.baseline.device import cpu_ticks, disturbance, no_cuda_message, open_device, parse_cpuinfo, simd_class, slug
from sim.baseline.peaks import GPU_PEAKS, Peaks, bound_s, cpu_peaks
from sim.baseline.runner import bound_marks, clock_marks
from sim.errors import MeasurementError

PEAKS = Peaks(flop_per_s={"bf16": 1e12}, near_bytes_per_s=1e11, far_bytes_per_s=1e10, cache_bytes=1e6)


def bound(**changes):
    work = {"macs": 0.0, "in_bytes": 0.0, "out_bytes": 0.0, "precision": "bf16", "cold": True, "peaks": PEAKS}
    return bound_s(**{**work, **changes})


def test_bound_of_compute():
    """1e9 MACs = 2e9 FLOP at 1e12/s: 2 ms; an algorithm that saves a factor of four: 0.5 ms."""
    assert bound(macs=1e9) == pytest.approx(2e-3)
    assert bound(macs=1e9, algorithm_gain=4.0) == pytest.approx(0.5e-3)


def test_bound_of_memory():
    """Cold: 5 MB in from memory at 1e10 B/s = 0.5 ms; 3 MB out, of which 1 MB may stay in the cache: 0.2 ms more.
    Warm: the cache may hold 1 MB of the input too: 0.4 + 0.2 ms. Below the cache only the near rate binds."""
    assert bound(in_bytes=5e6, out_bytes=3e6) == pytest.approx(0.7e-3)
    assert bound(in_bytes=5e6, out_bytes=3e6, cold=False) == pytest.approx(0.6e-3)
    assert bound(in_bytes=0.6e6, out_bytes=0.4e6, cold=False) == pytest.approx(1e6 / 1e11)


def test_unknown_device_has_no_bound():
    assert bound(macs=1e9, peaks=Peaks()) is None
    assert bound_marks(1e-9, None) == []


def test_a_time_below_its_bound_is_marked():
    assert bound_marks(1.0e-3, 1.0e-3) == []
    assert "below the physical bound of 0.001 s" in bound_marks(0.9e-3, 1.0e-3)[0]


def test_clock_change_is_marked():
    assert clock_marks({"core_hz_before": 3.0e9, "core_hz_after": 2.9e9}) == []
    assert clock_marks({"core_hz_before": 3.0e9, "core_hz_after": 2.0e9}) == [
        "core clock changed from 3.00 to 2.00 GHz"
    ]
    assert clock_marks({}) == []


def test_cpu_peaks_by_hand():
    """Two Zen 4 cores at 3.5 GHz: fp32 2 x 3.5e9 x 32 = 224 GFLOP/s, int8 four times that."""
    peaks = cpu_peaks(simd="avx512-zen4", cores=2, clock_hz=3.5e9, memory_bytes_per_s=None, cache_bytes=0)
    assert peaks.flop_per_s["fp32"] == 224e9
    assert peaks.flop_per_s["int8"] == 896e9


def test_gpu_names_find_their_row():
    found = {name: next(part for part in GPU_PEAKS if part in name) for name in ("NVIDIA H200", "NVIDIA H100 PCIe")}
    assert found == {"NVIDIA H200": "H200", "NVIDIA H100 PCIe": "H100 PCIe"}
    assert GPU_PEAKS["H200"].far_bytes_per_s == 4.917e12


def test_peaks_of_hopper_are_at_the_clock_that_the_driver_boosts_to():
    """132 SMs x 4,096 FLOP x 1.98 GHz; two transfers of 6,144 bit a cycle of 3.201 GHz."""
    peaks = GPU_PEAKS["H200"]
    assert peaks.flop_per_s["bf16"] == pytest.approx(132 * 4096 * 1.98e9, rel=1e-3)
    assert peaks.flop_per_s["fp8_e4m3"] == 2 * peaks.flop_per_s["fp16"]
    assert peaks.far_bytes_per_s == pytest.approx(2 * 3.201e9 * 6144 / 8, rel=1e-3)


def test_disturbance_by_hand():
    """200 ticks of one core: 60 user + 20 system busy, of which 68 ours and 2 forgiven: others 10/200 = 5 %; 20 stolen
    = 10 %. On two cores with 74 ours, 80 - 74 - 4 = 2 are left: 1 %, below the limit."""
    said = "other processes used 5% of the cores and the hypervisor took 10% of the cores"
    assert disturbance([60, 0, 20, 100, 0, 0, 0, 20], own=68, cores=1) == said
    assert disturbance([60, 0, 20, 120, 0, 0, 0, 0], own=74, cores=2) == ""
    assert disturbance([0] * 8, own=0, cores=1) == ""


def test_cpu_ticks_of_the_pinned_cores():
    """Cores 0 and 2 of three; columns after the eighth (guest time is in user already) do not count."""
    stat = "cpu  9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 9\ncpu1 100 0 0 0 0 0 0 0 0\ncpu2 1 1 1 1 1 1 1 1 0\nintr 5\n"
    assert cpu_ticks(stat, [0, 2]) == [2, 3, 4, 5, 6, 7, 8, 9]


def test_cpuinfo_and_instruction_sets():
    text = "processor : 0\nvendor_id : AuthenticAMD\ncpu family : 25\nflags : fpu avx2 avx512f\n\nprocessor : 1\n"
    info = parse_cpuinfo(text)
    assert info["processor"] == "0"
    assert simd_class(info) == "avx512-zen4"
    assert simd_class({"flags": "avx2 avx512f amx_tile", "vendor_id": "GenuineIntel"}) == "amx"
    assert simd_class({"flags": "avx2"}) == "avx2"
    assert simd_class({}) == "unknown"
    assert slug("AMD EPYC 9654 (Genoa)") == "amd-epyc-9654-genoa"


def test_no_cuda_says_what_can_be_done():
    assert "install a CUDA build" in no_cuda_message("2.13.0+cpu", None, False)
    assert "driver" in no_cuda_message("2.13.0", "13.0", False)
    assert "CUDA_VISIBLE_DEVICES" in no_cuda_message("2.13.0", "13.0", True)


def test_unknown_devices_are_refused():
    with pytest.raises(MeasurementError, match="cpu, cuda or cuda:N"):
        open_device("tpu")
    with pytest.raises(MeasurementError, match="--threads"):
        open_device("cuda", threads=2)
    with pytest.raises(MeasurementError, match="10000 threads"):
        open_device("cpu", threads=10_000)
