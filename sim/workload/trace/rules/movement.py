"""Rules of data movement: gathers, embeddings, concatenation, copies, cache updates, sorting."""

from __future__ import annotations

from sim.workload.graph import Primitive
from sim.workload.trace.rules.registry import AnyTensor, Call, Movement, View, register_rule, tensors_in

COMPARE, ADD, SHUFFLE = Primitive.COMPARE, Primitive.ADD, Primitive.SHUFFLE


@register_rule("aten.clone", "aten.contiguous", "aten.cat", "aten.stack", "aten.roll", "aten.flip", "aten.repeat")
def copy_all(call: Call) -> Movement:
    """Every input element read once, every output element written once."""
    return Movement()


@register_rule(
    "aten.constant_pad_nd", *(f"aten.{how}_pad{n}d" for how in ("reflection", "replication") for n in (1, 2, 3))
)
def pad(call: Call) -> Movement:
    return Movement()


@register_rule("aten.rot90", "aten.diag_embed", "aten.block_diag")
def turned(call: Call) -> Movement:
    return Movement()


@register_rule("aten.max_unpool2d", "aten.max_unpool3d")
def unpool(call: Call) -> Movement:
    """Every input element and its index read, the whole output written, zeros included."""
    return Movement()


@register_rule("aten.pixel_shuffle", "aten.pixel_unshuffle", "aten.channel_shuffle", "aten.im2col", "aten.col2im")
def rearrange(call: Call) -> Movement:
    return Movement()


@register_rule("aten.copy")
def copy(call: Call) -> Movement:
    """self.copy_(source): self is written, not read; a broadcast source is read at its own size."""
    target, source = call.args[:2]
    return Movement(read=[(target, 0), (source, source.numel())], write=[(call.out, target.numel())])


@register_rule("aten.fill", "aten.zero")
def fill(call: Call) -> Movement:
    return Movement(read=[(t, 0 if t is call.args[0] else t.numel()) for t in call.inputs])


@register_rule(
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.zeros_like",
    "aten.ones_like",
    "aten.full_like",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.scalar_tensor",
    "aten.eye",
)
def constant(call: Call) -> Movement:
    """A filled tensor: written once, nothing read."""
    return Movement(read=[(t, 0) for t in call.inputs])


@register_rule("aten.arange", "aten.linspace", "aten.logspace", "aten.tril_indices", "aten.triu_indices")
def ramp(call: Call) -> Movement:
    return Movement(primitives={ADD: call.out.numel()})


@register_rule("aten.empty", "aten.empty_like", "aten.new_empty", "aten.empty_strided", "aten.new_empty_strided")
def allocate(call: Call) -> View:
    """Memory without contents."""
    return View()


@register_rule("aten.lift_fresh", "aten.lift", "aten.lift_fresh_copy")
def lift(call: Call) -> View:
    """A constant of the program enters."""
    return View()


def _rows(call: Call, table: AnyTensor, index: tuple[AnyTensor, ...]) -> Movement:
    """Only what is looked up is read: as many elements as come out, and the indices."""
    return Movement(read=[(table, call.out.numel()), *((i, i.numel()) for i in index)])


@register_rule("aten.embedding")
def embedding(call: Call) -> Movement:
    return _rows(call, call.args[0], (call.args[1],))


@register_rule("aten._embedding_bag", "aten._embedding_bag_forward_only", "aten.embedding_bag")
def embedding_bag(call: Call) -> Movement:
    """Rows are added up: reads one row an index, one add an element read."""
    table, indices = call.args[0], call.args[1]
    elements = indices.numel() * table.shape[1]
    return Movement(
        read=[(table, elements), *((t, t.numel()) for t in call.inputs[1:])],
        write=[(call.out, call.out.numel())],
        primitives={ADD: elements},
    )


@register_rule("aten.index", "aten._unsafe_index")
def index(call: Call) -> Movement:
    return _rows(call, call.args[0], tuple(tensors_in(call.args[1])))


@register_rule("aten.index_select", "aten.gather")
def gather(call: Call) -> Movement:
    return _rows(call, call.args[0], (call.args[2],))


@register_rule("aten.diagonal_copy")
def diagonal(call: Call) -> Movement:
    return _rows(call, call.args[0], ())


@register_rule("aten.embedding_renorm")
def renormed_rows(call: Call) -> Movement:
    """Rows that are looked up are scaled in place where they are too long."""
    table, where = call.args[:2]
    elements = where.numel() * table.shape[1]
    return Movement(
        read=[(table, elements), (where, where.numel())],
        write=[(call.out, elements)],
        primitives={Primitive.FMA: elements, Primitive.MUL: elements},
    )


@register_rule("aten.take", "aten.take_along_dim", "aten.masked_select")
def take(call: Call) -> Movement:
    return _rows(call, call.args[0], (call.args[1],))


@register_rule("aten.repeat_interleave")
def repeat_interleave(call: Call) -> Movement:
    return Movement()


def _scatter(call: Call, source: AnyTensor | None, index: tuple[AnyTensor, ...], *, adds: bool, count: int) -> Movement:
    """Writes `count` elements at the indices; out of place, the rest of `self` is copied too."""
    target = call.args[0]
    whole = 0 if call.in_place else target.numel()
    read = [(target, max(whole, count if adds else 0)), *((i, i.numel()) for i in index)]
    if source is not None:
        read.append((source, source.numel()))
    return Movement(read=read, write=[(call.out, max(whole, count))], primitives={ADD: count} if adds else {})


