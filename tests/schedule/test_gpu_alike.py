"""What ops of a GPU's network must share to be costed as one kernel: each costs what it costs on its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import sim
from sim.workload.graph import EinsumOp
from sim.workload.passes import PrecisionPolicy
from sim.workload.precision import parse_precision

HEADS, TOKENS, DIM = 16, 1024, 64


class Chain(torch.nn.Module):
    """Steps one after the other, each of what is so far and of the other inputs."""

    def __init__(self, *steps) -> None:
        super().__init__()
        self.steps = torch.nn.ModuleList(steps)

    def forward(self, x, *others):
        for step in self.steps:
            x = step(x, *others)
        return x + 1


class Step(torch.nn.Module):
    def __init__(self, work) -> None:
        super().__init__()
        self.work = work

    def forward(self, *inputs):
        return self.work(*inputs)


def dram_bytes(chain, inputs, kind: str) -> list[float]:
    """Of the ops of a kind on an H100 in bf16 that keeps nothing in L2."""
    found = sim.estimate(
        sim.trace(chain, inputs), sim.load_hardware("h100-sxm"), precision="bf16", calibration="none", inputs="resident"
    )
    assert found.latency_s >= found.roofline_latency_s
    assert all(op.latency_s >= op.roofline_s * (1 - 1e-9) for op in found.ops)
    moved = [op.traffic_bytes["DRAM"] for op in found.ops if kind in op.kind]
    return [sum(one.read + one.write for one in operands.values()) for operands in moved]


@pytest.mark.parametrize("order", ["so", "os"])
def test_an_operand_that_is_both_factors_is_read_once(order: str):
    """x x reads one tensor and x y two: 1,024 x 1,024 in bf16 are 2 MiB each, and so is the result."""
    steps = {"s": lambda x, y: x * x, "o": lambda x, y: x * torch.relu(y)}
    chain = Chain(Step(lambda x, y: torch.relu(x)), *(Step(steps[name]) for name in order))
    sizes = {"s": 2 * 2**21, "o": 3 * 2**21}
    inputs = (torch.zeros(1024, 1024), torch.zeros(1024, 1024))
    assert dram_bytes(chain, inputs, "mul") == [sizes[name] for name in order]


@pytest.mark.parametrize("order", ["mp", "pm"])
def test_attention_reads_a_mask_where_it_has_one(order: str):
    """Queries, keys, values and result of 16 x 1,024 x 64 in bf16, and a mask of 16 x 1,024 x 1,024."""
    steps = {
        "m": lambda q, k, v, mask: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        "p": lambda q, k, v, mask: functional.scaled_dot_product_attention(q, k, v),
    }
    chain = Chain(Step(lambda q, *_: torch.relu(q)), *(Step(steps[name]) for name in order))
    plain = 4 * HEADS * TOKENS * DIM * 2
    sizes = {"p": plain, "m": plain + HEADS * TOKENS * TOKENS * 2}
    inputs = (*(torch.zeros(1, HEADS, TOKENS, DIM) for _ in range(3)), torch.zeros(1, HEADS, TOKENS, TOKENS))
    assert dram_bytes(chain, inputs, "scores") == [sizes[name] for name in order]


def test_attention_in_another_type_is_not_as_fast():
    """Law 1 with one attention of three in fp32: its products run at 61.8 TFLOPS, not at 989."""
    chain = Chain(*(Step(functional.scaled_dot_product_attention) for _ in range(3)))
    graph = sim.trace(chain, tuple(torch.zeros(1, HEADS, TOKENS, DIM) for _ in range(3)))
    policy = PrecisionPolicy(default=parse_precision("bf16"), ops={"steps.1*": parse_precision("fp32")}, name="one")
    found = sim.estimate(graph, sim.load_hardware("h100-sxm"), precision=policy, calibration="none", inputs="resident")
    assert found.latency_s >= found.roofline_latency_s
    slow = next(op for op in found.ops if op.name == "steps.1.scores")
    assert slow.latency_s >= 2 * 2 * HEADS * TOKENS * TOKENS * DIM / (132 * 128 * 2 * 1.83e9)


@pytest.mark.parametrize("gpu", ["h100-sxm", "h200-torch"])
@pytest.mark.parametrize("patterns", [("2:4", "unstructured"), ("unstructured", "2:4")])
def test_equal_bytes_of_zeros_that_follow_no_pattern_save_no_time(gpu: str, patterns: tuple[str, str]):
    """Half of the weights of the second and third of four layers; the matrix units skip those of 2:4 alone."""
    layers = (torch.nn.Linear(4096, 4096, bias=False) for _ in range(4))
    graph = sim.trace(torch.nn.Sequential(*layers), (torch.zeros(4096, 4096),))
    weights = [op.einsum.operands[1].tensor for op in graph if isinstance(op, EinsumOp)]
    storages = {graph.tensors[k].storage or k: p for k, p in zip(weights[1:3], patterns, strict=True)}
    marked = {
        key: replace(t, density=0.5, bits=t.bits + 2, pattern=storages[t.storage or key])
        if (t.storage or key) in storages
        else t
        for key, t in graph.tensors.items()
    }
    found = sim.estimate(graph.with_(tensors=marked), sim.load_hardware(gpu), precision="bf16", inputs="resident")
    assert found.effective_macs == found.macs * (1 + 0.5 + 1 + 1) / 4
    times = dict(zip(patterns, (op.latency_s for op in found.ops[1:3]), strict=True))
    assert times["2:4"] < 0.75 * times["unstructured"]


def test_many_short_rows_and_few_long_ones_are_two_kernels():
    """Law 6: the order of two softmaxes of equal work changes nothing."""

    class Two(torch.nn.Module):
        def __init__(self, first: str) -> None:
            super().__init__()
            self.first = first

        def forward(self, x, y):
            if self.first == "x":
                return functional.softmax(x, -1), functional.softmax(y, 0)
            down = functional.softmax(y, 0)
            return functional.softmax(x, -1), down

    chip = sim.load_hardware("h100-sxm")
    inputs = (torch.zeros(8, 100_000), torch.zeros(100_000, 8))
    one, other = (sim.estimate(sim.trace(Two(name), inputs), chip, inputs="resident") for name in "xy")
    assert one.latency_s == pytest.approx(other.latency_s, rel=1e-12)


@pytest.mark.parametrize("gpu", ["a100-sxm", "h100-sxm", "h200-torch", "l4"])
@pytest.mark.parametrize(("keys", "values"), [(64, 256), (192, 128)])
def test_values_of_another_width_than_keys_are_multiplied_at_their_own(gpu: str, keys: int, values: int):
    """Scores and their products with the values have as many MACs as two of the mean width have, and take as long."""

    def estimate(*widths: int):
        shapes = ((4, 16, 4096, width) for width in (widths[0], *widths))
        graph = sim.trace(Chain(Step(functional.scaled_dot_product_attention)), tuple(map(torch.zeros, shapes)))
        return sim.estimate(graph, sim.load_hardware(gpu), precision="bf16", inputs="resident").ops[0]

    uneven, even = estimate(keys, values), estimate((keys + values) // 2, (keys + values) // 2)
    assert uneven.macs == even.macs
    assert 0 < uneven.mac_utilization <= 1
    assert uneven.latency_s == pytest.approx(even.latency_s, rel=1e-9)


@pytest.mark.parametrize(("gpu", "bytes_per_s"), [("l4", 300e9), ("t4", 320e9), ("h100-sxm", 3350e9)])
def test_a_mask_is_read_no_faster_than_dram_reads(gpu: str, bytes_per_s: float):
    """One for every score of 8 x 16 heads, 2,048 queries and keys, in 16 bits: 1 GiB, beside 32 MiB each of queries,
    keys, values and results. One for every key costs nothing beside the work."""
    chip = sim.load_hardware(gpu)
    step = Step(lambda q, k, v, mask=None: functional.scaled_dot_product_attention(q, k, v, attn_mask=mask))

    def latency_s(*masks):
        inputs = (*(torch.zeros(8, 16, 2048, 64) for _ in range(3)), *(torch.zeros(shape) for shape in masks))
        graph = sim.trace(Chain(step), inputs)
        return sim.estimate(graph, chip, precision="fp16", inputs="resident").ops[0].latency_s

    assert latency_s((8, 16, 2048, 2048)) >= (2**30 + 4 * 2**25) / bytes_per_s
    assert latency_s((8, 1, 1, 2048)) == latency_s()
