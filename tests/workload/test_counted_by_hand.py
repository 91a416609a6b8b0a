"""Bundled workloads without published figures, counted by hand from their definition: parameters and MACs."""

from itertools import pairwise

import pytest

from sim.errors import DovetailError
from sim.workload.load import Workload


def parameters_of(name: str, **knobs) -> int:
    module, _ = Workload(name, knobs).build(device="meta")
    return sum(p.numel() for p in module.parameters())


def macs_of(name: str, **knobs) -> int:
    return Workload(name, knobs).graph(cache=False).macs


def linear(inputs: int, outputs: int) -> int:
    """Parameters, bias included."""
    return inputs * outputs + outputs


# -- driving: eight cameras of 480 x 640, 64 x 64 cells, three earlier frames ----------------------

C, CELLS, CAMERAS, PIXELS = 256, 64 * 64, 8, (60 * 80, 30 * 40, 15 * 20)
WIDTHS = (168, 408, 912)
"""RegNetX-1.6GF's stages at strides 8, 16 and 32."""
REGNET_PARAMETERS, REGNET_HEAD = 9_190_136, 912 * 1000
"""The published 9.190 M to the last digit (test_published_models), and the classifier's products."""


def attention(queries: int, keys: int) -> int:
    """MACs: queries and results, keys and values projected; scores and context."""
    return 2 * queries * C**2 + 2 * keys * C**2 + 2 * queries * keys * C


def layer(queries: int, keys: int) -> int:
    return attention(queries, keys) + 2 * queries * C * 2 * C


