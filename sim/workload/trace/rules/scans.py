"""Rules of recurrences over a sequence that are written as one op: state-space scans."""

from __future__ import annotations

from sim.workload.graph import Primitive
from sim.workload.trace.rules.reductions import merged
from sim.workload.trace.rules.registry import Call, Grouped, Vector, register_rule

ADD, MUL, FMA, EXP = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.EXP


@register_rule("dovetail.selective_scan", "mamba_ssm.selective_scan_fwd")
def selective_scan(call: Call) -> Grouped:
    """h = exp(delta a) h + delta b x, y = c h + d x for x[N, L, D], a[D, S] (Gu and Dao, arXiv:2312.00752, eq. 2).

    A state element and step: delta a (mul), exp, delta x b (mul), the update (fma), the sum with c
    (fma); an element of x: delta x (mul), d x (fma). The states stay on chip: only arguments and
    result are moved. Steps follow each other; `length` in the attributes is that chain.
    """
    x, a = call.arg(0, "x"), call.arg(2, "a")
    states = x.numel() * a.shape[-1]
    work = merged(({MUL: 2, EXP: 1, FMA: 2}, states), ({MUL: 1, FMA: 1}, x.numel()))
    attrs = {"length": x.shape[1], "channels": x.shape[2], "state": a.shape[-1]}
    return Grouped("scan", (Vector(work),), attrs)
