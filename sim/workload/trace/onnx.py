"""The ONNX front end: nodes run as torch calls on meta tensors under the recorder.

What is known without data (shapes, axes, constants made from them) is computed with ONNX's own
reference evaluator; everything else has a shape only. Needs the extra `onnx`. Files with their weights
beside them need the main file only: no weight is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.errors import DovetailError, TraceError, WorkloadError, nearest
from sim.workload.graph import Graph
from sim.workload.raised import told
from sim.workload.trace import onnx_layers, onnx_rare  # noqa: F401  (fill the table)
from sim.workload.trace.dynamic import foreign
from sim.workload.trace.onnx_ops import OPERATORS, held, torch_type
from sim.workload.trace.onnx_quantised import as_stored, fold_pairs
from sim.workload.trace.run import record

KNOWN_ELEMENTS = 1024
"""Integer constants up to this size are kept with their values: shapes, axes, index lists."""


def load_onnx(
    path: str | Path, *, sizes: Mapping[str, object] | None = None, progress: Callable[[int], None] = lambda ops: None
) -> Graph:
    """The workload graph of an .onnx file.

    `sizes` gives the inputs' free dimensions by their names in the file ("batch"); one that is not given
    counts as 1 and is noted.
    Raises: WorkloadError: no such file, not ONNX, a size that is no free dimension, or the extra is missing;
    TraceError: operators without a translation (all of them are named), inputs without shape.
    """
    try:
        import onnx
    except ImportError as error:
        raise WorkloadError(
            f"{path}: reading ONNX needs the package onnx: pip install onnx, or in a checkout pip install -e '.[onnx]'"
        ) from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise WorkloadError(f"{path}: cannot be read as ONNX: {told(error)}") from error
    if not model.graph.node:
        raise WorkloadError(f"{path}: no ONNX model: it has no nodes; is the file empty or cut off?")
    model = _normal(model)
    stored, folded = fold_pairs(model)
    _check_operators(model, path)
    module = _Interpreter(model, Path(path).name)
    inputs, notes = _inputs(model, path, sizes or {})
    graph = record(module, tuple(inputs), {}, name=Path(path).stem, locate=lambda: module.place, progress=progress)
    given = {name: _whole(size, name, path) for name, size in (sizes or {}).items()}
    batch = next((given[name] for name in _BATCH if name in given), 1)
    graph = as_stored(graph, {module.slots[name]: how for name, how in stored.items()})
    return graph.with_(notes=(*notes, *folded, *graph.notes), knobs=given, batch=batch)


_BATCH = ("batch", "batch_size", "N")
"""Names of the dimension that counts inputs, as torch's, Optimum's and the model zoo's exporters write it."""


def _normal(model: Any) -> Any:
    """The model with its own functions put in, and with the tensors of Constant nodes as the weights that they are."""
    import onnx.inliner

    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    constant = [n for n in model.graph.node if n.op_type == "Constant" and n.attribute[0].name == "value"]
    for node in constant:
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
    if constant:
        left = [n for n in model.graph.node if n.op_type != "Constant" or n.attribute[0].name != "value"]
        del model.graph.node[:]
        model.graph.node.extend(left)
    return model


def _check_operators(model: Any, path: str | Path) -> None:
    """Operators that we do not know are met as ops without a rule where the file states their results' shapes."""
    stated = {v.name for v in (*model.graph.value_info, *model.graph.output) if _sizes(v) is not None}
    unknown: dict[str, str] = {}
    for node in model.graph.node:
        if not _is_known(node) and node.op_type != "If" and not set(node.output) - {""} <= stated:
            unknown.setdefault(_kind(node), node.name or node.output[0])
    if unknown:
        listed = ", ".join(f'{kind} (node "{name}")' for kind, name in unknown.items())
        hint = nearest(next(iter(unknown)), OPERATORS)
        raise TraceError(
            f"{path}: no translation for {len(unknown)} ONNX operators: {listed}; with the shapes of their results in "
            f"the file (value_info) they would count as ops without a rule.{hint}"
        )


def _is_known(node: Any) -> bool:
    return node.domain in ("", "ai.onnx") and (node.op_type in OPERATORS or node.op_type in _ON_HOST)


