"""A network on D designs of one structure: every group costed, prefetch applied, arrays over designs.

One chip is D = 1; a sweep is many. The same code makes both, so row i of a sweep is the estimate
of chip i to the last bit: everything here is element-wise over designs, and sums run over ops in
order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from sim.cost.ceilings import instances
from sim.cost.depthwise import depthwise_macs_per_cycle
from sim.cost.links import check_inputs
from sim.errors import ConfigError, PrecisionError, UnsupportedOpError, WorkloadError, expect, nearest
from sim.hardware.chip import Chip, Costing, System, Unit
from sim.hardware.designs import Designs
from sim.hardware.physical import check_energies, idle_power_w
from sim.hardware.supply import supply_problems
from sim.mapping.winners import Objective, Winners
from sim.schedule.again import Again
from sim.schedule.asking import Asked, ask_all, asked, compute_and_widening, homes_of, room_class
from sim.schedule.choice import Way, best_kept, better, least_product, likely_power_w
from sim.schedule.cpu import cost_cpu, own_calibration
from sim.schedule.fusion import fused
from sim.schedule.given import check_space
from sim.schedule.gpu import cost_gpu, gpu_notes, inside_storages
from sim.schedule.gpu_eager import check_widths, cost_eager, eager_notes
from sim.schedule.groups import THERE_BEFORE, GroupCost, cost_einsum, uncosted
from sim.schedule.host import TRANSFER, input_transfer, transfer_note
from sim.schedule.links import awaited, cost_collective
from sim.schedule.loads import with_loads
from sim.schedule.makespan import Makespan
from sim.schedule.prepare import Manner, prepare
from sim.schedule.residency import Keep, Order, Residency, residency, resident_memory
from sim.schedule.room import check_home, never_fits
from sim.schedule.shapes import FUSED_CELLS_OF_GPUS
from sim.schedule.slices import Slicing
from sim.schedule.streams import cost_roofline, cost_stream
from sim.workload.graph import CollectiveOp, EinsumOp, Graph, Op, UnsupportedOp, ViewOp
from sim.workload.passes.precision import PrecisionPolicy, kept_types_note
from sim.workload.precision import Precision, parse_precision

OBJECTIVES = tuple(one.value for one in Objective)
PROGRESS_EVERY = 32
"""Ops between two reports of progress."""


def _silent(share: float) -> None:
    """No report of progress (a function with a name: options are pickled)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to cost: see `sim.estimate`."""

    objective: str = "latency"
    map_space: str = "even"
    """of ops without a given mapping"""
    mapping: Mapping[str, object] = field(default_factory=dict)
    allow_unsupported: bool = False
    overrides_s: Mapping[str, float] = field(default_factory=dict)
    calibration: str = "auto"
    inputs: str = "host"
    apart: bool = False
    """every op alone, every tensor at home: what fusion and residency are compared with"""
    cuts: tuple[int, ...] | None = None
    """in a stream of inferences, in which all weights of a stage stay on chip if they fit: where stages begin"""
    progress: Callable[[float], None] = _silent
    """called now and then with the share of the ops that are costed"""
    processes: int = 1
    """that search for mappings, where a search takes long"""


@dataclass(frozen=True, kw_only=True)
class Network:
    """Costed groups in order. `latency_s` (D,) is the sum of the groups' increments."""

    graph: Graph
    """As it runs on the chip: precision applied, epilogues fused."""
    chips: tuple[Chip, ...]
    unit: Unit
    groups: tuple[GroupCost, ...]
    increments_s: tuple[np.ndarray, ...]
    """(D,) what each group adds to the makespan, prefetch taken off"""
    hidden_s: tuple[np.ndarray, ...]
    """(D,) first load that ran behind the group before"""
    prefetches: tuple[np.ndarray, ...]
    """(D,) the share of the first weight tile that has room beside the group before"""
    residency: Residency
    infeasible: np.ndarray
    """(D,) some group or tensor fits nowhere"""
    reasons: Mapping[int, tuple[str, tuple[str, ...]]]
    """design -> (reason, tensors) where infeasible"""
    notes: tuple[str, ...]
    unsupported: tuple[str, ...]

    def of(self, d: int) -> Network:
        """The network as design `d` runs it: without the groups that it replaces by others."""
        if all(group.runs is None for group in self.groups):
            return self
        own = [i for i, group in enumerate(self.groups) if group.runs is None or group.runs[d]]
        return replace(
            self,
            groups=tuple(self.groups[i] for i in own),
            increments_s=tuple(self.increments_s[i] for i in own),
            hidden_s=tuple(self.hidden_s[i] for i in own),
            prefetches=tuple(self.prefetches[i] for i in own),
        )

    @property
    def latency_s(self) -> np.ndarray:
        total = np.zeros(len(self.chips))
        for increment in self.increments_s:
            total = total + increment
        return np.where(self.infeasible, np.nan, total)


