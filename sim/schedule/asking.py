"""What the mapper is asked for the einsums of a network, and all of it at once.

Equal questions are asked once, and those of a whole network go to the mapper together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sim.cost.sparsity import op_speedup
from sim.errors import DovetailError, PrecisionError
from sim.hardware.designs import Designs
from sim.mapping.api import Question, Winners, cost_mapping, map_einsums
from sim.mapping.machine import Energies, Machine, energies, machine
from sim.mapping.mapping import Mapping as LoopNest
from sim.mapping.problem import INPUT, ROLES, WEIGHT, Problem
from sim.mapping.winners import Objective
from sim.workload.graph import EinsumOp, Graph, Op
from sim.workload.precision import BITS

if TYPE_CHECKING:
    from sim.schedule.network import _Coster

ROOM_STEPS = 16
"""Resident bytes are rounded up to 1/16 of the memory, so that equal layers share one search."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An einsum as the mapper sees it on D designs."""

    op: EinsumOp
    problem: Problem
    machine: Machine
    level: int
    """The memory in which tensors may stay (0: none)."""
    widened: bool
    """Weights are widened before the array."""
    stays: Mapping[str, np.ndarray]
    """tensor -> (D,) whether it stays on chip"""
    held_bytes: np.ndarray
    questions: list[tuple[np.ndarray, Question]]
    """(designs of equal homes, their question)"""


def compute_type_of(op: EinsumOp, graph: Graph) -> str:
    """The array rate that a product asks for: its factors' type, or wXaY where they differ."""
    weight, value = (graph.tensors[op.einsum.operand(role).tensor].dtype for role in (WEIGHT, INPUT))
    return value if weight == value else f"w{BITS[weight]}a{BITS[value]}"


def compute_and_widening(op: EinsumOp, coster: _Coster) -> tuple[str, bool]:
    """(array rate to use, whether weights are widened first)."""
    graph, array = coster.graph, coster.unit.array
    wanted = compute_type_of(op, graph)
    if wanted in array.macs_per_cycle:
        return wanted, False
    wide = graph.tensors[op.einsum.operand(INPUT).tensor].dtype
    if "a" in wanted and wide in array.macs_per_cycle:
        return wide, True
    raise PrecisionError(
        f"{coster.chips[0].name}: {array.name} has no rate for {wanted} ({op.name}); it has "
        f"{', '.join(array.macs_per_cycle)}; choose --precision {next(iter(array.macs_per_cycle))}"
    )


def _problem(op: EinsumOp, coster: _Coster) -> Problem:
    graph, array = coster.graph, coster.unit.array
    tensors = {role: graph.tensors[op.einsum.operand(role).tensor] for role in ROLES}
    return Problem(
        einsum=op.einsum,
        bits={role: t.bits * t.density for role, t in tensors.items()},
        accumulate_bits=array.accumulate_bits,
        reduction_speedup=op_speedup(array, op, graph),
    )


def homes_of(op: Op, coster: _Coster) -> dict[str, np.ndarray]:
    """tensor -> (D,) whether it stays on chip."""
    tensors, stays = coster.graph.tensors, coster.residency.stays
    no = np.zeros(len(coster.chips), dtype=bool)
    return {key: stays.get(tensors[key].storage or key, no) for key in (*op.inputs, *op.outputs)}


def machine_of(coster: _Coster, compute: str) -> Machine:
    key = ("machine", compute)
    if key not in coster.mapped:
        known = isinstance(coster.subject, Designs) or len(coster.chips) == 1
        energy: Energies | None = energies(coster.subject, coster.unit, compute) if known else None
        if energy is not None:
            energy = replace(energy, idle_w=energy.idle_w + coster.price_w)
        coster.mapped[key] = machine(coster.chips, compute, energy=energy)
    return coster.mapped[key]  # type: ignore[return-value]