def _kind(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _sizes(value: Any) -> list[int] | None:
    """The shape of a value_info, None where it is not stated in full."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim):
        return None
    return [dim.dim_value for dim in kind.shape.dim]


_ON_HOST = {"Constant", "Shape", "ConstantOfShape", "Range", "Size"}
_ON_HOST |= {"HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"}
"""Operators that are met only where all their inputs are known (or that make known values)."""


def _inputs(model: Any, path: str | Path, given: Mapping[str, object]) -> tuple[list[torch.Tensor], list[str]]:
    """Meta tensors of the graph inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    for value in values:
        if not value.type.tensor_type.HasField("shape"):
            raise TraceError(f'{path}: input "{value.name}" has no shape; run onnx.shape_inference or export it again')
    free = {d.dim_param: None for v in values for d in v.type.tensor_type.shape.dim if d.dim_param}
    for name in given:
        if name not in free:
            known = f"free dimensions are {', '.join(free)}" if free else "it has no named free dimensions"
            raise WorkloadError(f'{path}: no dimension "{name}": {known}.{nearest(name, free)}')
    made, notes = [], []
    for value in values:
        kind, sizes = value.type.tensor_type, []
        for axis, dim in enumerate(kind.shape.dim):
            if dim.dim_param in given:
                sizes.append(_whole(given[dim.dim_param], dim.dim_param, path))
            elif dim.HasField("dim_value") and dim.dim_value >= 0:
                sizes.append(dim.dim_value)
            else:  # some exporters write -1
                sizes.append(1)
                how = f"; -p {dim.dim_param}=SIZE sets it" if dim.dim_param.isidentifier() else ""
                called = f' ("{dim.dim_param}")' if dim.dim_param else ""
                notes.append(f'input "{value.name}" axis {axis}{called} is free: assumed to be 1{how}')
        made.append(
            torch.empty(sizes, dtype=torch_type(kind.elem_type, f'{path}: input "{value.name}"'), device="meta")
        )
    return made, notes


def _whole(size: object, name: str, path: str | Path) -> int:
    """A size from a command line."""
    if isinstance(size, bool) or not str(size).isdecimal() or int(str(size)) < 1:
        raise WorkloadError(f"{path}: dimension {name}={size!r}: expected a whole number, at least 1")
    return int(str(size))


class _Interpreter(torch.nn.Module):
    """Runs the nodes in order; initializers are buffers, small integer ones known by value too."""

    def __init__(self, model: Any, file: str) -> None:
        import onnx

        super().__init__()
        self.graph, self.file, self.place = model.graph, file, file
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)
        self.known: dict[str, np.ndarray] = {}
        self.slots: dict[str, str] = {}
        self.laid: dict[str, Any] = {}
        """Known values that are a weight's in another shape -> the node that gives it."""
        for tensor in _weights(model.graph):
            elements = int(np.prod(tensor.dims, dtype=np.int64))
            dtype = torch_type(tensor.data_type, f'{file}: weight "{tensor.name}"')
            integer = not dtype.is_floating_point and not dtype.is_complex
            inside = tensor.data_location != onnx.TensorProto.EXTERNAL
            if inside and (elements <= 8 or (integer and elements <= KNOWN_ELEMENTS)):
                self.known[tensor.name] = onnx.numpy_helper.to_array(tensor)
            # a module allows no dot in a buffer's name, and none of the names that it has itself
            slot = tensor.name.replace(".", "/")
            while hasattr(self, slot):
                slot += "/"
            self.slots[tensor.name] = slot
            self.register_buffer(slot, torch.empty(list(tensor.dims), dtype=dtype, device="meta"))

    def forward(self, *inputs: torch.Tensor) -> Any:
        self.made: dict[str, torch.Tensor] = {}
        weights = set(self.slots)
        names = [value.name for value in self.graph.input if value.name not in weights]
        values: dict[str, Any] = dict(zip(names, inputs, strict=True)) | {"": None}
        values |= {name: self.get_buffer(slot) for name, slot in self.slots.items()}
        self._nodes(self.graph.node, values)
        return [self._tensor(values[value.name], value.name) for value in self.graph.output]

    def _nodes(self, nodes: Any, values: dict[str, Any]) -> None:
        """Run nodes; their results join `values`."""
        for node in nodes:
            self.place = f"{self.file}:{node.name or node.op_type}"
            try:
                results = self._branch(node, values) if node.op_type == "If" else self._run(node, values)
            except NotImplementedError as error:
                raise TraceError(f"{self.place}: {error}: this form of {node.op_type} cannot be read") from error
            except DovetailError:
                raise
            except Exception as error:
                raise TraceError(self._failure(node, values, error)) from error
            values.update((name, made) for name, made in zip(node.output, results, strict=False) if name)

    def _branch(self, node: Any, values: dict[str, Any]) -> tuple:
        """Results of the branch that is taken, where the condition is one of shapes and constants, as torch's exporter
        writes for squeeze; else those of an op without a rule."""
        condition = self.known.get(node.input[0])
        if condition is None:
            return self._unknown(node, [values[name] for name in node.input])
        taken = "then_branch" if condition.item() else "else_branch"
        (graph,) = (a.g for a in node.attribute if a.name == taken)
        self._nodes(graph.node, values)
        for name, result in zip(node.output, graph.output, strict=True):
            if result.name in self.known:
                self.known[name] = self.known[result.name]
        return tuple(values[result.name] for result in graph.output)

    def _failure(self, node: Any, values: dict[str, Any], error: Exception) -> str:
        """A node that does not fit its inputs: which, their shapes, what torch says of it."""
        absent = [name for name in node.input if name not in values]
        if absent:
            return (
                f'{self.place}: {node.op_type} reads "{absent[0]}", which nothing before it makes; is the file whole?'
            )
        shapes = ", ".join(f"{name} {list(values[name].shape)}" for name in node.input if values[name] is not None)
        return (
            f"{self.place}: {node.op_type} does not fit its inputs ({shapes}; a free dimension counts as 1 until -p "
            f"sets it): {told(error)}"
        )

    def _run(self, node: Any, values: dict[str, Any]) -> tuple:
        """Outputs of one node: computed where all inputs are known, else shapes only."""
        import onnx

        given = [self.known.get(name, values[name]) for name in node.input]
        if node.op_type == "Shape" and not isinstance(given[0], np.ndarray):
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            shape = np.array(given[0].shape, dtype=np.int64)[attrs.get("start", 0) : attrs.get("end")]
            return self._remember(node, (shape,))
        if node.op_type == "Size" and not isinstance(given[0], np.ndarray):
            return self._remember(node, (np.array(given[0].numel(), dtype=np.int64),))
        if not _is_known(node):
            return self._unknown(node, given)
        drawn = node.op_type in _DRAWN
        if not drawn and all(value is None or isinstance(value, np.ndarray) for value in given):
            if node.op_type in _LAYOUTS and (node.input[0] in self.slots or node.input[0] in self.laid):
                self.laid[node.output[0]] = node
            return self._remember(node, self._evaluate(node, given))
        if node.op_type not in OPERATORS:
            raise NotImplementedError(f"{node.op_type} of values that are not known without data")
        attrs = self._attributes(node)
        if node.op_type in _ONCE_ATTRIBUTES and len(given) == 1:
            given += [np.asarray(attrs[name]) if name in attrs else None for name in _ONCE_ATTRIBUTES[node.op_type]]
        taken = _PARAMETERS.get(node.op_type, 99)
        unknown = [n for n, v in zip(node.input[taken:], given[taken:], strict=False) if isinstance(v, torch.Tensor)]
        if unknown and node.op_type not in _ANY:
            raise NotImplementedError(f'"{unknown[0]}" (a shape, axes or sizes) depends on the data')
        args = [
            value if value is None or index >= taken else self._tensor(value, node.input[index])
            for index, value in enumerate(given)
        ]
        if node.op_type in _BY_NUMBERS and isinstance(given[1], np.ndarray) and given[1].size == 1:
            args[1] = given[1].item() if given[1].ndim <= args[0].dim() else args[1]
        out = OPERATORS[node.op_type](attrs, *args)
        return tuple(out) if isinstance(out, list | tuple) else (out,)

    def _attributes(self, node: Any) -> dict[str, Any]:
        import onnx

        attrs = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        return attrs | {"op_type": node.op_type, "outputs": len(node.output), "opset": self.opset}

    def _unknown(self, node: Any, given: list) -> tuple:
        """An op without a rule: its results have the shapes that the file states."""
        stated = {v.name: v for v in (*self.graph.value_info, *self.graph.output) if _sizes(v) is not None}
        if absent := [name for name in node.output if name and name not in stated]:
            why = ", which branch runs depends on the data" if node.op_type == "If" else ""
            raise NotImplementedError(f'no translation{why}, and the file does not state the shape of "{absent[0]}"')
        made = []
        for value in (stated[name] for name in node.output if name):
            dtype = torch_type(value.type.tensor_type.elem_type, self.place)
            made.append(torch.empty(_sizes(value), dtype=dtype, device="meta"))
        inputs = [self._tensor(v, name) for v, name in zip(given, node.input, strict=True) if v is not None]
        return foreign(node.domain or "onnx", node.op_type, inputs, made)

    def _remember(self, node: Any, results: tuple) -> tuple:
        self.known.update((name, made) for name, made in zip(node.output, results, strict=False) if name)
        return results

    @staticmethod
    def _evaluate(node: Any, given: list) -> tuple:
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.input if name]
        feeds = dict(zip(names, [value for value in given if value is not None], strict=True))
        return tuple(np.asarray(result) for result in ReferenceEvaluator(node).run(None, feeds))

    def _tensor(self, value: Any, name: str) -> torch.Tensor:
        if not isinstance(value, np.ndarray):
            return value
        if name in self.slots:
            return self.get_buffer(self.slots[name])
        if name not in self.made:
            self.made[name] = self._lay_out(self.laid[name]) if name in self.laid else held(value)
        return self.made[name]

    def _lay_out(self, node: Any) -> torch.Tensor:
        """A weight in another shape."""
        source, *sizes = node.input
        known = [self.known[name] if name else None for name in sizes]
        return OPERATORS[node.op_type](self._attributes(node), self._tensor(self.known[source], source), *known)


