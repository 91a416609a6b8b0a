"""What an eager framework and its libraries do for each op of a graph on a CPU: the columns of `CpuWork`.

Read off PyTorch 2.13 with oneDNN, MKL and FBGEMM (`ONEDNN_VERBOSE=1` and the profiler show each copy):
- matrix products pack their weights at every call, but for one row in fp32 or int8, and lay their bias over the
  output ahead;
- convolutions lay their weights out in blocks at every call, and with planes outside (NCHW) the activations too: each
  reorder is a primitive of the library, as the convolution and a 16-bit product are; small ones in fp32 are products;
- int8 layers hold packed weights; around them activations stay fp32, are quantised, for a convolution made
  contiguous and channels-last, and dequantised;
- attention runs as one kernel where its operands have four axes; otherwise as products with a softmax between, in
  fp32 whatever the type, with a scalar test for rows that are masked throughout;
- an LSTM layer is one kernel, which packs its weights once;
- the root-mean-square norm is a chain of element-wise calls in fp32;
- pooling over planes is scalar code; after a quantised convolution everything is channels-last.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, inf, prod

from sim.cost.compulsory import touched_elements
from sim.cost.cpu import CLASSES, GRAIN, WIDTHS, CpuWork, work_from_rows
from sim.cost.vector import lane_cycles
from sim.errors import PrecisionError
from sim.hardware.chip import Chip, Fanout, Memory
from sim.mapping.problem import INPUT, OUTPUT, WEIGHT
from sim.schedule.shapes import FUSED_CELLS, Shape, is_depthwise, is_window, product_shape
from sim.workload.graph import BY_HAND, EinsumOp, Graph, MovementOp, Op, OperandRole, Primitive, Region, Role, ViewOp
from sim.workload.precision import BITS

VIEW_CALLS = 0.25
"""A view costs this share of a call: no output, no kernel (estimated)."""
LAYER_CALLS = {"layer": 3.0, "conv": 5.0, "depthwise": 5.0}
"""Further calls at the borders of a quantised layer: quantise, contiguous and channels-last copies, dequantise."""
UNFUSED_CALLS = 3.0
"""Further calls per part of attention that runs unfused: scaled operands, mask, test for empty rows."""
UNFUSED_PASSES = 4.0
"""Times that its scores pass through memory."""
WIDENED = 2.0
"""Size of an fp32 copy of a 16-bit operand."""
NORM_CALLS = {"word": 6.0, "half": 8.0}
"""Calls of a root-mean-square norm: power, mean, sum, root, two products; 16-bit inputs are widened and narrowed."""
NORM_BYTES = {"word": 28.0, "half": 36.0}
"""Bytes of it per element: seven passes in fp32, two more copies for 16-bit inputs."""
PLAIN_ELEMENTS = 20_480
PLAIN_WINDOW = 3
"""An fp32 image and a window up to these sizes do not pay for blocked layouts (ConvParams::use_mkldnn of PyTorch)."""
BIAS_PASSES = 2.0
"""Further times that a product with a bias passes its output: the bias is written to it, and read to be added to."""
PRIMITIVES = {"planes": 4.0, "last": 2.0, "packed": 1.0}
"""Primitives of a convolution: itself, with the reorders of its weights, of its input and of its output."""
KEY_BLOCK = 512
"""Keys that the attention kernel takes at once (kvSplitSize of PyTorch's CPU kernel)."""
LINE_BYTES = 64
WORD_BYTES = 4
"""What one lane of a product takes in at once: one fp32, two 16-bit or four 8-bit elements of the reduction."""
ROW_KINDS = ("softmax", "layer_norm", "group_norm", "rms_norm", "mean", "sum", "var")
"""Parts of the names of ops that reduce along rows."""


def library_work(graph: Graph, chip: Chip, *, calibrated: bool = True) -> CpuWork:
    """Columns of every op of a graph prepared with `eager=True` but its views, in order.

    `calibrated`: the kernels are known, so causal attention leaves out blocks above the diagonal; without, every
    product counts (as in the roofline).
    Raises: PrecisionError: a type for which the chip's array has no rate.
    """
    context = _Context(graph, chip, calibrated=calibrated)
    rows, views, seen = [], 0, set()
    modules = any(op.module for op in graph.ops)
    for op in graph.ops:
        if isinstance(op, ViewOp):
            views += not context.recurrent(op)
            continue
        row = context.row(op)
        from_python = 1.0  # what the framework calls on its own has no Python between
        if context.fused(op) or context.recurrent(op):
            row["calls"] = from_python = float(op.region not in seen)
            seen.add(op.region)
        row["calls"] += VIEW_CALLS * views
        row["module_calls"] = from_python + VIEW_CALLS * views if modules else 0.0
        rows.append(row)
        views = 0
    touched = context.cycle_bytes + sum(row["passing_bytes"] for row in rows)
    for row in rows:
        row["passing_cycle_bytes"] = touched if modules else row["passing_bytes"]
    return work_from_rows(rows)


def compute_type(op: EinsumOp, graph: Graph, chip: Chip) -> str:
    """The array rate that the library's kernel runs at: a quantised layer its weights' type, else the input's."""
    weight, value = (graph.tensors[op.einsum.operand(role).tensor].dtype for role in (WEIGHT, INPUT))
    wanted = weight if is_layer(op, graph) else value
    rates = chip.main_unit.array.macs_per_cycle
    if wanted not in rates:
        raise PrecisionError(
            f"{chip.name}: {chip.main_unit.array.name} has no rate for {wanted} ({op.name}); it has "
            f"{', '.join(rates)}; choose --precision {next(iter(rates))}"
        )
    return wanted


def is_layer(op: EinsumOp, graph: Graph) -> bool:
    """Whether it is a layer of a quantised network: integer weights, activations kept in fp32. What is stored beside
    an element (positions, scales) makes it no wider."""
    weight, value = (graph.tensors[op.einsum.operand(role).tensor] for role in (WEIGHT, INPUT))
    return weight.role is Role.WEIGHT and BITS.get(weight.dtype, 32) <= 8 and BITS.get(value.dtype, 32) >= 32


def weight_bytes(graph: Graph) -> float:
    """Bytes of all weights and caches that products and vector ops read, each storage once: what is looked up
    by rows (embeddings) stays out."""
    found: dict[str, float] = {}
    for op in graph.ops:
        for key in () if isinstance(op, MovementOp | ViewOp) else op.inputs:
            tensor = graph.tensors[key]
            if tensor.role in (Role.WEIGHT, Role.KV_CACHE):
                name = tensor.storage or tensor.id
                found[name] = max(found.get(name, 0.0), float(tensor.size_bytes))
    return sum(found.values())


class _Context:
    """A graph on a chip: what the rows share."""

    def __init__(self, graph: Graph, chip: Chip, *, calibrated: bool) -> None:
        self.graph, self.chip, self.unit, self.calibrated = graph, chip, chip.main_unit, calibrated
        self.cores = 1
        for level in self.unit.hierarchy:
            self.cores *= level.count if isinstance(level, Fanout) else 1
        self.private_bytes = cpu_private_bytes(chip)
        self.fp32 = "fp32" in self.unit.array.macs_per_cycle
        self.packed: set[str] = set()
        """Weights of recurrent layers that are packed by now."""
        self.cycle_bytes = weight_bytes(graph)
        self.quantised = any(isinstance(op, EinsumOp) and is_layer(op, graph) for op in graph.ops)

    def row(self, op: Op) -> dict[str, float]:
        if isinstance(op, EinsumOp):
            row = self._product(op)
        elif isinstance(op, MovementOp):
            row = self._movement(op)
        else:
            row = self._vector(op)
        row |= {"cycle_bytes": self.cycle_bytes}
        return row | self._step(op, row) if self.recurrent(op) else row

    def _step(self, op: Op, row: Mapping[str, float]) -> dict[str, float]:
        """Inside the kernel: states stay in the cache; weights are packed once, and read again at every step."""
        inside = {"passing_bytes": 0.0, "grains": inf}
        if not isinstance(op, EinsumOp):
            return inside
        tensor = self.graph.tensors[op.einsum.operand(WEIGHT).tensor]
        weight = tensor.storage or tensor.id
        first = weight not in self.packed
        self.packed.add(weight)
        return inside | {
            "primitives": float(first),
            "streamed": 0.0,
            "packed": row.get("packed", 0.0) + row.get("streamed", 0.0) if first else 0.0,  # (int8 layers hold theirs)
            "cycle_bytes": self.cycle_bytes if first else row["held_bytes"],
        }

    def region(self, op: Op) -> Region | None:
        """The call of attention that it is a part of; products and a softmax written by hand are none."""
        region = self.graph.regions.get(op.region or "")
        called = region is not None and region.kind == "attention" and not region.attrs.get(BY_HAND)
        return region if called else None

    def fused(self, op: Op) -> bool:
        """Whether it is a part of an attention kernel."""
        return self.region(op) is not None and len(self.graph.tensors[op.inputs[0]].shape) == 4

    def unfused(self, op: Op) -> bool:
        """Whether it is a part of attention for which there is no kernel."""
        return self.region(op) is not None and not self.fused(op)

    def widened(self, op: Op) -> bool:
        """Whether its 16-bit operands are copied to fp32, as unfused attention does."""
        return self.unfused(op) and _width(self.graph.tensors[op.inputs[0]].dtype) == "half"

    def recurrent(self, op: Op) -> bool:
        """Whether it is a part of a recurrent layer that one kernel runs."""
        region = self.graph.regions.get(op.region or "")
        return region is not None and region.attrs.get("cell") in FUSED_CELLS

    def lanes_s(self, primitives: Mapping[Primitive, float]) -> float:
        """Seconds of one core."""
        return lane_cycles(self.unit.vector, primitives, chip=self.chip.name) * self.cores / self.unit.clock_hz

    def padded(self, op: EinsumOp, shape: Shape, compute: str, *, whole: bool) -> float:
        """MACs that the lanes take: results in whole vectors of the array's columns, and reductions in whole words of
        four bytes; in a convolution at each place of the window. Not `whole`: channels lie on the lanes."""
        if not whole:
            return op.einsum.macs
        taps = WORD_BYTES * 8 // max(8, BITS.get(compute, 32))
        depth = op.einsum.ranks.get("C", shape.k) if is_window(op) else shape.k
        filled = [ceil(size / unit) * unit / size for size, unit in ((shape.n, self.unit.array.cols), (depth, taps))]
        return op.einsum.macs * filled[0] * filled[1]

    def product_s(self, macs: float, compute: str) -> float:
        array = self.unit.array
        return macs / (array.rows * array.cols * array.macs_per_cycle[compute] * self.unit.clock_hz)

    def _product(self, op: EinsumOp) -> dict[str, float]:
        graph, region, shape = self.graph, self.region(op), product_shape(op)
        layer, compute = is_layer(op, graph), compute_type(op, graph, self.chip)
        kind = _class_of(op, layer=layer, region=region if self.fused(op) else None)
        if kind == "conv" and not layer and self._plain_convolution(op, compute):
            kind = "gemm"
        if self.fp32 and (kind == "depthwise" or self.widened(op)):
            compute = "fp32"
        width = "byte" if layer else _width(compute)
        size = {role: self._operand_bytes(op, role) for role in (INPUT, WEIGHT, OUTPUT)}
        weight_held = graph.tensors[op.einsum.operand(WEIGHT).tensor].role in (Role.WEIGHT, Role.KV_CACHE)
        row = {
            "kind": CLASSES.index(kind),
            "width": WIDTHS.index(width),
            "calls": 1.0 + (LAYER_CALLS[kind] if layer else 0.0),
            "macs": float(op.einsum.macs),
            "matrix_s": self.product_s(self.padded(op, shape, compute, whole=kind != "depthwise"), compute),
            "reduction": float(shape.k),
            "lanes_s": self.lanes_s(_epilogue(op)),
            "held_bytes": size[WEIGHT] if weight_held else 0.0,
            "passing_bytes": size[INPUT] + size[OUTPUT] + (0.0 if weight_held else size[WEIGHT]),
        }
        if region is not None:
            row |= self._attention(op, row, region, size)
        if kind == "gemm":
            weights = float(shape.batch * shape.n * shape.k)
            one_row = shape.m == 1 and width != "half"
            row["packed"] = 0.0 if one_row else weights
            row["streamed"] = weights if one_row and width == "word" else 0.0
            row["primitives"] = float(width == "half")
        if op.kind.endswith("addmm") and not layer:
            row["passing_bytes"] += BIAS_PASSES * size[OUTPUT]
        if kind in ("conv", "depthwise"):
            row |= self._layouts(op, packed=width == "byte")
        return row | self._borders(op, kind) if layer else row

    def _layouts(self, op: EinsumOp, *, packed: bool) -> dict[str, float]:
        """Reorders of a convolution. `packed`: in int8 it holds its weights, and takes channels-last."""
        if packed:
            return {"primitives": PRIMITIVES["packed"]}
        planes = self.graph.tensors[op.inputs[0]].layout == ()
        roles = (INPUT, WEIGHT, OUTPUT) if planes else (WEIGHT,)
        return {
            "primitives": PRIMITIVES["planes" if planes else "last"],
            "permuted": float(sum(touched_elements(op.einsum, role) for role in roles)),
        }

    def _plain_convolution(self, op: EinsumOp, compute: str) -> bool:
        """Whether the framework unfolds it into a product instead of calling its library of convolutions."""
        value, weight = (self.graph.tensors[op.einsum.operand(role).tensor].shape for role in (INPUT, WEIGHT))
        small = value[0] == 1 and prod(value) <= PLAIN_ELEMENTS and max(weight[2:], default=1) <= PLAIN_WINDOW
        return small and _width(compute) == "word" and product_shape(op).batch == 1

    def _operand_bytes(self, op: EinsumOp, role: OperandRole) -> float:
        tensor = self.graph.tensors[op.einsum.operand(role).tensor]
        return touched_elements(op.einsum, role) * tensor.bits * tensor.density / 8

    def _attention(
        self, op: EinsumOp, row: Mapping[str, float], region: Region, size: Mapping[OperandRole, float]
    ) -> dict[str, float]:
        """Fused: scores stay in the caches, blocks above the diagonal are skipped, and one query reads its
        group's keys and values once a head. Unfused: further calls, and copies of 16-bit operands in fp32."""
        a = region.attrs
        first = "scores" in op.kind
        passing = size[INPUT] + size[WEIGHT] if first else size[WEIGHT] + size[OUTPUT]
        if not self.fused(op):
            wide = WIDENED * row["passing_bytes"] + (1 + WIDENED) * passing
            return {
                "calls": row["calls"] + UNFUSED_CALLS,
                "passing_bytes": wide if self.widened(op) else row["passing_bytes"],
            }
        if int(a.get("query_length", 2)) <= 1:
            group = float(a.get("heads", 1)) / float(a.get("kv_heads", 1))
            return {"passing_bytes": row["passing_bytes"] - (0.0 if row["held_bytes"] else size[WEIGHT]),
                    "held_bytes": size[WEIGHT] * group}  # fmt: skip
        done = {name: row[name] * self._causal_share(op) for name in ("macs", "matrix_s")}
        return {"passing_bytes": passing, "held_bytes": 0.0} | done

    def _causal_share(self, op: Op) -> float:
        region = self.region(op)
        if not self.calibrated or region is None or not region.attrs.get("causal"):
            return 1.0
        return _kept_keys(int(region.attrs["query_length"]), int(region.attrs["key_length"]))

    def _borders(self, op: EinsumOp, kind: str) -> dict[str, float]:
        elements = [float(touched_elements(op.einsum, role)) for role in (INPUT, OUTPUT)]
        return {
            "border_s": self.lanes_s({Primitive.CONVERT: sum(elements)}),
            "border_bytes": 5 * sum(elements),  # fp32 on the one side, a byte on the other
            "permuted": 0.0 if kind == "layer" else self._layer_copies(op, elements[0]),
        }

    def _layer_copies(self, op: EinsumOp, elements: float) -> float:
        """Two copies of a quantised convolution's input: fp32 to planes, bytes to channels-last."""
        _, channels, *plane = self.graph.tensors[op.inputs[0]].shape
        pixels = prod(plane)
        return elements * (self._conflicts(pixels, 4 * channels) + self._conflicts(channels, pixels))

    def _conflicts(self, reads: int, stride_bytes: float) -> float:
        """Times that a strided copy's element takes longer because its lines do not stay in the private cache.

        A copy takes one element of each of `reads` lines, and comes back to them for the next row. Strides of a
        power of two lines find only that part of the sets: the cache holds fewer of them.
        """
        lines = self.private_bytes / LINE_BYTES
        stride = int(stride_bytes // LINE_BYTES) if stride_bytes % LINE_BYTES == 0 else 1
        usable = lines / max(1, stride & -stride)
        return max(1.0, reads / usable) if usable else 1.0

    def _movement(self, op: MovementOp) -> dict[str, float]:
        tensors = self.graph.tensors
        held = sum(n for key, n in op.read_bytes.items() if tensors[key].role in (Role.WEIGHT, Role.KV_CACHE))
        elements = float(sum(tensors[key].elements for key in op.write_bytes))
        source = tensors[op.inputs[0]] if len(op.inputs) == 1 else None
        permuted = 0.0
        if source is not None and source.layout and source.layout[-1] != len(source.shape) - 1:
            last = len(source.shape) - 1
            inside = source.layout[source.layout.index(last) + 1 :]
            stride = prod(source.shape[axis] for axis in inside) * source.bits / 8
            permuted = elements * self._conflicts(source.shape[last], stride)
        return {
            "kind": CLASSES.index("movement"),
            "calls": 1.0,
            "grains": max(1.0, elements / GRAIN),
            "lanes_s": self.lanes_s(op.primitives),
            "permuted": permuted,
            "held_bytes": float(held),
            "passing_bytes": float(sum(op.read_bytes.values()) + sum(op.write_bytes.values()) - held),
        }

    def _vector(self, op: Op) -> dict[str, float]:
        tensors = [self.graph.tensors[key] for key in (*op.inputs, *op.outputs)]
        work = dict(getattr(op, "primitives", {}))
        width = _width(tensors[0].dtype) if tensors else "word"
        elements = float(max([t.elements for t in tensors if t.role is not Role.WEIGHT], default=1))
        row = {
            "kind": CLASSES.index("rows" if _is_rows(op) else "vector"),
            "width": WIDTHS.index(width),
            "calls": 1.0,
            "grains": max(1.0, elements / GRAIN),
            "passing_bytes": float(sum(t.size_bytes for t in tensors)),
        }
        if "rms_norm" in op.kind:
            size = self.graph.tensors[op.outputs[0]].elements
            row |= {"calls": NORM_CALLS[width], "passing_bytes": NORM_BYTES[width] * size}
        if self.region(op) is not None:
            return row | self._attention_softmax(op, row, work, elements)
        if "pool" in op.kind and not self.quantised:
            return row | {"compares": float(sum(work.values()))}
        if width == "half":
            work[Primitive.CONVERT] = work.get(Primitive.CONVERT, 0) + sum(t.elements for t in tensors)
        return row | {"lanes_s": self.lanes_s(work)}

    def _attention_softmax(
        self, op: Op, row: Mapping[str, float], work: Mapping[Primitive, float], elements: float
    ) -> dict[str, float]:
        """Of fused attention in the cache, where the kernel computes scores; unfused between other passes over them."""
        if self.fused(op):
            lanes_s = self.lanes_s(work) * self._causal_share(op)
            return {"passing_bytes": 0.0, "grains": inf, "lanes_s": lanes_s}
        passes = UNFUSED_PASSES * (WIDENED if self.widened(op) else 1.0)
        return {
            "passing_bytes": row["passing_bytes"] * passes,
            "calls": 1.0 + UNFUSED_CALLS,
            "compares": elements,
            "lanes_s": self.lanes_s(work),
        }


def cpu_private_bytes(chip: Chip) -> float:
    """The cache of one core; 0 where none is described."""
    levels = chip.main_unit.hierarchy
    fan = next((i for i, level in enumerate(levels) if isinstance(level, Fanout)), len(levels))
    return next((level.capacity_bytes for level in levels[fan:] if isinstance(level, Memory)), 0.0)


def _class_of(op: EinsumOp, *, layer: bool, region: Region | None) -> str:
    if region is not None:
        return "decode" if int(region.attrs.get("query_length", 2)) <= 1 else "attention"
    if is_window(op):
        return "depthwise" if is_depthwise(op) else "conv"
    return "layer" if layer else "gemm"


def _width(dtype: str) -> str:
    bits = BITS.get(dtype, 32)
    return "word" if bits >= 32 else "half" if bits > 8 else "byte"


def _is_rows(op: Op) -> bool:
    return "batch_norm" not in op.kind and any(name in op.kind for name in ROW_KINDS)


def _epilogue(op: EinsumOp) -> dict[Primitive, float]:
    elements = 1
    for axis in op.einsum.output.projection:
        elements *= axis.size
    return {primitive: float(count * elements) for primitive, count in op.epilogue.items()}


def _kept_keys(queries: int, keys: int) -> float:
    """Share of the scores that a causal kernel computes: whole blocks of KEY_BLOCK keys up to each block of queries.

    Example: 1,024 queries in blocks of 256 over 1,024 keys: (512 + 512 + 1,024 + 1,024) / 4,096 = 0.75.
    """
    block = 256 if queries >= 768 else 64 if queries >= 192 else 32
    starts = range(0, queries, block)
    return sum(min(keys, ceil(min(q + block, keys) / KEY_BLOCK) * KEY_BLOCK) for q in starts) / (len(starts) * keys)
