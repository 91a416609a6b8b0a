"""What the commands share: settings, parsing of `key=value` words, printing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sim.errors import ConfigError, DovetailError, WorkloadError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

EXIT_INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as of any program that a shell runs."""
WIDTH = 100
"""Widest table in columns, unless it is a wide one; a narrower terminal makes it narrower."""


class Settings:
    """The options that every command takes. One process runs one command."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.quiet = False
        self.debug = False

    def set_quiet(self, value: bool) -> None:
        self.quiet = value

    def set_debug(self, value: bool) -> None:
        self.debug = value


settings = Settings()


def console(*, stderr: bool = False, wide: bool = False) -> Console:
    """A rich console: colour only on a terminal, no wider than `WIDTH`; `wide`: as the terminal, or COLUMNS, is."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    width = min(found.width, WIDTH) if found.is_terminal else WIDTH
    if wide and (found.is_terminal or os.environ.get("COLUMNS", "").isdigit()):
        width = found.width
    return Console(stderr=stderr, highlight=False, width=width)


def show(*parts: RenderableType, wide: bool = False) -> None:
    """Print tables and text for people on stdout; `wide`: a table that uses all of a wide terminal."""
    out = console(wide=wide)
    for part in parts:
        out.print(part, markup=False) if isinstance(part, str) else out.print(part)


def show_line(line: str) -> None:
    """A line on stdout, continued under its own indent where the console is narrower."""
    import textwrap

    indent = line[: len(line) - len(line.lstrip())] + "  "
    wrapped = textwrap.wrap(line, width(), subsequent_indent=indent, drop_whitespace=True, break_on_hyphens=False)
    print("\n".join(wrapped))


def say(text: str) -> None:
    """A remark on stderr, unless `--quiet`."""
    if not settings.quiet:
        print(text, file=sys.stderr)


def document(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A document of the first version of its kind: schema and version, then the content."""
    from sim._version import __version__

    return {"schema": f"dovetail.{kind}/1", "version": __version__, **content}


def print_json(document: object) -> None:
    """Exactly one JSON document on stdout; a number that JSON lacks is our bug."""
    print(json.dumps(document, indent=2, allow_nan=False))


def width() -> int:
    """Columns that tables may use."""
    return console().width


def pairs(words: Iterable[str], *, option: str, error: type[DovetailError] = ConfigError) -> dict[str, str]:
    """["a=1", "b=x y"] -> {"a": "1", "b": "x y"}.

    Raises: the given error: a word without "=", an empty key, a key twice.
    """
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise error(f'{option} {word}: expected key=value, for example "{option} {_EXAMPLES.get(option, "key=1")}"')
        if key in found:
            raise error(f"{option} {key} is given twice: {found[key]} and {value}")
        found[key] = value.strip()
    return found


_EXAMPLES = {"-p": "batch=4", "--set": "clock=1.5 GHz", "--override": "layer1.0.conv1.0.convolution=1.2 ms"}


def knobs(words: Iterable[str]) -> dict[str, Any]:
    """`-p` words as {knob: text}; the workload reads each by its annotation."""
    return pairs(words, option="-p", error=WorkloadError)


def overrides(words: Iterable[str]) -> dict[str, str]:
    """`--set` words as {path: quantity}."""
    return pairs(words, option="--set")


def chips(names: Iterable[str], words: Iterable[str]) -> list[Any]:
    """Every `--hw` with every `--set` applied."""
    import sim

    changes = overrides(words)
    return [sim.load_hardware(name, changes) for name in names]
