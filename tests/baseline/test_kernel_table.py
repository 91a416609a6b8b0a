"""Files of measured rows: every value that cannot be is refused with its file, line, column and what is expected."""

import pytest

from sim.baseline.kernel_rows import kind_of, read_kind
from sim.baseline.kernel_table import read_rows
from sim.baseline.score import score_file
from sim.errors import CalibrationError, DovetailError
from sim.hardware.load import load_hardware

GOOD = {
    "m,n,k,latency_ms": "128,4096,4096,0.02",
    "batch_size,new_tokens,past_tokens,num_heads,num_key_value_heads,head_dim,latency_ms": "2,1,512,32,8,128,0.02",
    "op,rows,columns,latency_ms": "softmax,128,512,0.03",
    "batch,in_channels,out_channels,kernel,input_size,stride,padding,latency_ms": "2,64,64,3,16,1,1,0.5",
    "N,C,K,P,Q,R,S,Hstride,Wstride,mapping,measured_cycles_given_mapping": (
        "1,32,32,8,8,1,1,1,1,L3[WIO] Q2 - L2[WI] K16X - L1[O] K2 C2 Q4 C16X - L0[W] P8,1000"
    ),
}
"""Columns -> a row that is scored."""
GEMM, ATTENTION, VECTOR, CONV, GEMMINI = GOOD


def score(tmp_path, header, *lines):
    file = tmp_path / "rows.csv"
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    precision = "fp32" if header == VECTOR else "bf16"
    return score_file(file, None if header.startswith(GEMMINI) else load_hardware("a100-sxm"), precision)


@pytest.mark.parametrize("header", GOOD)
def test_a_good_row_is_scored(tmp_path, header):
    assert score(tmp_path, header, GOOD[header]).statistics.rows == 1


WHOLE = "a whole number from 1 to 2147483647"
BAD = [
    (GEMM, "m", "x", f'm is "x", expected {WHOLE}'),
    (GEMM, "n", "0", f"n is 0, expected {WHOLE}"),
    (GEMM, "k", "nan", f"k is nan, expected {WHOLE}"),
    (GEMM, "k", "1e300", r"k is 1e\+300, expected a whole number"),
    (GEMM, "latency_ms", "inf", "latency_ms is inf, expected a number above 0"),
    (GEMM, "latency_ms", "-1", "latency_ms is -1, expected a number above 0"),
    (ATTENTION, "num_heads", "3", "num_heads is 3 and num_key_value_heads is 8, expected query heads that are a mul"),
    (ATTENTION, "num_key_value_heads", "0", f"num_key_value_heads is 0, expected {WHOLE}"),
    (ATTENTION, "batch_size", "0", f"batch_size is 0, expected {WHOLE}"),
    (ATTENTION, "batch_size", "1.5", f"batch_size is 1.5, expected {WHOLE}"),
    (ATTENTION, "new_tokens", "0", f"new_tokens is 0, expected {WHOLE}"),
    (ATTENTION, "past_tokens", "-5", "past_tokens is -5, expected a whole number from 0"),
    (ATTENTION, "head_dim", "0", f"head_dim is 0, expected {WHOLE}"),
    (ATTENTION, "latency_ms", "", 'latency_ms is "", expected a number above 0'),
    (ATTENTION, "new_tokens", "many", f'new_tokens is "many", expected {WHOLE}'),
    (VECTOR, "rows", "0", f"rows is 0, expected {WHOLE}"),
    (VECTOR, "op", "sofmax", 'op is "sofmax", expected one of add, '),
    (VECTOR, "op", "7", 'op is "7", expected one of add, '),
    (CONV, "in_channels", "0", f"in_channels is 0, expected {WHOLE}"),
    (CONV, "kernel", "19", "kernel is 19 and input_size is 16 and padding is 1, expected a kernel no larger than"),
    (CONV, "stride", "0", f"stride is 0, expected {WHOLE}"),
    (CONV, "padding", "-1", "padding is -1, expected a whole number from 0"),
    (CONV, "stride", "wide", f'stride is "wide", expected {WHOLE}'),
    (GEMMINI, "N", "2", "N is 2, expected 1, a batch of one"),
    (GEMMINI, "P", "9", 'P is 9 and mapping is "L3.*", expected loops of P that cover the layer'),
    (GEMMINI, "Hstride", "2", "Hstride is 2 and Wstride is 1, expected equal strides"),
    (GEMMINI, "mapping", "L3[WIO] Z4", r'mapping is "L3\[WIO\] Z4", expected levels of falling number'),
    (GEMMINI, "mapping", "", 'mapping is "", expected levels of falling number'),
    (GEMMINI, "measured_cycles_given_mapping", "0", "measured_cycles_given_mapping is 0, expected a number above 0"),
]


