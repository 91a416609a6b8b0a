"""Kernels that a framework launches op by op: times by hand, the host's wait, and what the parts must obey."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.cost.gpu.eager import CLASSES, HOST_KINDS, ROW_SHARE, EagerConstants, EagerWork, eager_time, work_from_rows
from sim.schedule.gpu_eager import host_wait_s

US = 1e-6
CONSTANTS = replace(
    EagerConstants.datasheet(), gap_s=0.5 * US, vector_s=1 * US, vector_efficiency=0.5, conv_s=4 * US,
    conv_efficiency=0.8, transposed_efficiency=0.25, rows_s=2 * US, rows_column_s=1e-9, row_s=0.1 * US,
    host_light_s=6 * US, host_conv_s=12 * US, host_view_s=0.5 * US,
)  # fmt: skip


def work(**row: float) -> EagerWork:
    return work_from_rows([row])


def kind(name: str, host: str = "light") -> dict[str, float]:
    return {"kind": CLASSES.index(name), "host": HOST_KINDS.index(host)}


def test_an_add_by_hand():
    """One kernel, 3 us at best, half as fast: 0.5 + 1 + 6 us on the device; the host makes a call and two views."""
    time = eager_time(work(**kind("vector"), kernels=1, ideal_s=3 * US, calls=1, views=2), CONSTANTS)
    assert time.device_s[0] == pytest.approx(7.5 * US)
    assert time.call_s[0] == pytest.approx(7 * US)


def test_a_convolution_with_a_bias_by_hand():
    """Two kernels: 2 x 0.5 us of gaps, a floor of 4, 8 us / 0.8, and a copy of 1 us at a quarter of the rate."""
    row = work(**kind("conv", "conv"), kernels=2, ideal_s=8 * US, copies_s=1 * US, calls=1, light_calls=1)
    time = eager_time(row, CONSTANTS)
    assert time.device_s[0] == pytest.approx((1 + 4 + 10 + 4) * US)
    assert time.call_s[0] == pytest.approx(18 * US)


def test_rows_wait_for_one_another_by_hand():
    """100 rows an SM of 1,000 columns: a walk of 1 us, and 100 (0.1 us + 15 % of it) above a stream of 2 us."""
    time = eager_time(work(**kind("rows"), kernels=1, ideal_s=2 * US, columns=1000, rows=100), CONSTANTS)
    assert time.kernel_s[0] == pytest.approx((1 + 100 * (0.1 + ROW_SHARE)) * US)


def test_the_host_waits_only_where_it_is_the_longer():
    """The module's example: 10 us of kernels, calls of 30 and 10 us."""
    rows = [
        {**kind("vector"), "kernels": 1.0, "ideal_s": 5 * US, "calls": calls} for calls in (3.0, 1.0)
    ]  # fmt: skip
    constants = replace(EagerConstants.datasheet(), host_light_s=10 * US)
    slow = eager_time(work_from_rows(rows), constants)
    assert host_wait_s(slow) == pytest.approx(np.array([22.5, 7.5]) * US)
    fast = eager_time(work_from_rows(rows), replace(constants, host_light_s=1 * US))
    assert host_wait_s(fast) == pytest.approx(np.zeros(2))


@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.floats(0, 1e-3), st.floats(0, 4)), min_size=1, max_size=12),
    st.floats(0, 1e-4),
)
def test_a_launched_network_takes_the_longer_of_both_sums(ops, call_s):
    rows = [{**kind(name), "kernels": 1.0, "ideal_s": ideal, "calls": calls} for name, ideal, calls in ops]
    time = eager_time(work_from_rows(rows), replace(CONSTANTS, host_light_s=call_s))
    total = float(np.sum(time.device_s + host_wait_s(time)))
    assert total == pytest.approx(max(float(time.device_s.sum()), float(time.call_s.sum())))


@given(st.sampled_from(CLASSES), st.floats(1e-7, 1e-3), st.floats(0, 1e-4), st.floats(1, 1e5), st.floats(0, 1e3))
def test_nothing_is_faster_than_the_kernel_model_at_data_sheet_constants(name, ideal, copies, columns, rows):
    row = work(**kind(name), kernels=1, ideal_s=ideal, copies_s=copies, columns=columns, rows=rows)
    assert eager_time(row, EagerConstants.datasheet()).device_s[0] >= ideal * (1 - 1e-12)


@given(st.sampled_from([f.name for f in fields(EagerConstants)]), st.sampled_from(CLASSES))
def test_floors_lengthen_and_efficiencies_shorten(constant, name):
    row = work(**kind(name, "conv"), kernels=3, ideal_s=5 * US, copies_s=1 * US, columns=100, rows=10, calls=1, views=1)
    more = replace(CONSTANTS, **{constant: getattr(CONSTANTS, constant) * 1.5 + 1e-12})
    base, changed = eager_time(row, CONSTANTS), eager_time(row, more)
    sign = -1 if constant.endswith("efficiency") else 1
    assert sign * (changed.device_s[0] - base.device_s[0]) >= -1e-18
    assert sign * (changed.call_s[0] - base.call_s[0]) >= -1e-18
