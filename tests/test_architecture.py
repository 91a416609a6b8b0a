"""The layers of the package, read from its imports, and what `import sim` may load."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim

PACKAGE = Path(sim.__file__).parent

LAYERS = (
    ("aside", "errors", "units", "_version", "ordered", "resources", "documents", "sweep_io", "wrong_keys"),
    ("workload",),
    ("hardware",),
    ("mapping",),
    ("results", "results_io"),
    ("cost",),
    ("schedule",),
    ("analytical", "floors", "notes", "savings", "steady", "sweeping", "whatif"),
    ("events",),
    ("baseline",),
    ("compression",),
    ("codesign",),
    ("view",),
    ("cli", "__init__", "__main__"),
)
"""From the bottom up; a package imports its own layer and those before it."""

ONLY_IN = {
    "torch": ("workload/trace/", "workload/load.py", "baseline/", "compression/", "codesign/"),
    "optuna": ("codesign/",),
    "matplotlib": ("view/",),
    "typer": ("cli/",),
    "rich": ("view/", "cli/"),
    "simpy": ("events/",),
}
"""Heavy or specific packages and the only places that import them."""

AT_THE_TOP = {"torch", "optuna", "matplotlib"}
"""Packages that `import sim` must not load."""


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted module, at the top level of the file) of every import that runs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import; write the full name"
            if node.module == "sim":
                yield from ((f"sim.{alias.name}", node in tree.body) for alias in node.names)
            yield node.module, node in tree.body


def _files() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if "_data" not in path.parts]


def _part(module: str) -> str:
    """ "sim.workload.graph" -> "workload"."""
    return module.split(".")[1]


def _layer(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def _own_part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def test_every_part_has_a_layer() -> None:
    known = {part for layer in LAYERS for part in layer}
    assert {_own_part(path) for path in _files()} <= known


PACKAGES = sorted(path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_lives_in_it(package: str) -> None:
    """Its docstring names every module."""
    folder = PACKAGE / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    parts = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} <= set(re.findall(r"\w+", text))


def test_a_package_imports_only_what_stands_below_it() -> None:
    wrong = []
    for path in _files():
        own = _own_part(path)
        for module, _ in _imports(path):
            if not module.startswith("sim."):
                continue
            part = _part(module)
            if own in ("cli", "__init__", "__main__") or part not in {p for layer in LAYERS for p in layer}:
                continue
            if _layer(part) > _layer(own):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not wrong


def test_the_lower_layers_do_not_use_the_public_door() -> None:
    """`import sim` inside the package would hide an upward import behind the lazy names.

    What runs whole models (measuring, compressing, searching) stands above `estimate` and may use it.
    """
    allowed = ("cli/", "__main__.py", "baseline/", "compression/", "codesign/")
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in _files()
        if any(module == "sim" for module, _ in _imports(path))
        and not path.relative_to(PACKAGE).as_posix().startswith(allowed)
    ]
    assert not wrong


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_heavy_packages_are_imported_where_they_belong(package: str) -> None:
    for path in _files():
        place = path.relative_to(PACKAGE).as_posix()
        for module, top in _imports(path):
            if module.split(".")[0] == package:
                assert place.startswith(ONLY_IN[package]), f"{place} imports {module}"
                assert not (top and package == "torch" and place == "workload/load.py"), f"{place}: not at the top"


def test_import_sim_is_light() -> None:
    """A fresh interpreter that imports sim, and lists its names, has loaded none of the heavy packages."""
    code = "import json, sys, sim; dir(sim); print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & (AT_THE_TOP | {"numpy", "scipy", "pydantic", "rich", "typer", "simpy"})


def _submodules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages([str(PACKAGE)], "sim.") if found.name != "sim.__main__"]


OPTIONAL = {"triton", "transformers", "torchao", "onnx", "onnxscript", "sklearn", "grpc"}
"""Packages of extras: a module that needs one may refuse to be imported without it."""


def _missing_package(module: str) -> str | None:
    """What a module needs and this environment lacks."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return str(error.name).split(".")[0]
    return None


def test_every_submodule_is_importable_and_public_names_stay_callable() -> None:
    """No submodule takes the place of a public function, in whatever order they are imported."""
    missing = {package for name in _submodules() if (package := _missing_package(name)) is not None}
    assert missing <= OPTIONAL
    for name in set(sim.__all__) - {"plot", "__version__"}:
        module, _, attribute = sim._HOMES[name].partition(":")
        if _missing_package(module) is None and hasattr(importlib.import_module(module), attribute):
            assert callable(getattr(sim, name)), name
    assert not {path.stem for path in PACKAGE.iterdir()} & set(sim.__all__)


def test_all_names_have_a_home() -> None:
    assert set(sim.__all__) == set(sim._HOMES) | {"__version__"}
    assert dir(sim) == sorted(sim.__all__)
    assert dir(sim.plot) == sorted(sim.plot.__all__)
    with pytest.raises(AttributeError, match="no attribute 'estimat'"):
        sim.estimat  # noqa: B018


def test_defaults_of_2_4() -> None:
    """estimate, evaluate and simulate take the same options by keyword, with the defaults that the contract states."""
    stated = {"precision": None, "calibration": "auto", "map_space": "even", "allow_unsupported": False}
    from sim.schedule.build import costed

    for function in (sim.estimate, sim.evaluate, costed):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in stated} == stated, function
        assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in stated)
        assert "mapping" in parameters
