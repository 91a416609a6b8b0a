"""Bundled workloads against published parameters and MACs, and against torch's own counters."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sim.workload.graph import EinsumOp, Role, UnsupportedOp
from sim.workload.load import Workload, list_workloads

TORCHVISION = "torchvision's table of models"
PUBLISHED = {
    # name: (knobs, parameters, MACs, relative tolerance: the last printed digit, source)
    "resnet18": ({}, 11.69e6, 1.814e9, 1e-3, TORCHVISION),
    "resnet50": ({}, 25.557e6, 4.089e9, 1e-3, TORCHVISION),
    "mobilenet_v2": ({}, 3.505e6, 0.301e9, 2e-3, TORCHVISION),
    "vit": ({}, 86.57e6, 17.56e9, 1e-3, TORCHVISION),
    "convnext": ({}, 28.589e6, 4.456e9, 1e-3, TORCHVISION),
    "efficientnet_b0": ({}, 5.289e6, 0.386e9, 2e-3, TORCHVISION),
    "swin": ({}, 28.288e6, 4.49e9, 1e-3, TORCHVISION),
    "regnet": ({}, 9.190e6, 1.603e9, 1e-3, TORCHVISION),
    # 34,014,999 parameters and its frozen norms' scales and shifts, 2 x 26,560, which torchvision counts as buffers
    "retinanet": ({"backbone": "resnet50", "classes": 91}, 34014999 + 53120, 151.54e9, 1e-4, TORCHVISION),
    # Reddi et al., ISCA 2020, table I, print 433 GOPs an input too.
    "ssd_resnet34": ({}, 20.058e6, 433.411e9 / 2, 5e-3, "OpenVINO's Open Model Zoo, ssd-resnet34-1200-onnx"),
    "bert_base": ({}, 109.48e6, 11.174e9, 1e-3, "Devlin et al., NAACL 2019: 110 M; MACs by the file's formula"),
    "gpt2": ({}, 124.44e6, 106.339e9, 1e-3, "OpenAI's model card: 124 M; MACs by the file's formula"),
    "lstm": ({}, 19.78e6, 35 * 13.26e6, 1e-3, "Zaremba et al., arXiv:1409.2329; both by hand in the file"),
    # BK-SDM's 339 G leaves out attention's products. These by hand: L = 4,096, 1,024, 256 pixels with 5
    # blocks each of C = 320, 640, 1,280, one of L = 64 with 1,280; own and 77 words: 2 L (L + 77) C.
    "unet": (
        {},
        859.52e6,
        338.7e9 + 2 * 5 * (4096 * 4173 * 320 + 1024 * 1101 * 640 + 256 * 333 * 1280) + 2 * 64 * 141 * 1280,
        1e-3,
        "Kim et al. (BK-SDM), arXiv:2305.15798: Stable Diffusion v1.4's U-Net",
    ),
    # A token and layer: 3 x 2 x 768^2 + 1,536 x 80 + 48 x 1,536, and 4 x 1,536 of the convolution, which
    # also makes the 3 outputs of its padding; then the head on the last token.
    "mamba": (
        {},
        129.135e6,
        24 * (2048 * (6 * 768**2 + 1536 * 80 + 48 * 1536) + 2051 * 4 * 1536) + 768 * 50280,
        1e-5,
        "Gu and Dao, arXiv:2312.00752: 130 M; MACs by hand",
    ),
}
"""Workloads with a published figure: the rest stands below and in test_counted_by_hand.py, counted by hand."""

BY_HAND = {"byte_gpt", "conv2d", "decoder", "detr", "digits_cnn", "driving", "gemm", "llama", "mixtral", "mlp"}
BY_HAND |= {"robot_policy", "whisper"}
LLAMA = {"1b": 1.2358e9, "7b": 6.738e9, "8b": 8.030e9, "70b": 68.977e9}

EXCEPTIONS = {"mixtral": "the counter knows no grouped products"}
"""Workloads where torch's FlopCounter is not right, with the reason."""

