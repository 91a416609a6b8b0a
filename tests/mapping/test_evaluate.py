"""`evaluate` against an interpreter that walks the loops, and against numbers worked by hand."""

import random

import numpy as np
import pytest
from cases import problem, random_einsum, random_machine, random_mapping
from interpreter import Interpreter

from sim.mapping.evaluate import Rows, evaluate_rows
from sim.mapping.nest import nest
from sim.mapping.problem import ROLES


def cost_of(p, m, mapping, homes):
    rows = Rows(
        nest=nest(mapping, p, m, homes),
        problem=p,
        machine=m,
        rates=m.rates[:1],
        setup=m.setup_cycles[:1],
        latency=m.latency_cycles[:1],
    )
    return evaluate_rows(rows)


@pytest.mark.parametrize("block", range(20))
def test_equals_the_interpreter(block):
    """Law 7: time, array cycles, busy time of every port and traffic of every memory and operand."""
    for seed in range(block * 40, block * 40 + 40):
        rng = random.Random(seed)
        p = problem(random_einsum(rng))
        m = random_machine(rng)
        homes = dict.fromkeys(ROLES, 0)
        mapping = random_mapping(rng, p, m, tile_windows=rng.random() < 0.3)
        cost = cost_of(p, m, mapping, homes)
        walked = Interpreter(p, m, mapping, homes)
        books = walked.run()
        context = f"seed {seed}: {dict(p.einsum.ranks)} {mapping.nodes}"
        np.testing.assert_allclose(cost.traffic[0], walked.traffic, err_msg=context)
        np.testing.assert_allclose(cost.array[0], books.array, err_msg=context)
        busy = cost.port_bytes[0] / m.rates[0] + cost.port_moves[0] * m.setup_cycles[0]
        np.testing.assert_allclose(busy, books.busy, err_msg=context)
        np.testing.assert_allclose(cost.time[0], books.time, err_msg=context)
