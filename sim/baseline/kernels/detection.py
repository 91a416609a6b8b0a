"""Detection post-processing: decode boxes, threshold, per-class non-maximum suppression, fused (CUDA C++).

`detection.cu` is compiled at run time, by nvcc for the GPU of the operands or by a C++ compiler for the CPU,
and kept in the user's cache under the hash of source and flags.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from sim.errors import MeasurementError

SOURCE = Path(__file__).with_name("detection.cu")


class Predictions(NamedTuple):
    """What a detection head gives. deltas (batch, boxes, 4): dx, dy in anchor sizes, log of the size ratios;
    logits (batch, boxes, classes); anchors (boxes, 4): centre x, centre y, width, height. All fp32."""

    deltas: torch.Tensor
    logits: torch.Tensor
    anchors: torch.Tensor


class Detections(NamedTuple):
    """boxes (batch, candidates, 4) x1 y1 x2 y2, scores and labels (batch, candidates), counts (batch): the first
    `counts[i]` entries of image i hold, best first; the rest is undefined."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    counts: torch.Tensor


class _Problem(ctypes.Structure):
    """`struct Problem` of detection.cu."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in (
            "deltas", "logits", "anchors", "keys", "survivors", "out_boxes", "out_scores", "out_labels", "out_counts"
        )),
        *((name, ctypes.c_int) for name in ("batch", "boxes", "classes", "candidates", "capacity")),
        *((name, ctypes.c_float) for name in ("threshold", "iou")),
    ]  # fmt: skip


def random_predictions(batch: int, boxes: int, classes: int, *, device: str, seed: int) -> Predictions:
    """Boxes in clusters on a 640 x 640 image, about one in forty above a score of 0.25."""
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(boxes, 4, generator=generator) * torch.tensor([640.0, 640, 60, 60])
    anchors[:, 2:] += 10
    deltas = torch.randn(batch, boxes, 4, generator=generator) * 0.2
    logits = torch.randn(batch, boxes, classes, generator=generator) - 6
    objects = torch.rand(batch, boxes, generator=generator) < 1 / 40
    logits[..., 0] += 6 * objects
    return Predictions(deltas.to(device), logits.to(device), anchors.to(device))


def detection_postprocess(
    predictions: Predictions, *, threshold: float = 0.25, iou: float = 0.5, candidates: int = 1000
) -> Detections:
    """Keep per image the `candidates` best boxes above `threshold` and suppress those of the same class that overlap
    a better one by more than `iou`. Runs on the device of the operands, without a host synchronisation."""
    deltas, logits, anchors = predictions
    batch, boxes, classes = logits.shape
    for name, tensor, shape in (("deltas", deltas, (batch, boxes, 4)), ("anchors", anchors, (boxes, 4))):
        if tuple(tensor.shape) != shape:
            raise MeasurementError(f"detection: {name} is {tuple(tensor.shape)}, expected {shape}")
    for name, tensor in zip(predictions._fields, predictions, strict=True):
        if tensor.dtype is not torch.float32 or not tensor.is_contiguous():
            raise MeasurementError(f"detection: {name} must be contiguous fp32, is {tensor.dtype}")
    device = logits.device
    library = _library(_architecture(device))
    if not 1 <= candidates <= library.max_candidates():
        raise MeasurementError(f"detection: candidates is {candidates}, expected 1..{library.max_candidates()}")
    capacity = 1 << max(0, boxes - 1).bit_length()
    keys = torch.empty(batch, capacity, device=device, dtype=torch.int64)
    survivors = torch.empty(batch, device=device, dtype=torch.int32)
    out = Detections(
        torch.empty(batch, candidates, 4, device=device), torch.empty(batch, candidates, device=device),
        torch.empty(batch, candidates, device=device, dtype=torch.int32),
        torch.empty(batch, device=device, dtype=torch.int32),
    )  # fmt: skip
    pointers = (t.data_ptr() for t in (deltas, logits, anchors, keys, survivors, *out))
    problem = _Problem(*pointers, batch, boxes, classes, candidates, capacity, threshold, iou)
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
    status = library.detection_run(ctypes.byref(problem), ctypes.c_void_p(stream))
    if status:
        raise MeasurementError(f"detection: the kernel launch failed with CUDA error {status}")
    return out


def reference(
    predictions: Predictions, *, threshold: float = 0.25, iou: float = 0.5, candidates: int = 1000
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """The same in plain torch, image by image: (boxes, scores, labels)."""
    found = []
    for deltas, logits in zip(predictions.deltas, predictions.logits, strict=True):
        best, labels = logits.max(-1)
        scores = best.sigmoid()
        order = torch.sort(scores, descending=True, stable=True).indices
        order = order[scores[order] > threshold][:candidates]
        anchors, deltas = predictions.anchors[order], deltas[order]
        centre = anchors[:, :2] + deltas[:, :2] * anchors[:, 2:]
        half = 0.5 * anchors[:, 2:] * deltas[:, 2:].exp()
        boxes = torch.cat([centre - half, centre + half], -1)
        labels, scores = labels[order], scores[order]
        keep = _greedy(boxes, labels, iou)
        found.append((boxes[keep], scores[keep], labels[keep]))
    return found


def _greedy(boxes: torch.Tensor, labels: torch.Tensor, iou: float) -> torch.Tensor:
    """Mask of the boxes that no better kept box of their class overlaps by more than `iou`."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high - low).clamp(min=0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    clash = (both / (area[:, None] + area[None] - both) > iou) & (labels[:, None] == labels[None])
    keep = torch.ones(len(boxes), dtype=torch.bool)
    for i in range(len(boxes)):
        if keep[i]:
            keep[i + 1 :] &= ~clash[i, i + 1 :]
    return keep


def _architecture(device: torch.device) -> str:
    """ "cpu", or the compute capability as nvcc writes it, e.g. "sm_90"."""
    if device.type == "cpu":
        return "cpu"
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@cache
def _library(architecture: str) -> ctypes.CDLL:
    """Compile, or take from the cache, and load."""
    command = _compiler(architecture)
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(command).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dovetail" / "kernels"
    built = folder / f"detection-{architecture}-{digest}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            target = Path(scratch) / "detection.so"
            done = subprocess.run(
                [*command, str(SOURCE), "-o", str(target)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise MeasurementError(f"detection: {command[0]} failed: {done.stderr.strip()[-500:]}")
            target.replace(built)
    library = ctypes.CDLL(str(built))
    library.detection_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return library


def _compiler(architecture: str) -> list[str]:
    if architecture == "cpu":
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise MeasurementError("detection: no C++ compiler found: install g++ or clang++")
        return [compiler, "-x", "c++", "-std=c++17", "-O2", "-shared", "-fPIC"]
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    compiler = shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")
    if compiler is None:
        raise MeasurementError("detection: nvcc not found: install the CUDA toolkit, or set CUDA_HOME")
    return [compiler, "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-arch={architecture}"]
