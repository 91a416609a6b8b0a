"""Make the notebooks from their py:percent sources, executed. Usage: python notebooks/build.py [NAME.py ...]

Needs the extra `docs` (jupytext, ipykernel). The sources are what is edited; the .ipynb files hold the outputs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import jupytext
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def build(source: Path) -> Path:
    """Execute one source and write the notebook beside it."""
    notebook = jupytext.read(source)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if "outputs" in cell:  # warnings of libraries name files of the machine that ran this
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    target = source.with_suffix(".ipynb")
    jupytext.write(notebook, target)
    return target


def main() -> None:
    chosen = [Path(name) for name in sys.argv[1:]] or sorted(FOLDER.glob("[0-9]_*.py"))
    for source in chosen:
        print(build(source))


if __name__ == "__main__":
    main()
