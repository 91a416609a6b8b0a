"""The Triton kernels; without triton their names are None. TRITON_INTERPRET=1 runs them without a GPU."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from sim.errors import MeasurementError

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:  # the CPU wheels of torch come without it
    triton = tl = None

    def jit(function):
        return None


def require_triton() -> None:
    """Raises: MeasurementError: triton is not installed."""
    if triton is None:
        raise MeasurementError("this kernel is written in Triton: pip install triton (CUDA builds of torch bring it)")


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@jit
def int4_gemm_kernel(
    x_ptr, packed_ptr, scale_ptr, zero_ptr, out_ptr, m, n, k,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One BLOCK_M x BLOCK_N tile of the output; one group of columns of the weight per step."""
    half: tl.constexpr = GROUP // 2
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = tl.arange(0, half)
    row_mask = rows[:, None] < m
    column_mask = columns < n
    groups = k // GROUP
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for group in range(groups):
        # (half, BLOCK_N): a byte holds column `inside` of the group and column `inside + half`
        pairs = tl.load(
            packed_ptr + columns[None, :] * (k // 2) + group * half + inside[:, None],
            mask=column_mask[None, :],
            other=0,
        )
        scale = tl.load(scale_ptr + columns * groups + group, mask=column_mask, other=0.0)
        zero = tl.load(zero_ptr + columns * groups + group, mask=column_mask, other=0.0)
        low = ((pairs & 15).to(tl.float16) - zero[None, :]) * scale[None, :]
        high = ((pairs >> 4).to(tl.float16) - zero[None, :]) * scale[None, :]
        x_address = x_ptr + rows[:, None] * k + group * GROUP + inside[None, :]
        accumulator += tl.dot(tl.load(x_address, mask=row_mask, other=0.0), low)
        accumulator += tl.dot(tl.load(x_address + half, mask=row_mask, other=0.0), high)
    out_address = out_ptr + rows[:, None] * n + columns[None, :]
    tl.store(out_address, accumulator.to(tl.float16), mask=row_mask & column_mask[None, :])


@jit
def block_sparse_gemm_kernel(
    x_ptr, values_ptr, columns_ptr, out_ptr, m, n, k, kept,
    BLOCK: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """One BLOCK_M x BLOCK tile of the output; one kept block of the weight's block row per step."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    block_row = tl.program_id(1)
    inside = tl.arange(0, BLOCK)
    row_mask = rows[:, None] < m
    accumulator = tl.zeros((BLOCK_M, BLOCK), dtype=tl.float32)
    for i in range(kept):
        entry = block_row * kept + i
        column = tl.load(columns_ptr + entry)
        x = tl.load(x_ptr + rows[:, None] * k + column * BLOCK + inside[None, :], mask=row_mask, other=0.0)
        # the block is stored (n, k); its transpose (k, n) is what the product takes
        w = tl.load(values_ptr + entry * BLOCK * BLOCK + inside[None, :] * BLOCK + inside[:, None])
        accumulator += tl.dot(x, w)
    out_address = out_ptr + rows[:, None] * n + (block_row * BLOCK + inside)[None, :]
    tl.store(out_address, accumulator.to(out_ptr.dtype.element_ty), mask=row_mask)
