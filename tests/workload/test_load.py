"""Workload files, their knobs, the cache, and what must not import torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sim.errors import DovetailError, TraceError, WorkloadError
from sim.workload.cache import _checksum, cache_dir
from sim.workload.load import Workload, list_workloads, load_workload
from sim.workload.serialize import save_graph
from sim.workload.trace import trace, unregister_rule

MODEL = '''"""A line about it.

More."""
from typing import Literal
import torch
from torch import nn
import helper_of_the_model

def build(width: int = 4, scale: float = 1.0, act: Literal["relu", "gelu"] = "relu", bias: bool = True,
          depth: int | None = None):
    """Makes it."""
    return nn.Linear(width, helper_of_the_model.OUT, bias=bias), (torch.empty(1, width),)

def other(n: int = 3):
    """Another model."""
    return nn.Linear(n, n), (torch.empty(1, n),)

def fails():
    raise RuntimeError("no such\\nlayer")

def wrong():
    return 3
'''


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DOVETAIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    (tmp_path / "helper_of_the_model.py").write_text("OUT = 5\n")
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


def test_knobs_and_docstring_are_read_from_the_text(model):
    description = Workload(str(model)).description
    assert description.summary == "A line about it."
    knobs = description.knobs
    assert {n: (k.kind, k.default) for n, k in knobs.items()} == {
        "width": ("int", 4),
        "scale": ("float", 1.0),
        "act": ("str", "relu"),
        "bias": ("bool", True),
        "depth": ("int", None),
    }
    assert knobs["act"].choices == ("relu", "gelu")
    assert knobs["depth"].optional


def test_text_from_a_command_line_is_converted(model):
    workload = Workload(str(model), {"width": "8", "scale": "0.5", "bias": "false", "depth": "none"})
    assert workload.knobs == {"width": 8, "scale": 0.5, "act": "relu", "bias": False, "depth": None}


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"widht": 8}, 'no knob "widht".*Did you mean "width"'),
        ({"width": "many"}, "width='many': expected int"),
        ({"width": 2.5}, "expected int"),
        ({"width": True}, "expected int"),
        ({"act": "relus"}, 'expected one of relu, gelu.*Did you mean "relu"'),
        ({"bias": "perhaps"}, "expected bool"),
    ],
)
def test_wrong_knobs(model, knobs, message):
    with pytest.raises(WorkloadError, match=message):
        Workload(str(model), knobs)


def test_a_function_of_the_file(model):
    assert Workload(f"{model}:other", {"n": 6}).graph().parameters == 42
    with pytest.raises(WorkloadError, match=r'no function othr.*Did you mean "other"'):
        Workload(f"{model}:othr")


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(WorkloadError, match=r'"resnet5" is unknown.*Did you mean "resnet50"'):
        load_workload("resnet5")
    with pytest.raises(WorkloadError, match=r"no\.py: no such file"):
        load_workload(str(tmp_path / "no.py"))


def test_a_file_that_raises_is_told_in_one_paragraph(model):
    with pytest.raises(TraceError, match=r"model\.py:\d+ in fails: RuntimeError: no such layer") as caught:
        Workload(f"{model}:fails").graph()
    assert "\n" not in str(caught.value)
    with pytest.raises(WorkloadError, match=r"returned a int, expected a tuple \(torch.nn.Module"):
        Workload(f"{model}:wrong").graph()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(x): pass", "knob x has no default"),
        ("def build(**k): pass", "name every knob"),
        ("def build(x: list = 3): pass", "annotate it as int"),
        ("def build(:", "not Python"),
        ("x = 3", "no function build"),
    ],
)
def test_files_that_are_no_workload(tmp_path, text, message):
    path = tmp_path / "m.py"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=message):
        Workload(str(path))


def test_saved_graphs_load_and_have_no_knobs(model, tmp_path):
    graph = load_workload(str(model), width=8)
    save_graph(graph, tmp_path / "g.json")
    assert load_workload(str(tmp_path / "g.json")) == graph
    assert graph.knobs["width"] == 8
    with pytest.raises(WorkloadError, match="no knobs"):
        load_workload(str(tmp_path / "g.json"), width=8)


# -- what a model's own code raises ----------------------------------------------------------

RAISES = """import sys
import torch

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

class Net(torch.nn.Module):
    def __init__(self, end=None):
        super().__init__()
        self.fc, self.end = torch.nn.Linear(8, 8), end

    def forward(self, x):
        if self.end:
            self.end()
        return self.fc(x)

class Around(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)

