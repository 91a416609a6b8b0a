"""The export front end: torch.export, an independent way to the same graph.

`torch.export(strict=False)` records the model, `run_decompositions` makes it functional and keeps
attention and linear layers whole; each node then runs on meta tensors for shapes and memory
and goes through the same op rules as the recorder's calls.
"""

from __future__ import annotations

import functools
import io
import logging
import operator
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch._higher_order_ops.auto_functionalize import (
    _generate_new_op_kwargs_from_bases,
    auto_functionalized,
    auto_functionalized_v2,
)
from torch._ops import HigherOrderOperator
from torch.export.graph_signature import InputKind

from sim.errors import TraceError, WorkloadError
from sim.workload.graph import Graph, Role, UnsupportedOp
from sim.workload.passes.attention import find_attention
from sim.workload.passes.caches import find_caches
from sim.workload.raised import foreign_code, told
from sim.workload.trace.autocast import autocast_on_meta
from sim.workload.trace.builder import GraphBuilder, Where
from sim.workload.trace.dynamic import results_of, written
from sim.workload.trace.known import Known
from sim.workload.trace.policy import DataPolicy
from sim.workload.trace.recorder import META, PROGRESS_EVERY, is_view
from sim.workload.trace.rules.registry import Call, tensors_in
from sim.workload.trace.run import tensors_of, to_meta
from sim.workload.trace.source import user_file

_SCATTERS = {"aten.slice_scatter", "aten.select_scatter", "aten.index_copy", "aten.index_put", "aten.index_add"}
"""Functional forms of writes into a part of a tensor: the tensor is their first argument."""

_PUT_BACK = {"aten.slice_scatter", "aten.select_scatter", "aten.diagonal_scatter", "aten.as_strided_scatter"}
"""How export writes a part that was worked on in place back into the whole."""

