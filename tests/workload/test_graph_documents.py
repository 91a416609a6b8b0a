"""Round trip of graphs, what is refused, and that the order of a DAG does not matter."""

import json
import random

import pytest

from sim._version import __version__
from sim.errors import WorkloadError
from sim.workload.builders import gemm
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
    assert graph_from_dict(graph_to_dict(shuffled)) == shuffled


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


def test_ops_out_of_order_are_refused_not_believed(graph):
    """Reversed, every op seemed free of what it reads: resnet18 took 25 us instead of 698."""
    document = graph_to_dict(graph)
    document["ops"].reverse()
    with pytest.raises(WorkloadError, match=r'op ".+" reads tensor "t\d+", which op ".+" writes only later'):
        graph_from_dict(document)


def test_a_rank_of_one_that_no_operand_has_is_left_out():
    """Documents of earlier versions have the M or N of a vector."""
    document = graph_to_dict(gemm(4, 6, 8))
    document["ops"][0]["einsum"]["ranks"] += [["B", 1]]
    found = graph_from_dict(document)
    assert found == gemm(4, 6, 8)
    assert found.hash == gemm(4, 6, 8).hash


def small_document() -> dict:
    """A product, a vector op and a movement, one after the other."""
    document = graph_to_dict(gemm(4, 6, 8))
    product = document["ops"][0]
    (out,) = product["outputs"]
    last = document["tensors"][-1] | {"id": "b"}
    document["tensors"] += [last, last | {"id": "c", "layout": [1, 0]}]
    document["ops"] += [
        {"type": "vector", "name": "add", "kind": "aten.add", "inputs": [out], "outputs": ["b"],
         "primitives": {"add": 24}},
        {"type": "movement", "name": "copy", "kind": "aten.copy", "inputs": ["b"], "outputs": ["c"],
         "read_bytes": {"b": 24}, "write_bytes": {"c": 24}},
    ]  # fmt: skip
    return document


def put(document: dict, path: str, value: object) -> dict:
    """The document with the value at "ops.1.primitives.add"."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = document
    for step in way:
        place = place[step]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ops.1.primitives.add", -5, '"add": `primitives`: add is -5, expected a whole number from 0'),
        ("ops.1.primitives.ad", 5, "`primitives` has the key \"ad\", expected one of add"),
        ("ops.1.passes", 0, "`passes` is 0, expected a whole number from 1"),
        ("ops.1.passes", True, "`passes` is true"),
        ("ops.1.inputs", "t0", '`inputs` is "t0", expected a list'),
        ("ops.1.inputs", ["zz"], 'op "add" names the unknown tensor "zz"'),
        ("ops.1.inputs", ["b"], 'op "add" reads tensor "b", which op "add" writes only itself'),
        ("ops.1.inputs", ["c"], 'op "add" reads tensor "c", which op "copy" writes only later'),
        ("ops.1.outputs", [], 'op "copy" reads tensor "b" of role output, which no op writes'),
        ("ops.2.outputs", ["b"], 'ops "add" and "copy" both write tensor "b"'),
        ("ops.1.modul", "x", '`modul` is no key here, expected type, name.* Did you mean "module"'),
        ("ops.1.name", 3, "ops[1]: `name` is 3, expected text"),
        ("ops.1.type", [], "`type` is a list of 0, expected one of einsum, vector"),
        ("ops.1.type", "vectr", '`type` is "vectr", expected one of einsum, vector'),
        ("ops.1", 3, "`ops`[1] is 3, expected an object"),
        ("ops.2.read_bytes.b", -1, "read_bytes`: b is -1, expected a whole number from 0"),
        ("ops.2.write_bytes.c", float("nan"), "write_bytes`: c is NaN"),
        ("ops.2.read_bytes", {"c": 1}, 'op "copy": read_bytes is of tensor "c", expected one of its inputs b'),
        ("ops.0.einsum.ranks.0.1", -3, "rank M is -3, expected a whole number from 0"),
        ("ops.0.einsum.ranks.0.0", "N", "ranks are N, N, K, expected each once"),
        ("ops.0.einsum.ranks.0", "M", "`ranks`[0] is \"M\", expected a pair"),
        ("ops.0.einsum.operands.0.axes.0.0", 5, "input has axes of sizes [5, 8], expected those of tensor"),
        ("ops.0.einsum.operands.0.axes.0.2.0", "Z", 'axis over the rank "Z", expected one of M, N, K'),
        ("ops.0.einsum.operands.0.axes.0.2", 7, "term of an axis is 7, expected a pair"),
        ("ops.0.einsum.operands", [], "has the operands none, expected input, weight, output"),
        ("ops.0.einsum", None, "`einsum` is null, expected an object"),
        ("tensors.0.shape", "x", 'tensors[0]: `shape` is "x", expected a list'),
        ("tensors.0.shape", [-4, 8], "`shape`[0] is -4, expected a whole number from 0"),
        ("tensors.0.shape", [10**30], "`shape`[0] is 1000000000000000000000000000000, expected .* to 2^53"),
        ("tensors.0.bits", -8, "`bits` is -8, expected a number above 0"),
        ("tensors.0.bits", float("inf"), "`bits` is Infinity"),
        ("tensors.0.density", 1.5, "`density` is 1.5, expected a number from 0 to 1"),
        ("tensors.0.role", "wieght", '`role` is "wieght", expected one of input, weight, activation'),
        ("tensors.0.layout", [0, 0], "layout is [0, 0], expected each axis of its 2 once"),
        ("tensors.1.id", "c", 'id "c" occurs twice'),
        ("batch", 0, "`batch` is 0, expected a whole number from 1"),
        ("knobs", {"a": [[]]}, "`knobs`: a is a list of 1, expected a finite number, text"),
        ("notes", "n", "`notes` is \"n\", expected a list"),
    ],
)  # fmt: skip
def test_a_field_of_another_type_or_range_is_refused(path, value, message):
    assert graph_from_dict(small_document()).macs == 4 * 6 * 8
    with pytest.raises(WorkloadError) as told:
        graph_from_dict(put(small_document(), path, value))
    for part in message.split(".*"):
        assert part in str(told.value)


@pytest.mark.parametrize("content", [b"{", b"[" * 200_000, b'{"schema": ' + b"9" * 5000 + b"}", b"\xff"])
def test_files_that_are_no_graph(content, tmp_path):
    (tmp_path / "g.json").write_bytes(content)
    for path in (tmp_path / "g.json", tmp_path / "none.json", tmp_path):
        with pytest.raises(WorkloadError, match="cannot be read as a saved graph"):
            load_graph(path)
