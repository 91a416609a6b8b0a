"""What is left after a fit: deviations by class and op, the device's own, and the conformal score of networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sim.baseline.cpu_rows import Table, family
from sim.cost.cpu import CLASSES, CpuConstants
from sim.cost.intervals import COVERAGE, log_deviation
from sim.hardware.calibration import Residuals

MAD_TO_SIGMA = 1.4826
FEW_POINTS = 9
"""Below this many points there is no 90 % conformal quantile."""
UNSEEN_DEVICE = 0.05
"""Device part of the residual where fewer than three whole networks were measured (estimated)."""
SMALLEST = 0.01
"""No part is believed to be smaller than this: the repeatability of the best points."""


def residuals_of(
    ops: Table, op_s: np.ndarray, networks: Table | None, network_s: np.ndarray | None, constants: CpuConstants
) -> Residuals:
    """Args: op_s, network_s: times predicted with constants that had not seen them."""
    parts = class_deviations(ops, op_s)
    if networks is None or network_s is None:
        return Residuals(device=UNSEEN_DEVICE, classes=parts)
    log_error = np.log(networks.measured_s / network_s)
    device, parts = split(device_deviation(log_error), parts, network_deviations(networks, constants, parts, 0.0))
    deviation = network_deviations(networks, constants, parts, device)
    scores = np.abs(log_error) / deviation
    models = np.array([r.workload for r in networks.records])
    covered, width = coverage(scores, deviation, models)
    return Residuals(
        device=device, classes=parts, conformal=conformal_score(scores), models=len(set(models)), points=len(scores),
        covered=covered, median_width=width,
    )  # fmt: skip


def class_deviations(ops: Table, op_s: np.ndarray) -> dict[str, tuple[float, float]]:
    """Class -> (shared by its ops, one op's own): robust scatter of its ops, and the error of a mean over as many
    families of shapes."""
    log_error, labels = np.log(ops.measured_s / op_s), ops.classes()
    out = {}
    for name in sorted(set(labels)):
        at = labels == name
        families = len({family(r) for r, yes in zip(ops.records, at, strict=True) if yes})
        own = max(SMALLEST, MAD_TO_SIGMA * float(np.median(np.abs(log_error[at]))))
        out[str(name)] = (own / math.sqrt(families), own)
    return out


def device_deviation(log_error: np.ndarray) -> float:
    """What scatters networks as a whole: robust standard deviation of their errors about none."""
    if len(log_error) < 3:
        return UNSEEN_DEVICE
    return max(SMALLEST, MAD_TO_SIGMA * float(np.median(np.abs(log_error))))


def split(
    whole: float, parts: Mapping[str, tuple[float, float]], spread: np.ndarray
) -> tuple[float, dict[str, tuple[float, float]]]:
    """(device, parts): half of the networks' variance is the device's, half their ops', whose parts are scaled to it.

    Ops alone, with their whole family left out, scatter more than they do in networks, where the constants have seen
    their kind: their residuals say which classes are worse, the networks how much.
    """
    share = whole / math.sqrt(2)
    scale = share / max(1e-9, math.sqrt(float(np.mean(spread**2))))
    return share, {name: (scale * shared, scale * own) for name, (shared, own) in parts.items()}


def conformal_score(scores: np.ndarray) -> float | None:
    """The ceil((n + 1) 0.9)-th smallest score: a new network's is below it with 90 % probability, if it is
    exchangeable with these [Vovk et al., Algorithmic Learning in a Random World, 2005]. None below nine.

    Example: scores 1 ... 9: rank 9, so 9.
    """
    rank = math.ceil((len(scores) + 1) * COVERAGE)
    return float(np.sort(scores)[rank - 1]) if len(scores) >= FEW_POINTS and rank <= len(scores) else None


def coverage(scores: np.ndarray, deviation: np.ndarray, models: np.ndarray) -> tuple[int, float | None]:
    """(points inside the interval that the networks of other models give, median relative width of these intervals).

    The score of each point's interval comes from the other models alone: leave-model-out.
    """
    covered, widths = 0, []
    for model in sorted(set(models)):
        own = models == model
        reach = conformal_score(scores[~own])
        if reach is None:
            return 0, None
        covered += int(np.sum(scores[own] <= reach))
        widths += list(2 * np.sinh(reach * deviation[own]))
    return covered, float(np.median(widths))


def network_deviations(
    networks: Table, constants: CpuConstants, parts: Mapping[str, tuple[float, float]], device: float
) -> np.ndarray:
    """Deviation of each network's log time; classes without rows count as the middle one of the known."""
    middle = sorted(parts.values(), key=lambda pair: pair[0] ** 2 + pair[1] ** 2)[len(parts) // 2]
    times_s = networks.times(constants).total_s * networks.count
    out = []
    for record in range(len(networks.records)):
        at = np.flatnonzero(networks.owner == record)
        names = [CLASSES[int(k)] for k in networks.work.kind[at]]
        known = {name: parts.get(name, middle) for name in names}
        out.append(log_deviation(list(times_s[at]), names, list(at), device=device, parts=known))
    return np.array(out)
