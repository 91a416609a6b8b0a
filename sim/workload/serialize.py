"""Graphs as JSON: schema `dovetail.graph/1`, one document a graph, `load(dump(x)) == x`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from sim._version import __version__
from sim.errors import WorkloadError, why
from sim.workload.graph import (
    Axis,
    Collective,
    CollectiveOp,
    Einsum,
    EinsumOp,
    Graph,
    MovementOp,
    Op,
    Operand,
    OperandRole,
    Primitive,
    Region,
    Role,
    Tensor,
    UnsupportedOp,
    VectorOp,
    ViewOp,
)
from sim.workload.graph_file import check_document, check_flow

SCHEMA = "dovetail.graph/1"

_TYPES = {
    "einsum": EinsumOp, "vector": VectorOp, "movement": MovementOp, "view": ViewOp, "collective": CollectiveOp,
    "unsupported": UnsupportedOp,
}  # fmt: skip
_NAMES = {cls: name for name, cls in _TYPES.items()}


def graph_to_dict(graph: Graph) -> dict:
    """The graph as JSON-ready dicts and lists; fields at their defaults are left out."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "name": graph.name,
        "knobs": dict(graph.knobs),
        "batch": graph.batch,
        "notes": list(graph.notes),
        **({"policy": graph.policy} if graph.policy else {}),
        "tensors": [_sparse(tensor) for tensor in graph.tensors.values()],
        "regions": [{"id": r.id, "kind": r.kind, "attrs": dict(r.attrs)} for r in graph.regions.values()],
        "ops": [_op_to_dict(op) for op in graph.ops],
    }


def graph_from_dict(document: Mapping) -> Graph:
    """The graph of a document made by `graph_to_dict`.

    Raises: WorkloadError: not a graph, a newer schema, a field of another type or range, ops out of order.
    """
    schema = document.get("schema") if isinstance(document, Mapping) else None
    if schema != SCHEMA:
        newer = isinstance(schema, str) and schema.startswith("dovetail.graph/")
        hint = "; it was written by another version of dovetail: trace the model again" if newer else ""
        raise WorkloadError(f'graph document: schema is "{schema}", expected "{SCHEMA}"{hint}')
    check_document(document)
    graph = Graph(
        ops=tuple(_op_from_dict(op) for op in document["ops"]),
        tensors={t["id"]: _tensor(t) for t in document["tensors"]},
        regions={r["id"]: Region(id=r["id"], kind=r["kind"], attrs=r["attrs"]) for r in document["regions"]},
        name=document["name"],
        knobs=document["knobs"],
        batch=document["batch"],
        notes=tuple(document["notes"]),
        policy=document.get("policy", ""),
    )
    check_flow(graph)
    return graph


def save_graph(graph: Graph, path: str | Path) -> None:
    """Write the graph as one JSON document."""
    Path(path).write_text(json.dumps(graph_to_dict(graph), separators=(",", ":")) + "\n", encoding="utf-8")


def load_graph(path: str | Path) -> Graph:
    """Read a graph that `save_graph` wrote.

    Raises: WorkloadError: no such file, not JSON, not a graph, a newer schema.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, no JSON, a number of thousands of digits
        raise WorkloadError(f"{path}: cannot be read as a saved graph: {why(error)}") from error
    except RecursionError as error:
        raise WorkloadError(
            f"{path}: cannot be read as a saved graph: its lists or objects are nested too deeply for one; expected "
            "what `dovetail trace -o` writes"
        ) from error
    try:
        return graph_from_dict(document)
    except WorkloadError as error:
        raise WorkloadError(f"{path}: {error}") from error


_TENSOR_DEFAULTS = {"name": "", "layout": (), "density": 1.0, "pattern": None, "storage": ""}
_TENSOR_FIELDS = tuple(f.name for f in fields(Tensor))
_OP_DEFAULTS = {"module": "", "source": "", "region": None, "passes": 1}


def _sparse(tensor: Tensor) -> dict:
    row = {name: getattr(tensor, name) for name in _TENSOR_FIELDS}
    row = {
        name: value for name, value in row.items() if name not in _TENSOR_DEFAULTS or value != _TENSOR_DEFAULTS[name]
    }
    return row | {name: list(row[name]) for name in ("shape", "layout") if name in row} | {"role": str(tensor.role)}


def _tensor(row: Mapping) -> Tensor:
    values = dict(row)
    values["shape"] = tuple(values["shape"])
    values["role"] = Role(values["role"])
    if "layout" in values:
        values["layout"] = tuple(values["layout"])
    return Tensor(**values)


def _op_to_dict(op: Op) -> dict:
    row: dict = {"type": _NAMES[type(op)]}
    for field in fields(op):
        value = getattr(op, field.name)
        match field.name:
            case "inputs" | "outputs":
                value = list(value)
            case "primitives" | "epilogue":
                value = {str(primitive): count for primitive, count in value.items()}
            case "read_bytes" | "write_bytes":
                value = dict(value)
            case "einsum":
                value = _einsum_to_dict(value)
        if field.name not in _OP_DEFAULTS or value != _OP_DEFAULTS[field.name]:
            row[field.name] = value
    return row


def _op_from_dict(row: Mapping) -> Op:
    values = dict(row)
    cls = _TYPES[values.pop("type")]
    values["inputs"], values["outputs"] = tuple(values["inputs"]), tuple(values["outputs"])
    for name in ("primitives", "epilogue"):
        if name in values:
            values[name] = {Primitive(primitive): count for primitive, count in values[name].items()}
    if "collective" in values:
        values["collective"] = Collective(values["collective"])
    if "einsum" in values:
        values["einsum"] = _einsum_from_dict(values["einsum"])
    return cls(**values)


def _einsum_to_dict(einsum: Einsum) -> dict:
    operands = []
    for operand in einsum.operands:
        axes = [[a.size, a.offset, *([rank, coef] for rank, coef in a.terms)] for a in operand.projection]
        operands.append({"tensor": operand.tensor, "role": str(operand.role), "axes": axes})
    return {"ranks": list(map(list, einsum.ranks.items())), "operands": operands}


def _einsum_from_dict(row: Mapping) -> Einsum:
    operands = []
    for operand in row["operands"]:
        projection = tuple(
            Axis(size=size, offset=offset, terms=tuple((rank, coef) for rank, coef in terms))
            for size, offset, *terms in operand["axes"]
        )
        operands.append(Operand(tensor=operand["tensor"], role=OperandRole(operand["role"]), projection=projection))
    return Einsum(ranks=dict(row["ranks"]), operands=tuple(operands))
