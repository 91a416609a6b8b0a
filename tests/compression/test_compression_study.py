"""Studies: recipes on a workload, judged and costed; what is wrong shows before anything is trained."""

import pytest

import sim
from sim.compression import study as module
from sim.compression.quality import Method, Quality
from sim.compression.study import run_study
from sim.errors import ConfigError, WorkloadError

WORKLOAD = """
import torch
from torch import nn
def build(batch: int = 1, width: int = 16):
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3))
    return net, (torch.zeros(batch, 3, 12, 12),)
"""


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "two_layers.py"
    path.write_text(WORKLOAD)
    return str(path)


def _recipe(tmp_path, name, step):
    path = tmp_path / f"{name}.yaml"
    path.write_text(f"schema: dovetail.recipe/1\nname: {name}\nsteps:\n  - {step}\n")
    return str(path)


def test_a_workload_without_a_task_is_costed_and_says_so(tmp_path, workload):
    int8 = _recipe(tmp_path, "int8", "{technique: quantise, weights: {granularity: tensor}}")
    found = run_study(workload, [int8], hardware=["edge-npu", sim.load_hardware("tesla-fsd-npu")])
    assert found.quality is None
    costs = [f"costs on {chip}: data sheet only" for chip in ("edge-npu", "tesla-fsd-npu")]
    assert list(found.notes[:2]) == costs
    assert "has no task" in found.notes[2]
    (result,) = found.results
    edge, fsd = result.benefits
    assert (edge.chip, fsd.chip) == ("edge-npu", "tesla-fsd-npu")
    weights = 3 * 16 * 9 + 16 * 8 * 9
    assert edge.before.weight_bytes - edge.after.weight_bytes == weights, "two bytes before, one after"
    assert found.to_dict()["results"][0]["benefits"][0]["speedup"] == edge.speedup


def test_two_recipes_of_one_name_are_refused(tmp_path, workload):
    """Their rows could not be told apart, and the second would go on from the first one's checkpoint."""
    one = _recipe(tmp_path, "int8", "{technique: quantise}")
    with pytest.raises(ConfigError, match='two recipes are called "int8"'):
        run_study(workload, [one, one])


SCALED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.fc, self.scale = nn.Linear(4, 2), scale
    def forward(self, x):
        return torch.relu(self.fc(x)) * self.scale
def build(batch: int = 1, scale: float = 1.0):
    return Net(scale), (torch.zeros(batch, 4),)
def task():
    from sim.compression import TensorTask
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    part = (x, (x[:, 0] > 0).long())
    return TensorTask(
        name="sign", data=dict.fromkeys(("train", "validation", "test"), part), criterion=nn.functional.cross_entropy,
        score=lambda output, label: (output.argmax(1) == label).float(), metric="share", higher_is_better=True, steps=4,
    )
"""


def test_a_checkpoint_of_another_network_of_the_same_shapes_is_refused(tmp_path):
    """A knob or a line of the file makes another network of the same weights; a comment, a batch and a chip do not."""
    path, kept = tmp_path / "net.py", tmp_path / "net.pt"
    path.write_text(SCALED)
    int8 = _recipe(tmp_path, "int8", "{technique: quantise}")
    first = run_study(str(path), [int8], checkpoint=kept)
    with pytest.raises(WorkloadError, match="is of another run"):
        run_study(str(path), [int8], knobs={"scale": 2.0}, checkpoint=kept)
    path.write_text("# a comment" + SCALED)
    again = run_study(str(path), [int8], knobs={"batch": 8}, hardware=["edge-npu"], checkpoint=kept)
    assert again.quality == first.quality
    path.write_text(SCALED.replace("torch.relu", "torch.tanh"))
    with pytest.raises(WorkloadError, match="is of another run"):
        run_study(str(path), [int8], checkpoint=kept)


def test_a_checkpoint_of_a_network_whose_helper_was_edited_is_refused(tmp_path):
    """The network's file says the same; what it imports makes another network of the same weights."""
    path, helper, kept = tmp_path / "net.py", tmp_path / "bends_of_a_net.py", tmp_path / "net.pt"
    path.write_text(
        SCALED.replace("import torch", "import torch, bends_of_a_net", 1).replace("torch.relu", "bends_of_a_net.bend")
    )
    helper.write_text("from torch import relu as bend")
    int8 = _recipe(tmp_path, "int8", "{technique: quantise}")
    first = run_study(str(path), [int8], checkpoint=kept)
    helper.write_text("from torch import relu as bend  # the same")
    assert run_study(str(path), [int8], checkpoint=kept).quality == first.quality
    helper.write_text("from torch import tanh as bend")
    with pytest.raises(WorkloadError, match="is of another run"):
        run_study(str(path), [int8], checkpoint=kept)


