"""The meta recorder: runs a model once without data and writes down what it does.

A function mode sees the calls that the user wrote (attention, norms, questions about data), a
dispatch mode sees the ATen ops below them, module hooks tell where. Both modes are private API of
torch in part; the export front end is the independent check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._ops import HigherOrderOperator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sim.workload.trace.builder import GraphBuilder, Where
from sim.workload.trace.control import run_control_flow
from sim.workload.trace.dynamic import results_of, run_op
from sim.workload.trace.known import Known
from sim.workload.trace.packed import Packed
from sim.workload.trace.policy import DataPolicy
from sim.workload.trace.questions import Questions
from sim.workload.trace.rules.registry import Call, tensors_in
from sim.workload.trace.source import user_line

F = torch.nn.functional
META = torch.device("meta")

_ATTENTION = F.scaled_dot_product_attention

_SAME_SHAPE = {
    torch.fake_quantize_per_tensor_affine: "aten.fake_quantize_per_tensor_affine",
    torch.fake_quantize_per_channel_affine: "aten.fake_quantize_per_channel_affine",
}
"""Calls that torch cannot run on meta and whose result is like their first argument."""

_QUANTISE = {
    torch.quantize_per_tensor: "aten.quantize_per_tensor",
    torch.quantize_per_channel: "aten.quantize_per_channel",
    torch.quantize_per_tensor_dynamic: "aten.quantize_per_tensor_dynamic",
}
"""Calls whose result torch cannot hold without data: it is the integers in it, as which it lies in memory."""

_DEQUANTISE = {torch.dequantize, torch.Tensor.dequantize}

_INTEGERS = {torch.qint8: torch.int8, torch.quint8: torch.uint8, torch.qint32: torch.int32}

_WHOLE = {
    F.rms_norm: "aten.rms_norm",
    torch.rms_norm: "aten.rms_norm",
    torch.linalg.eigvals: "aten.linalg_eigvals",
    torch.linalg.eigvalsh: "aten.linalg_eigvalsh",
    torch.linalg.svdvals: "aten.linalg_svdvals",
}
"""Calls that torch takes apart on meta and that kernels run whole: recorded by their own rule."""

_REGIONS = {
    F.layer_norm: "norm",
    F.group_norm: "norm",
    F.batch_norm: "norm",
    F.instance_norm: "norm",
    F.local_response_norm: "norm",
    F.normalize: "norm",
    F.multi_head_attention_forward: "attention_layer",
    torch.lstm: "recurrent",
    torch.gru: "recurrent",
    torch.rnn_tanh: "recurrent",
    torch.rnn_relu: "recurrent",
    torch.lstm_cell: "recurrent",
    torch.gru_cell: "recurrent",
}
"""Calls whose inner ops stay together, so that a chip may run them fused."""

_STEPS = {
    torch.lstm: decomposition_table[torch.ops.aten.lstm.input],
    torch.gru: decomposition_table[torch.ops.aten.gru.input],
    torch.rnn_tanh: decomposition_table[torch.ops.aten.rnn_tanh.input],
    torch.rnn_relu: decomposition_table[torch.ops.aten.rnn_relu.input],
}
"""Recurrent layers as kernels run them: the inputs of all steps in one product, then the state's product in each
step. What torch does on meta projects every step's input alone. Export takes them apart alike."""

_RESHAPED_IN_PLACE = {
    f"aten.{op}_" for op in ("transpose", "t", "squeeze", "unsqueeze", "swapdims", "as_strided", "detach")
}
"""In-place by schema, but only shape and strides change."""

_MOVES = {torch.Tensor.cuda, torch.Tensor.cpu}

_GROUPED = {F.grouped_mm, torch._grouped_mm}
_DIVISIONS = {torch.div, torch.true_divide, torch.floor_divide}


_ASKS = {torch.ops.aten._local_scalar_dense.default: None, torch.ops.aten.equal.default: bool}
"""Questions about values that torch's own code asks (`x in tensor`, a tensor as a size)."""


KNOWN_ELEMENTS = 64
"""Largest tensor of constants that is computed with instead of recorded."""

PROGRESS_EVERY = 1024
"""Ops between two reports of progress."""


