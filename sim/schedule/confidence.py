"""Which calibration an estimate used, and the interval that its residuals give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import log1p, sqrt

from sim.cost.gpu.sets import fitted_sets
from sim.cost.intervals import Z90, gap_weight, interval_s, log_deviation
from sim.hardware.calibration import Calibration
from sim.hardware.chip import Chip, Costing
from sim.schedule.cpu import own_calibration
from sim.schedule.gpu_kernels import gpu_of
from sim.schedule.groups import GroupCost
from sim.schedule.host import TRANSFER
from sim.schedule.links import COLLECTIVE
from sim.schedule.network import Network, Options

SAME_GENERATION = 0.08
"""Deviation of constants taken from another GPU of the generation (estimated: twice a median held-out error)."""
GENERATION_CHANGED = 0.21
"""... and across generations (estimated). Constants of one GPU on the kernels of another are off by a log bias of 0.02
to 0.09 for products and attention between A100 and H100, with forms that were chosen in view of both, and of 0.02 to
0.20 for vector ops between V100 and A100: the widest of these holds for what nobody has seen."""
UNMEASURED = 0.3
"""Deviation of a class of kernels that nobody measured (estimated)."""
WHOLE_GPU = 0.05
"""Deviation of a GPU's kernels as a network runs them: clocks under load, other library versions (estimated)."""


def calibration_document(network: Network, d: int, choice: str) -> Mapping[str, object] | None:
    """The `calibration` of an estimate document: device, date, error; None with data-sheet constants."""
    chip = network.chips[d]
    if network.unit.costing is Costing.GPU_KERNELS and choice != "none":
        return _gpu_document(network, gpu_of(chip, choice).constants.origin, changed=bool(chip.overrides))
    found = own_calibration(chip, choice)
    if found is None:
        return None
    return {
        "device": found.device,
        "date": found.date,
        "commit": found.commit,
        "error": {name: values.get("median_error") for name, values in found.error.items()},
        "transferred": _transferred(found, chip),
        "at_limits": list(found.at_limits),
    }


def calibration_label(chip: Chip, choice: str) -> str:
    """What the costs of a chip rest on, in words: "data sheet only", or "calibrated on" a device.

    Raises: ConfigError, CalibrationError: a choice that is unknown."""
    if chip.main_unit.costing is Costing.GPU_KERNELS:
        origin = gpu_of(chip, choice).constants.origin["gemm"]
        return "data sheet only" if choice == "none" else f"calibrated on {origin}"
    found = own_calibration(chip, choice)
    return "data sheet only" if found is None else f"calibrated on {found.device}"


def _transferred(found: Calibration, chip: Chip) -> bool:
    """Whether the constants are of another chip than this one. How kernels are launched was measured both ways."""
    changed = [path for path in chip.overrides if not path.endswith("options.launch")]
    return chip.name not in (found.chip, found.device) or bool(changed)


def _kernels(network: Network) -> list[GroupCost]:
    """Groups that the constants describe: all but the transfer of the inputs."""
    return [group for group in network.groups if group.name != TRANSFER]


def _kinds(network: Network) -> dict[str, float]:
    """Class of kernels -> its share of the time on the first design, heaviest first."""
    total: dict[str, float] = {}
    for group in _kernels(network):
        total[group.cost_class] = total.get(group.cost_class, 0.0) + float(group.time_s[0] + group.launch_s[0])
    whole = sum(total.values()) or 1.0
    return {kind: value / whole for kind, value in sorted(total.items(), key=lambda item: -item[1])}


def _gpu_document(network: Network, origin: Mapping[str, str], *, changed: bool) -> dict[str, object]:
    sets, kinds = fitted_sets(), _kinds(network)
    for unfitted in (COLLECTIVE, ""):  # "": of a network that fits nowhere nothing is costed
        kinds.pop(unfitted, None)
    names = {kind: origin[kind].split(",")[0] for kind in kinds}
    # transferred: kernels that take most of the time were measured on another GPU
    main = names[next(iter(kinds))] if kinds else origin["gemm"].split(",")[0]
    return {
        "device": main,
        "date": sets[main].date,
        "error": {kind: sets[name].error[kind]["median_error"] for kind, name in names.items()},
        "origin": {kind: origin[kind] for kind in kinds},
        "transferred": changed
        or (bool(kinds) and sum(share for kind, share in kinds.items() if origin[kind].endswith("measured")) < 0.5),
    }


