"""Random small einsums, machines and mappings for the laws of the mapper."""

from __future__ import annotations

import random
from itertools import takewhile

import numpy as np

from sim.mapping.machine import ArrayShape, Level, Machine
from sim.mapping.mapping import Loop, Mapping, Store
from sim.mapping.problem import INPUT, OUTPUT, ROLES, WEIGHT, Problem
from sim.workload.graph import Axis, Einsum, Operand


def axis(*terms, size):
    return Axis(terms=tuple(terms), size=size)


def einsum(ranks, projections):
    return Einsum(
        ranks=ranks,
        operands=tuple(
            Operand(tensor=role.value, role=role, projection=tuple(p))
            for role, p in zip(ROLES, projections, strict=True)
        ),
    )


def gemm(m, n, k, b=1):
    ranks = {"B": b, "M": m, "N": n, "K": k} if b > 1 else {"M": m, "N": n, "K": k}
    lead = [axis(("B", 1), size=b)] if b > 1 else []
    a = lambda r: axis((r, 1), size=ranks[r])  # noqa: E731
    return einsum(ranks, [[*lead, a("M"), a("K")], [*lead, a("K"), a("N")], [*lead, a("M"), a("N")]])


def conv(*, n=1, k=1, c=1, p=1, q=1, r=1, s=1, g=1, stride=1, dilation=1):
    ranks = {"G": g, "N": n, "K": k, "C": c, "P": p, "Q": q, "R": r, "S": s}
    h, w = (p - 1) * stride + (r - 1) * dilation + 1, (q - 1) * stride + (s - 1) * dilation + 1
    a = lambda x: axis((x, 1), size=ranks[x])  # noqa: E731
    image = [
        a("G"),
        a("N"),
        a("C"),
        axis(("P", stride), ("R", dilation), size=h),
        axis(("Q", stride), ("S", dilation), size=w),
    ]
    return einsum(ranks, [image, [a("G"), a("K"), a("C"), a("R"), a("S")], [a("G"), a("N"), a("K"), a("P"), a("Q")]])


def random_einsum(rng: random.Random):
    if rng.random() < 0.4:
        return gemm(rng.randint(1, 7), rng.randint(1, 7), rng.randint(1, 7), rng.choice([1, 1, 2, 3]))
    window = rng.randint(1, 3)
    return conv(
        n=rng.choice([1, 1, 2]),
        k=rng.randint(1, 4),
        c=rng.randint(1, 4),
        p=rng.randint(1, 6),
        q=rng.choice([1, 1, 3, 4]),
        r=window,
        s=rng.choice([1, window]),
        g=rng.choice([1, 1, 2]),
        stride=rng.choice([1, 1, 2, 3]),
        dilation=rng.choice([1, 1, 2]),
    )


def problem(e, *, accumulate=32, speedup=1.0):
    return Problem(
        einsum=e, bits={INPUT: 8.0, WEIGHT: 8.0, OUTPUT: 8.0}, accumulate_bits=accumulate, reduction_speedup=speedup
    )


