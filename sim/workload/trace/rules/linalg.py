"""Rules of dense linear algebra on (batches of) small matrices: leading terms of the textbook counts.

Golub and Van Loan, Matrix Computations (4th ed.): Cholesky n^3 / 3 FLOP (4.2), LU 2 n^3 / 3 (3.2), symmetric
eigenproblem with vectors 9 n^3, its values alone 4 n^3 / 3 (8.3), SVD with both factors 14 m n^2 + 8 n^3, its values
alone 4 m n^2 - 4 n^3 / 3 (8.6). Blackford and Dongarra, LAPACK Working Note 41: Householder QR 2 m n^2 - 2 n^3 / 3, and
k of its reflectors made into a factor Q of m x n 4 m n k - 2 (m + n) k^2 + 4 k^3 / 3, or taken times m x n 4 m n k - 2
n k^2; an inverse from Cholesky's factor 2 n^3 / 3. The eigenproblem of any matrix is its Schur form with the basis, 25
n^3, its values alone 10 n^3 (Golub and Van Loan, 7.5). Two FLOP are one fma. They run on the vector unit: no array has
a mapping for them.
"""

from __future__ import annotations

from sim.workload.graph import Primitive
from sim.workload.trace.rules.registry import AnyTensor, Call, Movement, Vector, register_rule

ADD, MUL, FMA, RSQRT, RECIPROCAL = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.RSQRT, Primitive.RECIPROCAL


def _sizes(a: AnyTensor) -> tuple[int, int, int]:
    """(matrices, rows, columns), rows >= columns."""
    m, n = sorted(a.shape[-2:], reverse=True)
    return a.numel() // max(m * n, 1), m, n


def _work(count: int, flops: float, steps: dict[Primitive, int]) -> Vector:
    return Vector({FMA: round(count * flops / 2)} | {p: count * n for p, n in steps.items()}, passes=2)


@register_rule("aten.linalg_cholesky_ex", "aten.cholesky", "aten.linalg_cholesky")
def cholesky(call: Call) -> Vector:
    count, _, n = _sizes(call.args[0])
    return _work(count, n**3 / 3, {RSQRT: n, RECIPROCAL: n})


@register_rule("aten._linalg_det", "aten._linalg_slogdet", "aten.linalg_lu_factor_ex", "aten.linalg_lu")
def lu(call: Call) -> Vector:
    count, _, n = _sizes(call.args[0])
    return _work(count, 2 * n**3 / 3, {RECIPROCAL: n})


@register_rule("aten.lu_unpack")
def unpacked(call: Call) -> Movement:
    """The factors of a decomposition that is made already: read once, each written as a matrix of its own."""
    return Movement()


@register_rule("aten.linalg_inv_ex")
def inverse(call: Call) -> Vector:
    """LU, then n right-hand sides."""
    count, _, n = _sizes(call.args[0])
    return _work(count, 2 * n**3, {RECIPROCAL: n})


@register_rule("aten._linalg_solve_ex")
def solve(call: Call) -> Vector:
    """LU, then two triangular solves a right-hand side."""
    count, _, n = _sizes(call.args[0])
    return _work(count, 2 * n**3 / 3 + 2 * call.out.numel() / count * n, {RECIPROCAL: n})


@register_rule("aten.linalg_lu_solve")
def solve_by_factors(call: Call) -> Vector:
    """Two triangular solves a right-hand side: the LU is made already."""
    count, _, n = _sizes(call.args[0])
    return Vector({FMA: call.out.numel() * n, RECIPROCAL: count * n}, passes=2)