def latency_interval_s(network: Network, d: int, options: Options, latency_s: float) -> tuple[float, float] | None:
    """90 % interval of the network's latency; None where no residual is known (data-sheet constants, mapped units, a
    kernel of which nobody knows what a library runs in its place).

    Times that were given have no error of ours: they move it and do not spread it. Example: 2 ms of which 1 ms is
    given, the rest within 0.9 to 1.1 ms: 1.9 to 2.1 ms.
    """
    own = [i for i, group in enumerate(network.groups) if group.name not in options.overrides_s]
    if len(own) == len(network.groups):
        return _modelled_interval_s(network, d, options.calibration, latency_s)
    modelled = replace(
        network,
        groups=tuple(network.groups[i] for i in own),
        increments_s=tuple(network.increments_s[i] for i in own),
    )
    modelled_s = sum(float(increment[d]) for increment in modelled.increments_s)
    if network.infeasible[d] or not modelled_s:
        return None
    found = _modelled_interval_s(modelled, d, options.calibration, modelled_s)
    return None if found is None else (found[0] + latency_s - modelled_s, found[1] + latency_s - modelled_s)


def _modelled_interval_s(network: Network, d: int, choice: str, latency_s: float) -> tuple[float, float] | None:
    """Of a network of which no time was given."""
    chip, gpu = network.chips[d], network.unit.costing is Costing.GPU_KERNELS
    if choice == "none" or not latency_s < float("inf") or not all(group.bounded for group in network.groups):
        return None
    if gpu:
        parts, device, score = _gpu_parts(network, gpu_of(chip, choice).constants.origin), WHOLE_GPU, None
        gaps = 0.0
    else:
        found = own_calibration(chip, choice)
        if found is None:
            return None
        parts, device, score = dict(found.residuals.classes), found.residuals.device, found.residuals.conformal
        gaps = found.residuals.gaps * gap_weight(sum(float(g.launch_s[d]) for g in _kernels(network)) / latency_s)
        device = (device**2 + (GENERATION_CHANGED**2 if _transferred(found, chip) else 0.0)) ** 0.5
        if not {g.cost_class for g in _kernels(network)} <= set(parts):
            parts |= {g.cost_class: (UNMEASURED, UNMEASURED) for g in _kernels(network) if g.cost_class not in parts}
    kept = [i for i, group in enumerate(network.groups) if group.name != TRANSFER]
    groups = [network.groups[i] for i in kept]
    times = [float(network.increments_s[i][d]) for i in kept]
    problems = [(g.macs, g.vector_ops, float(g.time_s[d])) for g in groups]
    classes = [_class(g.cost_class, bool(g.flags)) if gpu else g.cost_class for g in groups]
    deviation = log_deviation(times, classes, problems, device=device, parts=parts, gaps=gaps)
    return interval_s(latency_s, deviation, score)


def _class(kind: str, flagged: bool) -> str:
    return f"{kind}, flagged" if flagged else kind


def _gpu_parts(network: Network, origin: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """Kind -> (class, op) deviations: the held-out p90 as an op's, and where the constants come from as the class's."""
    parts = {COLLECTIVE: (UNMEASURED, UNMEASURED)}
    for kind in dict.fromkeys(g.cost_class for g in _kernels(network) if g.cost_class != COLLECTIVE):
        name, _, how = origin[kind].partition(", ")
        own = log1p(fitted_sets()[name].error[kind]["p90_error"]) / Z90
        moved = {"measured": 0.0, "same generation": SAME_GENERATION}.get(how, GENERATION_CHANGED)
        shared = own / 2  # estimated: a quarter of the variance is shared by the class
        parts[kind] = (sqrt(shared**2 + moved**2), own * sqrt(3) / 2)
        parts[_class(kind, True)] = (UNMEASURED, own)
    return parts
