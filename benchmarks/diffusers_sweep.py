"""Trace architectures of the `diffusers` library from their configs and compare MACs with torch's own counter.

No weights are loaded or made. Each architecture is built at the size of a published model (`full`) or with two layers
of each kind where its config counts layers (`small`), traced by the recorder, and run under `FlopCounterMode` on the
same meta inputs. What fails, has an op without a rule or differs by more than 0.05 % is listed with its reason;
what asks for values of its inputs, which torch's counter cannot answer without data, is marked as not counted.

    python benchmarks/diffusers_sweep.py [NAME ...] [--size small|full|both] [-o table.json]

Exit code: 0 when every architecture traces without unsupported ops and agrees in MACs, 1 otherwise.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from architectures import command
from torch.utils.flop_counter import FlopCounterMode

from sim.errors import DovetailError
from sim.workload.summary import unsupported
from sim.workload.trace import trace
from sim.workload.trace.autocast import autocast_on_meta
from sim.workload.trace.run import to_meta

TOLERANCE = 0.0005
LAYERS = ("num_layers", "num_single_layers", "num_refiner_layers", "n_layers", "n_refiner_layers", "num_hidden_layers")
LAYERS += ("num_mmdit_layers", "num_single_dit_layers")


@dataclass(frozen=True)
class Case:
    """One architecture: its class, what its config has beside the class's defaults, and what it reads."""

    model: str
    inputs: Callable[[], dict[str, Any]]
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """What one build gave; `reason` is empty when all is well."""

    name: str
    size: str
    parameters: int | None = None
    macs: int | None = None
    counted_macs: int | None = None
    """By torch; None of a model that asks for values, which it cannot run without data."""
    ops: int | None = None
    attention: int | None = None
    """Products of scores and values found to be attention."""
    seconds: float = 0.0
    """CPU time of the trace alone."""
    reason: str = ""


def full(*shape: int) -> torch.Tensor:
    return torch.empty(shape)


