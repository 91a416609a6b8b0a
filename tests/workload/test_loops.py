"""Loops that end when the data say so."""

import pytest
import torch
from calls import Call, graph_of

from sim.errors import TraceError
from sim.workload.trace import DataPolicy, trace


def test_a_while_on_data_runs_as_often_as_the_policy_says():
    """Three calls of a loop of two rounds, one doubling each; behind `not` the answers are turned round."""

    def halves(m, x):
        for _ in range(3):
            while x.abs().max() > 1:
                x = x * 0.5
            while not x.max() < 1:
                x = x + 1
            rounds = 0
            while rounds < 5 and not torch.allclose(x, x.abs()):
                x, rounds = x - 1, rounds + 1
            while x.min() < 1 or (x.max() < 1 and not x.sum() > 1):
                x = x.exp()
            while (
                x.min() < 1  # a test of several lines
                and x.max() < 1
            ):
                x = x.sin()
        return x

    kinds = ("aten.mul", "aten.add", "aten.sub", "aten.exp", "aten.sin")
    graph = graph_of(halves, torch.zeros(4))
    assert [sum(op.kind == kind for op in graph) for kind in kinds] == [3] * 5
    twice = trace(Call(halves), torch.zeros(4), policy=DataPolicy(number=2))
    assert [sum(op.kind == kind for op in twice) for kind in kinds] == [6] * 5
    assert all("rounds of a loop assumed to be 2" in note for note in twice.notes)


def test_a_loop_that_never_ends_without_data_is_refused(monkeypatch):
    def endless(m, x):
        while True:
            x = x * 0.5
            if not x.max() < 1:
                return x

    monkeypatch.setattr("sim.workload.trace.loops.MOST_ASKED", 50)
    with pytest.raises(TraceError, match=r"test_loops\.py:\d+: asked 50 times .* DataPolicy\(at="):
        graph_of(endless, torch.zeros(4))
