"""The comparisons of `benchmarks/peers`, a row or two of each: their rules applied to our mappings."""

import importlib.util
from pathlib import Path

import pytest

import sim

PEERS = Path(__file__).resolve().parents[2] / "benchmarks" / "peers"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"peers_{name}", PEERS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_zigzag_by_its_rules():
    """512 cubed on 32 x 32: 131,072 cycles of the array, and theirs 163,904."""
    peer = script("zigzag")
    cycles, alike, port, _ = peer.mapped(peer.einsums(sim.gemm(512, 512, 512)), peer.hardware("tpu_like"), "uneven", 62)
    assert port == 3 * 512 * 512 / 8
    assert 131_072 + 62 < alike < cycles < 163_904


def test_zigzag_mapping_is_not_faster_here():
    """Its mapping of 512 cubed: all of input and output in SRAM, a quarter of the weights in the registers."""
    peer = script("zigzag")
    outer, rows, cols = [["K", 4.0]], [["OX", 32.0], ["OX", 16.0]], [["C", 4.0], ["C", 4.0]]
    levels = {
        "O": [cols, [*rows, *outer, *outer], []],
        "I": [[*cols, *rows, *outer, *outer], []],
        "W": [[*cols, *rows, *outer], outer],
    }
    m = peer.hardware("tpu_like")
    p = peer.problem(peer.einsums(sim.gemm(512, 512, 512))[0])
    made = peer.translated({"name": "gemm", "temporal": levels}, p, m)
    theirs = peer.cost_mapping(made, p, m, dict.fromkeys(peer.ROLES, 0)).cost.time[0]
    ours = peer.map_einsum(p, m, dict.fromkeys(peer.ROLES, 0), space="uneven").cost.time[0]
    assert ours <= theirs


def test_accelforge_by_its_rule():
    """A vector times a matrix moves each tensor once: 4096 (4096 + 2) bytes at 400 MiB/s."""
    peer = script("accelforge")
    seconds, _ = peer.by_their_rule((1, 4096, 4096), sim.load_hardware(peer.EYERISS))
    assert seconds == pytest.approx(4096 * 4098 / (400 * 2**20), rel=1e-9)


def test_accelforge_mapping_is_not_faster_here():
    """Its mapping of 512 cubed on TPU v4i: N and M over the four arrays."""
    peer = script("accelforge")
    shape, chip = (512, 512, 512), sim.load_hardware("tpu-v4i")
    nodes = [
        {"store": ["weight", "output", "input"], "memory": "MainMemory"},
        {"store": ["input", "output"], "memory": "GlobalBuffer"},
        {"loop": "K", "tile": 128},
        {"store": ["weight"], "memory": "GlobalBuffer"},
        {"loop": "M", "tile": 128},
        {"loop": "N", "tile": 256, "over": "Z"},
        {"loop": "M", "tile": 64, "over": "Z"},
        {"store": ["input"], "memory": "LocalBuffer"},
        {"loop": "N", "tile": 128},
        {"store": ["output"], "memory": "LocalBuffer"},
        {"loop": "M", "tile": 1},
    ]
    made = peer.translated(nodes, shape, peer.MEMORIES["tpu-v4i"])
    spread = {node.rank: node.tile for node in made.nodes if isinstance(node, peer.Loop) and node.spatial}
    assert spread == {"M": 64, "N": 128}
    problem, alone = peer.asked(shape, chip, 1)
    homes = dict.fromkeys(peer.ROLES, 0)
    theirs = peer.cost_mapping(made, problem, alone, homes).cost.time[0]
    assert peer.map_einsum(problem, alone, homes).cost.time[0] <= theirs


def test_scale_sim_cycles():
    """Every row is the closed form."""
    assert script("models").scale_sim() == 0
