"""Every example of the documentation runs, generated pages are current, and links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sim.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"(<!-- (?:not run|command): [^>]+ -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


README = ROOT / "README.md"


def examples(page: Path) -> list[tuple[str, str]]:
    """(language, text) of the page's fenced blocks in order, without those that say why they are not run.

    A block of YAML that begins with a comment is the file of that name.
    """
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for skipped, language, text in found if not skipped]


def run_commands(text: str) -> None:
    """Each line as a user types it, in this process; `> file` keeps its standard output."""
    for line in text.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "dovetail", line
        target = None
        if ">" in words:
            words, (target,) = words[: words.index(">")], words[words.index(">") + 1 :]
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{line}: {done.stderr}"
        if target is not None:
            Path(target).write_text(done.stdout)


@pytest.mark.parametrize("page", [page for page in (README, *PAGES) if examples(page)], ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, text in examples(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        else:
            assert language in ("sh", "yaml"), f"{page.name}: no way to run a block of {language}"
            if language == "sh":
                run_commands(text)
            elif text.startswith("# "):
                Path(text.splitlines()[0].removeprefix("# ")).write_text(text)


def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_chip_reference_is_that_of_the_schema() -> None:
    assert (DOCS / "chip-reference.md").read_text(encoding="utf-8") == build_script().chip_reference()


def test_the_recipe_reference_is_that_of_the_schema() -> None:
    assert (DOCS / "recipe-reference.md").read_text(encoding="utf-8") == build_script().recipe_reference()


@pytest.mark.parametrize("page", ["chip-reference", "recipe-reference"])
def test_every_key_has_a_meaning(page: str) -> None:
    rows = [line for line in (DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []


def pages_of(nav: list[dict[str, Any]]) -> list[str]:
    """The files that a navigation names, those of its groups too."""
    return [
        page
        for entry in nav
        for below in entry.values()
        for page in ([below] if isinstance(below, str) else pages_of(below))
    ]


def test_every_page_is_in_the_site_and_every_link_leads_somewhere() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages_of(site["nav"])) == [page.name for page in PAGES]
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert target.startswith("http") or (DOCS / target).exists(), f"{page.name}: {target}"


def test_the_tests_of_the_laws_are_there() -> None:
    page = (DOCS / "laws.md").read_text(encoding="utf-8")
    found = re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(found) > 12
    for path, name in found:
        assert f"def {name}" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    assert (tmp_path / "site" / "quickstart" / "index.html").is_file()
