"""The closed form of what a sliding window loads, against the evaluator that walks every step."""

from __future__ import annotations

import random

import numpy as np
import pytest

import sim
from sim.mapping.evaluate import Rows, evaluate_rows
from sim.mapping.machine import machine
from sim.mapping.nest import nest
from sim.mapping.problem import INPUT, ROLES, Problem
from sim.mapping.search import Pool, SingleBorder
from sim.mapping.steps import ROLE_INDEX
from sim.mapping.terms import CLASSES
from sim.workload.graph import EinsumOp

CONVOLUTIONS = {
    "stride 1": sim.conv2d(8, 6, 9, 3),
    "stride 2": sim.conv2d(8, 6, 9, 3, stride=2),
    "padded": sim.conv2d(8, 6, 10, 3, padding=1),
    "dilated": sim.conv2d(8, 6, 11, 3, dilation=2),
    "stride above the window": sim.conv2d(4, 4, 11, 2, stride=3),
    "window over most of the input": sim.conv2d(4, 4, 7, 5),
    "batch": sim.conv2d(8, 6, 9, 3, batch=3),
    "depthwise": sim.conv2d(6, 6, 9, 3, groups=6),
    "grouped": sim.conv2d(8, 8, 12, 3, groups=2),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_input_moves_as_in_the_best_loop_order(name):
    """Of each tiling and class of innermost loop: exactly the least over the orders; of all operands together at most
    that (they may want different orders)."""
    chip = sim.load_hardware("systolic")
    made = machine([chip], "int8")
    einsum = next(op for op in CONVOLUTIONS[name].ops if isinstance(op, EinsumOp)).einsum
    problem = Problem(einsum=einsum, bits=dict.fromkeys(ROLES, 8.0), accumulate_bits=32)
    space = SingleBorder(problem, made, dict.fromkeys(ROLES, 0))
    pool = Pool(space)
    tried = 0
    for position in random.Random(0).sample(range(len(pool)), min(len(pool), 40)):
        for _, terms in pool.bounds.of_grids(np.array([position])):
            for letter in terms.letters:
                orders = pool.choices(position, CLASSES.index(letter))
                if not orders:  # the class has no loop
                    continue
                walked = [_home_traffic(problem, space, choice) for choice in orders]
                closed = {role: sum(np.max(n) for n in terms.moved[role][letter]) for role in terms.moved}
                assert closed[INPUT] == pytest.approx(min(of[ROLE_INDEX[INPUT]] for of in walked), rel=1e-12)
                assert sum(closed.values()) <= min(map(sum, walked)) * (1 + 1e-12)
                tried += len(orders)
    assert tried > 100


def _home_traffic(problem, space, choice):
    """Bytes of each operand over the home memory's port, step by step."""
    made = space.machine
    rows = Rows(nest=nest(space.mapping(choice), problem, made, space.homes), problem=problem, machine=made,
                rates=made.rates, setup=made.setup_cycles, latency=made.latency_cycles)  # fmt: skip
    return evaluate_rows(rows).traffic[0, 0].sum(axis=-1).tolist()
