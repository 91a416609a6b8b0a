"""How far a long run has come: what the library calls and the command line shows."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then with the share that is done, and of what."""

    def __call__(self, share: float, what: str = "simulated") -> None: ...
