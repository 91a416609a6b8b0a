"""A Schedule of one chip from a costed network: what the event simulator executes.

Ports of memories on chip belong to one unit and cannot be contended for, so the time that they
bind is part of each step's compute; the home memory's ports are left to the events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.errors import InfeasibleError, whole
from sim.hardware.chip import Chip
from sim.mapping.machine import Machine
from sim.mapping.steps import Moves, StepTable
from sim.schedule.given import Given, given_mappings
from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.links import awaited
from sim.schedule.loads import LOAD, SUFFIX
from sim.schedule.makespan import beside_unit
from sim.schedule.network import Network, Options, cost_network
from sim.schedule.peaks import peaks_bytes
from sim.schedule.plan import Group, Schedule, Steps
from sim.schedule.slices import Sliced, slice_classes
from sim.schedule.stages import stages_of
from sim.workload.graph import CollectiveOp, Graph
from sim.workload.passes.pipeline import is_send, stage_of
from sim.workload.passes.precision import PrecisionPolicy
from sim.workload.precision import Precision
from sim.workload.precision_file import resolve_precision


def costed(
    graph: Graph,
    chip: Chip,
    *,
    precision: str | Precision | PrecisionPolicy | None = None,
    objective: str = "latency",
    map_space: str = "even",
    mapping: Given | None = None,
    allow_unsupported: bool = False,
    calibration: str = "auto",
    inputs: str = "host",
    processes: int = 1,
) -> tuple[Network, Options, Precision | PrecisionPolicy]:
    """The network that `estimate` reads with the same arguments, and what these came to.

    Raises: as `sim.estimate`.
    """
    given, space = given_mappings(mapping, map_space, chip)
    options = Options(
        objective=objective,
        map_space=space,
        mapping=given,
        allow_unsupported=allow_unsupported,
        calibration=calibration,
        inputs=inputs,
        processes=whole(processes, where="processes"),
    )
    chosen = resolve_precision(precision, chip.default_precision)
    return cost_network(graph, [chip], chosen, options), options, chosen


def schedule(graph: Graph, chip: Chip, **options: Any) -> Schedule:
    """The schedule that `estimate` reads with the same arguments (see `costed`)."""
    return to_schedule(costed(graph, chip, **options)[0], 0)


def to_schedule(network: Network, d: int) -> Schedule:
    """Design `d` of a costed network as a schedule.

    Raises: InfeasibleError: it fits the chip nowhere.
    """
    network = network.of(d)
    if network.infeasible[d]:
        reason, tensors = network.reasons[d]
        raise InfeasibleError(reason + (f"; largest: {', '.join(tensors)}" if tensors else ""))
    chip, unit = network.chips[d], network.unit
    home = chip.memory(unit.home)
    clock = unit.clock_hz if len(network.chips) == 1 else chip.main_unit.clock_hz
    names = (home.name, home.name) if home.shared_port else (f"{home.name}.read", f"{home.name}.write")
    machine = next((g.machine for g in network.groups if g.machine is not None), None)
    if machine is not None:
        level = machine.levels[0]
        rates = {
            names[0]: float(machine.rates[d, level.read_port]) * clock,
            names[1]: float(machine.rates[d, level.write_port]) * clock,
        }
    else:
        rates = {name: rate * clock for name, rate in zip(names, home.reached(clock), strict=True)}
    position = {op.name: at for at, op in enumerate(network.graph.ops)}
    for link in chip.links:
        rates[link.name] = link.bandwidth.at(clock) * clock
    beside = beside_unit(network.groups, awaited(network.graph), len(network.chips))[:, d].tolist()
    groups = tuple(
        _group(network, i, d, names, rates, beside, _held(network, cost, d, position))
        for i, cost in enumerate(network.groups)
    )
    made = Schedule(
        groups=groups,
        ports=rates,
        peaks_bytes=peaks_bytes(network, d),
        clock_hz={unit.name: clock},
        units={unit.name: unit.count} | ({chip.system_link.name: 1} if any(beside) else {}),
        notes=network.notes,
        lasting_bytes={home.name: float(network.residency.lasting_bytes[0])},
    )
    return _in_stages(made, network, d) if chip.system and chip.system.pipeline > 1 else made


def _in_stages(made: Schedule, network: Network, d: int) -> Schedule:
    """Each group on the chip of its stage of a pipeline; a send on the one that waits for it, which may load then.
    Each chip has its weights and caches; what a job holds beside them on one, it holds until it goes on at the next."""
    stages, unit = stages_of(network, d), network.unit
    stage = {name: at for at, names in enumerate(stages.groups) for name in names}  # (inputs arrive at the first)
    lasting = dict(zip(stage_of(network.graph), network.residency.lasting_bytes.tolist(), strict=True))
    groups = tuple(
        replace(
            group, instance=stage.get(group.name, 0) + is_send(cost.op), pinned=True,
            held_bytes={} if is_send(cost.op) else group.held_bytes,
        )
        for group, cost in zip(made.groups, network.groups, strict=True)
    )  # fmt: skip
    return replace(
        made,
        groups=groups,
        units=dict.fromkeys(made.units, len(stages.groups)),
        lasting_bytes={f"{unit.name}[{at}].{unit.home}": held for at, held in lasting.items()},
        stages=len(stages.groups),
        interval_s=stages.interval_s,
    )


def _held(network: Network, cost: GroupCost, d: int, position: Mapping[str, int]) -> dict[str, float]:
    """Memory -> bytes held while the group runs."""
    kept, at = network.residency, position.get(cost.op.name.removesuffix(SUFFIX))
    held = {network.unit.home: float(kept.home_bytes[d, 0 if at is None else at])}
    if kept.memory:
        held[kept.memory] = float(cost.held_bytes[d] + cost.footprint_bytes[d])
    return held


def _group(
    network: Network,
    i: int,
    d: int,
    ports: tuple[str, str],
    rates: Mapping[str, float],
    beside: Sequence[bool],
    held: Mapping[str, float],
) -> Group:
    cost = network.groups[i]
    if beside[i]:
        return _collective(network, i, d, beside)
    steps = _steps(cost, d, ports, rates)
    ahead = float(network.prefetches[i][d]) if cost.prefetch_s[d] > 0 else 0.0
    from_home = steps.first_load_bytes.get(ports[0], 0.0) > 0
    fetch = ahead * float(cost.first_weight_bytes[d]) if from_home else 0.0
    energy = float(cost.energy_j[d]) * _split(network, d)
    # The unit's time to launch a collective that may have to wait for the link, once this group is done, comes with its
    # own.
    launch = 0.0 if i and _follows(network, i, beside) else float(cost.launch_s[d])
    if i + 1 < len(beside) and _follows(network, i + 1, beside):
        launch += float(network.groups[i + 1].launch_s[d])
    return Group(
        name=cost.name,
        ops=(cost.name,),
        unit=network.unit.name,
        kind="transfer" if cost.name == TRANSFER or cost.op.kind == LOAD else "einsum" if cost.macs else "vector",
        deps=_deps(network, i, beside),
        launch_s=launch,
        steps=steps,
        latency_s=launch + float(cost.time_s[d]),
        prefetch_bytes={ports[0]: fetch} if fetch else {},
        prefetch_fixed_s=ahead * float(cost.prefetch_s[d]) - fetch / rates[ports[0]],
        macs=cost.macs,
        energy_j=None if np.isnan(energy) else energy,
        held_bytes=held,
    )


def _split(network: Network, d: int) -> int:
    """Chips that share a layer: a group's energy is that of all of them."""
    system = network.chips[d].system
    return system.tensor_parallel if system else 1