def test_driving_macs():
    """The trunk costs per pixel: 15 x 20 places at stride 32 where RegNet's 224 x 224 image has 7 x 7."""
    trunk = CAMERAS * (macs_of("regnet") - REGNET_HEAD) * PIXELS[2] // 49
    side = CAMERAS * sum(c * C * n for c, n in zip(WIDTHS, PIXELS, strict=True))
    pyramid = side + CAMERAS * (PIXELS[0] + PIXELS[2]) * 9 * C**2
    history = CELLS * (2 * C**2 + 2 * 4 * C**2 + 2 * 4 * C + 2 * C * 2 * C)  # each cell asks its own four states
    view = CELLS * 4 * C * C + 3 * layer(CELLS, CAMERAS * PIXELS[2]) + history
    encoder = 4 * CELLS * 9 * C**2
    objects = CELLS * (9 * C**2 + (10 + 8) * C)
    occupancy = CELLS * C * 256 + 8 * CELLS * (27 * 32 * 32 + 8 * 32 * 16) + 64 * CELLS * 16 * 10
    lanes = 2 * layer(64, CELLS // 4) + 64 * C * 44
    path = 2 * layer(6, CELLS // 4) + 6 * C * 48
    lights = 2 * C * 5
    assert macs_of("driving") == trunk + pyramid + view + encoder + objects + occupancy + lanes + path + lights


def test_driving_parameters():
    part = 4 * linear(C, C) + 2 * 2 * C + linear(C, 2 * C) + linear(2 * C, C)  # an attention layer, its norms
    conv_bn = 9 * C**2 + 2 * C
    pyramid = sum(linear(c, C) for c in WIDTHS) + 2 * linear(9 * C, C)
    view = CELLS * C + CAMERAS * PIXELS[2] * C + linear(4 * C, C) + 4 * part
    objects = conv_bn + linear(C, 10) + linear(C, 8)
    occupancy = linear(C, 256) + linear(27 * 32, 32) + 32 * 16 * 8 + 16 + linear(16, 10)
    queries = (64 + 6) * C + 4 * part + linear(C, 44) + linear(C, 48)
    trunk = REGNET_PARAMETERS - linear(912, 1000)
    assert parameters_of("driving") == trunk + pyramid + view + 4 * conv_bn + objects + occupancy + queries + linear(
        C, 5
    )


# -- robot_policy: three cameras of 256 patches, 48 words, 50 actions, 10 steps ---------------------

VISION, BACKBONE, EXPERT, TOKENS = 1152, 2048, 1024, 3 * 256 + 48
HEADS_WIDE, KV_WIDE = 8 * 256, 256
"""All query heads, and the one key-value head."""


def gemma_layer(width: int, hidden: int) -> int:
    """Weights of a layer but its norms: MACs a token too."""
    return 2 * width * HEADS_WIDE + 2 * width * KV_WIDE + 3 * width * hidden


def prefix_macs(tokens: int, cameras: int = 3, blocks: int = 27) -> int:
    block = 256 * (4 * VISION**2 + 2 * VISION * 4304) + 2 * 256**2 * VISION
    kept = (tokens - 48) // cameras
    vision = cameras * (256 * 3 * 14 * 14 * VISION + blocks * block + kept * VISION * BACKBONE)
    return vision + 18 * (tokens * gemma_layer(BACKBONE, 16384) + 2 * tokens**2 * HEADS_WIDE)


def act_macs(tokens: int, steps: int = 10, horizon: int = 50, layers: int = 18) -> int:
    """A step: the actions in, their moment's perceptron, the state in; the layers on 51 tokens; the actions out."""
    inputs = horizon * (32 * EXPERT + 2 * EXPERT * EXPERT + EXPERT * EXPERT) + 32 * EXPERT
    length = horizon + 1
    body = layers * (length * gemma_layer(EXPERT, 4096) + 2 * length * (tokens + length) * HEADS_WIDE)
    return steps * (inputs + body + horizon * EXPERT * 32)


def test_robot_policy_macs():
    assert macs_of("robot_policy", phase="prefix") == prefix_macs(TOKENS)
    assert macs_of("robot_policy", phase="act") == act_macs(TOKENS)
    assert macs_of("robot_policy", steps=1) == prefix_macs(TOKENS) + act_macs(TOKENS, steps=1)


def test_robot_policy_parameters():
    block = 2 * 2 * VISION + 4 * linear(VISION, VISION) + linear(VISION, 4304) + linear(4304, VISION)
    vision = linear(3 * 14 * 14, VISION) + 256 * VISION + 27 * block + 2 * VISION + linear(VISION, BACKBONE)
    language = 256000 * BACKBONE + 18 * (gemma_layer(BACKBONE, 16384) + 2 * BACKBONE) + BACKBONE
    ways = 2 * linear(32, EXPERT) + linear(2 * EXPERT, EXPERT) + linear(EXPERT, EXPERT) + linear(EXPERT, 32)
    expert = 18 * (gemma_layer(EXPERT, 4096) + 2 * EXPERT) + EXPERT + ways
    assert parameters_of("robot_policy") == vision + language + expert


def test_pruned_tokens_and_an_early_exit_of_the_policy():
    """A quarter of each camera's 256 tokens: 3 x 64 + 48 go through the backbone; 6 of 18 layers."""
    pruned = {"keep": 0.25, "vision_depth": 2}
    assert macs_of("robot_policy", phase="prefix", **pruned) == prefix_macs(3 * 64 + 48, blocks=2)
    assert macs_of("robot_policy", phase="act", keep=0.25, steps=1) == act_macs(3 * 64 + 48, steps=1)
    assert macs_of("robot_policy", phase="act", exit_layer=6, steps=3) == act_macs(TOKENS, layers=6, steps=3)


@pytest.mark.parametrize(("name", "depth"), [("llama", 16), ("vit", 12), ("robot_policy", 18)])
def test_an_exit_after_more_layers_than_there_are_is_refused(name: str, depth: int):
    """It made the network deeper: Llama-3.2-1B with exit_layer=40 had 40 of its 16 layers."""
    for layer in (0, depth + 1):
        with pytest.raises(DovetailError, match=f"exit_layer={layer}: expected 1 to {depth}"):
            Workload(name, {"exit_layer": layer}).build(device="meta")


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_a_window_without_a_cache_is_refused(name: str):
    with pytest.raises(DovetailError, match="window=1: expected 2 or more tokens"):
        Workload(name, {"window": 1, "phase": "decode", "layers": 1}).build(device="meta")


# -- detectors ---------------------------------------------------------------------------------------


def test_retinanet_macs_on_resnext50():
    """ResNeXt-50 32x4d's 4.23 GMAC (torchvision's table) on 25 x 25 places instead of 7 x 7; the rest by hand."""
    cells = (100**2, 50**2, 25**2, 13**2, 7**2)
    backbone = (4.23e9 - 2048 * 1000) * 625 / 49
    pyramid = sum(c * 256 * n for c, n in zip((512, 1024, 2048), cells, strict=False))
    pyramid += 9 * 256**2 * sum(cells)
    heads = sum(cells) * (8 * 9 * 256**2 + 9 * 256 * 9 * (264 + 4))
    assert macs_of("retinanet") == pytest.approx(backbone + pyramid + heads, rel=2e-3)
    assert macs_of("retinanet", head=False) == pytest.approx(backbone, rel=2e-3)


def test_retinanet_parameters_on_resnext50():
    """ResNeXt-50 32x4d has 25,028,904 (torchvision), 2,049,000 of them in its classifier."""
    pyramid = sum(linear(c, 256) for c in (512, 1024, 2048)) + 5 * linear(9 * 256, 256)
    heads = 8 * linear(9 * 256, 256) + linear(9 * 256, 9 * 264) + linear(9 * 256, 9 * 4)
    assert parameters_of("retinanet") == 25_028_904 - 2_049_000 + pyramid + heads


def test_ssd_resnet34_parameters():
    """ResNet-34 to its third stage, five extra stages, two heads a level.

    MLPerf's paper prints 36.3 M (Reddi et al., ISCA 2020, table I); its released weights do not have so many: 20.058 M
    and 433.411 GFLOP in OpenVINO's Open Model Zoo (ssd-resnet34-1200-onnx), to which this count comes within 0.5 %.
    """

    def stage(c_in: int, c: int, blocks: int) -> int:
        around = c_in * c + 2 * c if c_in != c else 0
        return 9 * c_in * c + 2 * c + 9 * c * c + 2 * c + around + (blocks - 1) * 2 * (9 * c * c + 2 * c)

    backbone = 147 * 64 + 128 + stage(64, 64, 3) + stage(64, 128, 4) + stage(128, 256, 6)
    extra = ((256, 256, 512), (512, 256, 512), (512, 128, 256), (256, 128, 256), (256, 128, 256))
    extras = sum(linear(a, b) + linear(9 * b, c) for a, b, c in extra)
    levels = zip((256, 512, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True)
    heads = sum(linear(9 * c, (4 + 81) * anchors) for c, anchors in levels)
    assert parameters_of("ssd_resnet34") == backbone + extras + heads


# -- language models ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "decoder"])
def test_llama_prefill_macs(name):
    """Llama-3.2-1B on 2,048 tokens: the layers' weights meet each, the whole square of scores, the head the last."""
    weights = 2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 8192
    assert macs_of(name) == 16 * (2048 * weights + 2 * 2048**2 * 2048) + 2048 * 128256
    assert parameters_of(name) == 16 * (weights + 2 * 2048) + 2048 + 128256 * 2048


def test_mixtral_prefill_macs():
    """4,096 tokens, two experts each, one of the 32 layers; the head on the last token."""
    tokens, weights = 4096, 2 * 4096 * 4096 + 2 * 4096 * 1024 + 4096 * 8 + 2 * 3 * 4096 * 14336
    assert macs_of("mixtral", layers=1, context=tokens) == tokens * weights + 2 * tokens**2 * 4096 + 4096 * 32000


def test_byte_gpt():
    """Two blocks of 64 on 64 bytes: 12 x 64^2 and two squares a block; embeddings, positions and head 256, 64, 256."""
    assert macs_of("byte_gpt") == 2 * (64 * 12 * 64**2 + 2 * 64**2 * 64) + 64 * 64 * 256
    block = 4 * 64**2 + linear(64, 256) + linear(256, 64) + 2 * 2 * 64
    assert parameters_of("byte_gpt") == (256 + 64 + 256) * 64 + 2 * block + 2 * 64


# -- the small ones ----------------------------------------------------------------------------------


def test_digits_cnn():
    """24 x 24: a stem to 12 x 12 of 12 channels; one block of 12, 24 and 48 on 12, 6 and 3 squared places."""
    first = 144 * 2 * 9 * 12 * 12
    others = sum(n * (9 * c * 2 * c + 9 * 4 * c * c + 2 * c * c) for n, c in ((36, 12), (9, 24)))
    assert macs_of("digits_cnn") == 144 * 9 * 12 + first + others + 48 * 10


def test_gemm_conv2d_and_mlp():
    assert macs_of("gemm") == 1024**3
    assert macs_of("gemm", m=3, n=5, k=7) == 105
    assert macs_of("conv2d") == 56 * 56 * 9 * 64 * 64
    widths = (784, 1024, 1024, 10)
    pairs = list(pairwise(widths))
    assert macs_of("mlp") == sum(a * b for a, b in pairs)
    assert parameters_of("mlp") == sum(linear(a, b) for a, b in pairs)
