"""The export front end is an independent way to the same graph."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from calls import Call
from torch import nn

import sim
from sim.errors import TraceError, WorkloadError
from sim.workload.graph import EinsumOp, Graph, MovementOp, Role
from sim.workload.load import Workload, list_workloads, load_workload
from sim.workload.passes import dead_code
from sim.workload.summary import role_bytes, unsupported
from sim.workload.trace import trace
from sim.workload.trace.export import export

SMALL = {"llama": {"layers": 1, "context": 64}, "bert_base": {"depth": 1}, "vit": {"depth": 1}, "gpt2": {"depth": 1}}
SMALL |= {"lstm": {"context": 3}, "mixtral": {"layers": 1, "context": 64}, "detr": {"depth": 1, "height": 320}}
SMALL |= {"driving": {"height": 96, "width_px": 128, "bev": 16, "depth": 0.3}, "mamba": {"depth": 1}}
SMALL |= {"robot_policy": {"vision_depth": 1, "depth": 1, "steps": 2, "cameras": 1}, "unet": {"blocks": 1}}
CASES = [(d.path.stem, SMALL.get(d.path.stem, {})) for d in list_workloads()]
CASES += [("llama", {"layers": 1, "phase": "decode", "context": 64})]
CASES += [("mamba", {"depth": 1, "phase": "decode"}), ("whisper", {"phase": "decode"})]
CASES += [
    ("mixtral", {"layers": 1, "phase": "decode", "window": 32, "context": 64}),
    ("vit", {"depth": 4, "keep": 0.5}),
]


def product_bytes(graph: Graph) -> int:
    products = [op for op in graph if isinstance(op, EinsumOp)]
    return sum(graph.tensors[operand.tensor].size_bytes for op in products for operand in op.einsum.operands)


def moved_bytes(graph: Graph) -> int:
    moves = [op for op in graph if isinstance(op, MovementOp)]
    return sum(sum(op.read_bytes.values()) + sum(op.write_bytes.values()) for op in moves)


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_recorder_and_export_agree(name, knobs):
    """MACs, parameters, bytes of products, of movements, and of every role but activations.

    As costed: without results that nobody reads. Activation storages differ by design: export is functional and
    knows no work in place.
    """
    workload = Workload(name, knobs)
    recorded, exported = (dead_code(workload.graph(cache=False, via=via)) for via in ("recorder", "export"))
    assert exported.macs == recorded.macs
    assert exported.parameters == recorded.parameters
    assert product_bytes(exported) == product_bytes(recorded)
    assert moved_bytes(exported) == moved_bytes(recorded)
    ours, theirs = role_bytes(recorded), role_bytes(exported)
    assert {r: n for r, n in ours.items() if r != Role.ACTIVATION} == {
        r: n for r, n in theirs.items() if r != Role.ACTIVATION
    }
    assert not unsupported(exported)
    assert {op.module for op in exported if isinstance(op, EinsumOp)} == {
        op.module for op in recorded if isinstance(op, EinsumOp)
    }


def as_written(module: nn.Module, inputs: tuple) -> tuple[Graph, Graph]:
    """Both front ends' graphs, as costed."""
    return dead_code(trace(module, inputs)), dead_code(export(module, inputs))


class SparseConvolution(nn.Module):
    """Three taps of a gather-product-scatter convolution, added up in place."""

    def __init__(self):
        super().__init__()
        self.taps = nn.Parameter(torch.empty(3, 4, 8))

    def forward(self, x, source, target):
        out = x.new_zeros(len(x), 8)
        for tap in range(3):
            out.index_add_(0, target[tap], x[source[tap]] @ self.taps[tap])
        return out


class PagedCache(nn.Module):
    """New keys are written through a view of a pool of pages; a request's pages are gathered."""

    def __init__(self):
        super().__init__()
        self.register_buffer("pool", torch.empty(64, 4, 8))

    def forward(self, keys, slots, table):
        self.pool.view(-1, 8).index_copy_(0, slots, keys)
        return self.pool.index_select(0, table) + 1


class PastedInto(nn.Module):
    """A corner of a new canvas is assigned, as spectral layers do."""

    def forward(self, x):
        canvas = x.new_zeros(16, 8, 8)
        canvas[:, :4, 2:4] = x
        return canvas * 2


class Around(nn.Module):
    """A field on a torus."""

    def forward(self, x):
        return nn.functional.pad(x, (1, 1, 1, 1), mode="circular") * 2


