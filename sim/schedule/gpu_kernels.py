"""The kernels of one GPU: matrix products, convolutions, vector work, attention; see `sim.schedule.gpu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.compulsory import touched_elements
from sim.cost.flash import FlashRegion, visible_share
from sim.cost.gpu.attention import attention_decode_s, prefill_plan, prefill_time, runs_decode_kernel
from sim.cost.gpu.constants import DecodeConstants
from sim.cost.gpu.conv import WINOGRAD, conv_s
from sim.cost.gpu.device import CUDA_CORE_DTYPES, SIMT, GpuDevice, device_from_chip
from sim.cost.gpu.gemm import gemm_plan, gemm_time
from sim.cost.gpu.result import KernelTime, hit_rate
from sim.cost.gpu.sets import GpuConstants, constants_for, fitted_sets
from sim.cost.gpu.vector import L2_STEEPNESS
from sim.cost.sparsity import rate_speedup
from sim.cost.vector import lane_cycles, primitives
from sim.errors import CalibrationError, nearest
from sim.hardware.chip import Chip, Costing
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT
from sim.results import Term
from sim.schedule.asking import compute_and_widening
from sim.schedule.shapes import is_depthwise, is_window, product_shape
from sim.workload.graph import EinsumOp, Graph, MovementOp, Op, Primitive, Role, VectorOp
from sim.workload.precision import BITS

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

ROW_BYTES = 16
"""What a load of the matrix units takes at once: rows of other lengths start between two loads."""
MISALIGNED = (
    f"rows of products are no multiple of {ROW_BYTES} bytes: none were fitted, and libraries fall back to slower "
    "kernels (1000 x 3333 x 5177 in bf16 took eight times its estimate on an H200); pad them"
)
DEPTHWISE_UNMEASURED = (
    "depthwise convolutions use the constants of element-wise kernels: none were measured, and what a library runs in "
    "their place is not known: no interval"
)
Moves = Sequence[tuple[str, float]]
"""(tensor, bytes)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One kernel on one chip. `terms_s` sum to `time_s`, launch apart; `moved` maps memory -> operand ->
    (read, write) bytes."""

    kind: str
    """Kind of constants that it uses (`sim.cost.gpu.sets.KINDS`)."""
    launch_s: float
    terms_s: Mapping[Term, float]
    resources_s: Mapping[str, float]
    moved: Mapping[str, Mapping[str, tuple[float, float]]]
    mac_slots: float = 0.0
    """MACs that the busy cells do, at one MAC per cell and cycle, over all arrays."""
    effective_macs: float = 0.0
    flags: tuple[str, ...] = ()
    bounded: bool = True
    """Whether anything is known of how far off its time may be."""

    @property
    def time_s(self) -> float:
        return sum(self.terms_s.values())


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One chip of the coster with its constants."""

    chip: Chip
    device: GpuDevice
    constants: GpuConstants
    calibrated: bool
    l2: str

    def floor_s(self, own: float) -> float:
        """Launch floor: measured, or what the chip file states."""
        return own if self.calibrated else self.chip.main_unit.launch_s

    def cold(self, constants: DecodeConstants) -> DecodeConstants:
        """Constants for data that nothing has touched lately."""
        return replace(constants, l2_share=0.0)


def gpu_of(chip: Chip, calibration: str) -> Gpu:
    """Device and constants of a chip. Raises: ConfigError; CalibrationError: the choice, or the chip's own, is not
    among the fitted."""
    device, kernels = device_from_chip(chip), chip.main_unit.costing is Costing.GPU_KERNELS
    own = chip.calibration if kernels and calibration == "auto" else None  # (of a GPU under a framework: its records)
    if own is not None and own not in fitted_sets():
        raise CalibrationError(
            f'{chip.name}: its calibration "{own}" is not there: expected one of {", ".join(fitted_sets())}.'
            f"{nearest(own, fitted_sets())}"
        )
    if calibration == "none":
        device = replace(device, algorithms=("direct",))
    return Gpu(
        chip=chip,
        device=device,
        constants=constants_for(device, calibration),
        calibrated=calibration != "none",
        l2=chip.main_unit.memories[0].name,
    )


