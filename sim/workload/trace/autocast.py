"""`torch.autocast(x.device.type, ...)` in a model: torch refuses the type of meta tensors, on which none acts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def autocast_on_meta() -> Iterator[None]:
    """Within it, an autocast for meta tensors is one that does nothing; precisions come from the chip or the user."""
    make, enabled = torch.autocast.__init__, torch.is_autocast_enabled

    def made(self: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
        if device_type == "meta":
            make(self, "cpu", enabled=False)
        else:
            make(self, device_type, *args, **kwargs)

    def asked(*device_type: str) -> bool:
        return device_type != ("meta",) and enabled(*device_type)

    torch.autocast.__init__, torch.is_autocast_enabled = made, asked
    try:
        yield
    finally:
        torch.autocast.__init__, torch.is_autocast_enabled = make, enabled