def _follows(network: Network, i: int, beside: Sequence[bool]) -> bool:
    """Whether a group is a collective that the unit launches at the end of the group before: on the link beside the
    unit, or one that the unit waits for while another may still hold the link."""
    sends = isinstance(network.groups[i].op, CollectiveOp)
    return beside[i] or (sends and any(beside[:i]) and not isinstance(network.groups[i - 1].op, CollectiveOp))


def _deps(network: Network, i: int, beside: Sequence[bool]) -> tuple[int, ...]:
    """The unit's group before, and the collectives beside the unit whose results the group reads or, where it is one
    itself, which hold the link before it."""
    before = next((j for j in range(i - 1, -1, -1) if not beside[j]), None)
    deps = {before} if before is not None else set()
    if any(beside[:i]):
        group, reads = network.groups[i], awaited(network.graph)
        names = {name for op in (group.name, *group.fused) for name in reads.get(op, ())}
        deps |= {j for j in range(i) if beside[j] and network.groups[j].name in names}
        if isinstance(group.op, CollectiveOp):
            deps.add(max(j for j in range(i) if beside[j]))
    return tuple(sorted(deps))


def _collective(network: Network, i: int, d: int, beside: Sequence[bool]) -> Group:
    """A collective on the link, beside the unit."""
    cost = network.groups[i]
    return Group(
        name=cost.name,
        ops=(cost.name,),
        unit=network.chips[d].system_link.name,
        kind="transfer",
        deps=_deps(network, i, beside),
        launch_s=0.0,
        steps=Steps(repeat=np.array([1]), compute_s=np.array([float(cost.time_s[d])])),
        latency_s=float(cost.time_s[d]),
        energy_j=float(cost.energy_j[d]) * _split(network, d),
    )


