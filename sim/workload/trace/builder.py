"""Builds the graph from calls: tensors get ids, storages and roles, rules say what work it is.

Mutation is tracked by storage. Each write gives a storage a new version; a tensor that was made
before the write and is read after it is read through an alias view of the last writer, so that the
order of effects is in the data flow and the graph stays single-assignment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod
from typing import Any

from sim.workload.graph import (
    UNREAD_WEIGHTS,
    Axis,
    Einsum,
    EinsumOp,
    Graph,
    MovementOp,
    Op,
    Operand,
    OperandRole,
    Region,
    Role,
    Tensor,
    UnsupportedOp,
    VectorOp,
    ViewOp,
)
from sim.workload.trace.policy import condensed
from sim.workload.trace.rules.registry import (
    AnyTensor,
    Call,
    Grouped,
    Movement,
    Product,
    Spec,
    Vector,
    View,
    Window,
    Work,
    rule_for,
)

_DTYPES = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8_e4m3",
    "float8_e5m2": "fp8_e5m2",
    "float8_e4m3fnuz": "fp8_e4m3",
    "float8_e5m2fnuz": "fp8_e5m2",
    "uint4": "int4",
    "uint16": "int16",
    "uint32": "int32",
    "uint64": "int64",
    "complex32": "fp16",
    "complex64": "fp32",
    "complex128": "fp64",
}
"""Of a complex tensor the type of its parts: it is a real one with a last axis of two. A sign costs nothing."""


@dataclass(slots=True)
class _Storage:
    """One memory object: who wrote it last, how often, what it is to the network."""

    id: str
    role: Role
    last: str = ""
    geometry: tuple = ()
    version: int = 0
    mutated: bool = False


@dataclass(frozen=True, slots=True)
class Where:
    """Where a call comes from."""

    module: str = ""
    source: str = ""
    region: str | None = None


class GraphBuilder:
    """Collects tensors and ops of one run; `finish` gives the graph."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.tensors: dict[str, Tensor] = {}
        self.regions: dict[str, Region] = {}
        self.notes: dict[str, None] = {}
        self._storages: dict[int, _Storage] = {}
        self._known: dict[int, tuple[str, int]] = {}
        self._kept: list[AnyTensor] = []  # python objects stay alive, so that id() is not reused
        self._op_names: Counter[str] = Counter()
        self._region_names: Counter[str] = Counter()
        self._constants = 0

    def declare(self, tensor: AnyTensor, role: Role, name: str) -> str:
        """A tensor that no op makes: input, parameter, buffer, constant."""
        storage = self._storages.get(_key(tensor)) or self._add_storage(tensor, role)
        made = self._add(tensor, storage, name)
        if not storage.last:
            storage.last, storage.geometry = made, _geometry(tensor)
        return made

    def knows(self, tensor: AnyTensor) -> bool:
        return _key(tensor) in self._storages

    def read(self, tensor: AnyTensor, where: Where) -> str:
        """Id of the tensor as it is now: after a write through another view an alias of it, or a view of the same
        elements in the same order."""
        storage = self._storages.get(_key(tensor))
        if storage is None:
            self._constants += 1
            return self.declare(tensor, Role.WEIGHT, f"constant.{self._constants}")
        known = self._known.get(id(tensor))
        if known is not None and known[1] == storage.version:
            return known[0]
        if storage.geometry == _geometry(tensor):
            self._keep(tensor, storage.last, storage)
            return storage.last
        made = self._add(tensor, storage)
        kind = "aten.view" if _same_elements(storage.geometry, _geometry(tensor)) else "view.alias"
        self._emit(ViewOp, kind, (storage.last,), (made,), where)
        return made

    def _left_out(self, tensor: AnyTensor) -> bool:
        """Whether it is the result of no elements of an op that was not recorded (an expert's without a token)."""
        return tensor.numel() == 0 and not self.knows(tensor)

    def _inputs(self, tensors: Iterable[AnyTensor], where: Where) -> tuple[str, ...]:
        return tuple(self.read(t, where) for t in tensors if not self._left_out(t))

    def write(self, tensor: AnyTensor) -> str:
        """Id of a result; a storage that exists gets its next version."""
        storage = self._storages.get(_key(tensor))
        if storage is None:
            storage = self._add_storage(tensor, Role.ACTIVATION)
        else:
            storage.version += 1
            storage.mutated = True
        made = self._add(tensor, storage)
        storage.last, storage.geometry = made, _geometry(tensor)
        return made

    def _add_storage(self, tensor: AnyTensor, role: Role) -> _Storage:
        storage = _Storage(id=f"s{len(self._storages)}", role=role)
        self._storages[_key(tensor)] = storage
        return storage

    def _add(self, tensor: AnyTensor, storage: _Storage, name: str = "") -> str:
        made = f"t{len(self.tensors)}"
        parts = (2,) if tensor.is_complex() else ()
        shape = (*compact_shape(tensor), *parts)
        text = str(tensor.dtype).removeprefix("torch.")
        self.tensors[made] = Tensor(
            id=made,
            shape=shape,
            dtype=_DTYPES.get(text, text),
            bits=_bits(tensor) // (2 if parts else 1),
            role=storage.role,
            name=name,
            layout=_layout(tensor),
            storage=storage.id,
        )
        self._keep(tensor, made, storage)
        return made

    def _keep(self, tensor: AnyTensor, made: str, storage: _Storage) -> None:
        self._known[id(tensor)] = (made, storage.version)
        self._kept.append(tensor)

    def record(self, call: Call, where: Where, *, pure_view: bool = False) -> None:
        """Add the op or ops of a call. `pure_view`: its results share an input's memory unwritten."""
        rule, in_place = rule_for(call.name)
        if rule is None and not pure_view:
            inputs = self._inputs(call.inputs, where)
            self._emit(UnsupportedOp, call.name, inputs, tuple(map(self.write, call.outputs)), where)
            return
        plain = replace(call, name=call.name.removesuffix("_"), in_place=True) if in_place else call
        work: Work = View() if pure_view else rule(plain)  # type: ignore[misc]
        if isinstance(work, Grouped):
            where = replace(where, region=self.open_region(work.kind, where, work.attrs))
            for part in work.works:
                self._work(part, call, where)
        else:
            self._work(work, call, where)

    def open_region(self, kind: str, where: Where, attrs: Any = None) -> str:
        """A new region's id, after the module that it is in."""
        made = self._unique(f"{where.module}.{kind}" if where.module else kind, self._region_names)
        self.regions[made] = Region(id=made, kind=kind, attrs=dict(attrs or {}))
        return made

    def _work(self, work: Work, call: Call, where: Where) -> None:
        match work:
            case Product():
                self._product(work, work.kind or call.name, where)
            case Vector():
                inputs = self._inputs(work.inputs if work.inputs is not None else call.inputs, where)
                outputs = tuple(map(self.write, work.outputs if work.outputs is not None else call.outputs))
                counts = {p: n for p, n in work.primitives.items() if n}
                self._emit(
                    VectorOp, work.kind or call.name, inputs, outputs, where, primitives=counts, passes=work.passes
                )
            case Movement():
                self._movement(work, call, where)
            case View():
                inputs = tuple(dict.fromkeys(self.read(t, where) for t in call.inputs))
                outputs = tuple(
                    self._add(t, self._storages[_key(t)]) if self.knows(t) else self.write(t) for t in call.outputs
                )
                self._emit(ViewOp, call.name, inputs, outputs, where)

    def _product(self, work: Product, kind: str, where: Where) -> None:
        if self._left_out(work.input[0]) or self._left_out(work.weight[0]):  # a sum over no tokens: zeros, or the bias
            inputs = self._inputs(work.extra, where)
            self._emit(VectorOp, kind, inputs, (self.write(work.output[0]),), where, primitives={}, passes=1)
            return
        factors = [(self.read(t, where), t, spec) for t, spec in (work.input, work.weight)]
        extra = self._inputs(work.extra, where)
        made = self.write(work.output[0])
        parts = zip(OperandRole, (*factors, (made, *work.output)), strict=True)
        ranks = dict(work.ranks) | (_COMPLEX if work.output[0].is_complex() else {})
        operands = tuple(
            Operand(tensor=name, role=role, projection=_projection(tensor, spec, ranks, role))
            for role, (name, tensor, spec) in parts
        )
        einsum = Einsum(ranks=ranks, operands=operands)
        inputs = (factors[0][0], factors[1][0], *extra)
        self._emit(EinsumOp, kind, inputs, (made,), where, einsum=einsum, epilogue=dict(work.epilogue))

    def _movement(self, work: Movement, call: Call, where: Where) -> None:
        inputs = tuple(dict.fromkeys(self._inputs(call.inputs, where)))
        moved = work.read if work.read is not None else [(t, None) for t in call.inputs]
        read: dict[str, int] = {}
        for tensor, elements in moved:
            if self._left_out(tensor):
                continue
            name = self.read(tensor, where)
            read[name] = max(read.get(name, 0), self._moved_bytes(tensor, elements))
        outputs = tuple(map(self.write, call.outputs))
        written = {id(t): n for t, n in work.write} if work.write is not None else {}
        write = {
            name: self._moved_bytes(tensor, written.get(id(tensor)))
            for name, tensor in zip(outputs, call.outputs, strict=True)
        }
        self._emit(
            MovementOp,
            work.kind or call.name,
            inputs,
            outputs,
            where,
            read_bytes={name: n for name, n in read.items() if n},
            write_bytes=write,
            primitives={p: n for p, n in work.primitives.items() if n},
        )

    def _moved_bytes(self, tensor: AnyTensor, elements: int | None) -> int:
        """Never more than the tensor has without its broadcast axes, when all of it is meant."""
        stored = prod(compact_shape(tensor))
        count = stored if elements is None or elements == tensor.numel() else elements
        return -(-count * _bits(tensor) // 8)

    def _emit(self, cls: type, kind: str, inputs: tuple, outputs: tuple, where: Where, **fields: Any) -> None:
        short = kind.rpartition(".")[2].strip("_")
        name = self._unique(f"{where.module}.{short}" if where.module else short, self._op_names)
        self.ops.append(
            cls(
                name=name,
                kind=kind,
                inputs=inputs,
                outputs=outputs,
                module=where.module,
                source=where.source,
                region=where.region,
                **fields,
            )
        )

    @staticmethod
    def _unique(name: str, taken: Counter[str]) -> str:
        """`name`, `name_2`, `name_3`, ..., skipping what a longer name took already."""
        taken[name] += 1
        if taken[name] == 1:
            return name
        numbered = f"{name}_{taken[name]}"
        return numbered if numbered not in taken else GraphBuilder._unique(name, taken)

    def reads(self, tensors: Iterable[AnyTensor]) -> bool:
        """Whether an op read the memory of any of these tensors."""
        read = {self.tensors[key].storage for op in self.ops for key in op.inputs}
        return any(self._storages[_key(t)].id in read for t in tensors if self.knows(t))

    def make_state(self, tensors: Iterable[AnyTensor]) -> None:
        """These outlive the inference, as if they were written in place."""
        for tensor in tensors:
            if self.knows(tensor):
                self._storages[_key(tensor)].mutated = True

    def _hold_unread(self, outputs: list[AnyTensor], where: Where) -> None:
        """A view of the output made last that names the weights that no op read: they lie in memory all the same."""
        results = [self.read(t, where) for t in outputs]
        made = {key: at for at, op in enumerate(self.ops) for key in op.outputs}
        source, output = max(zip(results, outputs, strict=True), key=lambda one: made.get(one[0], -1))
        read = {self.tensors[key].storage for op in self.ops if not isinstance(op, ViewOp) for key in op.inputs}
        weights: dict[str, str] = {}
        for key, tensor in self.tensors.items():
            if tensor.role is Role.WEIGHT and tensor.storage not in read:
                weights.setdefault(tensor.storage, key)  # views of it come later
        storage = self._storages[_key(output)]
        storage.last = self._add(output, storage)
        self._emit(ViewOp, UNREAD_WEIGHTS, (source, *weights.values()), (storage.last,), where)

    def _fed_inputs(self) -> set[str]:
        """Storages of the inputs that are written in place with what comes of other inputs, as a cache is with keys.

        One that takes in only itself, weights and constants (`image.sub_(mean)`) is new data all the same.
        """
        inputs = {s.id for s in self._storages.values() if s.role is Role.INPUT}
        if not any(s.mutated for s in self._storages.values() if s.id in inputs):
            return set()
        sources = {key: frozenset({t.storage} & inputs) for key, t in self.tensors.items()}
        fed: set[str] = set()
        for op in self.ops:
            found = frozenset[str]().union(*(sources[key] for key in op.inputs))
            for key in op.outputs:
                sources[key] |= found
                if not isinstance(op, ViewOp) and found - {self.tensors[key].storage}:
                    fed.add(self.tensors[key].storage)
        return fed & inputs

    def finish(self, outputs: list[AnyTensor], *, name: str, hold_unread: bool = False) -> Graph:
        """The graph: roles by storage, results that nobody reads dropped from ops with several.

        Of an input that is overwritten with itself, what it ends as is a result, if it is returned or no op reads it.
        `hold_unread`: weights that no op reads stay in it, as those of experts without a token.
        """
        where, outputs = Where(), [t for t in outputs if not self._left_out(t)]
        if hold_unread and outputs:
            self._hold_unread(outputs, where)
        results = {self.read(t, where) for t in outputs}
        fed = self._fed_inputs()
        final = {s.id: _final_role(s, fed) for s in self._storages.values()}
        for made in results:
            storage = self.tensors[made].storage
            if final[storage] is Role.ACTIVATION:
                final[storage] = Role.OUTPUT
        used = {t for op in self.ops for t in op.inputs}
        changed = {s.id: s.last for s in self._storages.values() if s.mutated and final[s.id] is Role.INPUT}
        results |= set(changed.values()) - used
        used |= results
        ends = {key: Role.OUTPUT for key in results if self.tensors[key].storage in changed}
        roles = {key: ends.get(key, final[t.storage]) for key, t in self.tensors.items()}
        ops = tuple(_without_unread(op, used) for op in self.ops)
        ops = tuple(op for op in ops if not isinstance(op, ViewOp) or used.intersection(op.outputs))
        alive = {t for op in ops for t in (*op.inputs, *op.outputs)} | results
        tensors = {
            key: replace(t, role=roles[key]) if t.role is not roles[key] else t
            for key, t in self.tensors.items()
            if key in alive
        }
        used_regions = {op.region for op in ops}
        regions = {key: region for key, region in self.regions.items() if key in used_regions}
        return Graph(ops=ops, tensors=tensors, regions=regions, name=name, notes=condensed(self.notes))


def _final_role(storage: _Storage, fed: set[str]) -> Role:
    """State that the model writes in place (a KV cache) outlives the inference; `fed`: inputs that take in others."""
    if storage.mutated and (storage.role is Role.WEIGHT or storage.id in fed):
        return Role.KV_CACHE
    return storage.role


def _without_unread(op: Op, used: set[str]) -> Op:
    """Statistics and indices that an op returns beside its result and nobody reads are not written."""
    if len(op.outputs) < 2 or isinstance(op, ViewOp | UnsupportedOp):
        return op
    kept = tuple(t for t in op.outputs if t in used) or op.outputs[:1]
    if isinstance(op, MovementOp):
        return replace(op, outputs=kept, write_bytes={t: n for t, n in op.write_bytes.items() if t in kept})
    return replace(op, outputs=kept)


def _key(tensor: AnyTensor) -> int:
    return tensor.untyped_storage()._cdata


def _geometry(tensor: AnyTensor) -> tuple:
    return (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _same_elements(one: tuple, other: tuple) -> bool:
    """Whether two geometries of a storage are one run of the same elements, in order, cut into other axes."""

    def run(geometry: tuple) -> tuple | None:
        offset, shape, strides, dtype = geometry
        dense = 1
        for size, stride in zip(reversed(shape), reversed(strides), strict=True):
            if size != 1 and stride != dense:
                return None
            dense *= size
        return offset, dense, dtype

    return run(one) is not None and run(one) == run(other)


def compact_shape(tensor: AnyTensor) -> tuple[int, ...]:
    """Shape of what is stored: an expanded axis (stride 0) once, and windows that overlap as what they slide over."""
    shape, strides = list(_unexpanded(tensor)), tensor.stride()
    for steps, within in () if tensor.is_contiguous() else permutations(range(len(shape)), 2):
        if min(shape[steps], shape[within]) < 2 or strides[steps] % strides[within]:
            continue
        step = strides[steps] // strides[within]
        if step < shape[within]:  # the next window begins before this one ends
            shape[within] += (shape[steps] - 1) * step
            shape[steps] = 1
    return tuple(shape)


def _bits(tensor: AnyTensor) -> int:
    """Bits of an element as it is stored: torch gives a byte to each of its types of four bits."""
    return 4 if str(tensor.dtype) in ("torch.int4", "torch.uint4") else tensor.element_size() * 8


def _unexpanded(tensor: AnyTensor) -> tuple[int, ...]:
    """Shape in which an expanded axis has one element."""
    return tuple(
        1 if stride == 0 and size > 1 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _layout(tensor: AnyTensor) -> tuple[int, ...]:
    """Axes from the outermost to the contiguous one; () for the order of the shape."""
    if tensor.is_contiguous():
        return ()
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda axis: -strides[axis]))
    if tensor.is_complex():
        order = (*order, tensor.dim())
    return () if order == tuple(range(len(order))) else order


_COMPLEX = {"I": 2, "O": 2}
"""Ranks of a product of complex factors: four real products an element. Each factor and the result has two parts."""
_PARTS = {OperandRole.INPUT: "I", OperandRole.WEIGHT: "O", OperandRole.OUTPUT: "O"}


def _projection(tensor: AnyTensor, spec: Spec, ranks: Mapping[str, int], role: OperandRole) -> tuple[Axis, ...]:
    """Axes of an operand; ranks of size 1 that were left out, and broadcast axes, have no terms."""
    axes = []
    for size, entry in zip(_unexpanded(tensor), spec, strict=True):
        window = entry if isinstance(entry, Window) else Window(((entry, 1),) if entry else ())
        terms = tuple((rank, coef) for rank, coef in window.terms if rank in ranks)
        broadcast = size == 1 and window.offset == 0 and any(ranks[rank] > 1 for rank, _ in terms)
        axes.append(Axis(terms=() if broadcast else terms, size=size, offset=window.offset))
    if tensor.is_complex():
        axes.append(Axis(terms=((_PARTS[role], 1),), size=2))
    return tuple(axes)