class Scattered(nn.Module):
    """Elements of each row are replaced, or added to, where indices say."""

    def __init__(self, **how):
        super().__init__()
        self.how = how
        self.register_buffer("rows", torch.empty(4, 64))

    def forward(self, x, places):
        self.rows.scatter_(1, places, x, **self.how)
        return self.rows * 2


three = torch.zeros(4, 3, dtype=torch.int64)
places, pages = torch.zeros(3, 5, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
IN_PLACE = {
    # bytes moved by hand, fp32 and int64: zeros 20 x 8; a tap reads 5 rows of 4 and 5 + 5 indices, writes 5 rows,
    # adds 5 rows of 8 read to 5 read and written
    "sums": (
        SparseConvolution(), (torch.empty(20, 4), places, places),
        20 * 8 * 4 + 3 * (2 * 5 * 4 * 4 + 2 * 5 * 8 + 3 * 5 * 8 * 4),
    ),
    # two rows of 8 read and written with their slots; two pages of 4 x 8 read and written with their numbers
    "pages": (PagedCache(), (torch.empty(2, 8), pages, pages), 2 * (2 * 8 * 4) + 16 + 2 * (2 * 32 * 4) + 16),
    # twelve elements and their indices read, twelve written; to be added to, they are read first
    "replaced": (Scattered(), (torch.empty(4, 3), three), 12 * (4 + 8 + 4)),
    "added": (Scattered(reduce="add"), (torch.empty(4, 3), three), 12 * (4 + 8 + 4 + 4)),
    # 16 x 8 x 8 read and written into 10 x 10, then its two outer columns and rows
    "around": (Around(), (torch.empty(1, 16, 8, 8),), 2 * 16 * 4 * (8 * 8 + 4 * 10)),
    "pasted": (PastedInto(), (torch.empty(16, 4, 2),), 16 * 64 * 4 + 2 * 16 * 8 * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", IN_PLACE)
def test_what_the_model_wrote_in_place_is_in_place_when_exported(name):
    """Export makes it functional: each write would copy the whole, a pool of pages or a canvas."""
    module, inputs, moved = IN_PLACE[name]
    recorded, exported = as_written(module, inputs)
    assert moved_bytes(recorded) == moved_bytes(exported) == moved
    assert role_bytes(recorded) == role_bytes(exported)


class Windowed(nn.Module):
    """The last three of the keys before each query, by a mask of constants; `hidden`: but for one, written in place."""

    def __init__(self, hidden):
        super().__init__()
        self.hidden = hidden

    def forward(self, q):
        at = torch.arange(6)
        seen = (at[:, None] >= at) & (at[:, None] - at < 3)
        if self.hidden:
            seen[4, 4] = False
        return nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=seen)


@pytest.mark.parametrize(("hidden", "form"), [(False, (True, 3)), (True, (False, 0))])
def test_both_front_ends_see_the_form_of_a_mask(hidden, form):
    """Exported, every mask was unknown, and no block that it hides was skipped."""
    for graph in as_written(Windowed(hidden), (torch.empty(1, 2, 6, 8),)):
        (region,) = graph.regions.values()
        assert (region.attrs["causal"], region.attrs.get("window", 0)) == form


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_the_steps_of_a_recurrent_layer_are_one_region(cell):
    """Exported, they were ops without a layer, six times as long on a CPU whose library runs an LSTM as one kernel."""
    layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn_tanh": nn.RNN}[cell](8, 16, 2, batch_first=True)
    for graph in as_written(layer, (torch.empty(2, 5, 8),)):
        (region,) = [r for r in graph.regions.values() if r.kind == "recurrent"]
        assert region.attrs["cell"] == cell
        assert {op.region for op in graph if isinstance(op, EinsumOp)} == {region.id}


def test_dropout_is_no_copy_when_exported():
    layers = nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.ReLU(), nn.Dropout1d())
    for graph in as_written(layers, (torch.empty(2, 8),)):
        assert moved_bytes(graph) == 0


@torch.library.custom_op("dovetailtest::turn_", mutates_args=("x",))
def turn_(x: torch.Tensor, by: torch.Tensor) -> None:
    x.mul_(by)


class TurnedInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x, by):
        y = self.first(x)
        turn_(y, by)
        return self.last(y)


def test_a_custom_op_that_returns_nothing_is_an_op_and_does_not_cut_the_model():
    """It was left out; exported, all before it as well, since nothing seemed to read it."""
    for graph in as_written(TurnedInPlace(), (torch.empty(2, 8), torch.empty(8))):
        assert graph.macs == 2 * 2 * 8 * 8
        (place,) = [i for i, op in enumerate(graph.ops) if op.kind == "dovetailtest.turn_"]
        products = [i for i, op in enumerate(graph.ops) if isinstance(op, EinsumOp)]
        assert products[0] < place < products[1]
        assert unsupported(graph)


