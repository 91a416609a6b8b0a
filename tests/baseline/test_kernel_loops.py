"""Cycles read from compiled code: the control fields by hand, and the numbers that the cost model states."""

import importlib.util
import sys
from pathlib import Path

import pytest

from sim.baseline.kernels import cost

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "kernel_loops.py"


@pytest.fixture(scope="module")
def kernel_loops():
    spec = importlib.util.spec_from_file_location("kernel_loops", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kernel_loops"] = module  # its dataclass looks there for its annotations
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kernel_loops"]


def line(address, text, *, stall, sets=7, waits=0):
    """As nvdisasm -hex prints it: the second word holds stall, yield, the barriers to set, those to wait for."""
    control = stall | sets << 5 | 7 << 8 | waits << 11
    return f"        /*{address:04x}*/   {text} ;  /* 0x{0:016x} */\n    /* 0x{control << 41:016x} */"


LISTING = "\n".join(
    [
        line(0x00, "MOV R1, RZ", stall=2),
        ".L_x_0:",
        line(0x10, "LDG.E R2, desc[UR4][R4.64]", stall=4, sets=3),
        line(0x20, "@!P0 FADD R3, R2, R3", stall=5, waits=1 << 3),
        line(0x30, "@P1 BRA `(.L_x_0)", stall=6),
    ]
)


def test_fields_of_an_instruction(kernel_loops):
    code, labels = kernel_loops.instructions(LISTING)
    assert [(one.name, one.stall) for one in code] == [("MOV", 2), ("LDG", 4), ("FADD", 5), ("BRA", 6)]
    assert code[1].sets == (3, 7)
    assert code[2].waits == 8
    assert labels == {".L_x_0": 1}


def test_cycles_of_a_loop_by_hand(kernel_loops):
    """The load takes 34 cycles from its issue, longer than its stall of 4; then 5 and 6: 45. From memory 661."""
    (body,) = kernel_loops.loops(LISTING)
    assert [one.name for one in body] == ["LDG", "FADD", "BRA"]
    assert kernel_loops.cycles(body, 34) == 45
    assert kernel_loops.cycles(body, 650) == 661


def test_the_stated_steps_are_those_of_the_compiled_kernels(kernel_loops):
    """Where Triton is installed with its tools; another version of it makes other code."""
    triton = pytest.importorskip("triton")
    if not triton.__version__.startswith("3.6."):
        pytest.skip("the stated cycles are of Triton 3.6")
    for name, listing, shared in kernel_loops.triton_kernels():
        body = max(kernel_loops.loops(listing), key=len)
        near, far = (kernel_loops.cycles(body, load) for load in (cost.L1_CYCLES, cost.MEMORY_CYCLES))
        kernel, rows = name.split(", ")
        steps = cost.INT4_STEPS if kernel == "gemm_int4" else cost.SPARSE_STEPS
        step = steps[int(rows.split()[0])]
        assert (step.instructions, step.shared_bytes) == (len(body), shared)
        expected = (15 * near + far) / 16 if kernel == "gemm_int4" else near
        assert step.cycles == pytest.approx(expected, rel=2e-3)
