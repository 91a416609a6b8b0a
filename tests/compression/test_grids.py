"""Number grids: laws of rounding, hand numbers, and agreement with torch's own fake quantisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.compression.fakequant import (
    ActivationQuantiser,
    Grid,
    decode,
    encode,
    fake_quantise,
    fake_quantise_weight,
    quantise_weight,
    scale_and_zero,
)
from sim.errors import ConfigError

GRIDS = st.builds(
    lambda dtype, granularity, symmetric: Grid(
        dtype=dtype, granularity=granularity, group=4 if granularity == "group" else 0, symmetric=symmetric
    ),
    st.sampled_from(["int2", "int3", "int4", "int8"]),
    st.sampled_from(["tensor", "channel", "group"]),
    st.booleans(),
)
WEIGHTS = st.integers(0, 2**31).map(lambda seed: torch.randn(6, 8, generator=torch.Generator().manual_seed(seed)))


@given(weight=WEIGHTS, grid=GRIDS)
@settings(max_examples=60, deadline=None)
def test_codes_are_integers_inside_the_grid_and_errors_at_most_half_a_step(weight, grid):
    codes, scale, zero = quantise_weight(weight, grid)
    qmin, qmax = grid.bounds
    assert torch.equal(codes, codes.round())
    assert qmin <= codes.min()
    assert codes.max() <= qmax
    blocks = {"tensor": (1, -1), "channel": (6, -1), "group": (-1, 4)}[grid.granularity]
    error = (decode(codes.reshape(blocks), scale, zero) - weight.reshape(blocks)).abs()
    # Asymmetric zero points are rounded too, which may push an end of the range out by half a step.
    assert (error <= scale * (0.5 if grid.symmetric else 1.0) * (1 + 1e-4)).all()


@given(weight=WEIGHTS, grid=GRIDS)
@settings(max_examples=60, deadline=None)
def test_zero_stays_zero_and_symmetric_rounding_is_idempotent_and_odd(weight, grid):
    weight = torch.where(weight.abs() < 0.3, 0.0, weight)
    once = fake_quantise_weight(weight, grid)
    assert (once[weight == 0] == 0).all()
    if grid.symmetric:
        assert torch.allclose(fake_quantise_weight(once, grid), once, rtol=1e-5, atol=0)
        assert torch.equal(fake_quantise_weight(-weight, grid), -once)


@given(weight=WEIGHTS)
@settings(max_examples=30, deadline=None)
def test_more_bits_never_round_coarser(weight):
    """Grids of 2, 3, 4, 8 bits: the largest error is bounded by half of a falling step."""
    bound = [weight.abs().max() / Grid(dtype=d).bounds[1] / 2 for d in ("int2", "int3", "int4", "int8")]
    for limit, dtype in zip(bound, ("int2", "int3", "int4", "int8"), strict=True):
        assert (fake_quantise_weight(weight, Grid(dtype=dtype)) - weight).abs().max() <= limit * (1 + 1e-5)


def test_hand_numbers():
    """int4 symmetric, max 7: scale 1, 2.5 rounds to even 2. Asymmetric on [-1, 14]: scale 1, zero -8 + 1 = -7."""
    x = torch.tensor([7.0, 2.5, -3.5, 0.2])
    assert fake_quantise_weight(x.reshape(1, 4), Grid(dtype="int4")).tolist() == [[7.0, 2.0, -4.0, 0.0]]
    scale, zero = scale_and_zero(torch.tensor(-1.0), torch.tensor(14.0), Grid(dtype="int4", symmetric=False))
    assert (scale.item(), zero.item()) == (1.0, -7.0)
    codes = encode(torch.tensor([-1.0, 14.0, 0.0]), scale, zero, Grid(dtype="int4", symmetric=False))
    assert codes.tolist() == [-8.0, 7.0, -7.0]


def test_stored_bits_count_group_scales():
    """int4, one 16-bit scale per 32: 4 + 16/32 = 4.5; with a 4-bit zero point 4 + 20/32 = 4.625."""
    assert Grid(dtype="int4", granularity="group", group=32).stored_bits == 4.5
    assert Grid(dtype="int4", granularity="group", group=32, symmetric=False).stored_bits == 4.625
    assert Grid(dtype="int8", granularity="channel").stored_bits == 8


@pytest.mark.parametrize("dtype", ["int4", "int8"])
def test_equals_torch_fake_quantise_per_channel(dtype):
    """`torch.fake_quantize_per_channel_affine` with our scales gives the same numbers."""
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    grid = Grid(dtype=dtype, granularity="channel", symmetric=False)
    _, scale, zero = quantise_weight(weight, grid)
    theirs = torch.fake_quantize_per_channel_affine(
        weight, scale.flatten(), zero.flatten().to(torch.int32), 0, *grid.bounds
    )
    assert torch.allclose(fake_quantise_weight(weight, grid), theirs, atol=1e-6)


def test_fp8_uses_the_formats_maximum_and_keeps_three_mantissa_bits():
    """Largest magnitude maps to 448; between 1 and 2 the e4m3 step is 1/8, so the error is at most 1/16 of it."""
    x = torch.tensor([448.0, 1.0, 1.06, 1.07, -1.19])
    got = fake_quantise(x, torch.tensor(1.0), torch.tensor(0.0), Grid(dtype="fp8_e4m3"))
    assert got.tolist() == [448.0, 1.0, 1.0, 1.125, -1.25]


def test_gradient_passes_inside_and_stops_outside():
    x = torch.tensor([0.4, 5.0, 9.0, -20.0], requires_grad=True)
    fake_quantise(x, torch.tensor(1.0), torch.tensor(0.0), Grid(dtype="int4")).sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_dynamic_ranges_are_per_token():
    """Two tokens of scales 1 and 100: each keeps its own 8-bit step."""
    x = torch.tensor([[1.0, -0.5, 0.3], [100.0, -50.0, 30.0]])
    got = ActivationQuantiser(Grid(symmetric=False), dynamic=True, per_token=True).round(x)
    assert torch.allclose(got[1], 100 * got[0], rtol=1e-5)
    assert (got[0] - x[0]).abs().max() <= 1.5 / 255


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": "int44"}, 'Did you mean "int4"'),
        ({"granularity": "row"}, "expected tensor, channel or group"),
        ({"granularity": "group"}, "group size"),
        ({"dtype": "fp8_e4m3", "symmetric": False}, "no zero point"),
    ],
)
def test_impossible_grids_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Grid(**fields)
