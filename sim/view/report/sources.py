"""What a report is made of: saved results of one file, or of a folder that a search wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sim.documents import Document, Reader, check_schema, read_documents
from sim.errors import ForeignResultError, ResultError, why
from sim.results import ESTIMATE_SCHEMA, SIMULATE_SCHEMA, Estimate
from sim.results_io import from_dict

COMPRESS_SCHEMA = "dovetail.compress/1"
MEASURE_SCHEMA = "dovetail.measure/1"
"""Records of `measure --json --compare`, in one document with the comparison."""
_TABLES = frozenset({"dovetail.sweep/1"})
_ENDINGS = (".json", ".jsonl", ".csv")
_WINNERS = "winners"
_STUDY = "search.json"
_SUMMARY = "summary.txt"
_JOURNAL = "study.journal"
TEXT_BYTES = 20_000
"""Longest file of a winner that is shown whole."""
TRACE_HEAD = 200
"""Characters within which a trace names its events, so that no other file is parsed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """An estimate with the file that it came from and the version that wrote it."""

    estimate: Estimate
    where: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Designs of a sweep or a search: named columns of one length, text where it is no number."""

    name: str
    columns: Mapping[str, Sequence[Any]]
    better: Mapping[str, int] = field(default_factory=dict)
    """Column -> 1 where larger is better, -1 where smaller is, as far as the results say (a loss is a quality too)."""
    home: str = ""
    """What stands before the ids of its winners where several folders are read: searches number alike."""
    group: str = ""
    """The column that says which table a design comes from, where it holds the designs of several."""


@dataclass(slots=True, kw_only=True)
class Content:
    """Everything found, by kind. Documents other than estimates stay as they were written."""

    estimates: list[Saved] = field(default_factory=list)
    simulations: list[Document] = field(default_factory=list)
    rooflines: list[Document] = field(default_factory=list)
    validations: list[Document] = field(default_factory=list)
    records: list[Document] = field(default_factory=list)
    traces: list[tuple[str, Document]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    studies: list[Document] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    """What a search says of itself in words."""
    winners: dict[str, dict[str, str]] = field(default_factory=dict)
    """winner id, after its table's `home`, -> file name -> text"""

    def __bool__(self) -> bool:
        return any(bool(getattr(self, name)) for name in Content.__dataclass_fields__)


def read_sources(paths: Iterable[str | Path], note: Callable[[str], None] = lambda line: None) -> Content:
    """Read result files, and folders of them.

    Of a folder: every .json, .jsonl and .csv in it, `summary.txt`, and the files of `winners/<id>/`. `note` is told
    what is skipped: broken lines of a baseline file, and in a folder documents of other kinds.
    Raises: ResultError: nothing there, a file that is truncated, foreign, or of another schema.
    """
    content = Content()
    given = [Path(path) for path in paths]
    for path in given:
        if path.is_dir():
            _read_folder(path, content, note, home=f"{_name(path, given)}/" if len(given) > 1 else "")
        else:
            _read_file(path, content, note)
    if not content:
        unfinished = next((path for path in given if (path / _JOURNAL).is_file()), None)
        if unfinished is not None:
            raise ResultError(
                f"{unfinished}: a search that has not ended; the same `dovetail search FILE -o {unfinished}` goes on "
                "and writes its answers"
            )
        names = ", ".join(map(str, given)) or "nothing"
        raise ResultError(f"{names}: no results; expected a file of `--json`, or a folder with such files or a search")
    return content


def _name(folder: Path, given: Sequence[Path]) -> str:
    """The folder's own name; all of its path where another one is called the same."""
    name = folder.resolve().name
    return name if sum(other.is_dir() and other.resolve().name == name for other in given) == 1 else str(folder)


def _read_folder(folder: Path, content: Content, note: Callable[[str], None], *, home: str = "") -> None:
    tables, studies = len(content.tables), len(content.studies)
    searched = (folder / _STUDY).is_file()
    for path in sorted(folder.iterdir()):
        if searched and path.suffix == ".csv" and _only_names(path):
            continue  # no design met all limits, which the study and its summary say
        if path.is_file() and path.suffix in _ENDINGS:
            try:
                _read_file(path, content, note)
            except ForeignResultError as error:  # a graph, a comparison, something of the user's
                note(f"skipped: {error}")
    own = [replace(table, name=home + table.name, home=home) for table in content.tables[tables:]]
    for study in content.studies[studies:]:  # what its designs were searched for
        own = [replace(table, better=study.get("better") or {}) for table in own]
    content.tables[tables:] = own
    if home:
        content.studies[studies:] = [{**study, "folder": home.rstrip("/")} for study in content.studies[studies:]]
    if (folder / _SUMMARY).is_file():
        content.summaries.append(_text(folder / _SUMMARY))
    chosen = folder / _WINNERS
    for winner in sorted(chosen.iterdir()) if chosen.is_dir() else ():
        files = [winner] if winner.is_file() else sorted(path for path in winner.iterdir() if path.is_file())
        texts = {path.name: _text(path) for path in files if path.suffix in (".json", ".yaml", ".yml", ".txt", ".md")}
        if texts:
            content.winners[home + (winner.stem if winner.is_file() else winner.name)] = texts


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="replace")
    return text if len(text) <= TEXT_BYTES else f"{text[:TEXT_BYTES]}\n... {len(text) - TEXT_BYTES} more characters"


