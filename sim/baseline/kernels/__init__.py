"""Kernels of our own that libraries lack: weight-only int4 GEMM, block-sparse GEMM, detection post-processing.

The kernels          int4_gemm, block_sparse_gemm (both in _triton), detection (CUDA C++)
For the estimate     plain (the same in ops that the recorder knows), cost (as the kernels are written)
"""
