"""`evaluate` beside the interpreter that walks the loops, on one random case."""

import random

import numpy as np
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


def walk_one(seed):
    """((problem, machine, mapping), largest relative difference) of time, array cycles, the busy time
    of every port and the traffic of every memory, operand and direction."""
    rng = random.Random(seed)
    p = problem(random_einsum(rng))
    m = random_machine(rng)
    homes = dict.fromkeys(ROLES, 0)
    mapping = random_mapping(rng, p, m, tile_windows=rng.random() < 0.3)
    cost = cost_of(p, m, mapping, homes)
    walked = Interpreter(p, m, mapping, homes)
    books = walked.run()
    busy = cost.port_bytes[0] / m.rates[0] + cost.port_moves[0] * m.setup_cycles[0]
    ours = np.concatenate([cost.traffic[0].ravel(), busy, [cost.array[0], cost.time[0]]])
    theirs = np.concatenate([walked.traffic.ravel(), books.busy, [books.array, books.time]])
    return (p, m, mapping), float(np.max(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-12)))
