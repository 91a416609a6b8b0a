"""stdout and stderr as a shell may leave them: another encoding, closed, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sim.cli.streams import PLAIN
from sim.view.tables import _BLOCKS

COMMAND = [sys.executable, "-m", "sim", "estimate", "gemm", "--hw", "systolic", "--no-what-if"]


def test_every_step_of_a_bar_has_a_plainer_sign() -> None:
    assert set(_BLOCKS) - {" "} <= set(map(chr, PLAIN))
    assert all(len(str(chr(plain))) == 1 for plain in PLAIN.values())


def test_an_encoding_without_our_signs_is_no_bug() -> None:
    """ASCII has neither µ nor bars: "us", "#", and a table as wide as ever."""
    done = subprocess.run(COMMAND, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    words = done.stdout.decode("ascii")
    assert "us, " in words.splitlines()[0]
    assert "?" not in words
    assert "#" in next(line for line in words.splitlines() if "total" not in line and " % |" in line)


def test_a_closed_stderr_hides_nothing() -> None:
    """A job's stderr may be closed: the answer is on stdout, and no remark is missed."""
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *COMMAND], stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.startswith("gemm on systolic")
    assert "bug" not in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device of a full disk")
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_full_disk_is_said_in_a_line(option: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*COMMAND, *option], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "dovetail: output: No space left on device\n"


@pytest.mark.parametrize("size", [1, 100_000], ids=["less than is written at once", "more"])
def test_what_could_not_be_written_is_let_go(size: int) -> None:
    """The interpreter flushes once more as it ends: it would say so in its own words and exit with 120."""
    code = (
        "import sys\nfrom sim.cli import streams\n"
        f"try:\n    sys.stdout.write('x' * {size}); streams.flush()\n"
        "except OSError:\n    streams.let_go(); sys.exit(2)"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "")
