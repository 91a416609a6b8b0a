"""The mapping string, and the model against measured rows where the data folder is present."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import spearmanr

from sim.baseline import gemmini
from sim.baseline.checks.waiting import data_folder
from sim.baseline.gemmini import (
    MEASURED,
    Level,
    Loop,
    cost_rows,
    format_mapping,
    output_side,
    parse_mapping,
    predict_rows,
    tile_loops,
)
from sim.cost.waiting import load_waiting
from sim.errors import CalibrationError, MappingError

ROW = {
    "N": 1, "C": 64, "K": 96, "P": 10, "Q": 10, "R": 2, "S": 2, "Hstride": 1, "Wstride": 1,
    "mapping": "L3[WIO] P5 Q2 - L2[WI] N1 K16X - L1[O] K6 S2 R2 C4 Q5 C16X - L0[W] P2",
}  # fmt: skip

LOOP = st.builds(Loop, rank=st.sampled_from("NCKPQRS"), count=st.integers(1, 4096), spatial=st.booleans())


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("WIO")), st.lists(LOOP, min_size=1, max_size=6)), min_size=1, max_size=4)
)
def test_mapping_string_round_trip(parts):
    levels = tuple(
        Level(number=len(parts) - 1 - i, keeps="".join(sorted(keeps)), loops=tuple(loops))
        for i, (keeps, loops) in enumerate(parts)
    )
    assert parse_mapping(format_mapping(levels)) == levels


def test_tile_loops_by_hand():
    """A 2x2 kernel at stride 1 gives 11 outputs a side, so Q is 3 tiles of 5 and P 6 tiles of 2; K 6 x 16, C 4 x 16."""
    loops = tile_loops(ROW)
    assert loops.sizes == {"C": 64, "K": 96, "P": 11, "Q": 11, "R": 2, "S": 2}
    assert loops.tiles == {"C": 64, "K": 96, "P": 2, "Q": 5, "R": 2, "S": 2}
    assert loops.order == ("P", "Q")
    assert (loops.trips("P"), loops.trips("Q"), loops.tile_count) == (6, 3, 18)


def test_output_side_by_hand():
    """56 at stride 1: 3x3 keeps 56, 2x2 gives 57; 7 at stride 2 with a 3x3 kernel: (14 + 2 - 3) / 2 + 1 = 7."""
    assert [output_side(56, 1, 3), output_side(56, 1, 2), output_side(7, 2, 3)] == [56, 57, 7]


def test_one_row_of_outputs_and_no_kernel_is_a_matrix_product():
    row = ROW | {"Q": 1, "R": 1, "S": 1, "P": 10, "mapping": "L3[WIO] K6 - L2[WI] K16X - L1[O] C4 C16X - L0[W] P10"}
    loops = tile_loops(row)
    assert not loops.window
    assert loops.sizes["P"] == 10


def test_ragged_rank_without_a_loop_becomes_the_outermost():
    """11 outputs in tiles of 10: the second tile has no loop of its own in the string."""
    row = ROW | {"mapping": "L3[WIO] K6 - L2[WI] N1 K16X - L1[O] S2 R2 C4 Q11 C16X - L0[W] P10"}
    assert tile_loops(row).order == ("P", "K")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "L3[WIO] K4 - P2"}, '"P2" is not a level'),
        ({"mapping": "L3[WIO] K4 - L2[WI] Z2"}, '"Z2" is not a loop'),
        ({"mapping": "L2[WIO] K4 - L3[WI] P2"}, r"levels \[2, 3\], expected falling"),
        ({"Wstride": 2}, "strides 1 and 2"),
        ({"C": "many"}, 'C is "many", expected an integer'),
        ({"meshX": 32}, "mesh of 32"),
    ],
)
def test_bad_rows(change, message):
    with pytest.raises(MappingError, match=message):
        predict_rows([ROW | change])


def test_missing_column():
    with pytest.raises(MappingError, match="lacks column K"):
        predict_rows([{key: value for key, value in ROW.items() if key != "K"}])


@pytest.fixture(scope="module")
def measured_rows():
    folder = data_folder()
    path = folder / "gemmini_firesim" / "dev.csv" if folder else None
    if path is None or not path.is_file():
        pytest.skip("measured Gemmini rows are not part of the package; set DOVETAIL_DATA")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _errors(predicted, rows):
    return np.abs(predicted / np.array([float(row[MEASURED]) for row in rows]) - 1)


def test_scores_in_sample(measured_rows):
    """Targets of the project: mean 7 %, median 5 %, p90 19 %, 70 % within 10 %, Spearman 0.985."""
    predicted = predict_rows(measured_rows)
    errors = _errors(predicted, measured_rows)
    assert errors.mean() <= 0.07
    assert np.median(errors) <= 0.05
    assert np.percentile(errors, 90) <= 0.19
    assert (errors <= 0.10).mean() >= 0.70
    assert spearmanr(predicted, [float(row[MEASURED]) for row in measured_rows])[0] >= 0.985


def test_nominal_execute_never_exceeds_the_measurement(measured_rows):
    """The array alone, nothing fitted, is a lower bound on every row."""
    array = cost_rows(measured_rows).terms["array"]
    assert (array <= np.array([float(row[MEASURED]) for row in measured_rows])).all()


ABLATIONS = {
    "no instruction window": {"pair_latency_cycles": 16.0},
    "no exposed ends": {"exposed_share": 0.0},
    "no overlap leak": {"overlap_leak": 0.0},
    "DRAM at the cost of a cache": {"line_cycles": None},
    "no overlap": {"exposed_share": 1.0, "overlap_leak": 0.5},
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_each_term_earns_its_place(measured_rows, name):
    """Without the term the mean absolute log ratio is worse, even with the three remaining rates fitted again."""
    machine, constants = load_waiting(gemmini.constants_file())
    measured = np.array([float(row[MEASURED]) for row in measured_rows])
    changes = dict(ABLATIONS[name])
    flat = changes.pop("line_cycles", 0) is None
    share = constants.usable_cache_share
    counts = gemmini.stack_counts(
        [gemmini.count_tiles(tile_loops(row), machine, usable_cache_share=share, warm=True) for row in measured_rows]
    )

    def loss(vector, changes=changes, flat=flat):
        request, line, store = np.exp(vector)
        rates = {"request_cycles": request, "line_cycles": request if flat else line, "store_row_cycles": store}
        try:
            now = replace(constants, **rates, **changes)
        except CalibrationError:
            return 9.0
        return float(np.abs(np.log(gemmini.waiting_cost(counts, machine, now).cycles / measured)).mean())

    start = np.log([constants.request_cycles, constants.line_cycles, constants.store_row_cycles])
    refitted = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 120}).fun
    assert refitted > loss(start, {}, False)
