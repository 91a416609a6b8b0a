"""Brute force over the named map spaces: every mapping written as nodes, its memory use, its cost.

Written from the definitions of the spaces alone, without the search's own enumeration: a mapping is
made memory by memory from the outside in; each memory tiles every rank but windows by any integer,
walks the cut ranks in any order, may spread output ranks over its instances, and stores its operands. Arrays that
share a memory may be handed reduced ranks too. Instances may be left idle.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import islice, permutations, product

import numpy as np
from cases import conv, gemm, problem, random_einsum, random_machine

from sim.mapping.api import map_einsum
from sim.mapping.evaluate import Rows, evaluate_rows
from sim.mapping.mapping import Loop, Mapping, Store
from sim.mapping.nest import Nest, nest
from sim.mapping.problem import OUTPUT, ROLES
from sim.mapping.winners import Objective

FIXED = {"output_stationary": "K", "weight_stationary": "M", "input_stationary": "N"}


def splits(p, job, count, arrays=False):
    """Every way to spread at most two ranks of a border's jobs over at most `count` instances, or `arrays`:
    {rank: parts}."""
    yield {}
    for n in (1, 2):
        for ranks in permutations([r for r in p.tiled_ranks if job[r] > 1], n):
            if not arrays and not p.reduction.isdisjoint(ranks):
                continue
            for parts in product(range(2, count + 1), repeat=n):
                if np.prod(parts) <= count:
                    yield dict(zip(ranks, parts, strict=True))


def mappings(p, m, homes, space):
    """Every mapping of the space as nodes."""
    whole = {r: int(n) for r, n in p.einsum.ranks.items()}
    yield from _inside(p, m, dict(homes), space, 1, whole, whole)
    if space == "uneven":
        yield from _together(p, m, homes)


def _together(p, m, homes):
    """Memories side by side, each with operands of its own, behind one run of loops."""
    at = {r: [i for i, level in enumerate(m.levels) if i > homes[r] and r in level.holds] for r in ROLES}
    roles = [r for r in ROLES if at[r]]
    levels = sorted({at[r][0] for r in roles})
    alike = len({m.levels[i].double_buffered for i in levels}) == 1
    if (
        len(levels) < 2
        or not alike
        or any(len(at[r]) > 1 for r in roles)
        or any(m.levels[i].fanout > 1 for i in levels[1:])
    ):
        return
    extent = {r: int(n) for r, n in p.einsum.ranks.items()}
    outer, ranks = m.levels[levels[0]], p.tiled_ranks
    for tiles in product(*[range(1, extent[r] + 1) for r in ranks]):
        tile = dict(zip(ranks, tiles, strict=True))
        for order in permutations([r for r in ranks if tile[r] < extent[r]]):
            for split in splits(p, extent, outer.fanout):
                for depths in _places("uneven", order, len(roles), split):
                    nodes, inner = _one(order, tile, split, roles, depths, outer, extent)
                    nodes = list(_named(nodes, m, at))
                    for arrays in [{}] if m.array.fanout == 1 else splits(p, extent, m.array.fanout, arrays=True):
                        yield Mapping(nodes=(*nodes, *_spatial(arrays, dict(inner), m.array.fanout_name)))


def _named(nodes, m, at):
    """Every store in its operand's memory, beside a store in another one right before it."""
    before = None
    for node in nodes:
        if isinstance(node, Loop):
            before = None
            yield node
            continue
        memory = m.levels[at[node.operand][0]].name
        yield replace(node, memory=memory, beside=before not in (None, memory))
        before = memory


def _inside(p, m, at, space, level, extent, job):
    """`extent` is what the memories so far leave of each rank, `job` what the last of them found."""
    if level == len(m.levels):
        array = [{}] if m.array.fanout == 1 else splits(p, job, m.array.fanout, arrays=True)
        for split in array:
            yield Mapping(nodes=tuple(_spatial(split, dict(extent), m.array.fanout_name)))
        return
    memory = m.levels[level]
    roles = [r for r in ROLES if r in memory.holds and at[r] < level]
    if not roles:
        yield from _inside(p, m, at, space, level + 1, extent, job)
        return
    ranks = p.tiled_ranks
    for tiles in product(*[range(1, extent[r] + 1) for r in ranks]):
        tile = dict(zip(ranks, tiles, strict=True))
        for order in permutations([r for r in ranks if tile[r] < extent[r]]):
            if space == "fixed_dataflow" and not _follows(p, m, order):
                continue
            for split in splits(p, extent, memory.fanout):
                for depths in _places(space, order, len(roles), split):
                    nodes, inner = _one(order, tile, split, roles, depths, memory, extent)
                    for rest in _inside(p, m, at | dict.fromkeys(roles, level), space, level + 1, inner, extent):
                        yield Mapping(nodes=(*nodes, *rest.nodes))


