"""Our grids against torchao's primitives, an independent implementation: equal codes, scales and zero points."""

import pytest
import torch

from sim.compression.fakequant import Grid, blocked, quantise_weight

primitives = pytest.importorskip("torchao.quantization.quant_primitives")


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_asymmetric_codes_are_those_of_torchao(dtype, granularity):
    """Both cover [min, max] together with 0 by all codes; scales agree to one part in a million, codes exactly."""
    grid = Grid(dtype=dtype, granularity=granularity, group=16 if granularity == "group" else 0, symmetric=False)
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(7))
    codes, scale, zero = quantise_weight(weight, grid)
    rows = blocked(weight, grid)
    block = (1, rows.shape[1])
    low, high = grid.bounds
    theirs, offset = primitives.choose_qparams_affine(
        rows, primitives.MappingType.ASYMMETRIC, block, torch.int8, quant_min=low, quant_max=high, eps=1e-12
    )
    assert torch.allclose(scale.flatten(), theirs.flatten(), rtol=1e-6)
    assert torch.equal(zero.flatten().int(), offset.flatten().int())
    found = primitives.quantize_affine(rows, block, theirs, offset, torch.int8, quant_min=low, quant_max=high)
    assert torch.equal(codes.reshape(rows.shape).int(), found.int())