def ids(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def step() -> torch.Tensor:
    return torch.zeros(1)


def denoise(sample: tuple[int, ...], text: tuple[int, ...] = (), **others: Any) -> Callable[[], dict[str, Any]]:
    """Inputs of a denoiser: a noisy latent, the step, an encoded text; `others` are shapes or values."""
    shapes = {"sample": sample, **({"encoder_hidden_states": text} if text else {}), **others}

    def build() -> dict[str, Any]:
        return {"timestep": step(), **{key: made(value) for key, value in shapes.items()}}

    return build


def made(value: Any) -> Any:
    """A tensor of a shape (a tuple), also within a mapping; what a function returns; other values as they are."""
    if isinstance(value, tuple):
        return full(*value)
    if isinstance(value, dict):
        return {key: made(one) for key, one in value.items()}
    return value() if callable(value) else value


def latent(sample: tuple[int, ...], text: tuple[int, ...] = (), **others: Any) -> Callable[[], dict[str, Any]]:
    """As `denoise`, for transformers, which call the latent their hidden states."""
    build = denoise(sample, text, **others)
    return lambda: {{"sample": "hidden_states"}.get(key, key): value for key, value in build().items()}


def picture(*shape: int) -> Callable[[], dict[str, Any]]:
    return lambda: {"sample": full(*shape)}


SDXL: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_UP = {"up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}
SDXL_INPUTS = {"added_cond_kwargs": {"text_embeds": (1, 1280), "time_ids": (1, 6)}}
KL = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
PIXART = {"sample_size": 128, "cross_attention_dim": 1152, "caption_channels": 4096}
HUNYUAN_DIT = {
    "in_channels": 4,
    "patch_size": 2,
    "sample_size": 128,
    "hidden_size": 1408,
    "num_layers": 40,
    "mlp_ratio": 4.3637,
}
LATTE = {
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "attention_head_dim": 72,
    "cross_attention_dim": 1152,
    "attention_bias": True,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "caption_channels": 4096,
}


def hunyuan_dit() -> dict[str, Any]:
    masks = {"text_embedding_mask": ids(1, 77), "text_embedding_mask_t5": ids(1, 256)}
    rope = (full(4096, 88), full(4096, 88))
    return (
        latent((1, 4, 128, 128), (1, 77, 1024), encoder_hidden_states_t5=(1, 256, 2048))()
        | masks
        | {
            "image_meta_size": full(1, 6),
            "style": ids(1),
            "image_rotary_emb": rope,
        }
    )


def muse() -> dict[str, Any]:
    return {
        "input_ids": ids(1, 32, 32),
        "encoder_hidden_states": full(1, 77, 768),
        "pooled_text_emb": full(1, 768),
        "micro_conds": full(1, 5),
    }


FLUX = {"pooled_projections": (1, 768), "img_ids": (4096, 3), "txt_ids": (512, 3)}
CASES: dict[str, Case] = {
    "ddpm-unet": Case("UNet2DModel", denoise((1, 3, 64, 64))),
    "sd15-unet": Case("UNet2DConditionModel", denoise((1, 4, 64, 64), (1, 77, 768)), {"cross_attention_dim": 768}),
    "sdxl-unet": Case(
        "UNet2DConditionModel", denoise((1, 4, 128, 128), (1, 77, 2048), **SDXL_INPUTS), {**SDXL, **SDXL_UP}
    ),
    "sd15-controlnet": Case(
        "ControlNetModel",
        denoise((1, 4, 64, 64), (1, 77, 768), controlnet_cond=(1, 3, 512, 512)),
        {"cross_attention_dim": 768},
    ),
    "sdxl-controlnet": Case(
        "ControlNetModel",
        denoise((1, 4, 128, 128), (1, 77, 2048), controlnet_cond=(1, 3, 1024, 1024), **SDXL_INPUTS),
        SDXL,
    ),
    "text2video-unet": Case("UNet3DConditionModel", denoise((1, 4, 16, 32, 32), (1, 77, 1024))),
    "svd-unet": Case(
        "UNetSpatioTemporalConditionModel", denoise((1, 14, 8, 72, 128), (1, 1, 1024), added_time_ids=(1, 3))
    ),
    "animatediff-unet": Case(
        "UNetMotionModel", denoise((1, 4, 16, 64, 64), (16, 77, 768)), {"cross_attention_dim": 768}
    ),
    "unet1d": Case("UNet1DModel", denoise((1, 2, 65536)), {"extra_in_channels": 64}),
    "kl-vae": Case("AutoencoderKL", picture(1, 3, 512, 512), KL),
    "tiny-vae": Case("AutoencoderTiny", picture(1, 3, 512, 512)),
    "dc-vae": Case(
        "AutoencoderDC",
        picture(1, 3, 512, 512),
        {
            "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
        },
    ),
    "vq-vae": Case(
        "VQModel",
        picture(1, 3, 256, 256),
        {
            **KL,
            "block_out_channels": (128, 256, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "num_vq_embeddings": 8192,
        },
    ),
    "wan-vae": Case("AutoencoderKLWan", picture(1, 3, 5, 256, 256)),
    "cogvideox-vae": Case("AutoencoderKLCogVideoX", picture(1, 3, 9, 256, 256)),
    "ltx-vae": Case("AutoencoderKLLTXVideo", picture(1, 3, 9, 256, 256)),
    "hunyuan-video-vae": Case("AutoencoderKLHunyuanVideo", picture(1, 3, 9, 128, 128)),
    "oobleck-vae": Case("AutoencoderOobleck", picture(1, 2, 65536)),
    "dit-xl": Case(
        "DiTTransformer2DModel",
        latent((1, 4, 32, 32), timestep=lambda: ids(1), class_labels=lambda: ids(1)),
        {"out_channels": 8},
    ),
    "pixart": Case(
        "PixArtTransformer2DModel",
        latent((1, 4, 128, 128), (1, 120, 4096), added_cond_kwargs={"resolution": (1, 2), "aspect_ratio": (1, 1)}),
        PIXART,
    ),
    "hunyuan-dit": Case("HunyuanDiT2DModel", hunyuan_dit, HUNYUAN_DIT),
    "sd3-medium": Case(
        "SD3Transformer2DModel",
        latent((1, 16, 128, 128), (1, 333, 4096), pooled_projections=(1, 2048)),
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192},
    ),
    "sd35-medium": Case(
        "SD3Transformer2DModel",
        latent((1, 16, 128, 128), (1, 333, 4096), pooled_projections=(1, 2048)),
        {
            "num_layers": 24,
            "num_attention_heads": 24,
            "caption_projection_dim": 1536,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
    ),
    "flux": Case(
        "FluxTransformer2DModel",
        latent((1, 4096, 64), (1, 512, 4096), guidance=step, **FLUX),
        {"guidance_embeds": True},
    ),
    "chroma": Case(
        "ChromaTransformer2DModel", latent((1, 4096, 64), (1, 512, 4096), img_ids=(4096, 3), txt_ids=(512, 3))
    ),
    "auraflow": Case("AuraFlowTransformer2DModel", latent((1, 4, 128, 128), (1, 256, 2048))),
    "lumina2": Case(
        "Lumina2Transformer2DModel",
        latent((1, 16, 128, 128), (1, 256, 2304), encoder_attention_mask=lambda: torch.ones(1, 256, dtype=torch.bool)),
        {"cap_feat_dim": 2304},
    ),
    "qwen-image": Case(
        "QwenImageTransformer2DModel",
        latent(
            (1, 4096, 64),
            (1, 256, 3584),
            encoder_hidden_states_mask=lambda: ids(1, 256),
            img_shapes=lambda: [(1, 64, 64)],
        ),
    ),
    "sana": Case("SanaTransformer2DModel", latent((1, 32, 32, 32), (1, 300, 2304))),
    "cogview4": Case(
        "CogView4Transformer2DModel",
        latent((1, 16, 128, 128), (1, 256, 4096), original_size=(1, 2), target_size=(1, 2), crop_coords=(1, 2)),
        {"rope_axes_dim": (256, 256)},
    ),
    "z-image": Case(
        "ZImageTransformer2DModel", lambda: {"x": [full(16, 1, 128, 128)], "t": step(), "cap_feats": [full(256, 2560)]}
    ),
    "muse": Case("UVit2DModel", muse),
    "unclip-prior": Case(
        "PriorTransformer",
        lambda: {
            "hidden_states": full(1, 768),
            "timestep": step(),
            "proj_embedding": full(1, 768),
            "encoder_hidden_states": full(1, 77, 768),
        },
    ),
    "latte": Case("LatteTransformer3DModel", latent((1, 4, 16, 64, 64), (1, 120, 4096)), LATTE),
    "allegro": Case(
        "AllegroTransformer3DModel",
        latent(
            (1, 4, 4, 90, 160),
            (1, 128, 4096),
            timestep=lambda: ids(1),
            encoder_attention_mask=(1, 128),
            attention_mask=(1, 4, 90, 160),
        ),
    ),
    "cogvideox": Case("CogVideoXTransformer3DModel", latent((1, 13, 16, 60, 90), (1, 226, 4096))),
    "mochi": Case(
        "MochiTransformer3DModel",
        latent(
            (1, 12, 4, 60, 106), (1, 256, 4096), encoder_attention_mask=lambda: torch.ones(1, 256, dtype=torch.bool)
        ),
    ),
    "ltx-video": Case(
        "LTXVideoTransformer3DModel",
        latent((1, 4224, 128), (1, 128, 4096), encoder_attention_mask=(1, 128), num_frames=11, height=16, width=24),
    ),
    "hunyuan-video": Case(
        "HunyuanVideoTransformer3DModel",
        latent(
            (1, 16, 9, 68, 120),
            (1, 256, 4096),
            encoder_attention_mask=lambda: ids(1, 256),
            pooled_projections=(1, 768),
            guidance=step,
        ),
    ),
    "wan": Case("WanTransformer3DModel", latent((1, 16, 9, 60, 104), (1, 512, 4096))),
    "cosmos": Case(
        "CosmosTransformer3DModel", latent((1, 16, 8, 88, 160), (1, 512, 1024), padding_mask=(1, 1, 704, 1280), fps=30)
    ),
    "stable-audio": Case(
        "StableAudioDiTModel",
        latent(
            (1, 64, 1024),
            (1, 130, 768),
            global_hidden_states=(1, 1, 1536),
            rotary_embedding=lambda: (full(1025, 32), full(1025, 32)),
        ),
    ),
}


def build(name: str, size: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Module without weights and its inputs, both on meta."""
    case = CASES[name]
    kind, config = getattr(diffusers, case.model), dict(case.config)
    if size == "small":
        defaults = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
        counts = {key: config.get(key, defaults.get(key)) for key in LAYERS}
        config |= {key: min(2, count) for key, count in counts.items() if isinstance(count, int)}
    with torch.device("meta"):
        return kind(**config).eval(), case.inputs()


def counted(module: torch.nn.Module, inputs: dict[str, Any]) -> int:
    """MACs that torch counts, half of its floating-point operations."""
    twin, _, inputs = to_meta(module, inputs)
    with autocast_on_meta(), FlopCounterMode(display=False) as counter, torch.device("meta"), torch.no_grad():
        twin(**inputs)
    return counter.get_total_flops() // 2


def run(name: str, size: str) -> Row:
    """Build, trace and count one architecture; every failure becomes a reason."""
    start = time.process_time()
    try:
        module, inputs = build(name, size)
        start = time.process_time()
        graph = trace(module, inputs, name=name)
    except Exception as error:  # this script's purpose is to list them
        stage = "" if isinstance(error, DovetailError) else "build: "
        reason = f"{stage}{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return Row(name, size, seconds=time.process_time() - start, reason=reason)
    seconds = time.process_time() - start
    reasons = list(unsupported(graph))
    try:
        macs = counted(module, inputs)
        if abs(graph.macs - macs) > TOLERANCE * macs:
            reasons.append(f"torch counts {macs:,} MACs ({graph.macs / macs - 1:+.2%})")
    except NotImplementedError:  # the flow of the model depends on data, which torch's counter needs to see
        macs = None
    return Row(
        name,
        size,
        parameters=sum(p.numel() for p in module.parameters()),
        macs=graph.macs,
        counted_macs=macs,
        ops=len(graph.ops),
        attention=sum(region.kind == "attention" for region in graph.regions.values()),
        seconds=seconds,
        reason="; ".join(reasons),
    )


def told(row: Row) -> str:
    """A row as it is printed."""
    result = row.reason or f"{row.parameters:>14,} parameters {row.macs:>18,} MACs {row.ops:>6} ops"
    aside = "" if row.reason or row.counted_macs is not None else "  not counted by torch"
    return f"{row.name:<18} {row.size:<5} {row.seconds:5.1f} s  {result}{aside}"


if __name__ == "__main__":
    sys.exit(command(__doc__, diffusers, CASES, run, told))
