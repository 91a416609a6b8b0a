"""Tasks in forked copies of the process: the same results as in one, whatever becomes of the copies."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from functools import partial

import numpy as np
import pytest

import sim
from sim.aside import Aside, cores

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="one process everywhere but on Linux")


def _square(n: int) -> tuple[int, int]:
    time.sleep(0.01)
    return n * n, os.getpid()


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_results_stand_in_the_order_of_the_tasks(processes):
    with Aside([partial(_square, n) for n in range(20)], processes) as aside:
        found = aside.results()
    assert [square for square, _ in found] == [n * n for n in range(20)]
    assert len({process for _, process in found}) <= processes


def test_copies_work_while_this_process_does_something_else():
    with Aside([partial(_square, n) for n in range(4)], 3) as aside:
        time.sleep(0.5)  # two copies need 0.02 s
        assert os.getpid() not in {process for _, process in aside.results()}


def _dies_in_a_copy(parent: int) -> str:
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return "made here"


def test_what_a_dead_copy_took_is_made_here():
    with Aside([partial(_dies_in_a_copy, os.getpid())] * 6, 3) as aside:
        time.sleep(0.2)
        assert aside.results() == ["made here"] * 6


def _fails() -> int:
    raise ValueError("no such chip")


def test_an_error_is_raised_where_the_results_are_wanted():
    with Aside([partial(_square, 1), _fails], 2) as aside, pytest.raises(ValueError, match="no such chip"):
        aside.results()


def test_nothing_is_left_behind():
    """Neither processes nor open files nor frozen objects, also if nobody asks for the results."""
    files = len(os.listdir("/proc/self/fd"))
    with Aside([partial(time.sleep, 60)] * 2, 3) as aside:
        processes = [process for process, _ in aside._copies]
    assert len(os.listdir("/proc/self/fd")) == files
    assert gc.get_freeze_count() == 0
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_no_tasks_and_one_core():
    with Aside([], 4) as aside:
        assert aside.results() == []
    assert cores() >= 1


def test_a_sweep_does_not_depend_on_processes():
    """Nor do the rows that cannot run, of which a whole structure is left out with its reason."""
    grid = {"array.rows": [8, 16], "DRAM.capacity": ["1 KiB", "1 GiB"], "DRAM.bandwidth": ["1 GB/s", "8 GB/s"]}
    alone, beside = (sim.sweep(sim.gemm(64, 64, 64), sim.load_hardware("systolic"), grid, processes=n) for n in (1, 3))
    assert alone.columns == beside.columns
    for name in alone.columns:
        assert alone[name].tolist() == beside[name].tolist() or np.array_equal(
            alone[name], beside[name], equal_nan=True
        )
    assert 0 < alone["infeasible"].sum() < len(alone)
