"""A mapping: one loop nest of temporal loops, spatial loops and stores, outermost first."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass

from sim.errors import MappingError, shown
from sim.workload.graph import OperandRole

MAPPING_SCHEMA = "dovetail.mapping/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Walks `rank` in steps of `tile` (the last step may be shorter).

    A spatial loop hands its steps to the instances of `fanout` instead of taking them in turn.
    """

    rank: str
    tile: int
    fanout: str | None = None

    @property
    def spatial(self) -> bool:
        return self.fanout is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """From here inward, `memory` holds the operand's tile: what all loops below touch.

    A store in another memory than the store before it begins a job of its own: its tile comes when the
    tile outside has arrived. `beside`: the two memories lie side by side, and both tiles move together.
    """

    memory: str
    operand: OperandRole
    double_buffered: bool = True
    beside: bool = False


Node = Loop | Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Nodes from the outside in, down to the array, which takes what is left of every rank.

    The home of an operand is outside the first node; it is not part of the mapping.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.nodes, tuple | list) or not all(isinstance(node, (Loop, Store)) for node in self.nodes):
            raise MappingError(
                f"mapping: nodes is {shown(self.nodes)}: expected a tuple of Loop and Store, outermost first "
                "(Mapping.from_dict reads the form of documents)"
            )
        object.__setattr__(self, "nodes", tuple(self.nodes))

    def to_dict(self) -> dict[str, object]:
        """The YAML/JSON form: {"schema", "nodes": [{"loop": "C", "tile": 64}, {"store": ...}]}."""
        nodes: list[dict[str, object]] = []
        for node in self.nodes:
            if isinstance(node, Loop):
                entry: dict[str, object] = {"loop": node.rank, "tile": node.tile}
                if node.fanout:
                    entry["fanout"] = node.fanout
            else:
                entry = {"store": node.operand.value, "memory": node.memory}
                if not node.double_buffered:
                    entry["double_buffered"] = False
                if node.beside:
                    entry["beside"] = True
            nodes.append(entry)
        return {"schema": MAPPING_SCHEMA, "nodes": nodes}

    @classmethod
    def from_dict(cls, data: MappingType[str, object], *, where: str = "mapping") -> Mapping:
        """Raises: MappingError: wrong schema, unknown key or role, a tile that is no positive integer."""
        if data.get("schema", MAPPING_SCHEMA) != MAPPING_SCHEMA:
            raise MappingError(f'{where}: schema is "{data.get("schema")}", expected "{MAPPING_SCHEMA}"')
        nodes = data.get("nodes")
        if not isinstance(nodes, list | tuple):
            raise MappingError(f"{where}: expected a list under `nodes`, outermost first")
        return cls(nodes=tuple(_node(entry, where=f"{where}: nodes[{i}]") for i, entry in enumerate(nodes)))


def _node(entry: object, *, where: str) -> Node:
    if not isinstance(entry, dict):
        raise MappingError(f"{where}: expected a loop or a store, got {entry!r}")
    keys = set(entry)
    if "loop" in keys and keys <= {"loop", "tile", "fanout"}:
        tile = entry.get("tile")
        if not isinstance(tile, int) or isinstance(tile, bool) or tile < 1:
            raise MappingError(f"{where}: tile is {tile!r}, expected a positive integer")
        return Loop(rank=str(entry["loop"]), tile=tile, fanout=entry.get("fanout"))
    if "store" in keys and keys <= {"store", "memory", "double_buffered", "beside"} and "memory" in keys:
        try:
            role = OperandRole(entry["store"])
        except ValueError:
            raise MappingError(f"{where}: store is {entry['store']!r}, expected input, weight or output") from None
        flags = {"double_buffered": entry.get("double_buffered", True), "beside": entry.get("beside", False)}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise MappingError(f"{where}: {name} is {value!r}, expected true or false")
        return Store(memory=str(entry["memory"]), operand=role, **flags)
    raise MappingError(
        f"{where}: expected keys loop, tile [, fanout] or store, memory [, double_buffered, beside]; "
        f"got {', '.join(sorted(keys))}"
    )
