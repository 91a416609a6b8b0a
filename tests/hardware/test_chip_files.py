"""Chip files: what the loader refuses and how it says so, `extends`, YAML traps, schema for editors."""

import re
import subprocess
import sys
from typing import Annotated

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter
from typer.testing import CliRunner

from sim.cli import app
from sim.errors import ConfigError, nearest
from sim.hardware.dump import dump, to_document
from sim.hardware.load import (
    editor_schema,
    hardware_path,
    json_schema,
    list_hardware,
    load_hardware,
    loads,
    parse_overrides,
    read_yaml,
)
from sim.hardware.meanings import MEANINGS
from sim.hardware.physical import peak_power_w
from sim.hardware.schema import SPECS, ChipSpec
from sim.units import Dimension, parse_quantity, pattern

BASE = yaml.safe_dump(to_document(load_hardware("systolic")), sort_keys=False)


def edited(change):
    document = yaml.safe_load(BASE)
    change(document)
    return yaml.safe_dump(document, sort_keys=False)


def message(text):
    with pytest.raises(ConfigError) as caught:
        loads(text, where="mine.yaml")
    assert caught.value.exit_code == 2
    return str(caught.value)


def _memory(d):
    return d["memories"][0]


def _sram(d):
    return d["units"][0]["hierarchy"][0]["memory"]


def _array(d):
    return d["units"][0]["hierarchy"][1]["array"]


def _vector(d):
    return d["units"][0]["vector"]


def _link(ends):
    return {"name": "wire", "ends": ends, "bandwidth": "1 GB/s", "latency": "1 us", "source": "estimated: x"}


