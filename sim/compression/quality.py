"""Quality of a model that may be too large to train here: by training, law, table or callable.

Every answer is a `Quality` that names its method, its error where one is known, and whether it
was asked inside the range where the method was fitted. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import exp, isfinite, log, sqrt
from typing import TYPE_CHECKING

from sim.compression.published import PUBLISHED, SOURCES, PublishedQuality
from sim.errors import WorkloadError, nearest
from sim.workload.raised import foreign_code, told

if TYPE_CHECKING:
    from torch import nn

    from sim.compression.training import Score, Task


class Method(StrEnum):
    TRAIN = "train"
    """trained here, judged on a test set"""
    SCALING_LAW = "scaling_law"
    TABLE = "table"
    """published accuracy of the same model and scheme"""
    CALLABLE = "callable"
    """the user's own function"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """A quality and how it was found. `standard_error` is None where nobody stated one."""

    metric: str
    value: float
    higher_is_better: bool
    method: Method
    source: str
    standard_error: float | None = None
    in_range: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta, nats per token.

    N counts parameters, D training tokens. `errors` are standard errors of the constants; the
    published ones come without covariances, and A, B and the exponents are strongly correlated,
    so the propagated error (independence assumed) is too large rather than too small.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float
    errors: Mapping[str, float] | None
    source: str
    parameters: tuple[float, float] = (70e6, 16e9)
    """Range of N in the fitted runs."""
    tokens: tuple[float, float] = (5e9, 500e9)

    def loss(self, *, parameters: float, tokens: float) -> float:
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def standard_error(self, *, parameters: float, tokens: float) -> float | None:
        """First-order propagation of `errors` with independent constants, nats per token."""
        if self.errors is None:
            return None
        n, d = parameters**-self.alpha, tokens**-self.beta
        slopes = {"e": 1.0, "a": n, "b": d, "alpha": self.a * n * log(parameters), "beta": self.b * d * log(tokens)}
        return sqrt(sum((slopes[key] * error) ** 2 for key, error in self.errors.items()))


HOFFMANN = LossLaw(
    e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28, errors=None,
    source="Hoffmann et al., Training Compute-Optimal Large Language Models, arXiv 2203.15556, approach 3",
)  # fmt: skip
BESIROGLU = LossLaw(
    e=1.8172, a=482.01, b=2085.43, alpha=0.3478, beta=0.3658,
    errors={"e": 0.03, "a": 124.58, "b": 1293.23, "alpha": 0.02, "beta": 0.02},
    source="Besiroglu et al., Chinchilla Scaling: A replication attempt, arXiv 2404.10102",
)  # fmt: skip
LAWS = {"besiroglu": BESIROGLU, "hoffmann": HOFFMANN}

PRECISION_SOURCE = "Kumar et al., Scaling Laws for Precision, arXiv 2411.04330"
GAMMA_WEIGHT, GAMMA_ACTIVATION, GAMMA_KV = 2.6745, 2.2102, 0.9578
"""Bits over which effective parameters saturate [PRECISION_SOURCE]."""
C_PTQ, D_PTQ, N_PTQ, GAMMA_PTQ = 0.0598, 0.5068, 0.3439, 0.5907
"""PTQ penalty C D^d / N^n exp(-bits / gamma); GAMMA_PTQ is recalled and unverified."""
PRECISION_RANGE = {"parameters": (30e6, 1.7e9), "tokens": (1.5e9, 26e9), "bits": (3.0, 16.0)}
"""Fitted on 30 M to 220 M parameters, checked to 1.7 B [PRECISION_SOURCE]."""


def effective_parameters(
    *, parameters: float, weight_bits: float = 16, activation_bits: float = 16, kv_bits: float = 16
) -> float:
    """N_eff = N prod(1 - exp(-P / gamma)) of a model *trained* at these widths (Kumar et al., eq. 3).

    Example: 8 bits everywhere keeps 92.4 % of N.
    """
    share = 1.0
    for bits, gamma in ((weight_bits, GAMMA_WEIGHT), (activation_bits, GAMMA_ACTIVATION), (kv_bits, GAMMA_KV)):
        share *= 1 - exp(-bits / gamma)
    return parameters * share


def ptq_penalty(*, parameters: float, tokens: float, weight_bits: float) -> float:
    """Loss added by post-training weight quantisation, nats per token (Kumar et al., eq. 2).

    It grows with the training tokens: overtrained models quantise worse.
    """
    return C_PTQ * tokens**D_PTQ / parameters**N_PTQ * exp(-weight_bits / GAMMA_PTQ)