def product_op(graph: Graph, position: int) -> EinsumOp:
    """The product at a position."""
    op = graph.ops[position]
    assert isinstance(op, EinsumOp)
    return op


def kernel_of(op: Op, gpu: Gpu, coster: _Coster, region: FlashRegion | None) -> Kernel:
    """The kernel that runs an op, or a whole attention region."""
    if region is not None:
        return _attention(region, gpu, coster)
    if isinstance(op, EinsumOp):
        return _depthwise(op, gpu, coster) if is_depthwise(op) else _matrix(op, gpu, coster)
    return _vector(op, gpu, coster)


# Matrix products and convolutions


def _matrix(op: EinsumOp, gpu: Gpu, coster: _Coster) -> Kernel:
    """A product, batched product or convolution, with its epilogue."""
    graph, device, c = coster.graph, gpu.device, gpu.constants
    compute, widened = compute_and_widening(op, coster)
    tensors = {role: graph.tensors[op.einsum.operand(role).tensor] for role in (INPUT, WEIGHT, OUTPUT)}
    dtype, shape = tensors[INPUT].dtype, product_shape(op)
    speed = rate_speedup(gpu.chip.main_unit, op, graph, compute)
    window = is_window(op)
    library = SIMT if window and dtype in CUDA_CORE_DTYPES else None
    share = min(1.0, touched_elements(op.einsum, INPUT) / (shape.batch * shape.m * shape.k))
    stored = tensors[WEIGHT].bits * tensors[WEIGHT].density / BITS[dtype]
    plan = gemm_plan(
        shape.m, shape.n, shape.k, batch=shape.batch, device=device, dtype=dtype, compute=compute,
        library=library, input_share=share, weight_share=stored, output_bytes=tensors[OUTPUT].bits / 8,
    )  # fmt: skip
    plan = replace(plan, compute_s=plan.compute_s / speed)
    constants, kind = c.gemm_for(dtype), "gemm"
    flags: tuple[str, ...] = ()
    if window and dtype in CUDA_CORE_DTYPES:
        constants, kind = c.conv.inside(c.gemm, host=False)(c.conv.direct_efficiency), "conv"
    elif window and gpu.calibrated:
        flags = (f"convolutions in {dtype} on matrix units use the constants of matrix products: none were measured",)
    found = gemm_time(plan, constants)
    fast = _winograd(op, gpu, dtype) if kind == "conv" else None
    if kind == "conv" and dtype == "fp32" and gpu.calibrated and not _lists_winograd(gpu) and _may_be_winograd(op):
        flags = ("3x3 convolutions in fp32 may run Winograd kernels: the chip file does not say which its library has",)
    work = float(op.einsum.macs) / speed
    if fast is not None and fast.time_s < found.time_s:
        found, work = fast, work / 2.25 if int(fast.kernel["outputs_per_tile_side"]) == 2 else work / 4
        flags = ("3x3 convolutions in fp32 may run Winograd kernels: the choice is the library's, not known",)
    if found.flagged.any() and not flags:
        flags = tuple(name for name, raised in found.flags.items() if np.any(raised))
    if gpu.calibrated and not window and shape.k * BITS[dtype] / 8 % ROW_BYTES:
        flags = (*flags, MISALIGNED)
    kernel = _with_epilogue(op, gpu, coster, found, kind, work / _macs_per_cell(gpu, compute), widened, flags)
    return replace(kernel, effective_macs=op.einsum.macs / speed)


def _macs_per_cell(gpu: Gpu, compute: str) -> float:
    return gpu.chip.main_unit.array.macs_per_cycle[compute]


def _lists_winograd(gpu: Gpu) -> bool:
    return bool(set(gpu.device.algorithms) & set(WINOGRAD))


