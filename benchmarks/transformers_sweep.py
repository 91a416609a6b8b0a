"""Trace architectures of the `transformers` library from their configs, on the meta device.

No weights are loaded or made. Each architecture is built twice: `small` (two layers where the config
counts layers) and `full` (the config's own defaults, mostly the published base model), and traced by
the recorder. What fails is listed with its reason; ops without a rule are failures too.

    python benchmarks/transformers_sweep.py [NAME ...] [--size small|full|both] [-o table.json]

Exit code: 0 when every architecture traces without unsupported ops, 1 otherwise.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from architectures import command
from transformers import AutoConfig

from sim.errors import DovetailError
from sim.workload.summary import unsupported
from sim.workload.trace import trace
from sim.workload.trace.run import NumbersKept

TOKENS = 128
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers")
LAYERS += ("num_decoder_layers", "num_encoder_layers")


@dataclass(frozen=True)
class Case:
    """One architecture: how to build it and what it reads."""

    inputs: str
    model: str = "AutoModel"
    config: dict[str, Any] = field(default_factory=dict)
    layers: int = 2
    """Layers of the small build (0: as the config says): hybrids need one of each kind."""
    config_type: str = ""
    """Model type when it is not the case's name."""


@dataclass(frozen=True)
class Row:
    """What one build gave; `reason` is empty when all is well."""

    name: str
    size: str
    parameters: int | None = None
    macs: int | None = None
    ops: int | None = None
    regions: dict[str, int] = field(default_factory=dict)
    notes: int | None = None
    seconds: float = 0.0
    reason: str = ""


LM = "AutoModelForCausalLM"
SEQ2SEQ = "AutoModelForSeq2SeqLM"
DECODERS = (
    "llama mistral mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 gemma3_text phi phi3 gpt2 gpt_neo gpt_neox "
    "gptj opt bloom falcon mpt olmo olmo2 olmoe cohere starcoder2 stablelm codegen gpt_bigcode granite granitemoe "
    "glm nemotron mamba mamba2 falcon_mamba rwkv recurrent_gemma jamba zamba deepseek_v2 deepseek_v3 gpt_oss smollm3 "
    "exaone4 minimax llama4_text bamba xglm"
).split()
ENCODERS = (
    "bert roberta distilbert albert electra deberta deberta-v2 xlm-roberta modernbert mpnet camembert ernie "
    "squeezebert funnel longformer big_bird nystromformer convbert fnet roformer ibert xlnet mobilebert"
).split()
IMAGES = (
    "vit deit beit swin swinv2 convnext convnextv2 resnet regnet mobilenet_v1 mobilenet_v2 mobilevit segformer dinov2 "
    "cvt pvt pvt_v2 levit poolformer dpt yolos vit_mae efficientnet bit focalnet hiera dinat swiftformer glpn upernet "
    "siglip_vision_model clip_vision_model depth_anything maskformer mask2former sam_vision_model"
).split()
CASES: dict[str, Case] = {
    **{name: Case("text", LM) for name in DECODERS},
    **{name: Case("text") for name in ENCODERS},
    **{name: Case("image") for name in IMAGES},
    **{name: Case("seq2seq", SEQ2SEQ) for name in ("t5", "mt5", "bart", "pegasus", "marian", "m2m_100", "led")},
    "whisper": Case("whisper", "AutoModelForSpeechSeq2Seq"),
    "speech_to_text": Case("speech_to_text", "AutoModelForSpeechSeq2Seq"),
    **{name: Case("wave") for name in ("wav2vec2", "hubert", "wavlm", "sew", "data2vec-audio")},
    "audio-spectrogram-transformer": Case("spectrogram"),
    "encodec": Case("codec"),
    "vits": Case("text"),
    **{name: Case("image_text") for name in ("clip", "siglip", "blip", "chinese_clip", "align", "altclip")},
    "llava": Case("llava", "AutoModelForImageTextToText"),
    "detr": Case("image", "AutoModelForObjectDetection", {"use_timm_backbone": False}),
    "conditional_detr": Case("image", "AutoModelForObjectDetection", {"use_timm_backbone": False}),
    "deformable_detr": Case("image", "AutoModelForObjectDetection", {"use_timm_backbone": False}),
    "rt_detr": Case("image", "AutoModelForObjectDetection"),
    "d_fine": Case("image", "AutoModelForObjectDetection"),
    "nemotron": Case("text", LM, {"num_key_value_heads": 48}),
    "deepseek_v2": Case("text", LM, {"num_experts_per_tok": 6, "n_group": 8, "topk_group": 3}),
    "recurrent_gemma": Case("text", LM, layers=3),
    "jamba": Case("text", LM, layers=8),
    "zamba": Case("text", LM, layers=6),
    "bamba": Case("text", LM, {"attn_layer_indices": [1]}),
    "funnel": Case("text", layers=0),
    "upernet": Case("image", "AutoModelForSemanticSegmentation"),
    "depth_anything": Case("image", "AutoModelForDepthEstimation"),
    "videomae": Case("video"),
    "vivit": Case("video32"),
    "timesformer": Case("video8"),
    "patchtst": Case("series"),
}


