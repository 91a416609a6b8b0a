"""`estimate`: the closed-form reading of a network on one chip; `evaluate`: one mapping."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan
from pathlib import Path

from sim.cost.links import check_inputs
from sim.cost.roofline import Roofline
from sim.cost.roofline import roofline as graph_roofline
from sim.errors import InfeasibleError, MappingError, WorkloadError, nearest, whole
from sim.floors import floor_s, inner_homes, prints_of
from sim.hardware.chip import Chip
from sim.hardware.designs import Designs
from sim.hardware.dump import chip_hash
from sim.hardware.load import as_chip
from sim.hardware.money import DieCost, die_cost
from sim.hardware.physical import area_parts_mm2, chip_area_mm2, idle_power_w
from sim.hardware.precisions import precision_on
from sim.notes import above_stated, derived_energy, no_leakage, notes_of
from sim.results import Estimate, OpEstimate, Term, Traffic
from sim.savings import with_savings
from sim.schedule.asking import compute_type_of
from sim.schedule.confidence import calibration_document, latency_interval_s
from sim.schedule.given import GIVEN, Given, given_latencies_s, given_mappings
from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.loads import SUFFIX
from sim.schedule.network import OBJECTIVES, Network, Options, Shared, cost_network
from sim.schedule.peaks import peaks_bytes, winning_rows
from sim.schedule.prepare import Manner, prepare
from sim.steady import with_steady
from sim.whatif import WhatIfs, with_answers
from sim.workload.graph import Einsum, EinsumOp, Graph, Op, OperandRole, Role, Tensor
from sim.workload.load import Workload, as_graph
from sim.workload.passes.precision import PrecisionPolicy, as_typed
from sim.workload.precision import Precision


def estimate(
    graph: Graph | Workload | str | Path,
    chip: Chip | str | Path,
    *,
    objective: str = "latency",
    precision: str | Precision | PrecisionPolicy | None = None,
    calibration: str = "auto",
    map_space: str = "even",
    mapping: Given | None = None,
    allow_unsupported: bool = False,
    overrides: Mapping[str, float | str] | None = None,
    what_if: bool = False,
    inputs: str = "host",
    progress: Callable[[float], None] = lambda share: None,
    processes: int = 1,
) -> Estimate:
    """Latency, energy and memory of a network alone on the chip's main unit, and why.

    Args:
        graph, chip: either may be a name or a path, as `load_workload` and `load_hardware` take them.
        objective: what is least: "latency", "energy" (idle power over the whole time included) or "edp", their
            product; energy counts where the chip states energies.
        precision: "int8", "w4a16", ..., or a YAML file with a precision per op or module
            (`sim.workload.precision_file`); the chip's default when None.
        calibration: "auto" (the device's own constants, or those of the nearest measured GPU), "none" (data sheet
            only), a measured device, or a calibration file (see `sim.baseline.calibrate`).
        map_space: "even", "uneven" or "fixed_dataflow": of ops without a mapping; "given" stands for "even" there.
        mapping: a mapping for every einsum, or op name -> mapping ("*" for all others); its form in documents, as
            `OpEstimate.mapping` is, and None, as of an op without one, are taken too. On mapped units only.
        allow_unsupported: cost ops without a rule as memory traffic instead of refusing.
        overrides: op name -> latency that is known better, in seconds or with its unit ("1.2 ms").
        what_if: also cost the network with each resource larger and in each precision (`sim.whatif`): some
            twenty further evaluations; and, on mapped units, with every op alone and all tensors at home, which
            fills `saved`; and as a stream of inferences on all units, or stages of chips (`steady`). Without
            `mapping` and `overrides`, which belong to one chip.
        inputs: "host": they come over the chip's host link, where it has one, as an op of their own; "resident": they
            are in the home memory already, as in most measurements of a device alone.
        progress: called now and then with the share of the ops that are costed, for each evaluation anew.
        processes: how many search for mappings over several memory borders, and cost the further evaluations of
            `what_if` (forked copies of this one, on Linux only).
    Returns: also where the network fits nowhere: `infeasible` then says why, times are infinite or not a number.
    Raises: UnsupportedOpError, PrecisionError, MappingError, ConfigError; InfeasibleError: a given mapping overflows.
    """
    graph = as_graph(graph, where="estimate: first argument")
    chip = as_chip(chip, where="estimate: second argument")
    processes = whole(processes, where="processes")
    given, space = given_mappings(mapping, map_space, chip)
    options = Options(
        objective=objective,
        map_space=space,
        mapping=given,
        allow_unsupported=allow_unsupported,
        overrides_s=given_latencies_s(overrides),
        calibration=calibration,
        inputs=inputs,
        progress=progress,
        processes=processes,
    )
    chosen = precision_on(chip, precision)
    shared = Shared()
    network = cost_network(graph, [chip], chosen, options, shared=shared)
    _check_names(given, network)
    found = read(network, 0, precision=chosen, options=options)
    if not what_if or given or options.overrides_s:
        return found
    options = replace(options, processes=1)  # the others cost what-ifs
    with WhatIfs(graph, chip, chosen, options, shared, processes) as asked:
        for more in (with_savings, with_steady):
            found = more(found, network.of(0), graph, chip, chosen, options, shared)
        return with_answers(found, asked)


def roofline(
    graph: Graph | Workload | str | Path,
    chip: Chip | str | Path,
    precision: str | Precision | PrecisionPolicy | None = None,
    *,
    inputs: str = "host",
) -> Roofline:
    """The data sheet's bound of a network as it runs on the chip's main unit, epilogues fused: `estimate`'s roofline.

    (That knows besides which groups run in slices, so that what passes inside them leaves the ops' own bounds.)
    Args: as `estimate`. `sim.cost.roofline.roofline` takes a graph as it is.
    Raises: PrecisionError, ConfigError: the array or the vector unit has no rate for what the graph does.
    """
    check_inputs(inputs)
    graph = as_graph(graph, where="roofline: first argument")
    chip = as_chip(chip, where="roofline: second argument")
    chosen, unit = precision_on(chip, precision), chip.main_unit
    ready = prepare(graph, chosen, chip.system, manner=Manner.of(unit))
    return graph_roofline(as_typed(ready, chosen), chip, chosen.name, homes=inner_homes(ready, unit), inputs=inputs)


def _check_names(given: Mapping[str, object], network: Network) -> None:
    names = [group.name for group in network.groups]
    for name in given:
        if name != "*" and name not in names:
            raise WorkloadError(f'mapping for "{name}": no such op in the network as it runs.{nearest(name, names)}')


def read(network: Network, d: int, *, precision: str | Precision | PrecisionPolicy, options: Options) -> Estimate:
    """The estimate of design `d` of a costed network."""
    network = network.of(d)
    chip = network.chips[d]
    chosen = precision_on(chip, precision)
    graph = as_typed(network.graph, chosen)
    inside = [group.sliced.slicing.inside for group in network.groups if group.sliced is not None]
    homes = inner_homes(network.graph, network.unit, frozenset().union(*inside))
    bound = graph_roofline(graph, chip, chosen.name, homes=homes, inputs=options.inputs)
    floors, prints = {point.name: point for point in bound.ops}, prints_of(network, d, homes)
    feasible = not network.infeasible[d]
    place = {TRANSFER: 0} | {op.name: position for position, op in enumerate(network.graph.ops)}
    split, stages, chips = _system(chip)
    latency = float(network.latency_s[d]) if feasible else inf
    silicon = _Silicon.of(chip, chips)
    total = sum(float(group.energy_j[d]) * split for group in network.groups)
    leaks_w = 0.0 if silicon.idle_power_w is None else silicon.idle_power_w * chips  # goes on while an op runs
    known = feasible and isfinite(total + leaks_w)
    dynamic, energy = (total, total + leaks_w * latency) if known else (None, None)
    ops = tuple(
        _op(
            network, i, d, floor_s(group, d, floors, network, prints), place[group.op.name.removesuffix(SUFFIX)],
            leaks_w, options.overrides_s,
        )
        for i, group in enumerate(network.groups)
    )  # fmt: skip
    slots = sum(float(g.mac_slots[d]) for g in network.groups if g.mac_slots is not None)
    array = network.unit.array
    cells = array.rows * array.cols * stages
    cycles = latency * network.unit.clock_hz
    return Estimate(
        workload_name=graph.name,
        knobs=graph.knobs,
        graph_hash=graph.hash,
        batch=graph.batch,
        hardware_name=chip.name,
        hardware_hash=chip_hash(chip),
        overrides=chip.overrides,
        precision=chosen.name,
        objective=options.objective,
        map_space=GIVEN if options.mapping else options.map_space,
        buffering=network.unit.buffering.value,
        calibration=calibration_document(network, d, options.calibration),
        latency_s=latency,
        latency_interval_s=latency_interval_s(network, d, options, latency),
        cycles=cycles,
        roofline_latency_s=bound.latency_s,
        macs=sum(g.macs for g in network.groups) * split,
        effective_macs=sum(g.effective_macs for g in network.groups) * split,
        vector_ops=sum(g.vector_ops for g in network.groups) * split,
        mac_utilization=slots / (cells * cycles) if slots and feasible else None,
        energy_j=energy,
        power_w=energy / latency if energy is not None else None,
        area_mm2=silicon.area_mm2,
        area_breakdown_mm2=silicon.area_parts_mm2,
        die_cost=silicon.die_cost,
        peak_memory_bytes=peaks_bytes(network, d),
        traffic_bytes=_total_traffic(ops),
        breakdown_s=_total_terms(ops),
        ops=ops,
        infeasible=_infeasible(network, d),
        unsupported=network.unsupported,
        notes=(
            *notes_of(network, d, dynamic, options),
            *derived_energy(chip, energy),
            *no_leakage(energy, silicon.idle_power_w),
            *above_stated(chip, chips, energy, latency),
        ),
        energy_breakdown_j=_energy_parts(network, d, dynamic, energy),
        roofline=bound.to_dict(),
    )


def op_precision(op: Op, graph: Graph) -> str:
    """Stored types of an op: of the factors of a product ("int8", "w4a16"), of any other op's result."""
    if isinstance(op, EinsumOp):
        return compute_type_of(op, graph)
    return next((graph.tensors[key].dtype for key in op.outputs if key in graph.tensors), "")


@dataclass(frozen=True, slots=True)
class _Silicon:
    """What a chip is whatever runs on it; None or empty where its file says too little."""

    idle_power_w: float | None
    area_mm2: float | None
    area_parts_mm2: dict[str, float]
    die_cost: DieCost

    @staticmethod
    def of(chip: Chip, chips: int) -> _Silicon:
        """Of one chip; its area of `chips` of them."""
        one = Designs(chip)
        power, area = (float(value(one)[0]) for value in (idle_power_w, chip_area_mm2))
        return _Silicon(
            idle_power_w=None if isnan(power) else power,
            area_mm2=area * chips if isfinite(area) else None,
            area_parts_mm2={name: part * chips for name, part in area_parts_mm2(one).items()},
            die_cost=die_cost(one),
        )


def _system(chip: Chip) -> tuple[int, int, int]:
    """(chips that share a layer, stages, chips in all). Work, energy, power and area of a result are those of all
    chips; memory, traffic and utilisation those of one."""
    return (chip.system.tensor_parallel, chip.system.pipeline, chip.system.chips) if chip.system else (1, 1, 1)


def _op(
    network: Network, i: int, d: int, roofline_s: float, position: int, leaks_w: float,
    known: Collection[str],
) -> OpEstimate:  # fmt: skip
    """`known` names the ops whose latency was given."""
    group = network.groups[i]
    feasible = not network.infeasible[d]
    latency, launch = float(network.increments_s[i][d]) if feasible else inf, float(group.launch_s[d])
    given = group.name in known  # a latency of which the model's cycles say nothing
    cycles = (latency * network.unit.clock_hz if given else float(group.cycles[d])) if feasible else inf
    ladder = group.ladder if feasible and not given else None
    cells = network.unit.array.rows * network.unit.array.cols
    split = _system(network.chips[d])[0]
    energy = float(group.energy_j[d]) * split + leaks_w * latency
    used = group.mac_slots is not None and cycles > 0 and feasible
    return OpEstimate(
        name=group.name,
        kind=group.op.kind,
        module=group.op.module,
        source=group.op.source,
        macs=group.macs * split,
        vector_ops=group.vector_ops * split,
        latency_s=latency,
        roofline_s=roofline_s,
        cycles=cycles,
        bound="launch" if launch > float(group.time_s[d]) else group.bound[d],
        mac_utilization=float(group.mac_slots[d]) / (cells * cycles) if used else None,  # type: ignore[index]
        cycles_ladder={k: float(v[d]) for k, v in ladder.items()} if ladder else None,
        traffic_bytes={
            memory: {role: Traffic(read=float(r[d]), write=float(w[d])) for role, (r, w) in table.items()}
            for memory, table in group.traffic_bytes.items()
            if feasible
        },
        energy_j=energy if feasible and isfinite(energy) else None,
        breakdown_s=_terms(network, i, d, latency, launch) if feasible else dict.fromkeys(Term, inf),
        mapping=_mapping(group, d, network),
        fused=group.fused,
        homes=_homes(network, group, d),
        held_bytes=_held_bytes(network, group, d, position),
        precision=op_precision(group.op, network.graph),
    )


def _terms(network: Network, i: int, d: int, latency: float, launch: float) -> dict[Term, float]:
    """The group's terms, with what was hidden or overridden taken from the exposed ones."""
    group = network.groups[i]
    terms = {term: float(value[d]) for term, value in group.terms_s.items()}
    terms[Term.LAUNCH] = launch
    saved = sum(terms.values()) - latency
    for term in (
        Term.COMMUNICATION,
        Term.EXPOSED_MEMORY,
        Term.DMA_SETUP,
        Term.LAUNCH,
        Term.PRELOAD,
        Term.FILL_DRAIN,
        Term.VECTOR,
        Term.DEQUANTISE,
        Term.COMPUTE,
    ):
        taken = min(max(saved, 0.0), terms.get(term, 0.0))
        terms[term] = terms.get(term, 0.0) - taken
        saved -= taken
    if saved < -1e-9 * latency:  # a known latency above ours: the difference waits for something we do not model
        terms[Term.QUEUEING] = -saved
    return terms


def _mapping(group: GroupCost, d: int, network: Network) -> Mapping[str, object] | None:
    for won, row in winning_rows(group, d):
        return {"dataflow": network.unit.array.dataflow.value, **won.mappings[row].to_dict()}
    return None


def _homes(network: Network, group: GroupCost, d: int) -> dict[str, str]:
    stays, near = network.residency.stays, network.residency.memory
    tensors = network.graph.tensors
    names = {}
    inside = group.sliced.slicing.inside if group.sliced else frozenset()
    members = [network.graph.ops[i] for i in group.sliced.slicing.members] if group.sliced else [group.op]
    for key in (key for op in members for key in (*op.inputs, *op.outputs)):
        storage = tensors[key].storage or key
        kept = stays.get(storage)
        on_chip = storage in inside or (kept is not None and kept[d])
        names[key] = near if near and on_chip else network.unit.home
    return names


def _total_terms(ops: tuple[OpEstimate, ...]) -> dict[Term, float]:
    totals = dict.fromkeys(Term, 0.0)
    for op in ops:
        for term, value in op.breakdown_s.items():
            totals[term] += value
    return totals


def _total_traffic(ops: tuple[OpEstimate, ...]) -> dict[str, Traffic]:
    totals: dict[str, list[float]] = {}
    for op in ops:
        for memory, table in op.traffic_bytes.items():
            total = totals.setdefault(memory, [0.0, 0.0])
            for traffic in table.values():
                total[0] += traffic.read
                total[1] += traffic.write
    return {memory: Traffic(read=r, write=w) for memory, (r, w) in totals.items()}


def _held_bytes(network: Network, group: GroupCost, d: int, position: int) -> dict[str, float]:
    """What lies in the home memory, and on chip (residents and tiles), while the group runs."""
    residency = network.residency
    held = {network.unit.home: float(residency.home_bytes[d, position])}
    if residency.memory:
        held[residency.memory] = float(group.held_bytes[d] + group.footprint_bytes[d])
    return held


def _infeasible(network: Network, d: int) -> dict[str, object] | None:
    if not network.infeasible[d]:
        return None
    reason, tensors = network.reasons[d]
    return {"reason": reason, "tensors": list(tensors)}


def _energy_parts(network: Network, d: int, dynamic: float | None, energy: float | None) -> dict[str, float]:
    """Component -> energy over the network; leakage is the rest of the total. Empty where energy is unknown."""
    if dynamic is None or energy is None:
        return {}
    parts: dict[str, float] = {}
    for group in network.groups:
        for name, value in group.energy_parts_j.items():
            parts[name] = parts.get(name, 0.0) + float(value[d]) * _system(network.chips[d])[0]
    if energy > dynamic:
        parts["leakage"] = energy - dynamic
    return parts


def evaluate(
    einsum: Einsum | Graph | Workload | str | Path,
    chip: Chip | str | Path,
    mapping: Given,
    *,
    precision: str | Precision | PrecisionPolicy | None = None,
    calibration: str = "auto",
    map_space: str = "even",
    allow_unsupported: bool = False,
) -> OpEstimate:
    """The cost of one einsum under a given mapping, its operands at the chip's home memory.

    Args: mapping: a mapping, or its form in documents, such as the `mapping` of an op of an estimate; precision,
        calibration, map_space, allow_unsupported: as `estimate`, with its defaults. The mapping is given, so that the
        map space decides for other einsums of a graph only: the first op's cost is returned.
    Raises: MappingError: the mapping does not fit the einsum or the chip; InfeasibleError: a memory
        overflows, or the home memory is too small for the operands.
    """
    if mapping is None:  # an op's that has none: an estimate would search
        raise MappingError("evaluate: there is no mapping to cost; `sim.estimate` searches for the best")
    graph = one_op_graph(einsum) if isinstance(einsum, Einsum) else as_graph(einsum, where="evaluate: first argument")
    chip = as_chip(chip, where="evaluate: second argument")
    found = estimate(
        graph,
        chip,
        mapping=mapping,
        precision=precision,
        calibration=calibration,
        map_space=map_space,
        allow_unsupported=allow_unsupported,
    )
    if found.infeasible is not None:
        raise InfeasibleError(str(found.infeasible["reason"]))
    return found.ops[0]


def one_op_graph(einsum: Einsum, name: str = "einsum") -> Graph:
    """A graph of one einsum: its input is a graph input, its weight a weight, its output an output."""
    roles = {OperandRole.INPUT: Role.INPUT, OperandRole.WEIGHT: Role.WEIGHT, OperandRole.OUTPUT: Role.OUTPUT}
    tensors = {
        o.tensor: Tensor(
            id=o.tensor,
            shape=tuple(axis.size for axis in o.projection),
            dtype="fp32",
            bits=32,
            role=roles[o.role],
            name=o.role.value,
        )
        for o in einsum.operands
    }
    inputs = tuple(o.tensor for o in einsum.operands if o.role is not OperandRole.OUTPUT)
    op = EinsumOp(name=name, kind="einsum", inputs=inputs, outputs=(einsum.output.tensor,), einsum=einsum)
    return Graph(ops=(op,), tensors=tensors, name=name)


__all__ = ["OBJECTIVES", "estimate", "evaluate", "one_op_graph", "op_precision", "read", "roofline"]
