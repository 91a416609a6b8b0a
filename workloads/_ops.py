"""Ops that ATen lacks and that models need whole: selective scan, non-maximum suppression.

Each runs for real (plain PyTorch, slow) and has a shape rule for runs without data; the tracer knows
their cost.
"""

import torch


@torch.library.custom_op("dovetail::selective_scan", mutates_args=())
def selective_scan(
    x: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor
) -> torch.Tensor:
    """h_t = exp(delta_t a) h_(t-1) + delta_t b_t x_t, y_t = c_t h_t + d x_t (Gu and Dao, arXiv:2312.00752).

    Shapes: x and delta [N, L, D]; a [D, S]; b and c [N, L, S]; d [D]; y [N, L, D].
    """
    state = x.new_zeros(x.shape[0], *a.shape)
    out = torch.empty_like(x)
    for t in range(x.shape[1]):
        step = delta[:, t, :, None]
        state = (step * a).exp() * state + step * b[:, t, None] * x[:, t, :, None]
        out[:, t] = (state * c[:, t, None]).sum(-1) + d * x[:, t]
    return out


@selective_scan.register_fake
def _(x, delta, a, b, c, d):
    return torch.empty_like(x)


@torch.library.custom_op("dovetail::nms", mutates_args=())
def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, limit: int) -> torch.Tensor:
    """Indices of the `limit` best boxes [N, 4] that overlap no better one by more than `threshold`; -1 fills up."""
    order = scores.argsort(descending=True)
    low, high = boxes[order, :2], boxes[order, 2:]
    area = (high - low).clamp(min=0).prod(-1)
    shared = (torch.minimum(high[:, None], high) - torch.maximum(low[:, None], low)).clamp(min=0).prod(-1)
    overlap = shared / (area[:, None] + area - shared).clamp(min=1e-9)
    kept: list[int] = []
    for i in range(len(order)):
        if all(overlap[i, j] <= threshold for j in kept):
            kept.append(i)
    out = order.new_full((limit,), -1)
    out[: len(kept)] = order[kept[:limit]]
    return out


@nms.register_fake
def _(boxes, scores, threshold, limit):
    return boxes.new_empty((limit,), dtype=torch.int64)
