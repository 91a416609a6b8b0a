"""What the tables say: sums, widths, escaped names. Text is looked at as a terminal would show it."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from rich.text import Text

import sim
from sim.hardware.chip import Chip
from sim.results import Estimate, Term, WhatIf
from sim.view import comparisons, fitted, inventory, rows, tables


def text_of(part: RenderableType, *, width: int = 100) -> str:
    out = StringIO()
    Console(file=out, width=width, highlight=False).print(part)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100])
def test_reports_stay_within_the_terminal(estimate: Estimate, width: int) -> None:
    long = replace(estimate, workload_name="a-very-long-workload-name" * 3, overrides={"SRAM.capacity": "8 MiB"})
    shown = text_of(tables.report(long, ops=True, module_tree=True), width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown


def test_report_names_the_verdict_and_the_terms(estimate: Estimate) -> None:
    shown = text_of(tables.report(estimate))
    assert rows.time_text(estimate.latency_s) in shown
    for words in ("computing", "waiting for memory", "vector unit", "launch", "Ops by time", "DRAM", "What if"):
        assert words in shown
    assert "queueing" not in shown


def test_a_stated_latency_below_the_roofline_is_not_called_measured(estimate: Estimate) -> None:
    """Nothing is calibrated on this chip: what lies below its bound was stated."""
    assert estimate.calibration is None
    below = replace(estimate, latency_s=estimate.roofline_latency_s / 2)
    assert "below that roofline: it has latencies that were stated, not modelled" in rows.verdict(below)
    fitted = replace(below, calibration={"device": "mine", "date": "2026-01-01", "error": 0.1})
    assert "below that roofline: its constants were measured" in rows.verdict(fitted)


def test_names_with_markup_are_shown_as_they_are(estimate: Estimate) -> None:
    op = replace(estimate.ops[0], name="[red]x[/red]", module="[bold]m", latency_s=1.0)
    named = replace(estimate, workload_name="[link=x]w[/link]", ops=(op, *estimate.ops[1:]), notes=("[/nothing]",))
    shown = text_of(tables.report(named, ops=True, module_tree=True))
    for name in ("[red]x[/red]", "[bold]m", "[link=x]w[/link]", "[/nothing]"):
        assert name in shown


def test_infeasible_lists_the_tensors(estimate: Estimate) -> None:
    found = replace(estimate, latency_s=inf, infeasible={"reason": "16 GiB do not fit", "tensors": ["lm_head: 2 GiB"]})
    shown = text_of(tables.report(found))
    assert "infeasible: 16 GiB do not fit" in shown
    assert "lm_head: 2 GiB" in shown


def test_modules_sum_to_their_parents(estimate: Estimate) -> None:
    """Each level of the tree holds the whole network: 4 stages, 3 + 4 + 6 + 3 = 16 blocks."""
    found = rows.modules(estimate)
    assert [sum(row.depth == depth for row in found) for depth in (0, 1, 2)] == [1, 4, 16]
    for depth in (0, 1, 2):
        level = [row for row in found if row.depth == depth]
        assert sum(row.latency_s for row in level) == pytest.approx(estimate.latency_s)
        assert sum(row.macs for row in level) == estimate.macs
    assert [row.path for row in found][:3] == ["", "layer1", "layer1.0"]


def test_shares_of_terms_and_bounds_are_whole(estimate: Estimate) -> None:
    assert sum(share for _, _, share in rows.terms(estimate)) == pytest.approx(1)
    assert sum(share for _, share in rows.bounds(estimate)) == pytest.approx(1)
    assert {term for term, _, _ in rows.terms(estimate)} <= set(Term)
    assert set(rows.TERM_WORDS) == set(Term)


@given(st.floats(0, 1), st.integers(1, 40))
def test_a_bar_is_as_long_as_its_share(share: float, width: int) -> None:
    """Eighths of a cell: within a sixteenth of a cell of share x width, but never empty for something."""
    text = tables.bar(share, width).plain
    eighths = sum(" ▏▎▍▌▋▊▉█".index(character) for character in text)
    assert len(text) == width
    assert abs(eighths - 8 * width * share) <= 0.5 + (eighths == 1)
    assert (eighths > 0) == (share > 0)


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (4.09e9, "MAC", "4.09 GMAC"),
        (999, "", "999"),
        (999.7, "", "1 k"),
        (0, "", "0"),
        (1.5e15, "FLOP/s", "1.5 PFLOP/s"),
        (0.5, "", "0.5"),
    ],
)
def test_counts_for_people(count: float, unit: str, text: str) -> None:
    assert rows.count_text(count, unit) == text


@pytest.mark.parametrize(("value", "text"), [(0.0523, "0.0523"), (999.4, "999"), (2700.4, "2,700"), (6182.0, "6,182")])
def test_intensities_for_people(value: float, text: str) -> None:
    assert rows.intensity_text(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.073, "7.3 %"), (0.62, "62 %"), (1.0, "100 %"), (None, "-"), (0.0, "0 %"), (0.0999, "10 %")]
)
def test_shares_for_people(share: float | None, text: str) -> None:
    assert rows.share_text(share) == text


def test_tiles_in_words() -> None:
    """A store holds what the loops outside it left: K in steps of 64, then M in steps of 8."""
    nodes = [
        {"loop": "K", "tile": 64},
        {"store": "weight", "memory": "SRAM"},
        {"loop": "M", "tile": 8},
        {"store": "input", "memory": "L1"},
    ]
    assert rows.tile_text({"nodes": nodes}) == "SRAM K64; L1 K64 M8"
    assert rows.tile_text({"nodes": nodes[1:2]}) == "SRAM all"
    assert rows.tile_text(None) == "-"


def test_difference_finds_the_op_that_changed(estimate: Estimate) -> None:
    slow = replace(estimate.ops[5], latency_s=estimate.ops[5].latency_s + 0.063)
    after = replace(estimate, latency_s=estimate.latency_s + 0.063, ops=(*estimate.ops[:5], slow, *estimate.ops[6:]))
    shown = text_of(comparisons.difference(estimate, after))
    ratio = after.latency_s / estimate.latency_s
    assert f"{ratio:.3g} times slower" in " ".join(shown.split())
    assert "+63 ms" in shown
    assert "take the same time" in text_of(comparisons.difference(estimate, estimate))


def test_designs_are_sorted_and_only_the_varied_columns_stay() -> None:
    columns = {
        "hardware": ["a", "a", "a"],
        "array.rows": ["16", "32", "64"],
        "latency_s": [3e-3, 1e-3, None],
        "energy_j": [None] * 3,
    }
    shown = text_of(comparisons.designs(columns, limit=3))
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    assert lines[1] == ["array.rows", "latency"]
    assert [line[0] for line in lines[3:]] == ["32", "16", "64"]
    assert lines[-1][-1] == "infeasible"


def test_designs_show_throughput_by_batch_and_area_by_chip_with_those_that_none_beats() -> None:
    """The third chip is slower, larger and hungrier than the first; the second is slower, and smaller."""
    chips = {
        "array.rows": ["16", "32", "64", "8"],
        "latency_s": [1e-3, 2e-3, 3e-3, None],
        "energy_j": [2e-3, 2e-3, 4e-3, None],
        "area_mm2": [9.0, 5.0, 10.0, 2.0],
        "throughput_per_s": [1000.0, 500.0, 333.0, None],
        "macs": [7, 7, 7, None],
    }
    shown = text_of(comparisons.designs(chips, limit=4))
    lines = [line.split() for line in shown.splitlines() if line.strip()]
    # the title is longer than the table, and broken at the terminal's edge only
    assert "*: one of 2 that none beats in time, energy and area together" in shown.splitlines()[0]
    assert lines[1] == ["array.rows", "latency", "energy", "area"]
    assert [line[-1] == "*" for line in lines[3:]] == [True, True, False, False]
    batches = {
        "batch": ["1", "8"],
        "latency_s": [1e-3, 2e-3],
        "throughput_per_s": [1000.0, 4000.0],
        "energy_j": [1e-3, 2e-3],
        "area_mm2": [9.0, 9.0],
        "macs": [7, 56],
    }
    shown = text_of(comparisons.designs(batches, limit=4))
    assert "4 k/s" in shown
    assert "area" not in shown
    assert "none beats" not in shown
    mixed = chips | {"macs": [7, 14, 7, None]}  # different work: nothing to compare
    assert "none beats" not in text_of(comparisons.designs(mixed, limit=4))


def test_a_roofline_sums_up_the_ops_that_it_does_not_list(toy_chip: Chip) -> None:
    """Times at best of the ops that are listed and of the rest sum to those of all."""
    bound = sim.roofline("mlp", toy_chip)
    times = sorted((op.roofline_s for op in bound.ops), reverse=True)
    assert f"{len(times) - 1} more" in (shown := text_of(tables.roofline(bound, limit=1)))
    assert rows.time_text(sum(times[1:])) in shown
    assert " more" not in text_of(tables.roofline(bound, limit=len(times)))


def test_a_batch_states_its_energy_an_inference(estimate: Estimate) -> None:
    """Eight inferences of together 4 J are half a joule each, beside their rate of 8 / 2 s."""
    eight = replace(estimate, batch=8, latency_s=2.0, energy_j=4.0)
    shown = rows.verdict(eight)
    assert "4 inferences a second" in shown
    assert "Energy 500 mJ an inference, 4 J the batch." in shown
    assert "the batch" not in rows.verdict(replace(estimate, energy_j=4.0))


def test_chip_shows_peaks_and_what_is_unverified(toy_chip: Chip) -> None:
    """64 cells x 1 GHz = 64 GMAC/s in int8, half of it in bf16."""
    doubtful = replace(toy_chip, provenance={"DRAM.bandwidth": "estimated: typical", "clock": "hc31"})
    shown = text_of(inventory.chip(doubtful))
    assert "64 GMAC/s" in shown
    assert "64 GFLOP/s" in shown
    assert "DRAM.bandwidth: estimated: typical" in shown
    assert "clock: hc31" not in shown


def test_chip_shows_area_and_power_by_component(toy_chip: Chip) -> None:
    """Parts, their sum, where the sum comes from, and what a die costs and assumes."""
    shown = " ".join(text_of(inventory.chip(sim.load_hardware("tesla-fsd-npu"))).split())
    for words in ("SRAM 43 mm2 75 % 3.54 W 47 %", "total 57 mm2 7.5 W", "leakage - 410 mW", "scaled by 0.36",
                  "Area as modelled from the components",
                  "A die of the modelled parts alone costs 3.66 USD", "3,984 USD at 14 nm"):  # fmt: skip
        assert words in shown, words
    bare = " ".join(text_of(inventory.chip(toy_chip)).split())
    assert "Area: unknown" in bare
    assert "What a die costs is unknown: the chip file states no technology.node" in bare


def test_energy_by_component_and_by_op(estimate: Estimate) -> None:
    """The rows of the table sum to the network's energy; ops tell theirs where there is room, or all ops are shown."""
    found = replace(
        estimate, energy_j=1e-3, energy_breakdown_j={"DRAM": 2e-4, "MACs": 5e-4, "leakage": 3e-4}, area_mm2=20.0,
        area_breakdown_mm2={"SRAM": 15.0, "array": 5.0}, die_cost={"usd": None, "reason": "no node", "assumes": None},
    )  # fmt: skip
    assert [(name, share) for name, _, share in rows.energies(found)] == [
        ("MACs", 0.5), (rows.IDLE_WORDS, 0.3), ("DRAM", 0.2)
    ]  # fmt: skip
    shown = text_of(tables.report(found, ops=True))
    squeezed = " ".join(shown.split())
    assert "50 % 500 µJ" in squeezed
    assert "total 100 % 1 mJ" in squeezed
    assert "Silicon of 20 mm2: SRAM 75 %, array 25 %. What a die costs is unknown: no node." in squeezed
    assert rows.energy_text(found.ops[-1].energy_j) in shown
    assert "Energy\n" not in text_of(tables.report(estimate))


def numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w.])\d[\d.]* (?:%|[a-zA-Zµ/]+)", text)


@pytest.mark.parametrize("width", [48, 60, 80, 100])
def test_numbers_are_never_cut(estimate: Estimate, width: int) -> None:
    """Names may be shortened and columns left out, but what is shown of a number is the whole number."""
    named = replace(estimate, ops=tuple(replace(op, name="a.long.path." + op.name) for op in estimate.ops))
    ops = rows.heaviest(named)
    full = {rows.share_text(op.latency_s / named.latency_s) for op in ops} | {
        rows.time_text(op.latency_s) for op in ops
    }
    full |= {rows.size_text(rows.traffic_bytes(op, "DRAM")) for op in ops} | {
        rows.share_text(op.mac_utilization) for op in ops
    }
    full |= {rows.energy_text(op.energy_j) for op in ops}
    shown = text_of(tables.per_op(named), width=width)
    lines = [line for line in shown.splitlines() if ".conv" in line or ".relu" in line or "…" in line]
    assert len(lines) == len(ops)
    for line, op in zip(lines, ops, strict=True):
        assert rows.time_text(op.latency_s) in line
        assert rows.share_text(op.latency_s / named.latency_s) in line
        assert set(numbers(line)) <= full
    module = text_of(tables.by_module(named), width=width)
    assert all(rows.time_text(row.latency_s) in module for row in rows.modules(named))


