"""Published whole-model results against the physical bounds of their machines: work over the peak, bytes over the
bandwidth, as far as the row says what ran."""

from collections.abc import Iterator, Mapping
from functools import cache

from sim.baseline.checks.edge_detectors import EDGE_NETWORKS
from sim.baseline.checks.eyeriss import ALEXNET_BATCH, VGG_BATCH
from sim.baseline.checks.networks import alexnet, vgg16
from sim.baseline.peaks import GPU_PEAKS, bound_s
from sim.baseline.published import fact, facts
from sim.baseline.record import BaselineRecord, read_baseline
from sim.baseline.workloads import workload_work
from sim.resources import data_dir

PEAKS = {"h200": "H200", "h100-sxm": "H100", "h100-pcie": "H100 PCIe", "a100-sxm": "A100-SXM4-80GB", "l40s": "L40S"}
"""Device of the records -> its ceilings."""
COMPUTE = {"fp8": "fp8_e4m3", "w4a16": "fp16", "w4a8": "fp8_e4m3"}
"""Published precision -> what its products run in, where that is another name."""
WEIGHT_BITS = {"bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "w4a16": 4, "w4a8": 4}
NOT_BUNDLED = {"sdxl", "unet3d", "dlrm-v2"}
"""Workloads of which nothing here counts the work."""
SQUAD_TOKENS = 384
EXCEPTIONS: Mapping[tuple[str, str, str, str], str] = dict.fromkeys(
    (
        ("h200", "bert-large", "int8", "Offline"), ("h200", "bert-large", "fp16", "Offline"),
        ("h100-pcie", "bert-large", "fp16", "Offline"), ("h100-sxm", "bert-large", "int8", "Offline"),
        ("a100-sxm", "bert-large", "int8", "Offline"), ("l40s", "bert-large", "int8", "Offline"),
    ),
    "SQuAD's sequences have at most 384 tokens and run without padding: the work of 384 is more than was done",
)  # fmt: skip
"""(device, workload, precision, scenario) of a row that beats its bound -> why it may."""


def gpu_rows() -> list[BaselineRecord]:
    return list(read_baseline(data_dir("baselines") / "published" / "gpu-models.jsonl").records)


def key(row: BaselineRecord) -> tuple[str, str, str, str]:
    return row.device, str(row.workload), row.precision, row.scenario


@cache
def work(name: str, **knobs: object) -> tuple[float, float]:
    """(MACs, weights) of a bundled workload."""
    found = workload_work(name, knobs, "int8")
    assert found is not None
    return found.macs, found.in_bytes


def row_work(row: BaselineRecord, *, tokens: int = SQUAD_TOKENS) -> tuple[float, float]:
    """(MACs, weights that must be read) per sample or generated token, no layer counted twice.

    A generated token has its share of the prompt's MACs without attention, which would be more; the weights are read
    once for the whole batch. Samples of an offline run share them with batches that nobody states.
    """
    name, batch = str(row.workload), row.knobs.get("batch")
    if name.startswith("llama"):
        macs, weights = work("llama", size=name.rpartition("-")[2], phase="decode", context=1)
        steps = 1 + float(str(row.knobs["prompt"])) / float(str(row.knobs["new_tokens"]))
        head = 128256 * (4096 if name.endswith("8b") else 8192)  # the last token of a prompt alone needs it
        return macs + (steps - 1) * (macs - head), weights / float(str(batch))
    if name == "bert-large":
        macs, weights = work("bert_base", width=1024, depth=24, heads=16, hidden=4096, context=tokens)
    else:
        macs, weights = work(name)
    return macs, weights if batch == 1 else 0.0


def least_s(row: BaselineRecord, **knobs: int) -> float:
    """Chip seconds: all of a row's chips compute and read at once."""
    macs, weights = row_work(row, **knobs)
    found = bound_s(
        macs=macs, in_bytes=weights * WEIGHT_BITS[row.precision] / 8, out_bytes=0.0, cold=True,
        precision=COMPUTE.get(row.precision, row.precision), peaks=GPU_PEAKS[PEAKS[row.device]],
    )  # fmt: skip
    assert found is not None
    return found


def test_no_published_gpu_result_beats_its_physical_bound() -> None:
    """53 rows: 44 with a count of their work, without Winograd's gain; the others are of workloads not bundled."""
    checked = [row for row in gpu_rows() if row.workload not in NOT_BUNDLED]
    assert (len(gpu_rows()), len(checked)) == (53, 44)
    assert {key(row) for row in checked if row.median_s < least_s(row)} == set(EXCEPTIONS)  # type: ignore[operator]


def test_the_exceptions_hold_at_half_the_longest_sequence() -> None:
    """At 192 tokens no row beats the bound: what explains them does not explain anything at all."""
    found = [row for row in gpu_rows() if key(row) in EXCEPTIONS]
    assert len(found) == len(EXCEPTIONS)
    assert all(row.median_s > least_s(row, tokens=SQUAD_TOKENS // 2) for row in found)  # type: ignore[operator]


def test_the_bounds_are_near_enough_to_catch_a_slip() -> None:
    """The median row takes 3 times its bound: one of a tenth of its time would be caught nearly everywhere."""
    ratios = sorted(row.median_s / least_s(row) for row in gpu_rows() if row.workload not in NOT_BUNDLED)  # type: ignore[operator]
    assert ratios[len(ratios) // 2] < 3.5
    assert ratios[-1] < 12


def chips() -> Iterator[tuple[str, float, float]]:
    """(row, published MACs per second, peak MACs per second) of the chips that are no GPUs."""
    for row in facts("hailo-8", "throughput"):
        if network := EDGE_NETWORKS.get(row.workload):
            yield f"hailo-8 {row.workload}", row.value * sum(layer.macs for layer in network()), 13.1e12
    peak = 1e9 * fact("eyeriss-v1", "peak").value
    for name, layers, batch in (("AlexNet", alexnet(), ALEXNET_BATCH), ("VGG-16", vgg16(), VGG_BATCH)):
        for layer in layers:
            row = fact("eyeriss-v1", "processing_latency", workload=f"{name}/{layer.name}")
            yield f"eyeriss {row.workload}", batch * layer.macs / (row.value * 1e-3), peak
    resnet50, _ = work("resnet50")
    for macs in (2048, 1024, 512, 256, 128, 64, 32):
        row = fact(f"nvdla-{macs}", "throughput")
        yield f"nvdla {macs}", row.value * resnet50, macs * 1e9
    for row in facts("nvdla-v2-orin", "throughput", workload="ResNet-50 224x224"):
        yield f"orin {row.id}", row.value * resnet50, 26.25e12


def test_no_published_chip_computes_more_than_its_peak() -> None:
    """Hailo-8: 26.2 TOPS; Eyeriss: its stated 33.6 GMAC/s; NVDLA: its multipliers at 1 GHz; two DLAs of an Orin 105
    TOPS of sparse int8, half of it dense. TPU v1 has gates of its own (`tpu-v1.*.roofline`)."""
    found = list(chips())
    assert len(found) > 70
    assert not [name for name, rate, peak in found if not 0 < rate <= peak]
