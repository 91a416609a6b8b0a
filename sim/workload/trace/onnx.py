"""The ONNX front end: nodes run as torch calls on meta tensors under the recorder.

What is known without data (shapes, axes, constants made from them) is computed with ONNX's own
reference evaluator; everything else has a shape only. Needs the extra `onnx`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sim.errors import TraceError, WorkloadError, nearest
from sim.workload.graph import Graph
from sim.workload.trace import onnx_layers  # noqa: F401  (fills the table)
from sim.workload.trace.onnx_ops import OPERATORS
from sim.workload.trace.run import record

KNOWN_ELEMENTS = 1024
"""Integer constants up to this size are kept with their values: shapes, axes, index lists."""


def load_onnx(path: str | Path, *, progress: Callable[[int], None] = lambda ops: None) -> Graph:
    """The workload graph of an .onnx file; free dimensions of its inputs count as 1 (noted).

    Raises: WorkloadError: no such file, not ONNX, or the extra is missing; TraceError: operators
    without a translation (all of them are named), inputs without shape.
    """
    try:
        import onnx
    except ImportError as error:
        raise WorkloadError(f"{path}: reading ONNX needs the extra: pip install dovetail-sim[onnx]") from error
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise WorkloadError(f"{path}: cannot be read as ONNX: {' '.join(str(error).split())[:200]}") from error
    _check_operators(model, path)
    module = _Interpreter(model, Path(path).name)
    inputs, notes = _inputs(model, path)
    graph = record(module, tuple(inputs), {}, name=Path(path).stem, locate=lambda: module.place, progress=progress)
    return graph.with_(notes=(*notes, *graph.notes))


def _check_operators(model: Any, path: str | Path) -> None:
    unknown: dict[str, str] = {}
    for node in model.graph.node:
        own_domain = node.domain in ("", "ai.onnx")
        if not own_domain or (node.op_type not in OPERATORS and node.op_type not in _ON_HOST):
            unknown.setdefault(f"{node.domain}.{node.op_type}" if node.domain else node.op_type, node.name)
    if unknown:
        listed = ", ".join(f'{kind} (node "{name}")' for kind, name in unknown.items())
        hint = nearest(next(iter(unknown)), OPERATORS)
        raise TraceError(f"{path}: no translation for {len(unknown)} ONNX operators: {listed}.{hint}")


_ON_HOST = {"Constant", "Shape", "ConstantOfShape", "Range", "Size", "Mod", "ReduceProd", "NonZero"}
"""Operators that are met only where all their inputs are known (or that make known values)."""


def _inputs(model: Any, path: str | Path) -> tuple[list[torch.Tensor], list[str]]:
    """Meta tensors of the graph inputs."""
    import onnx

    weights = {tensor.name for tensor in model.graph.initializer}
    made, notes = [], []
    for value in model.graph.input:
        if value.name in weights:
            continue
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            raise TraceError(f'{path}: input "{value.name}" has no shape; run onnx.shape_inference or export it again')
        sizes = []
        for axis, dim in enumerate(kind.shape.dim):
            if not dim.HasField("dim_value"):
                notes.append(f'input "{value.name}" axis {axis} ("{dim.dim_param}") is free: assumed to be 1')
            sizes.append(dim.dim_value if dim.HasField("dim_value") else 1)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        made.append(torch.empty(sizes, dtype=_torch_dtype(dtype), device="meta"))
    return made, notes


def _torch_dtype(dtype: Any) -> torch.dtype:
    if str(dtype) == "bfloat16":
        return torch.bfloat16
    return torch.from_numpy(np.empty(0, dtype=dtype)).dtype


class _Interpreter(torch.nn.Module):
    """Runs the nodes in order; initializers are buffers, small integer ones known by value too."""

    def __init__(self, model: Any, file: str) -> None:
        import onnx

        super().__init__()
        self.graph, self.file, self.place = model.graph, file, file
        self.known: dict[str, np.ndarray] = {}
        self.slots: dict[str, str] = {}
        for tensor in model.graph.initializer:
            elements = int(np.prod(tensor.dims, dtype=np.int64))
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
            integer = np.issubdtype(dtype, np.integer) or dtype == np.bool_
            inside = tensor.data_location != onnx.TensorProto.EXTERNAL
            if inside and (elements <= 8 or (integer and elements <= KNOWN_ELEMENTS)):
                self.known[tensor.name] = onnx.numpy_helper.to_array(tensor)
            slot = tensor.name.replace(".", "/")
            self.slots[tensor.name] = slot
            self.register_buffer(slot, torch.empty(list(tensor.dims), dtype=_torch_dtype(dtype), device="meta"))

    def forward(self, *inputs: torch.Tensor) -> Any:
        weights = set(self.slots)
        names = [value.name for value in self.graph.input if value.name not in weights]
        values: dict[str, Any] = dict(zip(names, inputs, strict=True)) | {"": None}
        values |= {name: self.get_buffer(slot) for name, slot in self.slots.items()}
        for node in self.graph.node:
            self.place = f"{self.file}:{node.name or node.op_type}"
            try:
                results = self._run(node, values)
            except NotImplementedError as error:
                raise TraceError(f"{self.place}: {error}: this form of {node.op_type} cannot be read") from error
            values.update(zip(node.output, results, strict=False))
        return [self._tensor(values[value.name], value.name) for value in self.graph.output]

    def _run(self, node: Any, values: dict[str, Any]) -> tuple:
        """Outputs of one node: computed where all inputs are known, else shapes only."""
        import onnx

        given = [self.known.get(name, values[name]) for name in node.input]
        if node.op_type == "Shape" and not isinstance(given[0], np.ndarray):
            attrs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            shape = np.array(given[0].shape, dtype=np.int64)[attrs.get("start", 0) : attrs.get("end")]
            return self._remember(node, (shape,))
        if all(value is None or isinstance(value, np.ndarray) for value in given):
            return self._remember(node, self._evaluate(node, given))
        if node.op_type not in OPERATORS:
            raise NotImplementedError(f"{node.op_type} of values that are not known without data")
        attrs = {a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute}
        attrs |= {"op_type": node.op_type, "outputs": len(node.output)}
        taken = _PARAMETERS.get(node.op_type, 99)
        args = [
            value if value is None or index >= taken else self._tensor(value, node.input[index])
            for index, value in enumerate(given)
        ]
        out = OPERATORS[node.op_type](attrs, *args)
        return tuple(out) if isinstance(out, list | tuple) else (out,)

    def _remember(self, node: Any, results: tuple) -> tuple:
        self.known.update(zip(node.output, results, strict=False))
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
        return torch.empty(value.shape, dtype=_torch_dtype(value.dtype), device="meta")


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


_PARAMETERS = {
    "Reshape": 1, "Unsqueeze": 1, "Squeeze": 1, "Slice": 1, "Split": 1, "Expand": 1, "Tile": 1, "Pad": 1, "Resize": 1,
    "TopK": 1, "Clip": 1, "Gather": 1, "Trilu": 1, "CumSum": 1, "NonMaxSuppression": 2,
    "ReduceMean": 1, "ReduceSum": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceL2": 1,
    "ReduceLogSumExp": 1,
}  # fmt: skip
"""Operator -> first input that is a parameter (shape, axes, bounds) and stays a known value."""
