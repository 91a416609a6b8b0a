"""What tensor parallelism and pipelines make of a graph: what is split and where collectives stand, by hand."""

from __future__ import annotations

import pytest
import torch
from systems import Mlp
from torch import nn

import sim
from sim.errors import WorkloadError
from sim.workload.graph import Collective, CollectiveOp, EinsumOp, Graph, Role
from sim.workload.passes import pipeline, tensor_parallel
from sim.workload.passes.dead_code import dead_code
from sim.workload.passes.pipeline import stage_of
from sim.workload.serialize import graph_from_dict, graph_to_dict


def products(graph: Graph) -> dict[str, dict[str, int]]:
    return {op.module: dict(op.einsum.ranks) for op in graph.ops if isinstance(op, EinsumOp)}


def sent(graph: Graph) -> list[tuple[Collective, int]]:
    return [(op.collective, op.message_bytes) for op in graph.ops if isinstance(op, CollectiveOp)]


@pytest.fixture(scope="module")
def mlp() -> Graph:
    return sim.trace(Mlp(), (torch.zeros(32, 64),))


@pytest.fixture(scope="module")
def llama() -> Graph:
    return sim.load_workload("llama", layers=2, context=64, phase="decode")


def test_columns_then_rows(mlp: Graph) -> None:
    """up: 256 columns become 64 a chip; down: 256 rows become 64; one all-reduce of 32 x 64 fp32."""
    part = tensor_parallel(mlp, 4)
    assert sorted(products(part)["up"].values()) == [32, 64, 64]
    assert sorted(products(part)["down"].values()) == [32, 64, 64]
    assert sent(part) == [(Collective.ALL_REDUCE, 32 * 64 * 4)]
    assert part.macs * 4 == mlp.macs
    weights = {t.name: t.shape for t in part.tensors.values() if t.role is Role.WEIGHT and t.name}
    assert weights == {"up.weight": (64, 64), "up.bias": (64,), "down.weight": (64, 64), "down.bias": (64,)}


def test_attention_by_head_and_its_cache(llama: Graph) -> None:
    """32 query and 8 KV heads over 8 chips: 4 and 1 each; the caches and every learned product divide by 8."""
    part = tensor_parallel(llama, 8)
    assert part.macs * 8 == llama.macs
    regions = [r.attrs for r in part.regions.values() if r.kind == "attention"]
    assert [(r["heads"], r["kv_heads"]) for r in regions] == [(4, 1)] * 2
    cache = [t for t in part.tensors.values() if t.role is Role.KV_CACHE and t.name]
    assert {t.shape for t in cache} == {(1, 1, 65, 64)}
    kinds = [what for what, _ in sent(part)]
    assert kinds.count(Collective.ALL_REDUCE) == 2 * 2 + 1  # o and down of each layer, the embedding
    assert kinds.count(Collective.ALL_GATHER) == 1  # the logits
    assert graph_from_dict(graph_to_dict(part)) == part


