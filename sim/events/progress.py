"""How far a long run has come: what the library calls and the command line shows."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with the share that is done, and of what."""

    def __call__(self, share: float, what: str = "simulated") -> None: ...


def part(progress: Progress | None, at: int, of: int) -> Progress | None:
    """Reports the share of part `at` of `of` equal parts as a share of all of them."""
    if progress is None:
        return None

    def report(share: float, what: str = "simulated") -> None:
        progress((at + share) / of, what)

    return report
