"""A row of a sweep is the estimate of its chip where what a norm reads depends on the memory."""

import torch

import sim


class Norms(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.GroupNorm(8, 64)

    def forward(self, x):
        return self.norm(x * 2)


def test_what_a_norm_reads_again_depends_on_each_designs_memory():
    """2 MiB of int8 that do not fit 1 MiB are read more than once; they are in 16 MiB, whichever comes first."""
    graph = sim.trace(Norms(), (torch.zeros(1, 64, 256, 128),))
    sizes = ["16 MiB", "1 MiB"]
    for order in (sizes, sizes[::-1]):
        rows = sim.sweep(graph, "systolic", {"SRAM.capacity": order}, precisions=["int8"])["latency_s"]
        alone = [
            sim.estimate(graph, sim.load_hardware("systolic", {"SRAM.capacity": size}), precision="int8")
            for size in order
        ]
        assert rows.tolist() == [one.latency_s for one in alone]
        assert max(rows) > 1.2 * min(rows)