def test_a_narrow_terminal_drops_columns_and_a_wide_one_shows_all(estimate: Estimate) -> None:
    """100 columns hold the name, what binds, share, time, utilisation, traffic and tiles; 60 fewer."""
    head = {width: text_of(tables.per_op(estimate, limit=8), width=width).splitlines()[2] for width in (60, 100)}
    assert all(title in head[100] for title in ("op", "bound by", "share", "time", "MAC util.", "DRAM", "tiles"))
    assert all(title in head[60] for title in ("op", "share", "time"))
    assert "tiles" not in head[60]
    best = rows.equal_layers(estimate)[0]
    shown = text_of(tables.per_op(estimate, limit=8))
    assert rows.layers_text(best) in shown
    assert rows.size_text(sum(rows.traffic_bytes(op, "DRAM") for op in best)) in shown


def test_equal_layers_are_one_row_of_their_sums() -> None:
    """ResNet-50 repeats its blocks. Nothing is lost: the groups have every op once, of one kind of work each; a wide
    table of all of them has the share of each group and of what is left."""
    found = sim.estimate(sim.load_workload("resnet50"), sim.load_hardware("tesla-fsd-npu"))
    groups = rows.equal_layers(found)
    assert sorted(op.name for ops in groups for op in ops) == sorted(op.name for op in found.ops)
    assert all(len({(op.macs, op.bound, op.precision, op.kind) for op in ops}) == 1 for ops in groups)
    assert sum(map(rows.seconds_of, groups)) == pytest.approx(found.latency_s, rel=1e-12)
    shown = text_of(tables.per_op(found, limit=8), width=200)
    for ops in groups[:8]:
        (line,) = (line for line in shown.splitlines() if rows.layers_text(ops) in line)
        assert rows.time_text(rows.seconds_of(ops)) in line
        assert rows.energy_text(sum(op.energy_j or 0.0 for op in ops)) in line
    left = [op for ops in groups[8:] for op in ops]
    assert f"{len(left)} more" in shown
    assert "layer4.*.conv2.*.convolution x 3" in shown
    alone = text_of(tables.per_op(found), width=200)
    assert all(op.name in alone for op in found.ops)


