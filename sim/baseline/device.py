"""The machine under test: its identity, clocks, energy counter, memory and ceilings."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sim.baseline.peaks import GPU_PEAKS, Peaks, cpu_peaks
from sim.errors import MeasurementError

MEMORY_BYTES_PER_S_CEILING = 1.0e12
"""CPU memory: above any socket sold (12 channels of DDR5-8800 MRDIMM: 0.84 TB/s); a virtual machine does not say
which memory it has, so that the bound is generous."""

OTHERS_LIMIT = 0.04
"""Share of the cores that others may use while a point is measured; a preempted thread stalls all of them."""

TICK_SLACK = 2
"""Ticks (10 ms) per core by which the kernel's sampled counts and the process's exact ones may differ by chance."""

INSTRUCTION_SETS = (
    "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni",
    "amx_tile", "amx_bf16", "amx_int8", "asimd", "sve", "bf16", "i8mm",
)  # fmt: skip
"""Flags that decide which kernels a library takes."""

ASSUMED_CACHE_BYTES = 32 * 2**20
"""Last-level cache where the system does not tell; estimated, a common size per core complex."""

CHAIN_ADDS = 200_000
"""Dependent one-cycle additions per reading of the clock: 60 us at 3 GHz."""

_STAT = Path("/proc/stat")

_CHAIN = r"""
#include <chrono>
extern "C" double seconds_of_chain(long adds) {
    auto start = std::chrono::steady_clock::now();
    unsigned long x = 0, one = 1;
    for (long i = 0; i < adds; i += 16)
        asm volatile("add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n"
                     "add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0\n add %1,%0"
                     : "+r"(x) : "r"(one));
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
"""


@cache
def _clock_chain():
    """The compiled chain of dependent additions, or None where no compiler is at hand."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        return None
    folder = Path(tempfile.mkdtemp(prefix="dovetail-clock-"))
    source = folder / "chain.cpp"
    source.write_text(_CHAIN)
    library = folder / "chain.so"
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], capture_output=True, check=False
    )
    if done.returncode:
        return None
    function = ctypes.CDLL(str(library)).seconds_of_chain
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_long]
    shutil.rmtree(folder)
    return function


def core_clock_hz() -> float | None:
    """The clock at which a core runs now: a chain of dependent additions retires one per cycle.

    Register operands, because recent Intel cores fold additions of a constant at renaming, several a cycle.

    Virtual machines report the time-stamp counter's frequency, so that the clock is measured; where
    no compiler is at hand, what the system reports is returned, or None.
    """
    chain = _clock_chain()
    if chain is not None:
        return CHAIN_ADDS / min(chain(CHAIN_ADDS) for _ in range(5))
    for pattern, path, scale in (
        (r"(\d+)", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 1e3),
        (r"cpu MHz\s*:\s*([\d.]+)", "/proc/cpuinfo", 1e6),
    ):
        if Path(path).exists() and (match := re.search(pattern, Path(path).read_text())):
            return float(match.group(1)) * scale
    return None


def parse_cpuinfo(text: str) -> dict[str, str]:
    """The first processor of /proc/cpuinfo as a dict."""
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    return parse_cpuinfo(path.read_text()) if path.exists() else {}


def simd_class(info: Mapping[str, str]) -> str:
    """The row of the peak tables that this processor's instruction sets stand for."""
    flags = set(info.get("flags", "").split())
    if "amx_tile" in flags:
        return "amx"
    if "avx512f" in flags:
        zen4 = info.get("vendor_id") == "AuthenticAMD" and info.get("cpu family") == "25"
        return "avx512-zen4" if zen4 else "avx512"
    return "avx2" if "avx2" in flags else "unknown"