def _steps(cost: GroupCost, d: int, ports: tuple[str, str], rates: Mapping[str, float]) -> Steps:
    for designs, won in cost.winners:
        at = np.flatnonzero(designs == d)
        if len(at):
            table = won.tables[int(won.row[at[0]])]
            return _mapped(cost, table, d, ports, float(won.latency_cycles[at[0]]))
    if cost.name == TRANSFER:
        return _transferred(cost, d, ports, rates)
    if cost.op.kind == LOAD:
        return _loaded(cost, d, ports)
    if cost.stream is not None:
        return _streamed(cost, d, ports, rates)
    if cost.sliced is not None:
        return _in_slices(cost, cost.sliced, d, ports)
    return _whole(cost, d, ports, rates)


def _mapped(cost: GroupCost, table: StepTable, d: int, ports: tuple[str, str], latency: float) -> Steps:
    """The step classes of a mapped einsum: home ports apart, the rest in the compute time."""
    machine = cost.machine
    assert machine is not None
    clock, rates, setup = machine.clock_hz[d], machine.rates[d], machine.setup_cycles[d]
    home = (machine.levels[0].read_port, machine.levels[0].write_port)
    busy = table.busy.bytes / rates + table.busy.transfers * setup
    near = [p for p in range(len(machine.ports)) if p not in home]
    compute = np.maximum(table.run, busy[:, near].max(axis=-1, initial=0.0))
    moves, moved, single = busy[:, home].max(axis=-1), table.busy.bytes, np.zeros(1)
    if table.single is not None:  # nothing hides these
        moved, single = moved + table.single.bytes, table.single.busiest(rates[None], setup)
    outlasts = max(0.0, float(cost.time_s[d] * clock - latency - _alone(table, machine, d)))
    own = cost.traffic_bytes[machine.levels[0].name].get("epilogue")
    extra, rate = float(own[0][d]) if own else 0.0, float(rates[home[0]])
    beside, after = _epilogue_reads(extra, rate, table.weight, compute - moves, outlasts)
    one_more = [0.0] if outlasts > 1e-15 * clock else []  # lanes, a widening or those reads outlast the mapped part
    first, last = table.first.bytes[0], table.last.bytes[0]
    start, end = (_end(at, machine, d, home) for at in (table.first, table.last))
    return Steps(
        repeat=np.append(table.weight, [1.0] * len(one_more)).astype(np.int64),
        compute_s=np.append(compute + single, [outlasts] * len(one_more)) / clock,
        first_load_bytes={name: float(first[p]) for name, p in zip(ports, home, strict=True) if first[p] > 0},
        next_load_bytes={name: np.append(moved[:, p], one_more) for name, p in zip(ports, home, strict=True)},
        inner_bytes={ports[0]: np.append(beside, [after] * len(one_more))},
        last_store_bytes={name: float(last[p]) for name, p in zip(ports, home, strict=True) if last[p] > 0},
        first_latency_s=(start + latency) / clock,
        pause_s=np.append(moves - (moved / rates)[:, home].max(axis=-1) + single, one_more) / clock,
        last_pause_s=end / clock,
    )