def test_names_lose_their_beginning_and_texts_their_end() -> None:
    name = Text("layer4.1.conv2")
    assert fitted.shortened(name, 6, fitted.Shorten.LEFT).plain == "…conv2"
    assert fitted.shortened(name, 7, fitted.Shorten.RIGHT).plain == "layer4…"
    assert fitted.shortened(name, 14, fitted.Shorten.LEFT) is name
    tiles = Text("SRAM C256 K128")
    assert [fitted.shortened(tiles, n, fitted.Shorten.RIGHT).plain for n in (13, 10, 9)] == ["SRAM C256…"] * 2 + [
        "SRAM…"
    ]


def test_a_narrow_table_says_what_it_left_out() -> None:
    """Name 4, two numbers of 6 and 9 cells, 2 between each: 13 columns hold the first two only."""
    heads = (fitted.words("name", at_least=4), fitted.number("time"), fitted.number("deadline", drop=1))
    table = fitted.fitted("T", heads, [("ab[x]", "123 ms", "1234.5 ms")])
    assert [column.title for column in table.kept(25)] == ["name", "time", "deadline"]
    shown = text_of(table, width=20)
    assert "ab[x]" in shown
    assert "123 ms" in shown
    assert "1234.5" not in shown
    assert "also: deadline" in " ".join(shown.split())