def _read_file(path: Path, content: Content, note: Callable[[str], None]) -> None:
    if path.suffix == ".csv":
        content.tables.append(_read_csv(path))
    elif path.suffix == ".jsonl":
        content.records += _read_lines(path, note)
    elif (trace := _trace(path)) is not None:
        content.traces.append((path.name, trace))
    else:
        for document in read_documents(path):
            _sort_in(document, path, content)


def _sort_in(document: Document, path: Path, content: Content) -> None:
    schema = document["schema"]
    if schema == ESTIMATE_SCHEMA:
        found = from_dict(document, where=str(path))
        content.estimates.append(Saved(estimate=found, where=path.name, version=str(document["version"])))
    elif schema == SIMULATE_SCHEMA and "trials" in document:
        content.tables.append(_limit(document, path))
    elif schema == SIMULATE_SCHEMA:
        content.simulations.append(document)
    elif schema == COMPRESS_SCHEMA:
        content.tables.append(_compressed(document, path))
    elif schema == MEASURE_SCHEMA:
        content.records += Reader(document, str(path)).items("records")
    elif schema in _TABLES:
        content.tables.append(Table(name=path.name, columns=_columns_of(document, path)))
    else:
        kinds = {"roofline": content.rooflines, "validate": content.validations, "baseline": content.records,
                 "study": content.studies}  # fmt: skip
        family = schema.partition(".")[2].partition("/")[0]
        if family in kinds:
            kinds[family].append(document)
        else:
            content.winners[path.stem] = {path.name: json.dumps(document, indent=2)}


def _limit(document: Document, path: Path) -> Table:
    """What `simulate --find-limit` tried, a row a trial."""
    trials = Reader(document, str(path)).items("trials")
    quantity = str(document.get("quantity") or "value")
    keys = {"value": quantity, "jobs": "jobs", "missed": "missed", "upper_bound": "miss_rate_bound", "passed": "passed"}
    columns = {name: [trial.get(key) for trial in trials] for key, name in keys.items()}
    return Table(name=f"{path.name}, most {quantity}", columns=columns)


def _compressed(document: Document, path: Path) -> Table:
    """What `compress` found: the model as trained and each recipe, a row a chip."""
    first = document.get("quality")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for result in Reader(document, str(path)).items("results"):
        name, quality = str(result.get("recipe")), result.get("quality")
        for found in result.get("benefits") or [{}]:
            chip = str(found.get("chip") or "")
            rows.setdefault(("as trained", chip), _row("as trained", first, chip, found.get("before"), document))
            rows[name, chip] = _row(name, quality, chip, found.get("after"), result)
    every = list(rows.values())
    knobs = ", ".join(f"{key}={value}" for key, value in (document.get("knobs") or {}).items())
    told = f"{document.get('workload') or ''}{f' ({knobs})' if knobs else ''}"
    metric = f"{'quality' if first.get('higher_is_better', True) else 'loss'} is {first.get('metric')}" if first else ""
    name = ", ".join(filter(None, (path.name, told, metric)))
    return Table(name=name, columns={key: [row[key] for row in every] for key in every[0]} if every else {})


def _row(
    recipe: str, quality: Document | None, chip: str | None, cost: Document | None, sizes: Document
) -> dict[str, Any]:
    judged, costed = quality or {}, cost or {}
    better = "quality" if judged.get("higher_is_better", True) else "loss"
    return {
        "recipe": recipe, "hardware": chip, "precision": costed.get("precision"),
        better: judged.get("value"), "latency_s": costed.get("latency_s"), "energy_j": costed.get("energy_j"),
        "dram_bytes": costed.get("dram_bytes"), "weight_bytes": costed.get("weight_bytes"),
        "parameter_bytes": sizes.get("parameter_bytes"),
    }  # fmt: skip


def _columns_of(document: Document, path: Path) -> Mapping[str, Sequence[Any]]:
    columns = document.get("columns")
    if not isinstance(columns, dict) or len({len(values) for values in columns.values()}) > 1:
        raise ResultError(f"{path}: `columns` is missing or its lists differ in length; the file was edited")
    return columns


def _trace(path: Path) -> Document | None:
    """The timeline that `simulate --trace` wrote, which has no schema of ours; None for any other file."""
    try:
        with path.open(encoding="utf-8") as file:
            if '"traceEvents"' not in file.read(TRACE_HEAD):
                return None
            file.seek(0)
            document = json.load(file)
    except (OSError, ValueError):
        return None  # `read_documents` says what is wrong
    return document if isinstance(document, dict) and isinstance(document.get("traceEvents"), list) else None


def _read_lines(path: Path, note: Callable[[str], None]) -> list[Document]:
    """Baseline records, one a line; what a killed run left of a line is skipped and told.

    Raises: ResultError: a line of another schema.
    """
    documents = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            note(f"{path}:{number}: skipped, no complete JSON ({error.msg})")
            continue
        check_schema(document, where=f"{path}: line {number}")
        documents.append(document)
    return documents


def _only_names(path: Path) -> bool:
    """A table without a row."""
    return sum(1 for line in _text(path).splitlines() if line.strip()) == 1


def _read_csv(path: Path) -> Table:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read: {why(error)}") from error
    if len(rows) < 2 or len(set(rows[0])) < len(rows[0]):
        raise ResultError(f"{path}: expected a line of distinct column names and at least one row")
    ragged = next((i for i, row in enumerate(rows, start=1) if len(row) != len(rows[0])), None)
    if ragged is not None:
        raise ResultError(f"{path}: line {ragged} has {len(rows[ragged - 1])} cells, expected {len(rows[0])}")
    return Table(name=path.name, columns={name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])})
