"""Fit the GPU kernel constants on the public data set, check their transfer, and ablate the model.

    python benchmarks/gpu_constants.py fit [--write]    # held-out errors; rewrite sim/cost/gpu/fitted/*.yaml
    python benchmarks/gpu_constants.py joint [--write]  # one fit over A100 and H100: what unmeasured GPUs get
    python benchmarks/gpu_constants.py transfer         # leave one device out: A100's constants on H100, and back
    python benchmarks/gpu_constants.py ablate           # what each mechanism is worth

The environment variable DOVETAIL_DATA names the folder of measured data; this reads `gpu_kernels/*.csv` in it
(docs/extending.md says what lies where).
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from sim.baseline.fit import PROBLEMS, conv_model, fit_kernel
from sim.baseline.joint import LIBRARY_CONSTANTS, fit_joint, shared_constants
from sim.baseline.kernel_rows import kind_of, select
from sim.baseline.kernel_table import read_rows
from sim.baseline.score import error_statistics
from sim.cost.gpu.device import Generation, GpuDevice
from sim.cost.gpu.sets import KINDS, constants_for, fitted_sets

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("DOVETAIL_DATA", "")) / "gpu_kernels"
SERVING = "ai-dynamo/aiconfigurator commit 095f58a5 (Apache-2.0): vLLM 0.14.0 on A100, 0.24.0 on H100, graph replay"
EAGER = "sitar-lab/NeuSight commit 6945927d (MIT): PyTorch 2.1.0, event-timed, mean of the 5 fastest of 25"

# Data sheets; the clock is the one at which the data sheet's matrix rate holds. Rates of L2 as in hw_configs: what
# te42kyfo/gpu-benches reads from it.
_A100 = {
    "generation": Generation.AMPERE, "sms": 108, "clock_hz": 1.41e9, "l2_bytes": 40e6,
    "smem_bytes_per_sm": 164 * 1024, "l2_bytes_per_s": 3830 * 1.41e9, "lanes_per_sm": 64,
    "peak_flop_per_s": {"bf16": 312e12, "fp32": 19.5e12},
}  # fmt: skip
_DEVICES = (
    GpuDevice(name="a100-sxm", dram_bytes_per_s=2.039e12, **_A100),
    GpuDevice(name="a100-pcie-40gb", dram_bytes_per_s=1.555e12, **_A100),
    GpuDevice(name="a100-pcie-80gb", dram_bytes_per_s=1.935e12, algorithms=("direct", "winograd_4x4"), **_A100),
    GpuDevice(
        name="h100-sxm", generation=Generation.HOPPER, sms=132, clock_hz=1.83e9, l2_bytes=50e6,
        smem_bytes_per_sm=228 * 1024, peak_flop_per_s={"bf16": 989.4e12}, dram_bytes_per_s=3.35e12,
        l2_bytes_per_s=5120 * 1.83e9, lanes_per_sm=128,
    ),
    GpuDevice(
        name="v100-pcie-32gb", generation=Generation.VOLTA, sms=80, clock_hz=1.38e9, l2_bytes=6e6,
        smem_bytes_per_sm=96 * 1024, peak_flop_per_s={"fp32": 14.1e12}, dram_bytes_per_s=0.9e12,
        l2_bytes_per_s=1843 * 1.38e9,
    ),
)  # fmt: skip
DEVICES = {device.name: device for device in _DEVICES}
JOINT = {"a100-sxm": "mma-sync", "h100-sxm": "wgmma"}
"""Devices of the joint fit and the kernel library that each stands for."""
VECTOR = tuple(f"vector_{name}" for name in ("binary", "unary", "softmax", "layer_norm"))


def _serving(gpu: str) -> dict[str, str]:
    names = {
        "gemm": "gemm",
        "prefill": "attention_prefill",
        "decode": "attention_decode",
    }
    return {kind: f"{gpu}_sxm_{name}_bf16" for kind, name in names.items()}


SETS = {
    "a100-sxm": _serving("a100"),
    "h100-sxm": _serving("h100"),
    "a100-pcie-40gb": dict.fromkeys(VECTOR, "a100_pcie_40gb_vector_fp32"),
    "a100-pcie-80gb": {"conv": "a100_pcie_80gb_conv_fp32"},
    "v100-pcie-32gb": dict.fromkeys(VECTOR, "v100_pcie_32gb_vector_fp32"),
}
"""device -> kernel kind -> file; convolutions use the GEMM constants of a100-sxm, fitted before them."""


def percent(s) -> str:
    """median / mean / p90 / bias."""
    return f"{s.median_error:7.2%} {s.mean_error:7.2%} {s.p90_error:7.2%} {s.bias:+7.2%}"


def fit(write: bool) -> None:
    """Fit every set, print held-out errors by regime, and write the YAML files."""
    gemm = None
    for name, files in SETS.items():
        constants, errors = {}, {}
        for kind, stem in files.items():
            problem = replace(PROBLEMS[kind], model=conv_model(gemm)) if kind == "conv" else PROBLEMS[kind]
            rows, precision = read_rows(DATA / f"{stem}.csv"), stem.rsplit("_", 1)[-1]
            found = fit_kernel(kind, rows, DEVICES[name], precision=precision, problem=problem)
            gemm = found.constants if (name, kind) == ("a100-sxm", "gemm") else gemm
            s = found.held_out
            print(
                f"{name:15s} {kind:18s} {s.rows:5d} rows {found.families:5d} families {len(found.fitted):2d} constants "
                f"{percent(s)}  rho {s.spearman:.4f}  at limit: {', '.join(found.at_limits) or '-'}",
                flush=True,
            )
            for regime, part in found.regimes.items():
                print(f"{'':37s}{regime:24s} {part.rows:5d} rows {percent(part)}")
            constants[kind] = rounded(kind, found.constants)
            errors[kind] = {k: round(v, 4) for k, v in s.to_dict().items() if v is not None}
        if write:
            save(name, constants, errors)


def joint(write: bool) -> None:
    """Shared constants over all serving GPUs, the library's per library; errors two-fold by families."""
    constants: dict[str, dict] = {name: {} for name in JOINT}
    errors: dict[str, dict] = {name: {} for name in JOINT}
    for kind in LIBRARY_CONSTANTS:
        tables = [(read_rows(DATA / f"{SETS[name][kind]}.csv"), DEVICES[name]) for name in JOINT]
        found = fit_joint(kind, tables, precision="bf16")
        for name, s in found.held_out.items():
            print(f"joint {name:15s} {kind:18s} {s.rows:5d} rows {percent(s)}  rho {s.spearman:.4f}", flush=True)
            constants[name][kind] = rounded(kind, found.constants[name])
            errors[name][kind] = {k: round(v, 4) for k, v in s.to_dict().items() if v is not None}
    if write:
        for name, library in JOINT.items():
            save(name, constants[name], errors[name], library=library)