@pytest.mark.parametrize(
    ("a", "b"), [((4,), (4,)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (3, 4, 5)), ((3, 5, 4), (4,))]
)
def test_products_with_a_vector_reach_the_output(a, b):
    class Times(nn.Module):
        def forward(self, a, b):
            return a @ b

    inputs = torch.empty(a), torch.empty(b)
    recorded, exported = (dead_code(front(Times(), inputs)) for front in (trace, export))
    assert exported.macs == recorded.macs > 0
    assert role_bytes(exported)[Role.OUTPUT] == role_bytes(recorded)[Role.OUTPUT]


@pytest.mark.parametrize(("a", "b"), [((3, 0), (0, 4)), ((2, 3, 0), (0, 4)), ((2, 3, 5), (5, 0)), ((0,), (0,))])
def test_products_over_nothing_are_traced_and_not_costed(a, b):
    class Times(nn.Module):
        def forward(self, a, b):
            return a @ b

    for front in (trace, export):
        graph = front(Times(), (torch.empty(a), torch.empty(b)))
        assert graph.macs == 0
        with pytest.raises(WorkloadError, match="works on nothing"):
            sim.estimate(graph, "systolic")


def test_what_torch_refuses_while_an_exported_program_is_read_is_told():
    """The size of this result depends on the values of x."""

    class Picks(nn.Module):
        def forward(self, x):
            return x[x > 0].sum()

    with pytest.raises(
        TraceError, match=r"Picks: exported, but aten\.index cannot run without data: NotImpl"
    ) as caught:
        export(Picks(), (torch.empty(3, 8),))
    assert str(caught.value).endswith("; trace the module with the recorder (the default), which asks a policy")


@dataclass
class Found:
    boxes: torch.Tensor
    more: dict[str, tuple[torch.Tensor, ...]]


def test_results_of_any_kind_leave_the_exported_model():
    """A dataclass and a plain object, unknown to torch.export: 4 x 3 + 4 x 2 floats leave; modules keep their paths."""

    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.boxes, self.scores = nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x):
            scores = self.scores(x)
            found = Found(boxes=self.boxes(x), more={"scores": (scores, scores)})
            return SimpleNamespace(found=found, best=scores)

    recorded, exported = (front(Heads(), torch.empty(4, 8)) for front in (trace, export))
    assert role_bytes(exported)[Role.OUTPUT] == role_bytes(recorded)[Role.OUTPUT] == 4 * (4 * 3 + 4 * 2)
    assert exported.macs == recorded.macs == 4 * 8 * 5
    assert {op.module for op in exported if isinstance(op, EinsumOp)} == {"boxes", "scores"}


def test_ops_that_torch_makes_from_others_are_taken_apart_where_no_rule_knows_them():
    """einsum of [2, 3, 5, 8] with [2, 3, 7, 8]: 2 x 3 x 5 x 7 x 8 MACs; then 4 x 9 x 6 x 5 x 7 of a convolution behind
    a reflecting pad, and a cosine, which has none."""

    class Composite(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 4, 3, padding=1, padding_mode="reflect")

        def forward(self, q, k):
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k)
            maps = self.conv(scores.reshape(1, 6, 5, 7))
            return torch.cosine_similarity(maps, maps * 2)

    inputs = torch.empty(2, 3, 5, 8), torch.empty(2, 3, 7, 8)
    recorded, exported = (dead_code(front(Composite(), inputs)) for front in (trace, export))
    assert exported.macs == recorded.macs == 2 * 3 * 5 * 7 * 8 + 4 * 9 * 6 * 5 * 7
    assert not unsupported(exported)
    assert role_bytes(exported)[Role.OUTPUT] == role_bytes(recorded)[Role.OUTPUT]


@pytest.mark.parametrize("padding", [0, "same"])
def test_a_convolution_of_complex_factors_is_three_real_ones(padding):
    """8 -> 6 channels of 9 x 9, 3 x 3 window: 6 x 8 x 9 MACs for each of 7 x 7 or 9 x 9 results, thrice (Gauss)."""

    class Filtered(nn.Module):
        def __init__(self):
            super().__init__()
            self.taps = nn.Parameter(torch.empty(6, 8, 3, 3, dtype=torch.complex64))

        def forward(self, x):
            return torch.view_as_real(nn.functional.conv2d(x, self.taps, padding=padding))

    for graph in as_written(Filtered(), (torch.empty(2, 8, 9, 9, dtype=torch.complex64),)):
        assert graph.macs == 3 * 2 * 6 * 8 * 9 * (81 if padding else 49)
        assert not unsupported(graph)