class Plain(torch.nn.Module):
    def forward(self, x):
        return torch.relu(x)

class Builtin(torch.nn.Module):
    forward = staticmethod(torch.relu)

def quit():
    sys.exit(7)

def mute():
    raise Mute

def long():
    raise ValueError("no weights found:\\n  in a.pt\\nframe #0: c10::Error")

def quit_later():
    return Net(quit), torch.ones(1, 8)

def mute_later():
    return Net(mute), torch.ones(1, 8)

def script():
    return torch.jit.script(Plain()), torch.ones(1, 8)

def traced():
    return torch.jit.trace(Plain(), torch.ones(1, 8)), torch.ones(1, 8)

def inside():
    return Around(torch.jit.script(Plain())), torch.ones(1, 8)

def builtin():
    return Builtin(), torch.ones(1, 8)

class Stop(BaseException):
    pass

def stop():
    raise Stop("enough")

def stop_later():
    return Net(stop), torch.ones(1, 8)

def interrupt():
    raise KeyboardInterrupt

def interrupt_later():
    return Net(interrupt), torch.ones(1, 8)

def lazy():
    return Around(torch.nn.LazyLinear(8)), torch.ones(1, 8)
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("quit", r"raises\.py:34 in quit: sys\.exit\(7\) would end the program; expected a return"),
        ("quit_later", r"raises\.py:34 in quit: sys\.exit\(7\) would end the program"),
        ("mute", r"raises\.py:37 in mute: Mute: its message cannot be shown, its __str__ raises RuntimeError$"),
        ("mute_later", r"raises\.py:37 in mute: Mute: its message cannot be shown, its __str__ raises RuntimeError$"),
        ("long", r"raises\.py:40 in long: ValueError: no weights found: in a\.pt$"),
        ("script", r"raises\.py: script: the model is compiled by torch\.jit \(Plain\).* before torch\.jit\.script"),
        ("traced", r"raises\.py: traced: the model is compiled by torch\.jit \(Plain\)"),
        ("inside", r'raises\.py: inside: module "inner" is compiled by torch\.jit \(Plain\)'),
        ("stop", r"raises\.py:\d+ in stop: Stop: enough$"),
        ("stop_later", r"raises\.py:\d+ in stop: Stop: enough$"),
        (
            "lazy",
            r"raises\.py: lazy: inner\.weight, inner\.bias: no shape yet, .* run the model once .* torch\.nn\.Linear",
        ),
    ],
)
def test_what_a_model_raises_is_told_with_its_place(tmp_path, function, message):
    (tmp_path / "raises.py").write_text(RAISES)
    with pytest.raises(DovetailError, match=message) as told:
        Workload(f"{tmp_path / 'raises.py'}:{function}").graph(cache=False)
    assert told.value.exit_code == 2


@pytest.mark.parametrize("function", ["interrupt", "interrupt_later"])
def test_ctrl_c_in_a_model_stops_the_program(tmp_path, function):
    (tmp_path / "raises.py").write_text(RAISES)
    with pytest.raises(KeyboardInterrupt):
        Workload(f"{tmp_path / 'raises.py'}:{function}").graph(cache=False)


def test_a_lazy_module_is_traced_once_it_ran():
    model = torch.nn.Sequential(torch.nn.LazyLinear(4), torch.nn.LazyBatchNorm1d())
    with pytest.raises(TraceError, match=r"^Sequential: 0\.weight, 0\.bias, 1\.weight, 1\.bias, \.\.\.: no shape yet"):
        trace(model, torch.ones(2, 3))
    model(torch.ones(2, 3))
    assert trace(model, torch.ones(2, 3)).macs == 2 * 3 * 4


def test_a_forward_without_a_signature_is_traced(tmp_path):
    (tmp_path / "raises.py").write_text(RAISES)
    (op,) = Workload(f"{tmp_path / 'raises.py'}:builtin").graph(cache=False)
    assert op.kind == "aten.relu"


def test_a_knob_too_large_for_torch_is_one_line():
    with pytest.raises(TraceError, match=r"mlp\.py:\d+ in build: TypeError: .*Overflow when unpacking") as told:
        Workload("mlp", {"batch": 10**20}).graph(cache=False)
    assert "frame #" not in str(told.value)
    assert len(str(told.value)) < 400


# -- the cache -------------------------------------------------------------------------------


def entry() -> Path:
    (path,) = cache_dir().glob("*.json")
    return path


def test_a_cached_graph_is_the_traced_one(model):
    first = load_workload(str(model))
    assert load_workload(str(model)) == first
    assert entry().is_file()


