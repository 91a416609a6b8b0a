"""Scaled dot-product attention: einsum, softmax, einsum, in one region."""

from __future__ import annotations

from sim.workload.graph import Primitive
from sim.workload.trace.rules.reductions import merged, softmax_primitives
from sim.workload.trace.rules.registry import AnyTensor, Call, Grouped, Product, Spec, Vector, Window, register_rule


@register_rule("aten.scaled_dot_product_attention")
def attention(call: Call) -> Grouped:
    """softmax(q k^T scale + mask) v for q[B..., Hq, L, D], k[B..., Hkv, S, D], v[B..., Hkv, S, Dv].

    Ranks: B batch, H key-value heads, G queries that share one of them, M queries, N and K keys or
    depth. Keys and values lack G: they keep their true size under grouped-query attention. Causal
    attention counts the full square, as torch's FlopCounter does; `causal` in the attributes lets
    a chip that skips the upper half say so. The recorder adds `mask_causal` and `mask_window` where an
    explicit mask is made of constants: then `causal` and `window` (keys seen at most) say its form.
    Batch and heads broadcast, as of learned queries that are the same for every sample: the result has them all.
    """
    axes = call.out.dim()
    q, k, v = (_of_axes(call.arg(at, name), axes) for at, name in enumerate(("query", "key", "value")))
    mask, causal = call.arg(3, "attn_mask"), bool(call.arg(5, "is_causal", False))
    batch_names, batch = _batch(call.out)
    heads = call.out.shape[-3] if axes > 3 else 1
    kv_heads = max(k.shape[-3], v.shape[-3]) if axes > 3 else 1
    group = heads // kv_heads
    common = {n: s for n, s in zip(batch_names, batch, strict=True) if s != 1}
    common |= {n: s for n, s in (("H", kv_heads), ("G", group)) if s != 1}
    length, keys, depth, width = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    scores = q.new_empty((*call.out.shape[:-1], keys))
    weights = q.new_empty(scores.shape)

    def spec(tensor: AnyTensor, head: str | Window, last: tuple[str, str]) -> Spec:
        lead = (*batch_names, head) if axes > 3 else batch_names
        return (*(n if s != 1 else None for n, s in zip(lead, tensor.shape[:-2], strict=True)), *last)

    query_head = Window((("H", group), ("G", 1)))
    first = Product(
        common | {"M": length, "N": keys, "K": depth},
        (q, spec(q, query_head, ("M", "K"))),
        (k, spec(k, "H", ("N", "K"))),
        (scores, spec(scores, query_head, ("M", "N"))),
        kind="attention.scores",
    )
    second = Product(
        common | {"M": length, "N": width, "K": keys},
        (weights, spec(weights, query_head, ("M", "K"))),
        (v, spec(v, "H", ("K", "N"))),
        (call.out, spec(call.out, query_head, ("M", "N"))),
        kind="attention.context",
    )
    attrs = {
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": depth,
        "query_length": length,
        "key_length": keys,
        "causal": causal or bool(call.kwargs.get("mask_causal", False)),
    }
    if call.kwargs.get("mask_window"):
        attrs["window"] = call.kwargs["mask_window"]
    return Grouped("attention", (first, _softmax(scores, weights, mask, causal), second), attrs)


def _of_axes(tensor: AnyTensor, axes: int) -> AnyTensor:
    """The tensor with so many axes, the leading ones that it lacks of size 1."""
    return tensor[(None,) * (axes - tensor.dim())] if tensor.dim() < axes else tensor


def _batch(out: AnyTensor) -> tuple[tuple[str, ...], tuple[int, ...]]:
    batch = tuple(out.shape[:-3] if out.dim() > 3 else out.shape[:-2])
    return (("B",) if len(batch) == 1 else tuple(f"B{i}" for i in range(len(batch)))), batch


def _softmax(scores: AnyTensor, weights: AnyTensor, mask: AnyTensor | None, causal: bool) -> Vector:
    """Scale, mask (an add, or a select where it is boolean or causal), softmax over the keys."""
    elements = scores.numel()
    work = softmax_primitives(elements, elements // max(scores.shape[-1], 1))
    if mask is not None and "bool" not in str(mask.dtype):
        masking = {Primitive.ADD: 1}
    else:
        masking = {Primitive.COMPARE: 1} if causal or mask is not None else {}
    return Vector(
        merged((work, 1), ({Primitive.MUL: 1}, elements), (masking, elements)),
        passes=2,
        inputs=(scores, *((mask,) if mask is not None else ())),
        outputs=(weights,),
        kind="attention.softmax",
    )