def _may_be_winograd(op: EinsumOp) -> bool:
    """A 3x3 window that moves pixel by pixel along both axes of a plane, in one group; libraries have it for planes."""
    ranks = op.einsum.ranks
    if ranks.get("R") != 3 or ranks.get("S") != 3 or {"G", "T"} & set(ranks):
        return False
    moved = {frozenset(axis.terms) for axis in op.einsum.operand(INPUT).projection if {"R", "S"} & set(axis.ranks)}
    return moved == {frozenset({("P", 1), ("R", 1)}), frozenset({("Q", 1), ("S", 1)})}


def _winograd(op: EinsumOp, gpu: Gpu, dtype: str) -> KernelTime | None:
    """The Winograd form of a 3x3 convolution with stride 1, where the chip's library has one."""
    if not _lists_winograd(gpu) or not _may_be_winograd(op):
        return None
    ranks = op.einsum.ranks
    height, width = (ranks[rank] + 2 for rank in ("P", "Q"))  # padding included, whose sides may differ
    found = conv_s(
        ranks.get("N", 1), ranks["C"], ranks["K"], height, width, 3, device=gpu.device, constants=gpu.constants.conv,
        gemm=gpu.constants.gemm, dtype=dtype,
    )  # fmt: skip
    return found if int(found.kernel["outputs_per_tile_side"]) > 1 else None


def _with_epilogue(
    op: EinsumOp,
    gpu: Gpu,
    coster: _Coster,
    found: KernelTime,
    kind: str,
    slots: float,
    widened: bool,
    flags: tuple[str, ...],
) -> Kernel:
    """The product's terms, what its epilogue reads, and lane work that outlasts it."""
    graph, device, c = coster.graph, gpu.device, gpu.constants.gemm
    terms = {term: float(value) for term, value in found.breakdown_s().items()}
    launch = gpu.floor_s(terms.pop(Term.LAUNCH))
    extra = sum(float(graph.tensors[k].size_bytes) for k in dict.fromkeys(op.inputs) if k not in _factors(op))
    hit = float(hit_rate(np.asarray(extra), c.l2_share * device.l2_bytes, L2_STEEPNESS))
    l2_rate = device.l2_bytes_per_s
    dram_rate = c.dram_efficiency * device.dram_bytes_per_s
    terms[Term.EXPOSED_MEMORY] = terms.get(Term.EXPOSED_MEMORY, 0.0) + extra * (hit / l2_rate + (1 - hit) / dram_rate)
    before = sum(terms.values())
    lanes = _lanes_s(op, gpu)
    terms[Term.VECTOR] = terms.get(Term.VECTOR, 0.0) + max(0.0, lanes - before)
    convert = _convert_s(op, gpu, coster) if widened else 0.0
    terms[Term.DEQUANTISE] = max(0.0, convert - max(before, lanes))
    moved = {name: float(value) for name, value in found.moved_bytes.items()}
    home = gpu.chip.main_unit.home
    table = {
        home: {
            "input": (moved["input"], 0.0),
            "weight": (moved["weight"], 0.0),
            "output": (0.0, moved["output"]),
        },
        gpu.l2: {"all": (moved["l2"] + extra, moved["output"])},
    }
    if extra:
        table[home]["epilogue"] = (extra * (1 - hit), 0.0)
    resources = {
        "compute": terms.get(Term.COMPUTE, 0.0),
        f"memory:{home}": sum(r + w for r, w in table[home].values()) / dram_rate,
        f"memory:{gpu.l2}": (moved["l2"] + extra + moved["output"]) / l2_rate,
        "vector": lanes,
    }
    return Kernel(
        kind=kind, launch_s=launch, terms_s=terms, resources_s=resources, moved=table, mac_slots=slots,
        flags=flags,
    )  # fmt: skip


def _factors(op: EinsumOp) -> set[str]:
    return {operand.tensor for operand in op.einsum.operands}


def _lanes_s(op: Op, gpu: Gpu) -> float:
    """Time of all lanes for an op's primitives, its epilogue's for every output element."""
    unit = gpu.chip.main_unit
    return lane_cycles(unit.vector, primitives(op), chip=gpu.chip.name) / unit.clock_hz