@register_rule("aten.linalg_solve_triangular", "aten.triangular_solve", "aten.cholesky_solve")
def triangular_solve(call: Call) -> Vector:
    """One triangular solve a right-hand side (Cholesky's factor: two), and each matrix's diagonal inverted once, where
    it is not one."""
    triangle = call.args[0 if "linalg" in call.name else 1]
    count, _, n = _sizes(triangle)
    solves = 2 if "cholesky" in call.name else 1
    inverted = 0 if call.arg(4, "unitriangular", False) else count * n
    return Vector({FMA: solves * call.out.numel() * n // 2, RECIPROCAL: inverted}, passes=1)


def _reflected(m: int, n: int) -> float:
    """FLOP of Householder QR of m x n, R and the reflectors."""
    m, n = max(m, n), min(m, n)
    return 2 * m * n**2 - 2 * n**3 / 3


def _factor(m: int, n: int, k: int) -> float:
    """FLOP of a Q of m x n made of k reflectors."""
    return 4 * m * n * k - 2 * (m + n) * k**2 + 4 * k**3 / 3


@register_rule("aten.linalg_qr")
def qr(call: Call) -> Vector:
    """R, and Q where it is asked for, with as many columns as it is wanted with."""
    count, _, least = _sizes(call.args[0])
    rows, columns = call.outputs[0].shape[-2:] if call.arg(1, "mode") != "r" else (0, 0)
    flops = _reflected(*call.args[0].shape[-2:]) + (_factor(rows, columns, least) if rows else 0)
    return _work(count, flops, {RSQRT: least, RECIPROCAL: least})


@register_rule("aten.linalg_householder_product")
def householder_product(call: Call) -> Vector:
    """Q of the reflectors below the diagonal, as orthogonal layers make their weight."""
    rows, columns = call.out.shape[-2:]
    count, _, _ = _sizes(call.out)
    return _work(count, _factor(rows, columns, call.args[1].shape[-1]), {})


@register_rule("aten.ormqr")
def times_reflectors(call: Call) -> Vector:
    """Q or its transpose times a matrix, from either side, Q never made."""
    count, _, _ = _sizes(call.out)
    rows, columns = call.out.shape[-2:] if call.arg(3, "left", True) else reversed(call.out.shape[-2:])
    k = call.args[1].shape[-1]
    return _work(count, 4 * rows * columns * k - 2 * columns * k**2, {})


@register_rule("aten.linalg_lstsq")
def least_squares(call: Call) -> Vector:
    """QR, the right-hand sides times its reflectors, then a triangle for each."""
    count, m, n = _sizes(call.args[0])
    sides = call.out.numel() // max(count * call.args[0].shape[-1], 1)
    flops = _reflected(m, n) + 4 * m * n * sides - 2 * n**2 * sides + n**2 * sides
    return _work(count, flops, {RSQRT: n, RECIPROCAL: n})


@register_rule("aten.cholesky_inverse")
def inverse_of_factor(call: Call) -> Vector:
    count, _, n = _sizes(call.args[0])
    return _work(count, 2 * n**3 / 3, {RECIPROCAL: n})


def _eigenproblem(name: str, steps: float) -> None:
    @register_rule(name)
    def rule(call: Call) -> Vector:
        count, _, n = _sizes(call.args[0])
        return _work(count, steps * n**3, {RSQRT: n, RECIPROCAL: n})


for _name, _steps in {
    "aten.linalg_eig": 25,
    "aten.linalg_eigvals": 10,
    "aten._linalg_eigh": 9,
    "aten.linalg_eigvalsh": 4 / 3,
}.items():
    _eigenproblem(_name, _steps)


@register_rule("aten.linalg_svdvals")
def singular_values(call: Call) -> Vector:
    count, m, n = _sizes(call.args[0])
    return _work(count, 4 * m * n**2 - 4 * n**3 / 3, {RSQRT: n, RECIPROCAL: n})


@register_rule("aten._linalg_svd")
def svd(call: Call) -> Vector:
    count, m, n = _sizes(call.args[0])
    return _work(count, 14 * m * n**2 + 8 * n**3, {RSQRT: n, RECIPROCAL: n})


@register_rule("aten.linalg_pinv")
def pseudo_inverse(call: Call) -> Vector:
    """SVD, then the product of its factors."""
    count, m, n = _sizes(call.args[0])
    return _work(count, 14 * m * n**2 + 8 * n**3 + 2 * m * n**2, {RSQRT: n, RECIPROCAL: 2 * n, MUL: n * n})


@register_rule("aten.linalg_matrix_exp")
def matrix_exponential(call: Call) -> Vector:
    """Taylor polynomial of degree 18 by five products (Bader, Blanes and Casas, Mathematics 7:1174, 2019, which torch
    uses); norms of about one need no squarings."""
    count, _, n = _sizes(call.args[0])
    return _work(count, 5 * 2 * n**3, {})


@register_rule("aten.linalg_cross")
def cross(call: Call) -> Vector:
    """A difference of two products a component."""
    return Vector({MUL: call.out.numel(), FMA: call.out.numel()})


@register_rule("aten.trace")
def trace(call: Call) -> Vector:
    return Vector({ADD: min(call.args[0].shape)})