def _follows(p, m, order):
    letters = [p.rank_class[r] for r in order]
    fixed = FIXED[m.array.dataflow]
    return fixed not in letters or letters[-1] == fixed


def _places(space, order, stores, split):
    n = len(order)
    if space != "uneven":
        return [(n,) * stores]
    first = max((i + 1 for i, r in enumerate(order) if r in split), default=0)
    return [d for d in product(range(first, n + 1), repeat=stores) if n in d]


def _spatial(split, extent, name):
    for rank, parts in split.items():
        extent[rank] = -(-extent[rank] // parts)
        yield Loop(rank=rank, tile=extent[rank], fanout=name)


def _one(order, tile, split, roles, depths, memory, extent):
    inner = {r: tile.get(r, n) for r, n in extent.items()}
    nodes, first = [], min(depths)
    for depth in range(len(order) + 1):
        if depth == first:
            nodes += _spatial(split, inner, memory.fanout_name)
        nodes += [
            Store(memory=memory.name, operand=r, double_buffered=memory.double_buffered)
            for r, d in zip(roles, depths, strict=True)
            if d == depth
        ]
        if depth < len(order):
            nodes.append(Loop(rank=order[depth], tile=tile[order[depth]]))
    return nodes, inner


def fits(p, m, mapping):
    """Whether no memory overflows: tiles, second copies, sums that are ever unfinished at full width."""
    used = dict.fromkeys((level.name for level in m.levels), 0.0)
    extent = {r: int(n) for r, n in p.einsum.ranks.items()}
    cut, shared, last = False, False, None
    outputs = []
    for node in mapping.nodes:
        if isinstance(node, Loop) and node.fanout == m.array.fanout_name and node.spatial:  # arrays share what is held
            shared = shared or (node.rank in p.reduction and node.tile < extent[node.rank])
            extent[node.rank] = node.tile
            continue
        if isinstance(node, Loop):
            cut = cut or (node.rank in p.reduction and node.tile < extent[node.rank])
            extent[node.rank] = node.tile
            if last is not None:
                outputs[last][2] = cut
            continue
        elements = float(p.elements(node.operand, {r: np.int64(n) for r, n in extent.items()}))
        elements *= 2 if node.double_buffered else 1
        if node.operand is OUTPUT:
            last = len(outputs)
            outputs.append([node.memory, elements, cut])
        else:
            used[node.memory] += elements * p.bits[node.operand] / 8
    if outputs and m.array.dataflow != "output_stationary":
        depth = np.prod([extent[r] for r in p.reduction]) if p.reduction else 1
        outputs[-1][2] |= bool(np.ceil(depth / p.reduction_speedup) > m.array.rows)
    if outputs:
        outputs[-1][2] |= shared
    for memory, elements, wide in outputs:
        used[memory] += elements * (p.accumulate_bits if wide else p.bits[OUTPUT]) / 8
    return all(used[level.name] <= m.capacity_bytes[0, i] for i, level in enumerate(m.levels) if i)


def best(p, m, homes, space, objective, most):
    """(least value, whether divisor tiles alone miss it, mappings that fit); None beyond `most` mappings."""
    found = list(islice(mappings(p, m, homes, space), most + 1))
    if len(found) > most:
        return None
    found = [mapping for mapping in found if fits(p, m, mapping)]
    if not found:
        return np.inf, False, 0
    values = cost(p, m, homes, found, objective)
    even = np.array([_divides(p, mapping) for mapping in found])
    least = values.min()
    ragged = not even.any() or values[even].min() > least * (1 + 1e-9)
    return least, ragged, len(found)


def _divides(p, mapping):
    """Every loop cuts its rank into equal parts."""
    extent = {r: int(n) for r, n in p.einsum.ranks.items()}
    for node in mapping.nodes:
        if isinstance(node, Loop):
            if extent[node.rank] % node.tile:
                return False
            extent[node.rank] = node.tile
    return True


def cost(p, m, homes, found, objective):
    """Value of every mapping by the exact evaluator, those of one shape together."""
    groups: dict[tuple, list] = {}
    for position, mapping in enumerate(found):
        made = nest(mapping, p, m, homes)
        groups.setdefault((made.borders, tuple(map(tuple, made.tiles))), []).append((position, made))
    values = np.empty(len(found))
    for (borders, keys), members in groups.items():
        tiles = tuple(
            {k: np.concatenate([made.tiles[b][k] for _, made in members]) for k in names}
            for b, names in enumerate(keys)
        )
        n = len(members)
        rows = Rows(
            nest=Nest(borders, tiles, members[0][1].innermost),
            problem=p, machine=m, rates=np.repeat(m.rates[:1], n, 0),
            setup=np.repeat(m.setup_cycles[:1], n), latency=np.repeat(m.latency_cycles[:1], n),
        )  # fmt: skip
        job = evaluate_rows(rows)
        moved = job.traffic.sum(axis=2)
        joules = moved[..., 0] * m.read_energy_j_per_byte[0] + moved[..., 1] * m.write_energy_j_per_byte[0]
        energy = joules.sum(axis=1) + m.mac_energy_j[0] * p.macs + m.idle_j_per_cycle[0] * job.time
        values[[position for position, _ in members]] = {
            "latency": job.time, "energy": energy, "edp": energy * job.time,
        }[objective]  # fmt: skip
    return values


MOST = 30_000
"""Mappings of a case at most; a larger case is drawn again."""


def draw(rng: random.Random, largest: int):
    """An einsum: half of them with prime extents, where divisors leave one element or the whole rank."""
    while True:
        if rng.random() < 0.6:
            prime = [1, 2, 3, 5, 7, 11, 13]
            some = sorted(rng.choice(prime) for _ in range(3))
            rng.shuffle(some)
            window = rng.choice([1, 2, 3])
            made = gemm(*some) if rng.random() < 0.7 else conv(k=some[0], c=some[1], p=some[2], r=window)
        else:
            made = random_einsum(rng)
        if 1 < np.prod(list(made.ranks.values())) <= largest:
            return made


def case(rng: random.Random, memories: int, largest: int):
    """(problem, machine, homes, objective), capacities tight more often than not."""
    p = problem(draw(rng, largest), accumulate=rng.choice([8, 32]))
    m = random_machine(rng, memories=memories)
    whole = sum(p.size_bytes(r) for r in ROLES)
    for level in range(1, memories + 1):
        m.capacity_bytes[:, level] = rng.choice([0.4, 0.7, 1.1, 1.5, 2.5, 1e6]) * whole
    homes = dict.fromkeys(ROLES, 0)
    if rng.random() < 0.2 and m.levels[1].holds >= set(ROLES):
        homes[rng.choice(ROLES)] = 1
    return p, m, homes, rng.choice(list(Objective))


def check(seed: int, space: str, memories: int, largest: int, most: int = MOST) -> tuple[float, bool, int, tuple]:
    """(mapper's value over the optimum, whether divisors miss the optimum, mappings, the case) of one case."""
    rng = random.Random(seed)
    while True:
        p, m, homes, objective = case(rng, memories, largest)
        found = best(p, m, homes, space, objective.value, most)
        if found is not None and found[2]:
            break
    least, ragged, count = found
    won = map_einsum(p, m, homes, space=space, objective=objective)
    if won.row[0] < 0:
        return np.inf, ragged, count, (p, m)
    t = won.cost.time[0]
    e = won.energy_j[0] + m.idle_j_per_cycle[0] * t
    ours = {"latency": t, "energy": e, "edp": e * t}[objective.value]
    return ours / least, ragged, count, (p, m)


def describe(p, m) -> dict:
    """What makes a case hard: ranks, windows that overlap, fan-outs."""
    ranks = p.einsum.ranks
    overlap = any(
        len(axis.terms) > 1 and any(ranks[r] > 1 for r in axis.ranks if r in p.window_ranks)
        and any(c <= (ranks[w] - 1) for r, c in axis.terms if r not in p.window_ranks and ranks[r] > 1
                for w in axis.ranks if w in p.window_ranks)
        for axis in p.axes[ROLES[0]]
    )  # fmt: skip
    fanout = any(level.fanout > 1 for level in m.levels) or m.array.fanout > 1
    return {"memories": len(m.levels), "seven_ranks": len(ranks) >= 7, "overlap": overlap, "fanout": fanout}