def _convert_s(op: EinsumOp, gpu: Gpu, coster: _Coster) -> float:
    """Time of all lanes to widen the weights once."""
    elements = coster.graph.tensors[op.einsum.operand(WEIGHT).tensor].elements
    unit = gpu.chip.main_unit
    counts = {Primitive.CONVERT: elements, Primitive.MUL: elements}
    return lane_cycles(unit.vector, counts, chip=gpu.chip.name) / unit.clock_hz


# Vector and movement kernels


def _class_of(kind: str, inputs: int) -> str:
    """Class of vector kernels whose constants an op uses."""
    if "softmax" in kind:
        return "softmax"
    if "norm" in kind:
        return "layer_norm"
    return "binary" if inputs > 1 else "unary"


def _vector(op: Op, gpu: Gpu, coster: _Coster) -> Kernel:
    """Element-wise, row-wise and movement kernels: lanes beside a stream through L2 or DRAM.

    The device floor of the fitted sets was taken from eager calls, so the launch floor of matrix
    kernels stands in its place.
    """
    graph, tensors = coster.graph, coster.graph.tensors
    if isinstance(op, MovementOp):
        reads = [(k, float(n)) for k, n in op.read_bytes.items()]
        writes = [(k, float(n)) for k, n in op.write_bytes.items()]
    else:
        reads = [(k, float(tensors[k].size_bytes)) for k in dict.fromkeys(op.inputs)]
        writes = [(k, float(tensors[k].size_bytes)) for k in dict.fromkeys(op.outputs)]
    kind = _class_of(op.kind, len(op.inputs))
    rows = 0.0
    if isinstance(op, VectorOp) and kind in ("softmax", "layer_norm") and "batch_norm" not in op.kind:
        out = tensors[op.outputs[0]]  # a batch norm reduces nothing in inference
        rows = out.elements / max(1, out.shape[-1] if out.shape else 1)
    return streamed(gpu, graph, f"vector_{kind}", reads, writes, _lanes_s(op, gpu), rows)


def streamed(gpu: Gpu, graph: Graph, kind: str, reads: Moves, writes: Moves, lanes: float, rows: float) -> Kernel:
    """A stream of (tensor, bytes) through L2 or DRAM beside the lanes; `rows` are reduced one by one."""
    c, device = gpu.constants.vector[kind.removeprefix("vector_")], gpu.device
    cold = {Role.WEIGHT, Role.KV_CACHE, Role.INPUT}
    lately = sum(n for k, n in (*reads, *writes) if graph.tensors[k].role not in cold)
    room = c.l2_share * device.l2_bytes
    hit = float(hit_rate(np.asarray(lately), room, L2_STEEPNESS))
    l2_rate = c.l2_bytes_per_clock_sm * device.sms * device.clock_hz
    dram_rate = c.dram_efficiency * device.dram_bytes_per_s

    def far(key: str, moved: float) -> float:
        """Bytes of DRAM: of a cold table that L2 holds, what is looked up again is found there."""
        if graph.tensors[key].role not in cold:
            return moved * (1 - hit)
        size = float(graph.tensors[key].size_bytes)
        return min(moved, size) if size <= room else moved

    read, write = (sum(far(k, n) for k, n in side) for side in (reads, writes))
    total = sum(n for _, n in (*reads, *writes))
    home = gpu.chip.main_unit.home
    near = max(0.0, total - read - write)
    stream = (read + write) / dram_rate + near / l2_rate
    row = c.row_s * rows / device.sms
    terms = {Term.VECTOR: lanes + row, Term.EXPOSED_MEMORY: max(0.0, stream - lanes)}
    return Kernel(
        kind=kind,
        launch_s=gpu.floor_s(gpu.constants.gemm.launch_s),
        terms_s=terms,
        resources_s={
            "vector": lanes + row,
            f"memory:{home}": (read + write) / dram_rate,
            f"memory:{gpu.l2}": near / l2_rate,
        },
        moved={
            home: {"input": (read, 0.0), "output": (0.0, write)},
            gpu.l2: {"input": (sum(n for _, n in reads), 0.0), "output": (0.0, sum(n for _, n in writes))},
        },
    )  # fmt: skip