def scaling_law(
    *,
    parameters: float,
    tokens: float,
    weight_bits: float = 16,
    activation_bits: float = 16,
    kv_bits: float = 16,
    post_training: bool = False,
    law: str = "besiroglu",
) -> Quality:
    """Loss in nats per token of a language model of N parameters trained on D tokens.

    Args:
        post_training: weights are quantised after training at 16 bits (penalty added); otherwise
            the widths are those of training (effective parameters).
        law: "besiroglu" (refit with standard errors, preferred) or "hoffmann".
    The standard error covers the loss law's constants only; those of the precision law came
    without errors, which the notes say.
    """
    if law not in LAWS:
        raise WorkloadError(f'scaling law "{law}" is unknown: expected {" or ".join(LAWS)}.{nearest(law, LAWS)}')
    chosen = LAWS[law]
    ranges = {"parameters": (parameters, chosen.parameters), "tokens": (tokens, chosen.tokens)}
    notes = [
        f"{name} {value:.3g} outside the fitted {low:.3g} to {high:.3g}"
        for name, (value, (low, high)) in ranges.items()
        if not low <= value <= high
    ]
    source, penalty, effective = chosen.source, 0.0, parameters
    widths = {"weight": weight_bits, "activation": activation_bits, "kv": kv_bits}
    if any(bits != 16 for bits in widths.values()):
        source += f"; {PRECISION_SOURCE}"
        notes += _precision_notes(parameters, tokens, widths)
        trained = 16.0 if post_training else weight_bits
        effective = effective_parameters(
            parameters=parameters, weight_bits=trained, activation_bits=activation_bits, kv_bits=kv_bits
        ) / effective_parameters(parameters=1.0)
        if post_training and weight_bits != 16:
            penalty = ptq_penalty(parameters=parameters, tokens=tokens, weight_bits=weight_bits)
    outside = tuple(note for note in notes if "outside" in note)
    if effective != parameters or penalty:
        notes.append("the precision law's own constants carry no standard error")
    return Quality(
        metric="loss (nats per token)",
        value=chosen.loss(parameters=effective, tokens=tokens) + penalty,
        higher_is_better=False,
        method=Method.SCALING_LAW,
        source=source,
        standard_error=chosen.standard_error(parameters=effective, tokens=tokens),
        in_range=not outside,
        notes=tuple(notes),
    )


def _precision_notes(parameters: float, tokens: float, widths: Mapping[str, float]) -> list[str]:
    asked = {"parameters": (parameters,), "tokens": (tokens,), "bits": tuple(widths.values())}
    notes = []
    for name, values in asked.items():
        low, high = PRECISION_RANGE[name]
        bad = [v for v in values if not low <= v <= high]
        if bad:
            notes.append(f"precision law: {name} {bad[0]:.3g} outside the fitted {low:.3g} to {high:.3g}")
    return notes


def table(model: str, scheme: str) -> Quality:
    """The published quality of a model under a scheme; the entry nearest by name is never guessed.

    Raises: WorkloadError: no such entry, with the schemes or models that there are.
    """
    rows = [row for row in PUBLISHED if row.model == model]
    if not rows:
        names = sorted({row.model for row in PUBLISHED})
        raise WorkloadError(
            f'no published quality of "{model}": expected one of {", ".join(names)}.{nearest(model, names)}'
        )
    found = next((row for row in rows if row.scheme == scheme), None)
    if found is None:
        raise WorkloadError(f'no published "{scheme}" of {model}: there are {", ".join(r.scheme for r in rows)}')
    return _published(found)


def _published(row: PublishedQuality) -> Quality:
    return Quality(
        metric=row.metric,
        value=row.value,
        higher_is_better=row.higher_is_better,
        method=Method.TABLE,
        source=SOURCES[row.source],
        notes=(f"baseline {row.baseline:g}", f"number {row.confidence}", "holds for this model and scheme alone"),
    )


def trained(module: nn.Module, task: Task) -> Quality:
    """Quality of a module on its task's test set, with the standard error of the mean over examples: of one example
    there is none. Raises: as `judged`."""
    score = judged(module, task)
    count = len(score.per_example)
    return Quality(
        metric=score.metric,
        value=score.value,
        higher_is_better=score.higher_is_better,
        method=Method.TRAIN,
        source=f"task {task.name}, {count} test {'example' if count == 1 else 'examples'}",
        standard_error=(score.per_example.std() / sqrt(count)).item() if count > 1 else None,
    )


def judged(module: nn.Module, task: Task, *, limit: int | None = None, part: str = "test") -> Score:
    """The task's own judgement. Raises: TraceError: the task or the module raised; WorkloadError: no finite number."""
    with foreign_code(lambda error: f"task {task.name}: {told(error)}"):
        score = task.evaluate(module, limit=limit, part=part)
    if not isfinite(score.value):
        raise WorkloadError(f"task {task.name}: {score.metric} is {score.value}, expected a finite number")
    return score


def by_callable(
    function: Callable[[nn.Module], float], module: nn.Module, *, metric: str, higher_is_better: bool
) -> Quality:
    """The user's own judgement. Raises: WorkloadError: it returns no finite number."""
    name = getattr(function, "__qualname__", repr(function))
    value = function(module)
    if not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        raise WorkloadError(f"quality function {name}: expected a finite number, got {value!r}")
    return Quality(
        metric=metric, value=float(value), higher_is_better=higher_is_better, method=Method.CALLABLE, source=name
    )
