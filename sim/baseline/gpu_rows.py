"""Baseline records of a GPU that a framework drives op by op, as rows of work that its constants are fitted to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sim.baseline.record import BaselineRecord, BrokenLine, Mode
from sim.baseline.table import GraphOf, Library, Sums, Table, stack_rows
from sim.cost.columns import from_table, to_table
from sim.cost.gpu.eager import CLASSES, HOST_KINDS, INDEX_COLUMNS, EagerConstants, EagerWork, eager_time
from sim.errors import CalibrationError
from sim.hardware.chip import Chip, Costing
from sim.schedule.eager_work import eager_kernels
from sim.schedule.gpu_kernels import gpu_of
from sim.schedule.network import Options, op_coster
from sim.schedule.prepare import Manner, prepare
from sim.workload.precision import BITS, parse_precision

KERNELS_SCHEMA = "dovetail.kernels/1"
KIND_OF = {
    "cudnn_convolution": "conv", "mm": "gemm", "addmm": "gemm", "bmm": "gemm", "_cudnn_rnn": "gemm",
    "_cudnn_attention_forward": "attention", "native_batch_norm": "batch_norm", "cudnn_batch_norm": "batch_norm",
    "native_layer_norm": "rows", "_fused_rms_norm": "rows", "native_group_norm": "group_norm",
    "max_pool2d_with_indices": "pool", "mean": "reduction",
}  # fmt: skip
"""ATen op of a profile -> kind of kernels; everything else is "other"."""
SUMMED = {
    "conv": ("conv", "few", "grouped", "apart", "depthwise"), "attention": ("attention", "decode"),
    "other": ("vector", "broadcast", "transposed", "softmax", "unfused"),
}  # fmt: skip
"""Kind of kernels of a profile -> classes of ops whose times sum to it, where it is not one of the same name."""
SHORTEST_S = 3e-6
"""Sums below this are one tiny kernel: noise."""


@dataclass(frozen=True, slots=True)
class RowTimes:
    """Seconds of each row. `host_s`: gaps, and what the device waits for the host."""

    host_s: np.ndarray
    kernel_s: np.ndarray

    @property
    def total_s(self) -> np.ndarray:
        return self.host_s + self.kernel_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Work of all records; called with constants it gives the times of the rows."""

    work: EagerWork
    owner: np.ndarray
    count: np.ndarray
    launched: np.ndarray
    """Per record whether its kernels were launched op by op."""

    def __call__(self, constants: EagerConstants) -> RowTimes:
        """As `sim.schedule.gpu_eager.host_wait_s`, record by record."""
        time = eager_time(self.work, constants)
        device, calls = (self._sums(t) for t in (time.device_s, time.call_s))
        waits = np.where(self.launched, np.maximum(0.0, 1 - device / np.maximum(calls, 1e-12)), 0.0)
        return RowTimes(host_s=time.gap_s + waits[self.owner] * time.call_s, kernel_s=time.floor_s + time.kernel_s)

    def _sums(self, time_s: np.ndarray) -> np.ndarray:
        return np.bincount(self.owner, weights=time_s * self.count, minlength=len(self.launched))

    def kinds(self) -> np.ndarray:
        """Class of each row as a profile tells it: a pointwise convolution is one."""
        names = np.array(CLASSES)[self.work.kind]
        return np.where((names == "gemm") & (self.work.host == HOST_KINDS.index("conv")), "conv", names)


def tabulate(records: Sequence[BaselineRecord], chip: Chip, graph_of: GraphOf) -> Table:
    """Every op of every record as one array of work; equal ops of a record are one row."""
    gpu, blocks = gpu_of(chip, "auto"), []
    known: dict[tuple, np.ndarray] = {}
    for record in records:
        key = (record.target, str(sorted(record.knobs.items())), record.precision)
        if key not in known:
            precision = parse_precision(record.precision)
            wide = BITS[precision.activation] > 8  # a lone narrow product is its library's call
            graph = prepare(graph_of(record), precision, manner=Manner(eager=wide), fuse=False)
            work = eager_kernels(graph, gpu, op_coster(graph, chip, Options(), precision)).work
            known[key] = to_table(work)
        blocks.append(known[key])
    stacked, owner, count = stack_rows(blocks)
    work = from_table(EagerWork, stacked, index=INDEX_COLUMNS)
    times = Rows(work=work, owner=owner, count=count, launched=np.array([r.mode is Mode.EAGER for r in records]))
    return Table(
        records=tuple(records), owner=owner, count=count, kind=work.kind, classes=CLASSES, weight=work.ideal_s,
        times=times,
    )  # fmt: skip


def profile_sums(file: Path, networks: Table, note: Callable[[str], None] = lambda line: None) -> Sums | None:
    """The kernels of networks by kind (`benchmarks/profile_gpu.py`), for those that the table holds as replayed graphs;
    None without such a file. A line that is no such record is skipped, and `note` is told its number and why."""
    if not file.exists():
        return None
    places = {
        _name(r.workload or "", r.knobs, r.precision): i
        for i, r in enumerate(networks.records)
        if r.mode is Mode.GRAPH
    }  # fmt: skip
    models, measured, groups = [], [], []
    assert isinstance(networks.times, Rows)
    kind = networks.times.kinds()
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            profile = _line(line)
        except (ValueError, CalibrationError) as error:
            note(str(BrokenLine(path=str(file), line=number, reason=str(error))))
            continue
        place = places.get(_name(profile["workload"], profile["knobs"], profile["precision"]))
        if place is None:
            continue
        for name, seconds in kernel_sums(profile["kernels"]).items():
            rows = np.flatnonzero((networks.owner == place) & np.isin(kind, SUMMED.get(name, (name,))))
            if len(rows) and seconds > SHORTEST_S:
                models.append(profile["workload"])
                measured.append(seconds)
                groups.append(rows)
    if not groups:
        return None
    rows, owner = np.concatenate(groups), np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    predict = partial(_kernels_s, networks.times, rows, owner)
    return Sums(models=np.array(models), measured_s=np.array(measured), predict=predict)


