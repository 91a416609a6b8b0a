"""Look-ups in a table smaller than what is looked up: home traffic and near traffic by hand."""

import pytest

import sim
from sim.workload.graph import Graph, MovementOp, Role, Tensor

CODES, WEIGHTS = 16, 1 << 16


def looked_up(dtype: str, size: int) -> Graph:
    """65,536 values of so many bytes out of a table of 16, by indices of one byte."""
    table = Tensor(id="table", shape=(CODES,), dtype=dtype, bits=8 * size, role=Role.WEIGHT)
    index = Tensor(id="index", shape=(WEIGHTS,), dtype="uint8", bits=8, role=Role.INPUT)
    made = Tensor(id="made", shape=(WEIGHTS,), dtype=dtype, bits=8 * size, role=Role.OUTPUT)
    op = MovementOp(
        name="codes",
        kind="aten.index",
        inputs=("table", "index"),
        outputs=("made",),
        read_bytes={"table": size * WEIGHTS, "index": WEIGHTS},
        write_bytes={"made": size * WEIGHTS},
    )
    return Graph(ops=(op,), tensors={t.id: t for t in (table, index, made)})


@pytest.mark.parametrize(
    ("capacity", "home_read"),
    [("64 KiB", CODES + WEIGHTS), ("15 B", 2 * WEIGHTS)],
    ids=["the table fits and comes once", "it does not fit and every look-up comes from home"],
)
def test_a_table_that_fits_is_read_once(capacity, home_read):
    """Near the lanes each look-up is an access all the same."""
    chip = sim.load_hardware("systolic", {"SRAM.capacity": capacity})
    run = sim.estimate(looked_up("int8", 1), chip)
    assert run.traffic_bytes["DRAM"].read == home_read
    assert run.traffic_bytes["SRAM"].read == 2 * WEIGHTS


def test_the_cache_of_a_gpu_keeps_a_table():
    """All inputs are cold: of the table its 32 bytes, of the indices each once."""
    run = sim.estimate(looked_up("fp16", 2), sim.load_hardware("h100-sxm"), precision="fp16", inputs="resident")
    assert run.traffic_bytes["DRAM"].read == 2 * CODES + WEIGHTS
