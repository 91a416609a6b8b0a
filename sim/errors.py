"""Every error of ours derives from DovetailError and knows the exit code that it stands for.

A message is one paragraph that says where, what, what was expected and the nearest fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from operator import index


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

    def __init__(self, reason: str, tensors: Iterable[str] = ()) -> None:
        self.reason, self.tensors = reason, tuple(tensors)
        super().__init__(reason + (f"; largest: {', '.join(self.tensors)}" if self.tensors else ""))

    def to_dict(self) -> dict[str, object]:
        """The `infeasible` of a document."""
        return {"reason": self.reason, "tensors": list(self.tensors)}


class ResultError(DovetailError):
    """A saved result is broken, of a newer schema, or not ours."""


class ForeignResultError(ResultError):
    """A whole document, but of another kind than is read here."""


class MeasurementError(DovetailError):
    """A device is absent, too noisy, or lacks what the measurement needs."""


class CalibrationError(DovetailError):
    """Too few, contradictory or foreign points."""


def told_of(where: str, error: DovetailError) -> DovetailError:
    """The same error with its place in front.

    >>> told_of("streams[0]", InfeasibleError("16 GiB do not fit", ["w"])).to_dict()
    {'reason': 'streams[0]: 16 GiB do not fit', 'tensors': ['w']}
    """
    if isinstance(error, InfeasibleError):
        return type(error)(f"{where}: {error.reason}", error.tensors)
    return type(error)(f"{where}: {error}")


def why(error: Exception) -> str:
    """What went wrong with a file whose path the message gives already; of other errors their own words.

    >>> why(FileNotFoundError(2, "No such file or directory", "a.json"))
    'No such file or directory'
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)


def several(problems: Iterable[str]) -> str:
    """The message of several problems: one a line, and told apart where a command prints them in one paragraph.

    >>> several(["chip.yaml: clock: missing", "chip.yaml: title: missing"])
    'chip.yaml: clock: missing;\\nchip.yaml: title: missing'
    """
    return ";\n".join(problem.removesuffix(".") for problem in problems)


def shown(value: object) -> str:
    """What a message calls a value that was given: itself where it is short and plain, else its type.

    >>> shown("even"), shown(None), shown([1, 2])
    ("'even'", 'None', 'a list')
    """
    text = repr(value) if value is None or isinstance(value, bool | int | float | str) else ""
    return text if 0 < len(text) <= 60 else f"a {type(value).__name__}"


def expect(
    value: object, kind: type | tuple[type, ...], due: str, *, where: str, error: type[DovetailError] = ConfigError
) -> None:
    """Refuse an argument of another kind: `due` says what belongs there.

    Raises: the given error.
    """
    if not isinstance(value, kind):
        raise error(f"{where}: expected {due}, got {shown(value)}")


def listed(values: object, *, where: str, such_as: str, error: type[DovetailError] = ConfigError) -> tuple:
    """The values of a list to vary over; a text is one value, and not a list of its letters.

    Raises: the given error: a single value, something else that is no list, or an empty one.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise error(f"{where}: expected a list of values such as {such_as}, got {shown(values)}")
    found = tuple(values)
    if not found:
        raise error(f"{where} has no values to vary over: expected some, such as {such_as}")
    return found


def whole(
    value: object, *, where: str, least: int = 1, most: int = 10**9, error: type[DovetailError] = ConfigError
) -> int:
    """A whole number in a range, NumPy's too; by default one that can be a size or a count.

    Raises: the given error: another number, or no number.
    """
    number = index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else None
    if number is None or not least <= number <= most:
        raise error(f"{where}={value!r}: expected a whole number from {least} to {most:,}")
    return number


def checked_seed(seed: object) -> int:
    """A seed that every generator of random numbers takes. Raises: ConfigError: another number, or no number."""
    return whole(seed, where="seed", least=0, most=2**63 - 1)


def nearest(word: object, choices: Iterable[str]) -> str:
    """A ' Did you mean "x"?' clause for a message, or '' when nothing is near: spelt alike, in any case, or begun with
    the word.

    >>> nearest("capcity", ["capacity", "bandwidth"]), nearest("LPDDR5", ["lpddr5", "lpddr4"])
    (' Did you mean "capacity"?', ' Did you mean "lpddr5"?')
    """
    if not isinstance(word, str):  # what a caller in Python gave in place of a name
        return ""
    known = list(choices)
    folded = {choice.casefold(): choice for choice in reversed(known)}  # of those that differ in case alone the first
    alike = [folded[name] for name in get_close_matches(word.casefold(), folded, n=1)]
    begun = [choice for name, choice in folded.items() if len(word) > 2 and name.startswith(word.casefold())]
    found = get_close_matches(word, known, n=1) or alike or begun[::-1]
    return f' Did you mean "{found[0]}"?' if found else ""