def _epilogue_reads(
    moved: float, rate: float, weight: np.ndarray, spare: np.ndarray, outlasts: float
) -> tuple[np.ndarray, float]:
    """(bytes per step, bytes after the last) of what the epilogue reads at home: where that port idles beside the
    compute, all steps alike, and only what is left where the group outlasts its steps."""
    spare = np.maximum(0.0, spare)
    reads, room = moved / rate, float(np.dot(weight, spare))
    beside = moved * min(1.0, room / reads) if reads else moved
    after = (moved - beside) * min(1.0, outlasts / (reads - room)) if reads > room else 0.0
    return spare * (beside / room) if room else 0.0 * spare, after


def _end(moves: Moves, machine: Machine, d: int, home: tuple[int, int]) -> float:
    """Cycles by which a first load or last store outlasts its bytes at home: set-ups, ports on chip."""
    moved = moves.bytes[0]
    busy = moves.busiest(machine.rates[[d]], machine.setup_cycles[[d]])[0]
    return float(busy - max(moved[p] / machine.rates[d, p] for p in home))


def _alone(table: StepTable, machine: Machine, d: int) -> float:
    time = table.time(machine.rates[[d]], machine.setup_cycles[[d]])[0]
    return float(time)


def _streamed(cost: GroupCost, d: int, ports: tuple[str, str], rates: Mapping[str, float]) -> Steps:
    """Chunks of a vector or movement op."""
    flow, machine = cost.stream, cost.machine
    assert flow is not None
    assert machine is not None
    clock = machine.clock_hz[d]
    n = int(flow.chunks[d])
    home = machine.levels[0].name
    tables = cost.traffic_bytes[home].values()
    read, write = (sum(float(t[way][d]) for t in tables) / n for way in (0, 1))
    x, y = float(flow.load_step[d]), float(flow.drain[d])
    own = (read / rates[ports[0]] * clock, write / rates[ports[1]] * clock)
    lanes = float(flow.step_cycles[d])
    loads = np.array([1.0, 1.0, 0.0]) if n > 1 else np.array([0.0])
    stores = np.array([0.0, 1.0, 1.0]) if n > 1 else np.array([0.0])
    repeat = np.array([1, n - 2, 1]) if n > 1 else np.array([1])
    pause = loads * (x - own[0] if x else 0.0) + stores * (y - own[1] if y else 0.0)
    moved = {ports[0]: loads * read}
    moved[ports[1]] = moved.get(ports[1], 0.0) + stores * write if ports[0] == ports[1] else stores * write
    if ports[0] != ports[1]:  # two ports work at the same time, the stream counts them in turn
        pause = loads * x + stores * y - np.maximum(loads * own[0], stores * own[1])
    latency = machine.latency_cycles[d] if x else 0.0
    return Steps(
        repeat=repeat[repeat > 0],
        compute_s=np.full(len(repeat), lanes / clock)[repeat > 0],
        first_load_bytes={ports[0]: read} if read else {},
        next_load_bytes={name: values[repeat > 0] for name, values in moved.items()},
        last_store_bytes={ports[1]: write} if write else {},
        first_latency_s=(max(0.0, x - own[0]) + latency) / clock if x else 0.0,
        pause_s=np.maximum(0.0, pause[repeat > 0]) / clock,
        last_pause_s=max(0.0, y - own[1]) / clock if y else 0.0,
    )


