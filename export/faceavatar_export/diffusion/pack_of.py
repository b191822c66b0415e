"""What a pack says of itself: whence each file came, the schedule, latents, defaults, the face's part.

Knows the manifest's words for a checkpoint; does not know how graphs are made or proved.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faceavatar_export.diffusion.checkpoint import Checkpoint
from faceavatar_export.diffusion.face_adapter import FaceAdapterFile
from faceavatar_export.diffusion.instantid import SCALE
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import clip_mean_and_std
from faceavatar_export.diffusion.schedule import Sampling
from faceavatar_export.face_models import FaceModels
from faceavatar_export.pack_writer import Provenance, write_manifest

CROPS = {"sdxl": 256}  # FaceID-Plus aligns the face that CLIP sees at 224, on SDXL at 256
PACKAGES = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")


def write_pack(
    options: Options,
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    faces: FaceModels | None,
    sampling: Sampling,
    graphs: dict[str, dict[str, Any]],
    draft: Path,
) -> None:
    """Writes tokenizer and pack.json beside the graphs in `draft`.

    graphs: each role's precision and relative error. Every file is attributed to what it was made of.
    """
    tokenizer = checkpoint.pipeline.tokenizer
    tokenizer.backend_tokenizer.save(str(draft / "tokenizer.json"))
    made_of = _made_of(options)
    files = {
        path.name: Provenance(options.license, f"exported from {made_of[path.name.split('.')[0]]}")
        for path in sorted(draft.iterdir())
    }
    if faces is not None:
        files |= faces.copy_to(draft)
    write_manifest(
        draft,
        {
            "name": options.name,
            "version": "1.0.0",
            "family": checkpoint.family,
            "description": f"{Path(options.source).name}, {sampling.variant}",
        },
        {role: (f"{role}.onnx", report["precision"]) for role, report in graphs.items()},
        files,
        _tail(options, checkpoint, adapter, image_encoder, faces, sampling, graphs),
        {role: report["fused"] for role, report in graphs.items() if "fused" in report},
    )


def _made_of(options: Options) -> defaultdict[str, str]:
    """What each role's graph came from, by name: the checkpoint, and what took the place of its parts."""
    source, reading = Path(options.source).name, options.reading
    names: defaultdict[str, str] = defaultdict(lambda: source)
    if options.face_adapter is not None:
        names["face_projection"] = options.face_adapter.name
    if options.image_encoder is not None:
        names["image_encoder"] = options.image_encoder.name
    unet = [source if reading.unet is None else reading.unet.name]
    unet += [] if options.controlnet is None else [options.controlnet.name]
    unet += [lora.path.name for lora in options.loras]
    names["unet"] = unet[0] + (f", with {', '.join(unet[1:])}" if unet[1:] else "")
    if reading.vae is not None:
        names["vae_decoder"] = names["vae_encoder"] = reading.vae.name
    if reading.tiny_vae is not None:
        names["vae_decoder"] = reading.tiny_vae.name
    return names


def _tail(
    options: Options,
    checkpoint: Checkpoint,
    adapter: FaceAdapterFile | None,
    image_encoder: Any,
    faces: FaceModels | None,
    sampling: Sampling,
    graphs: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    pipeline, xl = checkpoint.pipeline, checkpoint.family == "sdxl"
    second = pipeline.tokenizer_2 if xl else None
    steps, guidance = options.num_inference_steps, options.guidance_scale
    tail: dict[str, Any] = {
        "text": {
            "tokenizer": "tokenizer.json",
            "max_length": 77,
            "bos_token_id": pipeline.tokenizer.bos_token_id,
            "eos_token_id": pipeline.tokenizer.eos_token_id,
            "pad_token_id": pipeline.tokenizer.pad_token_id,
            "pad_token_id_2": 0 if second is None else second.pad_token_id,
            "zeros_when_unset": bool(xl and pipeline.config.force_zeros_for_empty_prompt),
        },
        "scheduler": {"name": sampling.name, **asdict(sampling.schedule)},
        "latents": {
            "channels": int(checkpoint.vae.config.latent_channels),
            "downsample": 2 ** (len(checkpoint.vae.config.block_out_channels) - 1),
            "scaling_factor": float(checkpoint.vae.config.scaling_factor),
            "shift_factor": float(checkpoint.vae.config.get("shift_factor") or 0.0),
        },
        "sizes": {"native": [], "multiple_of": 8, "policy": "cover"},
        "defaults": {
            "num_inference_steps": sampling.num_inference_steps if steps is None else steps,
            "guidance_scale": sampling.guidance_scale if guidance is None else guidance,
            "scheduler": sampling.name,
            "face_scale": 1.0 if options.controlnet is None else SCALE,
            "controlnet_scale": None if options.controlnet is None else SCALE,
        },
        "export": {
            "variant": sampling.variant,
            "precision": options.precision,
            "errors": {role: report["relative_error"] for role, report in graphs.items()},
            "vae_decoder": type(pipeline.vae).__name__,
            "loras": [[lora.path.name, lora.weight] for lora in options.loras],
            "versions": {name: version(name) for name in PACKAGES},
        },
    }
    if adapter is not None:
        tail["face"] = _face_part(checkpoint, adapter, image_encoder)
        if faces is not None:
            tail["face"] |= faces.part()
    return tail


def _face_part(checkpoint: Checkpoint, adapter: FaceAdapterFile, image_encoder: Any) -> dict[str, Any]:
    part: dict[str, Any] = {
        "adapter": {
            "kind": adapter.kind,
            "tokens": adapter.tokens,
            "embedding_size": adapter.embedding_size,
            "normalize": adapter.kind != "instantid",
        }
    }
    if image_encoder is not None:
        mean, std = clip_mean_and_std()
        part["image_encoder"] = {
            "align_size": CROPS.get(checkpoint.family, 224),
            "size": int(image_encoder.config.image_size),
            "mean": mean,
            "std": std,
        }
    return part
