"""Opens a whole checkpoint that lies in one .safetensors file, offline: diffusers converts it.

diffusers wants to know the topology and takes it from the hub; here it comes from the file's own shapes
(single_file_config.py), or from a local folder of configurations. Knows files, not graphs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.single_file_config import (
    CLIP,
    FIRST_CLIP,
    OPEN_CLIP,
    SECOND_CLIP,
    UNET,
    VAE,
    Family,
    Header,
    write_configs,
)

Prediction = Literal["epsilon", "v_prediction"]
PICKLES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
_PREDICTIONS: Mapping[str, Prediction] = {"epsilon": "epsilon", "v": "v_prediction"}
_REFINER = "conditioner.embedders.0.model.token_embedding.weight"
_TOKENS = {"sd15": f"{CLIP}embeddings.token_embedding.weight", "sd21": f"{OPEN_CLIP}token_embedding.weight"}


def open_single_file(
    path: Path, config: Path | None, prediction: Prediction | None, vae: Any | None
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    """The pipeline in float32. vae: takes the place of the file's own, which may then be absent.

    config: a folder in diffusers' layout whose configurations (its weights are not read) say what the file
    holds; None reads the topology off the shapes. prediction: what the UNet predicts, where the file does not
    say it. Raises PackInvalid for a file that is no SD1.5, SD2.1 or SDXL checkpoint or lacks weights,
    InvalidRequest where the prediction stays open or contradicts the file.
    """
    header = read_header(path)
    family = read_family(path, header, vae is not None)
    with TemporaryDirectory() as scratch:
        folder = config
        if folder is None:
            folder = Path(scratch)
            write_configs(folder, header, family, read_prediction(path, header, family, prediction))
        elif prediction is not None:
            raise InvalidRequest("--prediction", prediction, "nothing beside --config, which says it")
        return _load(path, folder, family, vae)


def read_header(path: Path) -> Header:
    """Keys, shapes and metadata. Raises PackInvalid for a file that is not in safetensors' format."""
    try:
        with safe_open(path, "pt") as file:
            # A safetensors file is no mapping: it has keys() and cannot be iterated.
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return Header(shapes, file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise PackInvalid(f"{path}: cannot be read as safetensors: {error}") from error


def read_family(path: Path, header: Header, has_vae: bool = False) -> Family:
    """Which family a file's keys are. Raises PackInvalid, naming what is missing or not supported."""
    shapes = header.shapes
    if _REFINER in shapes:
        raise PackInvalid(f"{path.name}: an SDXL refiner cannot be exported; give the base model")
    if "edm_mean" in shapes:
        raise PackInvalid(f"{path.name}: EDM checkpoints such as Playground 2.5 cannot be exported")
    if not any(key.startswith(UNET) for key in shapes):
        raise PackInvalid(
            f"{path.name}: no keys {UNET}*: not a whole Stable Diffusion checkpoint in one file"
        )
    if not has_vae and not any(key.startswith(f"{VAE}decoder.") for key in shapes):
        raise PackInvalid(f"{path.name}: no keys {VAE}*: the file has no VAE; give one with --vae")
    first, second = f"{FIRST_CLIP}embeddings.token_embedding.weight", f"{SECOND_CLIP}token_embedding.weight"
    if first in shapes and second in shapes:
        return "sdxl"
    for family, key in _TOKENS.items():
        if key in shapes:
            return cast(Family, family)
    raise PackInvalid(
        f"{path.name}: none of the text encoders of SD1.5 ({CLIP}*), SD2.1 ({OPEN_CLIP}*) or SDXL "
        f"({FIRST_CLIP}* and {SECOND_CLIP}*) is in it"
    )


def read_prediction(path: Path, header: Header, family: Family, said: Prediction | None) -> Prediction:
    """What the UNet predicts: by the file's marker or metadata, the option, or the family's custom.

    SD2 files of both kinds have the same keys, and the wrong one draws noise: there it has to be said.
    """
    found: Prediction | None = _PREDICTIONS.get(header.metadata.get("modelspec.prediction_type", ""))
    if "v_pred" in header.shapes:
        found = "v_prediction"
    if found is not None and said is not None and said != found:
        raise InvalidRequest("--prediction", said, f"{found}, as {path.name} itself says")
    kind = found or said or (None if family == "sd21" else "epsilon")
    if kind is None:
        raise InvalidRequest(
            "--prediction",
            None,
            f"v_prediction (SD2.1 at 768) or epsilon (SD2 base, at 512): the keys of {path.name} fit both",
        )
    return kind


def _load(
    path: Path, config: Path, family: Family, vae: Any | None
) -> StableDiffusionPipeline | StableDiffusionXLPipeline:
    kind = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    named = _class_name(config)
    if named != kind.__name__:
        raise PackInvalid(f"{config}: configures a {named}, the keys of {path.name} are a {kind.__name__}'s")
    given = {} if vae is None else {"vae": vae}
    if family != "sdxl":
        given |= {"safety_checker": None, "requires_safety_checker": False}
    try:
        pipeline = kind.from_single_file(
            str(path),
            config=str(config),
            local_files_only=True,
            torch_dtype=torch.float32,
            feature_extractor=None,
            image_encoder=None,
            **given,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "meta tensor" in first:  # where diffusers finds no weights it leaves a tensor without values
            first = "weights are missing that its other keys call for"
        raise PackInvalid(f"{path.name}: does not fit its configuration: {first}") from error
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            module.eval()
            missing = [name for name, weight in module.named_parameters() if weight.is_meta]
            if missing:
                raise PackInvalid(f"{path.name}: {len(missing)} weights of {part} are missing: {missing[0]}")
    return pipeline


def _class_name(config: Path) -> str | None:
    try:
        index = json.loads((config / "model_index.json").read_text(encoding="utf-8"))
        return cast("str | None", index.get("_class_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise PackInvalid(f"{config}: no model_index.json that can be read, --config needs one") from error
