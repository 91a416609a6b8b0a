"""What must cross a chip's links: the inputs the host's, what collectives send those between chips."""

from __future__ import annotations

from sim.cost.collectives import sent_bytes
from sim.errors import ConfigError, nearest
from sim.hardware.chip import Chip, Link
from sim.workload.graph import CollectiveOp, Graph, Role
from sim.workload.passes.precision import stored_as
from sim.workload.precision import Precision

TRANSFER = "host.input"
"""Name and kind of the op that brings the inputs."""

INPUTS = ("host", "resident")
"""Where inputs are when the network starts: at the far end of the chip's host link, or in the home memory."""


def check_inputs(inputs: str) -> None:
    """Raises: ConfigError: none of `INPUTS`."""
    if inputs not in INPUTS:
        raise ConfigError(f'inputs "{inputs}": expected {" or ".join(INPUTS)}.{nearest(inputs, INPUTS)}')


def host_link(chip: Chip) -> Link | None:
    """The link over which inputs come."""
    return next((link for link in chip.links if link.name == chip.host_link), None)


def arriving_bytes(graph: Graph, precision: Precision | None = None) -> dict[str, int]:
    """Input that some op reads -> its bytes as a precision stores them (as it stands, without one); of views of one
    storage the largest stands for all."""
    largest: dict[str, tuple[int, str]] = {}
    for key, tensor in graph.tensors.items():
        if tensor.role is Role.INPUT and key in graph.consumers:
            bits = stored_as(tensor, precision)[1] if precision else tensor.bits
            size = -int(-tensor.elements * bits * tensor.density // 8)
            place = tensor.storage or key
            largest[place] = max(largest.get(place, (0, "")), (size, key))
    return {key: size for size, key in largest.values()}


def host_link_s(graph: Graph, chip: Chip, precision: Precision | None) -> float:
    """The bytes of the inputs over the bandwidth of the host link; 0 without either."""
    link, clock_hz = host_link(chip), chip.main_unit.clock_hz
    return sum(arriving_bytes(graph, precision).values()) / (link.bandwidth.at(clock_hz) * clock_hz) if link else 0.0


def link_bound_s(op: CollectiveOp, chip: Chip) -> float:
    """The bytes that a chip must send over its links' bandwidth."""
    sent = sent_bytes(collective=op.collective.value, message_bytes=op.message_bytes, chips=op.chips)
    return float(sent / chip.system_link.bandwidth.at(1.0))
