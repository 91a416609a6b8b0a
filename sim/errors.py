"""Every error of ours derives from DovetailError and knows the exit code that it stands for.

A message is one paragraph that says where, what, what was expected and the nearest fix.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DovetailError(Exception):
    """Base of all errors that a user can cause; `exit_code` is what the command returns."""

    exit_code = 2


class ConfigError(DovetailError):
    """A chip, scenario, recipe or search file, or an override, is not what the schema asks for."""


class UnitError(ConfigError):
    """A quantity has no unit, an unknown unit, or the unit of another dimension."""


class WorkloadError(DovetailError):
    """A workload cannot be found, built or read, or a knob does not exist."""


class TraceError(DovetailError):
    """The model raised, or did something that the tracer cannot record."""


class UnsupportedOpError(DovetailError):
    """Ops without a cost rule; the message lists them with the user's source lines."""

    exit_code = 1


class PrecisionError(DovetailError):
    """A precision that the chip lacks; the message names what it would run as."""


class MappingError(DovetailError):
    """A given mapping is malformed: unknown rank or memory, tiles that do not nest."""


class InfeasibleError(DovetailError):
    """No mapping or schedule fits the chip; the message lists the tensors and the numbers."""

    exit_code = 1


class ResultError(DovetailError):
    """A saved result is broken, of a newer schema, or not ours."""


class MeasurementError(DovetailError):
    """A device is absent, too noisy, or lacks what the measurement needs."""


class CalibrationError(DovetailError):
    """Too few, contradictory or foreign points."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A ' Did you mean "x"?' clause for a message, or '' when nothing is near.

    >>> nearest("capcity", ["capacity", "bandwidth"])
    ' Did you mean "capacity"?'
    """
    found = get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f' Did you mean "{found[0]}"?' if found else ""
