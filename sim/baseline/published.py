"""Published facts that ship with the package: one JSON object per line, sources beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from types import MappingProxyType

import yaml

from sim.errors import ResultError, nearest
from sim.resources import data_dir

CONFIDENCES = ("found-primary", "found-secondary", "derived", "memory-consistent", "memory")
"""Seen in the paper, vendor document or log; seen in a secondary source; computed from found figures;
recalled, with sums that reproduce found totals; recalled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One published value with where it stands. Only values that somebody has seen may gate."""

    id: str
    chip: str
    quantity: str
    value: float
    unit: str
    source: str
    confidence: str
    workload: str = "-"
    batch: int | None = None
    scenario: str | None = None
    locator: str = ""
    knobs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.confidence not in CONFIDENCES:
            raise ResultError(f'{self.id}: confidence "{self.confidence}", expected one of {", ".join(CONFIDENCES)}')
        object.__setattr__(self, "knobs", MappingProxyType(dict(self.knobs)))

    @property
    def gates(self) -> bool:
        """False where the value was only recalled: such rows inform."""
        return not self.confidence.startswith("memory")

    @property
    def reference(self) -> str:
        """Source key and place in it."""
        return f"{self.source}, {self.locator}" if self.locator else self.source


@cache
def load_published() -> Mapping[str, Published]:
    """All facts by id.

    Raises: ResultError: a broken line, an unknown field or source, or an id that stands twice.
    """
    path = data_dir("baselines") / "published" / "silicon.jsonl"
    names, sources = [item.name for item in fields(Published)], load_sources()
    facts: dict[str, Published] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            data = json.loads(line)
            fact = Published(**data)
        except (ValueError, TypeError) as error:
            raise ResultError(f"{path}:{number}: not a published fact of {', '.join(names)}: {error}") from error
        if fact.id in facts:
            raise ResultError(f"{path}:{number}: id {fact.id} stands twice")
        if fact.source not in sources:
            raise ResultError(f'{path}:{number}: source "{fact.source}" is unknown.{nearest(fact.source, sources)}')
        facts[fact.id] = fact
    return MappingProxyType(facts)


@cache
def load_sources() -> Mapping[str, Mapping[str, str]]:
    """Source key -> title, where, kind."""
    path = data_dir("baselines") / "published" / "sources.yaml"
    return MappingProxyType(yaml.safe_load(path.read_text(encoding="utf-8"))["sources"])


def facts(chip: str, quantity: str | None = None, **match: object) -> tuple[Published, ...]:
    """Facts of a chip (and quantity), further fields equal to `match`; in file order."""
    return tuple(
        fact
        for fact in load_published().values()
        if fact.chip == chip
        and quantity in (None, fact.quantity)
        and all(getattr(fact, key) == value for key, value in match.items())
    )


def fact(chip: str, quantity: str, **match: object) -> Published:
    """The one fact that matches.

    Raises: ResultError: none, or several.
    """
    found = facts(chip, quantity, **match)
    if len(found) != 1:
        raise ResultError(f"{len(found)} published facts for {chip}, {quantity}, {match}; expected one")
    return found[0]
