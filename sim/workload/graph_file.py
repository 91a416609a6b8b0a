"""What a graph document must say: the type and range of each field, and that its ops can run in their order.

`check_document` is asked before anything is built from a document, `check_flow` of the graph that came of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Any

from sim.errors import WorkloadError, nearest
from sim.workload.graph import Collective, EinsumOp, Graph, MovementOp, Op, OperandRole, Primitive, Role

LARGEST = 2**53
"""Counts stay exact as floats up to here."""

MADE = (Role.ACTIVATION, Role.OUTPUT)
"""Roles of tensors that exist only once an op has written them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value must be, in words and as a test; `item` and `key` are the kinds of what it holds."""

    words: str
    holds: Callable[[Any], bool]
    item: Kind | None = None
    key: Kind | None = None


def _whole(least: int) -> Kind:
    return Kind(f"a whole number from {least} to 2^53", lambda v: type(v) is int and least <= v <= LARGEST)


def _one_of(names: type[StrEnum]) -> Kind:
    known = frozenset(map(str, names))
    return Kind(f"one of {', '.join(map(str, names))}", lambda v: isinstance(v, str) and v in known)


def _list(item: Kind) -> Kind:
    return Kind("a list", lambda v: type(v) in (list, tuple), item=item)


def _table(key: Kind, item: Kind) -> Kind:
    return Kind("an object", lambda v: isinstance(v, Mapping), item=item, key=key)


TEXT = Kind("text", lambda v: isinstance(v, str))
ID = Kind("text, not empty", lambda v: isinstance(v, str) and v != "")
COUNT = _whole(0)
POSITIVE = _whole(1)
OFFSET = Kind("a whole number, at most 2^53 either way", lambda v: type(v) is int and -LARGEST <= v <= LARGEST)
BITS = Kind("a number above 0 (of bits)", lambda v: type(v) in (int, float) and 0 < v < inf)
SHARE = Kind("a number from 0 to 1", lambda v: type(v) in (int, float) and 0 <= v <= 1)
SCALAR = Kind(
    "a finite number, text, true, false or null",
    lambda v: v is None or type(v) in (str, bool) or (type(v) in (int, float) and -inf < v < inf),
)
TEXT_OR_NULL = Kind("text or null", lambda v: v is None or isinstance(v, str))
OBJECT = Kind("an object", lambda v: isinstance(v, Mapping))
PAIR = Kind('a pair ["rank", size]', lambda v: type(v) in (list, tuple) and len(v) == 2)
AXIS = Kind('a list [size, offset, ["rank", coefficient], ...]', lambda v: type(v) in (list, tuple) and len(v) >= 2)

_COUNTS = _table(_one_of(Primitive), COUNT)
_BYTES = _table(ID, COUNT)

Fields = Mapping[str, Kind]
"""The keys of an object; those that end in "?" may be left out."""

DOCUMENT: Fields = {
    "schema": TEXT, "version?": TEXT, "name": TEXT, "knobs": _table(TEXT, SCALAR), "batch": POSITIVE,
    "notes": _list(TEXT), "policy?": TEXT, "tensors": _list(OBJECT), "regions": _list(OBJECT), "ops": _list(OBJECT),
}  # fmt: skip
TENSOR: Fields = {
    "id": ID, "shape": _list(COUNT), "dtype": TEXT, "bits": BITS, "role": _one_of(Role), "name?": TEXT,
    "layout?": _list(COUNT), "density?": SHARE, "pattern?": TEXT_OR_NULL, "storage?": TEXT,
}  # fmt: skip
REGION: Fields = {"id": ID, "kind": TEXT, "attrs": _table(TEXT, SCALAR)}
_OP: Fields = {
    "type": TEXT, "name": ID, "kind": TEXT, "inputs": _list(ID), "outputs": _list(ID), "module?": TEXT,
    "source?": TEXT, "region?": TEXT_OR_NULL,
}  # fmt: skip
OPS: Mapping[str, Fields] = {
    "einsum": {**_OP, "einsum": OBJECT, "epilogue?": _COUNTS},
    "vector": {**_OP, "primitives": _COUNTS, "passes?": POSITIVE},
    "movement": {**_OP, "read_bytes": _BYTES, "write_bytes": _BYTES, "primitives?": _COUNTS},
    "view": _OP,
    "collective": {**_OP, "collective": _one_of(Collective), "chips": POSITIVE, "message_bytes": COUNT},
    "unsupported": _OP,
}
EINSUM: Fields = {"ranks": _list(PAIR), "operands": _list(OBJECT)}
OPERAND: Fields = {"tensor": ID, "role": _one_of(OperandRole), "axes": _list(AXIS)}


def check_document(document: Mapping) -> None:
    """Every field is there, of its type and in its range, and no other.

    Raises: WorkloadError: one that is not, with its place.
    """
    _check(document, DOCUMENT, "")
    for part, fields in (("tensors", TENSOR), ("regions", REGION)):
        seen: set[str] = set()
        for i, row in enumerate(document[part]):
            _check(row, fields, f"{part}[{i}]")
            if row["id"] in seen:
                raise broken(f'{part}[{i}]: id "{row["id"]}" occurs twice')
            seen.add(row["id"])
    for i, row in enumerate(document["ops"]):
        kind = row.get("type")
        if not isinstance(kind, str) or kind not in OPS:
            raise broken(f"ops[{i}]: `type` is {_shown(kind)}, expected one of {', '.join(OPS)}")
        name = row.get("name")
        where = f'ops[{i}] "{name}"' if isinstance(name, str) else f"ops[{i}]"
        _check(row, OPS[kind], where)
        if kind == "einsum":
            _check_einsum(row["einsum"], f"{where}: einsum")


def _check_einsum(row: Mapping, where: str) -> None:
    _check(row, EINSUM, where)
    for rank, size in row["ranks"]:
        _check_value(rank, ID, f"{where}: ranks")
        _check_value(size, COUNT, f"{where}: rank {rank}")
    ranks = [rank for rank, _ in row["ranks"]]
    if len(set(ranks)) < len(ranks):
        raise broken(f"{where}: ranks are {', '.join(ranks)}, expected each once")
    for i, operand in enumerate(row["operands"]):
        place = f"{where}: operands[{i}]"
        _check(operand, OPERAND, place)
        for size, offset, *terms in operand["axes"]:
            _check_value(size, COUNT, f"{place}: size of an axis")
            _check_value(offset, OFFSET, f"{place}: offset of an axis")
            for term in terms:
                _check_value(term, PAIR, f"{place}: term of an axis")
                _check_value(term[1], OFFSET, f"{place}: coefficient of an axis")
                if not isinstance(term[0], str) or term[0] not in ranks:
                    raise broken(f"{place}: axis over the rank {_shown(term[0])}, expected one of {', '.join(ranks)}")


def _check(row: Mapping, fields: Fields, where: str) -> None:
    place = f"{where}: " if where else ""
    found = 0
    for key, kind in fields.items():
        name = key.removesuffix("?")
        if name in row:
            found += 1
            _check_value(row[name], kind, f"{place}`{name}`")
        elif name == key:
            raise broken(f"{place}`{name}` is missing, expected {kind.words}")
    if found < len(row):
        known = [key.removesuffix("?") for key in fields]
        key = next(key for key in row if key not in known)
        raise broken(f"{place}`{key}` is no key here, expected {', '.join(known)}.{nearest(str(key), known)}")


def _check_value(value: Any, kind: Kind, place: str) -> None:
    if not kind.holds(value):
        raise broken(f"{place} is {_shown(value)}, expected {kind.words}")
    if kind.item is None:
        return
    if kind.key is None:
        for i, item in enumerate(value):
            if not kind.item.holds(item):
                raise broken(f"{place}[{i}] is {_shown(item)}, expected {kind.item.words}")
        return
    for key, item in value.items():
        if not kind.key.holds(key):
            raise broken(f"{place} has the key {_shown(key)}, expected {kind.key.words}")
        if not kind.item.holds(item):
            raise broken(f"{place}: {key} is {_shown(item)}, expected {kind.item.words}")


def _shown(value: Any) -> str:
    """The value as the file has it, long ones cut."""
    if isinstance(value, list | tuple | Mapping):
        return "an object" if isinstance(value, Mapping) else f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def check_flow(graph: Graph) -> None:
    """Names are known and unique, and each op reads what is there when it runs.

    Raises: WorkloadError: the op and the tensor or region that is not so.
    """
    _check_tensors(graph)
    writer: dict[str, str] = {}
    for op in graph.ops:
        for tensor in op.outputs:
            if tensor in writer:
                raise broken(f'ops "{writer[tensor]}" and "{op.name}" both write tensor "{tensor}", expected one')
            writer[tensor] = op.name
    names: set[str] = set()
    written: set[str] = set()
    for op in graph.ops:
        if op.name in names:
            raise broken(f'op name "{op.name}" occurs twice')
        names.add(op.name)
        if op.region is not None and op.region not in graph.regions:
            raise broken(f'op "{op.name}" names the unknown region "{op.region}"')
        for tensor in (*op.inputs, *op.outputs):
            if tensor not in graph.tensors:
                raise broken(f'op "{op.name}" names the unknown tensor "{tensor}"')
        for tensor in op.inputs:
            if tensor in writer and tensor not in written:
                raise broken(
                    f'op "{op.name}" reads tensor "{tensor}", which op "{writer[tensor]}" writes only '
                    f"{'itself' if writer[tensor] == op.name else 'later'}; list every op after those whose results "
                    "it reads"
                )
            if tensor not in writer and graph.tensors[tensor].role in MADE:
                role = graph.tensors[tensor].role
                raise broken(
                    f'op "{op.name}" reads tensor "{tensor}" of role {role}, which no op writes; expected an op with '
                    "it among its outputs, or the role input, weight or kv_cache"
                )
        written.update(op.outputs)
        _check_parts(op, graph)


def _check_tensors(graph: Graph) -> None:
    for tensor in graph.tensors.values():
        if tensor.layout and sorted(tensor.layout) != list(range(len(tensor.shape))):
            raise broken(
                f'tensor "{tensor.id}": layout is {list(tensor.layout)}, expected each axis of its {len(tensor.shape)} '
                "once, counted from 0"
            )


def _check_parts(op: Op, graph: Graph) -> None:
    """What an einsum or a movement says of tensors is of its own inputs and outputs."""
    if isinstance(op, EinsumOp):
        roles = [operand.role for operand in op.einsum.operands]
        if sorted(roles) != sorted(OperandRole):
            raise broken(
                f'op "{op.name}" has the operands {", ".join(roles) or "none"}, expected input, weight, output'
            )
        for operand in op.einsum.operands:
            _among(op, operand.tensor, op.outputs if operand.role is OperandRole.OUTPUT else op.inputs, operand.role)
            shape, sizes = graph.tensors[operand.tensor].shape, tuple(axis.size for axis in operand.projection)
            if shape != sizes:
                raise broken(
                    f'op "{op.name}": {operand.role} has axes of sizes {list(sizes)}, expected those of tensor '
                    f'"{operand.tensor}", {list(shape)}'
                )
    elif isinstance(op, MovementOp):
        for tensor in op.read_bytes:
            _among(op, tensor, op.inputs, "read_bytes")
        for tensor in op.write_bytes:
            _among(op, tensor, op.outputs, "write_bytes")


def _among(op: Op, tensor: str, own: tuple[str, ...], what: str) -> None:
    if tensor not in own:
        side = "outputs" if own is op.outputs else "inputs"
        raise broken(f'op "{op.name}": {what} is of tensor "{tensor}", expected one of its {side} {", ".join(own)}')


def broken(text: str) -> WorkloadError:
    return WorkloadError(f"graph document is broken: {text}")