SMALL = {"llama": {"layers": 2, "context": 64}, "bert_base": {"depth": 2}, "vit": {"depth": 2}, "gpt2": {"depth": 1}}
SMALL |= {"lstm": {"context": 3}, "mixtral": {"layers": 1, "context": 64}, "detr": {"depth": 1, "height": 320}}
SMALL |= {"driving": {"height": 96, "width_px": 128, "bev": 16, "depth": 0.3}, "mamba": {"depth": 1}}
SMALL |= {"robot_policy": {"vision_depth": 1, "depth": 1, "steps": 2, "cameras": 1}, "unet": {"blocks": 1}}
"""Knobs that keep the comparison with torch short; every op kind stays."""


def counted(name: str, **knobs):
    return Workload(name, knobs).graph(cache=False)


def parameters_of(name: str, **knobs) -> int:
    module, _ = Workload(name, knobs).build(device="meta")
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_as_published(name):
    knobs, parameters, macs, tolerance, source = PUBLISHED[name]
    if parameters is not None:
        assert parameters_of(name, **knobs) == pytest.approx(parameters, rel=tolerance), source
    assert counted(name, **knobs).macs == pytest.approx(macs, rel=tolerance), source


def test_every_workload_is_checked():
    assert {d.path.stem for d in list_workloads()} == PUBLISHED.keys() | BY_HAND


@pytest.mark.parametrize("size", LLAMA)
def test_llama_parameters_as_published(size):
    module, _ = Workload("llama", {"size": size, "phase": "decode"}).build(device="meta")
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(LLAMA[size], rel=1e-3)


def test_llama_decode_macs_by_hand():
    """Llama-3.2-1B, one token, 2,047 keys in the cache and its own: each parameter but the norms'

    meets the token once (16 layers x 60,817,408 + 128,256 x 2,048), and scores and context take
    2 x 16 layers x 2,048 keys x 32 heads x 64.
    """
    layer = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192
    expected = 16 * layer + 128256 * 2048 + 2 * 16 * 2048 * 2048
    assert counted("llama", phase="decode", context=2047).macs == expected


def test_llama_decode_reads_the_whole_kv_cache_at_its_own_size():
    """16 layers x (keys and values) x 8 heads x 1,024 keys x 64 x 4 bytes; 32 query heads do not multiply it."""
    graph = counted("llama", phase="decode", context=1023)
    read = 0
    for op in graph:
        if isinstance(op, EinsumOp) and op.kind.startswith("attention."):
            tensor = graph.tensors[op.einsum.operands[1].tensor]
            assert tensor.role is Role.KV_CACHE
            assert "G" not in op.einsum.operands[1].ranks
            read += tensor.size_bytes
    assert read == 16 * 2 * 8 * 1024 * 64 * 4


@pytest.mark.parametrize("name", [d.path.stem for d in list_workloads() if d.path.stem not in EXCEPTIONS])
def test_macs_are_half_of_torchs_flops(name):
    """The counter runs the real decomposition on meta tensors; 1 MAC = 2 FLOP."""
    workload = Workload(name, SMALL.get(name, {}))
    module, inputs = workload.build(device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*inputs)
    assert 2 * workload.graph(cache=False).macs == counter.get_total_flops()


@pytest.mark.parametrize("name", [d.path.stem for d in list_workloads()])
def test_weights_are_the_modules_own(name):
    """Bytes of weight storages = parameters + buffers that the forward pass reads; none unsupported."""
    workload = Workload(name, SMALL.get(name, {}))
    graph = workload.graph(cache=False)
    module, _ = workload.build(device="meta")
    own = {n: t.numel() * t.element_size() for n, t in (*module.named_parameters(), *module.named_buffers())}
    seen = {t.name: t.size_bytes for t in graph.tensors.values() if t.role is Role.WEIGHT and t.name}
    assert seen == {n: own[n] for n in seen}
    kept = {t.name for t in graph.tensors.values() if t.role is Role.KV_CACHE}  # state written in place
    assert not [n for n in own.keys() - seen.keys() - kept if not n.endswith("num_batches_tracked")]
    assert not [op for op in graph if isinstance(op, UnsupportedOp)]
    assert all(op.source for op in graph)


