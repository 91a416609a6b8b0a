"""`trace`: one run of a module under the recorder."""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from sim.errors import TraceError
from sim.workload.graph import Graph, Role, ViewOp
from sim.workload.passes.attention import find_attention
from sim.workload.passes.caches import find_caches
from sim.workload.raised import foreign_code, told
from sim.workload.trace.autocast import autocast_on_meta
from sim.workload.trace.builder import GraphBuilder
from sim.workload.trace.policy import DataPolicy
from sim.workload.trace.recorder import META, FunctionMode, Recorder, is_number
from sim.workload.trace.source import user_file, user_line
from sim.workload.trace.twins import rebind


def trace(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    name: str = "",
    policy: DataPolicy | None = None,
    progress: Callable[[int], None] = lambda ops: None,
) -> Graph:
    """Record one inference of `module` as a workload graph.

    The module and the inputs may be on any device, meta included; neither is changed, no weight is
    copied, nothing is computed. The module runs in eval mode, without gradients.

    Args:
        module: any torch.nn.Module.
        example_inputs: a tensor (the only argument), a tuple or list (positional arguments) or a
            dict (keyword arguments); arguments may be nested structures.
        name: the graph's name; default: the module's class.
        policy: answers to questions about data; each answer is noted in `Graph.notes`.
        progress: called now and then with the number of ops recorded so far.
    Raises: TraceError: the model raised (with the user's line) or cannot be put on meta.
    """
    twin, args, kwargs = to_meta(module, example_inputs, numbers=True)
    return record(twin, args, kwargs, name=name or type(module).__name__, policy=policy, progress=progress)


def record(
    twin: torch.nn.Module,
    args: tuple,
    kwargs: dict,
    *,
    name: str,
    policy: DataPolicy | None = None,
    locate: Callable[[], str] = user_line,
    progress: Callable[[int], None] = lambda ops: None,
) -> Graph:
    """Run a module that is on meta already; `locate` says which line of the user's is running."""
    recorder = Recorder(policy or DataPolicy(), locate, progress)
    _declare(recorder, twin, args, kwargs)
    before = held_tensors(twin)
    recorded = foreign_code(lambda error: _failure(error, recorder, name))
    modes = (_named_modules(twin, recorder), autocast_on_meta(), torch.no_grad(), META, FunctionMode(recorder))
    with recorded, ExitStack() as entered:
        entered.callback(_forget_compiled, recorder)
        for mode in (*modes, recorder.dispatch):
            entered.enter_context(mode)
        outputs = twin(*args, **kwargs)
    with recorder.dispatch.paused():
        results = [*tensors_of(outputs), *_new_state(recorder.builder, twin, before)]
        unmet = recorder.questions.kept_none
        graph = find_caches(find_attention(recorder.builder.finish(results, name=name, hold_unread=unmet)))
    if all(isinstance(op, ViewOp) for op in graph):
        raise TraceError(f"{name}: the model runs no op on these inputs but views: there is nothing to cost")
    return graph


def _forget_compiled(recorder: Recorder) -> None:
    """What Dynamo keeps of a control-flow op that ran among our modes makes the next `torch.export` of one fail."""
    if recorder.compiled:
        torch._dynamo.reset()


class _ToMeta(torch.overrides.TorchFunctionMode):
    """While a structure is deep-copied: tensors become meta tensors instead of copies, numbers that are kept stay."""

    def __init__(self, numbers: bool = False) -> None:
        super().__init__()
        self._numbers = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = _twin(tensor, self._numbers)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


_NO_TWIN = {
    "sparse": "sparse, and how many elements it has is data; write its product as a gather of rows, a product and "
    "index_add, or give it dense",
    "nested": "nested, and how long its rows are is data; pad them to one length",
    "quantised": "quantised; keep its integers and its scale as tensors of their own, or give the model in floating "
    "point and --precision int8",
    "opaque": "laid out by a library of its own; give it as PyTorch lays it out",
}
"""Kind of tensor that cannot be without data -> what it is, and the nearest way on."""