def _in_slices(cost: GroupCost, cut: Sliced, d: int, ports: tuple[str, str]) -> Steps:
    """Slices of a fused group, and what their pipeline exposes once as a step of its own."""
    machine = cost.machine
    assert machine is not None
    clock, fill = machine.clock_hz[d], float(cut.fill[d])
    classes = slice_classes(cut.slicing)
    once, each, out = (float(of[d]) for of in (cut.outer_bytes, cut.inner_bytes, cut.store_bytes))
    loads = [outer * once + inner * each for _, outer, inner, _ in classes] + [0.0] * (fill > 0)
    stores = [store * out for *_, store in classes] + [0.0] * (fill > 0)
    return Steps(
        repeat=np.array([repeat for repeat, *_ in classes] + [1] * (fill > 0)),
        compute_s=np.array([float(cut.step[d])] * len(classes) + [fill] * (fill > 0)) / clock,
        first_load_bytes={ports[0]: once + each} if once + each else {},
        next_load_bytes={ports[0]: np.array(loads)},
        store_bytes={ports[1]: np.array(stores)},
        last_store_bytes={ports[1]: out} if out else {},
        setup_s=float(machine.setup_cycles[d] / clock),
        first_latency_s=float(machine.latency_cycles[d] / clock) if once + each else 0.0,
    )


def _loaded(cost: GroupCost, d: int, ports: tuple[str, str]) -> Steps:
    """Weights that come on chip to stay: a first load, and nothing after it."""
    machine = cost.machine
    assert machine is not None
    clock, moved = machine.clock_hz[d], float(cost.first_weight_bytes[d])
    alone = moved / float(machine.rates[d, machine.levels[0].read_port]) / clock
    slower = float(cost.first_weight_s[d]) - alone  # the memory on chip takes longer to write than home to read
    return Steps(
        repeat=np.array([1]),
        compute_s=np.array([0.0]),
        first_load_bytes={ports[0]: moved},
        setup_s=float(machine.setup_cycles[d] / clock),
        first_latency_s=float(machine.latency_cycles[d] / clock) + slower,
    )


def _transferred(cost: GroupCost, d: int, ports: tuple[str, str], rates: Mapping[str, float]) -> Steps:
    """Inputs that come over the host link, written to the home memory as they arrive."""
    link = cost.bound[d].partition(":")[2]
    moved = float(cost.traffic_bytes[next(iter(cost.traffic_bytes))]["input"][1][d])
    latency = float(cost.time_s[d]) - max(moved / rates[link], moved / rates[ports[1]])
    return Steps(
        repeat=np.array([1]),
        compute_s=np.array([0.0]),
        first_load_bytes={link: moved, ports[1]: moved},
        first_latency_s=max(0.0, latency),
    )


def _whole(cost: GroupCost, d: int, ports: tuple[str, str], rates: Mapping[str, float]) -> Steps:
    """An op that is known by its total only: one step, its home bytes beside it."""
    time = float(cost.time_s[d])
    moved = dict.fromkeys(ports, 0.0)
    if isinstance(cost.op, CollectiveOp):
        home = next(iter(cost.traffic_bytes))
        for port, way in zip(ports, cost.traffic_bytes[home]["communication"], strict=True):
            moved[port] += float(way[d])
    else:
        moved[ports[0]] = min(float(cost.home_busy_s[d]), time) * rates[ports[0]]
    return Steps(
        repeat=np.array([1]),
        compute_s=np.array([time]),
        next_load_bytes={port: np.array([amount]) for port, amount in moved.items() if amount},
    )