def test_parameters_of_models_without_published_macs():
    """Model cards and papers in the files' docstrings; Whisper's two phases share no parameter."""
    assert parameters_of("mixtral") == pytest.approx(46.70e9, rel=1e-3)
    assert parameters_of("whisper") + parameters_of("whisper", phase="decode") == pytest.approx(37.18e6, rel=1e-3)
    assert parameters_of("detr") == pytest.approx(41.3e6, rel=1e-2)
    module, _ = Workload("robot_policy", {"phase": "prefix"}).build(device="meta")
    vision = sum(p.numel() for n, p in module.vision.named_parameters() if not n.startswith("project"))
    language = sum(p.numel() for n, p in module.named_parameters() if not n.startswith("vision"))
    assert vision == pytest.approx(412.4e6, rel=1e-3)
    assert language == pytest.approx(2.506e9, rel=1e-2)  # the head is tied: 256,000 words


def test_the_drivings_backbone_is_regnet():
    """Trunk at width and depth 1 = RegNetX-1.6GF (9.190 M) without its classifier, 912 x 1,000 + 1,000."""
    module, _ = Workload("driving").build(device="meta")
    assert sum(p.numel() for p in module.trunk.parameters()) == pytest.approx(9.190e6 - 913e3, rel=1e-3)


def test_mixtral_decode_macs_by_hand():
    """One token meets 2 of 8 experts; 64 keys of the 4,096-wide queries in 1 layer, twice; the head."""
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 4096 * 8 + 2 * 3 * 4096 * 14336
    assert counted("mixtral", phase="decode", layers=1, context=63).macs == layer + 2 * 64 * 4096 + 4096 * 32000


def test_a_window_bounds_what_decode_reads():
    whole, window = (counted("llama", layers=1, phase="decode", context=1023, window=w) for w in (None, 128))
    assert whole.macs - window.macs == 2 * (1024 - 128) * 2048


def test_detr_macs_by_hand():
    """ResNet-50's convolutions on 25 x 37 instead of 7 x 7 cells, a projection, 6 + 6 layers, two heads.

    The paper's 86 G are a mean over COCO's image sizes; 800 x 1,184 pixels take 89.5 G, 800 x 1,066 take 81.2 G.
    """
    cells, wide, queries, hidden = 25 * 37, 256, 100, 2048
    backbone = (counted("resnet50").macs - 2048 * 1000) * cells // 49
    encoder = 4 * cells * wide**2 + 2 * cells**2 * wide + 2 * cells * wide * hidden
    own = 4 * queries * wide**2 + 2 * queries**2 * wide
    cross = 2 * (queries + cells) * wide**2 + 2 * queries * cells * wide
    decoder = own + cross + 2 * queries * wide * hidden
    heads = queries * wide * (92 + 2 * wide + 4)
    assert counted("detr").macs == backbone + cells * 2048 * wide + 6 * (encoder + decoder) + heads


def test_whisper_macs_by_hand():
    """Tiny: width 384, 4 + 4 layers, 1,500 states; the convolutions' outputs at 3,000 and 1,500 places.

    Decode: one token sees 65 own keys and all states; its cross keys and values are there already.
    """
    width, states, depth = 384, 1500, 4
    convolutions = 3 * width * (2 * states * 80 + states * width)
    layer = states * 12 * width**2 + 2 * states**2 * width
    assert counted("whisper").macs == convolutions + depth * (layer + 2 * states * width**2)
    token = 14 * width**2 + 2 * (65 + states) * width
    assert counted("whisper", phase="decode").macs == depth * token + width * 51865
