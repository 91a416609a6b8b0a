"""Shared fixtures: deterministic property tests, a cache of their own, a toy chip and a network with its result."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from sim.cost.roofline import roofline
from sim.hardware.chip import Array, Chip, Dataflow, Folds, Memory, Preload, Rate, Skew, Unit, VectorUnit
from sim.results import Estimate, OpEstimate, Term, Traffic, WhatIf
from sim.workload.graph import Axis, Einsum, EinsumOp, Graph, Operand, OperandRole, Primitive, Role, Tensor, VectorOp

settings.register_profile(
    "ci", max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never read or write the user's cache; one cache serves the whole run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def toy_chip() -> Chip:
    """8 x 8 MACs at 1 GHz (int8), 64 lanes, 1 MiB of SRAM at 128 B/cycle each way, 10 GB/s of DRAM."""
    array = Array(
        name="array",
        rows=8,
        cols=8,
        dataflow=Dataflow.OUTPUT_STATIONARY,
        skew=Skew.NONE,
        folds=Folds.PIPELINED,
        preload=Preload.HIDDEN,
        macs_per_cycle={"int8": 1.0, "bf16": 0.5},
    )
    wide = Rate(per_cycle=128.0)
    unit = Unit(
        name="npu",
        count=1,
        home="DRAM",
        hierarchy=(Memory(name="SRAM", capacity_bytes=2**20, read=wide, write=wide), array),
        vector=VectorUnit(
            name="simd", lanes=64, rates={"add": 1.0, "compare": 1.0}, fallback={"exp": {"add": 4.0, "compare": 2.0}}
        ),
        clock_hz=1e9,
    )
    dram = Rate(per_s=10e9)
    return Chip(
        name="toy",
        title="A toy chip",
        clock_hz=1e9,
        default_precision="int8",
        memories=(Memory(name="DRAM", kind="lpddr4", read=dram, write=dram, shared_port=True),),
        units=(unit,),
    )


def _conv(name: str, size: int, channels: int, filters: int, window: int, stride: int, tensors: dict) -> EinsumOp:
    """A "same"-padded convolution that reads tensor `<name>.x` and writes `<name>.y`."""
    out = size // stride
    ranks = {"K": filters, "C": channels, "P": out, "Q": out, "R": window, "S": window}
    pad = window // 2
    rows = [Axis(terms=((p, stride), (r, 1)), size=size, offset=-pad) for p, r in (("P", "R"), ("Q", "S"))]

    def plain(rank: str) -> Axis:
        return Axis(terms=((rank, 1),), size=ranks[rank])

    parts = {
        "x": (OperandRole.INPUT, (plain("C"), *rows), (channels, size, size), Role.ACTIVATION),
        "w": (OperandRole.WEIGHT, tuple(map(plain, "KCRS")), (filters, channels, window, window), Role.WEIGHT),
        "y": (OperandRole.OUTPUT, tuple(map(plain, "KPQ")), (filters, out, out), Role.ACTIVATION),
    }
    operands = []
    for part, (role, projection, shape, kind) in parts.items():
        key = f"{name}.{part}"
        tensors[key] = Tensor(id=key, shape=shape, dtype="fp32", bits=32, role=kind)
        operands.append(Operand(tensor=key, role=role, projection=projection))
    return EinsumOp(
        name=name,
        kind="aten.convolution",
        inputs=(f"{name}.x", f"{name}.w"),
        outputs=(f"{name}.y",),
        module=name,
        source="model.py:12",
        einsum=Einsum(ranks=ranks, operands=tuple(operands)),
    )


@pytest.fixture(scope="session")
def bottlenecks() -> Graph:
    """The convolutions of ResNet-50's first blocks per stage, each with its activation function."""
    tensors: dict[str, Tensor] = {}
    ops: list[EinsumOp | VectorOp] = []
    for stage, (size, width, blocks) in enumerate(((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)), start=1):
        for block in range(blocks):
            for part, (c, k, r) in enumerate(
                ((4 * width, width, 1), (width, width, 3), (width, 4 * width, 1)), start=1
            ):
                name = f"layer{stage}.{block}.conv{part}"
                ops.append(_conv(name, size, c, k, r, 1, tensors))
                relu = f"layer{stage}.{block}.relu{part}"
                tensors[f"{relu}.y"] = Tensor(
                    id=f"{relu}.y", shape=(k, size, size), dtype="fp32", bits=32, role=Role.ACTIVATION
                )
                ops.append(
                    VectorOp(
                        name=relu,
                        kind="aten.relu",
                        inputs=(f"{name}.y",),
                        outputs=(f"{relu}.y",),
                        module=relu,
                        primitives={Primitive.COMPARE: k * size * size},
                    )
                )
    return Graph(ops=tuple(ops), tensors=tensors, name="bottlenecks", knobs={"batch": 1})


