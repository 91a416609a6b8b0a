"""Kernels of sparse weights that an array takes in several passes."""

import pytest
import torch
from torch import nn

import sim
from sim.schedule.residency import storages
from sim.workload.graph import EinsumOp, OperandRole
from sim.workload.passes import PassLimit, fuse_epilogues, sparsify, split_sparse_passes


class Net(nn.Module):
    """A residual add after the second convolution, so that an epilogue with an input of its own is split too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, 64, 3, padding=1)
        self.second = nn.Conv2d(64, 80, 3, padding=1)
        self.short = nn.Conv2d(64, 80, 1)

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))) + self.short(x))


def _graph():
    return sparsify(fuse_epilogues(sim.trace(Net(), (torch.zeros(1, 64, 10, 12),))), "2:4")


def _limit(size: float, **changes) -> PassLimit:
    return PassLimit(**{"bytes": size, "patterns": ("2:4",), "min_channels": 1, "kernels": 16, **changes})


def _weights(graph):
    return {
        op.name: graph.tensors[op.einsum.operand(OperandRole.WEIGHT).tensor] for op in graph if isinstance(op, EinsumOp)
    }


def test_kernels_come_in_whole_multiples_of_what_the_array_takes():
    """A kernel of 64 x 9 fp32 weights, half of them kept with 2 bits of position: 288 x 34 bits = 1,224 bytes.

    45,000 bytes hold 36 kernels, in multiples of 16: 32. 64 kernels are 32 + 32, 80 are 32 + 32 + 16; the 1x1
    convolution's kernels (136 bytes) fit at once.
    """
    before, after = _graph(), split_sparse_passes(_graph(), _limit(45_000))
    kernels = [t.shape[0] for t in _weights(after).values()]
    assert sorted(kernels) == sorted([32, 32, 32, 32, 16, 80])
    assert after.macs == before.macs
    assert sum(t.size_bytes for t in _weights(after).values()) == sum(t.size_bytes for t in _weights(before).values())


def test_every_pass_reads_the_whole_input_and_its_share_of_the_rest():
    after = split_sparse_passes(_graph(), _limit(45_000))
    parts = [op for op in after if isinstance(op, EinsumOp) and op.module == "second"]
    assert len(parts) == 3
    assert len({op.einsum.operand(OperandRole.INPUT).tensor for op in parts}) == 1
    for op, kernels in zip(parts, (32, 32, 16), strict=True):
        shapes = [after.tensors[key].shape for key in op.inputs]
        assert shapes.count((1, kernels, 10, 12)) == 1, "the residual's part"
        assert after.tensors[op.outputs[0]].shape == (1, kernels, 10, 12)
    made = {after.tensors[op.outputs[0]].storage for op in parts}
    assert len(made) == 1, "the parts lie in one result"
    whole, sizes, _ = storages(after)
    assert sizes[whole[parts[0].outputs[0]]] == 80 * 10 * 12 * 4


def test_parts_that_two_products_share_are_made_once():
    """A residual whose producer is split too: every tensor has one producer, and none is lost."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(2))

        def forward(self, x):
            y = torch.relu(self.first(x))
            return torch.relu(self.second(y) + y)

    graph = sparsify(fuse_epilogues(sim.trace(Chain(), (torch.zeros(1, 64, 10, 12),))), "2:4")
    after = split_sparse_passes(graph, _limit(45_000))
    made = [key for op in after for key in op.outputs]
    assert len(made) == len(set(made))
    assert after.macs == graph.macs
    assert sum(isinstance(op, EinsumOp) for op in after) == 4


def test_a_linear_layer_whose_weight_is_seen_through_a_view():
    """512 x 1000 weights: parts of the view replace it, and nothing is counted twice."""
    graph = sparsify(fuse_epilogues(sim.trace(nn.Linear(512, 1000), (torch.zeros(3, 512),))), "2:4")
    after = split_sparse_passes(graph, _limit(300_000))
    parts = _weights(after)
    assert len(parts) == 4  # a kernel is 256 x 34 bits = 1,088 bytes: 272 a pass
    stored = {t.storage or t.id for t in after.tensors.values() if t.id in {w.id for w in parts.values()}}
    assert len(stored) == 4
    assert after.parameters == graph.parameters
    est = sim.estimate(graph, sim.load_hardware("orin-dla"), precision="int8")
    assert est.roofline_latency_s <= est.latency_s


@pytest.mark.parametrize(
    "limit", [_limit(1e9), _limit(45_000, patterns=("1:4",)), _limit(45_000, min_channels=65)], ids=str
)
def test_what_fits_or_runs_dense_stays_whole(limit):
    graph = _graph()
    assert split_sparse_passes(graph, limit) is graph


def test_estimate_and_simulate_agree_and_passes_cost_time():
    """The Orin DLA's passes read a large map again; without the limit the network is faster."""
    graph = sparsify(sim.trace(nn.Conv2d(256, 256, 3, padding=1), (torch.zeros(1, 256, 100, 100),)), "2:4")
    chip = sim.load_hardware("orin-dla")
    est, run = sim.estimate(graph, chip), sim.simulate(graph, chip)
    assert run.latency_s == pytest.approx(est.latency_s, rel=0.02)
    assert est.latency_s == pytest.approx(sum(op.latency_s for op in est.ops))
    assert est.latency_s >= est.roofline_latency_s
    free = sim.estimate(graph, sim.load_hardware("orin-dla", {"array.sparse_pass": "1 GiB"}))
    assert free.latency_s < est.latency_s
    assert free.traffic_bytes["DRAM"].read < est.traffic_bytes["DRAM"].read
    table = sim.sweep(graph, chip, {"DRAM.bandwidth": ["102.4 GB/s", "50 GB/s"]})
    assert table["latency_s"][0] == est.latency_s
