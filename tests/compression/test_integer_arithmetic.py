"""The integer path equals plain Python integers bit for bit, and the emulation to rounding."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sim.compression.fakequant import Grid, encode, fake_quantise, fake_quantise_weight, quantise_weight, scale_and_zero
from sim.compression.integer import accumulate, integer_layer
from sim.errors import ConfigError


def reference_linear(x, zero, w, w_zero):
    return [
        [sum((a - zero) * (b - z) for a, b in zip(row, col, strict=True)) for col, z in zip(w, w_zero, strict=True)]
        for row in x
    ]


def reference_conv(x, zero, w, w_zero, layer):
    """Seven nested loops over integers; padding holds the real number 0, whose code is the zero point."""
    (sh, sw), (ph, pw), (dh, dw) = layer.stride, layer.padding, layer.dilation
    n, _, height, width = x.shape
    k, c, r, s = w.shape
    p = (height + 2 * ph - dh * (r - 1) - 1) // sh + 1
    q = (width + 2 * pw - dw * (s - 1) - 1) // sw + 1
    out = torch.zeros(n, k, p, q, dtype=torch.int64)
    per_group = k // layer.groups
    for b, f, i, j in product(range(n), range(k), range(p), range(q)):
        total = 0
        for ch, u, v in product(range(c), range(r), range(s)):
            y, z = i * sh - ph + u * dh, j * sw - pw + v * dw
            if 0 <= y < height and 0 <= z < width:
                source = (f // per_group) * c + ch
                total += (int(x[b, source, y, z]) - zero) * (int(w[f, ch, u, v]) - int(w_zero[f]))
        out[b, f, i, j] = total
    return out


@given(seed=st.integers(0, 2**31), zero=st.integers(-128, 127))
@settings(max_examples=25, deadline=None)
def test_linear_sums_bit_for_bit(seed, zero):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-128, 128, (3, 17), generator=g)
    w = torch.randint(-128, 128, (5, 17), generator=g)
    w_zero = torch.randint(-128, 128, (5, 1), generator=g)
    got = accumulate(x, zero, w, w_zero, nn.Linear(17, 5))
    assert got.tolist() == reference_linear(x.tolist(), zero, w.tolist(), w_zero.flatten().tolist())


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"), [(1, 1, 1, 1), (1, 2, 0, 1), (2, 1, 2, 2), (4, 2, 1, 1)]
)
def test_convolution_sums_bit_for_bit(groups, stride, padding, dilation):
    g = torch.Generator().manual_seed(groups)
    layer = nn.Conv2d(4, 4, 3, stride, padding, dilation, groups)
    x = torch.randint(-128, 128, (2, 4, 7, 6), generator=g)
    w = torch.randint(-127, 128, (4, 4 // groups, 3, 3), generator=g)
    w_zero = torch.randint(-3, 4, (4, 1), generator=g)
    got = accumulate(x, 5, w, w_zero, layer)
    assert torch.equal(got, reference_conv(x, 5, w, w_zero.flatten(), layer))


@pytest.mark.parametrize("dtype", ["int4", "int8"])
@pytest.mark.parametrize("layer", [nn.Linear(32, 8), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4)])
def test_emulation_computes_what_the_integers_compute(layer, dtype):
    """Fake-quantised float arithmetic differs from exact integers by float rounding alone (1e-5)."""
    x = torch.randn(2, 32) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 6, 6)
    weights = Grid(dtype=dtype, granularity="channel")
    activations = Grid(dtype=dtype, symmetric=False)
    low, high = x.min().item(), x.max().item()
    exact = integer_layer(layer, x, weights=weights, activations=activations, low=low, high=high)
    emulated = nn.Module.__new__(type(layer))
    emulated.__dict__ = {**layer.__dict__, "_parameters": dict(layer._parameters)}
    emulated._parameters["weight"] = nn.Parameter(fake_quantise_weight(layer.weight.detach(), weights))
    scale, zero = scale_and_zero(torch.tensor(low), torch.tensor(high), activations)
    assert torch.allclose(emulated(fake_quantise(x, scale, zero, activations)), exact, rtol=1e-4, atol=1e-5)


def test_stored_weights_decode_to_their_codes():
    """Re-encoding fake-quantised weights gives the very codes: what is stored is what was judged."""
    weight = torch.randn(16, 24, generator=torch.Generator().manual_seed(3))
    grid = Grid(dtype="int4", granularity="channel")
    codes, scale, zero = quantise_weight(weight, grid)
    assert torch.equal(encode(fake_quantise_weight(weight, grid), scale, zero, grid), codes)


def test_an_overflowing_accumulator_is_an_error():
    """140,000 products of 127 x 127 sum to 2.26e9 > 2^31 - 1."""
    ones = torch.full((1, 140_000), 127)
    with pytest.raises(ConfigError, match="overflows 32 bits"):
        accumulate(ones, 0, ones, torch.zeros(1, 1), nn.Linear(1, 1))


def test_layers_without_integer_form_are_refused():
    with pytest.raises(ConfigError, match="neither Linear nor"):
        accumulate(torch.zeros(1, 3, 4), 0, torch.zeros(3, 3, 1), torch.zeros(3, 1), nn.Conv1d(3, 3, 1))
    with pytest.raises(ConfigError, match="integer grids"):
        integer_layer(
            nn.Linear(2, 2), torch.zeros(1, 2), weights=Grid(dtype="fp8_e4m3"), activations=Grid(), low=0, high=1
        )