def _refuse_layout(tensor: torch.Tensor, what: str) -> None:
    """Raises: TraceError: a tensor that has no twin on meta."""
    if tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized:
        return
    other = "sparse" if "sparse" in str(tensor.layout) else "opaque"
    kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else other
    raise TraceError(f"{what} cannot be traced: it is {_NO_TWIN[kind]}")


def refuse_untraceable(module: torch.nn.Module, where: str) -> None:
    """A module of torch.jit runs outside Python: its ops and its modules' names cannot be recorded. A lazy module has
    no shapes before it ran, a sparse or quantised weight none without data.

    Raises: TraceError: the module is one, or has one in it.
    """
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f'module "{path}"' if path else "the model"
            raise TraceError(
                f"{where}: {what} is compiled by torch.jit ({getattr(part, 'original_name', type(part).__name__)}), so "
                "its ops cannot be recorded; return the torch.nn.Module as it is before torch.jit.script or "
                "torch.jit.trace, or save it by torch.onnx.export and give the .onnx file"
            )
    lazy = [name for name, t in chain(module.named_parameters(), module.named_buffers()) if is_lazy(t)]
    if lazy:
        raise TraceError(
            f"{where}: {', '.join(lazy[:4])}{', ...' if len(lazy) > 4 else ''}: no shape yet, as of a lazy module "
            "(torch.nn.LazyLinear and the like) that never ran; run the model once on real inputs first, or give its "
            "sizes, as to torch.nn.Linear"
        )
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        _refuse_layout(tensor, f"{where}: {name}")


class NumbersKept(torch.overrides.TorchFunctionMode):
    """While a model is built on meta to be traced: a tensor of one whole number, as for a stride, has its value.

    (To be run there it is built without: what is cpu's and has an axis, as `step[None]`, does not mix with meta.)
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and args and type(args[0]) is int and kwargs.get("device") in (None, META):
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


def _twin(tensor: torch.Tensor, numbers: bool) -> torch.Tensor:
    return tensor.clone() if numbers and is_number(tensor) else _empty_twin(tensor)


def _empty_twin(tensor: torch.Tensor) -> torch.Tensor:
    _refuse_layout(tensor, "a tensor that the model holds or is given")
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def to_meta(
    module: torch.nn.Module, example_inputs: Any, *, numbers: bool = False
) -> tuple[torch.nn.Module, tuple, dict]:
    """A twin of the module and its inputs on meta, sharing what they share, in eval mode.

    `numbers`: a tensor of the module that is one whole number (a stride, a kernel size) keeps its value, if it has one.
    """
    if not isinstance(module, torch.nn.Module):
        raise TraceError(f"cannot trace a {type(module).__name__}: expected a torch.nn.Module")
    refuse_untraceable(module, type(module).__name__)
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = torch.nn.Parameter(_empty_twin(parameter), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = _twin(buffer, numbers)

    def refused(error: BaseException) -> str:
        return (
            f"{type(module).__name__}: cannot be copied to the meta device ({told(error)}); "
            "keep locks, generators and open files out of the module, or drop them in __deepcopy__"
        )

    with foreign_code(refused), _ToMeta(numbers):
        twin = copy.deepcopy(module, memo)
    with foreign_code(refused), _ToMeta():
        inputs = copy.deepcopy(example_inputs, memo)
    rebind(twin, memo)
    twin.eval()
    return twin, *arguments(inputs)


def arguments(example_inputs: Any) -> tuple[tuple, dict]:
    """Positional and keyword arguments of a call: a tensor is the only one, a tuple or list has the first, a dict the
    others.

    Raises: TraceError: none of these.
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, tuple | list):
        return tuple(example_inputs), {}
    raise TraceError(
        f"example inputs are a {type(example_inputs).__name__}: expected a tensor, a tuple of positional arguments or "
        "a dict of keyword arguments"
    )


