"""A stored study as a `Found`."""

from __future__ import annotations

from collections import Counter

import optuna
from optuna.trial import TrialState

from sim.codesign.found import Baseline, Found, Row
from sim.codesign.scenario import Costing, find_record, seconds_per_sample
from sim.codesign.space import Space
from sim.codesign.study.spent import read_spent
from sim.codesign.study.trial import COUNTED


def read_found(study: optuna.Study, costing: Costing, *, sampler: str, seed: int) -> Found:
    """Everything that the storage holds of the study, inactive parameters left out."""
    space = costing.space
    trials = study.get_trials(deepcopy=False, states=COUNTED)
    asked = [t for t in trials if "parent" not in t.user_attrs]
    counts: Counter[str] = Counter()
    covered = points = costed = repeats = 0
    reached = []
    for trial in asked:
        counts.update(trial.user_attrs.get("counts", {}))
        covered += trial.user_attrs.get("covered", 0)
        points += trial.user_attrs.get("points", 0)
        costed += trial.user_attrs.get("costed", 0)
        repeats += "repeat_of" in trial.user_attrs
        reached.append((trial.number, points))
    rows = tuple(
        Row(
            number=t.number, parameters=space.active(t.params), values=tuple(t.values),
            violations=t.user_attrs.get("violations", {}), known=t.user_attrs.get("known"),
        )
        for t in trials
        if t.state is TrialState.COMPLETE
    )  # fmt: skip
    left = sum(v for k, v in study.user_attrs.items() if k.startswith("left_"))
    return Found(
        space=space.spec.name, title=space.spec.title, objectives=space.spec.objective_names,
        signs=tuple(costing.scenario.sign(name) for name in space.spec.objective_names), rows=rows, trials=len(asked),
        covered=covered, points=points, costed=costed, counts=dict(counts), left_untold=left,
        repeats=repeats, spent=read_spent(study),
        reached=tuple(reached), sampler=sampler, seed=seed,
        quality_sources=tuple(sorted({t.user_attrs.get("quality_source", "") for t in asked} - {""})),
        quality_metric=_metric(space), baselines=baselines(space),
        limits=dict(costing.scenario.limits),
        parents={t.number: t.user_attrs["parent"] for t in trials if "parent" in t.user_attrs},
    )  # fmt: skip


def _metric(space: Space) -> str:
    quality = space.spec.quality
    if quality is None:
        return ""
    return "loss, nats a token" if quality.method == "scaling_law" else quality.metric


def baselines(space: Space) -> tuple[Baseline, ...]:
    """The file's baseline records as points: latency and throughput as recorded; energy as recorded, or
    the stated power of the bundled chip of that name times the time (an upper bound, said so)."""
    found = []
    for spec in space.spec.baselines:
        record = find_record(spec, space)
        seconds = seconds_per_sample(record)
        energy, note = record.energy_j, "measured energy"
        if energy is None:
            power = _stated_power_w(record.device)
            energy, note = (
                (None, "no energy") if power is None else (power * seconds, f"energy bound: {power:g} W x time")
            )
        known = {"latency": seconds, "throughput": 1.0 / seconds, "energy": energy,
                 "edp": None if energy is None else energy * seconds}  # fmt: skip
        values = tuple(known.get(name) for name in space.spec.objective_names)
        mode = f" {spec.mode}" if spec.mode is not None else ""
        found.append(Baseline(name=f"{record.device} {record.workload} {record.precision}{mode}", values=values,
                              source=f"{record.source or record.method}; {note}"))  # fmt: skip
    return tuple(found)


def _stated_power_w(device: str) -> float | None:
    from sim.hardware.load import chip_of_device, load_hardware

    name = chip_of_device(device)
    return None if name is None else load_hardware(name).technology.power_w
