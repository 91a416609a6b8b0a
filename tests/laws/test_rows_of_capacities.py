"""A row of a sweep is the estimate of its chip where what moves depends on a capacity."""

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


def test_what_stays_on_a_unit_by_roofline_depends_on_each_designs_memory():
    """Two layers with 8 MiB between them, which half of 64 MiB holds and half of 1 MiB does not."""
    graph = sim.trace(
        torch.nn.Sequential(torch.nn.Linear(64, 1024), torch.nn.Linear(1024, 64)), (torch.zeros(4096, 64),)
    )
    sizes = ["64 MiB", "1 MiB"]
    rows = sim.sweep(graph, "jetson-orin", {"L2.capacity": sizes}, inputs="resident")["latency_s"]
    alone = [
        sim.estimate(graph, sim.load_hardware("jetson-orin", {"L2.capacity": size}), inputs="resident").latency_s
        for size in sizes
    ]
    assert rows.tolist() == alone
    assert alone[0] < alone[1]


class Gates(torch.nn.Module):
    def forward(self, x, y):
        a = torch.softmax(x, -1)
        b = a * y
        c = torch.relu(b) + x
        d = torch.softmax(c + a, -1) + b
        return torch.layer_norm(d + c, (512,))


def test_a_row_is_not_what_was_costed_for_other_rows():
    """Without a product every design has numbers in the second order of residency, which 1300 KiB alone ask for."""
    graph = sim.trace(Gates(), (torch.zeros(512, 512), torch.zeros(512, 512)))
    sizes = ["512 KiB", "700 KiB", "1300 KiB"]
    rows = sim.sweep(graph, "edge-npu", {"SRAM.capacity": sizes})["latency_s"]
    alone = [sim.estimate(graph, sim.load_hardware("edge-npu", {"SRAM.capacity": size})).latency_s for size in sizes]
    assert rows.tolist() == alone


def test_a_row_finds_the_price_of_a_second_as_it_would_alone():
    """Of energy x delay: 48 KiB at 2 GB/s has found it when 48 KiB at 20 GB/s looks once more."""
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    graph = sim.trace(torch.nn.TransformerEncoder(layer, 2).eval(), (torch.zeros(2, 64, 64),))
    rates = ["2 GB/s", "20 GB/s"]
    chip = sim.load_hardware("edge-npu", {"SRAM.capacity": "48 KiB"})
    rows = sim.sweep(graph, chip, {"DRAM.bandwidth": rates}, objective="edp")["latency_s"]
    alone = [sim.estimate(graph, chip.set("DRAM.bandwidth", rate), objective="edp").latency_s for rate in rates]
    assert rows.tolist() == alone
