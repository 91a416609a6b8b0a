"""What an eager framework launches for each op of a graph on a GPU: the columns of `EagerWork`.

Read off the profiler of PyTorch 2.11 (CUDA 13, cuBLAS, cuDNN 9.19) on an H200, images and filters channels last:
- a product is one kernel, a pointwise convolution too; a bias of a convolution is added by a kernel of its own;
- convolutions whose channels fill no 16-byte load run on the CUDA cores; groups of 4 to 32 channels, powers of two,
  have a kernel, others are laid apart and together by copies; one channel a group has a kernel;
- batch norm in 16 bits is three kernels (inverse deviation, transform, a cast), one in fp32; group norm is three, and
  two copies from channels last and back;
- attention with four axes is one kernel of cuDNN and one beside it; otherwise products in fp32 with casts, scalings, a
  mask and a test for empty rows around them;
- a recurrent layer is one call with two kernels for every step (seen with an LSTM; cuDNN has one for each cell).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sim.cost.flash import FlashRegion, called_regions
from sim.cost.gpu.eager import CLASSES, HOST_KINDS, EagerWork, work_from_rows
from sim.cost.vector import lane_cycles
from sim.results import Term
from sim.schedule.gpu import signature
from sim.schedule.gpu_kernels import Gpu, Kernel, kernel_of, streamed
from sim.schedule.shapes import FUSED_CELLS_OF_GPUS, is_depthwise, is_window
from sim.workload.graph import BY_HAND, EinsumOp, Graph, MovementOp, Op, Primitive, VectorOp, ViewOp

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

LOAD_BYTES = 16
"""Bytes of channels that a convolution on the matrix units loads at once."""
GROUPED = (4, 8, 16, 32)
"""Channels a group for which there is a kernel."""
APART_KERNELS = 6.0
"""Two memories cleared, three copies, and the product."""
STEP_KERNELS = 2.0
"""Kernels of one step of such a layer."""
UNFUSED_KERNELS = 8.0
"""Kernels of a part of attention that runs unfused: the product, and casts, scalings, copies, tests around it."""
UNFUSED_PASSES = 4.0
"""Times that its operands pass memory in fp32."""
WINDOW_OF_ITS_OWN = 9
"""Elements of the depthwise window that has a kernel of its own."""
GROUPS = 32.0
"""Groups of a group norm (Wu and He, ECCV 2018, and all bundled networks)."""
BIAS_SHARE = 0.4
"""A kernel that adds a bias, over one that transposes: what is broadcast is read from the cache (estimated)."""
REDUCTIONS = ("mean", "sum", "max", "amax", "argmax", "topk", "var")


@dataclass(frozen=True, kw_only=True)
class EagerKernels:
    """Ops of a graph prepared with `eager=True` that launch something, or belong to one that does."""

    work: EagerWork
    places: tuple[int, ...]
    """Position of each in the graph: fused attention stands at the last of its parts."""
    kernels: tuple[Kernel, ...]
    """Near-ideal kernel of each: its terms, what it moves, what it is bound by."""
    regions: tuple[FlashRegion | None, ...]


def eager_kernels(graph: Graph, gpu: Gpu, coster: _Coster, design: int = 0) -> EagerKernels:
    """Every op of the graph but views and the inside of fused attention, in order."""
    context = _Context(graph, gpu, coster, design)
    rows, places, views = [], [], 0
    for position, op in enumerate(graph.ops):
        if isinstance(op, ViewOp):
            views += not context.recurrent(op)
            continue
        row = context.row(op, position)
        if row is None:
            continue
        rows.append(row | {"views": float(views)})
        places.append(position)
        views = 0
    regions = tuple(r if (r := context.fused.get(at)) and r.place == at else None for at in places)
    return EagerKernels(
        work=work_from_rows(rows), places=tuple(places), kernels=tuple(context.kernels), regions=regions
    )


def _kind(name: str, host: str = "light") -> dict[str, float]:
    return {"kind": CLASSES.index(name), "host": HOST_KINDS.index(host)}


class _Context:
    """A graph on a GPU: what the rows share."""

    def __init__(self, graph: Graph, gpu: Gpu, coster: _Coster, design: int) -> None:
        self.graph, self.gpu, self.coster, self.design = graph, gpu, coster, design
        self.kernels: list[Kernel] = []
        """Of the rows so far."""
        self.fused: dict[int, FlashRegion] = {}
        for region in called_regions(graph).values():
            self.fused |= dict.fromkeys(region.members, region)
        self.called: set[str] = set()

    def recurrent(self, op: Op) -> bool:
        region = self.graph.regions.get(op.region or "")
        return region is not None and region.attrs.get("cell") in FUSED_CELLS_OF_GPUS

    def _unfused(self, op: Op) -> bool:
        region = self.graph.regions.get(op.region or "")
        return region is not None and region.kind == "attention" and not region.attrs.get(BY_HAND)

    def row(self, op: Op, position: int) -> dict[str, float] | None:
        region = self.fused.get(position)
        if region is not None:
            return self._attention(region) if region.place == position else self._cache_write(op)
        if self.recurrent(op):
            return self._step(op)
        if self._unfused(op):
            return self._part(op)
        if isinstance(op, EinsumOp):
            return self._convolution(op) if is_window(op) else self._row(self._kernel(op)) | _kind("gemm", "product")
        if isinstance(op, MovementOp):
            return self._row(self._stream(op)) | _kind(self._movement(op))
        return self._vector(op)

    def _kernel(self, op: Op, region: FlashRegion | None = None) -> Kernel:
        """As the generation's library would run it; ops that cost the same are costed once."""
        known, key = self.coster.mapped, ("kernel", self.design, signature(op, self.graph, region))
        if key not in known:
            known[key] = kernel_of(op, self.gpu, self.coster, region)
        return known[key]  # type: ignore[return-value]

    def _row(self, kernel: Kernel) -> dict[str, float]:
        self.kernels.append(kernel)
        return {"ideal_s": kernel.time_s, "kernels": 1.0, "calls": 1.0}

    def _stream(self, op: Op) -> Kernel:
        """The op's bytes through L2 or DRAM."""
        tensors = self.graph.tensors
        if isinstance(op, MovementOp):
            reads = [(k, float(n)) for k, n in op.read_bytes.items()]
            writes = [(k, float(n)) for k, n in op.write_bytes.items()]
        else:
            reads = [(k, float(tensors[k].size_bytes)) for k in dict.fromkeys(op.inputs)]
            writes = [(k, float(tensors[k].size_bytes)) for k in dict.fromkeys(op.outputs)]
        return streamed(self.gpu, self.graph, "vector_binary", reads, writes, 0.0, 0.0)

    def _dram_s(self, moved_bytes: float) -> float:
        return moved_bytes / self.gpu.device.dram_bytes_per_s

    # Products

    def _attention(self, region: FlashRegion) -> dict[str, float]:
        kind = "decode" if int(region.region.attrs.get("query_length", 2)) <= 1 else "attention"
        row = self._row(self._kernel(self.graph.ops[region.scores], region))
        return row | _kind(kind, "attention") | {"kernels": 2.0}

    def _cache_write(self, op: Op) -> dict[str, float] | None:
        """The framework writes a cache by copies of its own; what is inside the kernel launches nothing."""
        return self._row(self._stream(op)) | _kind("broadcast") if isinstance(op, MovementOp) else None

    def _step(self, op: Op) -> dict[str, float]:
        """A step's product; its cell is inside."""
        if not isinstance(op, EinsumOp):
            kernel = self._stream(op)
            nothing = {name: dict.fromkeys(table, (0.0, 0.0)) for name, table in kernel.moved.items()}
            self._row(replace(kernel, terms_s={}, moved=nothing, resources_s=dict.fromkeys(kernel.resources_s, 0.0)))
            return _kind("vector")
        first = op.region not in self.called
        self.called.add(op.region or "")
        row = self._row(self._kernel(op)) | _kind("gemm", "attention")
        return row | {"calls": float(first), "light_calls": STEP_KERNELS, "kernels": STEP_KERNELS}

    def _part(self, op: Op) -> dict[str, float]:
        """Of attention that runs op by op, in fp32: what moves decides."""
        moved = sum(self.graph.tensors[k].elements * 4.0 for k in (*op.inputs, *op.outputs))
        return self._row(self._kernel(op)) | _kind("unfused", "product") | {
            "kernels": UNFUSED_KERNELS, "calls": 1.0, "light_calls": UNFUSED_KERNELS - 1,
            "copies_s": self._dram_s(UNFUSED_PASSES * moved),
        }  # fmt: skip

    def _convolution(self, op: EinsumOp) -> dict[str, float]:
        ranks, value = op.einsum.ranks, self.graph.tensors[op.inputs[0]]
        row = self._row(self._kernel(op))
        window = ranks.get("R", 1) * ranks.get("S", 1)
        channels = ranks.get("C", 1)
        if len(op.inputs) > 2:
            row |= self._bias(op)
        if is_depthwise(op):
            beyond = float(window) if window > WINDOW_OF_ITS_OWN else 0.0
            return row | _kind("depthwise", "conv") | {"columns": beyond}
        if ranks.get("G", 1) > 1:
            if channels in GROUPED:
                return row | _kind("grouped", "conv")
            result = self.graph.tensors[op.outputs[0]]
            copied = row.get("copies_s", 0.0) + self._dram_s(2.0 * (value.size_bytes + result.size_bytes))
            return row | _kind("apart", "conv") | {"kernels": row["kernels"] - 1 + APART_KERNELS, "copies_s": copied}
        if window == 1 and not self._strided(op):
            return row | _kind("gemm", "conv")
        if value.bits <= 16 and channels * value.bits / 8 % LOAD_BYTES:
            return row | _kind("few", "conv") | {"ideal_s": self._on_lanes(op), "columns": float(channels * window)}
        return row | _kind("conv", "conv")

    def _bias(self, op: EinsumOp) -> dict[str, float]:
        """Added to the result by a kernel that reads and writes it."""
        result = self.graph.tensors[op.outputs[0]]
        return {"kernels": 2.0, "light_calls": 1.0, "copies_s": self._dram_s(2.0 * result.size_bytes * BIAS_SHARE)}

    def _on_lanes(self, op: EinsumOp) -> float:
        unit = self.gpu.chip.main_unit
        lanes = lane_cycles(unit.vector, {Primitive.FMA: op.einsum.macs}, chip=self.gpu.chip.name) / unit.clock_hz
        self.kernels[-1] = replace(self.kernels[-1], terms_s={Term.VECTOR: lanes})
        return lanes + self._stream(op).time_s

    def _strided(self, op: EinsumOp) -> bool:
        value, result = self.graph.tensors[op.inputs[0]], self.graph.tensors[op.outputs[0]]
        return value.shape[2:] != result.shape[2:]

    # Streams

    def _movement(self, op: MovementOp) -> str:
        """A plain copy, one that changes the contiguous axis, or one that gathers."""
        source = self.graph.tensors[op.inputs[0]] if len(op.inputs) == 1 else None
        result = self.graph.tensors[op.outputs[0]] if op.outputs else None
        if source is None or result is None:
            return "broadcast"
        if not source.layout and source.elements == result.elements:
            return "vector"
        return "transposed" if source.layout and source.layout[-1] != len(source.shape) - 1 else "broadcast"

    def _vector(self, op: Op) -> dict[str, float]:
        row, name = self._row(self._stream(op)), op.kind.rpartition(".")[2]
        tensors = self.graph.tensors
        out = tensors[op.outputs[0]]
        half = tensors[op.inputs[0]].bits <= 16 if op.inputs else False
        if "batch_norm" in name:
            return row | _kind("batch_norm", "batch_norm") | {"kernels": 3.0 if half else 1.0}
        if "group_norm" in name:
            copied = self._dram_s(2.0 * out.size_bytes + 2.0 * tensors[op.inputs[0]].size_bytes)
            return row | _kind("group_norm", "norm") | {
                "columns": out.elements / max(1, out.shape[0]) / GROUPS, "kernels": 5.0, "light_calls": 2.0,
                "copies_s": copied,
            }  # fmt: skip
        if "norm" in name:
            columns = float(out.shape[-1]) if out.shape else 1.0
            return (
                row | _kind("rows", "norm") | {"columns": columns, "rows": out.elements / columns / self.gpu.device.sms}
            )
        if "softmax" in name:
            return row | _kind("softmax")
        if "pool" in name:
            walked = float(sum(getattr(op, "primitives", {}).values()))
            return row | _kind("pool") | {"columns": walked}
        if name in REDUCTIONS:
            return row | _kind("reduction")
        return row | _kind("vector" if isinstance(op, VectorOp) and self._plain(op) else "broadcast")

    def _plain(self, op: VectorOp) -> bool:
        """Whether all operands have the result's elements in its order."""
        tensors = self.graph.tensors
        out = tensors[op.outputs[0]]
        return all(tensors[k].elements in (1, out.elements) and tensors[k].layout == out.layout for k in op.inputs)
