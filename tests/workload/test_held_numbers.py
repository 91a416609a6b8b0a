"""Whole numbers that a model makes or holds itself keep their values."""

import inspect

import pytest
import torch
from calls import Call, graph_of
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import sim
from sim.workload.trace import trace


def test_a_division_of_sizes_is_a_number():
    """torch.div of two Python numbers, as Longformer writes it: 512 // 256 - 1 = 1 chunk, no question asked."""

    def chunks(m, x):
        count = torch.div(x.shape[0], 256, rounding_mode="trunc") - 1
        return x.new_zeros(count + 1, 4) + 1

    graph = graph_of(chunks, torch.zeros(512))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (2, 4)
    assert not graph.notes


def test_whole_numbers_in_a_tensor_are_known():
    """torch.IntTensor([6])[0] as a size, as VITS writes it."""
    graph = graph_of(lambda m, x: x[: torch.IntTensor([6])[0]] * 2, torch.zeros(8))
    assert graph.tensors[graph.ops[-1].outputs[0]].shape == (6,)
    assert not graph.notes


class Framed(nn.Module):
    """A convolution that pads its input to whole frames, from numbers that it keeps in buffers, as EnCodec does."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 2, 7, stride=4)
        size, stride = torch.tensor(self.conv.kernel_size[0]), torch.tensor(self.conv.stride[0])
        self.register_buffer("stride", stride)
        self.register_buffer("total", size - stride)
        self.left = self.total // 2

    def forward(self, x):
        frames = torch.ceil(x.shape[-1] / self.stride).to(torch.int64)
        right = self.total - self.left + frames * self.stride - x.shape[-1]
        return self.conv(nn.functional.pad(x, (self.left, right)))


def test_a_whole_number_in_a_buffer_keeps_its_value(tmp_path):
    """10 elements: 3 frames of 4, so that 2 + 3 are padded and 3 results of 2 channels have 7 MACs each."""
    assert trace(Framed(), torch.zeros(1, 1, 10)).macs == 3 * 2 * 7
    counted = trace(Call(lambda m, x, n: x[: int(n)] @ m.w, w=torch.zeros(4, 4)), (torch.zeros(8, 4), torch.tensor(3)))
    assert counted.macs == 16  # an input's value is data: 1 is assumed
    assert counted.notes
    source = inspect.getsource(Framed)
    path = tmp_path / "framed.py"
    build = "def build():\n    return Framed(), torch.zeros(1, 1, 10)\n"
    path.write_text(f"import torch\nfrom torch import nn\n\n\n{source}\n\n{build}")
    assert sim.load_workload(path).macs == 3 * 2 * 7


@pytest.mark.parametrize(
    "work",
    [
        lambda m, x: x.reshape(m.n, -1) @ m.w.reshape(-1, m.n),
        lambda m, x: functional.conv1d(x[None], m.w[:, :, None], stride=m.n),
        lambda m, x: x.repeat(m.n, 1) @ m.w,
        lambda m, x: (torch.clamp(m.n, max=x.sum().long()) * x) @ m.w,
        lambda m, x: x.index_put((m.n,), x[0]) @ m.w,
        lambda m, x: x.repeat(m.n, 1) @ m.w if m.n.add_(x.repeat(m.n, 1).shape[0]) else x,
    ],
    ids=["reshape", "stride", "repeat", "clamp", "index", "counted on"],
)
def test_a_held_number_stands_alone_as_it_does_in_a_list(work):
    """As a bare argument it has its value, and where a tensor is asked for it is one: MACs are torch's on data."""
    x = torch.zeros(4, 4)
    run, traced = (Call(work, w=torch.zeros(4, 4), n=torch.tensor(2)) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        run(x)
    assert trace(traced, (x,)).macs == counter.get_total_flops() / 2 > 0


def test_a_held_number_is_unknown_once_data_is_written_into_it():
    """Of 2 rows; then of as many as the input says, which is 1 as assumed and noted."""
    made = {"w": torch.zeros(4, 4), "n": torch.tensor(2)}
    before = trace(Call(lambda m, x: x[: m.n] @ m.w, **made), (torch.zeros(8, 4),))
    after = trace(Call(lambda m, x: x[: m.n.copy_(x.sum().long())] @ m.w, **made), (torch.zeros(8, 4),))
    later = trace(Call(lambda m, x: (m.n.copy_(x.sum()), x[: m.n] @ m.w)[1], **made), (torch.zeros(8, 4),))
    assert (before.macs, after.macs, later.macs) == (32, 16, 16)
    assert not before.notes
    assert after.notes
    assert later.notes


def test_an_input_of_one_number_is_on_meta_where_the_model_is(tmp_path):
    """`step[None]` would not mix with the model's tensors, were it on the CPU: the model is run there too."""
    path = tmp_path / "stepped.py"
    path.write_text(
        "import torch\n\n\nclass Stepped(torch.nn.Linear):\n    def forward(self, x, step):\n"
        "        return super().forward(x + step[None].float() * self.bias)\n\n\n"
        "def build():\n    return Stepped(4, 4), (torch.zeros(2, 4), torch.tensor(7))\n"
    )
    module, (x, step) = sim.Workload(path).build(device="meta")
    assert module(x, step).shape == (2, 4)