def _kernels_s(all_rows: Rows, rows: np.ndarray, owner: np.ndarray, constants: EagerConstants) -> np.ndarray:
    """Kernels without the gaps between them."""
    time = eager_time(all_rows.work, constants)
    return np.bincount(owner, weights=((time.floor_s + time.kernel_s) * all_rows.count)[rows])


def kernel_sums(kernels: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Kind of kernels -> seconds. Biases of convolutions are theirs, casts of statistics the batch norms'."""
    found: dict[str, float] = {}
    normed = any("batch_norm" in str(k["op"]) for k in kernels)
    for kernel in kernels:
        op, shapes = str(kernel["op"]).removeprefix("aten::"), list(kernel["shapes"])
        name = KIND_OF.get(op, "other")
        if op in ("add", "add_") and len(shapes) > 1 and shapes[1][:1] == [1] and shapes[1][2:] == [1, 1]:
            name = "conv"
        if op == "copy_" and normed and len(shapes[0]) == 1:
            name = "batch_norm"
        found[name] = found.get(name, 0.0) + float(kernel["us"]) * 1e-6
    return found


def _name(workload: str, knobs: Mapping[str, object], precision: str) -> tuple:
    return (workload, str(sorted(knobs.items())), precision)


_FIELDS = {"workload": (str,), "knobs": (dict,), "precision": (str,), "kernels": (list,)}
_KERNEL_FIELDS = {"op": (str,), "shapes": (list,), "us": (int, float)}
"""Fields that are read, with the JSON types that they may have."""
_WORDS = {str: "text", dict: "a JSON object", list: "a list", int: "a number", float: "a number"}


def _line(text: bytes) -> dict[str, Any]:
    """Raises: ValueError: not JSON; CalibrationError: not such a record, with the field that is wrong."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise CalibrationError(f"expected a JSON object, found {type(found).__name__}")
    if found.get("schema") != KERNELS_SCHEMA:
        raise CalibrationError(f'schema is {found.get("schema")!r}, expected "{KERNELS_SCHEMA}"')
    _check_fields(found, _FIELDS, "")
    for i, kernel in enumerate(found["kernels"]):
        place = f"kernels[{i}]"
        if not isinstance(kernel, dict):
            raise CalibrationError(f"{place} is {kernel!r:.60}, expected a JSON object")
        _check_fields(kernel, _KERNEL_FIELDS, f"{place}.")
        if not 0 <= kernel["us"] < float("inf"):
            raise CalibrationError(f"{place}.us is {kernel['us']}, expected microseconds of 0 or more")
        if not all(isinstance(shape, list) for shape in kernel["shapes"]):
            raise CalibrationError(f"{place}.shapes is {kernel['shapes']!r:.60}, expected a list of lists")
        if kernel["op"] == "aten::copy_" and not kernel["shapes"]:
            raise CalibrationError(f"{place}.shapes is empty, expected those of a copy")
    return found


def _check_fields(found: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], place: str) -> None:
    for name, allowed in types.items():
        if name not in found:
            raise CalibrationError(f"{place}{name} is missing, expected {_WORDS[allowed[0]]}")
        if not isinstance(found[name], allowed) or isinstance(found[name], bool):
            raise CalibrationError(f"{place}{name} is {found[name]!r:.60}, expected {_WORDS[allowed[0]]}")


EAGER_GPU = Library(
    costing=Costing.GPU_EAGER,
    constants=EagerConstants,
    classes=CLASSES,
    modes=frozenset({Mode.GRAPH, Mode.EAGER}),
    tabulate=tabulate,
    skipped=frozenset({"max_pool2d", "conv2d_layer"}),  # measured channels first: other kernels
    fallback={
        **{f"{name}_s": "conv_s" for name in ("few", "grouped", "apart", "depthwise", "pool")},
        **{f"{name}_efficiency": "conv_efficiency" for name in ("few", "grouped", "depthwise")},
        **{f"{name}_s": "broadcast_s" for name in ("transposed", "reduction", "unfused")},
        **{f"{name}_s": "rows_s" for name in ("batch_norm", "group_norm", "softmax")},
        "apart_copy_efficiency": "transposed_efficiency",
        "transposed_efficiency": "broadcast_efficiency",
        "batch_norm_efficiency": "rows_efficiency",
        "softmax_efficiency": "rows_efficiency",
        "decode_s": "attention_s",
        "decode_efficiency": "attention_efficiency",
        "host_batch_norm_s": "host_norm_s",
        "host_conv_s": "host_product_s",
        "host_attention_s": "host_product_s",
    },
    start={name: 1.0 for name in EagerConstants.__dataclass_fields__ if name.endswith("efficiency")},
)
"""PyTorch with cuBLAS and cuDNN on a GPU."""
