"""ONNX operators that few networks have, one a file: the shape that the specification gives, and the work by hand."""

import pytest

from sim.workload.graph import EinsumOp, Primitive
from sim.workload.load import load_workload
from sim.workload.summary import unsupported

onnx = pytest.importorskip("onnx")
helper, P = onnx.helper, onnx.TensorProto
ADD, MUL, FMA, COMPARE, LOGIC = Primitive.ADD, Primitive.MUL, Primitive.FMA, Primitive.COMPARE, Primitive.LOGIC
EXP, LOG, RSQRT, RECIPROCAL = Primitive.EXP, Primitive.LOG, Primitive.RSQRT, Primitive.RECIPROCAL


def node(kind, *inputs, outputs=1, **attributes):
    return helper.make_node(kind, list(inputs), [f"y{i}" for i in range(outputs)], name=kind, **attributes)


def ints(name, *values):
    return helper.make_tensor(name, P.INT64, [len(values)], values)


def one(name, value):
    return helper.make_tensor(name, P.INT64, [], [value])


def number(name, value):
    return helper.make_tensor(name, P.FLOAT, [], [value])


OPERATORS = {
    # name: (node, {input: shape or (shape, type)}, constants, opset, shape of the first result, work by hand)
    "ReduceProd": (node("ReduceProd", "x", "a", keepdims=0), {"x": [4, 2, 5]}, [ints("a", 1)], 18, (4, 5), {MUL: 40}),
    "ReduceProd of all": (node("ReduceProd", "x"), {"x": [4, 2, 5]}, [], 13, (1, 1, 1), {MUL: 40}),
    "ReduceLogSum": (node("ReduceLogSum", "x", axes=[1]), {"x": [4, 8]}, [], 13, (4, 1), {ADD: 32, LOG: 4}),
    "Asinh": (node("Asinh", "x"), {"x": [4, 8]}, [], 17, (4, 8), {LOG: 32, FMA: 32, RSQRT: 32, ADD: 32}),
    "Acosh": (node("Acosh", "x"), {"x": [4, 8]}, [], 17, (4, 8), {LOG: 32, FMA: 32, RSQRT: 32, ADD: 32}),
    "Atanh": (node("Atanh", "x"), {"x": [4, 8]}, [], 17, (4, 8), {LOG: 32, ADD: 64, RECIPROCAL: 32, MUL: 32}),
    "BitwiseXor": (node("BitwiseXor", "x", "z"), dict.fromkeys("xz", ([4], P.INT32)), [], 18, (4,), {LOGIC: 4}),
    "BitwiseNot": (node("BitwiseNot", "x"), {"x": ([4], P.INT32)}, [], 18, (4,), {LOGIC: 4}),
    "BitShift": (
        node("BitShift", "x", "z", direction="LEFT"), dict.fromkeys("xz", ([4], P.UINT8)), [], 17, (4,), {LOGIC: 4},
    ),
    "CastLike": (
        node("CastLike", "x", "z"), {"x": [4, 8], "z": ([1], P.INT8)}, [], 17, (4, 8), {Primitive.CONVERT: 32},
    ),
    "Shrink": (node("Shrink", "x", lambd=0.5, bias=0.5), {"x": [4, 8]}, [], 17, (4, 8), {COMPARE: 64, ADD: 32}),
    # the largest of each row, and where it is
    "Hardmax": (node("Hardmax", "x", axis=1), {"x": [2, 8, 3]}, [], 17, (2, 8, 3), {COMPARE: 48 + 48}),
    "EyeLike": (node("EyeLike", "x"), {"x": [4, 6]}, [], 17, (4, 6), {}),
    "LpPool": (node("LpPool", "x", kernel_shape=[2, 2], strides=[2, 2]), {"x": [1, 4, 6, 6]}, [], 17, (1, 4, 3, 3), {}),
    "LpPool padded": (
        node("LpPool", "x", kernel_shape=[3], pads=[1, 1]), {"x": [1, 4, 6]}, [], 17, (1, 4, 6), {},
    ),
    "GlobalLpPool": (node("GlobalLpPool", "x"), {"x": [1, 8, 3, 3]}, [], 17, (1, 8, 1, 1), {FMA: 72, RSQRT: 8}),
    "LRN": (node("LRN", "x", size=5), {"x": [1, 8, 3, 3]}, [], 17, (1, 8, 3, 3), {}),
    # mean and variance of 72 numbers, then (x - mean) times the root's reciprocal, of its sum with a number
    "MeanVarianceNormalization": (
        node("MeanVarianceNormalization", "x"), {"x": [1, 8, 3, 3]}, [], 17, (1, 8, 3, 3),
        {ADD: 72 + 8 + 72, FMA: 72, MUL: 16 + 72, RSQRT: 8 + 8},
    ),
    "MaxUnpool": (
        node("MaxUnpool", "x", "i", kernel_shape=[2, 2], strides=[2, 2]),
        {"x": [1, 2, 3, 3], "i": ([1, 2, 3, 3], P.INT64)}, [], 17, (1, 2, 6, 6), {},
    ),
    "Det": (node("Det", "x"), {"x": [5, 3, 3]}, [], 17, (5,), {FMA: 5 * 9}),
    "Unique": (node("Unique", "x", outputs=4), {"x": [20]}, [], 17, (20,), {}),
    "AffineGrid": (
        node("AffineGrid", "x", "s"), {"x": [2, 2, 3]}, [ints("s", 2, 3, 4, 5)], 20, (2, 4, 5, 2), {FMA: 80 * 2},
    ),
    "CenterCropPad": (
        node("CenterCropPad", "x", "s", axes=[0, 2]), {"x": [5, 3, 8]}, [ints("s", 7, 4)], 18, (7, 3, 4), {},
    ),
    # 27 elements of a patch, 36 patches, added up in an image
    "Col2Im": (
        node("Col2Im", "x", "image", "block"), {"x": [1, 27, 36]}, [ints("image", 8, 8), ints("block", 3, 3)], 18,
        (1, 3, 8, 8), {},
    ),
    "ReverseSequence": (node("ReverseSequence", "x", "n"), {"x": [7, 2, 3]}, [ints("n", 7, 5)], 17, (7, 2, 3), {}),
    # as torch counts them: a square is a product, a cube two, a quotient by a number one with its reciprocal
    "square": (node("Pow", "x", "n"), {"x": [4, 8]}, [number("n", 2.0)], 17, (4, 8), {MUL: 32, EXP: 0, LOG: 0}),
    "cube": (node("Pow", "x", "n"), {"x": [4, 8]}, [number("n", 3.0)], 17, (4, 8), {MUL: 64, EXP: 0, LOG: 0}),
    "root": (node("Pow", "x", "n"), {"x": [4, 8]}, [number("n", 0.5)], 17, (4, 8), {RSQRT: 32, EXP: 0, LOG: 0}),
    "power of data": (node("Pow", "x", "z"), {"x": [4, 8], "z": [8]}, [], 17, (4, 8), {MUL: 32, EXP: 32, LOG: 32}),
    "quotient by a number": (
        node("Div", "x", "n"), {"x": [4, 8]}, [number("n", 8.0)], 17, (4, 8), {MUL: 32, RECIPROCAL: 0},
    ),
    "quotient by a weight": (
        node("Div", "x", "n"), {"x": [4, 8]}, [helper.make_tensor("n", P.FLOAT, [8], [1.0] * 8)], 17, (4, 8),
        {MUL: 0, RECIPROCAL: 32},
    ),
    "quotient by a number of more axes": (
        node("Div", "x", "n"), {"x": [8]}, [helper.make_tensor("n", P.FLOAT, [1, 1], [1.0])], 17, (1, 8), {},
    ),
    "quotient of a number": (node("Div", "n", "x"), {"x": [4, 8]}, [number("n", 8.0)], 17, (4, 8), {RECIPROCAL: 32}),
    # 5 n log2 n real operations of complex data, half of them of real; two are an fma
    "DFT real": (node("DFT", "x"), {"x": [4, 32, 1]}, [], 17, (4, 32, 2), {FMA: 4 * 5 * 32 * 5 // 4}),
    "DFT one-sided": (node("DFT", "x", onesided=1), {"x": [4, 32, 1]}, [], 17, (4, 17, 2), {FMA: 4 * 5 * 32 * 5 // 4}),
    "DFT complex": (node("DFT", "x"), {"x": [4, 32, 2]}, [], 20, (4, 32, 2), {FMA: 4 * 5 * 32 * 5 // 2}),
    "DFT inverse": (node("DFT", "x", inverse=1), {"x": [4, 32, 2]}, [], 20, (4, 32, 2), {FMA: 4 * 5 * 32 * 5 // 2}),
    "DFT of another axis": (
        node("DFT", "x", "", "axis"), {"x": [16, 3, 2]}, [one("axis", 0)], 20, (16, 3, 2), {FMA: 3 * 5 * 16 * 4 // 2},
    ),
    "DFT of another length": (
        node("DFT", "x", "n"), {"x": [4, 20, 2]}, [one("n", 32)], 20, (4, 32, 2), {FMA: 4 * 5 * 32 * 5 // 2},
    ),
    # 13 frames of 16, 4 apart, in a signal of 64: each times the window, then transformed
    "STFT": (
        node("STFT", "x", "step", "w"), {"x": [2, 64, 1], "w": [16]}, [one("step", 4)], 17, (2, 13, 9, 2),
        {MUL: 2 * 13 * 16, FMA: 2 * 13 * 5 * 16 * 4 // 4},
    ),
    "STFT without a window": (
        node("STFT", "x", "step", "", "n", onesided=0), {"x": [2, 64, 1]}, [one("step", 4), one("n", 16)], 17,
        (2, 13, 16, 2), {FMA: 2 * 13 * 5 * 16 * 4 // 4},
    ),
    # ten rounds of a generator a number
    "RandomNormal": (node("RandomNormal", shape=[4, 8]), {}, [], 17, (4, 8), {MUL: 320, LOGIC: 320}),
    "RandomUniformLike": (node("RandomUniformLike", "x"), {"x": [4, 8]}, [], 17, (4, 8), {MUL: 320, LOGIC: 320}),
    "Bernoulli": (node("Bernoulli", "x"), {"x": [4, 8]}, [], 17, (4, 8), {MUL: 320, LOGIC: 320}),
    "Multinomial": (node("Multinomial", "x", sample_size=6), {"x": [4, 8]}, [], 17, (4, 6), {LOGIC: 10 * 24}),
    "Scatter": (
        node("Scatter", "x", "i", "z", axis=1), {"x": [4, 8], "i": ([4, 2], P.INT64), "z": [4, 2]}, [], 10, (4, 8), {},
    ),
    "NegativeLogLikelihoodLoss": (
        node("NegativeLogLikelihoodLoss", "x", "t"), {"x": [6, 4], "t": ([6], P.INT64)}, [], 17, (), {ADD: 6},
    ),
    "SoftmaxCrossEntropyLoss": (
        node("SoftmaxCrossEntropyLoss", "x", "t", outputs=2), {"x": [6, 4], "t": ([6], P.INT64)}, [], 17, (),
        {EXP: 24},
    ),
}  # fmt: skip


def read(tmp_path, made, inputs, constants, opset):
    values = []
    for name, given in inputs.items():
        shape, kind = given if isinstance(given, tuple) else (given, P.FLOAT)
        values.append(helper.make_tensor_value_info(name, kind, shape))
    results = [helper.make_tensor_value_info(name, P.UNDEFINED, None) for name in made.output]
    graph = helper.make_graph([made], "g", values, results, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    return load_workload(str(tmp_path / "m.onnx"))


def work(graph):
    total = {}
    for op in graph:
        for primitive, n in getattr(op, "primitives", {}).items():
            total[primitive] = total.get(primitive, 0) + n
    return total


@pytest.mark.parametrize("name", OPERATORS)
def test_shape_and_work(tmp_path, name):
    *given, shape, counts = OPERATORS[name]
    graph = read(tmp_path, *given)
    made = {key for op in graph for key in op.outputs}
    assert shape in {graph.tensors[key].shape for key in made}
    found = work(graph)
    assert {p: found.get(p, 0) for p in counts} == counts
    assert not unsupported(graph)
    assert graph.macs == 0


@pytest.mark.parametrize("masked", [False, True])
def test_a_deformable_convolution(tmp_path, masked):
    """4 -> 6 channels, 3 x 3 window, 6 x 6 results: 6 x 36 x 4 x 9 MACs on 4 x 9 x 36 elements, each of four taps and
    times its mask."""
    inputs = {"x": [1, 4, 6, 6], "o": [1, 18, 6, 6], "m": [1, 9, 6, 6]}
    made = node("DeformConv", "x", "w", "o", *(("", "m") if masked else ()), pads=[1] * 4)
    used = inputs if masked else {name: inputs[name] for name in "xo"}
    graph = read(tmp_path, made, used, [helper.make_tensor("w", P.FLOAT, [6, 4, 3, 3], [0.0] * 216)], 19)
    points, sampled = 9 * 36, 4 * 9 * 36
    assert graph.macs == 6 * 36 * 4 * 9
    assert work(graph)[FMA] == 4 * sampled + 2 * points
    assert work(graph)[MUL] == masked * sampled + 4 * points
    assert any(isinstance(op, EinsumOp) for op in graph)


def test_a_window_is_a_constant(tmp_path):
    """Of 16 numbers, made once: the frames are multiplied by it, and nothing else."""
    nodes = [helper.make_node("HannWindow", ["n"], ["w"]), helper.make_node("Mul", ["x", "w"], ["y"])]
    values = [helper.make_tensor_value_info("x", P.FLOAT, [4, 16])]
    results = [helper.make_tensor_value_info("y", P.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", values, results, [one("n", 16)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert work(load_workload(str(tmp_path / "m.onnx"))) == {MUL: 64}