_CELLS = {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell"}
"""Recurrent layers, which stay together although they are taken apart."""

_WRITERS = (auto_functionalized, auto_functionalized_v2)
"""Higher-order ops around custom ops that write their arguments."""

_LINE = re.compile(r'File "([^"]+)", line (\d+)')


def export(
    module: torch.nn.Module,
    example_inputs: Any,
    *,
    name: str = "",
    policy: DataPolicy | None = None,
    progress: Callable[[int], None] = lambda ops: None,
) -> Graph:
    """As `trace`, by torch.export. Models whose flow depends on data cannot be exported.

    Raises: TraceError: torch.export refuses the model, or a policy is given (it has no use here).
    """
    if policy is not None:
        raise TraceError("torch.export asks no questions about data: trace with the recorder to give a policy")
    twin, args, kwargs = to_meta(module, example_inputs)
    twin.forward = _tensors_alone(twin.forward)  # torch.export knows no dataclasses
    kind = type(module).__name__
    with _torch_at_work(kind):
        program = torch.export.export(twin, args, kwargs, strict=False)
    return _read(program, kind, name or kind, progress)


def load_exported(path: str | Path, *, progress: Callable[[int], None] = lambda ops: None) -> Graph:
    """The workload graph of a .pt2 file, as `torch.export.save` writes it.

    Raises: WorkloadError: no such file, or torch cannot load it; TraceError: it has free dimensions, or cannot be read
    without data.
    """
    if not Path(path).is_file():
        raise WorkloadError(f"{path}: no such file")
    try:
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
    except Exception as error:
        raise WorkloadError(f"{path}: torch.export.load cannot read it: {told(error)}") from error
    inputs = [(node.name, node.meta.get("val")) for node in program.graph.nodes if node.op == "placeholder"]
    shapes = {name: value.shape for name, value in inputs if isinstance(value, torch.Tensor)}
    if free := [f"{name}[{i}]" for name, shape in shapes.items() for i, n in enumerate(shape) if type(n) is not int]:
        raise TraceError(
            f"{path}: exported with free dimensions ({', '.join(free)}), and a cost needs sizes; export the "
            "model again without dynamic_shapes, at the sizes that it is to be costed at"
        )
    return _read(program, str(path), Path(path).stem, progress)


def _read(program: Any, what: str, name: str, progress: Callable[[int], None]) -> Graph:
    """The graph of an exported program; `what` names it in errors."""
    taken_apart = _steps()
    with _torch_at_work(what):
        program = program.run_decompositions(taken_apart)
    graph = _Reader(program, progress, what).graph(name)
    while composites := _composites(program, graph, taken_apart):
        taken_apart |= composites
        with _torch_at_work(what):
            program = program.run_decompositions(taken_apart)
        graph = _Reader(program, progress, what).graph(graph.name)
    return graph


_LOGGERS = ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch._subclasses.fake_tensor")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch logs, and prints on stderr, of a model that it then refuses: the error tells it."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    said = io.StringIO()
    for logger in loggers:
        logger.disabled = True
    try:
        with redirect_stderr(said):
            yield
        sys.stderr.write(said.getvalue())  # the model's own
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def _torch_at_work(what: str) -> Iterator[None]:
    """Around torch.export's own work. Raises: TraceError: it refuses the module."""
    refused = foreign_code(lambda error: f"{what}: torch.export refuses it{_at(error)}: {told(error)}")
    with refused, _quiet(), autocast_on_meta(), torch.no_grad(), META, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its internals
        yield


def _at(error: BaseException) -> str:
    """The user's last line before the error."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if user_file(f.filename)]
    return f" at {user_file(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _composites(program: Any, graph: Graph, taken_apart: dict) -> dict[Any, Callable[..., Any]]:
    """Ops that torch makes from others, where they have no rule (einsum, a reflecting pad) or are convolutions of
    complex factors (three real ones, as the recorder sees them): op -> how."""
    unknown = {op.kind for op in graph.ops if isinstance(op, UnsupportedOp)}
    ops = {n.target for n in program.graph.nodes if _op_name(n.target) in unknown or _is_complex_convolution(n)}
    ops -= taken_apart.keys()
    known = torch.export.default_decompositions() if ops else {}
    return {op: known[op] for op in ops if op in known and op._can_decompose()}


def _is_complex_convolution(node: Any) -> bool:
    made = node.meta.get("val")
    return _op_name(node.target).startswith("aten.conv") and isinstance(made, torch.Tensor) and made.is_complex()


def _tensors_alone(forward: Callable[..., Any]) -> Callable[..., list[torch.Tensor]]:
    """`forward` with the tensors of its result, of whatever kind it is, in a list."""

    @functools.wraps(forward)
    def tensors(*args: Any, **kwargs: Any) -> list[torch.Tensor]:
        return list(tensors_of(forward(*args, **kwargs)))

    return tensors


def _steps() -> dict:
    """Recurrent layers are taken apart into time steps, as the recorder sees them; all else stays whole."""
    aten = torch.ops.aten
    return torch._decomp.get_decompositions([aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input])


class _Reader:
    """Walks the exported nodes with meta tensors as their values."""

    def __init__(self, program: Any, progress: Callable[[int], None], what: str) -> None:
        self.program = program
        self.what = what
        self.progress = progress
        self.builder = GraphBuilder()
        self.values: dict[Any, Any] = {}
        signature = program.graph_signature
        self.targets = {**signature.buffers_to_mutate, **signature.user_inputs_to_mutate}
        self.home: dict[str, Any] = {}
        """Name of a node whose value is written back -> the tensor that it is written to."""
        self.stored: dict[str, Any] = {}
        """Name of a node whose value is made elsewhere and then copied -> the tensor that it is copied to."""
        self.written: set[str] = set()
        """Calls of the model that wrote in place, and did so already: what follows puts back what lies there."""
        self.known = Known()
        self.layers: dict[str, str] = {}
        """Calls of recurrent layers -> their regions."""

    def graph(self, name: str) -> Graph:
        nodes = list(self.program.graph.nodes)
        with torch.no_grad():
            self._placeholders([node for node in nodes if node.op == "placeholder"])
            self._find_homes(nodes)
            for number, node in enumerate(nodes):
                if node.op == "call_function":
                    self.values[node] = self._call(node)
                if number % PROGRESS_EVERY == PROGRESS_EVERY - 1:
                    self.progress(len(self.builder.ops))
            results = next(node.args[0] for node in nodes if node.op == "output")
        mutated = set(self.targets)
        outputs = [self.values[n] for n in results if isinstance(n, torch.fx.Node) and n.name not in mutated]
        return find_caches(find_attention(self.builder.finish(list(tensors_in(outputs)), name=name)))

    def _placeholders(self, nodes: list) -> None:
        """Inputs and weights under their names; tied weights are one tensor."""
        tensors: dict[int, torch.Tensor] = {}
        for node, spec in zip(nodes, self.program.graph_signature.input_specs, strict=True):
            example = node.meta.get("val")
            if not isinstance(example, torch.Tensor):
                self.values[node] = example
                continue
            owner = self._owner(spec)
            value = tensors.get(id(owner)) if owner is not None else None
            if value is None:
                value = torch.empty_strided(example.shape, example.stride(), dtype=example.dtype, device=META)
                if owner is not None:
                    tensors[id(owner)] = value
                role = Role.INPUT if spec.kind is InputKind.USER_INPUT else Role.WEIGHT
                self.builder.declare(value, role, spec.target or node.name)
            self.values[node] = value

    def _owner(self, spec: Any) -> Any:
        if spec.target is None:
            return None
        found = self.program.state_dict.get(spec.target)
        return found if found is not None else self.program.constants.get(spec.target)

    def _find_homes(self, nodes: list) -> None:
        """Chains of functional writes that end in a mutated buffer write into that buffer.

        A chain of any ops of the buffer's shape that starts at the buffer itself was work in place.
        """
        by_name = {node.name: node for node in nodes}
        specs = self.program.graph_signature.input_specs
        owners = {spec.target: spec.arg.name for spec in specs if spec.target is not None}
        for result, target in self.targets.items():
            home = self.values[by_name[owners.get(target, target)]]
            node = by_name[result]
            chain = _chain(node, by_name[owners.get(target, target)])
            self.home |= {link.name: home for link in chain}
            while node.op == "call_function" and _op_name(node.target) in _SCATTERS | {"aten.copy"}:
                self.home[node.name] = home
                node = node.args[0]
            if result not in self.home:
                self.stored[result] = home

    def _call(self, node: Any) -> Any:
        self._refuse_flow(node.target)
        args = torch.fx.map_arg(node.args, lambda n: self.values[n])
        kwargs = torch.fx.map_arg(node.kwargs, lambda n: self.values[n])
        if node.target is operator.getitem:
            return args[0][args[1]]
        name = _op_name(node.target)
        if isinstance(node.target, HigherOrderOperator):
            return self._write_arguments(node, args, kwargs)
        if not isinstance(node.target, torch._ops.OpOverload):
            return node.target(*args, **kwargs)
        call_in_place, in_place_name = _in_place(node)
        if _is_idle_dropout(node, name):
            return args[0]
        if name in _PUT_BACK and call_in_place in self.written and _memory(args[0]) == _memory(args[1]):
            return args[0]
        if any(isinstance(d, torch.device) for d in kwargs.values()):
            kwargs = {key: META if isinstance(value, torch.device) else value for key, value in kwargs.items()}
        if name.startswith(("aten._assert", "aten.sym_")):
            return None
        with foreign_code(lambda error: self._needs_data(name, error)):
            out = node.target(*args, **kwargs)
        out = _laid_out(name, out, node.meta.get("val"))
        outputs = tuple(tensors_in(out if isinstance(out, list | tuple) else (out,)))
        if not outputs:
            return out
        home = self.home.get(node.name)
        if in_place_name == f"{name}_" and not is_view(outputs, args, kwargs):
            home = args[0]
            self.written.add(call_in_place)
        if home is not None:
            out, outputs = home, tuple(tensors_in(home))
        if home is not None:
            self.known.forget(outputs)
        else:
            self.known.learn(node.target, args, kwargs, outputs)
        if name == "aten.scaled_dot_product_attention":
            kwargs = {**kwargs, **self.known.form(args[3] if len(args) > 3 else kwargs.get("attn_mask"))}
        call = Call(name=name, args=args, kwargs=kwargs, outputs=outputs, in_place=home is not None)
        view = home is None and is_view(outputs, args, kwargs)
        self.builder.record(call, self._where(node), pure_view=view)
        target = self.stored.get(node.name)
        if target is None or _memory(target) == _memory(out):
            return out
        copy = Call(name="aten.copy", args=(target, out), kwargs={}, outputs=(target,), in_place=True)
        self.builder.record(copy, self._where(node))
        return target

    def _refuse_flow(self, target: Any) -> None:
        if isinstance(target, HigherOrderOperator) and target not in _WRITERS:
            raise TraceError(
                f"{self.what}: exported, but the higher-order op {target} is not read: it runs parts of the model "
                "on a condition or several times; trace the module with the recorder (the default)"
            )

    def _needs_data(self, name: str, error: BaseException) -> str:
        return (
            f"{self.what}: exported, but {name} cannot run without data: {told(error).rstrip('.')}; "
            "trace the module with the recorder (the default), which asks a policy"
        )

    def _write_arguments(self, node: Any, args: tuple, kwargs: dict) -> tuple:
        """A custom op that writes its arguments: export hands it copies and goes on with them; it is recorded as it was
        written, in place, and its results are followed by the arguments' memory."""
        op, kwargs = args[0], dict(kwargs)
        bases = list(kwargs.pop("_all_bases", ()))
        if node.target is auto_functionalized_v2:
            kwargs, _ = _generate_new_op_kwargs_from_bases(op._schema, kwargs, bases, (), False)
        given = tuple(kwargs.get(a.name, a.default_value) for a in op._schema.arguments)
        with foreign_code(lambda error: self._needs_data(_op_name(op), error)):
            out = op(*given)
        bases = bases or written(op, given, {})
        outputs = results_of(op, given, {}, out)
        self.builder.record(Call(name=_op_name(op), args=given, kwargs={}, outputs=outputs), self._where(node))
        return (*(out if isinstance(out, tuple) else (out,)), *bases)

    def _where(self, node: Any) -> Where:
        """Module path by export's own stack, source line from its stack trace; the steps of a recurrent layer are one
        region, as the recorder has them."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path = str(stack[-1][0]) if stack else ""
        lines = [m for m in _LINE.findall(node.meta.get("stack_trace") or "") if user_file(m[0])]
        where = Where(path, f"{user_file(lines[-1][0])}:{lines[-1][1]}" if lines else "")
        for call, name in _origins(node):
            cell = name.removeprefix("aten.")
            if cell in _CELLS:
                if call not in self.layers:
                    self.layers[call] = self.builder.open_region("recurrent", where, {"cell": cell})
                return replace(where, region=self.layers[call])
        return where


def _laid_out(name: str, out: Any, example: Any) -> Any:
    """Attention's result in the layout that it had where the program was exported: the kernels of the CPU give one that
    the meta device does not, and what follows views it without a copy."""
    if name != "aten.scaled_dot_product_attention" or not isinstance(example, torch.Tensor):
        return out
    if example.stride() == out.stride():
        return out
    return torch.empty_strided(out.shape, example.stride(), dtype=out.dtype, device=META)


def _chain(node: Any, buffer: Any) -> list:
    """Nodes from `node` back to `buffer` by first arguments of the buffer's shape and type; [] if it is not met."""
    found = []
    like = (buffer.meta["val"].shape, buffer.meta["val"].dtype)
    while node is not buffer:
        value = node.meta.get("val")
        if node.op != "call_function" or not isinstance(value, torch.Tensor) or (value.shape, value.dtype) != like:
            return []
        found.append(node)
        if not node.args or not isinstance(node.args[0], torch.fx.Node):
            return []
        node = node.args[0]
    return found


def _in_place(node: Any) -> tuple[str, str]:
    """The call in place that the model wrote and that export made functional: its node's name and its op's, or "".

    An op that torch makes from others, such as a circular pad, copies in place too, and puts back.
    """
    origins = list(_origins(node))
    for call, name in origins:
        if name.endswith("_") and not name.endswith("__"):
            return call, name
    own = _op_name(node.target)
    if own == "aten.copy" or own in _PUT_BACK:
        for call, name in origins:
            if name != own:
                return call, "aten.copy_"
    return "", ""


def _origins(node: Any) -> Iterator[tuple[str, str]]:
    """What the node was before: names of nodes and ops, one for each time that the program was taken apart."""
    left = list(node.meta.get("from_node") or ())
    while left:
        origin = left.pop()
        yield origin.name, str(origin.target).rpartition(".")[0]
        left.extend(origin.from_node or ())


def _is_idle_dropout(node: Any, name: str) -> bool:
    """In inference a dropout returns its input; export writes a copy."""
    return name == "aten.clone" and any(origin.endswith("dropout") for _, origin in _origins(node))


def _memory(tensor: Any) -> int:
    return tensor.untyped_storage()._cdata


def _op_name(target: Any) -> str:
    schema = getattr(target, "_schema", None)
    return schema.name.replace("::", ".") if schema is not None else str(target)
