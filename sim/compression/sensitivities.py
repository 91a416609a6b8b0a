"""How much each layer suffers alone, and the best widths under a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sim.compression.annotations import Annotation, input_name
from sim.compression.fakequant import ActivationQuantiser, Grid, divides, fake_quantise_weight
from sim.compression.model import CompressedModel, Report, as_compressed, layers, stored_as, weight_name
from sim.compression.sparsify import nm_mask
from sim.compression.training import Score
from sim.errors import ConfigError

Evaluate = Callable[[nn.Module], Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Quality lost when one layer alone takes one choice (a dtype or an N:M pattern)."""

    layer: str
    choice: str
    loss: float
    """In the metric's unit, positive is worse."""
    weight_bytes: float


def sensitivity(
    model: nn.Module | CompressedModel,
    evaluate: Evaluate,
    *,
    choices: Sequence[str],
    granularity: str = "channel",
    group: int = 0,
    skip: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Evaluate the model once per layer and choice, all other layers left as they are.

    Args:
        evaluate: the quality of a module, on data that is not the final test.
        choices: dtypes ("int8", "int4") or patterns ("2:4"); those that do not fit a layer are
            left out for it.
    """
    work = as_compressed(model).module
    treat, _ = layers(work, skip=skip)
    base = evaluate(work)
    rows, done = [], 0
    for name, layer in treat.items():
        original = layer.weight.detach().clone()
        for choice in choices:
            changed, stored = _changed(original, choice, granularity, group)
            if changed is not None:
                with torch.no_grad():
                    layer.weight.copy_(changed)
                loss = evaluate(work).loss_against(base)
                rows.append(Sensitivity(layer=name, choice=choice, loss=loss, weight_bytes=stored))
            done += 1
            if progress:
                progress(done, len(treat) * len(choices))
        with torch.no_grad():
            layer.weight.copy_(original)
    return tuple(rows)


def _changed(weight: torch.Tensor, choice: str, granularity: str, group: int) -> tuple[torch.Tensor | None, float]:
    if ":" in choice:
        n, m = (int(part) for part in choice.split(":"))
        if weight.shape[1] % m:
            return None, 0.0
        note = Annotation(density=n / m, pattern=choice)
        bits = 8 * weight.element_size()
        return weight * nm_mask(weight, n, m), weight.numel() * (bits * n / m + note.metadata_bits) / 8
    grid = Grid(dtype=choice, granularity=granularity, group=group)
    if not divides(tuple(weight.shape), grid):
        return None, 0.0
    return fake_quantise_weight(weight, grid), weight.numel() * grid.stored_bits / 8


def allocate(rows: Sequence[Sensitivity], *, budget_bytes: float) -> dict[str, str]:
    """One choice per layer with the least summed loss whose bytes fit the budget: exact.

    A multiple-choice knapsack by dynamic programming over the Pareto front of (bytes, loss) of
    the layers so far. Losses of single layers are taken to add up, and a measured gain (negative
    loss: noise of the evaluation) counts as 0.
    Raises: ConfigError: even the smallest choices exceed the budget.
    """
    by_layer: dict[str, list[Sensitivity]] = {}
    for row in rows:
        by_layer.setdefault(row.layer, []).append(row)
    front: list[tuple[float, float, tuple[str, ...]]] = [(0.0, 0.0, ())]
    for options in by_layer.values():
        grown = [
            (size + o.weight_bytes, loss + max(o.loss, 0.0), (*picked, o.choice))
            for size, loss, picked in front
            for o in options
        ]
        grown.sort(key=lambda state: state[:2])
        front = []
        for state in grown:
            if state[0] <= budget_bytes and (not front or state[1] < front[-1][1]):
                front.append(state)
        if not front:
            least = sum(min(o.weight_bytes for o in options) for options in by_layer.values())
            raise ConfigError(
                f"mixed precision: budget {budget_bytes:.0f} bytes, the smallest choices need {least:.0f}"
            )
    return dict(zip(by_layer, front[-1][2], strict=True))


def mixed_precision(
    model: nn.Module | CompressedModel,
    evaluate: Evaluate,
    *,
    mean_bits: float,
    choices: Sequence[str] = ("int4", "int8"),
    granularity: str = "channel",
    activations: Grid | None = None,
    skip: tuple[str, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> CompressedModel:
    """Weight widths per layer by measured sensitivity, within a mean of `mean_bits` per weight.

    `activations` (dynamic ranges, per token for linear layers) applies to every treated layer.
    The report's details hold the sensitivities and the allocation.
    """
    out = as_compressed(model)
    treat, leave = layers(out.module, skip=skip)
    rows = sensitivity(out, evaluate, choices=choices, granularity=granularity, skip=skip, progress=progress)
    budget = sum(layer.weight.numel() for layer in treat.values()) * mean_bits / 8
    try:
        chosen = allocate(rows, budget_bytes=budget)
    except ConfigError as error:
        raise ConfigError(f"mean_bits {mean_bits:g} with choices {', '.join(choices)}: {error}") from error
    annotations: dict[str, Annotation] = {}
    grids = dict(out.grids)
    with torch.no_grad():
        for name, dtype in chosen.items():
            grid = Grid(dtype=dtype, granularity=granularity)
            layer = treat[name]
            layer.weight.copy_(fake_quantise_weight(layer.weight, grid))
            grids[weight_name(name)] = grid
            annotations[weight_name(name)] = stored_as(grid)
            if activations is not None:
                per_token = isinstance(layer, nn.Linear)
                layer.register_forward_pre_hook(ActivationQuantiser(activations, dynamic=True, per_token=per_token))
                annotations[input_name(name)] = Annotation(dtype=activations.dtype, bits=float(activations.width))
    report = Report(
        technique="mixed_precision",
        treated=tuple(chosen),
        untreated=leave,
        notes=tuple(f"{name}: {dtype}" for name, dtype in chosen.items()),
        details={"allocation": chosen, "sensitivity": rows, "budget_bytes": budget},
    )
    return out.with_(report, annotations, grids=grids)
