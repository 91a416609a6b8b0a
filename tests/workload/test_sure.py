"""Guards against what sane data never hold: a run without data passes them, as one with data does."""

import pytest
import torch
from torch import nn

from sim.errors import TraceError
from sim.workload.trace import DataPolicy, trace


class Guarded(nn.Module):
    def __init__(self, guard):
        super().__init__()
        self.layer, self.guard = nn.Linear(8, 4), guard

    def forward(self, x):
        y = self.layer(x)
        return y if self.guard(y) else y @ y.t()


@pytest.mark.parametrize(
    "passes",
    [
        lambda y: not torch.isnan(y).any(),
        lambda y: not (y.isnan() | y.isinf()).any(),
        lambda y: not (torch.isnan(y).any() or torch.isinf(y).any()),
        lambda y: y.isfinite().all(),
        lambda y: torch.isfinite(y).logical_not().sum() == 0,
        lambda y: torch.isnan(y).sum().item() == 0,
        lambda y: (y == y).all() and not (y != y).any(),
        lambda y: not (y.abs() == float("inf")).any(),
        lambda y: (~torch.isnan(y.sum(-1)) & torch.isfinite(y[:, 0]))[1],
    ],
)
def test_a_guard_against_nan_does_not_strike(passes):
    """Two rows of 8 x 4 products, and none behind the guard."""
    graph = trace(Guarded(passes), torch.empty(2, 8))
    assert graph.macs == 2 * 8 * 4
    assert any(note.endswith("data assumed to be finite") for note in graph.notes)


def test_all_rows_are_without_nan_and_no_element_is_nan():
    rows = trace(Guarded(lambda y: y[~torch.isnan(y).any(-1)].shape == (2, 4)), torch.empty(2, 8))
    none = trace(Guarded(lambda y: y[y.isnan()].shape == (0,)), torch.empty(2, 8))
    assert rows.macs == none.macs == 2 * 8 * 4


def test_what_is_overwritten_may_be_anything():
    def overwritten(y):
        found = torch.isnan(y)
        found[0] = y[0] > 0
        return found.any()

    assert trace(Guarded(lambda y: not overwritten(y)), torch.empty(2, 8)).macs == 2 * 8 * 4 + 2 * 2 * 4


def test_the_user_says_otherwise():
    line = f"test_sure.py:{in_range.__code__.co_firstlineno + 1}"
    with pytest.raises(
        TraceError, match=rf'IndexError: too large; .*answered True.* DataPolicy\(at=\{{"{line}": False'
    ):
        trace(Guarded(in_range), torch.empty(2, 8))
    assert trace(Guarded(in_range), torch.empty(2, 8), policy=DataPolicy(at={line: False})).macs == 2 * 8 * 4


def in_range(y):
    if (y > 10).any():
        raise IndexError("too large")
    return True


def test_an_error_that_follows_work_is_not_blamed_on_the_data():
    def fails(y):
        if (y > 10).any():
            y = y * 2
        raise ValueError("of its own")

    with pytest.raises(TraceError, match=r"ValueError: of its own$"):
        trace(Guarded(fails), torch.empty(2, 8))
