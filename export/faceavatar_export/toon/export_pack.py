"""Writes the toon pack from a training run: every graph exported, compressed, compared with torch, described.

`python -m faceavatar_export.toon.export_pack RUN PACK_DIR`. RUN holds the checkpoints and face_encoder.onnx;
PACK_DIR holds tokenizer.json and face_detection_yunet.onnx already, and receives the graphs and pack.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from faceavatar_export import graphs
from faceavatar_export.pack_writer import Provenance, write_manifest
from faceavatar_export.toon import styles
from faceavatar_export.toon.autoencoder import LATENT_CHANNELS, Autoencoder
from faceavatar_export.toon.distill import BUILT_IN_GUIDANCE, SEGMENTS
from faceavatar_export.toon.draw import sample
from faceavatar_export.toon.identity import EMBEDDING_SIZE
from faceavatar_export.toon.matting_cells import CELL, Cells
from faceavatar_export.toon.matting_coarse import CoarseAlpha
from faceavatar_export.toon.matting_net import SIZE as MATTING_SIZE
from faceavatar_export.toon.matting_net import MattingNet
from faceavatar_export.toon.network import FACE_TOKENS, SCHEDULE
from faceavatar_export.toon.text_encoder import CONTEXT, WINDOW, TextEncoder
from faceavatar_export.toon.train_matting import PARTS, load_part
from faceavatar_export.toon.train_unet import Model
from faceavatar_export.toon.training import Average, load_checkpoint
from faceavatar_export.toon.wordings import DEFAULT_STYLE, STYLE_WORDS
from faceavatar_export.verify import relative_error

VERSION = "0.7.0"
DESCRIPTION = "Small model trained on drawn avatars: vector, storybook, ink, pixel, voxel and line art"
TOLERANCE = 1e-4
INT8_TOLERANCE = 0.03
DOUBTFUL_TOLERANCE = 0.05  # of the matting net: a cell may be in doubt or not by a hair
DRAWN = Provenance(
    "CC-BY-4.0",
    "Trained on drawings made with DiceBear (MIT) from Avataaars by Pablo Stanley (free for personal and "
    "commercial use), ToonHead by Johan Melin (CC BY 4.0), Open Peeps by Pablo Stanley (CC0 1.0), Pixel Art "
    "and Voxel Art by DiceBear (CC0 1.0) and Lorelei by Lisa Wischofsky (CC0 1.0)",
)
TRAINED = Provenance("Apache-2.0", "Trained by the faceavatar project")
FACE = Provenance(
    "Apache-2.0 AND CC0-1.0",
    "Trained by the faceavatar project; holds the gender net gender-v1 by Cydral (dlib-models), CC0 1.0",
)
YUNET = Provenance("MIT", "YuNet by Shiqi Yu and contributors, libfacedetection / OpenCV Zoo")
CLIP_BPE = Provenance("MIT", "Byte-pair merges of CLIP, OpenAI; as shipped by OpenCLIP")


def _check(module: nn.Module, path: Path, inputs: Mapping[str, Tensor], tolerance: float) -> float:
    error = relative_error(module, path, inputs)
    print(f"{path.name}: relative error {error:.2g}, {path.stat().st_size / 1e6:.1f} MB")
    if not error <= tolerance:
        raise ValueError(
            f"{path.name}: relative error {error:.3g} against torch, {tolerance} allowed; the export is wrong"
        )
    return error


def _small(
    module: nn.Module, path: Path, inputs: Mapping[str, Tensor], tolerance: float = INT8_TOLERANCE
) -> float:
    """Checks the export, stores its weights as int8, checks again; returns the last error."""
    _check(module, path, inputs, TOLERANCE)
    graphs.store_weights_as_int8(path)
    return _check(module, path, inputs, tolerance)


def _restore(path: Path, stage: str, **parts: nn.Module) -> None:
    if load_checkpoint(path, **parts)[0] == 0:
        raise FileNotFoundError(f"{path}: not there; run faceavatar_export.toon.{stage} first")


def export_text(run: Path, out: Path) -> float:
    """text_encoder.onnx"""
    encoder = TextEncoder(torch.load(run / "known_tokens.pt", weights_only=True))
    _restore(run / "text.pt", "train_text", encoder=encoder)
    ids = torch.randint(0, 49408, (3, WINDOW))
    ids[:, 0], ids[:, 40:] = 49406, 49407
    ids[:, 1:20] = encoder.known.nonzero().flatten()[torch.randint(0, int(encoder.known.max()), (3, 19))]
    path, inputs = out / "text_encoder.onnx", {"input_ids": ids}
    axes = {"input_ids": {0: "batch"}}
    graphs.export_graph(
        encoder, inputs, ["last_hidden_state"], axes, path, {"last_hidden_state": {0: "batch"}}
    )
    return _small(encoder, path, inputs)


def distilled(run: Path) -> bool:
    """Whether a run has a few-step UNet; it goes before the one that it learnt from."""
    return (run / "fewstep.pt").exists()


def export_unet(run: Path, out: Path) -> float:
    """unet.onnx and face_projection.onnx, from the averaged weights."""
    average = Average(Model())
    if distilled(run):
        _restore(run / "fewstep.pt", "distill", average=average)
    else:
        _restore(run / "unet.pt", "train_unet", average=average)
    model = average.module
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(3, EMBEDDING_SIZE, generator=generator)
    path = out / "face_projection.onnx"
    batch = {0: "batch"}
    graphs.export_graph(
        model.projection,
        {"face_embeds": embeds},
        ["face_tokens"],
        {"face_embeds": batch},
        path,
        {"face_tokens": batch},
    )
    _check(model.projection, path, {"face_embeds": embeds}, TOLERANCE)
    inputs = {
        "sample": torch.randn(3, LATENT_CHANNELS, 8, 12, generator=generator),
        "timestep": torch.tensor([999, 500, 20]),
        "encoder_hidden_states": torch.randn(3, 2 * WINDOW, CONTEXT, generator=generator),
        "face_tokens": torch.randn(3, FACE_TOKENS, CONTEXT, generator=generator),
        "face_scale": torch.tensor([0.8]),
    }
    grid = {0: "batch", 2: "height", 3: "width"}
    axes = {
        "sample": grid,
        "timestep": batch,
        "encoder_hidden_states": {0: "batch", 1: "tokens"},
        "face_tokens": batch,
    }
    path = out / "unet.onnx"
    graphs.export_graph(model.unet, inputs, ["noise_pred"], axes, path, {"noise_pred": grid})
    return _small(model.unet, path, inputs)


def export_decoder(run: Path, out: Path) -> float:
    """vae_decoder.onnx"""
    codec = Autoencoder()
    refined = run / "refined.pt"
    checkpoint = refined if refined.exists() else run / "autoencoder.pt"
    print(f"vae_decoder.onnx: from {checkpoint.name}")
    _restore(checkpoint, "train_autoencoder", model=codec)
    inputs = {"latents": torch.randn(2, LATENT_CHANNELS, 3, 5)}
    path = out / "vae_decoder.onnx"
    grid = {0: "batch", 2: "latent_height", 3: "latent_width"}
    image = {0: "batch", 2: "height", 3: "width"}
    graphs.export_graph(codec.decoder, inputs, ["image"], {"latents": grid}, path, {"image": image})
    return _small(codec.decoder, path, inputs)


def has_fine_half(run: Path) -> bool:
    """Whether a run has trained the matting net's fine half; the coarse one goes alone without it."""
    return (run / "matting_fine.pt").exists()