@dataclass(frozen=True)
class Shared:
    """What evaluations of one traced graph under one objective and map space have in common."""

    ready: dict[tuple[str, System | None, bool, Manner], Graph] = field(default_factory=dict)
    """The graph as it runs, per precision and system of chips, ops apart or not, passes of sparse weights."""
    maps: dict[tuple, Winners] = field(default_factory=dict)
    again: Again = field(default_factory=Again)
    slicings: dict[tuple, list[Slicing]] = field(default_factory=dict)
    """Ways to cut attention regions and chains of layers of the graphs that are ready."""
    homes: dict[tuple, Residency] = field(default_factory=dict)
    """Where tensors live, per graph, room and choice of what may stay."""
    numbers: dict[tuple, int] = field(default_factory=dict)
    """The forms of ops (`_form`), numbered: a number is compared faster."""
    forms: dict[tuple[int, str], tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def graphs(self) -> Shared:
        """What does not depend on the chip, for evaluations on others."""
        return replace(self, maps={}, again=Again(), homes={})

    def form(self, op: Op, graph: Graph) -> tuple[int, tuple[str, ...]]:
        """(number of what ops share that differ in names alone, storages of the op's tensors in order)."""
        key = (id(graph), op.name)
        if key not in self.forms:
            number = self.numbers.setdefault(_form(op, graph), len(self.numbers))
            places = tuple(graph.tensors[name].storage or name for name in (*op.inputs, *op.outputs))
            self.forms[key] = (number, places)
        return self.forms[key]


def _form(op: Op, graph: Graph) -> tuple:
    """Ranks, projections, work and tensors of an op (which of them are the same), without names."""
    names = (*op.inputs, *op.outputs)
    place = {name: at for at, name in reversed(list(enumerate(names)))}
    rows = tuple(
        (place[name], t.shape, t.bits, t.density, t.pattern, t.dtype, t.role in THERE_BEFORE)
        for name, t in zip(names, (graph.tensors[name] for name in names), strict=True)
    )
    if isinstance(op, EinsumOp):
        operands = tuple((o.role, o.projection, place[o.tensor]) for o in op.einsum.operands)
        return (tuple(op.einsum.ranks.items()), operands, tuple(op.epilogue.items()), len(op.inputs), rows)
    work = tuple(getattr(op, "primitives", {}).items())
    moved = (*getattr(op, "read_bytes", {}).values(), None, *getattr(op, "write_bytes", {}).values())
    order = tuple(place[k] for k in (*getattr(op, "read_bytes", ()), *getattr(op, "write_bytes", ())))
    return (type(op).__name__, work, moved, order, getattr(op, "passes", 1), len(op.inputs), rows)


class _Coster:
    """Costs the ops of a graph one by one; equal einsums are mapped once."""

    def __init__(
        self,
        graph: Graph,
        chips: Sequence[Chip],
        subject: Chip | Designs,
        options: Options,
        precision: Precision | PrecisionPolicy,
        shared: Shared | None = None,
        *,
        keep: Keep = Keep.WEIGHTS,
        order: Order = Order.RUN,
        only: np.ndarray | None = None,
        price_w: np.ndarray | float = 0.0,
    ) -> None:
        """`only`: (D,) designs whose einsums are mapped, all if not given; the others have no numbers. `price_w`: what
        a second is worth beside idle power where energy counts."""
        self.price_w = price_w
        self.only = np.ones(len(chips), dtype=bool) if only is None else only
        self.keep = Keep.NOTHING if options.apart else keep if options.cuts is None else Keep.ALL_WEIGHTS
        self.order = order
        self.shared = shared or Shared()
        self.graph, self.chips, self.subject, self.options = graph, tuple(chips), subject, options
        self.precision_name = precision.name
        self.unit = chips[0].main_unit
        self.launch_s = np.array([chip.main_unit.launch_s for chip in chips])
        self.residency = self.homes(order)
        self.rooms = [held.tobytes() for held in room_class(self.residency.held_bytes.T, self)]
        """What of the resident memory is taken at every position, in steps."""
        self.reasons: dict[int, tuple[str, tuple[str, ...]]] = {}
        self.mapped: dict[tuple, object] = {}
        self.asked: dict[tuple, Asked] = {}
        self.signatures: dict[str, tuple] = {}

    @cached_property
    def idle_w(self) -> np.ndarray:
        """(D,) or (1,) idle power of a chip; 0 where it is not known."""
        idle = idle_power_w(self.subject)
        return np.nan_to_num(np.atleast_1d(np.asarray(0.0 if idle is None else idle, dtype=float)))

    def homes(self, order: Order) -> Residency:
        """Where tensors live if activations come on chip in this order."""
        found = resident_memory(self.unit)
        room = [
            next(m.capacity_bytes for m in c.main_unit.memories if m.name == found.name) if found else 0.0
            for c in self.chips
        ]
        self.room_bytes = np.array(room, dtype=float)
        inside = inside_storages(self.graph, self.unit)
        cuts = self.options.cuts or ()
        key = (id(self.graph), found and (found.name, found.holds), self.room_bytes.tobytes(), self.keep, order, cuts)
        if key not in self.shared.homes:
            self.shared.homes[key] = residency(
                self.graph, self.unit, self.room_bytes, inside, keep=self.keep, order=order, cuts=cuts
            )
        return self.shared.homes[key]

    def home_names(self, d: int) -> dict[str, str]:
        """tensor -> memory on a design (of a unit costed by roofline)."""
        kept = {s for s, stays in self.residency.stays.items() if stays[d]}
        near, far = self.residency.memory or self.unit.home, self.unit.home
        return {key: near if (t.storage or key) in kept else far for key, t in self.graph.tensors.items()}

    def cost(self) -> list[GroupCost]:
        groups = []
        mapped = self.unit.costing is Costing.MAPPED
        if mapped:
            self._ask()
        for position, op in enumerate(self.graph.ops):
            if not mapped and position % PROGRESS_EVERY == PROGRESS_EVERY - 1:
                self.options.progress(position / len(self.graph.ops))
            if isinstance(op, ViewOp):
                continue
            if isinstance(op, CollectiveOp):
                groups.append(cost_collective(op, position, self))
            elif self.unit.costing.gpu:
                cost = cost_gpu if self.unit.costing is Costing.GPU_KERNELS else cost_eager
                groups += [group] if (group := cost(op, position, self)) else []
            else:
                groups.append(self._cost(op, position))
        return groups

    def _cost(self, op: Op, position: int) -> GroupCost:
        """The op's group; one that only its name tells from an earlier one is not costed again."""
        if self.unit.costing is Costing.CPU:
            return cost_cpu(op, position, self)
        if self.unit.costing is not Costing.MAPPED:
            return cost_roofline(op, position, self)
        held = self.residency.held_bytes[:, position]
        key = self._group_key(op, position)
        found = self.mapped.get(key)
        if found is None:
            found = cost_einsum(self.asked[key], self) if key in self.asked else cost_stream(op, position, self)
            if not self.reasons:
                self.mapped[key] = found
            return found
        assert isinstance(found, GroupCost)
        return found.with_(op=op, name=op.name, held_bytes=held)

    def _ask(self) -> None:
        """Map the einsums of the graph, equal ones once."""
        for position, op in enumerate(self.graph.ops):
            if isinstance(op, EinsumOp) and not self.depthwise_macs_per_cycle(op):
                key = self._group_key(op, position)
                if key not in self.asked:
                    held = self.residency.held_bytes[:, position]
                    self.asked[key] = asked(op, homes_of(op, self), held, self)
        ask_all(self.asked.values(), self)

    def _group_key(self, op: Op, position: int) -> tuple:
        return ("group", self.signature(op), self.rooms[position])

    def signature(self, op: Op) -> tuple:
        """All that the cost of an op of the graph depends on but its place in memory."""
        found = self.signatures.get(op.name)
        if found is None:
            form, storages = self.shared.form(op, self.graph)
            stays = self.residency.stays
            kept = tuple(stays[s].tobytes() if s in stays else b"" for s in storages)
            found = self.signatures[op.name] = (form, kept, self._given(op))
        return found

    def _given(self, op: Op) -> int:
        """Of an einsum the mapping that the user gave, by identity."""
        return isinstance(op, EinsumOp) and id(self.options.mapping.get(op.name) or self.options.mapping.get("*"))

    def depthwise_macs_per_cycle(self, op: Op) -> float:
        """Rate of the processors beside the unit's arrays that take the op; 0 where none does: the arrays take what
        the user maps."""
        array = self.unit.array
        if not (array.depthwise_macs_per_cycle and isinstance(op, EinsumOp)):
            return 0.0
        if {op.name, "*"} & set(self.options.mapping):
            return 0.0
        rate = depthwise_macs_per_cycle(op, self.graph, array, compute_and_widening(op, self)[0])
        return rate * instances(self.unit)[array.name]


def cost_network(
    graph: Graph,
    chips: Sequence[Chip],
    precision: Precision | PrecisionPolicy,
    options: Options,
    *,
    subject: Chip | Designs | None = None,
    shared: Shared | None = None,
) -> Network:
    """Cost a traced graph on chips of one structure (`sim.mapping.machine.group_by_structure`).

    Args: subject: what energies are read from, the first chip if not given; shared: of evaluations of the
        same graph with equal options.
    Returns: what fits nowhere is marked, with the reason and the tensors, and has no times.
    Raises: UnsupportedOpError, PrecisionError, ConfigError.
    """
    unsupported = unsupported_of(graph, options)
    _check(chips[0], precision, options)
    shared = shared or Shared()
    ready = _as_it_runs(graph, chips[0], precision, options, shared)
    energy_of = subject if subject is not None else Designs(chips[0]) if len(chips) == 1 else chips[0]
    try:
        chosen = _best(partial(_Coster, ready, chips, energy_of, precision=precision, shared=shared), options)
    except PrecisionError as error:
        raise PrecisionError("; but ".join([str(error), *kept_types_note(graph, precision)])) from error
    coster, groups, homes = chosen.coster, chosen.groups, chosen.homes
    check_home(coster, homes)
    problems = supply_problems(energy_of if isinstance(energy_of, Designs) else chips)
    coster.reasons.update({d: (f"{chips[d].name}: {why}", ()) for d, why in problems.items()})
    if options.inputs == "host":
        arriving = input_transfer(ready, chips, energy_of, np.zeros(len(chips)))
        groups = [arriving, *groups] if arriving is not None else groups
    made = Makespan(groups, awaited(ready), len(chips))
    _override(groups, made.increments, options)
    infeasible = np.zeros(len(chips), dtype=bool)
    infeasible[list(coster.reasons)] = True
    if coster.reasons:
        made.increments = [np.where(infeasible, np.nan, increment) for increment in made.increments]
    return Network(
        graph=ready,
        chips=tuple(chips),
        unit=coster.unit,
        groups=tuple(groups),
        increments_s=tuple(made.increments),
        hidden_s=tuple(made.hidden),
        prefetches=tuple(made.prefetches),
        residency=homes,
        infeasible=infeasible,
        reasons=coster.reasons,
        notes=(*_notes(ready, coster, groups), *kept_types_note(graph, precision)),
        unsupported=unsupported,
    )


def _check(chip: Chip, precision: Precision | PrecisionPolicy, options: Options) -> None:
    """Raises: ConfigError, CalibrationError, PrecisionError: what does not exist, or what this chip cannot do."""
    check_space(options.map_space)
    check_calibration(chip, options.calibration)
    if options.objective not in OBJECTIVES:
        raise ConfigError(
            f'objective "{options.objective}" is unknown: expected one of {", ".join(OBJECTIVES)}.'
            f"{nearest(options.objective, OBJECTIVES)}"
        )
    if options.objective != "latency":
        own = precision if isinstance(precision, Precision) else parse_precision(chip.default_precision)
        check_energies(chip, own.compute)
    check_inputs(options.inputs)
    check_widths(chip, precision)


def _as_it_runs(
    graph: Graph, chip: Chip, precision: Precision | PrecisionPolicy, options: Options, shared: Shared
) -> Graph:
    """The graph prepared for chips of this structure, once for equal questions."""
    manner = Manner.of(chip.main_unit)
    way = (precision.name, chip.system, options.apart, manner)
    if way not in shared.ready:
        shared.ready[way] = prepare(graph, precision, chip.system, manner=manner, fuse=not options.apart)
    return shared.ready[way]


def _best(coster_of: Callable[..., _Coster], options: Options) -> Way:
    """The network with what may stay on chip chosen for each design. `coster_of`: a coster of these options, and of
    what may stay."""

    def costed(
        keep: Keep,
        only: np.ndarray | None,
        order: Order = Order.RUN,
        price_w: np.ndarray | float = 0.0,
        options: Options = options,
    ) -> Way:
        coster = coster_of(options=options, keep=keep, order=order, only=only, price_w=price_w)
        if never_fits(coster):
            return Way(coster, uncosted(coster), coster.residency)
        groups, homes = coster.cost(), coster.residency
        if keep > Keep.NOTHING:
            groups, homes = fused(groups, coster)
        return Way(coster, with_loads(groups, coster), homes)

    def best(options: Options) -> Way:
        way = partial(costed, options=options)
        given = bool(options.mapping)
        if options.objective != "edp":
            return best_kept(way, given=given)
        return least_product(way, likely_power_w(coster_of(options=options)), given=given)

    chosen = best(options)
    if options.map_space == "uneven":  # an op that is faster alone may hide less of its first load behind others
        chosen = better(chosen, best(replace(options, map_space="even")))
    return chosen


def op_coster(graph: Graph, chip: Chip, options: Options, precision: Precision | PrecisionPolicy) -> _Coster:
    """A coster of one chip for a prepared graph: what costs single ops outside a network."""
    return _Coster(graph, (chip,), chip, options, precision)


def check_calibration(chip: Chip, choice: str) -> None:
    """Raises: ConfigError, CalibrationError: a calibration that this chip cannot use."""
    expect(choice, str, '"auto", "none", a measured device or a .json file', where="calibration")
    if chip.main_unit.costing is not Costing.GPU_KERNELS:  # a GPU's is checked when its constants are read
        own_calibration(chip, choice)


def unsupported_of(graph: Graph, options: Options) -> tuple[str, ...]:
    """Ops without a cost rule and their lines. Raises: UnsupportedOpError: there are some, and they are not allowed."""
    found = [op for op in graph.ops if isinstance(op, UnsupportedOp)]
    if found and not options.allow_unsupported:
        lines = ", ".join(f"{op.kind} ({op.module or op.name}, {op.source or 'unknown source'})" for op in found[:8])
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        count = "1 op has" if len(found) == 1 else f"{len(found)} ops have"
        raise UnsupportedOpError(
            f"{graph.name or 'graph'}: {count} no cost rule: {lines}{more}; register a rule "
            "(sim.workload.trace.register_rule) or pass --allow-unsupported to cost them as memory traffic"
        )
    return tuple(f"{op.kind} at {op.source or op.name}" for op in found)


def _override(groups: list[GroupCost], increments: list[np.ndarray], options: Options) -> None:
    names = {group.name: i for i, group in enumerate(groups)}
    for name, seconds in options.overrides_s.items():
        if name not in names:
            shown = ", ".join(list(names)[:8]) + (", ..." if len(names) > 8 else "")
            raise WorkloadError(
                f'--override: no op "{name}" in the network as it runs: expected one of {shown}.{nearest(name, names)}'
            )
        if not 0 <= seconds < np.inf:
            raise ConfigError(f"--override {name}: {seconds:g} s is no latency: expected a finite time, 0 or more")
        increments[names[name]] = np.full_like(increments[names[name]], seconds)
    if options.overrides_s and np.any(sum(increments) == 0):
        raise ConfigError(
            f"--override {', '.join(options.overrides_s)}: 0 s each, and no other op takes time: a network of 0 s has "
            "no throughput; expected a time above 0 for one of them at least"
        )


def _inside_note(graph: Graph, groups: Sequence[GroupCost]) -> list[str]:
    """What a library runs inside the one kernel of a recurrent layer, and takes no time of its own."""
    layers = {name for name, region in graph.regions.items() if region.attrs.get("cell") in FUSED_CELLS_OF_GPUS}
    inside = [group for group in groups if group.op.region in layers and not np.any(group.launch_s + group.time_s)]
    count = f"{len(inside)} {'op' if len(inside) == 1 else 'ops'} of recurrent layers"
    return [f"{count} run inside the layers' kernels: their time is that of the products there"] if inside else []


def _notes(graph: Graph, coster: _Coster, groups: Sequence[GroupCost]) -> tuple[str, ...]:
    notes = [*graph.notes, *gpu_notes([g for g in groups if g.name != TRANSFER], coster)]
    notes += eager_notes(coster)
    notes += _inside_note(graph, groups)
    notes += [transfer_note(group) for group in groups if group.name == TRANSFER]
    if coster.unit.costing is Costing.ROOFLINE:
        notes.append(f"{coster.unit.name} is costed by roofline and launch floor only: no tiles, no latencies")
        if any(region.kind == "attention" for region in graph.regions.values()):
            notes.append("attention is costed op by op: its scores go through memory, which fused kernels avoid")
    if coster.unit.costing is Costing.CPU and own_calibration(coster.chips[0], coster.options.calibration) is None:
        notes.append(f"{coster.unit.name} has no calibration: data-sheet rates and the file's launch time")
    return tuple(notes)