def slug(text: str) -> str:
    """Lower case, words joined by dashes: a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _cache_bytes() -> int:
    """Size of the largest cache that core 0 sees."""
    texts = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    found = [match for text in texts if (match := re.fullmatch(r"(\d+)([KMG])", text))]
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((int(m.group(1)) * unit[m.group(2)] for m in found), default=ASSUMED_CACHE_BYTES)


def _rapl_path() -> Path | None:
    path = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
    return path if os.access(path, os.R_OK) else None


class CpuDevice:
    """This machine's CPU, on `threads` cores to which the process is pinned."""

    backend = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self.cores = sorted(os.sched_getaffinity(0))
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise MeasurementError(f"{threads} threads asked for: expected 1 to {len(self.cores)}, or none for all")
        self.threads = threads or len(self.cores)
        if self.threads > len(self.cores):
            raise MeasurementError(
                f"{self.threads} threads asked for, but this process may use {len(self.cores)} cores: "
                f"give --threads {len(self.cores)} or fewer"
            )
        self.info = _cpu_info()
        flags = set(self.info.get("flags", self.info.get("Features", "")).split())
        self.instruction_sets = tuple(name for name in INSTRUCTION_SETS if name in flags)
        model = self.info.get("model name", platform.processor() or platform.machine())
        family = f"f{self.info.get('cpu family', 'x')}m{self.info.get('model', 'x')}"
        self.simd = simd_class(self.info)
        self.key = slug(f"{model} {family} {self.simd} {len(self.cores)}c")
        self.cache_bytes = _cache_bytes()
        self._best_clock_hz = max(filter(None, (core_clock_hz() for _ in range(20))), default=0.0)
        self._ticks, self._own_s = self._cpu_ticks(), sum(os.times()[:2])

    @property
    def best_clock_hz(self) -> float:
        """The highest clock seen so far. Raises: MeasurementError: it cannot be measured here."""
        if not self._best_clock_hz:
            raise MeasurementError(f"{self.key}: the core clock cannot be measured here (no compiler): give --hw")
        return self._best_clock_hz

    @property
    def peaks(self) -> Peaks:
        """At the highest clock seen so far, plus 5 % for what the chain may have missed."""
        return cpu_peaks(
            simd=self.simd, cores=self.threads, clock_hz=1.05 * self._best_clock_hz,
            memory_bytes_per_s=MEMORY_BYTES_PER_S_CEILING, cache_bytes=self.cache_bytes,
        )  # fmt: skip

    def pin(self) -> None:
        """Bind the process to the first `threads` cores that it may use."""
        os.sched_setaffinity(0, self.cores[: self.threads])

    def clocks(self) -> Mapping[str, float]:
        hertz = core_clock_hz()
        if hertz is None:
            return {}
        self._best_clock_hz = max(self._best_clock_hz, hertz)
        return {"core_hz": round(hertz)}

    def energy_j(self) -> float | None:
        path = _rapl_path()
        return int(path.read_text()) * 1e-6 if path else None

    def power_w(self) -> float | None:
        return None

    def free_bytes(self) -> int:
        """Memory that can be taken without swapping."""
        match = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
        return int(match.group(1)) * 1024 if match else 2**62

    def _cpu_ticks(self) -> list[int]:
        """Ticks by kind, summed over the cores that the process is pinned to."""
        return cpu_ticks(_STAT.read_text(), self.cores[: self.threads]) if _STAT.exists() else [0] * 8

    def throttled(self) -> str:
        """A machine under a hypervisor does not see throttling; `clocks` shows it."""
        return ""

    def disturbed(self) -> str:
        """Why no number can be given of the time since the last call: others ran on these cores."""
        ticks, own_s = self._cpu_ticks(), sum(os.times()[:2])
        passed = [now - then for now, then in zip(ticks, self._ticks, strict=True)]
        own = (own_s - self._own_s) * os.sysconf("SC_CLK_TCK")
        self._ticks, self._own_s = ticks, own_s
        return disturbance(passed, own, self.threads)

    def env(self) -> Mapping[str, object]:
        return {
            "cpu": self.info.get("model name", platform.processor()),
            "family": self.info.get("cpu family", ""), "model": self.info.get("model", ""),
            "instruction_sets": list(self.instruction_sets), "cores": len(self.cores),
            "cache_bytes": self.cache_bytes, "hypervisor": "hypervisor" in self.info.get("flags", ""),
            "kernel": platform.release().split("-")[0], "python": platform.python_version(),
            "load_average_1min": round(os.getloadavg()[0], 2),
        }  # fmt: skip