def test_a_checkpoint_of_another_student_of_the_same_shapes_is_refused(tmp_path):
    path, kept = tmp_path / "net.py", tmp_path / "net.pt"
    path.write_text(SCALED)
    recipe = "{{technique: distil, student: {{scale: {}}}, steps: 4}}"
    run_study(str(path), [_recipe(tmp_path, "taught", recipe.format(2.0))], checkpoint=kept)
    with pytest.raises(WorkloadError, match="is of another run"):
        run_study(str(path), [_recipe(tmp_path, "taught", recipe.format(4.0))], checkpoint=kept)


STUDENT = """
import torch
from torch import nn
def build(batch: int = 1, stride: int = 1):
    net = nn.Sequential(nn.Conv2d(1, 4, 3, stride), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return net, (torch.zeros(batch, 1, 16, 16),)
def task():
    from sim.compression import TensorTask
    part = (torch.randn(64, 1, 16, 16), torch.arange(64) % 2)
    return TensorTask(
        name="noise", data=dict.fromkeys(("train", "validation", "test"), part), criterion=nn.functional.cross_entropy,
        score=lambda output, label: (output.argmax(1) == label).float(), metric="share", higher_is_better=True, steps=1,
    )
"""


def test_a_student_of_the_same_weights_is_costed_as_the_network_that_it_is(tmp_path):
    """A stride changes no weight: 14 x 14 outputs for the teacher, 4 x 4 for a student of stride 4."""
    path = tmp_path / "strided.py"
    path.write_text(STUDENT)
    recipe = _recipe(tmp_path, "distil", "{technique: distil, student: {stride: 4, batch: 1}, steps: 1}")
    (row,) = run_study(str(path), [recipe], hardware=["edge-npu"], knobs={"batch": 8}).results[0].benefits
    for knobs, cost in (({}, row.before), ({"stride": 4}, row.after)):
        graph = sim.load_workload(str(path), batch=8, **knobs)
        assert cost.latency_s == sim.estimate(graph, sim.load_hardware("edge-npu"), precision="bf16").latency_s


SEVERAL = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 4, 16))
        self.first, self.second = nn.Conv2d(4, 32, 3), nn.Conv2d(32, 16, 3)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
    def forward(self, batch):
        made = self.second(torch.relu(self.first(batch["image"]))).flatten(2).transpose(1, 2) + batch["pose"]
        return {"made": self.attention(self.query.expand(made.shape[0], -1, -1), made, made, need_weights=False)[0]}
def build(batch: int = 1):
    return Net(), ({"image": torch.zeros(batch, 4, 12, 12), "pose": torch.zeros(batch, 1, 16)},)
