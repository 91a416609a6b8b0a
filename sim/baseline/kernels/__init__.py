"""Kernels of our own that libraries lack: weight-only int4 GEMM, block-sparse GEMM, detection post-processing."""
