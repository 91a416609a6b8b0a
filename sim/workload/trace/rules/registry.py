"""The table of op rules, and the few kinds of work that a rule can answer with.

A rule sees one call (`Call`: arguments, results, all with shapes, strides and dtypes and no data)
and says what work it is. A user's own op needs a few lines:

    from sim.workload.trace import Vector, register_rule
    from sim.workload.graph import Primitive

    @register_rule("mylib.swiglu")
    def swiglu(call):
        return Vector({Primitive.EXP: call.out.numel(), Primitive.MUL: 2 * call.out.numel()})
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sim.errors import DovetailError
from sim.workload.graph import Primitive

AnyTensor = Any
"""A torch tensor without data (meta); typed as Any so that rules import no torch."""

Spec = Sequence["str | Window | None"]
"""Per axis of a tensor: a rank, nothing (size 1), or an affine function of ranks."""


@dataclass(frozen=True, slots=True)
class Window:
    """index = offset + sum coef * rank, e.g. a convolution's input row."""

    terms: tuple[tuple[str, int], ...]
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an op: `name` without overload and without the trailing underscore of in-place."""

    name: str
    args: tuple
    kwargs: Mapping[str, Any]
    outputs: tuple[AnyTensor, ...]
    in_place: bool = False

    def arg(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or name; what the caller left out is `default`."""
        if index < len(self.args):
            return self.args[index]
        return self.kwargs.get(name, default)

    @property
    def inputs(self) -> tuple[AnyTensor, ...]:
        return tuple(tensors_in((self.args, self.kwargs)))

    @property
    def out(self) -> AnyTensor:
        return self.outputs[0]


@dataclass(frozen=True, slots=True)
class Product:
    """Multiply-accumulates: two factors and a result, each with a `Spec`."""

    ranks: Mapping[str, int]
    input: tuple[AnyTensor, Spec]
    weight: tuple[AnyTensor, Spec]
    output: tuple[AnyTensor, Spec]
    epilogue: Mapping[Primitive, int] = field(default_factory=dict)
    """Vector work per output element inside the same op (bias)."""
    extra: tuple[AnyTensor, ...] = ()
    """Further inputs: bias, the group offsets."""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Vector:
    """Element-wise work and reductions; inputs and outputs are the call's unless given."""

    primitives: Mapping[Primitive, int]
    passes: int = 1
    inputs: tuple[AnyTensor, ...] | None = None
    outputs: tuple[AnyTensor, ...] | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Movement:
    """Data movement: elements really read per input and written per output (None: all of them)."""

    read: Sequence[tuple[AnyTensor, int]] | None = None
    write: Sequence[tuple[AnyTensor, int]] | None = None
    primitives: Mapping[Primitive, int] = field(default_factory=dict)
    kind: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Nothing is moved or computed."""


@dataclass(frozen=True, slots=True)
class Grouped:
    """Several pieces of work that the model wrote as one op: they become a region."""

    kind: str
    works: tuple[Product | Vector | Movement, ...]
    attrs: Mapping[str, int | float | str | bool] = field(default_factory=dict)


Work = Product | Vector | Movement | View | Grouped
Rule = Callable[[Call], Work]

_RULES: dict[str, Rule] = {}


def register_rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: this rule answers for the ops `names`, e.g. "aten.mm" or "mylib.scan".

    A name is namespace.op, without overload; in-place variants ("aten.add_") follow the rule of
    the plain op and tell by `call.in_place`. A model file that is loaded again (a sweep over its
    knobs) may register its rules again.

    Raises: DovetailError: a name that has a rule already, or is not of the form namespace.op.
    """

    for name in names:
        if name.count(".") != 1:
            raise DovetailError(f'op name "{name}": expected "namespace.op" such as "aten.mm"')

    def add(rule: Rule) -> Rule:
        for name in names:
            if name in _RULES and not _loaded_again(_RULES[name], rule):
                raise DovetailError(f"op {name} has a rule already ({_RULES[name].__module__})")
            _RULES[name] = rule
        return rule

    return add


def _loaded_again(before: Rule, now: Rule) -> bool:
    """Whether two functions are one definition in a file that was run twice."""
    places = [(r.__code__.co_filename, r.__qualname__) for r in (before, now) if hasattr(r, "__code__")]
    return before is not now and len(places) == 2 and places[0] == places[1]


def unregister_rule(name: str) -> None:
    """Take a rule out again, to put another in its place."""
    if _RULES.pop(name, None) is None:
        raise DovetailError(f"op {name} has no rule")


def rule_for(name: str) -> tuple[Rule | None, bool]:
    """The rule of an op, and whether the name is its in-place variant."""
    if name in _RULES:
        return _RULES[name], False
    plain = name.removesuffix("_")
    return _RULES.get(plain), plain != name


def tensors_in(value: Any) -> Iterator[AnyTensor]:
    """Tensors of nested lists, tuples and dicts, in order."""
    if hasattr(value, "untyped_storage"):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