class Recorder:
    """State shared by the two modes of one run."""

    def __init__(
        self,
        policy: DataPolicy,
        locate: Callable[[], str] = user_line,
        progress: Callable[[int], None] = lambda ops: None,
    ) -> None:
        self.locate = locate
        self.progress = progress
        self.builder = GraphBuilder()
        self.modules: list[str] = []
        self.region: str | None = None
        self.questions = Questions(self.builder, policy)
        self.compiled = False
        """Whether Dynamo took part: torch compiles what a control-flow op runs."""
        self.known = Known()
        self.packed = Packed()
        self.dispatch = _Dispatch(self)
        self._meta: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def where(self) -> Where:
        return Where(self.modules[-1] if self.modules else "", self.locate(), self.region)

    def as_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta twin of a tensor with data (a constant of the model), one twin per tensor."""
        if tensor.device == META:
            return tensor
        if id(tensor) not in self._meta:
            with self.dispatch.paused():  # no op makes it: it is there before, as a weight is
                twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
                if is_number(tensor):
                    self.questions.hold(twin, tensor)
            self._meta[id(tensor)] = (twin, tensor)
        return self._meta[id(tensor)][0]

    def record(self, name: str, args: tuple, kwargs: dict, outputs: tuple, *, pure_view: bool = False) -> None:
        if self.questions.kept_none and _does_nothing(name, args, outputs):
            return
        call = Call(name=name, args=args, kwargs=kwargs, outputs=outputs)
        where = self.where()
        with self.dispatch.paused():  # rules may make tensors for intermediate results
            self.builder.record(call, where, pure_view=pure_view)
        if len(self.builder.ops) % PROGRESS_EVERY == 0:
            self.progress(len(self.builder.ops))


class FunctionMode(TorchFunctionMode):
    """Sees what the user calls: opens regions, answers questions about data, keeps all on meta."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        recorder = self._recorder
        if recorder.packed.is_sizes(args[0] if args else None):  # sizes[0], int(...): numbers
            with recorder.dispatch.paused(), torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        packed = recorder.packed.answer(func, args, recorder.questions.steps)
        if packed is not NotImplemented:
            return packed
        if _is_known(args, kwargs) and not recorder.questions.lost([*tensors_in((args, kwargs))]):
            with recorder.dispatch.paused():
                return func(*args, **kwargs)
        sizes = func in _STEPS and recorder.packed.is_sizes(args[1])
        args, kwargs = (args, kwargs) if sizes else _on_meta(recorder, func, args, kwargs)
        if func in _MOVES:
            return args[0]
        if _is_batched((args, kwargs)):  # within vmap and the like: what the call is made of is recorded
            return func(*args, **kwargs)
        if func is _ATTENTION:
            return self._attention(*args, **kwargs)
        if func in _GROUPED:
            return self._grouped(func, args, kwargs)
        if func in _DIVISIONS and not tuple(tensors_in((args, kwargs))):
            with recorder.dispatch.paused():  # sizes stay numbers
                return func(*(torch.tensor(a, device="cpu") for a in args), **kwargs).item()
        answer = recorder.questions.answer(func, args, kwargs, recorder)
        if answer is not NotImplemented:
            return answer
        if func in _WHOLE:
            return self._whole(_WHOLE[func], func, args, kwargs)
        if func in _SAME_SHAPE:
            with recorder.dispatch.paused():
                out = torch.empty_like(args[0])
            recorder.record(_SAME_SHAPE[func], args, kwargs, (out,))
            return out
        if func in _QUANTISE or func in _DEQUANTISE:
            return self._quantised(func, args, kwargs)
        kind = _REGIONS.get(func)
        if kind is None or recorder.region is not None:
            return func(*args, **kwargs)
        attrs = {"cell": func.__name__} if kind == "recurrent" else None
        recorder.region = recorder.builder.open_region(kind, recorder.where(), attrs)
        try:
            return self._inside(func, args, kwargs)
        finally:
            recorder.region = None

    def _inside(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Functions written in Python call attention by its module's name, which no mode sees."""
        if func in _STEPS and self._recorder.packed.is_sizes(args[1]):
            return self._recorder.packed.layer(_STEPS[func], args)
        if func in _STEPS:
            return _STEPS[func](*args, **kwargs)
        if func is not F.multi_head_attention_forward:
            return func(*args, **kwargs)
        F.scaled_dot_product_attention = self._attention
        try:
            return func(*args, **kwargs)
        finally:
            F.scaled_dot_product_attention = _ATTENTION

    def _whole(self, name: str, func: Any, args: Any, kwargs: Any) -> Any:
        with self._recorder.dispatch.paused():
            out = func(*args, **kwargs)
        self._recorder.record(name, args, kwargs, (out,))
        return out

    def _quantised(self, func: Any, args: Any, kwargs: Any) -> Any:
        """To integers, by scales and zero points, or back."""
        recorder = self._recorder
        wanted = next((a for a in (*args, *kwargs.values()) if isinstance(a, torch.dtype)), None)
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, torch.Tensor) or (func in _QUANTISE and wanted not in _INTEGERS):
            return func(*args, **kwargs)
        dtype = _INTEGERS[wanted] if func in _QUANTISE else torch.float32
        with recorder.dispatch.paused():
            out = torch.empty_like(x, dtype=dtype)
        recorder.record(_QUANTISE.get(func, "aten.dequantize"), args, kwargs, (out,))
        return out

    def _attention(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The whole op by its rule; its decomposition on meta tensors is not recorded."""
        mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
        with self._recorder.dispatch.paused():
            result = _ATTENTION(*args, **kwargs)  # checks the shapes, and broadcasts them, as torch does
            out = result.new_empty(result.shape)
            kwargs = {**kwargs, **self._recorder.known.form(mask)}
        self._recorder.record("aten.scaled_dot_product_attention", args, kwargs, (out,))
        return out

    def _grouped(self, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
        """Expert products by their rule, for every element type (torch's meta kernel knows bfloat16 only)."""
        recorder = self._recorder
        a, b = args[0], args[1]
        offsets: Any = args[2] if len(args) > 2 else kwargs.get("offs")
        lead: tuple[int, ...] = (
            (offsets.shape[0],) if a.dim() == b.dim() == 2 else a.shape[:1] if a.dim() == b.dim() == 3 else ()
        )
        with recorder.dispatch.paused():
            out = a.new_empty((*lead, a.shape[-2], b.shape[-1]), dtype=kwargs.get("out_dtype") or a.dtype)
        if recorder.region is None:
            attrs = {"groups": b.shape[0] if b.dim() == 3 else a.shape[0] if a.dim() == 3 else lead[0]}
            recorder.region = recorder.builder.open_region("grouped_product", recorder.where(), attrs)
            try:
                return self._grouped(func, args, kwargs)
            finally:
                recorder.region = None
        recorder.record("aten._grouped_mm", args, kwargs, (out,))
        recorder.builder.notes[f"{recorder.locate()}: rows of a grouped product assumed even over its groups"] = None
        return out


def _does_nothing(name: str, args: tuple, outputs: tuple) -> bool:
    """What is left of an expert without a token: results, or updates in place, of no elements."""
    if name.endswith("_"):
        return any(t.numel() == 0 for t in tensors_in(args))
    return all(t.numel() == 0 for t in outputs)


def _is_known(args: Any, kwargs: Any) -> bool:
    """Only small whole numbers that the model made or holds itself (`torch.IntTensor([hidden])`), or a number that came
    of them: they have values."""
    found = tuple(tensors_in((args, kwargs)))
    return bool(found) and all(
        t.device.type == "cpu" and (t.dim() == 0 or not t.dtype.is_floating_point) and t.numel() <= KNOWN_ELEMENTS
        for t in found
    )


def _is_batched(value: Any) -> bool:
    """Whether a tensor in it stands for several, as within `torch.vmap`: it has no memory of its own."""
    return any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in tensors_in(value))


def _on_meta(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Constants become their meta twins, and wishes for a device become the meta device."""
    if kwargs.get("device") is not None:
        kwargs = {**kwargs, "device": META}
    if func is torch.Tensor.to:
        args = tuple(META if isinstance(a, torch.device | str) else a for a in args)
    if any(t.device != META for t in tensors_in((args, kwargs))):
        args, kwargs = _twins(recorder, args), _twins(recorder, kwargs)
    return args, kwargs


def _twins(recorder: Recorder, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return recorder.as_meta(value)
    if isinstance(value, dict):
        return {key: _twins(recorder, item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_twins(recorder, item) for item in value)
    return value


def is_number(value: object) -> bool:
    """A whole number in a tensor of no axis that has a value."""
    if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
        return False
    return value.dim() == 0 and value.dtype in (torch.int32, torch.int64)


class _Dispatch(TorchDispatchMode):
    """Sees every ATen op, and control flow that is written as an op."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._paused = 0

    def paused(self) -> _Pause:
        return _Pause(self)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            self._recorder.compiled = True
            with META, FunctionMode(self._recorder), self:  # torch takes the modes off while one of them answers
                return run_control_flow(self._recorder.questions, func, args, kwargs)
        questions = self._recorder.questions
        if func in _ASKS and not self._paused and (args[0].device == META or questions.lost(args[:1])):
            return questions.scalar(_ASKS[func], args[0])
        out = run_op(self._recorder.questions, func, args, kwargs)
        if self._paused or func.namespace == "prim":
            return out
        outputs = results_of(func, args, kwargs, out)
        if outputs:
            self._record(func, args, kwargs, outputs)
        return out

    def _record(self, func: Any, args: Any, kwargs: Any, outputs: tuple) -> None:
        recorder = self._recorder
        name = f"{func.namespace}.{func._schema.name.rpartition('::')[2]}"
        view = name in _RESHAPED_IN_PLACE or (not func._schema.is_mutable and is_view(outputs, args, kwargs))
        if func.namespace == "aten" and func._schema.is_mutable:  # as c of `torch.mul(a, b, out=c)`
            only_written = {argument.name for argument in func._schema.arguments if argument.is_out}
            kwargs = {key: value for key, value in kwargs.items() if key not in only_written}
        recorder.record(name, args, kwargs, outputs, pure_view=view)
        recorder.known.learn(func, args, kwargs, outputs)
        recorder.questions.learn(name, args, kwargs, outputs, writes=func._schema.is_mutable)


class _Pause:
    def __init__(self, mode: _Dispatch) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        self._mode._paused += 1

    def __exit__(self, *error: object) -> None:
        self._mode._paused -= 1


def is_view(outputs: tuple, args: Any, kwargs: Any) -> bool:
    """Do all results share an input's memory?"""
    memory = {t.untyped_storage()._cdata for t in tensors_in((args, kwargs))}
    return bool(memory) and all(t.untyped_storage()._cdata in memory for t in outputs)