class Stack(nn.Module):
    """Three layers of 64 -> 128 -> 64 whose weights are parts of one tensor, by its first axis or its last."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        up, down = {"linear": ((3, 128, 64), (3, 64, 128)), "last": ((64, 128, 3), (128, 64, 3))}.get(
            form, ((3, 64, 128), (3, 128, 64))
        )
        self.up, self.down = nn.Parameter(torch.zeros(up)), nn.Parameter(torch.zeros(down))

    def pair(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.form == "last":
            return self.up[:, :, i], self.down[:, :, i]
        return (self.up[i].t(), self.down[i].t()) if self.form == "linear" else (self.up[i], self.down[i])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(3):
            up, down = self.pair(i)
            x = x + torch.relu(x @ up) @ down
        return x


class Caches(nn.Module):
    """A decode step of two layers whose keys and values lie in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(64, 192, bias=False) for _ in range(2))
        self.o = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(2))
        self.register_buffer("kv", torch.zeros(2, 2, 1, 4, 33, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in range(2):
            q, k, v = self.qkv[layer](x).view(1, 1, 3, 4, 16).transpose(1, 3).unbind(2)
            keys, values = self.kv[layer, 0], self.kv[layer, 1]
            keys[:, :, 32:33], values[:, :, 32:33] = k, v
            y = nn.functional.scaled_dot_product_attention(q, keys, values)
            x = x + self.o[layer](y.transpose(1, 2).reshape(1, 1, 64))
        return x


@pytest.mark.parametrize("chips", [2, 4])
@pytest.mark.parametrize("form", ["linear", "mm", "last"])
def test_a_stack_of_weights_is_split_like_its_parts(form: str, chips: int) -> None:
    """Columns, then rows, of each layer, and one sum a layer: no weight travels, each chip has its share of them."""
    graph = sim.trace(Stack(form), (torch.zeros(8, 64),))
    part = tensor_parallel(graph, chips)
    assert sent(part) == [(Collective.ALL_REDUCE, 8 * 64 * 4)] * 3
    assert (part.macs * chips, part.parameters * chips) == (graph.macs, graph.parameters)


@pytest.mark.parametrize("chips", [2, 4])
def test_a_stack_of_caches_is_split_by_head(chips: int) -> None:
    graph = sim.trace(Caches(), (torch.zeros(1, 1, 64),))
    part = tensor_parallel(graph, chips)
    assert sent(part) == [(Collective.ALL_REDUCE, 64 * 4)] * 2
    assert (part.macs * chips, part.parameters * chips) == (graph.macs, graph.parameters)
    caches = [max((t for t in g.tensors.values() if t.name == "kv"), key=lambda t: t.elements) for g in (graph, part)]
    assert caches[0].elements == caches[1].elements * chips


def test_experts_chosen_from_a_stack_are_split() -> None:
    """Of eight experts in one tensor two are read: nothing but activations travels, half of all lies on each chip."""
    knobs = {"layers": 1, "width": 1024, "hidden": 512, "active": 1, "batch": 2, "context": 16, "phase": "decode"}
    graph = dead_code(sim.load_workload("mixtral", **knobs, dispatch="loop"))
    part = tensor_parallel(graph, 2)
    moved = [key for op in part.ops if isinstance(op, CollectiveOp) for key in op.inputs]
    assert {part.tensors[key].role for key in moved} == {Role.ACTIVATION}
    assert part.parameters == pytest.approx(graph.parameters / 2, rel=0.001)


class Mixture(nn.Module):
    """A router and eight experts of 16 x 16; a token meets one."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 8, bias=False)
        self.experts = nn.ModuleList(nn.Linear(16, 16, bias=False) for _ in range(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen, out = self.router(x).argmax(-1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            (token,) = torch.where(chosen == number)
            out = out.index_add(0, token, expert(x[token]))
        return out


def test_weights_of_experts_without_a_token_are_divided_too() -> None:
    """A token for one of eight experts of 16 x 16. Of two chips each holds the router and that expert, which are small,
    and half of the other seven."""

    graph = sim.trace(Mixture(), torch.empty(1, 16))
    assert graph.parameters == 16 * 8 + 8 * 16 * 16
    part = tensor_parallel(graph, 2)
    assert part.parameters == 16 * 8 + 16 * 16 + 7 * 16 * 16 // 2
    assert sent(part) == []


def test_weights_of_experts_without_a_token_lie_with_their_stage() -> None:
    """Each of two stages keeps the weights of two of four layers: 2 x (16 x 8 + 8 x 16 x 16). An early result stays
    where it is made."""

    class Early(nn.Sequential):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            early = self[0](x)
            return early * 2, self[3](self[2](self[1](early)))

    layers = Early(*[Mixture() for _ in range(4)])
    graph = sim.trace(layers, torch.empty(1, 16))
    cut = pipeline(graph, 2)
    assert cut.parameters == graph.parameters == 4 * (16 * 8 + 8 * 16 * 16)
    names = {name for name, _ in layers.named_parameters()}
    held: list[set[str]] = [set(), set()]
    for op, stage in zip(cut.ops, stage_of(cut), strict=True):
        held[stage] |= {key for key in op.inputs if cut.tensors[key].name in names}
    assert [sum(cut.tensors[key].elements for key in found) for found in held] == [2 * (16 * 8 + 8 * 16 * 16)] * 2
    assert {cut.tensors[key].name.partition(".")[0] for key in held[0]} == {"0", "1"}
    (send,) = [op for op in cut.ops if isinstance(op, CollectiveOp)]
    assert len(send.inputs) == 1
    assert graph_from_dict(graph_to_dict(cut)) == cut
    assert dead_code(cut).parameters == graph.parameters


def test_one_chip_changes_nothing(mlp: Graph) -> None:
    assert tensor_parallel(mlp, 1) is mlp
    assert pipeline(mlp, 1) is mlp


def test_pipeline_cuts_between_layers() -> None:
    small = sim.load_workload("byte_gpt", depth=4, heads=4, kv_heads=4, width=64)
    cut = pipeline(small, 2)
    assert [what for what, _ in sent(cut)] == [Collective.SEND]
    assert cut.macs == small.macs
    stages = stage_of(cut)
    first = sum(op.einsum.macs for op, s in zip(cut.ops, stages, strict=True) if isinstance(op, EinsumOp) and s == 0)
    assert 0.35 < first / cut.macs < 0.65
    (send,) = [op for op in cut.ops if isinstance(op, CollectiveOp)]
    later = {key for op, s in zip(cut.ops, stages, strict=True) if s == 1 for key in op.inputs}
    assert set(send.outputs) <= later
    assert not set(send.inputs) & later


def test_pipeline_without_a_product_cuts_by_ops() -> None:
    module = nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU())
    assert stage_of(pipeline(sim.trace(module, (torch.zeros(8, 64),)), 2)) == [0, 0, 0, 1, 1]


def test_heads_that_do_not_divide(llama: Graph) -> None:
    with pytest.raises(WorkloadError, match=r"8 kv heads do not divide over 16 chips .*one of 1, 2, 4, 8 chips"):
        tensor_parallel(llama, 16)
