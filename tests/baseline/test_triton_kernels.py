"""Triton kernels against plain torch, in Triton's interpreter (no GPU needed).

The interpreter is chosen when a kernel is defined, so that each check runs in a fresh process with
TRITON_INTERPRET=1. Skipped where triton is not installed.
"""

import os
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("triton")


COUNTS = """
import triton.runtime.interpreter as interpreter
patch = interpreter._patch_lang_tensor
def with_counts(tensor, scope):
    patch(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))
interpreter._patch_lang_tensor = with_counts
"""
"""Triton 3.6's interpreter takes int() of an array with one element for a loop's count, which NumPy 2.4 refuses."""


def run_interpreted(code: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COUNTS + textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_int4_gemm_equals_the_dequantised_product():
    """Ragged m and n against the tile, two groups; fp16 rounding of weights (2^-11) and of the output."""
    run_interpreted("""
        import torch
        from sim.baseline.kernels.int4_gemm import dequantise_int4, int4_gemm, quantise_int4
        torch.manual_seed(0)
        for m, n, k in ((1, 64, 128), (20, 72, 256), (70, 40, 128)):
            weight = quantise_int4(torch.randn(n, k))
            x = torch.randn(m, k).half()
            expected = x.float() @ dequantise_int4(weight).T
            torch.testing.assert_close(int4_gemm(x, weight).float(), expected, rtol=2e-3, atol=5e-2)
    """)


def test_block_sparse_gemm_equals_the_dense_product():
    run_interpreted("""
        import torch
        from sim.baseline.kernels.block_sparse_gemm import block_sparse_gemm, densify, random_block_sparse
        torch.manual_seed(0)
        for m, n, k, keep in ((1, 64, 256, 25), (70, 128, 192, 67)):
            weight = random_block_sparse(n, k, keep_percent=keep, dtype=torch.float16, device="cpu")
            x = torch.randn(m, k).half()
            expected = x.float() @ densify(weight).float().T
            torch.testing.assert_close(block_sparse_gemm(x, weight).float(), expected, rtol=2e-3, atol=5e-2)
    """)