def asked(
    op: EinsumOp,
    stays: Mapping[str, np.ndarray],
    held: np.ndarray,
    coster: _Coster,
    only: np.ndarray | None = None,
) -> Asked:
    """The questions of an einsum whose tensors lie on chip or at home as `stays` (tensor -> (D,)) says, beside `held`
    bytes. `only`: (D,) designs to ask for, the coster's if not given; the others have no numbers.

    Raises: PrecisionError: the array has no rate for it.
    """
    compute, widened = compute_and_widening(op, coster)
    problem, full = _problem(op, coster), machine_of(coster, compute)
    level = next((i for i, part in enumerate(full.levels) if part.name == coster.residency.memory), 0)
    objective = Objective(coster.options.objective)
    if objective is Objective.EDP:  # seconds have their price (`choice.least_product`)
        objective = Objective.ENERGY
    no = np.zeros(len(full), dtype=bool)
    pattern = sum((stays.get(op.einsum.operand(role).tensor, no) << i for i, role in enumerate(ROLES)), start=0 * no)
    questions, only = [], coster.only if only is None else only & coster.only
    for variant in np.flatnonzero(np.bincount(pattern[only])).tolist():
        designs = np.flatnonzero((pattern == variant) & only)
        at = {r: level if variant >> i & 1 and r in full.levels[level].holds else 0 for i, r in enumerate(ROLES)}
        part = full if len(designs) == len(full) else full.take(designs)
        reserved = np.zeros((len(part), len(part.levels)))
        if level:
            reserved[:, level] = room_class(held[designs], coster, part.capacity_bytes[:, level])
        questions.append((designs, Question(problem, part, at, objective, reserved)))
    return Asked(
        op=op, problem=problem, machine=full, level=level, widened=widened, stays=stays, held_bytes=held,
        questions=questions,
    )  # fmt: skip


def _key(question: Question, coster: _Coster) -> tuple:
    """What two questions of a network must share to have one answer."""
    p, m = question.problem, question.machine
    # An answer says its energy, and the least decides between equals; what idles counts where energy is the objective.
    idle = (m.idle_j_per_cycle,) if question.objective is not Objective.LATENCY else ()
    energies = (m.read_energy_j_per_byte, m.write_energy_j_per_byte, m.mac_energy_j, *idle)
    numbers = (question.reserved_bytes, m.rates, m.capacity_bytes, m.setup_cycles, m.latency_cycles)
    return (
        coster.options.map_space,
        *(tuple(p.einsum.ranks.items()), tuple(p.axes[role] for role in ROLES), tuple(p.bits.items())),
        *(p.reduction_speedup, p.accumulate_bits, tuple(question.homes.items()), m.levels, m.array),
        tuple(a.tobytes() for a in (*numbers, *energies)),
    )


def ask_all(wanted: Iterable[Asked], coster: _Coster) -> None:
    """Answer all questions that nobody answered yet, together."""
    known = coster.shared.maps
    fresh = {
        key: question
        for one in wanted
        for _, question in one.questions
        if _given(one.op, coster) is None and (key := _key(question, coster)) not in known
    }
    fresh, kept = coster.shared.again.choose(fresh)
    known |= {key: one.won for key, one in kept.items() if key not in fresh}
    if not fresh:
        return
    how = coster.options
    answers = map_einsums(list(fresh.values()), space=how.map_space, processes=how.processes, progress=how.progress)
    for key, won in zip(fresh, answers, strict=True):
        known[key] = kept[key].beside(won) if key in kept else won
        coster.shared.again.answered(fresh[key], won)


def found(question: Question, one: Asked, coster: _Coster) -> Winners:
    """The answer: the mapping that the user gave, or the best."""
    given = _given(one.op, coster)
    if given is None:
        return coster.shared.maps[_key(question, coster)]
    full = question.machine
    left = replace(full, capacity_bytes=full.capacity_bytes - question.reserved_bytes)
    try:
        return cost_mapping(given, one.problem, left, question.homes)
    except DovetailError as error:
        raise type(error)(f"{one.op.name}: {error}") from error


def _given(op: EinsumOp, coster: _Coster) -> LoopNest | None:
    mapping = coster.options.mapping.get(op.name) or coster.options.mapping.get("*")
    return mapping if isinstance(mapping, LoopNest) else None


def room_class(held: np.ndarray, coster: _Coster, capacity: np.ndarray | None = None) -> np.ndarray:
    """Resident bytes rounded up to `ROOM_STEPS` of the memory (endless memories have room for all)."""
    size = coster.room_bytes if capacity is None else capacity
    step = np.where(np.isfinite(size), size, 0.0) / ROOM_STEPS
    return np.where(step > 0, np.ceil(held / np.where(step > 0, step, 1.0)) * step, 0.0)