@pytest.mark.parametrize(("header", "column", "value", "message"), BAD)
def test_a_bad_value_is_named_with_its_line(tmp_path, header, column, value, message):
    row = dict(zip(header.split(","), GOOD[header].split(","), strict=True)) | {column: value}
    with pytest.raises(CalibrationError, match=rf"rows\.csv: line 3: {message}"):
        score(tmp_path, header, GOOD[header], ",".join(row.values()), GOOD[header])


def test_the_first_bad_line_of_several_is_named_and_the_others_counted(tmp_path):
    with pytest.raises(CalibrationError, match=r"line 2: m is 0, .*\(2 such lines\)"):
        score(tmp_path, GEMM, "0,1,1,1", GOOD[GEMM], "-1,1,1,1")


def test_a_mesh_that_the_constants_do_not_hold_for_names_the_file(tmp_path):
    with pytest.raises(DovetailError, match=r"rows\.csv: Gemmini row 2: meshX is 32"):
        score(tmp_path, GEMMINI + ",meshX", GOOD[GEMMINI] + ",16", GOOD[GEMMINI] + ",32")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"m,n,k,latency_ms\n1,2,\xff,4\n", "line 2: byte 0xff is not UTF-8"),
        (b"m,n,k,latency_ms\n", "no rows"),
        (b"m,n,k,latency_ms\n1,2,3\n", "line 2 has 3 values, expected 4"),
        (b"m,m,k,latency_ms\n1,2,3,4\n", "line 1: column m stands twice"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, content, message):
    file = tmp_path / "rows.csv"
    file.write_bytes(content)
    with pytest.raises(CalibrationError, match=message):
        read_rows(file)


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_a_name(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"\xef\xbb\xbfm,n\n1,2\n")
    assert list(read_rows(file)) == ["m", "n"]


def test_blanks_around_names_and_values_and_blank_lines_say_nothing(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("m, n , k,latency_ms,op\n\n1, 2,3,4, relu\n  \n5,6,7,8,gelu\n\n", encoding="utf-8")
    rows = read_rows(file)
    assert {name: column.tolist() for name, column in rows.items()} == {
        "m": [1, 5], "n": [2, 6], "k": [3, 7], "latency_ms": [4, 8], "op": ["relu", "gelu"],
    }  # fmt: skip


def test_an_error_names_the_line_of_the_file_blank_lines_counted(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("m,n,k,latency_ms\n1,2,3,4\n\n5,6,0,8\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match="line 4: k is 0, expected a whole number"):
        read_kind(file)
    file.write_text("m,n,k,latency_ms\n\n1,2,3\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match="line 3 has 3 values, expected 4"):
        read_rows(file)


def test_columns_of_two_kinds_are_refused():
    columns = ["m", "n", "k", "latency_ms", "op", "rows", "columns"]
    with pytest.raises(CalibrationError, match=r"gpu_gemm and gpu_vector: .* without op, rows, columns it is gpu_gemm"):
        kind_of(columns)
    assert kind_of([*columns[:4], "op"]).name == "gpu_gemm"