BAD = {
    "wrong key": (
        lambda d: _sram(d).update(capcity="1 MiB"),
        ["mine.yaml: units[0].hierarchy[0].memory.capcity: unknown key", 'Did you mean "capacity"?'],
    ),
    "wrong key on top": (lambda d: d.update(memory=[]), ["memory: unknown key", '"memories"']),
    "number without unit": (
        lambda d: _memory(d).update(bandwidth=68),
        ["memories[0].bandwidth: 68 has no unit, expected a rate such as", '"64 GB/s"'],
    ),
    "size for a rate": (lambda d: _memory(d).update(bandwidth="64 GB"), ['"64 GB" is a size, expected a rate']),
    "rate without flow": (lambda d: _memory(d).update(bandwidth="0 GB/s"), ["is no rate at all"]),
    "drain without flow": (
        lambda d: _array(d).update(drain_bandwidth="0 B/cycle"),
        ['array.drain_bandwidth: "0 B/cycle" is no rate at all, expected one above 0'],
    ),
    "two bandwidths": (
        lambda d: _sram(d).update(read_bandwidth="1 B/cycle"),
        ["bandwidth (both directions together) stands beside read_bandwidth"],
    ),
    "half a bandwidth": (
        lambda d: (_sram(d).pop("bandwidth"), _sram(d).update(read_bandwidth="1 B/cycle")),
        ["state either bandwidth, or both read_bandwidth and write_bandwidth"],
    ),
    "no source": (lambda d: _array(d).pop("source"), ["units[0].hierarchy[1].array.source: missing"]),
    "unknown source": (lambda d: _array(d).update(source="isca"), ['"isca" is no key of sources']),
    "estimate without reason": (lambda d: _array(d).update(source="estimated"), ['must say why']),
    "source of a part": (lambda d: _array(d).update(source={"rows": "unverified"}), ["array.source: cols has none"]),
    "source of nothing": (
        lambda d: _array(d)["source"].update(colums="unverified"),
        ["colums is not a number stated here", '"cols"'],
    ),
    "enumeration": (
        lambda d: _array(d).update(dataflow="weight-stationary"),
        ['"weight-stationary" is not one of', 'Did you mean "weight_stationary"?'],
    ),
    "missing required key": (
        lambda d: _array(d).pop("preload"),
        ["array.preload: missing: whether loading what rests in the cells takes time", "expected exposed or hidden"],
    ),
    "missing quantity": (
        lambda d: _memory(d).pop("capacity"),
        ["memories[0].capacity: missing", "expected a size with its unit, such as 4 MiB"],
    ),
    "truth value as a number": (lambda d: _array(d).update(rows=True), ["array.rows: True is not a number"]),
    "fraction of a row": (lambda d: _array(d).update(rows=1.5), ["array.rows: 1.5 must be a whole number"]),
    "endless rows": (lambda d: _array(d).update(rows=float("inf")), ["array.rows:", "not"]),
    "efficiency above one": (lambda d: _memory(d).update(efficiency=1.2), ["must be a fraction in (0, 1]"]),
    "unknown dtype": (
        lambda d: _array(d)["macs_per_cycle"].update(int7=1),
        ['array.macs_per_cycle.int7: "int7" is no element type', "int8", 'Did you mean "int8"?'],
    ),
    "type of one width": (
        lambda d: _array(d)["macs_per_cycle"].update(w8a8=1),
        ['array.macs_per_cycle.w8a8: "w8a8" has one width and so is a type: expected int8'],
    ),
    "width of no network": (
        lambda d: _array(d)["macs_per_cycle"].update(w3a8=1),
        ['"w3a8" has a width that no network is costed in: expected 2, 4, 8, 16 or 32 bit'],
    ),
    "precision without rate": (
        lambda d: d.update(default_precision="int16"),
        ["default_precision: int16 is not a rate of array, which has int8, int4"],
    ),
    "unknown precision": (lambda d: d.update(default_precision="int7"), ['precision "int7" is unknown', '"int8"']),
    "missing vector rate": (
        lambda d: d["units"][0]["vector"]["rates"].pop("exp"),
        ["units[0].vector: no rate for exp: give rates, or a fallback"],
    ),
    "fallback without ground": (
        lambda d: (_vector(d)["rates"].pop("exp"), _vector(d).update(fallback={"exp": {"exp": 2}})),
        ["fallback.exp is made from exp, which has no rate of its own"],
    ),
    "twice the same name": (lambda d: _array(d).update(name="SRAM"), ['"SRAM" is already the name of units[0]']),
    "reserved name": (lambda d: _memory(d).update(name="clock"), ['"clock" is a reserved word']),
    "home elsewhere": (lambda d: d["units"][0].update(home="DRM"), ['"DRM" is not one of the memories', '"DRAM"']),
    "memory of no unit": (
        lambda d: d["memories"].append({**d["memories"][0], "name": "L3"}),
        ["memories[1]: L3 is the home of no unit", "into the unit's hierarchy"],
    ),
    "no array": (lambda d: d["units"][0]["hierarchy"].pop(), ["ends with its one array"]),
    "no max clock": (lambda d: d["technology"].update(max_clock="0 GHz"), ["technology.max_clock: must be above 0"]),
    "idle above busy": (
        lambda d: d["technology"].update(power="40 W", idle_power="50 W", source="estimated: x"),
        ["technology: idle_power is 50 W, above the 40 W of power", "expected a part of it"],
    ),
    "sparse slower than dense": (
        lambda d: _array(d).update(weight_sparsity={"2:4": 0.5}, source="estimated: x"),
        ["weight_sparsity.2:4 is 0.5, with which", "how many times shorter the reduction gets, 1 to 2"],
    ),
    "no power": (lambda d: d["technology"].update(power="0 W"), ["technology.power: must be above 0"]),
    "no rates": (
        lambda d: _array(d).update(macs_per_cycle={}),
        ["array.macs_per_cycle: expected a map of 1 or more, got an empty one"],
    ),
    "no area": (lambda d: d["technology"].update(area="0 mm2"), ["technology.area: must be above 0"]),
    "clock too high": (lambda d: d.update(clock="3 GHz"), ["clock: 3 GHz is above technology.max_clock, 2 GHz (1.50"]),
    "clock of a unit too high": (
        lambda d: d["units"][0].update(clock="3 GHz", source="estimated: x"),
        ["units[0].clock: 3 GHz is above technology.max_clock, 2 GHz (1.50"],
    ),
    "host link that does not reach the host": (
        lambda d: d.update(links=[_link(["DRAM", "npu"])], host_link="wire"),
        ["host_link: wire joins DRAM and npu: expected a link with host at one end and at the other DRAM, the home of"],
    ),
    "algorithms that a mapped unit does not have": (
        lambda d: d.update(algorithms=["direct", "winograd_2x2"]),
        ["algorithms: winograd_2x2 is taken by units that are costed as gpu_kernels alone; here are npu as mapped"],
    ),
    "no algorithm": (lambda d: d.update(algorithms=[]), ["algorithms: direct is missing"]),
    "host link into another memory": (
        lambda d: (
            d["memories"].append({**d["memories"][0], "name": "L3"}),
            d.update(links=[_link(["host", "L3"])], host_link="wire"),
        ),
        ["host_link: wire joins host and L3: expected a link with host at one end and at the other DRAM"],
    ),
    "link of a system that leaves no chip": (
        lambda d: d.update(
            links=[_link(["host", "DRAM"])],
            system={"chips": 2, "topology": "ring", "link": "wire", "source": "estimated: x"},
        ),
        ["system.link: wire joins host and DRAM: expected a link with chip at one end and at the other DRAM"],
    ),
    "node outside the table": (
        lambda d: d["technology"].update(node="13 nm"),
        ["13 nm is outside the scaling table", "the nearest are 12 and 14 nm"],
    ),
    "kind of memory": (lambda d: _memory(d).update(kind="lpddr44"), ['"lpddr44" is no kind of memory', '"lpddr4"']),
    "newer schema": (lambda d: d.update(schema="dovetail.chip/2"), ['schema is "dovetail.chip/2"', "dovetail.chip/1"]),
    "option that is no scalar": (
        lambda d: d["units"][0].update(options={"x": {}}),
        ["options.x", "is not a number, word"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_say_where_what_and_how(name):
    change, parts = BAD[name]
    text = message(edited(change))
    for part in ("mine.yaml: ", *parts):
        assert part in text


def test_all_errors_are_told_at_once():
    def both(d):
        _memory(d)["bandwidth"] = 5
        _array(d)["rows"] = 0

    assert len(message(edited(both)).splitlines()) == 2


def test_several_errors_are_told_apart_in_one_paragraph(tmp_path):
    def two(d):
        _array(d).pop("rows")
        _array(d).update(source="nowhere", cols=0)

    path = tmp_path / "mine.yaml"
    path.write_text(edited(two))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 2
    first, second = done.stderr.removeprefix("dovetail: ").split(f"; {path}: ")
    assert first.startswith(f"{path}: units[0].hierarchy[1].array.rows: missing: rows of cells")
    assert second == "units[0].hierarchy[1].array.cols: 0 must be a whole number, at least 1\n"


def test_a_fix_is_offered_only_where_one_is_near():
    assert "Did you mean" not in message(edited(lambda d: _array(d).update(source="nowhere")))
    assert 'Did you mean "estimated"' in message(edited(lambda d: _array(d).update(source="estimate: a guess")))
    assert nearest("output", ["output_stationary", "input_stationary"]) == ' Did you mean "output_stationary"?'
    assert nearest("LPDDR5", ["hbm3", "lpddr5"]) == ' Did you mean "lpddr5"?'
    assert nearest("ms", ["Ms", "ms"]) == ' Did you mean "ms"?'


def test_yaml_errors_name_the_line():
    assert message("schema: dovetail.chip/1\nname: ]\n").startswith("mine.yaml:2:")
    assert 'mine.yaml:3:1: not valid YAML: "name" stands twice, first in line 2' in message("a: 1\nname: x\nname: y\n")
    assert "begins with schema: dovetail.chip/1" in message("just words")


def test_yaml_scalars_are_those_of_1_2():
    """`no` as a title is a word, 1e9 a number (so: without a unit), 1:30 text and not 90."""
    assert loads(BASE.replace(load_hardware("systolic").title, "no")).title == "no"
    assert "1000000000.0 has no unit" in message(edited(lambda d: None).replace("clock: 1 GHz", "clock: 1e9", 1))
    assert '"1:30" has the unknown unit' in message(BASE.replace("clock: 1 GHz", "clock: 1:30", 1))
    chip = loads(edited(lambda d: _array(d)["macs_per_cycle"].update(int8="2e0")))
    assert chip.main_unit.array.macs_per_cycle["int8"] == 2


def test_unknown_names_and_paths():
    with pytest.raises(ConfigError, match='Did you mean "systolic"'):
        load_hardware("sistolic")
    with pytest.raises(ConfigError, match="does not exist"):
        load_hardware("nowhere/chip.yaml")


def test_overrides_are_parsed():
    assert parse_overrides(["a.b= 8 MiB", "clock=1.5 GHz"]) == {"a.b": "8 MiB", "clock": "1.5 GHz"}
    for bad in (["a.b"], ["=3"], ["a.b="], ["a.b=1", "a.b=2"]):
        with pytest.raises(ConfigError):
            parse_overrides(bad)


CHILD = """schema: dovetail.chip/1
extends: systolic
name: child
memories:
  - {name: DRAM, bandwidth: 100 GB/s, source: "unverified: someone said so"}
units:
  - name: npu
    hierarchy:
      - array: {name: array, rows: 32, source: "estimated: smaller"}
      - memory: {name: SRAM, read_bandwidth: 64 B/cycle, write_bandwidth: 32 B/cycle, source: "estimated: split"}
"""


def test_extends_overrides_numbers_and_keeps_the_others_sources(tmp_path):
    path = tmp_path / "child.yaml"
    path.write_text(CHILD)
    chip, base = load_hardware(path), load_hardware("systolic")
    assert chip.memory("DRAM").read.per_s == 100e9
    assert chip.memory("DRAM").capacity_bytes == base.memory("DRAM").capacity_bytes
    assert (chip.main_unit.array.rows, chip.main_unit.array.cols) == (32, 64)
    assert (chip.main_unit.memories[0].read.per_cycle, chip.main_unit.memories[0].shared_port) == (64, False)
    assert chip.provenance["DRAM.bandwidth"] == "unverified: someone said so"
    assert chip.provenance["DRAM.capacity"] == base.provenance["DRAM.capacity"]
    assert chip.provenance["array.rows"] == "estimated: smaller"
    assert "SRAM.bandwidth" not in chip.provenance
    assert chip.notes == ()


FOUR_TIMES = """schema: dovetail.chip/1
extends: {base}
name: child
units:
  - name: npu
    hierarchy:
      - array: {{name: array, rows: {side}, cols: {side}, source: "estimated: larger"}}
"""


def test_stated_power_holds_for_the_file_that_states_it(tmp_path):
    """7.5 W are those of 96 x 96 cells: four times as many in a file that extends it, or in one that extends that, take
    what `--set` gives them. A file that leaves the silicon as it is keeps them, one that states its own has that."""
    child, grandchild = tmp_path / "child.yaml", tmp_path / "grandchild.yaml"
    child.write_text(FOUR_TIMES.format(base="tesla-fsd-npu", side=192))
    grandchild.write_text("schema: dovetail.chip/1\nextends: child.yaml\nname: grandchild\n")
    changed = load_hardware("tesla-fsd-npu", {"array.rows": 192, "array.cols": 192})
    for path in (child, grandchild):
        chip = load_hardware(path)
        assert (chip.technology.power_w, chip.technology.power_fit) == (None, changed.technology.power_fit)
        assert peak_power_w(chip) == peak_power_w(changed) > 7.5
        assert loads(dump(chip)) == chip
        assert peak_power_w(chip.set("array.rows", 96).set("array.cols", 96)) == pytest.approx(7.5)
    child.write_text(FOUR_TIMES.format(base="tesla-fsd-npu", side=96))
    assert load_hardware(child).technology.power_w == 7.5
    text = FOUR_TIMES.format(base="tesla-fsd-npu", side=192)
    child.write_text(text + 'technology: {power: 30 W, source: "estimated: x"}\n')
    assert (load_hardware(child).technology.power_w, load_hardware(child).technology.power_fit) == (30, None)


def test_a_memory_of_the_chip_says_its_kind_beside_a_node(tmp_path):
    """8 GiB taken for SRAM would be 11,009 mm2 at 14 nm; without a node nothing is priced, inside a unit it is SRAM."""
    text = edited(lambda d: d["memories"][0].pop("kind"))
    with pytest.raises(
        ConfigError, match=r"memories\[0\]\.kind: missing: area, .* of DRAM .* expected one of .*lpddr5"
    ):
        loads(text)
    assert loads(edited(lambda d: (d["memories"][0].pop("kind"), d.pop("technology")))).memory("DRAM").kind == "sram"
    assert loads(edited(lambda d: d["units"][0]["hierarchy"][0]["memory"].pop("kind"))).memory("DRAM").kind == "lpddr4"


@pytest.mark.parametrize(("clock", "words"), [("2.5 GHz", "1.25 times"), ("1e30 GHz", "5e+29 times")])
def test_a_clock_above_the_maximum_is_told_in_a_readable_ratio(clock, words):
    with pytest.raises(ConfigError, match=rf"2 GHz \({re.escape(words)}\)"):
        load_hardware("tesla-fsd-npu", {"clock": clock})


def test_extends_refuses_borrowed_sources_and_circles(tmp_path):
    path = tmp_path / "child.yaml"
    path.write_text(CHILD.replace(', source: "unverified: someone said so"', ""))
    with pytest.raises(ConfigError, match=r"memories\.DRAM\.source: missing: bandwidth needs a source of its own"):
        load_hardware(path)
    path.write_text("schema: dovetail.chip/1\nextends: chil.yaml\n")
    (tmp_path / "child.yml").write_text("")
    (tmp_path / "chill.yaml").write_text("")
    with pytest.raises(
        ConfigError, match=r'child\.yaml: extends: chip file "chil\.yaml" does not exist\. Did you mean "chill\.yaml"'
    ):
        load_hardware(path)
    path.write_text("schema: dovetail.chip/1\nextends: child.yaml\n")
    with pytest.raises(ConfigError, match="extends this file in turn"):
        load_hardware(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("clock: null", "clock: None is not a quantity, expected a frequency"),
        ("memories: [3]", "memories[0]: expected a map with the name of what it changes or adds, got 3"),
        ("units: [{name: npu, hierarchy: [{array: 3}]}]", "units.npu.hierarchy[0]: expected a map with the name"),
        ("memories: [{name: DRAM, capacity: null}]", "memories.DRAM.capacity: None is not a quantity"),
        ("memories: [{name: X, capacity: 3, source: 'estimated: x'}]", "memories.X.capacity: 3 has no unit"),
        ("units: [{name: npu, hierarchy: [{array: {name: array, rows: 0, source: 'estimated: x'}}]}]",
         "units.npu.hierarchy.array.rows: 0 must be a whole number"),
        ("units: [{name: npu, hierarchy: [{array: {name: array, rows: 1" + "0" * 5000 + ", source: 'estimated: x'}}]}]",
         "units.npu.hierarchy.array.rows: 1000"),
    ],
)  # fmt: skip
def test_errors_of_a_file_that_extends_name_places_in_it(tmp_path, change, said):
    """Its first memory is not the first of all."""
    path = tmp_path / "child.yaml"
    path.write_text(f"schema: dovetail.chip/1\nextends: systolic\nname: child\n{change}\n")
    with pytest.raises(ConfigError) as told:
        load_hardware(path)
    assert str(told.value).startswith(f"{path}: {said}")


def test_json_schema_asks_for_text_where_a_unit_is_due():
    schema = json_schema()
    assert schema["$defs"]["MemorySpec"]["properties"]["capacity"]["type"] == "string"
    assert schema["$defs"]["ArraySpec"]["properties"]["rows"]["type"] == "integer"
    assert set(schema["required"]) >= {"schema", "name", "clock", "memories", "units"}


def test_every_key_says_what_it_means_and_its_examples_are_taken():
    schema = json_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    assert [key for part in parts for key, field in part["properties"].items() if not field.get("description")] == []
    for spec in (*dict.fromkeys(SPECS.values()), ChipSpec):
        fields = {field.alias or name: field for name, field in spec.model_fields.items()}
        assert list(MEANINGS[spec.__name__]) == list(fields)
        for key, field in fields.items():
            read = TypeAdapter(Annotated[field.annotation, Field(), *field.metadata]).validate_python
            meaning = MEANINGS[spec.__name__][key]
            for example in meaning.get("examples", ()):
                read(example)
            assert "default" not in meaning or read(meaning["default"]) == field.default


def test_loading_imports_nothing_heavy():
    code = (
        "import sys; from sim.hardware.load import load_hardware; load_hardware('tesla-fsd-npu');"
        "print([m for m in ('torch', 'scipy', 'optuna', 'matplotlib', 'pint') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", list_hardware())
def test_files_say_their_own_name_and_schema(name):
    head = hardware_path(name).read_text().splitlines()
    assert "schema: dovetail.chip/1" in head
    assert f"name: {name}" in head


@pytest.fixture(scope="module")
def editor():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(editor_schema())
    return jsonschema.Draft202012Validator(editor_schema())


@pytest.mark.parametrize("name", list_hardware())
def test_an_editor_takes_every_bundled_chip(editor, name):
    assert [error.message for error in editor.iter_errors(read_yaml(hardware_path(name)))] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: _memory(d).update(bandwidth="68 GB"),
        lambda d: _memory(d).update(capacity="8 GiB/s"),
        lambda d: d.update(clock=1e9),
        lambda d: d.update(colour="red"),
        lambda d: d.pop("units"),
    ],
)
def test_an_editor_marks_what_the_loader_refuses(editor, change):
    with pytest.raises(ConfigError):
        loads(edited(change))
    assert list(editor.iter_errors(yaml.safe_load(edited(change))))


