"""Sizes that a tensor says: how often elements come, how many classes there are."""

import pytest
import torch
from calls import Call, graph_of
from torch.nn import functional

from sim.workload.graph import Role
from sim.workload.trace import DataPolicy, trace


def sizes(graph):
    """Of each result, in its last form."""
    return list({t.storage: t.shape for t in graph.tensors.values() if t.role is Role.OUTPUT}.values())


@pytest.mark.parametrize(
    ("made", "size"),
    [
        (lambda m, x: x.repeat_interleave(m.held, 0), (8, 6)),
        (lambda m, x: x.repeat_interleave(m.held * 2, dim=1), (2, 48)),
        (lambda m, x: torch.repeat_interleave(x, m.held), (48,)),
        (lambda m, x: functional.one_hot(x.long(), m.held + 6), (2, 6, 10)),
        (lambda m, x: functional.one_hot(x.long(), num_classes=m.held), (2, 6, 4)),
    ],
)
def test_a_held_number_is_a_size(made, size):
    """Four is held; x is 2 x 6."""
    assert sizes(graph_of(made, torch.empty(2, 6), held=torch.tensor(4))) == [size]


def lengths(m, x, times):
    return x.repeat_interleave(times, dim=1)


@pytest.mark.parametrize(("number", "steps"), [(1, 6), (5, 30)])
def test_how_often_each_step_comes_is_a_question(number, steps):
    """As of a length regulator, which makes frames of phonemes."""
    inputs = torch.empty(2, 6, 3), torch.zeros(6, dtype=torch.int64)
    graph = trace(Call(lengths), inputs, policy=DataPolicy(number=number))
    assert sizes(graph) == [(2, steps, 3)]
    assert f"elements after a repetition, in sum, assumed to be {steps}" in graph.notes[0]


def test_counts_of_choices_repeat_as_often_as_there_are_choices():
    """12 tokens, each of one of four experts: 12 weights are taken."""

    def weights(m, x):
        counts = torch.bincount(x.argmax(-1), minlength=4)
        return m.experts[torch.repeat_interleave(torch.arange(4), counts)], torch.repeat_interleave(counts) * 2

    assert sizes(graph_of(weights, torch.empty(12, 4), experts=torch.empty(4, 3))) == [(12, 3), (12,)]