def _depthwise(op: EinsumOp, gpu: Gpu, coster: _Coster) -> Kernel:
    """One output channel per group: a stream on the CUDA cores, one FMA per MAC; no matrix unit is used."""
    graph, unit = coster.graph, gpu.chip.main_unit
    touched = {
        o.tensor: touched_elements(op.einsum, o.role) * graph.tensors[o.tensor].bits / 8 for o in op.einsum.operands
    }
    out = op.einsum.output.tensor
    reads = [(k, touched.get(k, float(graph.tensors[k].size_bytes))) for k in dict.fromkeys(op.inputs)]
    macs = lane_cycles(unit.vector, {Primitive.FMA: op.einsum.macs}, chip=gpu.chip.name) / unit.clock_hz
    found = streamed(gpu, graph, "vector_unary", reads, [(out, touched[out])], macs + _lanes_s(op, gpu), 0.0)
    flags = (DEPTHWISE_UNMEASURED,) if gpu.calibrated else ()
    return replace(found, effective_macs=float(op.einsum.macs), flags=flags, bounded=not flags)


# Attention


def _attention(region: FlashRegion, gpu: Gpu, coster: _Coster) -> Kernel:
    """Scores, softmax and context as one FlashAttention kernel, cache writes included."""
    graph, device = coster.graph, gpu.device
    scores = product_op(graph, region.scores)
    compute, _ = compute_and_widening(scores, coster)
    dtype = graph.tensors[scores.einsum.operand(INPUT).tensor].dtype
    found, kind = _flash(region, gpu, graph, dtype)
    terms = {term: float(value) for term, value in found.breakdown_s().items()}
    launch = terms.pop(Term.LAUNCH, 0.0)
    if gpu.calibrated and not region.writes_cache:  # the fitted floor holds two kernels, the second writes the cache
        one = gpu.constants.gemm.launch_s
        launch = max(one, launch - one)
    share = visible_share(region.region)
    macs = sum(product_op(graph, i).einsum.macs for i in (region.scores, region.context)) * share
    peak_s = 2 * macs / device.peak(compute)
    lanes = share * sum(_lanes_s(graph.ops[i], gpu) for i in region.members)
    home, moved = gpu.chip.main_unit.home, external_bytes(region, graph)
    total = sum(r + w for r, w in moved.values())
    if not gpu.calibrated:  # the data sheet's lanes and matrix rate bind beside the kernel's own terms
        before = sum(terms.values())
        floor = max(peak_s, lanes, total / device.dram_bytes_per_s)
        terms[Term.VECTOR] = terms.get(Term.VECTOR, 0.0) + max(0.0, floor - before)
    elif mask := _mask_bytes(region, graph):  # none was fitted: DRAM reads it beside the work and all that L2 lacks
        c = getattr(gpu.constants, kind)
        hit = float(hit_rate(np.asarray(total), c.l2_share * device.l2_bytes, L2_STEEPNESS))
        reads_s = (mask + (1 - hit) * (total - mask)) / (c.dram_efficiency * device.dram_bytes_per_s)
        exposed_s = max(0.0, reads_s - sum(terms.values()))
        terms[Term.EXPOSED_MEMORY] = terms.get(Term.EXPOSED_MEMORY, 0.0) + exposed_s
    flags = [name for name, raised in found.flags.items() if np.any(raised)]
    names = {"head_dim": f"attention with head dimension {region.region.attrs['head_dim']}: outside the measured ones"}
    resources = {
        "compute": terms.get(Term.COMPUTE, 0.0),
        "vector": 0.0 if gpu.calibrated else lanes,
        f"memory:{home}": total / device.dram_bytes_per_s,
    }
    return Kernel(
        kind=kind,
        launch_s=gpu.floor_s(launch),
        terms_s=terms,
        resources_s=resources,
        moved={home: moved, gpu.l2: {"all": (total, 0.0)}},
        mac_slots=macs / _macs_per_cell(gpu, compute),
        effective_macs=macs,
        flags=tuple(names.get(flag, flag) for flag in flags) if gpu.calibrated else (),
    )


