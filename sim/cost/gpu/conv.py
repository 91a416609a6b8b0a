"""Convolutions on a GPU: implicit GEMM, and Winograd where the chip's library has it.

Implicit GEMM: m = batch x output pixels, n = output channels, k = input channels x window.
Winograd F(r x r, 3 x 3) (Lavin & Gray, arXiv 1509.09308): (r+2)^2 independent products over
m = batch x ceil(P/r) x ceil(Q/r) tiles and k = input channels, with inputs and outputs transformed
in memory around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sim.cost.gpu.constants import ConvConstants, GemmConstants
from sim.cost.gpu.device import CUDA_CORE_DTYPES, SIMT, GpuDevice, Library, element_bytes
from sim.cost.gpu.gemm import gemm_plan, gemm_time
from sim.cost.gpu.result import KernelTime

WINOGRAD = {"winograd_2x2": 2, "winograd_4x4": 4}
"""Algorithm -> outputs per tile and side."""


def conv_s(
    batch: ArrayLike, in_channels: ArrayLike, out_channels: ArrayLike, height: ArrayLike, width: ArrayLike,
    window: ArrayLike, *, device: GpuDevice, constants: ConvConstants, gemm: GemmConstants, stride: ArrayLike = 1,
    padding: ArrayLike = 0, groups: ArrayLike = 1, dtype: str = "fp32", host: bool = False,
) -> KernelTime:  # fmt: skip
    """Time of one forward convolution (square window), the fastest of the chip's algorithms.

    In fp32, Winograd is flagged: where it was chosen, or might be by the library of a chip that lists no Winograd.

    Args:
        batch, in_channels, out_channels, height, width, window, stride, padding, groups: broadcast.
        gemm: constants of the matrix products inside; `constants` replaces their efficiency.
        host: with the floor of an eager call; False = graph replay.
    Raises: ValueError: a window larger than the padded input, channels not a multiple of groups.
    """
    parts = np.broadcast_arrays(
        *(
            np.asarray(x, dtype=float)
            for x in (
                batch,
                in_channels,
                out_channels,
                height,
                width,
                window,
                stride,
                padding,
                groups,
            )
        )
    )
    b, ci, co, h, w, r, st, pad, g = parts
    p, q = np.floor((h + 2 * pad - r) / st) + 1, np.floor((w + 2 * pad - r) / st) + 1
    if np.any(p < 1) or np.any(q < 1):
        raise ValueError("convolution: the window is larger than the padded input")
    if np.any(ci % g != 0) or np.any(co % g != 0):
        raise ValueError("convolution: channels must be multiples of groups")
    library = SIMT if dtype in CUDA_CORE_DTYPES else None
    inside = constants.inside(gemm, host=host)
    share = np.minimum(1.0, st * st / (r * r))  # windows overlap: each input element is read once from DRAM
    direct = gemm_time(
        gemm_plan(
            b * p * q, co / g, ci / g * r * r, device=device, dtype=dtype, batch=g, library=library, input_share=share,
        ),
        inside(constants.direct_efficiency),
    )  # fmt: skip
    choices = [("direct", direct, np.ones(b.shape, bool))]
    may = (r == 3) & (st == 1) & (g == 1)
    for name, side in WINOGRAD.items():
        if name in device.algorithms:
            choices.append(
                (
                    name,
                    _winograd(side, b, ci, co, p, q, device, constants, inside, dtype, library),
                    may,
                )
            )
    found = _fastest(choices, dtype)
    if not set(device.algorithms) & set(WINOGRAD) and dtype == "fp32":  # nothing says what its library chooses
        found = replace(found, flags=dict(found.flags) | {"winograd": may})
    return found


def _winograd(
    side: int, b: np.ndarray, ci: np.ndarray, co: np.ndarray, p: np.ndarray, q: np.ndarray, device: GpuDevice,
    constants: ConvConstants, inside: Callable[[float], GemmConstants], dtype: str, library: Library | None,
) -> KernelTime:  # fmt: skip
    """(side + 2)^2 products and the transforms of tiles and, in every call, of the weights."""
    tiles = b * np.ceil(p / side) * np.ceil(q / side)
    points = (side + 2) ** 2
    plan = gemm_plan(tiles, co, ci, device=device, dtype=dtype, batch=points, library=library)
    product = gemm_time(plan, inside(constants.winograd_efficiency))
    moved = element_bytes(dtype) * points * (tiles * (ci + co) + ci * co)
    transform = constants.transform_passes * moved / device.dram_bytes_per_s
    terms = dict(product.terms_s) | {"vector": transform}
    return KernelTime(
        time_s=product.time_s + transform,
        terms_s=terms,
        kernel=product.kernel,
        flags=product.flags,
        moved_bytes=dict(product.moved_bytes) | {"l2": product.moved_bytes["l2"] + moved},
    )


def _fastest(choices: Sequence[tuple[str, KernelTime, np.ndarray]], dtype: str) -> KernelTime:
    """Take per problem the fastest allowed algorithm; Winograd in fp32 is flagged."""
    times = np.stack([np.where(allowed, t.time_s, np.inf) for _, t, allowed in choices])
    pick = np.argmin(times, axis=0)
    names = sorted({name for _, t, _ in choices for name in t.terms_s})
    zero = np.zeros(pick.shape)

    def of(values: Sequence[ArrayLike]) -> np.ndarray:
        return np.choose(pick, [np.broadcast_to(v, pick.shape) for v in values])

    kernel = {k: of([t.kernel[k] for _, t, _ in choices]) for k in choices[0][1].kernel}
    return KernelTime(
        time_s=of([t.time_s for _, t, _ in choices]),
        terms_s={n: of([t.terms_s.get(n, zero) for _, t, _ in choices]) for n in names},
        kernel=kernel | {"outputs_per_tile_side": np.asarray([WINOGRAD.get(n, 1) for n, _, _ in choices])[pick]},
        flags={"winograd": (pick > 0) & (dtype == "fp32")},
        moved_bytes={k: of([t.moved_bytes[k] for _, t, _ in choices]) for k in choices[0][1].moved_bytes},
    )
