"""`evaluate` against an interpreter that walks the loops."""

import pytest
from agreement import walk_one


@pytest.mark.parametrize("block", range(20))
def test_equals_the_interpreter(block):
    """Law 7: time, array cycles, busy time of every port and traffic of every memory and operand."""
    for seed in range(block * 40, block * 40 + 40):
        (p, _, mapping), gap = walk_one(seed)
        assert gap < 1e-9, f"seed {seed}: {dict(p.einsum.ranks)} {mapping.nodes}"