def test_editing_an_imported_helper_invalidates(model):
    assert load_workload(str(model)).parameters == 4 * 5 + 5
    (model.parent / "helper_of_the_model.py").write_text("OUT = 7\n")
    assert load_workload(str(model)).parameters == 4 * 7 + 7


def test_editing_the_file_invalidates(model):
    load_workload(str(model))
    model.write_text(MODEL.replace("width: int = 4", "width: int = 6"))
    assert load_workload(str(model)).parameters == 6 * 5 + 5


def resealed(header: bytes, body: bytes) -> bytes:
    """An entry of another body whose checksum holds."""
    told = json.loads(header)
    told["sha256"] = _checksum(told["files"], told["packages"], body)
    return json.dumps(told).encode() + b"\n" + body


@pytest.mark.parametrize("damage", ["truncated", "changed", "empty", "other package", "nested", "header nested"])
def test_a_broken_entry_is_rebuilt_never_believed(model, damage):
    graph = load_workload(str(model))
    good = entry().read_bytes()
    header, _, body = good.partition(b"\n")
    changed = json.loads(header) | {"packages": {"torch": "0.1"}}
    entry().write_bytes(
        {
            "truncated": good[: len(good) // 2],
            "changed": header + b"\n" + body.replace(b"[5,4]", b"[5,5]"),
            "empty": b"",
            "other package": json.dumps(changed).encode() + b"\n" + body,
            "nested": resealed(header, b"[" * 200_000),
            "header nested": b"[" * 200_000,
        }[damage]
    )
    assert entry().read_bytes() != good
    assert load_workload(str(model)) == graph
    assert entry().read_bytes() == good


def test_a_folder_in_the_place_of_an_entry_is_replaced_if_empty_and_costs_time_if_not(model):
    graph = load_workload(str(model))
    path = entry()
    path.unlink()
    path.mkdir()
    assert load_workload(str(model)) == graph
    assert path.is_file()
    path.unlink()
    (path / "kept").mkdir(parents=True)
    assert load_workload(str(model)) == graph
    assert [p.name for p in cache_dir().iterdir()] == [path.name]


def test_listing_and_cached_traces_import_no_torch(model):
    """A fresh interpreter lists everything, and loads a graph that this one traced."""
    graph = load_workload("mlp")
    code = (
        "import sys; from sim.workload.load import list_workloads, load_workload; "
        "assert all(d.summary for d in list_workloads()); "
        "print(load_workload('mlp').hash, 'torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True).stdout
    assert out.split() == [graph.hash, "False"]


def test_every_bundled_workload_says_what_it_is():
    for description in list_workloads():
        assert description.summary
        assert all(knob.kind in ("int", "float", "str", "bool") for knob in description.knobs.values())


OWN_OP = """
import torch
from sim.workload.graph import Primitive
from sim.workload.trace import DataPolicy, Vector, register_rule

POLICY = {policy}

@torch.library.custom_op("dovetailtest::swiglu", mutates_args=())
def swiglu(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(x) * y

@swiglu.register_fake
def _(x, y):
    return torch.empty_like(x)

@register_rule("dovetailtest.swiglu")
def rule(call):
    return Vector({{Primitive.EXP: call.out.numel()}})

class Net(torch.nn.Module):
    def forward(self, x):
        return swiglu(x[x > 0], x[x > 0])

def build(batch: int = 4):
    return Net(), (torch.empty(batch),)
"""


def test_a_model_file_brings_its_rules_and_its_answers(tmp_path):
    """Loaded once for each value of a knob (a sweep), the file registers its rule each time; a mask keeps a half."""
    path = tmp_path / "own.py"
    path.write_text(OWN_OP.format(policy="DataPolicy(fraction=0.5)"))
    try:
        for batch in (4, 8):
            graph = Workload(str(path), {"batch": batch}).graph(cache=False)
            (op,) = [op for op in graph if op.kind == "dovetailtest.swiglu"]
            assert sum(op.primitives.values()) == batch // 2
        other = tmp_path / "other.py"
        other.write_text(path.read_text())
        with pytest.raises(DovetailError, match="has a rule already"):
            Workload(str(other)).graph(cache=False)
    finally:
        unregister_rule("dovetailtest.swiglu")
    path.write_text(OWN_OP.format(policy="0.5"))
    with pytest.raises(WorkloadError, match=r"POLICY is a float, expected a sim\.workload\.trace\.DataPolicy"):
        Workload(str(path)).graph(cache=False)
    unregister_rule("dovetailtest.swiglu")