@register_rule("aten.index_copy", "aten.index_add", "aten.index_reduce")
def index_copy(call: Call) -> Movement:
    source = call.args[3]
    return _scatter(call, source, (call.args[2],), adds="copy" not in call.name, count=source.numel())


@register_rule("aten.index_fill")
def index_fill(call: Call) -> Movement:
    target, axis, where = call.args[:3]
    count = where.numel() * (target.numel() // max(target.shape[axis], 1))
    return _scatter(call, None, (where,), adds=False, count=count)


@register_rule("aten.put")
def put(call: Call) -> Movement:
    where, source = call.args[1:3]
    return _scatter(call, source, (where,), adds=bool(call.arg(3, "accumulate", False)), count=source.numel())


@register_rule("aten.index_put", "aten._unsafe_index_put", "aten._index_put_impl")
def index_put(call: Call) -> Movement:
    target, indices, values = call.args[:3]
    found = tuple(tensors_in(indices))
    count = _indexed_elements(target, indices, values)
    return _scatter(call, values, found, adds=bool(call.arg(3, "accumulate", False)), count=count)


def _indexed_elements(target: AnyTensor, indices: tuple | list, values: AnyTensor) -> int:
    """Elements of target[indices]: the broadcast of the indices times the axes left alone."""
    given = [i for i in indices if i is not None]
    if any("bool" in str(i.dtype) for i in given):
        return max(values.numel(), 1) if values.numel() > 1 else target.numel()
    points = max((i.numel() for i in given), default=1)
    rest = 1
    for axis, size in enumerate(target.shape):
        if axis >= len(indices) or indices[axis] is None:
            rest *= size
    return points * rest


@register_rule("aten.scatter", "aten.scatter_add", "aten.scatter_reduce")
def scatter(call: Call) -> Movement:
    where, source = call.args[2], call.args[3] if len(call.args) > 3 else call.kwargs.get("src")
    source = source if hasattr(source, "untyped_storage") else None
    adds = call.name != "aten.scatter" or call.arg(4, "reduce") is not None
    return _scatter(call, source, (where,), adds=adds, count=where.numel())


@register_rule("aten.masked_scatter")
def masked_scatter(call: Call) -> Movement:
    mask, source = call.args[1:3]
    return _scatter(call, source, (mask,), adds=False, count=min(source.numel(), call.out.numel()))


@register_rule("aten.slice_scatter", "aten.select_scatter", "aten.diagonal_scatter")
def slice_scatter(call: Call) -> Movement:
    source = call.args[1]
    return _scatter(call, source, (), adds=False, count=source.numel())


@register_rule("aten.topk")
def topk(call: Call) -> Movement:
    """One compare against the k-th best an element, log2(k) more for each of the k kept."""
    x, k = call.args[0], call.args[1]
    kept = call.out.numel()
    return Movement(primitives={COMPARE: x.numel() + kept * max(k - 1, 1).bit_length(), SHUFFLE: kept})


@register_rule("aten.sort", "aten.argsort", "aten._unique2", "aten.unique_dim", "aten.unique_consecutive")
def sort(call: Call) -> Movement:
    """n log2(n) compares of a merge sort along the axis."""
    x = call.args[0]
    axis = next(
        (a for a in call.args[1:] if isinstance(a, int) and not isinstance(a, bool)), call.kwargs.get("dim", -1)
    )
    size = x.shape[axis] if x.dim() else 1
    compares = x.numel() * max(size - 1, 1).bit_length()
    return Movement(primitives={COMPARE: compares, SHUFFLE: x.numel()})


@register_rule("aten.searchsorted")
def searchsorted(call: Call) -> Movement:
    return Movement(primitives={COMPARE: call.out.numel() * call.args[0].shape[-1].bit_length()})


@register_rule("aten.nonzero", "aten.histc", "aten.bincount")
def compact(call: Call) -> Movement:
    """Every element looked at, positions of those that hold written."""
    return Movement(primitives={COMPARE: call.inputs[0].numel()})


@register_rule("aten.one_hot")
def one_hot(call: Call) -> Movement:
    return Movement(primitives={COMPARE: call.out.numel()})


@register_rule("dovetail.onnx_nms")
def nms_of_classes(call: Call) -> Movement:
    """As `nms`, for each image and class on its own."""
    boxes, scores = call.args[:2]
    n, lists = boxes.shape[1], scores.shape[0] * scores.shape[1]
    return Movement(primitives={primitive: lists * count for primitive, count in _overlaps(n).items()})


@register_rule("torchvision.nms", "dovetail.nms")
def nms(call: Call) -> Movement:
    """Sort, then every kept pair of boxes compared: n^2 / 2 overlaps, 14 operations each, at worst."""
    return Movement(primitives=_overlaps(call.args[0].shape[0]))


def _overlaps(boxes: int) -> dict[Primitive, int]:
    pairs = boxes * (boxes - 1) // 2
    compares = boxes * max(boxes - 1, 1).bit_length() + 5 * pairs
    return {COMPARE: compares, ADD: 6 * pairs, Primitive.MUL: 3 * pairs}