def export_matting(run: Path, out: Path) -> float:
    """matting.onnx"""
    net = MattingNet()
    whole = has_fine_half(run)
    for part in PARTS if whole else PARTS[:1]:
        load_part(net, run, part)
    module: nn.Module = net if whole else CoarseAlpha(net.coarse)
    for inner in net.modules():
        if isinstance(inner, Cells):
            inner.convolve = True
    print(f"matting.onnx: {'all parts' if whole else 'the coarse half alone'}")
    inputs = {"image": drawn_people(2, *_matting_size(run))}
    path, batch = out / "matting.onnx", {0: "batch"}
    outputs = ["alpha", "foreground"] if whole else ["alpha"]
    graphs.export_graph(module, inputs, outputs, {"image": batch}, path, dict.fromkeys(outputs, batch))
    return _small(module, path, inputs, DOUBTFUL_TOLERANCE)


def drawn_people(count: int, height: int, width: int) -> Tensor:
    """What the matting net is for, (count, 3, H, W) in -1..1: before anything else it is in doubt all over,
    and a cell that is or is not in doubt by a hair counts as a large error."""
    light = np.linspace(60, 220, width, dtype=np.float32)[:, None]
    pictures = []
    for index in range(count):
        figure = styles.draw_figure(*sample(7, index), height, width).astype(np.float32)
        share = figure[..., 3:] / 255
        pictures.append(figure[..., :3] * share + light * (1 - share))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1


def _matting_size(run: Path) -> tuple[int, int]:
    side = MATTING_SIZE if has_fine_half(run) else MATTING_SIZE // CELL
    return side, side


