"""Dense linear algebra by both front ends: FLOP of the textbook counts, two of them an fma, inverses counted alike."""

import pytest
import torch
from calls import Call

from sim.workload.graph import Primitive
from sim.workload.trace import trace
from sim.workload.trace.export import export

FMA, RECIPROCAL = Primitive.FMA, Primitive.RECIPROCAL

square, right, left = torch.empty(5, 4, 4), torch.empty(5, 4, 3), torch.empty(5, 3, 4)
tall = torch.empty(5, 6, 4)

WORK = {
    # name: (function, inputs, work by hand); five matrices of 4 x 4, three right-hand sides each unless told
    # a triangle: n^2 FLOP a right-hand side, its diagonal inverted once
    "triangle": (
        lambda m, a, b: torch.linalg.solve_triangular(a, b, upper=True), (square, right),
        {FMA: 5 * 3 * 16 // 2, RECIPROCAL: 5 * 4},
    ),
    "triangle from the right": (
        lambda m, a, b: torch.linalg.solve_triangular(a, b, upper=True, left=False), (square, left),
        {FMA: 5 * 3 * 16 // 2, RECIPROCAL: 5 * 4},
    ),
    "triangle with ones on its diagonal": (
        lambda m, a, b: torch.linalg.solve_triangular(a, b, upper=True, unitriangular=True), (square, right),
        {FMA: 5 * 3 * 16 // 2},
    ),
    "triangle of old": (
        lambda m, b, a: torch.triangular_solve(b, a)[0], (right, square), {FMA: 5 * 3 * 16 // 2, RECIPROCAL: 5 * 4},
    ),
    "Cholesky's factor": (
        lambda m, b, a: torch.cholesky_solve(b, a), (right, square), {FMA: 2 * 5 * 3 * 16 // 2, RECIPROCAL: 5 * 4},
    ),
    # two triangles each; the factors are made already
    "factors of LU": (
        lambda m, a, p, b: torch.linalg.lu_solve(a, p, b), (square, torch.empty(5, 4, dtype=torch.int32), right),
        {FMA: 2 * 5 * 3 * 16 // 2, RECIPROCAL: 5 * 4},
    ),
    # 6 x 4: R 2 m n^2 - 2 n^3 / 3 = 149 1/3 FLOP; Q of four columns as many again; of six 4 (m^2 n - m n^2 + n^3 / 3)
    "R": (lambda m, a: torch.linalg.qr(a, "r"), (tall,), {FMA: round(5 * (192 - 128 / 3) / 2), RECIPROCAL: 20}),
    "QR": (lambda m, a: torch.linalg.qr(a), (tall,), {FMA: round(5 * (192 - 128 / 3)), RECIPROCAL: 20}),
    "complete QR": (
        lambda m, a: torch.linalg.qr(a, "complete"), (tall,),
        {FMA: round(5 * ((192 - 128 / 3) / 2 + 2 * (144 - 96 + 64 / 3))), RECIPROCAL: 20},
    ),
    # its transpose of 4 x 6: R as much, Q of 4 x 4 by four reflectors 4 n^3 / 3
    "QR of few rows": (
        lambda m, a: torch.linalg.qr(a), (tall.mT.contiguous(),),
        {FMA: round(5 * ((192 - 128 / 3) / 2 + 128 / 3)), RECIPROCAL: 20},
    ),
}  # fmt: skip


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize("name", WORK)
def test_work_by_hand(name, front_end):
    function, inputs, counts = WORK[name]
    (op,) = [op for op in front_end(Call(function), inputs) if "linalg" in op.kind or "solve" in op.kind]
    found = {p: n for p, n in op.primitives.items() if p in (FMA, RECIPROCAL)}
    assert found == counts