"""


def test_a_model_of_dicts_without_data_is_costed_by_any_recipe_that_needs_none(tmp_path):
    """Inputs and outputs in dicts, static ranges, fine-tuning that nothing can do, and a layer that attention reads
    without calling it: each is named, none stops the study. 2:4 in int8: 5 bits of 16 are left of a weight."""
    path = tmp_path / "several.py"
    path.write_text(SEVERAL)
    sparse = "{technique: sparsify_nm, steps: 7}\n  - {technique: quantise, activations: {dtype: int8}}"
    recipes = [
        _recipe(tmp_path, "sparse", sparse),
        _recipe(tmp_path, "half", "{technique: prune_channels, keep: 0.5, steps: 7}"),
    ]
    found = run_study(str(path), recipes, hardware=["edge-npu"])
    both, half = found.results
    assert [note for note in found.notes if "fine-tuning is left out" in note] == [
        f"{name}: its fine-tuning is left out, it needs a task" for name in ("sparse", "half")
    ]
    assert both.reports[1].treated == ("first", "second")
    assert "without calling it" in both.reports[1].untreated["attention.out_proj"]
    assert both.reports[1].untreated["the model itself"] == "Net has no treatment"
    (benefit,) = both.benefits
    convolutions, projection = 4 * 32 * 9 + 32 * 16 * 9, 16 * 16
    saved = convolutions * (16 - 5) / 8 + projection * (16 - 9) / 8  # 8 bits and a mark of each of the kept half
    assert benefit.before.weight_bytes - benefit.after.weight_bytes == pytest.approx(saved)
    assert half.reports[0].treated
    assert half.benefits[0].speedup > 1


def test_other_shapes_are_costed_at_the_asked_batch(tmp_path, workload):
    """Half of the 16 channels: half of the MACs of both layers at any batch, so more than one image gains more."""
    prune = _recipe(tmp_path, "prune", "{technique: prune_channels, keep: 0.5}")
    studies = [run_study(workload, [prune], hardware=["edge-npu"], knobs={"batch": batch}) for batch in ("1", "64")]
    assert [study.to_dict()["knobs"] for study in studies] == [{"batch": 1, "width": 16}, {"batch": 64, "width": 16}]
    gains = [study.results[0].benefits[0] for study in studies]
    assert gains[1].before.latency_s > gains[0].before.latency_s
    assert gains[1].speedup > gains[0].speedup > 1


@pytest.mark.parametrize(
    ("step", "knobs", "message"),
    [
        ('{technique: quantise, skip: ["*"]}', {}, r"does nothing.*q, .*: skipped by the recipe$"),
        ("{technique: mixed_precision, mean_bits: 2}", {}, r"mean_bits 2 with choices int4, int8: .*smallest"),
        ("{technique: prune_channels, keep: 0.5}", {"phase": "decode"}, "judged in; leave out -p phase"),
    ],
)
def test_a_bad_recipe_is_found_before_training(tmp_path, monkeypatch, step, knobs, message):
    def refuse(*_args, **_options):
        raise AssertionError("trained")

    monkeypatch.setattr(module, "train", refuse)
    recipe = _recipe(tmp_path, "bad", step)
    with pytest.raises(ConfigError, match=message):
        run_study("byte_gpt", [recipe], hardware=["edge-npu"], knobs={"width": "32", "depth": "1", **knobs})


TWO_INPUTS = """
import torch
from torch import nn
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1)
    def forward(self, image, unused=1.0, mask=None):
        return self.last(torch.relu(self.first(image) + self.second(mask)))
def build(batch: int = 1):
    return Two(), {"mask": torch.zeros(batch, 3, 12, 12), "image": torch.zeros(batch, 3, 12, 12)}
