"""What the shell completes beyond options: names of bundled files. Paths are the shell's own business."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def names(*folders: str) -> Callable[[str], list[str]]:
    """Completes the stems of the files that lie in these data folders ("hw_configs", "workloads/scenarios")."""

    def complete(incomplete: str) -> list[str]:
        from sim.resources import data_dir

        found: list[Path] = []
        for folder in folders:
            first, _, rest = folder.partition("/")
            ending = ".py" if folder == "workloads" else ".yaml"
            found += sorted((data_dir(first) / rest).glob(f"{incomplete}*{ending}"))
        return [path.stem for path in found if not path.stem.startswith("_")]

    return complete


workloads = names("workloads")
chips = names("hw_configs")
