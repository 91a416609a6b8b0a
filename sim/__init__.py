"""Dovetail: how long a PyTorch model takes on a chip, and why.

The public names are loaded when they are first used, so that `import sim` costs milliseconds and
loads none of torch, optuna and matplotlib.

Packages, each on those before it

What runs, on what   workload (graphs), hardware (chips)
What it costs        mapping (one einsum on an array), cost (everything else), schedule (a network in order)
Read two ways        analytical (`estimate`, in closed form), events (`simulate`, event by event)
Beside machines      baseline (measuring, calibrating, validating)
Changes and choices  compression (of models), codesign (a search over models and chips)
For people           view (figures, tables, pages), cli (the command; __main__ is `python -m sim`)

Modules of this folder

On `estimate`        sweeping (many designs), whatif (larger resources), savings (by fusion and tensors on chip), steady
                     (inference after inference), floors (the data sheet's bounds), notes (in words)
Results              results, results_io (as JSON and frames), sweep_io (tables of sweeps)
Used everywhere      units, errors, wrong_keys (of a file), documents (JSON, YAML), resources (data folders), ordered
                     (sets as arrays), aside (tasks in copies of this process), _version
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sim._version import __version__

if TYPE_CHECKING:
    from sim.analytical import estimate, evaluate, roofline
    from sim.baseline import measure
    from sim.baseline.calibrate import calibrate
    from sim.baseline.validate import validate
    from sim.codesign import search
    from sim.errors import DovetailError
    from sim.events.simulate import simulate
    from sim.hardware.load import load_hardware
    from sim.mapping.mapping import Mapping
    from sim.sweeping import sweep
    from sim.view import figures as plot
    from sim.workload.builders import conv2d, gemm
    from sim.workload.load import Workload, load_workload
    from sim.workload.precision import Precision
    from sim.workload.trace import trace

_HOMES = {
    "trace": "sim.workload.trace:trace",
    "load_workload": "sim.workload.load:load_workload",
    "Workload": "sim.workload.load:Workload",
    "gemm": "sim.workload.builders:gemm",
    "conv2d": "sim.workload.builders:conv2d",
    "Precision": "sim.workload.precision:Precision",
    "load_hardware": "sim.hardware.load:load_hardware",
    "Mapping": "sim.mapping.mapping:Mapping",
    "estimate": "sim.analytical:estimate",
    "evaluate": "sim.analytical:evaluate",
    "sweep": "sim.sweeping:sweep",
    "simulate": "sim.events.simulate:simulate",
    "roofline": "sim.analytical:roofline",
    "search": "sim.codesign:search",
    "measure": "sim.baseline:measure",
    "calibrate": "sim.baseline.calibrate:calibrate",
    "validate": "sim.baseline.validate:validate",
    "plot": "sim.view.figures:",
    "DovetailError": "sim.errors:DovetailError",
}
"""Public name -> "module:attribute"; an empty attribute means the module itself."""

__all__ = [
    "DovetailError",
    "Mapping",
    "Precision",
    "Workload",
    "__version__",
    "calibrate",
    "conv2d",
    "estimate",
    "evaluate",
    "gemm",
    "load_hardware",
    "load_workload",
    "measure",
    "plot",
    "roofline",
    "search",
    "simulate",
    "sweep",
    "trace",
    "validate",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sim' has no attribute {name!r}")
    module_name, _, attribute = home.partition(":")
    module = import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
