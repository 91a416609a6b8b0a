"""What a simulated scenario came to, from its document: of each stream, or of the requests that a model served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.documents import Document, Reader
from sim.view import rows

REQUEST_TIMES = {"ttft_s": "first token", "tpot_s": "per token", "queueing_s": "queueing"}
PERCENTILES = ("mean", "p50", "p95", "p99", "max")


def serves(document: Document) -> bool:
    """Is it of requests to a language model, and not of streams?"""
    return "ttft_s" in document


def request_times(document: Document) -> list[list[Any]]:
    """[what, mean, p50, p95, p99, max], in seconds."""
    found = {name: Reader(document, "simulation").mapping(key) for key, name in REQUEST_TIMES.items()}
    return [[name, *(values.get(key) for key in PERCENTILES)] for name, values in found.items() if values]


def facts(document: Document) -> dict[str, str]:
    """What -> words; the same words in every document of a kind, so that they stand side by side.

    Raises: ResultError: a key is missing.
    """
    if serves(document):
        return {**_times(document), **served(document)}
    found: dict[str, str] = {}
    for name, stream in Reader(document, "simulation").mapping("streams").items():
        found |= {f"{name}: {what}": words for what, words in _stream(stream).items()}
    return found | {"power": _or_none(document.get("power_w"), rows.power_text)}


def served(document: Document) -> dict[str, str]:
    """What a serving machine did, beside the times of its requests."""
    top = Reader(document, "simulation")
    requests, energy = top.integer("requests"), document.get("energy_j")
    return {
        "requests": f"{requests:,}",
        "tokens a second": f"{top.number('tokens_per_s'):.4g}",
        "goodput": f"{top.number('goodput_per_s'):.4g} requests/s",
        "missed": ", ".join(f"{count} {cause}" for cause, count in top.mapping("missed").items()) or "none",
        "mean batch": f"{top.number('mean_batch'):.3g}",
        "offered load": rows.share_text(top.number("offered")),
        "KV cache at most": rows.size_text(top.child("peak_memory_bytes").number("kv_cache")),
        "preemptions": str(top.integer("preemptions")),
        "energy a request": _or_none(energy / requests if energy and requests else None, rows.energy_text),
    }


def _times(document: Document) -> dict[str, str]:
    return {
        f"{name}, {percentile}": _or_none(values[PERCENTILES.index(percentile)], rows.time_text)
        for name, *values in request_times(document)
        for percentile in ("mean", "p99")
    }


def _stream(stream: Mapping[str, Any]) -> dict[str, str]:
    missed = rows.share_text(stream.get("miss_rate")) if stream.get("deadline_s") else "-"
    return {
        "mean": _or_none(stream.get("latency_mean_s"), rows.time_text),
        "p99": _or_none(stream.get("latency_p99_s"), rows.time_text),
        "missed": missed,
        "goodput": _or_none(stream.get("goodput_per_s"), lambda rate: f"{rate:.4g}/s"),
        "energy a job": _or_none(stream.get("energy_j_per_job"), rows.energy_text),
    }


def _or_none(value: Any, text: Any) -> str:
    return "-" if value is None else text(value)
