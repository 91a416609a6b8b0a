"""What a search has learned of the gap between roofline and estimate, and what that makes of designs
that nobody has costed.

Every model-chip pair has objectives at its roofline at no cost. How far the estimate lies above them
is smooth in the parameters: a Gaussian process (Rasmussen and Williams, Gaussian Processes for
Machine Learning, 2006, algorithm 2.1) over the log of the ratio predicts it, with its own doubt.
Designs are then costed in order of the hypervolume that their optimistic prediction adds, measured
by points drawn in the box of log objectives.

The guide only orders and stops: every reported number is an estimate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from sim.codesign.found import logarithmic
from sim.codesign.pareto import dominated_by, nadir, non_dominated
from sim.codesign.ranges import Parameter

POINTS = 2048
"""Points in the box of log objectives: a share of 1/2048 is the smallest gain that is seen."""
ENOUGH = 5e-4
"""Share of the box that a design must promise to add to be costed."""
OPTIMISM = 1.0
"""`Guide.optimism`. With one objective only of every other trial: one looks where little is known, the next where most
is expected."""
NOISE = 0.03
"""Scatter that the parameters do not explain, in standard deviations of all ratios."""
LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Length scales tried, in units of a parameter's whole range; the likeliest is taken."""
ROWS = 400
"""Costed designs kept for the fit, the latest."""

_NUMBER = re.compile(r"[+-]?\d")


def number_like(choice: object) -> bool:
    """Whether a choice of a parameter is a number or a quantity: such choices have an order."""
    return bool(_NUMBER.match(str(choice)))


@dataclass
class Guide:
    """Learns from costed designs; predicts log objectives of others."""

    parameters: Sequence[Parameter]
    signed: tuple[int, ...] = ()
    """Objectives that may be of either sign (`sim.codesign.found.logarithmic`): a quality."""
    features: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    bounds: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """Log objectives at the roofline of what was costed, (n, m)."""
    ratios: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    optimism: float = OPTIMISM
    """Standard deviations by which a prediction is taken better than its mean."""
    fit: _Process | None = None
    learned: int = 0
    """How often it has learned something."""

    def encode(self, assignment: Mapping[str, Any], columns: Mapping[str, np.ndarray], length: int) -> np.ndarray:
        """Features (length, f): of a parameter with numbers its position in its range, of others which choice.

        `assignment` holds for all rows; `columns` give the index of the choice where rows differ. Parameters
        that do not count in the assignment have no features set.
        """
        parts = []
        for p in self.parameters:
            if p.values is None:
                low, high = (np.log(p.low), np.log(p.high)) if p.log else (p.low, p.high)
                value = assignment.get(p.name)
                here = 0.0 if value is None else ((np.log(value) if p.log else value) - low) / (high - low)
                parts.append(np.full((length, 1), here))
                continue
            ordered = all(number_like(value) for value in p.values)
            one = np.zeros((length, 1 if ordered else len(p.values)))
            if p.name in columns or p.name in assignment:
                index = columns[p.name] if p.name in columns else np.array(p.values.index(assignment[p.name]))
                if ordered:
                    one[:, 0] = index / max(1, len(p.values) - 1)
                else:
                    one[np.arange(length), np.broadcast_to(index, (length,))] = 1.0
            parts.append(one)
        return np.concatenate(parts, axis=1)

    def learn(self, features: np.ndarray, at_roofline: np.ndarray, costed: np.ndarray) -> None:
        """Objectives (n, m), to be minimised, of costed designs at their roofline and as estimated."""
        bound = logarithmic(at_roofline, signed=self.signed)
        fresh = logarithmic(costed, signed=self.signed) - bound
        good = np.isfinite(fresh).all(axis=1)
        if good.any():
            new = {"features": features[good], "bounds": bound[good], "ratios": fresh[good]}
            for name, rows in new.items():
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, rows])[-ROWS:] if len(old) else rows)
            self.fit = None
            self.learned += 1

    def predict(self, features: np.ndarray, at_roofline: np.ndarray) -> np.ndarray:
        """Optimistic log objectives (n, m); the roofline itself while nothing is known."""
        bound = logarithmic(at_roofline, signed=self.signed)
        if not len(self.ratios):
            return bound
        if self.fit is None:
            self.fit = _Process.of(self.features, self.bounds, self.ratios)
        mean, doubt = self.fit.predict(features, bound)
        exact = (self.ratios == 0).all(axis=0)  # what the roofline knows already (quality, area)
        return bound + np.where(exact, 0.0, np.maximum(mean - self.optimism * doubt, 0.0))


