"""Stand-ins for quality that the bundled searches name: monotone in capacity, not accuracies."""

from __future__ import annotations

from collections.abc import Mapping


def backbone_capacity(choice: Mapping[str, object]) -> float:
    """MACs of the ResNet-50 family in millions: 4089 x (resolution / 224)^2 x (width / 64)^2.

    4.089 GMAC at 224 and width 64 is the network's own count. A larger backbone is not always a
    better one: this only keeps the search from winning by shrinking the network.
    """
    resolution, width = float(choice["resolution"]), float(choice["width"])  # type: ignore[arg-type]
    return 4089.0 * (resolution / 224) ** 2 * (width / 64) ** 2
