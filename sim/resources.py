"""Where the data folders are: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

from sim.errors import ConfigError, nearest

FOLDERS = ("hw_configs", "workloads", "baselines", "searches")
"""Data that travels with the package; names of `data_dir`."""


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; a name that no file can have names none."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def why_no_file(path: str | Path) -> str:
    """What `is_file` says no for, to follow the path in a message."""
    try:
        there = Path(path)
        return "is a folder, no file" if there.is_dir() else "is no plain file" if there.exists() else "does not exist"
    except (OSError, ValueError):
        return "does not exist"


def data_dir(folder: str) -> Path:
    """Path of a data folder: `sim/_data/<folder>` of a wheel, else `<folder>` beside the package.

    Raises: ConfigError: a folder that is not ours, or an installation without it.
    """
    if folder not in FOLDERS:
        raise ConfigError(
            f'data folder "{folder}" is unknown: expected one of {", ".join(FOLDERS)}.{nearest(folder, FOLDERS)}'
        )
    package = Path(__file__).resolve().parent
    candidates = (package / "_data" / folder, package.parent / folder)
    for path in candidates:
        if path.is_dir():
            return path
    raise ConfigError(f'data folder "{folder}" is missing: looked in {" and ".join(map(str, candidates))}')