def test_what_if_by_resource_and_precision(estimate: Estimate) -> None:
    """Halved is -50 %, a change below 0.5 % is told in a line, a precision has a table of its own."""
    t = estimate.latency_s
    entries = (
        ("clock", 2.0, t / 2),
        ("clock", 1.25, 0.8 * t),
        ("SRAM.capacity", 2.0, 0.999 * t),
        ("precision fp32", 1.0, 2.4 * t),
    )
    found = replace(estimate, what_if=tuple(WhatIf(resource=r, factor=f, latency_s=s) for r, f, s in entries))
    larger, precisions, unfelt = rows.changes(found)
    assert [(c.resource, c.latency_s) for c in larger] == [("clock", {2.0: t / 2, 1.25: 0.8 * t})]
    assert [(c.resource, c.best_s) for c in precisions] == [("fp32", 2.4 * t)]
    assert unfelt == ["SRAM.capacity"]
    shown = text_of(tables.what_if(found), width=60)
    assert all(words in shown for words in ("-50 %", "-20 %", "+140 %", "Less than 0.5 % from more: SRAM.capacity."))


def test_equal_names_are_told_apart_by_what_differs(estimate: Estimate) -> None:
    plain, other = replace(estimate, overrides={}), replace(estimate, overrides={"array.rows": "64"})
    name = f"{estimate.workload_name} on {estimate.hardware_name}"
    assert comparisons.labels([plain, other]) == [name, f"{name} (array.rows=64)"]
    assert comparisons.labels([estimate, estimate]) == [f"{name} [1]", f"{name} [2]"]
    third = replace(plain, workload_name="other")
    assert rows.told_apart([third, plain, other]) == ["", "", " (array.rows=64)"]


def test_the_verdict_says_what_was_changed_of_the_chip(estimate: Estimate) -> None:
    changed = replace(estimate, overrides={"array.rows": "64"})
    assert f"({estimate.precision}, batch {estimate.batch}, array.rows=64) takes" in rows.verdict(changed)
    many = replace(estimate, overrides={f"array.key{i}": "1" for i in range(9)})
    assert f"batch {estimate.batch}, 9 changes of the chip) takes" in rows.verdict(many)


def test_notes_write_quantities_as_the_tables_do() -> None:
    note = "fusion saves 4.16 us (4%) of 2 uJ, 2 users, at blocks/u.py:3"
    assert rows.note_text(note) == "fusion saves 4.16 µs (4 %) of 2 µJ, 2 users, at blocks/u.py:3"