def rounded(kind: str, constants: object) -> dict[str, float]:
    return {f.name: float(f"{getattr(constants, f.name):.4g}") for f in fields(KINDS[kind])}


def save(name: str, constants: dict, errors: dict, library: str | None = None) -> None:
    """One set as YAML: constants fitted on all rows, errors of the two-fold check by families."""
    device = DEVICES[name]
    rows = f"the {' and '.join(JOINT)} rows together" if library else f"the {name} rows"
    document = {
        "name": library or name,
        "generation": str(device.generation),
        "clock_hz": device.clock_hz,
        "date": datetime.now(UTC).date().isoformat(),
        "source": f"fitted on {rows} of {SERVING if 'sxm' in name else EAGER}",
        **({"joint": True} if library else {}),
        "error": errors,
        "constants": constants,
    }
    path = ROOT / "sim" / "cost" / "gpu" / "fitted" / f"{library or name}.yaml"
    path.parent.mkdir(exist_ok=True)
    head = "# Fitted by benchmarks/gpu_constants.py; errors are fractions, each half of the shape families\n"
    head += "# scored with constants fitted on the other half. Units and ranges: sim/cost/gpu/constants.py.\n"
    path.write_text(head + yaml.safe_dump(document, sort_keys=False, width=110), encoding="utf-8")