def _mask_bytes(region: FlashRegion, graph: Graph) -> float:
    """What fused attention reads beside queries, keys and values."""
    between = (graph.ops[i] for i in region.members if isinstance(graph.ops[i], VectorOp))
    tensors = {key: graph.tensors[key] for op in between for key in op.inputs}
    return sum(float(t.size_bytes) for key, t in tensors.items() if (t.storage or key) not in region.inside)


def _flash(region: FlashRegion, gpu: Gpu, graph: Graph, dtype: str) -> tuple[KernelTime, str]:
    """(time, kind of constants) of the kernel that the library launches."""
    attrs, c = region.region.attrs, gpu.constants
    queries, keys = int(attrs["query_length"]), int(attrs["key_length"])
    window = int(attrs.get("window", 0) or 0)
    heads, kv_heads, key_dim = (int(attrs[name]) for name in ("heads", "kv_heads", "head_dim"))
    value_dim = product_op(graph, region.context).einsum.macs / (region.batch * heads * queries * keys)
    dim = (key_dim + value_dim) / 2  # values may be wider or narrower than keys: as many MACs and bytes as both have
    causal, batch = bool(attrs.get("causal", False)), region.batch
    stored = graph.tensors[product_op(graph, region.scores).einsum.operand(WEIGHT).tensor].bits / 8
    if bool(np.all(runs_decode_kernel(queries, heads, kv_heads, gpu.device))):
        seen = min(keys, window) if window else keys
        found = attention_decode_s(
            batch, max(0, seen - 1), heads, kv_heads, dim, device=gpu.device, constants=gpu.cold(c.decode),
            dtype=dtype, cache_element_bytes=stored,
        )  # fmt: skip
        return found, "decode"
    if queries > keys and not causal:  # cross attention over few keys: slices of queries, each sees all keys
        slices = -(-queries // keys)
        batch, queries = batch * slices, -(-queries // slices)
    plan = prefill_plan(
        batch, queries, max(0, keys - queries), heads, kv_heads, dim, device=gpu.device, dtype=dtype, causal=causal,
        cache_write=region.writes_cache, cache_element_bytes=stored,
    )  # fmt: skip
    if window and window < keys:
        whole = replace(region.region, attrs={**attrs, "window": 0})
        kept = visible_share(region.region) / visible_share(whole)
        longest = np.minimum(plan.longest, np.ceil((window + plan.tiles.rows) / plan.tiles.columns))
        plan = replace(plan, blocks=np.maximum(plan.blocks * kept, plan.ctas / plan.splits), longest=longest)
    return prefill_time(plan, c.prefill, dtype, past_in_l2=False), "prefill"


def external_bytes(region: FlashRegion, graph: Graph) -> dict[str, tuple[float, float]]:
    """Operand -> (read, write) bytes that cross the chip's border: all but what stays inside.

    Tensors that share a storage are parts of it (queries, keys and values of one product) or views of the same bytes:
    together they move it once at most."""
    moved: dict[str, tuple[float, float]] = {"input": (0.0, 0.0), "weight": (0.0, 0.0), "output": (0.0, 0.0)}
    seen: set[tuple[str, str]] = set()
    left: dict[tuple[str, str], float] = {}
    for i in region.members:
        op = graph.ops[i]
        for way, keys in (("read", op.inputs), ("write", op.outputs)):
            for key in dict.fromkeys(keys):
                tensor = graph.tensors[key]
                storage = tensor.storage or key
                if storage in region.inside or (way, key) in seen:
                    continue
                if isinstance(op, MovementOp):
                    amount = float((op.read_bytes if way == "read" else op.write_bytes).get(key, 0))
                else:
                    seen.add((way, key))
                    room = left.get((way, storage), region.storage_bytes[storage])
                    amount = min(float(tensor.size_bytes), room)
                    left[way, storage] = room - amount
                role = "output" if way == "write" else "weight" if tensor.role is Role.KV_CACHE else "input"
                read, write = moved[role]
                moved[role] = (read + amount, write) if way == "read" else (read, write + amount)
    return moved
