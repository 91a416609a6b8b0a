"""Trace the models of torchvision and timm on the meta device and compare their MACs with other counts.

    python benchmarks/vision_sweep.py torchvision [NAME ...]
    python benchmarks/vision_sweep.py timm [NAME ...]

torchvision publishes the multiply-adds of every model beside its weights (`meta["_ops"]`, in 10^9, to three
decimals), at the resolution of the weights' transforms, 800 x 800 for detectors, 16 frames for videos. timm publishes
none: of each of its modules the first model, and one from the middle where there are many, is compared with
`torch.utils.flop_counter`. Prints one line a model; exit code 1 where a model does not trace or counts differ by more
than `CLOSE` (and, published ones, by more than their rounding).
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from sim.errors import DovetailError
from sim.workload.summary import unsupported
from sim.workload.trace import trace

CLOSE = 5e-4
ROUNDING = 1.5e-3
"""10^9 multiply-adds: published counts have three decimals, and leave out or take in pooling by model."""
DATA = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "published on pictures with fewer than 150 proposals",
    "fasterrcnn_mobilenet_v3_large_fpn": "published on pictures with fewer than 1000 proposals",
    "keypointrcnn_resnet50_fpn": "published on pictures with fewer than 100 persons",
    "maskrcnn_resnet50_fpn": "published on pictures with fewer than 100 objects",
    "raft_large": "size of the published frames unknown",
    "raft_small": "size of the published frames unknown",
}
"""Models whose work depends on what they see, or at a size that is not told."""


def torchvision_cases(names: list[str]) -> Iterator[tuple[str, torch.nn.Module, object, float]]:
    """(name, module on meta, inputs, published MACs)"""
    from torchvision.models import get_model, get_model_weights, list_models

    for name in names or [n for n in list_models() if not n.startswith("quantized_")]:
        weights = get_model_weights(name).DEFAULT
        options: dict[str, object] = {"aux_loss": True} if name.startswith(("deeplab", "fcn_")) else {}
        if name.startswith(("deeplab", "fcn_", "lraspp", "fasterrcnn", "fcos", "keypoint", "mask", "retina", "ssd")):
            options["weights_backbone"] = None
        if name.startswith("vit_"):
            options["image_size"] = weights.transforms().crop_size[0]
        with torch.device("cpu" if name.startswith("regnet") else "meta"):  # (regnet reads tensors while it is built)
            module = get_model(name, weights=None, **options)
        if name.startswith("mask"):  # masks are pasted into the picture where the data say
            module.transform.postprocess = lambda result, *_: result
        yield name, module, torchvision_inputs(module, weights), weights.meta["_ops"] * 1e9


def torchvision_inputs(module: torch.nn.Module, weights: object) -> object:
    """Of the size at which the weights' work is published."""
    kind, size = type(module).__module__.split(".")[2], getattr(weights.transforms(), "crop_size", None)
    match kind:
        case "detection":
            return ([torch.empty(3, 800, 800)],)
        case "segmentation":
            return torch.empty(1, 3, 520, 520)
        case "optical_flow":
            return torch.empty(1, 3, 520, 960), torch.empty(1, 3, 520, 960)
        case "video":
            return torch.empty(1, 3, 16, *(list(size) * 2)[:2])
        case _:
            return torch.empty(1, 3, *(list(size) * 2)[:2])


def timm_cases(names: list[str]) -> Iterator[tuple[str, torch.nn.Module, object, float]]:
    """(name, module on meta, inputs, MACs that torch counts; nan where its counter fails)"""
    import timm

    for name in names or dict.fromkeys(timm_names(timm)):
        with torch.device("meta"):
            module = timm.create_model(name, pretrained=False).eval()
        inputs = torch.empty(1, *module.default_cfg.get("input_size", (3, 224, 224)), device="meta")
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                module(inputs)
            counted = counter.get_total_flops() / 2
        except AssertionError:  # it looks for gradients where a module returns its input
            counted = float("nan")
        yield name, module, inputs, counted


def timm_names(timm) -> Iterator[str]:
    for module in timm.list_modules():
        models = timm.list_models(module=module)
        yield from models[:1]
        if len(models) > 6:
            yield models[len(models) // 2]


def row(library: str, name: str, module: torch.nn.Module, inputs: object, theirs: float) -> tuple[bool, str]:
    """(whether it is right, what is told of it)"""
    start = time.process_time()
    try:
        graph = trace(module, inputs, name=name)
    except DovetailError as error:
        return False, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    missing, off = unsupported(graph), graph.macs / theirs - 1
    rounding = ROUNDING * 1e9 if library == "torchvision" else 0.0
    close = not abs(off) > CLOSE or abs(graph.macs - theirs) <= rounding  # nan: nothing to compare with
    note = "; ".join(missing) or ("" if close else DATA.get(name, "differs"))
    told = f"{graph.macs / 1e9:9.3f} {theirs / 1e9:9.3f} {off:+8.2%} {len(graph.ops):6} ops"
    return not missing and (close or name in DATA), f"{told} {time.process_time() - start:5.1f} s  {note}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library", choices=("torchvision", "timm"))
    parser.add_argument("names", nargs="*", help="models (default: all of torchvision, one or two a module of timm)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    cases = torchvision_cases if options.library == "torchvision" else timm_cases
    right = []
    for name, module, inputs, theirs in cases(options.names):
        well, told = row(options.library, name, module, inputs, theirs)
        right.append(well)
        print(f"{'ok  ' if well else 'FAIL'} {name:<40} {told}", flush=True)
    print(f"{sum(right)} of {len(right)} models of {options.library} trace with the same MACs")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