def _declare(recorder: Recorder, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
    """Names and roles of what no op makes: inputs, then parameters and buffers."""
    builder = recorder.builder
    names = _argument_names(module)
    for position, value in enumerate(args):
        label = names[position] if position < len(names) and "args" not in names[position] else f"input{position}"
        _declare_inputs(builder, label, value)
    for label, value in kwargs.items():
        _declare_inputs(builder, label, value)
    for found in (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)):
        for label, tensor in found:
            if not builder.knows(tensor):
                builder.declare(tensor, Role.WEIGHT, label)


def _argument_names(module: torch.nn.Module) -> list[str]:
    """Of `forward`; none where it is compiled code that does not tell them."""
    try:
        return list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return []


def _declare_inputs(builder: GraphBuilder, label: str, value: Any) -> None:
    found = list(tensors_of(value))
    for position, tensor in enumerate(found):
        if not builder.knows(tensor):
            builder.declare(tensor, Role.INPUT, label if len(found) == 1 else f"{label}.{position}")


Held = Mapping[tuple[int, str], list[torch.Tensor]]
"""Tensors by the module that has them and the attribute that they are in, of an object in it too ("sampler.step")."""


def held_tensors(module: torch.nn.Module) -> Held:
    """Buffers and other tensors that modules hold, in containers or not, but parameters."""
    held = {
        (id(part), path): tensors
        for part in module.modules()
        for key, value in (*vars(part).items(), *part._buffers.items())
        if key not in ("_parameters", "_buffers", "_modules")
        for path, tensors in _by_attribute(key, value, set())
    }
    return {place: tensors for place, tensors in held.items() if tensors}


def _by_attribute(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, list[torch.Tensor]]]:
    """Tensors of a value, of a plain object those of each attribute."""
    if not _is_plain(value):
        yield path, list(tensors_of(value))
    elif id(value) not in seen:
        seen.add(id(value))
        for key, item in vars(value).items():
            yield from _by_attribute(f"{path}.{key}", item, seen)


def _new_state(builder: GraphBuilder, module: torch.nn.Module, before: Held) -> Iterator[torch.Tensor]:
    """What a module holds now in place of what it read: `self.h = cell(x, self.h)` carries h to the next call. What was
    held is a cache then, what is held now a result."""
    after = held_tensors(module)
    for place, were in before.items():
        known, left = {id(t) for t in were}, {id(t) for t in after.get(place, ())}
        if left - known and known - left and builder.reads(were):
            builder.make_state(were)
            yield from (t for t in after[place] if id(t) not in known)


@contextmanager
def _named_modules(module: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
    """Hooks that keep the path of the running module on the recorder's stack."""
    handles = []
    for path, part in module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda _m, _a, path=path: recorder.modules.append(path)))
        handles.append(part.register_forward_hook(lambda _m, _a, _o: _leave(recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leave(recorder: Recorder) -> None:
    recorder.modules.pop()


def tensors_of(value: Any, seen: set[int] | None = None) -> Iterator[torch.Tensor]:
    """Tensors of a result: nested containers, dataclasses and plain objects, each object once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from tensors_of(item, seen)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_of(getattr(value, field.name), seen)
    elif _is_plain(value):
        for item in vars(value).values():
            yield from tensors_of(item, seen)


def _is_plain(value: Any) -> bool:
    """An object that has attributes, and is none of those that hold tensors otherwise."""
    others = type | torch.Tensor | torch.nn.Module | Mapping | list | tuple | set | frozenset
    return hasattr(value, "__dict__") and not isinstance(value, others) and not callable(value)


def _failure(error: BaseException, recorder: Recorder, name: str) -> str:
    """One paragraph: the user's last line (the model where only torch's own modules ran), the error, the module."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if user_file(f.filename)]
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else f"{name} on these inputs"
    module = f" (module {recorder.modules[-1]})" if recorder.modules and recorder.modules[-1] else ""
    return f"{place}: {told(error)}{module}{recorder.questions.blamed()}"
