"""Choices of a mixture of experts, traced without data: who chose what, and how many did."""

from itertools import pairwise

import pytest
import torch
from calls import Call, graph_of
from torch import nn

from sim import estimate
from sim.workload.graph import EinsumOp, Role
from sim.workload.passes.dead_code import dead_code
from sim.workload.trace import DataPolicy, trace


def _places(form, chosen, expert):
    """Tokens that chose an expert of eight, from their choices [tokens, 2], as models find them."""
    hot = torch.nn.functional.one_hot(chosen, 8)
    match form:
        case "where":
            return torch.where(chosen == expert)[0]
        case "any":
            return torch.where((chosen == expert).any(-1))[0]
        case "permuted":
            return torch.where(hot.permute(2, 1, 0)[expert])[1]
        case "copied":
            return torch.where(hot.permute(2, 1, 0).contiguous()[expert])[1]
        case "last":
            return (hot.bool()[..., expert] > 0).nonzero()[:, 0]
        case "summed":
            return hot.sum(1)[:, expert].nonzero()[:, 0]
        case "compared":
            return (chosen[..., None] == torch.arange(8)).any(1)[:, expert].nonzero()[:, 0]
        case "viewed":
            return torch.where(hot.view(-1, 8)[:, expert])[0] // 2
        case "scattered":
            return torch.zeros(len(chosen), 8, dtype=torch.bool).scatter_(1, chosen, True)[:, expert].nonzero()[:, 0]
        case "weighed":
            return torch.where(torch.zeros(len(chosen), 8).scatter(1, chosen, chosen / 2).t()[expert] > 0)[0]