LADDER = ("ideal", "spatially_mapped", "compute", "total")
NODES = [{"loop": "K", "tile": 64}, {"store": "input", "memory": "SRAM"}]


@pytest.fixture(scope="session")
def estimate(bottlenecks: Graph, toy_chip: Chip) -> Estimate:
    """A made-up result with the shape of a real one: each op takes its roofline and a share on top.

    Terms sum to ops and ops to the network; the numbers mean nothing.
    """
    bound = roofline(bottlenecks, toy_chip)
    ops = []
    for i, point in enumerate(bound.ops):
        compute = point.resource_s.get("compute", 0.0)
        vector = 0.0 if compute else point.roofline_s
        waiting = (point.roofline_s - compute if compute else 0.0) + 0.05 * (1 + i % 5) * point.roofline_s
        launch = 1e-6
        ops.append(
            OpEstimate(
                name=point.name,
                kind=point.kind,
                module=point.module,
                source="model.py:12",
                macs=point.macs,
                vector_ops=point.vector_ops,
                latency_s=compute + vector + waiting + launch,
                roofline_s=point.roofline_s,
                cycles=(compute + vector + waiting + launch) * 1e9,
                bound=point.bound,
                mac_utilization=compute / (compute + waiting + launch) if compute else None,
                cycles_ladder=dict(zip(LADDER, (1.0, 1.5, 2.0, 3.0), strict=True)) if compute else None,
                traffic_bytes={m: {"input": Traffic(read=0.75 * n), "output": Traffic(write=0.25 * n)}
                               for m, n in point.traffic_bytes.items()},
                energy_j=1e-6 * i,
                breakdown_s={Term.COMPUTE: compute, Term.VECTOR: vector, Term.EXPOSED_MEMORY: waiting,
                             Term.LAUNCH: launch},
                mapping={"dataflow": "output_stationary", "nodes": NODES} if compute else None,
            )
        )  # fmt: skip
    latency = sum(op.latency_s for op in ops)
    return Estimate(
        workload_name="bottlenecks",
        knobs={"batch": 1},
        graph_hash="0" * 16,
        batch=1,
        hardware_name="toy",
        hardware_hash="1" * 16,
        overrides={"clock": "1 GHz"},
        precision="int8",
        objective="latency",
        map_space="even",
        buffering="atomic",
        calibration=None,
        latency_s=latency,
        latency_interval_s=None,
        cycles=latency * 1e9,
        roofline_latency_s=bound.latency_s,
        macs=sum(op.macs for op in ops),
        effective_macs=sum(op.macs for op in ops),
        vector_ops=sum(op.vector_ops for op in ops),
        mac_utilization=0.5,
        energy_j=sum(op.energy_j or 0.0 for op in ops),
        power_w=None,
        area_mm2=None,
        peak_memory_bytes={"DRAM": 3e7, "SRAM": 9e5},
        traffic_bytes={m: Traffic(read=sum(op.traffic_bytes[m]["input"].read for op in ops if m in op.traffic_bytes),
                                  write=sum(op.traffic_bytes[m]["output"].write for op in ops if m in op.traffic_bytes))
                       for m in ("DRAM", "SRAM")},
        breakdown_s={term: sum(op.breakdown_s[term] for op in ops) for term in Term},
        ops=tuple(ops),
        what_if=(WhatIf(resource="DRAM.bandwidth", factor=2.0, latency_s=0.8 * latency),),
        notes=("made up",),
        roofline=bound.to_dict(),
    )  # fmt: skip