def random_machine(rng: random.Random, *, memories=None, capacity=1e9, designs=1, fanouts=True):
    names = ["L1", "L2", "L3"][: memories or rng.randint(1, 3)]
    shared = rng.random() < 0.5
    levels = [
        Level(name="DRAM", holds=frozenset(ROLES), double_buffered=True, read_port=0, write_port=0 if shared else 1)
    ]
    ports = ["DRAM"] if shared else ["DRAM.read", "DRAM.write"]
    for i, name in enumerate(names):
        holds = frozenset(ROLES) if i == 0 or rng.random() < 0.5 else frozenset(rng.sample(ROLES, rng.randint(1, 3)))
        split = rng.random() < 0.5
        fan = rng.choice([1, 1, 2, 3]) if fanouts else 1
        levels.append(
            Level(
                name=name,
                holds=holds,
                double_buffered=rng.random() < 0.8,
                read_port=len(ports),
                write_port=len(ports) + split,
                fanout=fan,
                fanout_name=f"F{i}" if fan > 1 else None,
                multicast=rng.random() < 0.6,
            )
        )
        ports += [f"{name}.read", f"{name}.write"] if split else [name]
    arrays = rng.choice([1, 1, 1, 2, 3, 4]) if fanouts else 1
    rates = np.array([[rng.choice([0.5, 1.0, 2.0, 3.0, 7.0]) for _ in ports] for _ in range(designs)])
    return Machine(
        levels=tuple(levels),
        ports=tuple(ports),
        array=ArrayShape(
            rows=rng.randint(1, 4),
            cols=rng.randint(1, 4),
            dataflow=rng.choice(["output_stationary", "weight_stationary", "input_stationary"]),
            skew=rng.choice(["systolic", "none"]),
            folds=rng.choice(["serial", "pipelined"]),
            preload=rng.choice(["exposed", "hidden"]),
            macs_per_cell=rng.choice([1, 1, 2, 0.5]),
            accumulate_bits=32,
            drain_bytes_per_cycle=rng.choice([None, None, 3.0]),
            fanout=arrays,
            fanout_name="FA" if arrays > 1 else None,
        ),
        rates=rates,
        capacity_bytes=np.full((designs, len(levels)), capacity),
        clock_hz=np.full(designs, 1e9),
        latency_cycles=np.full(designs, rng.choice([0.0, 5.0])),
        setup_cycles=np.full(designs, rng.choice([0.0, 0.0, 2.0])),
        read_energy_j_per_byte=np.full((designs, len(levels)), 1e-12),
        write_energy_j_per_byte=np.full((designs, len(levels)), 2e-12),
        mac_energy_j=np.full(designs, 1e-13),
        idle_j_per_cycle=np.full(designs, 2e-13),
    )


def random_mapping(rng: random.Random, p: Problem, m: Machine, *, tile_windows=False):
    """Even or uneven: per memory a random order, random tiles, stores together or spread."""
    current = {r: int(n) for r, n in p.einsum.ranks.items()}
    ranks = [r for r in p.ranks if tile_windows or r not in p.window_ranks]
    nodes = []
    for level in m.levels[1:]:
        roles = [r for r in ROLES if r in level.holds]
        rng.shuffle(roles)
        groups = [roles] if rng.random() < 0.6 else [[r] for r in roles]
        remaining = [r for r in ranks if current[r] > 1 and rng.random() < 0.6]
        rng.shuffle(remaining)
        for position, group in enumerate(groups):
            last = position == len(groups) - 1
            take = remaining if last else remaining[: rng.randint(0, len(remaining))]
            remaining = remaining[len(take) :]
            for rank in take:
                tile = rng.randint(1, current[rank])
                nodes.append(Loop(rank=rank, tile=tile))
                current[rank] = tile
            if position == 0 and level.fanout > 1:
                splittable = [r for r in ranks if r not in p.reduction and current[r] > 1]
                if splittable:
                    rank = rng.choice(splittable)
                    tile = -(-current[rank] // level.fanout)
                    nodes.append(Loop(rank=rank, tile=tile, fanout=level.fanout_name))
                    current[rank] = tile
            open_ = list(takewhile(lambda node: isinstance(node, Store), reversed(nodes)))
            beside = bool(open_) and not {node.operand for node in open_} & set(group) and rng.random() < 0.5
            nodes += [
                Store(memory=level.name, operand=r, double_buffered=level.double_buffered, beside=beside) for r in group
            ]
    splittable = [r for r in ranks if current[r] > 1]
    rng.shuffle(splittable)
    free = m.array.fanout
    for rank in splittable[:2]:
        if free > 1:
            count = rng.randint(2, free)
            nodes.append(Loop(rank=rank, tile=-(-current[rank] // count), fanout=m.array.fanout_name))
            free //= count
    return Mapping(nodes=tuple(nodes))