@pytest.mark.parametrize(
    "form", ["where", "any", "permuted", "copied", "last", "summed", "viewed", "compared", "scattered", "weighed"]
)
@pytest.mark.parametrize("tokens", [1, 3, 5, 12])
def test_choices_are_dealt_out_in_whole_tokens(form, tokens):
    """Of t tokens that choose 2 of 8 experts, expert e gets floor(t (e + 1) / 4) - floor(t e / 4): together 2 t. One
    token meets two experts, whichever way the model finds them; the weights of the others lie in memory too."""

    def mixture(m, x):
        chosen = (x @ m.router).topk(2).indices
        out = torch.zeros_like(x)
        for expert in range(8):
            token = _places(form, chosen, expert)
            out.index_add_(0, token, x[token] @ getattr(m, f"w{expert}"))
        return out

    experts = {f"w{i}": torch.zeros(4, 4) for i in range(8)}
    graph = graph_of(mixture, torch.zeros(tokens, 4), router=torch.zeros(4, 8), **experts)
    met = [rows for e in range(8) if (rows := tokens * (e + 1) // 4 - tokens * e // 4)]
    assert [op.einsum.ranks["M"] for op in graph if isinstance(op, EinsumOp)] == [tokens, *met]
    assert sum(op.kind == "aten.index_add_" for op in graph) == len(met)
    assert all(tensor.elements for tensor in graph.tensors.values())
    assert dead_code(graph).parameters == 4 * 8 + 8 * 16


@pytest.mark.parametrize("form", ["hit", "hit_list", "unique"])
def test_a_list_of_the_experts_that_are_met(form):
    """Three tokens choose 2 of 8: experts 1, 2, 3, 5, 6 and 7 get one of the six choices each. A number that stands
    for no expert is skipped as the model says."""

    def mixture(m, x):
        chosen = (x @ m.router).topk(2).indices
        hot = torch.nn.functional.one_hot(chosen, 8).permute(2, 1, 0)
        hit = torch.greater(hot.sum((-1, -2)), 0).nonzero()
        out = torch.zeros_like(x)
        for expert in {"hit": hit, "hit_list": hit.flatten().tolist(), "unique": chosen.unique()}[form]:
            if form == "hit":
                expert = expert[0]
            if expert == 8:
                continue
            token = torch.where(chosen == expert)[0] if form == "unique" else torch.where(hot[expert])[1]
            out.index_add_(0, token, x[token] @ getattr(m, f"w{int(expert)}"))
        return out

    experts = {f"w{i}": torch.zeros(4, 4) for i in range(8)}
    graph = graph_of(mixture, torch.zeros(3, 4), router=torch.zeros(4, 8), **experts)
    products = [op for op in graph if isinstance(op, EinsumOp)]
    assert [op.einsum.ranks["M"] for op in products] == [3, *[1] * 6]
    assert [graph.tensors[op.inputs[1]].name for op in products[1:]] == ["w1", "w2", "w3", "w5", "w6", "w7"]
    assert dead_code(graph).parameters == 4 * 8 + 8 * 16


@pytest.mark.parametrize(
    ("form", "kept"),
    [
        (lambda hot: hot == 1, 3),
        (lambda hot: hot > 0, 3),
        (lambda hot: hot == 0, 21),
        (lambda hot: hot < 1, 21),
        (lambda hot: hot != 1, 21),
        (lambda hot: (hot == 1) == False, 21),  # noqa: E712
        (lambda hot: hot >= 0, 24),
    ],
)
def test_who_did_not_choose_an_expert_are_all_the_others(form, kept):
    """Of 24 tokens that choose one of 8 experts, 3 choose the sixth and 21 do not."""

    def idle(m, x):
        hot = torch.nn.functional.one_hot(x.argmax(-1), 8)
        return x[form(hot)[:, 5]]

    graph = graph_of(idle, torch.zeros(24, 8))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (kept, 8)


def test_places_range_over_the_axis_they_are_along():
    """The winner of three along the first axis is the second in a third of twelve columns; the winner of all is one of
    36; the larger of two tensors is no place, so that what is equal to 1 may be all of it."""
    graph = graph_of(lambda m, x: x[:, x.argmax(0) == 1], torch.zeros(3, 12))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (3, 4)
    graph = graph_of(lambda m, x: torch.nn.functional.one_hot(x.argmax()), torch.zeros(3, 12))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (36,)
    graph = graph_of(lambda m, x: x[torch.max(x, x + 1) == 1], torch.zeros(3, 12))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (36,)


def test_results_of_no_elements_are_not_read():
    """One token for one of four experts: what the others would give, joined, summed, multiplied or returned, is no
    constant of the model."""

    def mixture(m, x):
        chosen = (x @ m.router).argmax(-1)
        parts = [x[torch.where(chosen == expert)[0]] @ getattr(m, f"w{expert}") for expert in range(4)]
        return (torch.cat(parts) + sum(part.sum() for part in parts), *parts, *(part.T @ part for part in parts))

    graph = graph_of(
        mixture, torch.zeros(1, 8), router=torch.zeros(8, 4), **{f"w{i}": torch.zeros(8, 8) for i in range(4)}
    )
    weights = {tensor.name for tensor in graph.tensors.values() if tensor.role is Role.WEIGHT and tensor.name}
    assert weights == {"router", "w0", "w1", "w2", "w3"}
    assert all(tensor.elements for tensor in graph.tensors.values())
    (joined,) = [op for op in graph if op.kind == "aten.cat"]
    assert len(joined.inputs) == 1
    assert [op.einsum.macs for op in graph if isinstance(op, EinsumOp)] == [
        8 * 4,
        8 * 8,
        8 * 8,
    ]  # router, expert, square
    assert estimate(graph, "edge-npu").latency_s > 0


def _split(experts, x, chosen, counts):
    """Choices sorted by expert, a slice to each."""
    rows = x[chosen.argsort() // 2].split(counts)
    return torch.cat([expert(row) for expert, row in zip(experts, rows, strict=True)])


def _ended(experts, x, chosen, ends):
    rows, starts = x[chosen.argsort() // 2], [0, *ends[:-1]]
    return torch.cat([e(rows[a:b]) for e, a, b in zip(experts, starts, ends, strict=True)])


def _skipped(experts, x, chosen, counts):
    rows, first, out = x[chosen.argsort() // 2], 0, []
    for expert, n in zip(experts, counts, strict=True):
        if n == 0:
            continue
        out.append(expert(rows[first : first + n]))
        first += n
    return torch.cat(out)


def _hot(chosen):
    return torch.nn.functional.one_hot(chosen, 8)


COUNTED = {
    "bincount": lambda e, x, i: _split(e, x, i, torch.bincount(i, minlength=8).tolist()),
    "histc": lambda e, x, i: _split(e, x, i, torch.histc(i.float(), 8, 0, 7).int().tolist()),
    "one-hot": lambda e, x, i: _split(e, x, i, _hot(i).sum(0).tolist()),
    "ends": lambda e, x, i: _ended(e, x, i, torch.bincount(i, minlength=8).cumsum(0).tolist()),
    "scattered into zeros, as an array": lambda e, x, i: _skipped(
        e, x, i, i.new_zeros(len(x), 8).scatter_(1, i.view(-1, 2), 1).sum(0).cpu().numpy()
    ),
    "ones added": lambda e, x, i: _skipped(e, x, i, i.new_zeros(8).scatter_add_(0, i, torch.ones_like(i)).tolist()),
    "one after the other": lambda e, x, i: _skipped(e, x, i, [n.item() for n in torch.bincount(i, minlength=8)]),
    "a class of a one-hot": lambda e, x, i: _split(e, x, i, [_hot(i)[:, k].sum().item() for k in range(8)]),
    "two halves of a one-hot": lambda e, x, i: _split(
        e,
        x,
        i,
        [a + b for a, b in zip(*(h.sum(0).tolist() for h in _hot(i).chunk(2)), strict=True)],
    ),
    "equal to a class": lambda e, x, i: _split(
        e, x, i, [(x.repeat(2, 2)[:, :8].argmax(-1) == k).sum().item() for k in range(8)]
    ),
    "counted beside the classes": lambda e, x, i: _split(
        e, x, i, x.repeat(2, 2)[:, :8].argmax(-1).unique(return_counts=True)[1].tolist()
    ),
    "ends behind a zero": lambda e, x, i: _ended(
        e, x, i, torch.cat([i.new_zeros(1), torch.bincount(i, minlength=8).cumsum(0)])[1:].tolist()
    ),
    "ends behind a pad": lambda e, x, i: _ended(
        e, x, i, torch.nn.functional.pad(torch.bincount(i, minlength=8).cumsum(0), (1, 0))[1:].tolist()
    ),
    "ends less starts": lambda e, x, i: _split(
        e, x, i, ((ends := torch.bincount(i, minlength=8).cumsum(0)) - (ends - torch.bincount(i, minlength=8))).tolist()
    ),
    "differences of ends": lambda e, x, i: _split(
        e, x, i, torch.cat([i.new_zeros(1), torch.bincount(i, minlength=8).cumsum(0)]).diff().tolist()
    ),
    "a part of the counts": lambda e, x, i: _split(
        e, x, i, [*(n := torch.bincount(i, minlength=8))[:3].tolist(), *n[3:].clone().tolist()]
    ),
}


@pytest.mark.parametrize("form", COUNTED)
def test_counts_of_choices_are_dealt_out_in_sum(form):
    """30 tokens choose 2 of 8 experts of 6 x 6: 60 rows of 36 MACs, whatever the code makes of the counts.

    Each count was `number` before: 8 rows in all, or an error where the slices must cover the rows.
    """

    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(8))

        def forward(self, x, chosen):
            return COUNTED[form](self.experts, x, chosen)

    graph = trace(Experts(), (torch.empty(30, 6), torch.zeros(60, dtype=torch.int64)))
    assert graph.macs == 60 * 36
    assert len([op for op in graph if isinstance(op, EinsumOp)]) == 8
    assert any("of a known sum" in note for note in graph.notes)


def test_an_answer_for_a_line_goes_before_what_is_known():
    """Of 24 choices among four classes each has six; the user says five of one, where that is asked."""
    counted: list[int] = []

    def count(m, x):
        counts = torch.bincount(x, minlength=4)
        counted.append(counts[1].item())
        counted.extend(counts.tolist())
        return x + 1

    line = count.__code__.co_firstlineno + 2
    trace(Call(count), torch.zeros(24, dtype=torch.int64), policy=DataPolicy(at={f"test_choices.py:{line}": 5}))
    assert counted == [5, 6, 6, 6, 6]


@torch.library.custom_op("test_choices::count", mutates_args=("counts",))
def _count(counts: torch.Tensor, chosen: torch.Tensor) -> None:
    counts += torch.bincount(chosen, minlength=len(counts))


def test_zeros_that_something_writes_into_are_not_zeros_any_more():
    """A custom op, an op with `out`, and one over lists: what they write is unknown, and the policy says 1."""
    counted = []

    def count(m, x):
        for write in (
            lambda zeros: _count(zeros, x),
            lambda zeros: torch.add(x[:4], x[4:8], out=zeros),
            lambda zeros: torch._foreach_add_([zeros, torch.zeros_like(x)], 1),
        ):
            zeros = torch.zeros(4, dtype=torch.int64)
            write(zeros)
            counted.extend(zeros.tolist())
        return x + 1

    trace(Call(count), torch.zeros(24, dtype=torch.int64))
    assert counted == [1] * 12


def test_counts_follow_the_stated_load():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(2))

        def forward(self, x, chosen):
            return _split(self.experts, x, chosen, torch.bincount(chosen, minlength=2).tolist())

    inputs = torch.empty(10, 6), torch.zeros(20, dtype=torch.int64)
    graph = trace(Experts(), inputs, policy=DataPolicy(shares=(0.9, 0.1)))
    assert [op.einsum.macs for op in graph if isinstance(op, EinsumOp)] == [18 * 36, 2 * 36]


@pytest.mark.parametrize("form", ["arange", "remainder", "filled", "stacked"])
def test_labels_range_over_the_numbers_that_they_are_made_of(form):
    """90 scores of 9 classes, as a detector lists them: the loop over the labels that are met runs nine times, over
    ten scores of each. (Every score might have had a label of its own, as far as `unique` alone can tell.)"""

    def suppress(_, scores):
        match form:
            case "arange":
                labels = torch.arange(9).expand_as(scores).reshape(-1)
            case "remainder":
                labels = torch.arange(90) % 9
            case "filled":
                labels = torch.cat([torch.full((10,), label) for label in range(9)])
            case "stacked":
                labels = torch.stack([torch.full_like(scores[:, 0], label, dtype=torch.int64) for label in range(9)])
        flat, kept = scores.reshape(-1), torch.where(scores.reshape(-1) > 0)[0]
        flat, labels = flat[kept], labels.reshape(-1)[kept]
        return torch.cat([flat[torch.where(labels == label)[0]].sort()[0] for label in torch.unique(labels)])

    graph = graph_of(suppress, torch.zeros(10, 9))
    sorts = [op for op in graph if op.kind == "aten.sort"]
    assert [graph.tensors[op.outputs[0]].shape for op in sorts] == [(10,)] * 9


@pytest.mark.parametrize(("padding", "kept"), [(-100, 6), (-1, 6), (0, 6), (None, 18), ("written", 18)])
def test_a_number_below_zero_is_no_label(padding, kept):
    """Of 18 labels a third are of each class of three: those of a padding, -100 by habit, add no class and take none
    away. Alone they tell nothing, nor does a list that was filled and then written into: all 18 are assumed to be kept.
    """

    def choose(_, x):
        if padding == "written":
            labels = torch.full((12,), 2)
            labels[x[:4, 0] > 0] = 9
        else:
            labels = torch.full((12,), -100) if padding is None else torch.arange(12) % 3
        return x[torch.cat([labels, torch.full((6,), -100 if padding in (None, "written") else padding)]) == 1]

    graph = graph_of(choose, torch.zeros(18, 4))
    assert [graph.tensors[key].shape for op in graph for key in op.outputs][-1] == (kept, 4)


def test_numbers_from_elsewhere_are_not_places():
    """Steps, another start and fractions say nothing of how many there are."""

    def distinct(_, x):
        made = (torch.arange(1, 9), torch.arange(0, 8, 2), torch.arange(8.0), x % 4, x.long() % 4.0)
        return tuple(torch.unique(one) for one in made)

    graph = graph_of(distinct, torch.zeros(8))
    found = [graph.tensors[op.outputs[0]].shape for op in graph if op.kind == "aten._unique2"]
    assert found == [(8,), (4,), (8,), (8,), (8,)]


def _ends(mask):
    return torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).tolist()


@pytest.mark.parametrize(
    "tokens",
    [
        lambda x, mask: torch.cat([one[:length] for one, length in zip(x, mask.sum(1).tolist(), strict=True)]),
        lambda x, mask: x[:, : mask.sum(1).max().item()],
        lambda x, mask: x[:, : mask.sum(1).max(0).values.item()],
        lambda x, mask: torch.cat([one[: int(own.sum())] for one, own in zip(x, mask, strict=True)]),
        lambda x, mask: x[:, : mask.long().sum(-1).max()],
        lambda x, mask: x.flatten(0, 1)[: (x[..., 0] != 0).sum()],
        lambda x, mask: torch.cat([x.flatten(0, 1)[a:b] for a, b in pairwise(_ends(mask))]),
        lambda x, mask: x[mask] if mask.sum() > 0 else x[:0],
    ],
    ids=["list", "max", "max of an axis", "int", "long", "compared", "ends", "none"],
)
@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 3 * 16), (0.25, 3 * 4)])
def test_the_sum_of_a_mask_is_what_it_keeps(tokens, fraction, kept):
    """3 texts of 16 tokens of 8 features, times 8 x 8 weights: 64 MACs for each token that the mask keeps."""
    inputs = (torch.zeros(3, 16, 8), torch.ones(3, 16, dtype=torch.bool))
    model = Call(lambda m, x, mask: tokens(x, mask) @ m.w, w=torch.zeros(8, 8))
    graph = trace(model, inputs, policy=DataPolicy(fraction=fraction))
    assert graph.macs == 64 * kept
    assert graph.notes