def build(name: str, size: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Module without weights and its inputs, both on meta."""
    case = CASES[name]
    config = AutoConfig.for_model(case.config_type or name, **case.config)
    if size == "small":
        shrink(config, case.layers)
    with torch.device("meta"), NumbersKept():
        module = getattr(transformers, case.model).from_config(config)
        return module, example(case.inputs, config)


def shrink(config: Any, layers: int) -> None:
    """`layers` layers, where the config counts layers and does not derive the count from a list of stages."""
    if not layers or any(isinstance(getattr(config, key, None), list | tuple) for key in ("depths", "hidden_sizes")):
        return
    for key in LAYERS:
        if isinstance(vars(config).get(key), int):
            setattr(config, key, min(layers, getattr(config, key)))
    if isinstance(vars(config).get("layer_types"), list):
        config.layer_types = config.layer_types[: config.num_hidden_layers]


def example(kind: str, config: Any) -> dict[str, torch.Tensor]:
    """Empty inputs of one kind."""
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    sub = getattr(config, "vision_config", config)
    side = getattr(sub, "image_size", 224) or 224
    side = side if isinstance(side, int) else side[0]
    match kind:
        case "text":
            return {"input_ids": ids}
        case "image":
            return {"pixel_values": torch.empty(1, 3, side, side)}
        case "seq2seq":
            return {"input_ids": ids, "decoder_input_ids": ids[:, :32]}
        case "whisper":
            features = torch.empty(1, config.num_mel_bins, 2 * config.max_source_positions)
            return {"input_features": features, "decoder_input_ids": ids[:, :32]}
        case "speech_to_text":
            return {"input_features": torch.empty(1, 584, 80), "decoder_input_ids": ids[:, :32]}
        case "wave":
            return {"input_values": torch.empty(1, 16000)}
        case "codec":
            return {"input_values": torch.empty(1, 1, 24000)}
        case "spectrogram":
            return {"input_values": torch.empty(1, config.max_length, config.num_mel_bins)}
        case "image_text":
            words = min(32, getattr(getattr(config, "text_config", config), "max_position_embeddings", 32))
            return {"input_ids": ids[:, :words], "pixel_values": torch.empty(1, 3, side, side)}
        case "llava":
            return {"input_ids": ids, "pixel_values": torch.empty(1, 3, side, side)}
        case "video" | "video8" | "video32":
            frames = {"video": 16, "video8": 8, "video32": 32}[kind]
            return {"pixel_values": torch.empty(1, frames, 3, side, side)}
        case "series":
            return {"past_values": torch.empty(1, config.context_length, config.num_input_channels)}
    raise ValueError(f'input kind "{kind}" is unknown')


def run(name: str, size: str) -> Row:
    """Build and trace one architecture; every failure becomes a reason."""
    start = time.process_time()
    try:
        module, inputs = build(name, size)
        graph = trace(module, inputs, name=name)
    except Exception as error:  # this script's purpose is to list them
        stage = "" if isinstance(error, DovetailError) else "build: "
        reason = f"{stage}{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Row(name, size, seconds=time.process_time() - start, reason=reason)
    regions: dict[str, int] = {}
    for region in graph.regions.values():
        regions[region.kind] = regions.get(region.kind, 0) + 1
    return Row(
        name,
        size,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=graph.macs,
        ops=len(graph.ops),
        regions=regions,
        notes=len(graph.notes),
        seconds=time.process_time() - start,
        reason="; ".join(unsupported(graph)),
    )


def told(row: Row) -> str:
    """A row as it is printed."""
    result = row.reason or f"{row.parameters:>16,} parameters {row.macs:>18,} MACs {row.ops:>6} ops"
    return f"{row.name:<30} {row.size:<5} {row.seconds:5.1f} s  {result}"


if __name__ == "__main__":
    sys.exit(command(__doc__, transformers, CASES, run, told))
