"""What is left after a fit: deviations by class and op, the device's own, and the conformal score of networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from sim.baseline.table import Table, family
from sim.cost.gpu.constants import Constants
from sim.cost.intervals import COVERAGE, gap_weight, log_deviation
from sim.hardware.calibration import Residuals

MAD_TO_SIGMA = 1.4826
FEW_POINTS = 9
"""Below this many points there is no 90 % conformal quantile."""
UNSEEN_PART = 0.14
PULL = 0.05
"""Pull of the parts of networks' deviations, and where to: half a nat at three e-folds (estimated)."""
UNSEEN_DEVICE = 0.05
"""Device part of the residual where fewer than three whole networks were measured (estimated)."""
SMALLEST = 0.01
"""No part is believed to be smaller than this: the repeatability of the best points."""


def residuals_of(
    ops: Table, op_s: np.ndarray, networks: Table | None, network_s: np.ndarray | None, constants: Constants
) -> Residuals:
    """Args: op_s, network_s: times predicted with constants that had not seen them."""
    classes = class_deviations(ops, op_s)
    if networks is None or network_s is None:
        return Residuals(device=UNSEEN_DEVICE, classes=classes)
    classes = with_networks_classes(classes, networks)
    log_error = np.log(networks.measured_s / network_s)
    models = np.array([r.workload for r in networks.records])
    shares = network_shares(networks, constants, classes)
    parts = likeliest_parts(log_error, shares)
    scores = np.abs(log_error) / deviation_of(parts, shares)
    covered, width = coverage(log_error, shares, models)
    device, gaps, scale = (float(part) for part in parts)
    return Residuals(
        device=device, gaps=gaps, classes={name: (scale * a, scale * b) for name, (a, b) in classes.items()},
        conformal=conformal_score(scores), models=len(set(models)), points=len(scores), covered=covered,
        median_width=width,
    )  # fmt: skip


def class_deviations(ops: Table, op_s: np.ndarray) -> dict[str, tuple[float, float]]:
    """Class -> (shared by its ops, one op's own): robust scatter of its ops, and the error of a mean over as many
    families of shapes."""
    log_error, labels = np.log(ops.measured_s / op_s), ops.labels()
    out = {}
    for name in sorted(set(labels)):
        at = labels == name
        families = len({family(r) for r, yes in zip(ops.records, at, strict=True) if yes})
        own = max(SMALLEST, MAD_TO_SIGMA * float(np.median(np.abs(log_error[at]))))
        out[str(name)] = (own / math.sqrt(families), own)
    return out


def with_networks_classes(
    classes: Mapping[str, tuple[float, float]], networks: Table
) -> dict[str, tuple[float, float]]:
    """Classes that no op was measured of alone, but networks run, count as the middle one of the known."""
    middle = sorted(classes.values(), key=lambda pair: pair[0] ** 2 + pair[1] ** 2)[len(classes) // 2]
    there = {networks.classes[int(kind)] for kind in np.unique(networks.kind)}
    return dict(classes) | dict.fromkeys(sorted(there - set(classes)), middle)


def network_shares(networks: Table, constants: Constants, classes: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """[network, part] what a unit of each part adds to the deviation of its log time: the device 1, the gaps between
    ops the weight of their share of the time, the classes of ops the joint deviation that their own residuals give."""
    time = networks.times(constants)
    owner, count = networks.owner, networks.count
    shares = np.bincount(owner, weights=time.host_s * count) / np.bincount(owner, weights=time.total_s * count)
    gaps = np.array([gap_weight(float(share)) for share in shares])
    return np.stack([np.ones(len(gaps)), gaps, network_deviations(networks, constants, classes, 0.0)], axis=1)


def deviation_of(parts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Deviation of each network: independent parts, and what no part goes below."""
    return np.sqrt(np.sum((parts * shares) ** 2, axis=1) + SMALLEST**2)


def likeliest_parts(log_error: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(device, gaps, scale of the classes) under which these held-out errors are likeliest.

    Errors follow a Laplace distribution (heavy tails, so that one odd network does not set the scale). A weak pull to
    UNSEEN_PART per e-fold keeps parts that few networks show. Ops alone, with their whole family left out, scatter
    more than they do in networks: their residuals say which classes are worse, the networks how much.
    """
    if len(log_error) < 3:
        return np.array([UNSEEN_DEVICE, 0.0, 1.0])

    def cost(logs: np.ndarray) -> float:
        deviation = deviation_of(np.exp(logs), shares)
        fit = np.sum(np.log(deviation) + math.sqrt(2) * np.abs(log_error) / deviation)
        return float(fit + PULL * np.sum((logs - math.log(UNSEEN_PART)) ** 2))

    start = np.full(shares.shape[1], math.log(UNSEEN_PART))
    return np.exp(minimize(cost, start, method="Nelder-Mead", options={"maxiter": 4000}).x)


def conformal_score(scores: np.ndarray) -> float | None:
    """The ceil((n + 1) 0.9)-th smallest score: a new network's is below it with 90 % probability, if it is
    exchangeable with these [Vovk et al., Algorithmic Learning in a Random World, 2005]. None below nine.

    Example: scores 1 ... 9: rank 9, so 9.
    """
    rank = math.ceil((len(scores) + 1) * COVERAGE)
    return float(np.sort(scores)[rank - 1]) if len(scores) >= FEW_POINTS and rank <= len(scores) else None


def coverage(log_error: np.ndarray, shares: np.ndarray, models: np.ndarray) -> tuple[int, float | None]:
    """(points inside the interval that the networks of other models give, median relative width of these intervals).

    Parts and score of each point's interval come from the other models alone: leave-model-out.
    """
    covered, widths = 0, []
    for model in sorted(set(models)):
        own = models == model
        if not np.any(~own):
            return 0, None
        deviation = deviation_of(likeliest_parts(log_error[~own], shares[~own]), shares)
        scores = np.abs(log_error) / deviation
        reach = conformal_score(scores[~own])
        if reach is None:
            return 0, None
        covered += int(np.sum(scores[own] <= reach))
        widths += list(2 * np.sinh(reach * deviation[own]))
    return covered, float(np.median(widths))


def network_deviations(
    networks: Table, constants: Constants, parts: Mapping[str, tuple[float, float]], device: float
) -> np.ndarray:
    """Deviation of each network's log time from the deviations of its classes."""
    times_s = networks.times(constants).total_s * networks.count
    out = []
    for record in range(len(networks.records)):
        at = np.flatnonzero(networks.owner == record)
        names = [networks.classes[int(k)] for k in networks.kind[at]]
        out.append(log_deviation(list(times_s[at]), names, list(at), device=device, parts=parts))
    return np.array(out)