@dataclass(frozen=True)
class _Process:
    """A Gaussian process with one squared-exponential kernel for all objectives."""

    inputs: np.ndarray
    low: np.ndarray
    span: np.ndarray
    """Of the log objectives at the roofline, which are inputs too."""
    length: float
    inverse: np.ndarray
    """Of the kernel of the inputs with its noise."""
    weights: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, bounds: np.ndarray, ratios: np.ndarray) -> _Process:
        low, span = bounds.min(axis=0), np.ptp(bounds, axis=0)
        span = np.where(span > 0, span, 1.0)
        inputs = np.concatenate([features, (bounds - low) / span], axis=1)
        mean, scale = ratios.mean(axis=0), ratios.std(axis=0)
        targets = (ratios - mean) / np.where(scale > 0, scale, 1.0)
        best: tuple[float, float, tuple, np.ndarray] | None = None
        for length in LENGTHS:
            kernel = _kernel(inputs, inputs, length) + NOISE**2 * np.eye(len(inputs))
            factor = cho_factor(kernel, lower=True)
            weights = cho_solve(factor, targets)
            size = 2.0 * float(np.log(np.diag(factor[0])).sum())
            likelihood = -0.5 * (float((targets * weights).sum()) + targets.shape[1] * size)
            if best is None or likelihood > best[0]:
                best = likelihood, length, factor, weights
        assert best is not None
        _, length, factor, weights = best
        inverse = cho_solve(factor, np.eye(len(inputs)))
        return cls(inputs, low, span, length, inverse, weights, mean, scale)

    def predict(self, features: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) of the log ratios, each (n, m)."""
        inputs = np.concatenate([features, (bounds - self.low) / self.span], axis=1)
        near = _kernel(inputs, self.inputs, self.length)
        doubt = np.sqrt(np.maximum(1.0 - ((near @ self.inverse) * near).sum(axis=1), 0.0))
        return self.mean + self.scale * (near @ self.weights), self.scale * doubt[:, None]


def _kernel(a: np.ndarray, b: np.ndarray, length: float) -> np.ndarray:
    apart = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.exp(-0.5 * np.maximum(apart, 0.0) / length**2)


@dataclass(frozen=True)
class Promise:
    """The part of the box of log objectives that a front leaves, as points (k, m)."""

    open: np.ndarray

    @classmethod
    def beyond(cls, front: np.ndarray, predicted: np.ndarray, seed: int, signed: tuple[int, ...] = ()) -> Promise:
        """front (f, m): objectives reached; predicted (n, m): log objectives of what may come."""
        reached = logarithmic(front, signed=signed) if front.size else np.empty((0, predicted.shape[1]))
        everything = np.concatenate([reached, predicted[np.isfinite(predicted).all(axis=1)]])
        if not len(everything):
            return cls(np.empty((0, predicted.shape[1])))
        # The front may come to reach as far as what nothing beats yet, on all sides.
        worst, best = nadir(everything[non_dominated(everything)]), everything.min(axis=0)
        drawn = np.random.default_rng(seed).uniform(best, np.maximum(worst, best), size=(POINTS, len(best)))
        return cls(drawn[~dominated_by(drawn, reached)] if len(reached) else drawn)

    def best(self, predicted: np.ndarray) -> int | None:
        """The row that alone adds most; None where none adds `ENOUGH`."""
        found = self.pick(predicted, 1)
        return int(found[0]) if len(found) else None

    def pick(self, predicted: np.ndarray, most: int) -> np.ndarray:
        """Rows in the order in which each adds most to those before it, as long as they add `ENOUGH`."""
        chosen: list[int] = []
        left = self.open
        rows = np.flatnonzero(non_dominated(predicted))
        covers = np.ones((len(rows), len(left)), dtype=bool)
        for k in range(predicted.shape[1]):
            covers &= predicted[rows, k, None] <= left[:, k]
        alive = np.ones(len(left), dtype=bool)
        while len(chosen) < most and len(rows):
            gains = (covers & alive).sum(axis=1)
            best = int(gains.argmax())
            if gains[best] < ENOUGH * POINTS:
                break
            chosen.append(int(rows[best]))
            alive &= ~covers[best]
        return np.array(chosen, dtype=int)


__all__ = ["Guide", "Promise", "number_like"]
