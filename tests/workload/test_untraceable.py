"""What cannot be traced is told with the line of the model and with what can; ops without a rule are listed."""

import pytest
import torch
from calls import Call, graph_of
from torch import nn

from sim.errors import DovetailError, TraceError
from sim.workload.graph import Primitive, UnsupportedOp
from sim.workload.summary import unsupported
from sim.workload.trace import Vector, register_rule, trace, unregister_rule
from sim.workload.trace.export import export


def test_a_model_that_raises_is_told_with_its_own_line():
    def wrong(m, x):
        return x @ x

    with pytest.raises(TraceError, match=r"test_untraceable\.py:\d+ in wrong: RuntimeError: .*2, 3") as caught:
        graph_of(wrong, torch.zeros(2, 3))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_traced_says_what_can():
    from torch.nn.attention.flex_attention import flex_attention

    with pytest.raises(TraceError, match="FlexAttention is not traced: call scaled_dot_product_attention"):
        graph_of(lambda m, q: flex_attention(q, q, q), torch.zeros(1, 1, 128, 16))


def test_an_op_that_torch_cannot_run_without_data_is_told_shortly():
    words = (
        r"test_untraceable\.py:\d+ in <lambda>: NotImplementedError: aten::geqrf: torch has no form of it that "
        r"runs without data; a custom op with a shape function \(register_fake\) and a rule can stand for it: "
        r"docs/extending\.md$"
    )
    with pytest.raises(TraceError, match=words):
        graph_of(lambda m, a: torch.geqrf(a)[0], torch.zeros(6, 4))
    with pytest.raises(TraceError, match=r"Call: torch\.export refuses it at test_untraceable\.py:\d+: .*aten::geqrf"):
        export(Call(lambda m, a: torch.geqrf(a)[0]), torch.zeros(6, 4))


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(4).to_sparse(), "sparse.* index_add"),
        (torch.eye(4).to_sparse_csr(), "sparse.* index_add"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested.*pad"),
        (torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8), "quantised.*--precision int8"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_cannot_be_without_data_are_refused(tensor, words):
    held, given = Call(lambda m, x: x @ m.table, table=tensor), Call(lambda m, x, y: x @ y)
    with pytest.raises(TraceError, match=f"Call: table cannot be traced: it is {words}"):
        trace(held, torch.ones(4, 4))  # a sparse one would count as dense
    with pytest.raises(TraceError, match=f"is given cannot be traced: it is {words}"):
        trace(given, (torch.ones(4, 4), tensor))


def test_inputs_that_do_not_fit_and_models_without_work():
    """Where only torch's own modules ran, the model's name stands for the user's line."""
    with pytest.raises(TraceError, match=r"^Linear on these inputs: RuntimeError: .*\[2, 4\] X \[3, 3\]"):
        trace(nn.Linear(3, 3), torch.zeros(2, 4))
    for idle in (nn.Sequential(), nn.Flatten()):
        with pytest.raises(TraceError, match="there is nothing to cost"):
            trace(idle, torch.zeros(2, 2, 2))


@torch.library.custom_op("dovetailtest::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@mystery.register_fake
def _(x):
    return torch.empty_like(x)


def test_an_op_without_a_rule_is_listed_with_its_line():
    graph = graph_of(lambda m, x: mystery(x) + 1, torch.zeros(3))
    op = graph.ops[0]
    assert isinstance(op, UnsupportedOp)
    assert op.kind == "dovetailtest.mystery"
    assert op.source.startswith("test_untraceable.py:")
    assert unsupported(graph) == (f"dovetailtest.mystery at {op.source} (1x)",)


def test_a_user_registers_a_rule():
    @register_rule("dovetailtest.mystery")
    def rule(call):
        return Vector({Primitive.EXP: 3 * call.out.numel()})

    try:
        graph = graph_of(lambda m, x: mystery(x), torch.zeros(5))
        assert graph.ops[0].primitives == {Primitive.EXP: 15}
        with pytest.raises(DovetailError, match="has a rule already"):
            register_rule("dovetailtest.mystery")(rule)
    finally:
        unregister_rule("dovetailtest.mystery")
    with pytest.raises(DovetailError, match=r"namespace\.op"):
        register_rule("mystery")