def disturbance(ticks: list[int], own: float, cores: int) -> str:
    """What others took of the machine, in words, when it is above OTHERS_LIMIT.

    Args:
        ticks: user, nice, system, idle, iowait, irq, softirq, steal that passed, as in /proc/stat.
        own: ticks of this process.
        cores: how many cores the ticks were summed over; TICK_SLACK of each are forgiven.
    Example: 100 ticks on two cores, 40 busy, 20 stolen, 30 own: others (40 - 30 - 4)/100 = 6 %, stolen 20 %.
    """
    total = sum(ticks[:8])
    if total <= 0:
        return ""
    idle, steal = ticks[3] + ticks[4], ticks[7]
    others = max(0.0, total - idle - steal - own - TICK_SLACK * cores) / total
    parts = [
        f"{what} {share:.0%} of the cores"
        for what, share in (("other processes used", others), ("the hypervisor took", steal / total))
        if share > OTHERS_LIMIT
    ]
    return " and ".join(parts)


def cpu_ticks(stat: str, cores: list[int]) -> list[int]:
    """The first eight columns of /proc/stat (user .. steal), summed over `cores`."""
    wanted = {f"cpu{core}" for core in cores}
    rows = [line.split() for line in stat.splitlines()]
    return [sum(column) for column in zip(*(map(int, r[1:9]) for r in rows if r and r[0] in wanted), strict=True)]


class CudaDevice:
    """A CUDA GPU, through torch and NVML."""

    backend = "cuda"
    threads = None

    def __init__(self, index: int = 0) -> None:
        import torch

        if not torch.cuda.is_available():
            raise MeasurementError(
                no_cuda_message(torch.__version__, torch.version.cuda, bool(shutil.which("nvidia-smi")))
            )
        from sim.baseline.nvml import Nvml

        self.index = index
        torch.cuda.set_device(index)
        self.properties = torch.cuda.get_device_properties(index)
        self.name = self.properties.name
        self.key = slug(self.name)
        self.cache_bytes = int(self.properties.L2_cache_size)
        self.nvml = Nvml(str(self.properties.uuid))
        self.peaks = next((p for part, p in GPU_PEAKS.items() if part in self.name), Peaks(source="unknown GPU"))

    def clocks(self) -> Mapping[str, float]:
        return self.nvml.clocks()

    def energy_j(self) -> float | None:
        return self.nvml.energy_j()

    def power_w(self) -> float | None:
        return self.nvml.power_w()

    def free_bytes(self) -> int:
        import torch

        return int(torch.cuda.mem_get_info(self.index)[0])

    def throttled(self) -> str:
        return self.nvml.throttled()

    def disturbed(self) -> str:
        """Another process on the GPU shows in the spread; NVML does not tell its share."""
        return ""

    def env(self) -> Mapping[str, object]:
        import torch

        return {
            "gpu": self.name, "capability": f"{self.properties.major}.{self.properties.minor}",
            "multiprocessors": self.properties.multi_processor_count, "cache_bytes": self.cache_bytes,
            "memory_bytes": self.properties.total_memory, "driver": self.nvml.driver(), "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(), "temperature_c": self.nvml.temperature_c(),
            "host": _cpu_info().get("model name", platform.processor()), "python": platform.python_version(),
        }  # fmt: skip


def no_cuda_message(torch_version: str, built_for: str | None, driver: bool) -> str:
    """Why there is no CUDA here, and what can be done."""
    if built_for is None:
        cause = f"torch {torch_version} is built without CUDA: install a CUDA build of the same version"
    elif not driver:
        cause = "no NVIDIA driver answers (nvidia-smi is not found): install it, or pass the GPU to the container"
    else:
        cause = (
            f"torch {torch_version} (CUDA {built_for}) does not see the GPU: check CUDA_VISIBLE_DEVICES and the driver"
        )
    return (
        f"No CUDA: {cause}. Without a GPU: --device cpu measures this machine, `dovetail import-profile` reads a "
        "profile taken elsewhere, and baselines/published holds results of GPUs."
    )


def open_device(name: str, threads: int | None = None) -> CpuDevice | CudaDevice:
    """`cpu`, `cuda` or `cuda:N`. Raises: MeasurementError: no such device."""
    if name == "cpu":
        return CpuDevice(threads)
    if match := re.fullmatch(r"cuda(?::(\d+))?", name):
        if threads is not None:
            raise MeasurementError("--threads is for --device cpu")
        return CudaDevice(int(match.group(1) or 0))
    raise MeasurementError(f'device "{name}" is unknown: expected cpu, cuda or cuda:N')
