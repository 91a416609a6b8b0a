"""Search files: what they mean, and what is refused with the nearest fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.codesign.choice import stored_bytes
from sim.codesign.recipes import effect
from sim.codesign.schema import overlay
from sim.codesign.space import build_space, load_space
from sim.errors import ConfigError, DovetailError, PrecisionError
from sim.workload.precision import parse_precision


def test_size_levels_and_samples(document: dict[str, Any]) -> None:
    """2 values of m x 2 precisions = 4 model sides; 2 clocks x 2 x 2 = 8 chips, one clock a trial."""
    space = build_space(document)
    assert space.size() == (4.0, 8.0, True)
    assert space.size_text() == "4 model sides x 8 chips = 32 designs"
    assert [p.name for p in space.coarse] == ["product.m", "precision", "clock"]
    assert list(space.inner_grid()) == ["array.rows", "DRAM.bandwidth"]
    drawn = [space.draw(np.random.default_rng(i)) for i in range(200)]
    assert len({tuple(d.items()) for d in drawn}) == 32


def test_a_grid_that_is_too_large_is_split(document: dict[str, Any]) -> None:
    """With room for 2 chips a trial only the last parameter of the file is swept inside."""
    document["budget"]["inner_points"] = 3
    assert [p.name for p in build_space(document).inner] == ["DRAM.bandwidth"]


def test_ranges_and_frozen_parts(document: dict[str, Any]) -> None:
    """8 to 64 in 4 points on log axes is 8, 16, 32, 64; a frozen key is set on the chip."""
    document["hardware"] = {
        "array.rows": {"low": 8, "high": 64, "points": 4, "log": True},
        "SRAM.capacity": {"low": "1 MiB", "high": "3 MiB", "step": "1 MiB"},
        "clock": {"low": "500 MHz", "high": "900 MHz"},
        "array.cols": 48,
    }
    space = build_space(document)
    values = {p.name: p.values for p in space.parameters}
    assert values["array.rows"] == (8, 16, 32, 64)
    assert values["SRAM.capacity"] == ("1 MiB", "2 MiB", "3 MiB")
    assert values["clock"] is None
    assert "clock" in [p.name for p in space.coarse]
    assert space.chip.main_unit.array.cols == 48
    assert space.overrides({"clock": 600.0})["clock"] == "600 MHz"
    assert space.size_text() == "designs without number: clock is continuous"


def test_conditional_parameters_and_alternatives(document: dict[str, Any]) -> None:
    """Two workloads of 2 and 1 forms; `array.rows` counts only at 1 GHz: 4 + 2 chips of 2 bandwidths."""
    document["workloads"].append({"workload": "gemm", "variants": {"small": {"m": 32, "n": 32, "k": 32}}})
    document["combine"] = "one_of"
    document["hardware"]["array.rows"]["when"] = {"clock": ["1 GHz"]}
    space = build_space(document)
    assert space.size() == ((2 + 1) * 2, 4 + 2, True)
    choice = space.choice({"workload": "gemm", "product.m": 64, "gemm.variant": "small", "precision": "int4"})
    assert [p.label for p in choice.parts] == ["gemm"]
    assert choice.precision == "int4"
    assert dict(choice.parts[0].knobs) == {"m": 32, "n": 32, "k": 32}
    assert "array.rows" not in space.overrides({"clock": "500 MHz", "array.rows": 16})


def test_recipes_give_precision_and_sparsity(document: dict[str, Any], tmp_path: Path) -> None:
    document["compression"] = {"recipe": ["w4a16", "sparse-2to4-int8"]}
    document["chip"] = "systolic"
    space = build_space(document)
    found = [space.choice({"recipe": r, "product.m": 32}) for r in ("w4a16", "sparse-2to4-int8")]
    assert [(c.precision, c.sparsity) for c in found] == [("w4a16", "none"), ("w8a8kv16", "2:4")]
    document["compression"] = {"recipe": ["prune-half-int8"]}
    with pytest.raises(ConfigError, match="prune_channels needs the trained module"):
        build_space(document)
    (tmp_path / "but.yaml").write_text(
        "schema: dovetail.recipe/1\nname: but\nsteps: [{technique: quantise, skip: [head]}]\n"
    )
    document["compression"] = {"recipe": ["but.yaml"]}
    with pytest.raises(ConfigError, match=r"quantise skips layers \(head\), and a search costs all layers alike"):
        build_space(document, folder=tmp_path)


def test_a_variant_and_a_range_do_not_both_say_what_a_knob_is(document: dict[str, Any]) -> None:
    """The range would win in silence; under a `when` that leaves the variant out it does not count there."""
    document["workloads"][0] |= {"variants": {"few": {"m": 16}, "open": {}}}
    with pytest.raises(ConfigError, match=r"workloads\.product\.variants\.few: m is searched in product\.knobs too"):
        build_space(document)
    document["workloads"][0]["knobs"]["m"]["when"] = {"product.variant": ["open"]}
    space = build_space(document)
    rows = [space.choice({"product.variant": name, "product.m": 64}).parts[0].knobs for name in ("few", "open")]
    assert rows == [(("m", 16),), (("m", 64),)]


INT8 = "{technique: quantise, activations: {dtype: int8}}"
ALL = (
    "{{technique: quantise, weights: {{dtype: {0}}}, activations: {{dtype: {0}}}}}, "
    "{{technique: quantise_kv_cache, dtype: {0}}}"
)
FP8 = "{technique: quantise, weights: {dtype: fp8_e4m3}, activations: {dtype: fp8_e4m3, symmetric: true}}"


@pytest.mark.parametrize(("steps", "wide", "precision"), [
    (INT8, "bf16", "w8a8kv16"),  # nothing is said of the cache
    (f"{INT8}, {{technique: quantise_kv_cache}}", "bf16", "int8"),
    (f"{INT8}, {{technique: quantise_kv_cache, dtype: int4}}", "bf16", "w8a8kv4"),
    (INT8, "int8", "int8"),  # the array computes nothing wider
    ("{technique: sparsify_nm}", "bf16", "bf16"),  # no width is said at all
    ("{technique: quantise_kv_cache}", "bf16", "w16a16kv8"),
    ("{technique: quantise}", "bf16", "w8a16"),
    (f"{FP8}, {{technique: quantise_kv_cache, dtype: fp8_e4m3}}", "bf16", "fp8_e4m3"),
    (FP8, "bf16", "fp8_e4m3"),
    (ALL.format("int2"), "bf16", "w2a2"),
])  # fmt: skip
def test_what_a_recipe_leaves_alone_stays_wide(steps: str, wide: str, precision: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"schema: dovetail.recipe/1\nname: r\nsteps: [{steps}]\n")
    assert effect("r.yaml", wide=wide, folder=tmp_path)[0] == precision


@pytest.mark.parametrize("steps", [
    f"{FP8}, {{technique: quantise_kv_cache, dtype: int4}}",
    "{technique: weight_only, dtype: int3}",
    ALL.format("int3"),
    "{technique: quantise, activations: {dtype: fp8_e4m3, symmetric: true}}",
])  # fmt: skip
def test_widths_that_no_precision_has(steps: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(f"schema: dovetail.recipe/1\nname: r\nsteps: [{steps}]\n")
    with pytest.raises(ConfigError, match=r"recipe r\.yaml: no precision has weights in"):
        effect("r.yaml", wide="bf16", folder=tmp_path)


def test_a_search_over_recipes_costs_what_compress_does_of_the_cache(tmp_path: Path) -> None:
    """2 layers x keys and values x 2 heads of 4 x 16 tokens: int8 weights leave them in 16 bits, kv8 halves that."""
    (tmp_path / "both.yaml").write_text(
        f"schema: dovetail.recipe/1\nname: both\nsteps: [{INT8}, {{technique: quantise_kv_cache}}]\n"
    )
    knobs = {"phase": "decode", "width": 16, "depth": 2, "heads": 4, "kv_heads": 2, "context": 16}
    space = build_space({
        "schema": "dovetail.search/1", "name": "cache", "workloads": [{"workload": "byte_gpt", "knobs": knobs}],
        "compression": {"recipe": ["int8-ptq", "both.yaml"]}, "chip": "edge-npu", "objectives": ["latency", "area"],
        "budget": {"trials": 2},
    }, folder=tmp_path)  # fmt: skip
    choices = [space.choice({"recipe": recipe}) for recipe in ("int8-ptq", "both.yaml")]
    alone, both = (stored_bytes(*c.graphs(), parse_precision(c.precision)) for c in choices)
    assert alone - both == 2 * 2 * (2 * 4) * 16


def test_known_designs_take_the_chips_own_values(document: dict[str, Any]) -> None:
    """edge-npu runs at 1 GHz with 32 rows, 12.8 GB/s and int8; m is 32 by the workload's default."""
    document["known"] = [{"name": "as built", "parameters": {}}]
    assert build_space(document).known[0][1] == {
        "product.m": 32, "precision": "int8", "clock": "1 GHz", "array.rows": 32, "DRAM.bandwidth": "12.8 GB/s",
    }  # fmt: skip
    document["hardware"]["array.rows"]["choices"] = [16, 64]
    with pytest.raises(ConfigError, match=r"as built: array\.rows: 32 is not among its choices"):
        build_space(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hardwre": {}}, r'hardwre: unknown key\. Did you mean "hardware"\?'),
        ({"hardware": {"SRM.capacity": {"choices": ["1 MiB"]}}}, 'Did you mean "SRAM"'),
        ({"hardware": {"SRAM.capcity": {"choices": ["1 MiB"]}}}, 'Did you mean "capacity"'),
        ({"hardware": {"SRAM.capacity": {"choices": ["1 MiB", "12"]}}}, "SRAM.capacity"),
        ({"hardware": {"array.rows": {"choices": [8], "low": 4, "high": 9}}}, "either choices, or low and high"),
        ({"hardware": {"array.rows": {"low": 9, "high": 4, "step": 1}}}, "low 9 must be below high 4"),
        ({"hardware": {"array.rows": {"choices": [8], "when": {"clok": ["1 GHz"]}}}}, '"clok" is no parameter'),
        ({"objectives": ["latncy"]}, 'Did you mean "latency"'),
        ({"objectives": ["quality"]}, "no `quality:` says where it comes from"),
        ({"objectives": ["speed_up"]}, "needs its record"),
        (
            {"constraints": {"area": "0.01 mm2"}},
            r"constraints\.area of 0\.01 mm2 excludes all 8 chips.* 568 times as much",
        ),
        ({"constraints": {"deadline": "30"}}, "constraints.deadline: 30 has no unit, expected a time such as"),
        ({"constraints": {"area": 20}}, r'constraints\.area: 20 has no unit, expected an area such as "\d+ mm2"$'),
        ({"constraints": {"memory": [1]}}, r"constraints\.memory: \[1\] is not a quantity, expected a size"),
        ({"constraints": {"quality": {"mn": 1}}}, r'constraints\.quality\.mn: unknown key\. Did you mean "min"\?$'),
        ({"hardware": {"array.rows": {"choices": []}}}, r"^space: hardware\.array\.rows: choices is empty$"),
        ({"hardware": {"array.rows": [8, 16]}}, r"array\.rows: expected one value, or \{choices: \[8, 16\]\}$"),
        ({"hardware": {"array.rows": {"choices": [[8]]}}}, r"rows\.choices\.0: expected one value .*, got \[8\]$"),
        ({"hardware": {"array.rows": {"choices": [8], "coars": True}}}, r'rows\.coars: unknown .* mean "coarse"\?$'),
        ({"objectives": [{"speed_up": {"device": "h200"}}]}, r"^space: objectives\.0\.speed_up\.workload: missing;\n"),
        ({"objectives": [{"spedup": {}}]}, r'objectives\.0\.spedup: unknown key\. Did you mean "speed_up"\?'),
        ({"objectives": []}, "objectives: is empty, expected at least one"),
        ({"budget": {"trials": 0}}, r"budget\.trials: expected a number above 0, got 0"),
        ({"budget": {"trials": "many", "timeout": 120}}, r"a whole number, got 'many';\n.*timeout: 120 has no unit"),
        ({"compression": {"precision": "int8"}}, r"precision: expected a list, in brackets, got 'int8'"),
        ({"name": 5}, "name: expected text, got 5"),
        ({"compression": {"precision": ["int7"]}}, '"int7" is unknown'),
        ({"compression": {"sparsity": ["4:2"]}}, '"4:2": expected none or a pattern'),
        ({"sampler": {"name": "nsga5"}}, r'"nsga5": expected one of auto, .*Did you mean "nsga3"'),
        ({"objectives": ["goodput"], "scenario": {"events": "autoplot"}, "keep": 1}, "keep: unknown key"),
        ({"schema": "dovetail.search/9"}, "begins with schema: dovetail.search/1"),
    ],
)
def test_refused(document: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(DovetailError, match=message):
        build_space({**document, **change})


def test_an_empty_knob_is_one_sentence(document: dict[str, Any]) -> None:
    document["workloads"][0]["knobs"] = {"m": {"choices": []}}
    with pytest.raises(ConfigError) as caught:
        build_space(document)
    assert str(caught.value) == "space: workloads.0.knobs.m: choices is empty"


def _cli(words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2, done.stdout
    assert done.stderr.count("\n") == 1
    return done.stderr


ABSENT = {
    "file of quality": ({"quality": {"method": "callable", "function": "nosuch.py:judge"}}, "no file nosuch.py in"),
    "function of quality": (
        {"quality": {"method": "callable", "function": "judge.py:juge"}},
        'judge.py has no function juge. Did you mean "judge"?',
    ),
    "arguments of quality": (
        {"quality": {"method": "callable", "function": "judge.py:two"}},
        "judge.py:two(row, chip), line 5: expected a function of one argument, a map with the keys workload, ",
    ),
    "function of a constraint": ({"constraints": {"functions": ["judge.py:none"]}}, "judge.py has no function none."),
    "arguments of a constraint": (
        {"constraints": {"functions": ["judge.py:two"]}},
        "constraints.functions: ",
    ),
    "cheap function of training": (
        {"quality": {"method": "train", "steps": 3, "cheap": "judge.py:none"}}, "judge.py has no function none.",
    ),
    "record of speed_up": (
        {"objectives": [{"speed_up": {"device": "h20", "workload": "mlp", "precision": "fp32"}}]},
        'Device "h20" has none: expected one of ',
    ),
    "record of a baseline": (
        {"baselines": [{"device": "h200", "workload": "mpl", "precision": "fp32"}]},
        "no baseline records for device=h200, workload=mpl, precision=fp32, expected one. Of h200 there are: ",
    ),
    "scenario": (
        {"objectives": ["goodput"], "scenario": {"events": "autoplot"}}, 'Did you mean "autopilot"?',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSENT)
def test_what_is_not_there_is_seen_before_the_run(document: dict[str, Any], write: Any, tmp_path: Any, name: str):
    """By `check` and by `--dry-run`: nothing of the search has to run for it."""
    (tmp_path / "judge.py").write_text("def judge(row):\n    return 0.0\n\n\ndef two(row, chip):\n    return 0.0\n")
    change, message = ABSENT[name]
    if name.endswith("training"):
        document["compression"] = {"recipe": ["int8-ptq"]}
    path = str(write({**document, **change}))
    for words in (["check", path], ["search", path, "--dry-run"]):
        assert message in _cli(words)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chip": "edge-npuu"}, r's\.yaml: chip: .*Did you mean "edge-npu"'),
        ({"workloads": [{"workload": "nett.py", "name": "mine"}]}, r"s\.yaml: workloads\.mine: nett\.py: no such file"),
        ({"compression": {"precision": ["int5"]}}, r's\.yaml: compression\.precision: precision "int5" is unknown'),
        ({"compression": {"recipe": ["int8-pqt"]}}, r's\.yaml: compression\.recipe: .*Did you mean "int8-ptq"'),
    ],
)
def test_what_a_file_names_and_is_not_there_has_its_place(
    document: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    with pytest.raises(DovetailError, match=said):
        build_space(document | change, where="s.yaml")


def test_unknown_knob_and_missing_rate(document: dict[str, Any]) -> None:
    document["workloads"][0]["knobs"] = {"n": {"choices": [1]}}
    with pytest.raises(DovetailError, match='no knob "n"'):
        build_space(document)
    document["workloads"][0]["knobs"] = {}
    document["compression"]["precision"] = ["fp32"]
    with pytest.raises(PrecisionError, match="no rate for fp32"):
        build_space(document)


def test_energy_of_a_chip_without_energies(document: dict[str, Any], tmp_path) -> None:
    text = (load_space.__globals__["data_dir"]("hw_configs") / "edge-npu.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("technology")]
    (tmp_path / "bare.yaml").write_text("\n".join(lines))
    document |= {"chip": str(tmp_path / "bare.yaml"), "objectives": ["energy"]}
    with pytest.raises(
        ConfigError, match=r"energy is asked of edge-npu, but the chip file states no array\.mac_energy"
    ):
        build_space(document)


def test_die_cost_of_a_chip_without_a_node(document: dict[str, Any], tmp_path) -> None:
    """A stated area is not enough: the price of a wafer goes with the node."""
    text = (load_space.__globals__["data_dir"]("hw_configs") / "edge-npu.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("technology")]
    lines.append('technology: {area: 8 mm2, source: "estimated: a test"}')
    (tmp_path / "bare.yaml").write_text("\n".join(lines))
    document |= {"chip": str(tmp_path / "bare.yaml"), "objectives": ["latency", "die_cost"], "constraints": {}}
    with pytest.raises(ConfigError, match=r"die_cost is asked of edge-npu, which has no technology\.node"):
        build_space(document)


def test_fingerprint_is_the_space_not_its_budget(document: dict[str, Any]) -> None:
    first = build_space(document).fingerprint()
    document["budget"]["trials"] = 99
    assert build_space(document).fingerprint() == first
    document["hardware"]["array.rows"]["choices"] = [16, 64]
    assert build_space(document).fingerprint() != first


def test_overlay_merges_maps_and_removes() -> None:
    assert overlay({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9, "c": None}, "d": None}) == {"a": {"b": 9}}


def test_what_the_silicon_is_cannot_be_searched(document: dict[str, Any]) -> None:
    """A higher `max_clock` alone would let the same clock run at a lower supply; one value for all is a premise."""
    document["hardware"]["technology.max_clock"] = {"choices": ["1 GHz", "2 GHz"]}
    with pytest.raises(ConfigError, match=r"technology\.max_clock says what the silicon is and cannot be searched"):
        build_space(document)
    document["hardware"]["technology.max_clock"] = "2 GHz"
    assert build_space(document).chip.technology.max_clock_hz == 2e9


def test_a_limit_that_only_the_chips_own_value_meets(document: dict[str, Any]) -> None:
    """32 MiB take 40 mm2 and count for 32 rows alone; with 16 the chip keeps its own SRAM, 6.6 mm2 in all."""
    document["hardware"] = {
        "array.rows": {"choices": [16, 32]},
        "SRAM.capacity": {"choices": ["32 MiB"], "when": {"array.rows": [32]}},
    }
    document["constraints"] = {"area": "10 mm2"}
    build_space(document)
    document["constraints"] = {"area": "6 mm2"}
    with pytest.raises(ConfigError, match=r"all 2 chips looked at: the least is 6\.638 mm2, 10\.6% above"):
        build_space(document)


def test_values_may_stand_with_those_of_another_parameter_alone(document: dict[str, Any]) -> None:
    """Of 8 chips 1 or 8 stages, of 2 chips 1: what lies between is an infeasible design, and no wrong file."""
    document |= {"chip": "h100-sxm-x8", "compression": {}}
    document["hardware"] = {"system.pipeline": {"choices": [1, 16]}, "system.chips": {"choices": [8, 16]}}
    document["hardware"]["system.ports"] = 16
    assert build_space(document).chip.system.ports == 16
    document["hardware"]["system.pipeline"] = {"choices": [1, 7]}
    with pytest.raises(ConfigError, match=r"hardware\.system\.pipeline: .*expected one of 1, 2, 4, 8"):
        build_space(document)
