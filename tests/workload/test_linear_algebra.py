"""Dense linear algebra by both front ends: FLOP of the textbook counts, two of them an fma, inverses counted alike."""

import pytest
import torch
from calls import Call

from sim.workload.graph import Primitive, VectorOp
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
    # 9 n^3 with vectors, 4 n^3 / 3 without; 14 m n^2 + 8 n^3 with both factors, 4 m n^2 - 4 n^3 / 3 without; 10 n^3
    "symmetric": (lambda m, a: torch.linalg.eigh(a), (square,), {FMA: 5 * 9 * 32, RECIPROCAL: 20}),
    "symmetric, values": (lambda m, a: torch.linalg.eigvalsh(a), (square,), {FMA: round(5 * 128 / 3), RECIPROCAL: 20}),
    "SVD": (lambda m, a: torch.linalg.svd(a), (tall,), {FMA: 5 * (7 * 96 + 4 * 64), RECIPROCAL: 20}),
    "singular values": (
        lambda m, a: torch.linalg.svdvals(a), (tall,), {FMA: round(5 * (192 - 128 / 3)), RECIPROCAL: 20},
    ),
    "eigenvalues": (lambda m, a: torch.linalg.eigvals(a), (square,), {FMA: 5 * 10 * 64 // 2, RECIPROCAL: 20}),
    # Q of four columns by four reflectors: 4 m n k - 2 (m + n) k^2 + 4 k^3 / 3 = 149 1/3 FLOP
    "reflectors": (
        lambda m, a, t: torch.linalg.householder_product(a, t), (tall, torch.empty(5, 4)),
        {FMA: round(5 * (384 - 320 + 256 / 3) / 2)},
    ),
    # 6 x 3 times four reflectors from the left, 3 x 6 from the right: 4 x 6 x 3 x 4 - 2 x 3 x 16 = 192 FLOP
    "times reflectors": (
        lambda m, a, t, c: torch.ormqr(a, t, c), (tall, torch.empty(5, 4), torch.empty(5, 6, 3)), {FMA: 5 * 192 // 2},
    ),
    "times reflectors from the right": (
        lambda m, a, t, c: torch.ormqr(a, t, c, left=False), (tall, torch.empty(5, 4), torch.empty(5, 3, 6)),
        {FMA: 5 * 192 // 2},
    ),
    # 25 n^3; 2 n^3 / 3 beside the factor
    "eigenvectors": (lambda m, a: torch.linalg.eig(a), (square,), {FMA: 5 * 25 * 64 // 2, RECIPROCAL: 20}),
    "inverse of Cholesky's factor": (
        lambda m, a: torch.cholesky_inverse(a), (square,), {FMA: round(5 * 64 / 3), RECIPROCAL: 20},
    ),
}  # fmt: skip


@pytest.mark.parametrize("front_end", [trace, export])
@pytest.mark.parametrize("name", WORK)
def test_work_by_hand(name, front_end):
    function, inputs, counts = WORK[name]
    (op,) = [op for op in front_end(Call(function), inputs) if isinstance(op, VectorOp)]
    found = {p: n for p, n in op.primitives.items() if p in (FMA, RECIPROCAL)}
    assert found == counts


@pytest.mark.parametrize(
    ("a", "b", "sides", "shape"),
    [((5, 6, 4), (5, 6, 2), 2, (5, 4, 2)), ((5, 6, 4), (5, 6), 1, (5, 4)), ((5, 4, 6), (5, 4, 2), 2, (5, 6, 2))],
)
def test_least_squares(a, b, sides, shape):
    """QR of 6 x 4 (149 1/3 FLOP), its reflectors times a side (4 m n - 2 n^2 = 64) and a triangle for it (n^2 = 16)."""
    graph = trace(Call(lambda m, a, b: torch.linalg.lstsq(a, b).solution), (torch.empty(a), torch.empty(b)))
    (op,) = [op for op in graph if isinstance(op, VectorOp)]
    assert op.primitives[FMA] == round(5 * (192 - 128 / 3 + (64 + 16) * sides) / 2)
    assert graph.tensors[op.outputs[0]].shape == shape
