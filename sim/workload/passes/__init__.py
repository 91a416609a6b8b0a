"""Graph to graph rewrites; each says what it needs and what it promises.

What a model meant   attention (written by hand), caches (of keys and values), dead_code
Stored otherwise     precision, sparsify, stored (in other widths or densities)
For a chip           fuse (epilogues), sparse_passes (kernels that an array takes in several)
For several chips    tensor_parallel, with split_axes; pipeline
"""

from sim.workload.passes.attention import find_attention
from sim.workload.passes.caches import find_caches
from sim.workload.passes.dead_code import dead_code
from sim.workload.passes.fuse import fuse_epilogues
from sim.workload.passes.pipeline import pipeline
from sim.workload.passes.precision import PrecisionPolicy, apply_precision
from sim.workload.passes.sparse_passes import PassLimit, split_sparse_passes
from sim.workload.passes.sparsify import sparsify
from sim.workload.passes.stored import with_stored
from sim.workload.passes.tensor_parallel import tensor_parallel

__all__ = [
    "PassLimit",
    "PrecisionPolicy",
    "apply_precision",
    "dead_code",
    "find_attention",
    "find_caches",
    "fuse_epilogues",
    "pipeline",
    "sparsify",
    "split_sparse_passes",
    "tensor_parallel",
    "with_stored",
]
