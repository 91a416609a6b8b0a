"""What a check is: our number against a published or measured one, and how near it must be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from sim.baseline.published import Published
from sim.errors import DovetailError, ResultError, nearest


class Rule(StrEnum):
    """How ours is compared with theirs."""

    RELATIVE = "relative"
    """|ours / theirs - 1| <= tolerance."""
    POINTS = "points"
    """|ours - theirs| <= tolerance, in the quantity's unit (percentage points)."""
    AT_LEAST = "at_least"
    """ours >= theirs; the tolerance is not used."""
    AT_MOST = "at_most"
    """ours <= theirs; the tolerance is not used."""


DATA_PREFIX = "DOVETAIL_DATA=FOLDER "
"""What stands before the command of a row on measured rows that are no part of the package."""
ABSENT = "no number without the measured rows: DOVETAIL_DATA names no folder that has them (docs/extending.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row of the table. `compute` gives ours, or None where an optional part is absent."""

    id: str
    source: str
    quantity: str
    unit: str
    theirs: float
    tolerance: float
    gate: bool
    compute: Callable[[], float | None]
    rule: Rule = Rule.RELATIVE
    note: str = ""
    needs_data: bool = False
    """On measured rows that are no part of the package; without their folder there is no number."""

    def run(self) -> CheckResult:
        """Compute ours and judge it. A row without a gate, or without our number, informs; one whose
        computation is refused with an error of ours fails its gate and carries the message."""
        try:
            ours = self.compute()
        except DovetailError as refused:
            return CheckResult(
                check=self, ours=None, rel_error=None, verdict="fail" if self.gate else "info", refusal=str(refused)
            )
        verdict, error = "info", None
        if ours is not None:
            error = ours / self.theirs - 1 if self.theirs else None
            if self.gate:
                verdict = "pass" if self._holds(ours) else "fail"
        return CheckResult(check=self, ours=ours, rel_error=error, verdict=verdict)

    def _holds(self, ours: float) -> bool:
        if self.rule is Rule.RELATIVE:
            return abs(ours / self.theirs - 1) <= self.tolerance
        if self.rule is Rule.POINTS:
            return abs(ours - self.theirs) <= self.tolerance
        return ours >= self.theirs if self.rule is Rule.AT_LEAST else ours <= self.theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """A check with our number: one element of `checks` in `dovetail.validate/1`."""

    check: Check
    ours: float | None
    rel_error: float | None
    verdict: str
    """ "pass", "fail" or "info"."""
    refusal: str = ""
    """Why there is no number, if an error said so."""

    @property
    def command(self) -> str:
        """What reproduces the row, in a shell."""
        return f"{DATA_PREFIX if self.check.needs_data else ''}dovetail validate --check {self.check.id} --json"

    @property
    def note(self) -> str:
        """What is to be known about the row, why it has no number included."""
        absent = self.check.needs_data and self.ours is None and not self.refusal
        return "; ".join(filter(None, (self.check.note, self.refusal, ABSENT if absent else "")))

    def to_dict(self) -> dict[str, object]:
        """The JSON object of the row."""
        check = self.check
        return {
            "id": check.id, "source": check.source, "quantity": check.quantity, "unit": check.unit,
            "ours": self.ours, "theirs": check.theirs, "rel_error": self.rel_error, "tolerance": check.tolerance,
            "rule": str(check.rule), "gate": check.gate, "verdict": self.verdict, "command": self.command,
            "note": self.note,
        }  # fmt: skip


def against(
    fact: Published,
    compute: Callable[[], float | None],
    *,
    id: str,  # noqa: A002  the column's name
    tolerance: float,
    gate: bool = True,
    rule: Rule = Rule.RELATIVE,
    quantity: str | None = None,
    note: str = "",
) -> Check:
    """A check against a published fact; a fact that nobody has seen never gates."""
    return Check(
        id=id,
        source=f"{fact.reference} ({fact.confidence})",
        quantity=quantity or f"{fact.chip} {fact.workload} {fact.quantity}".replace(" - ", " "),
        unit=fact.unit,
        theirs=fact.value,
        tolerance=tolerance,
        gate=gate and fact.gates,
        compute=compute,
        rule=rule,
        note=note,
    )


Maker = Callable[[], Iterable[Check]]
_GROUPS: dict[str, Maker] = {}


def group(name: str) -> Callable[[Maker], Maker]:
    """Register a function that yields the checks of one subject; a name twice is an error."""

    def register(maker: Maker) -> Maker:
        if name in _GROUPS:
            raise ResultError(f'check group "{name}" is registered twice')
        _GROUPS[name] = maker
        return maker

    return register


def all_checks(only: str | None = None) -> Iterator[Check]:
    """Every registered check, by group in order of registration; `only` names a group or an id.

    Raises: ResultError: `only` names nothing.
    """
    seen: dict[str, Check] = {}
    for name, maker in _GROUPS.items():
        for check in maker():
            if check.id in seen:
                raise ResultError(f'check id "{check.id}" stands twice')
            seen[check.id] = check
            if only in (None, name, check.id):
                yield check
    if only is not None and only not in _GROUPS and only not in seen:
        near = nearest(only, [*_GROUPS, *seen]) or f" A check's name begins with its group: {next(iter(seen))}"
        raise ResultError(f'no check or group "{only}"; the groups are {", ".join(_GROUPS)}.{near}')