def _weights(graph: Any) -> Iterator[Any]:
    """Initializers of a graph, and of the branches in it."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "If":
            for attribute in node.attribute:
                yield from _weights(attribute.g)


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


_PARAMETERS = {
    "Reshape": 1, "Unsqueeze": 1, "Squeeze": 1, "Slice": 1, "Split": 1, "Expand": 1, "Tile": 1, "Pad": 1, "Resize": 1,
    "Upsample": 1, "TopK": 1, "Clip": 1, "Gather": 1, "Trilu": 1, "CumSum": 1, "NonMaxSuppression": 2, "OneHot": 1,
    "ReduceMean": 1, "ReduceSum": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceL2": 1,
    "ReduceLogSumExp": 1, "ReduceL1": 1, "ReduceSumSquare": 1, "ReduceProd": 1, "ReduceLogSum": 1,
    "DFT": 1, "STFT": 1, "Col2Im": 1, "AffineGrid": 1, "CenterCropPad": 1, "MaxUnpool": 2,
}  # fmt: skip
"""Operator -> first input that is a parameter (shape, axes, bounds) and stays a known value."""

_DRAWN = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
"""Drawn anew in each run, so that none is a constant."""

_ONCE_ATTRIBUTES = {
    "Slice": ("starts", "ends", "axes"), "Clip": ("min", "max"), "Pad": ("pads", "value"), "TopK": ("k",),
    "Upsample": ("scales",),
}  # fmt: skip
"""What was an attribute before opset 10 or 11, and has been an input since."""

_BY_NUMBERS = {"Pow", "Div"}
"""Operators of which a known number is one, as in a torch model: a square is a product, and a quotient one with the
reciprocal."""

_LAYOUTS = {"Expand", "Tile", "Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten", "Identity"}
"""Operators whose result has the elements of their first input: of a weight it is read as the weight."""

_ANY = {"Clip", "Gather", "Trilu", "CumSum", "NonMaxSuppression", "STFT"}
"""Of these, the operators whose result has the same shape whatever the parameter's values are."""
