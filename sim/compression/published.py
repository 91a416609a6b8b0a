"""Published qualities of compressed models: data with sources, nothing computed.

`confidence` is "read" where the source itself was read and "recalled" where the number was
taken from memory of the source and still has to be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = {
    "hailo": "Hailo Model Zoo v2.11, Hailo-8 classification table (docs/public_models/HAILO8, commit 04ec810a)",
    "dla": "NVIDIA Deep-Learning-Accelerator-SW README, JetPack 5.1.1, Jetson AGX Orin 64GB (commit 1da860cc)",
    "torchvision": "torchvision quantized models table (pytorch/vision PR 5797); fp32 column recalled",
    "aimet": "AIMET model zoo README",
    "inc": "Intel Neural Compressor 2.0, validated model list",
    "lsq": "Esser et al., Learned Step Size Quantization, ICLR 2020 (arXiv 1902.08153), table 1",
    "modelopt": "NVIDIA TensorRT Model Optimizer, examples/benchmark.md (commit 1ef1d72a)",
    "mishra": "Mishra et al., Accelerating Sparse Deep Neural Networks, arXiv 2104.08378",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedQuality:
    """One model under one scheme. `baseline` and `value` are in the metric's unit."""

    model: str
    scheme: str
    metric: str
    baseline: float
    value: float
    source: str
    confidence: str
    higher_is_better: bool = True

    @property
    def loss(self) -> float:
        """How much worse than the baseline, in the metric's unit."""
        return self.baseline - self.value if self.higher_is_better else self.value - self.baseline


def _rows(metric: str, scheme: str, table: str) -> tuple[PublishedQuality, ...]:
    """Lines "model | baseline | value | source | confidence"."""
    rows = []
    for line in table.strip().splitlines():
        model, baseline, value, source, confidence = (part.strip() for part in line.split("|"))
        rows.append(
            PublishedQuality(
                model=model, scheme=scheme, metric=metric, baseline=float(baseline), value=float(value),
                source=source, confidence=confidence, higher_is_better="loss" not in metric,
            )
        )  # fmt: skip
    return tuple(rows)


_INT8 = """
    resnet50 (Hailo-8)       | 75.12  | 74.47  | hailo       | read
    mobilenet_v2 (Hailo-8)   | 71.78  | 71.0   | hailo       | read
    vit_base (Hailo-8)       | 79.98  | 78.58  | hailo       | read
    vit_tiny (Hailo-8)       | 68.95  | 67.15  | hailo       | read
    resnet50 (Orin DLA)      | 76.46  | 76.34  | dla         | read
    resnet50 (Orin GPU)      | 76.46  | 76.42  | dla         | read
    mobilenet_v2             | 71.878 | 71.658 | torchvision | recalled
    resnet50                 | 76.13  | 75.92  | torchvision | recalled
    resnet18                 | 69.758 | 69.494 | torchvision | recalled
    mobilenet_v3_large       | 74.042 | 73.004 | torchvision | recalled
    inception_v3             | 77.294 | 77.176 | torchvision | recalled
    resnet50 (AIMET)         | 75.21  | 74.96  | aimet       | read
    mobilenet_v2_1.4 (AIMET) | 75.0   | 74.21  | aimet       | read
    efficientnet (INC)       | 76.76  | 76.74  | inc         | read
"""
_TOP1 = "ImageNet top-1 %"

PUBLISHED: tuple[PublishedQuality, ...] = (
    *_rows(_TOP1, "int8", _INT8),
    *_rows("COCO mAP", "int8", "retinanet (Orin DLA) | 0.3757 | 0.3741 | dla | read"),
    *_rows(_TOP1, "w8a8 qat", "resnet18 | 70.5 | 71.1 | lsq | recalled\nresnet50 | 76.9 | 76.8 | lsq | recalled"),
    *_rows(_TOP1, "w4a4 qat", "resnet18 | 70.5 | 71.1 | lsq | recalled\nresnet50 | 76.9 | 76.7 | lsq | recalled"),
    *_rows(_TOP1, "w3a3 qat", "resnet18 | 70.5 | 70.2 | lsq | recalled\nresnet50 | 76.9 | 75.8 | lsq | recalled"),
    *_rows(_TOP1, "w2a2 qat", "resnet18 | 70.5 | 67.6 | lsq | recalled\nresnet50 | 76.9 | 73.7 | lsq | recalled"),
    *_rows("Waymo AP %", "2:4", "retinanet_r34 | 44.7 | 44.8 | dla | read"),
    *_rows(_TOP1, "2:4", "resnet50 | 76.1 | 76.2 | mishra | recalled"),
    *_rows(_TOP1, "2:4 int8", "resnet50 | 76.1 | 76.2 | mishra | recalled"),
    *_rows("validation loss", "2:4 no fine-tuning", "llama2_70b | 0.721 | 2.724 | modelopt | read"),
    *_rows("validation loss", "2:4", "llama2_70b | 0.721 | 1.01 | modelopt | read"),
    *_rows("samsum loss", "w4a16 ptq", "llama2_7b | 1.036 | 1.059 | modelopt | read"),
    *_rows("samsum loss", "w4a16 qat", "llama2_7b | 1.036 | 1.044 | modelopt | read"),
    *_rows("samsum loss", "w4a8 ptq", "llama2_7b | 1.036 | 3.321 | modelopt | read"),
    *_rows("samsum loss", "w4a8 qat", "llama2_7b | 1.036 | 1.294 | modelopt | read"),
    *_rows("dolly loss", "w4a16 ptq", "llama2_7b | 1.151 | 1.305 | modelopt | read"),
    *_rows("dolly loss", "w4a16 qat", "llama2_7b | 1.151 | 1.172 | modelopt | read"),
    *_rows("dolly loss", "w4a8 ptq", "llama2_7b | 1.151 | 2.313 | modelopt | read"),
    *_rows("dolly loss", "w4a8 qat", "llama2_7b | 1.151 | 1.64 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "fp8", "llama3.1_8b | 100 | 98.5 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "w4a16 awq", "llama3.1_8b | 100 | 94.34 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "w4a8 awq", "llama3.1_8b | 100 | 94.0 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "fp8", "llama3.1_70b | 100 | 99.62 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "w4a16 awq", "llama3.1_70b | 100 | 98.93 | modelopt | read"),
    *_rows("MMLU relative % of bf16", "w4a8 awq", "llama3.1_70b | 100 | 98.8 | modelopt | read"),
)
