"""Pipeline parallelism: the ops in order, cut into stages on different chips, with a send at each cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sim.errors import WorkloadError
from sim.workload.graph import UNREAD_WEIGHTS, Collective, CollectiveOp, EinsumOp, Graph, Op, Role, ViewOp
from sim.workload.passes.tensor_parallel import renamed

WINDOW = 0.1
"""Share of a stage's MACs by which a stage may have more or less, to be cut where less is alive."""


def pipeline(graph: Graph, stages: int) -> Graph:
    """The graph with a send to the next stage at each of `stages - 1` cuts.

    A cut lies where the fewest bytes are alive (between layers) within `WINDOW` of equal MACs a stage. What a later
    stage reads arrives as a copy; weights and caches lie with the stage that uses them (those that no op reads with
    the stage of their module), graph inputs with every stage.

    Needs: one order of execution. Promises: MACs as before.
    Raises: WorkloadError: fewer places than cuts.
    """
    if stages == 1:
        return graph
    return _cut(graph, _places(graph, stages))


def _places(graph: Graph, stages: int) -> list[int]:
    """The cuts: after these ops, in order. Of equal places for one it is the last, behind what follows a product
    element by element and runs on its results."""
    alive, work = _alive_bytes(graph), [op.einsum.macs if isinstance(op, EinsumOp) else 0 for op in graph.ops]
    work = work if any(work) else [1] * len(work)  # without a product, by ops
    done = np.cumsum(work) / (sum(work) / stages)
    fits = [
        at
        for at, op in enumerate(graph.ops[:-1])
        if any(_needed(graph, key, at) for key in op.outputs) and not _inside_region(graph, at)
    ]
    if len(fits) < stages - 1:
        raise WorkloadError(
            f"{graph.name or 'graph'}: fewer places to cut than {stages} pipeline stages need: set system.pipeline to "
            "fewer"
        )
    cuts: list[int] = []
    for k in range(1, stages):
        free = fits[: len(fits) - (stages - 1 - k)]  # a place for each of the cuts that follow
        cuts.append(min(
            (at for at in free if not cuts or at > cuts[-1]),
            key=lambda at: (max(WINDOW, abs(done[at] - k)), alive[at], abs(done[at] - k), -at),
        ))  # fmt: skip
    return cuts


def _inside_region(graph: Graph, at: int) -> bool:
    region = graph.ops[at].region
    return region is not None and any(op.region == region for op in graph.ops[at + 1 : at + 20])


def _moves(graph: Graph, key: str) -> bool:
    """Whether a tensor has to be sent: made by an op, and no view of a weight, cache or graph input."""
    return graph.tensors[key].role in (Role.ACTIVATION, Role.OUTPUT)


def _alive_bytes(graph: Graph) -> np.ndarray:
    """After each op, bytes of results that a later op reads."""
    change = np.zeros(len(graph.ops) + 1)
    for key, at in graph.producer.items():
        last = max(graph.consumers.get(key, (at,)))
        if _moves(graph, key) and last > at:
            change[at] += graph.tensors[key].size_bytes
            change[last] -= graph.tensors[key].size_bytes
    return np.cumsum(change)[:-1]


def _cut(graph: Graph, cuts: list[int]) -> Graph:
    tensors, ops = dict(graph.tensors), list[Op]()
    names: dict[str, str] = {}
    unread = _unread_of_stages(graph, cuts)
    for at, op in enumerate(graph.ops):
        ops.append(_holding(op, unread[-1]) if op.kind == UNREAD_WEIGHTS else op)
        ops[-1] = renamed(ops[-1], names)
        if at in cuts:
            stage = cuts.index(at) + 1
            sent = [k for k, made in graph.producer.items() if made <= at and _needed(graph, k, at)]
            if held := unread[stage - 1]:
                source, made = names.get(sent[0], sent[0]), f"{sent[0]}.held{stage}"
                tensors[made] = replace(tensors[source], id=made)
                ops.append(ViewOp(name=made, kind=UNREAD_WEIGHTS, inputs=(source, *held), outputs=(made,)))
                names[sent[0]] = made
            arrived = {key: f"{key}.stage{stage}" for key in sent}
            for key, made in arrived.items():
                role = Role.ACTIVATION
                tensors[made] = replace(graph.tensors[key], id=made, storage=made, role=role, layout=())
            inputs = tuple(names.get(key, key) for key in sent)
            ops.append(_send(op, inputs, tuple(arrived.values()), stage, sum(tensors[k].size_bytes for k in sent)))
            names |= arrived
    note = (
        f"pipeline of {len(cuts) + 1} stages, cut after {', '.join(_before(graph, at) for at in cuts)}: the latency is "
        "that of one batch through all of them"
    )
    return graph.with_(ops=tuple(ops), tensors=tensors, notes=(*graph.notes, note))


def _unread_of_stages(graph: Graph, cuts: list[int]) -> list[list[str]]:
    """Of each stage, the weights that no op reads: those of the modules that it runs last."""
    runs: dict[str, int] = {}
    for at, op in enumerate(graph.ops):
        parts = op.module.split(".")
        runs |= dict.fromkeys((".".join(parts[:n]) for n in range(1, len(parts) + 1)), int(np.searchsorted(cuts, at)))
    found: list[list[str]] = [[] for _ in range(len(cuts) + 1)]
    for op in graph.ops:
        for key in op.inputs[1:] if op.kind == UNREAD_WEIGHTS else ():
            parts = graph.tensors[key].name.split(".")
            known = (runs.get(".".join(parts[:n])) for n in range(len(parts) - 1, 0, -1))
            found[next((stage for stage in known if stage is not None), len(cuts))].append(key)
    return found


def _holding(op: Op, weights: list[str]) -> Op:
    return replace(op, inputs=(op.inputs[0], *weights))


def _needed(graph: Graph, key: str, at: int) -> bool:
    return _moves(graph, key) and any(reader > at for reader in graph.consumers.get(key, ()))


def _before(graph: Graph, at: int) -> str:
    return next((op.name for op in reversed(graph.ops[: at + 1]) if not isinstance(op, ViewOp)), graph.ops[at].name)


def _send(after: Op, inputs: tuple[str, ...], outputs: tuple[str, ...], stage: int, size: int) -> CollectiveOp:
    return CollectiveOp(
        name=f"stage{stage}.send", kind="collective.send", inputs=inputs, outputs=outputs, module=after.module,
        source=after.source, collective=Collective.SEND, chips=2, message_bytes=size,
    )  # fmt: skip


def is_send(op: Op) -> bool:
    """From one stage to the next."""
    return isinstance(op, CollectiveOp) and op.collective is Collective.SEND


def stage_of(graph: Graph) -> list[int]:
    """The pipeline stage of each op; a send belongs to the stage that it leaves."""
    found, stage = [], 0
    for op in graph.ops:
        found.append(stage)
        stage += is_send(op)
    return found


__all__ = ["is_send", "pipeline", "stage_of"]
