"""One-op graphs without torch: a matrix product, a convolution."""

from __future__ import annotations

from sim.errors import PrecisionError, WorkloadError, nearest, whole
from sim.workload.graph import Axis, Einsum, EinsumOp, Graph, Operand, OperandRole, Role, Tensor
from sim.workload.precision import BITS


def gemm(m: int, n: int, k: int, *, batch: int = 1, dtype: str = "int8") -> Graph:
    """out[B, M, N] = input[B, M, K] weight[B, K, N], MACs = batch m n k; B is left out when 1.

    Raises: WorkloadError: a size below 1; PrecisionError: an unknown element type.
    """
    m, n, k, batch = _sizes("gemm", m=m, n=n, k=k, batch=batch)
    ranks = {**({"B": batch} if batch > 1 else {}), "M": m, "N": n, "K": k}
    lead = ("B",) if batch > 1 else ()
    axes = [tuple(_axis(rank, ranks) for rank in (*lead, *pair)) for pair in (("M", "K"), ("K", "N"), ("M", "N"))]
    knobs = {"m": m, "n": n, "k": k, "batch": batch, "dtype": dtype}
    return _one_op("gemm", "aten.mm", ranks, axes, dtype, knobs)


def conv2d(
    in_channels: int,
    out_channels: int,
    size: int | tuple[int, int],
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    batch: int = 1,
    dtype: str = "int8",
) -> Graph:
    """A 2-d convolution of [batch, in_channels, H, W] with `groups`, ranks N, G, K, C, P, Q, R, S.

    P = (H + 2 padding - dilation (R - 1) - 1) / stride + 1, rounded down, and Q alike. MACs =
    batch x out_channels x in_channels / groups x P x Q x R x S.

    Raises: WorkloadError: sizes that make no output or do not divide by the groups.
    """
    (height, width), (r, s) = _pair("size", size), _pair("kernel", kernel)
    in_channels, out_channels = _sizes("conv2d", in_channels=in_channels, out_channels=out_channels)
    stride, dilation, groups = _sizes("conv2d", stride=stride, dilation=dilation, groups=groups)
    (batch,) = _sizes("conv2d", batch=batch)
    padding = whole(padding, where="conv2d: padding", least=0, error=WorkloadError)
    if in_channels % groups or out_channels % groups:
        raise WorkloadError(f"conv2d: channels {in_channels} and {out_channels} do not divide by groups={groups}")
    p = (height + 2 * padding - dilation * (r - 1) - 1) // stride + 1
    q = (width + 2 * padding - dilation * (s - 1) - 1) // stride + 1
    _sizes("conv2d", output_height=p, output_width=q)
    c, k = in_channels // groups, out_channels // groups
    grouped = {"G": groups} if groups > 1 else {}
    ranks = {"N": batch, **grouped, "K": k, "C": c, "P": p, "Q": q, "R": r, "S": s}

    def channels(rank: str, each: int) -> Axis:
        terms = (("G", each), (rank, 1)) if groups > 1 else ((rank, 1),)
        return Axis(terms=terms, size=each * groups)

    def slid(out: str, window: str, extent: int) -> Axis:
        return Axis(terms=((out, stride), (window, dilation)), offset=-padding, size=extent)

    axes = [
        (_axis("N", ranks), channels("C", c), slid("P", "R", height), slid("Q", "S", width)),
        (channels("K", k), *(_axis(rank, ranks) for rank in "CRS")),
        (_axis("N", ranks), channels("K", k), _axis("P", ranks), _axis("Q", ranks)),
    ]
    knobs: dict[str, object] = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "height": height,
        "width": width,
    }
    knobs |= {"kernel_height": r, "kernel_width": s, "stride": stride, "padding": padding, "dilation": dilation}
    knobs |= {"groups": groups, "batch": batch, "dtype": dtype}
    return _one_op("conv2d", "aten.convolution", ranks, axes, dtype, knobs)


def _axis(rank: str, ranks: dict[str, int]) -> Axis:
    return Axis(terms=((rank, 1),), size=ranks[rank])


def _one_op(name: str, kind: str, ranks: dict[str, int], axes: list, dtype: str, knobs: dict) -> Graph:
    if not isinstance(dtype, str) or dtype not in BITS:
        raise PrecisionError(
            f'{name}: element type "{dtype}" is unknown: one of {", ".join(BITS)}.{nearest(dtype, BITS)}'
        )
    roles = (Role.INPUT, Role.WEIGHT, Role.OUTPUT)
    tensors = {
        str(role): Tensor(
            id=str(role),
            shape=tuple(a.size for a in own),
            dtype=dtype,
            bits=BITS[dtype],
            role=role,
            name=str(role),
            storage=str(role),
        )
        for role, own in zip(roles, axes, strict=True)
    }
    operands = tuple(
        Operand(tensor=str(role), role=part, projection=own)
        for role, part, own in zip(roles, OperandRole, axes, strict=True)
    )
    op = EinsumOp(
        name=name,
        kind=kind,
        inputs=("input", "weight"),
        outputs=("output",),
        einsum=Einsum(ranks=ranks, operands=operands),
    )
    return Graph(ops=(op,), tensors=tensors, name=name, knobs=knobs, batch=knobs["batch"])


def _pair(label: str, size: object) -> list[int]:
    """Height and width, of one number or of two."""
    both = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    return [whole(one, where=f"conv2d: {label}", error=WorkloadError) for one in both]


def _sizes(name: str, **sizes: object) -> list[int]:
    return [whole(size, where=f"{name}: {label}", error=WorkloadError) for label, size in sizes.items()]