def transfer() -> None:
    """Constants of one GPU on another's data sheet, scored on the other's rows."""
    pairs = [
        ("a100-sxm", "h100-sxm", ("gemm", "prefill", "decode")),
        ("a100-pcie-40gb", "v100-pcie-32gb", VECTOR),
    ]
    for one, two, kinds in pairs:
        for source, target in ((one, two), (two, one)):
            for kind in kinds:
                stem = SETS[target][kind]
                rows = read_rows(DATA / f"{stem}.csv")
                rows = select(rows, PROBLEMS[kind].uses(rows, DEVICES[target]))
                layout = kind_of(rows)
                constants = constants_for(DEVICES[target], source)
                predicted = layout.predict(rows, DEVICES[target], stem.rsplit("_", 1)[-1], constants)
                s = error_statistics(predicted.values, rows[layout.measured])
                print(f"{source:15s} -> {target:15s} {kind:18s} {s.rows:5d} rows {percent(s)}", flush=True)
                if kind in LIBRARY_CONSTANTS:
                    library_refitted(source, target, kind, rows)


def library_refitted(source: str, target: str, kind: str, rows) -> None:
    """Shared constants of one GPU on the other, whose library's few are fitted: another GPU of a known library."""
    held = shared_constants(kind, fitted_sets()[source].constants[kind]) | PROBLEMS[kind].fixed(DEVICES[target])
    mine = shared_constants(kind, fitted_sets()[target].constants[kind])
    fixed = PROBLEMS[kind].fixed
    held |= {n: mine[n] for n in fixed(DEVICES[source]) if n in mine and n not in fixed(DEVICES[target])}
    s = fit_kernel(kind, rows, DEVICES[target], precision="bf16", fixed=held).held_out
    names = ", ".join(LIBRARY_CONSTANTS[kind])
    print(f"{'':36s}{kind:18s} {s.rows:5d} rows {percent(s)}  with {names} refitted", flush=True)


OFF = {
    "gemm": {
        "full": {}, "no fill": {"fill_s": 0.0}, "no steps": {"step_s": 0.0},
        "no epilogue": {"epilogue_bytes_per_clock_sm": 1e9}, "no DRAM ramp": {"dram_ramp_s": 0.0},
        "no L2 residency": {"l2_share": 0.0}, "hard maximum": {"overlap": 16.0},
    },
    "prefill": {
        "full": {}, "no softmax time": {"softmax_share": 0.0}, "no cache-write wait": {"token_s": 0.0},
        "no CTA start": {"start_s": 0.0}, "no tail": {"tail": 0.0}, "hard maximum": {"overlap": 16.0},
    },
    "decode": {
        "full": {}, "no CTA start": {"start_s": 0.0}, "no L2 residency": {"l2_share": 0.0},
        "no combine": {"combine_s": 0.0}, "no further kernels": {"kernel_s": 0.0, "sequence_s": 0.0},
        "hard maximum": {"overlap": 16.0},
    },
}  # fmt: skip


def ablate() -> None:
    """Refit with one mechanism switched off; held-out errors."""
    for name in ("a100-sxm", "h100-sxm"):
        for kind, cases in OFF.items():
            rows = read_rows(DATA / f"{SETS[name][kind]}.csv")
            for label, fixed in cases.items():
                s = fit_kernel(kind, rows, DEVICES[name], precision="bf16", fixed=fixed).held_out
                print(f"{name:9s} {kind:8s} {label:26s} {percent(s)}", flush=True)


if __name__ == "__main__":
    actions = {
        "fit": lambda: fit("--write" in sys.argv),
        "joint": lambda: joint("--write" in sys.argv),
        "transfer": transfer,
        "ablate": ablate,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    if not DATA.is_dir():
        sys.exit(f"no measured data in {DATA}: name its folder in DOVETAIL_DATA")
    actions[sys.argv[1]]()