HALF_SCALE = {"mean": [127.5] * 3, "std": [127.5] * 3}
PRECISION = {  # of each graph; what is small stays as it is
    "text_encoder": "fp32, weights stored as int8",
    "face_encoder": "fp32",
    "face_projection": "fp32",
    "unet": "fp32, weights stored as int8",
    "vae_decoder": "fp32, weights stored as int8",
    "matting": "fp32, weights stored as int8",
}
ORIGINS = {
    "text_encoder.onnx": TRAINED,
    "face_encoder.onnx": FACE,
    "face_projection.onnx": DRAWN,
    "unet.onnx": DRAWN,
    "vae_decoder.onnx": DRAWN,
    "matting.onnx": DRAWN,
    "tokenizer.json": CLIP_BPE,
    "face_detection_yunet.onnx": YUNET,
}


def matting_part(run: Path) -> dict[str, object]:
    """How the matting net is fed. All parts together answer in full resolution, at the picture's own edges,
    and know of colours."""
    fed = {"size": list(_matting_size(run)), **HALF_SCALE, "alpha": "alpha"}
    return fed | (
        {"refine": "beyond", "foreground": "foreground"} if has_fine_half(run) else {"refine": True}
    )


def describe(run: Path, errors: Mapping[str, float]) -> dict[str, object]:
    """The parts of the manifest beside files and graphs; `errors` are the graphs' against torch."""
    few = {"num_inference_steps": SEGMENTS, "scheduler": "ddim", "built_in_guidance": BUILT_IN_GUIDANCE}
    many = {"num_inference_steps": 20, "scheduler": "dpmpp_2m"}
    return {
        "text": {
            "tokenizer": "tokenizer.json",
            "max_length": WINDOW,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 49407,
            "default_style": {"words": list(STYLE_WORDS), "style": DEFAULT_STYLE},
        },
        "scheduler": {"name": "ddim", "steps_offset": 0, "set_alpha_to_one": True, **SCHEDULE},
        "latents": {
            "channels": LATENT_CHANNELS,
            "downsample": 64,
            "scaling_factor": 1.0,
            "shift_factor": 0.0,
        },
        "sizes": {"native": [[512, 512]], "multiple_of": 64, "policy": "extend"},
        "face": {
            "detector": {"kind": "yunet", "file": "face_detection_yunet.onnx"},
            "alignment": {"kind": "head", "size": 128},
            "encoder": {**HALF_SCALE, "color": "RGB"},
            "adapter": {
                "kind": "faceid",
                "tokens": FACE_TOKENS,
                "embedding_size": EMBEDDING_SIZE,
                "normalize": False,
            },
        },
        "matting": matting_part(run),
        "defaults": {
            "guidance_scale": BUILT_IN_GUIDANCE,
            "face_scale": 1.0,
            **(few if distilled(run) else many),
        },
        "parity": {
            "reference": "torch, float32",
            "relative_error": {k: float(f"{v:.3g}") for k, v in errors.items()},
        },
    }


def export_pack(run: Path, out: Path) -> None:
    """The whole pack; raises ValueError where a graph strays from its torch module."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the checks' inputs, and with them the errors in the manifest, repeat
    errors = {
        "text_encoder": export_text(run, out),
        "unet": export_unet(run, out),
        "vae_decoder": export_decoder(run, out),
        "matting": export_matting(run, out),
    }
    shutil.copyfile(run / "face_encoder.onnx", out / "face_encoder.onnx")
    head = {"name": "toon", "version": VERSION, "family": "toon", "description": DESCRIPTION}
    graphs_of = {role: (f"{role}.onnx", precision) for role, precision in PRECISION.items()}
    write_manifest(out, head, graphs_of, ORIGINS, describe(run, errors))


def renew_matting(run: Path, pack: Path) -> None:
    """A finished pack with a matting net trained anew; all its other files stay as they are."""
    torch.manual_seed(0)
    error = export_matting(run, pack)
    old = json.loads((pack / "pack.json").read_text("utf-8"))
    old["parity"]["relative_error"]["matting"] = float(f"{error:.3g}")
    old["matting"] = matting_part(run)
    head = {"name": old["name"], "version": VERSION, "family": old["family"], "description": DESCRIPTION}
    graphs_of = {role: (graph["file"], PRECISION[role]) for role, graph in old["graphs"].items()}
    tail = {
        key: value for key, value in old.items() if key not in {*head, "schema_version", "files", "graphs"}
    }
    write_manifest(pack, head, graphs_of, ORIGINS, tail)


def main() -> None:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--only-matting", action="store_true", help="renew the matting net of the finished pack in OUT"
    )
    args = parser.parse_args()
    (renew_matting if args.only_matting else export_pack)(args.run, args.out)


if __name__ == "__main__":
    main()