"""


def test_a_model_of_several_inputs_by_name_is_quantised_with_static_ranges_and_pruned(tmp_path):
    """Without a task ranges need shapes alone. By hand: 2 (3 x 16 x 9) + 16 x 8 weights; half of the coupled set of
    16 channels leaves 2 (3 x 8 x 9) + 8 x 8 of them, and 8 + 8 + 8 biases, in two bytes each."""
    path = tmp_path / "two_inputs.py"
    path.write_text(TWO_INPUTS)
    int8 = _recipe(tmp_path, "int8", "{technique: quantise, weights: {granularity: tensor}, activations: {}}")
    prune = _recipe(tmp_path, "prune", "{technique: prune_channels, keep: 0.5}")
    quantised, pruned = (
        found.benefits[0] for found in run_study(str(path), [int8, prune], hardware=["edge-npu"]).results
    )
    weights = 2 * 3 * 16 * 9 + 16 * 8
    assert quantised.before.weight_bytes - quantised.after.weight_bytes == weights
    assert pruned.after.weight_bytes == 2 * (weights // 2 + 3 * 8)


@pytest.mark.parametrize(
    ("before", "after", "upwards", "told"),
    [(42.0, 81.0, True, True), (42.0, 42.4, True, False), (81.0, 42.0, True, False),
     (3.8, 2.9, False, True), (2.9, 3.8, False, False)],
)  # fmt: skip
def test_a_recipe_that_trains_an_unfinished_model_is_not_flattered_silently(before, after, upwards, told):
    """Standard errors of 0.3 and 0.4 make 0.5 together: 42.4 % of accuracy after 42 % lies within them, 81 % does not;
    of bits a byte fewer are better."""

    def quality(value, error):
        return Quality(metric="m", value=value, higher_is_better=upwards, method=Method.TRAIN, source="s",
                       standard_error=error)  # fmt: skip

    result = module.Result(recipe="qat", title="", quality=quality(after, 0.4), parameter_bytes=1.0, benefits=(),
                           reports=())  # fmt: skip
    note = module._flattered(quality(before, 0.3), result)
    assert (note is not None) is told
    if note:
        assert f"qat: after its fine-tuning m is {after:g}, better than the {before:g} as trained" in note


def test_only_recipes_that_fine_tune_are_said_to_flatter(tmp_path):
    """Twenty steps of training leave much to learn; forty more of fine-tuning learn it, rounding to int8 does not."""
    tuned = _recipe(tmp_path, "tuned", "{technique: sparsify_nm, steps: 40, learning_rate: 3.0e-3}")
    rounded = _recipe(tmp_path, "rounded", "{technique: quantise, weights: {dtype: int8, granularity: channel}}")
    found = run_study("digits_cnn", [tuned, rounded], train_steps=20)
    before, after = found.quality, found.results[0].quality
    assert after.value > before.value + 5
    assert [note.partition(":")[0] for note in found.notes] == ["tuned"]


TIED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(32, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 32, bias=False)
        self.head.weight = self.embed.weight
    def forward(self, i):
        x = self.embed(i)
        return self.head(x + self.down(torch.relu(self.up(x))))
def build(batch: int = 1):
    return Net(), (torch.zeros(batch, 4, dtype=torch.long),)
"""


def test_a_weight_that_two_layers_share_is_stored_once_after_pruning_too(tmp_path):
    """Half of the 16 hidden channels leave: 8 rows of `up` (8 weights and a bias) and 8 columns of `down`."""
    (tmp_path / "tied.py").write_text(TIED)
    half = _recipe(tmp_path, "half", "{technique: prune_channels, keep: 0.5}")
    (result,) = run_study(str(tmp_path / "tied.py"), [half], hardware=["edge-npu"]).results
    (benefit,) = result.benefits
    before = 32 * 8 + (8 * 16 + 16) + (16 * 8 + 8)
    assert benefit.before.weight_bytes == 2 * before
    assert benefit.after.weight_bytes == 2 * (before - 8 * (8 + 1) - 8 * 8)


ATTENTION = """
import torch
from torch import nn
def build(batch: int = 1):
    return nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (torch.zeros(batch, 4, 16),)
"""


def test_weights_alone_of_a_bundled_attention_are_costed(tmp_path):
    """nn.MultiheadAttention reads the weight of its last layer without calling it: that is narrower all the same.

    int4 by groups of 16 with 20 bits each: 5.25 bits of out_proj (16 x 16) and of the two others (16 x 32 each)."""
    (tmp_path / "attention.py").write_text(ATTENTION)
    w4 = _recipe(tmp_path, "w4", "{technique: weight_only, group: 16}")
    (result,) = run_study(str(tmp_path / "attention.py"), [w4], hardware=["edge-npu"]).results
    (benefit,) = result.benefits
    assert benefit.before.weight_bytes - benefit.after.weight_bytes == (16 * 16 + 2 * 16 * 32) * (16 - 5.25) / 8
