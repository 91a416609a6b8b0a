"""One-op graphs equal what the tracer makes of the same layer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import PrecisionError, WorkloadError
from sim.workload.builders import conv2d, gemm
from sim.workload.load import Workload


def test_gemm_by_hand():
    graph = gemm(3, 5, 7, dtype="int8")
    assert graph.macs == 105
    assert graph.parameters == 35
    assert graph.tensors["input"].size_bytes == 21
    assert graph.tensors["output"].shape == (3, 5)
    assert gemm(3, 5, 7, batch=2).macs == 210


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from((1, 2)), c=st.integers(1, 3), k=st.integers(1, 3), size=st.integers(5, 9),
    kernel=st.integers(1, 3), stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    batch=st.integers(1, 2),
)  # fmt: skip
def test_conv2d_is_what_the_tracer_makes(**sizes):
    groups, c, k = sizes.pop("groups"), sizes.pop("c"), sizes.pop("k")
    knobs = {"in_channels": c * groups, "out_channels": k * groups, "groups": groups, **sizes}
    traced = Workload("conv2d", knobs).graph(cache=False)
    built = conv2d(dtype="fp32", **knobs)
    ours, theirs = built.ops[0].einsum, traced.ops[0].einsum
    assert dict(ours.ranks) == dict(theirs.ranks)
    assert [o.projection for o in ours.operands] == [o.projection for o in theirs.operands]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gemm(0, 1, 1), WorkloadError, "m=0: expected a whole number"),
        (lambda: gemm(1, 1, 1, dtype="int9"), PrecisionError, '"int9" is unknown.*Did you mean'),
        (lambda: conv2d(3, 8, 4, 5), WorkloadError, "output_height=0"),
        (lambda: conv2d(3, 8, 4, 1, groups=2), WorkloadError, "do not divide"),
    ],
)
def test_what_makes_no_op(make, error, message):
    with pytest.raises(error, match=message):
        make()