@given(st.sampled_from(list(Dimension)), st.data())
def test_what_the_pattern_of_a_quantity_takes_is_read(dimension, data):
    text = data.draw(st.from_regex(re.compile(pattern(dimension), re.ASCII), fullmatch=True))
    assert parse_quantity(text, dimension) >= 0
    assert not re.match(pattern(dimension), "3 parsec")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("units", [], "units: expected a list of 1 or more, got an empty one"),
        ("units", None, "units: expected a list, got nothing"),
        ("units", [None], "units[0]: expected a map (key: value), got nothing"),
        ("memories", {"a": 1}, "memories: expected a list, got {'a': 1}"),
        ("memories", ["DRAM"], "memories[0]: expected a map (key: value), got 'DRAM'"),
        ("technology", 14, "technology: expected a map (key: value), got 14"),
        ("title", None, "title: expected text, got nothing"),
        ("name", "my chip", 'name: "my chip" is no name: expected letters, digits'),
        ("sources", {"str": {}}, "sources.str: expected text, got {}"),
        ("source", [], "source: expected text, or a map from key to text, got []"),
        ("source", {"clock": 1}, "source.clock: expected text, got 1"),
        ("algorithms", ["winograd"], "algorithms[0]: \"winograd\" is not one of 'direct', 'winograd_2x2' or"),
        ("links", [{"name": "a", "ends": ["x"], "bandwidth": "1 GB/s", "source": "estimated: x"}],
         "links[0].ends: expected a list of 2 or more, got 1"),
    ],
)  # fmt: skip
def test_values_of_another_kind_are_told_in_words_of_ours(key, value, said):
    """One problem, one line."""
    document = yaml.safe_load(BASE) | {key: value}
    with pytest.raises(ConfigError) as told:
        loads(yaml.safe_dump(document), where="c.yaml")
    assert str(told.value).startswith(f"c.yaml: {said}")
    assert "\n" not in str(told.value)
