"""Round trip of graphs, what is refused, and that the order of a DAG does not matter."""

import json
import random

import pytest

from sim._version import __version__
from sim.errors import WorkloadError
from sim.workload.graph import Graph
from sim.workload.load import Workload
from sim.workload.passes import apply_precision, fuse_epilogues, sparsify
from sim.workload.precision import parse_precision
from sim.workload.serialize import graph_from_dict, graph_to_dict, load_graph, save_graph
from sim.workload.summary import role_bytes

CASES = [("resnet18", {}), ("mobilenet_v2", {}), ("llama", {"layers": 1, "phase": "decode", "context": 32})]


@pytest.fixture(scope="module", params=CASES, ids=[name for name, _ in CASES])
def graph(request) -> Graph:
    return Workload(*request.param).graph(cache=False)


def test_load_of_dump_is_the_same(graph, tmp_path):
    for version in (graph, fuse_epilogues(graph), sparsify(apply_precision(graph, parse_precision("w4a16")))):
        document = json.loads(json.dumps(graph_to_dict(version)))
        assert graph_from_dict(document) == version
        save_graph(version, tmp_path / "g.json")
        assert load_graph(tmp_path / "g.json") == version
        assert load_graph(tmp_path / "g.json").hash == version.hash


def test_a_document_says_what_wrote_it_and_old_ones_are_read(graph):
    document = graph_to_dict(graph)
    assert (document["schema"], document.pop("version")) == ("dovetail.graph/1", __version__)
    assert "policy" not in document
    assert graph_from_dict(document) == graph


def test_same_model_same_bytes(graph):
    again = Workload(graph.name, graph.knobs).graph(cache=False)
    assert json.dumps(graph_to_dict(again)) == json.dumps(graph_to_dict(graph))


def test_hash_is_of_what_is_computed(graph):
    assert graph.with_(name="x", notes=("n",), knobs={}).hash == graph.hash
    assert graph.with_(batch=2).hash != graph.hash


def test_another_topological_order_changes_no_total(graph):
    """Ops picked at random among those whose inputs exist."""
    rng = random.Random(7)
    made = {t for t in graph.tensors if t not in graph.producer}
    left, order = list(graph.ops), []
    while left:
        op = rng.choice([op for op in left if made.issuperset(op.inputs)])
        left.remove(op)
        order.append(op)
        made.update(op.outputs)
    shuffled = graph.with_(ops=tuple(order))
    assert order != list(graph.ops)
    for one, other in ((graph, shuffled), (fuse_epilogues(graph), fuse_epilogues(shuffled))):
        assert one.macs == other.macs
        assert one.parameters == other.parameters
    assert role_bytes(graph) == role_bytes(shuffled)


def test_ops_come_after_what_they_read(graph):
    for version in (graph, fuse_epilogues(graph)):
        made = {t for t in version.tensors if t not in version.producer}
        for op in version.ops:
            assert made.issuperset(op.inputs), op.name
            made.update(op.outputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "dovetail.graph/2"}, "another version"),
        ({"schema": "other"}, 'expected "dovetail.graph/1"'),
        ({"ops": [{"type": "einsum"}]}, "broken"),
        ({"tensors": []}, "unknown tensor"),
    ],
)
def test_what_is_refused(graph, change, message):
    with pytest.raises(WorkloadError, match=message):
        graph_from_dict(graph_to_dict(graph) | change)


def test_files_that_are_no_graph(tmp_path):
    (tmp_path / "g.json").write_text("{")
    for path in (tmp_path / "g.json", tmp_path / "none.json"):
        with pytest.raises(WorkloadError, match="cannot be read as a saved graph"):
            load_graph(path)