def test_flow_that_depends_on_data_is_refused_with_the_reason(capfd):
    class Branch(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(TraceError, match=r"torch\.export refuses it") as caught:
        export(Branch(), torch.zeros(3))
    assert "\n" not in str(caught.value)
    assert "trace with the recorder" in str(caught.value)
    assert capfd.readouterr().err == ""  # torch prints its graph


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_a_saved_program_is_a_workload(tmp_path):
    """2 x 16 x 16 x 8 x 3 x 9 MACs of the convolution and 2 x 8 x 10 of the layer behind it; names and lines as of a
    model that is exported now."""
    model, inputs = Small().eval(), (torch.zeros(2, 3, 16, 16),)
    path = tmp_path / "small.pt2"
    torch.export.save(torch.export.export(model, inputs), path)
    loaded, exported = load_workload(path), export(model, inputs)
    assert loaded.macs == 2 * 16 * 16 * 8 * 3 * 9 + 2 * 8 * 10
    assert loaded.parameters == exported.parameters
    assert [(op.kind, op.module, op.source) for op in loaded] == [(op.kind, op.module, op.source) for op in exported]
    assert role_bytes(loaded) == role_bytes(exported)
    assert loaded.name == "small"
    assert load_workload(path, via="export").hash == loaded.hash


def test_attention_that_was_exported_on_the_cpu_is_read(tmp_path):
    """An encoder layer of width 32 with four heads on two sequences of ten: 20 x 32 x (96 + 32 + 64 + 64) MACs of its
    layers, and two products of 10 x 10 x 8 for each of eight heads."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    path = tmp_path / "layer.pt2"
    torch.export.save(torch.export.export(layer, (torch.zeros(2, 10, 32),), strict=False), path)
    assert load_workload(path).macs == 20 * 32 * (96 + 32 + 64 + 64) + 2 * 8 * 10 * 10 * 8


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.layer(y), lambda y: y + 1, (x,))


def test_a_branch_of_a_saved_program_is_refused_by_name(tmp_path):
    """Also after a branch was recorded: what torch compiled for that is forgotten, or the export would fail."""
    sim.trace(Branching().eval(), (torch.zeros(2, 8),))
    path = tmp_path / "m.pt2"
    torch.export.save(torch.export.export(Branching().eval(), (torch.zeros(2, 8),), strict=False), path)
    with pytest.raises(TraceError, match=r"m\.pt2: exported, but the higher-order op cond is not read: .* recorder"):
        load_workload(path)


def test_saved_programs_that_cannot_be_costed_say_why(tmp_path):
    path, inputs = tmp_path / "m.pt2", (torch.zeros(2, 3, 16, 16),)
    free = {"x": {0: torch.export.Dim("batch", min=2, max=64)}}
    torch.export.save(torch.export.export(Small().eval(), inputs, dynamic_shapes=free), path)
    with pytest.raises(TraceError, match=r"free dimensions \(x\[0\]\).*without dynamic_shapes"):
        load_workload(path)
    with pytest.raises(WorkloadError, match=r"recorder reads models, not \.pt2 files"):
        load_workload(path, via="recorder")
    with pytest.raises(WorkloadError, match="an exported program has no knobs, got batch"):
        load_workload(path, batch=2)
    with pytest.raises(WorkloadError, match="no such file"):
        load_workload(tmp_path / "other.pt2")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WorkloadError, match=r"torch\.export\.load cannot read it: ") as caught:
        load_workload(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 32), (2, 4, 32)])
def test_what_follows_a_layer_on_tokens_runs_on_its_results(shape: tuple[int, ...]) -> None:
    """Export's linear layer of a batch of tokens works on rows; that these are the same elements lets ReLU, bias and
    residual run fused, as they do in what the recorder sees."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(torch.relu(self.up(x)))

    recorded, exported = (
        sim.estimate(front(Residual(), (torch.zeros(shape),)), "systolic") for front in (trace, export)
    )
    assert len(recorded.ops) == len(exported.ops) == 2
    assert exported.latency_s == recorded.latency_s
    assert exported.traffic_bytes == recorded.traffic_bytes


def test_other_elements_of_a_storage_are_no_reshape() -> None:
    """The half that was not written last is no view of the one that was."""

    def halves(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        whole = x + 1
        first, second = whole[:4], whole[4:]
        first.mul_(2)
        return second + 0.5

    model = Call(halves)
    kinds = [op.kind for op in trace(model, (torch.zeros(8, 4),))]
    assert "view.alias" in kinds
    assert "aten.view" not in kinds
