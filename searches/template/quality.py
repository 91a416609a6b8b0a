"""What a choice of the search is worth: a stand-in until you know the accuracy of each network."""

from __future__ import annotations

from collections.abc import Mapping


def parameters(choice: Mapping[str, object]) -> float:
    """Weights of a perceptron of 784 inputs and 10 outputs, in millions; larger counts as better.

    `choice` has the knobs that are searched by their names, `precision`, `sparsity` and `workload`.
    """
    hidden, layers = int(str(choice["hidden"])), int(str(choice["layers"]))
    return (784 * hidden + (layers - 1) * hidden**2 + 10 * hidden) / 1e6
