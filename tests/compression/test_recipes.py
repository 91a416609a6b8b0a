"""Recipes: every bundled one reads, bad ones say where and what, steps compose."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sim.compression.recipe import apply_recipe, load_recipe, parse_recipe
from sim.errors import ConfigError, WorkloadError

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads"
HEAD = "schema: dovetail.recipe/1\nname: t\nsteps:\n"


def recipe(steps):
    return parse_recipe(HEAD + steps, where="t.yaml")


@pytest.mark.parametrize("path", sorted((WORKLOADS / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_bundled_recipes_read_and_bear_their_file_name(path):
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema: dovetail.recipe/2\nname: t\nsteps: []", "schema: expected"),
        ("schema: dovetail.recipe/1\nname: t\nsteps: []", "^t.yaml: steps: is empty, expected at least one$"),
        (
            "schema: dovetail.recipe/1\nname: t\nsteps: [{technique: mixed_precision, mean_bits: 5, choices: []}]",
            r"^t.yaml: steps\[0\].choices: is empty, expected at least one$",
        ),
        (
            "schema: dovetail.recipe/1\nnam: t\nsteps: [{technique: distil, student: {}, steps: 1}]",
            '^t.yaml: name: missing: what results call the recipe;\nt.yaml: nam: unknown key. Did you mean "name"?',
        ),
        (
            "schema: dovetail.recipe/1\nname: a/b\nsteps: [{technique: quantise}]",
            "^t.yaml: name: expected a name that a file may have, without slashes, got 'a/b'$",
        ),
        (HEAD + "  - {technique: quantize}", r'steps\[0\]: technique "quantize" is unknown.*Did you mean "quantise"'),
        (HEAD + "  - {steps: 3}", r"steps\[0\]\.technique: missing: .*expected one of quantise, "),
        (HEAD + "  - quantise", r"steps\[0\]: expected a map of keys to values, got 'quantise'"),
        (HEAD + "  - {technique: quantise, wieghts: {}}", r'steps\[0\].wieghts: unknown key. Did you mean "weights"'),
        (HEAD + "  - {technique: quantise, weights: {grup: 3}}", r'steps\[0\].weights.grup: .* Did you mean "group"'),
        (
            HEAD + "  - {technique: quantise, weights: {dtype: int5}}",
            r'weights.dtype: "int5": expected one of int2, int3',
        ),
        (HEAD + "  - {technique: quantise, weights: int4}", r"weights: expected a map of keys to values, got 'int4'"),
        (HEAD + "  - {technique: quantise, weights: {symmetric: 1}}", r"symmetric: expected true or false, got 1"),
        (HEAD + "  - {technique: sparsify_unstructured, density: 2}", r"density: expected a number below 1, got 2"),
        (
            HEAD + "  - {technique: sparsify_unstructured}",
            r"steps\[0\].density: missing: share of the weights that stays",
        ),
        (HEAD + '  - {technique: sparsify_nm, n: "2"}', r"steps\[0\].n: expected a whole number, got '2'"),
        (
            HEAD + "  - {technique: distil, steps: 1, student: {width: [1]}}",
            r"^t.yaml: steps\[0\].student.width: expected a number, text, or true or false, got \[1\]$",
        ),
        (
            HEAD + "  - {technique: quantise, technique: distil}",
            't.yaml:4:.*: not valid YAML: "technique" stands twice',
        ),
        ("- a", "expected keys schema, name and steps"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_recipes_say_where_and_what(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(text, where="t.yaml")


def test_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file or directory$"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "latin.yaml")


def test_steps_compose(net, task):
    steps = (
        "  - {technique: prune_channels, keep: 0.5}\n  - {technique: sparsify_nm, steps: 3}\n"
        "  - {technique: quantise, activations: {}}"
    )
    made = apply_recipe(net, recipe(steps), example_inputs=(torch.zeros(1, 8),), task=task)
    assert [r.technique for r in made.reports] == ["prune_channels", "sparsify 2:4", "quantise"]
    assert made.module[0].out_features == 8
    note = made.annotations["0.weight"]
    assert (note.dtype, note.pattern) == ("int8", "2:4")
    assert made.annotations["2:input"].dtype == "int8"
    assert not any(layer._forward_pre_hooks for layer in made.plain().modules())
    assert any(layer._forward_pre_hooks for layer in made.module.modules())


def test_a_recipe_that_does_nothing(task):
    odd = nn.Sequential(nn.Linear(6, 3), nn.LayerNorm(3))
    with pytest.raises(
        ConfigError, match=r"steps\[0\] \(sparsify_nm\) does nothing.*0: 6 input channels are not whole"
    ):
        apply_recipe(odd, recipe("  - {technique: sparsify_nm}"), example_inputs=(torch.zeros(1, 6),))


def test_a_calibration_set_of_the_wrong_shape(net):
    steps = recipe("  - {technique: quantise, activations: {}}")
    with pytest.raises(WorkloadError, match=r"calibration set of shape \(4, 9\).*does not fit the model"):
        apply_recipe(net, steps, example_inputs=(torch.zeros(4, 9),))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("  - {technique: quantise_aware_training, steps: 5}", "needs a task"),
        ("  - {technique: mixed_precision, mean_bits: 5}", "needs a task"),
        ("  - {technique: sparsify_nm, steps: 5}", "need a task"),
        ("  - {technique: distil, student: {}, steps: 5}", "needs a task"),
        ("  - {technique: quantise_kv_cache}", "no linear layer named k, v"),
    ],
)
def test_what_a_step_lacks_is_said(net, steps, message):
    with pytest.raises(ConfigError, match=rf"recipe t: steps\[0\].*{message}"):
        apply_recipe(net, recipe(steps), example_inputs=(torch.zeros(1, 8),))


def test_distillation_builds_its_student(net, make_net, task):
    def build(seed: int = 1):
        return make_net(seed), (torch.zeros(1, 8),)

    steps = '  - {technique: distil, student: {seed: 2}, steps: 3, features: {"0": "0"}}'
    made = apply_recipe(net, recipe(steps), example_inputs=(torch.zeros(1, 8),), task=task, build=build)
    assert made.report.technique == "distil"
    bad = recipe("  - {technique: distil, student: {width: 2}, steps: 3}")
    with pytest.raises(ConfigError, match=r"student: .*unexpected keyword argument 'width'"):
        apply_recipe(net, bad, example_inputs=(torch.zeros(1, 8),), task=task, build=build)
