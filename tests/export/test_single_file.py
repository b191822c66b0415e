"""Whole checkpoints in one file: opened without the hub they are the very pipelines that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import single_files
import torch
from safetensors.torch import load_file, save_file

from faceavatar.errors import InvalidRequest, PackInvalid
from faceavatar_export.diffusion.checkpoint import Reading, find_source, open_checkpoint

# The libraries' own deprecations; what matters is compared.
pytestmark = pytest.mark.filterwarnings("ignore")
PREDICTION = {"sd15": "epsilon", "sd21": "v_prediction", "sdxl": "epsilon"}
# What a folder says and shapes cannot, and nothing here reads.
UNREAD = {"_name_or_path", "_use_default_values", "_class_name", "_diffusers_version", "projection_dim"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module", params=PREDICTION)
def written(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Any, Path]:
    family = request.param
    pipeline = single_files.build(family, PREDICTION[family])
    return family, pipeline, single_files.write(pipeline, folder / f"{family}.safetensors", family)


@pytest.fixture(scope="module")
def sd21(folder: Path) -> Path:
    return single_files.write(single_files.build("sd21"), folder / "two.safetensors", "sd21")


@pytest.fixture(scope="module")
def sd15(folder: Path) -> Path:
    return single_files.write(single_files.build("sd15"), folder / "one.safetensors", "sd15")


def test_a_file_holds_the_weights_and_topology_of_its_pipeline(written: tuple[str, Any, Path]) -> None:
    family, pipeline, path = written
    # SD2's files do not tell what they predict.
    reading = Reading(prediction="v_prediction") if family == "sd21" else Reading()
    opened = open_checkpoint(path, reading=reading)
    assert opened.family == family
    for name, module in pipeline.components.items():
        other = getattr(opened.pipeline, name)
        if isinstance(module, torch.nn.Module):
            assert_same_weights(module, other)
        if hasattr(module, "config") and name != "text_encoder_2":
            assert settings(module) == settings(other), name
    assert (
        opened.pipeline.tokenizer("a laughing woman").input_ids
        == pipeline.tokenizer("a laughing woman").input_ids
    )
    assert opened.pipeline.tokenizer.pad_token_id == pipeline.tokenizer.pad_token_id


def assert_same_weights(module: Any, other: Any) -> None:
    weights, others = module.state_dict(), other.state_dict()
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[key], others[key]) for key in weights)


def settings(module: Any) -> dict[str, Any]:
    config = module.config if isinstance(module.config, dict) else module.config.to_dict()
    plain = {key: list(one) if isinstance(one, tuple) else one for key, one in dict(config).items()}
    if plain.get("transformer_layers_per_block") == 1:
        plain["transformer_layers_per_block"] = [1] * len(plain["block_out_channels"])
    return {key: one for key, one in plain.items() if key not in UNREAD}


def test_a_folder_of_configurations_settles_what_shapes_cannot(folder: Path, sd21: Path) -> None:
    single_files.build("sd21", "v_prediction").save_pretrained(folder / "config")
    opened = open_checkpoint(sd21, reading=Reading(config=folder / "config"))
    assert opened.pipeline.scheduler.config.prediction_type == "v_prediction"
    with pytest.raises(InvalidRequest, match=r"--prediction: got 'epsilon'.*nothing beside --config"):
        open_checkpoint(sd21, reading=Reading(config=folder / "config", prediction="epsilon"))


def test_configurations_of_another_family_are_refused(folder: Path, sd15: Path) -> None:
    single_files.build("sdxl").save_pretrained(folder / "xl-config")
    with pytest.raises(PackInvalid, match="configures a StableDiffusionXLPipeline, the keys of one"):
        open_checkpoint(sd15, reading=Reading(config=folder / "xl-config"))
    with pytest.raises(PackInvalid, match=r"no model_index\.json that can be read, --config needs one"):
        open_checkpoint(sd15, reading=Reading(config=folder / "nowhere"))


def test_what_sd2_predicts_is_not_guessed(sd21: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"--prediction: got None.*v_prediction .*or epsilon .*fit both"):
        open_checkpoint(sd21)


def test_a_marker_or_metadata_in_the_file_says_what_it_predicts(folder: Path, sd21: Path) -> None:
    said = {"modelspec.prediction_type": "v"}
    path = single_files.write(single_files.build("sd21"), folder / "said.safetensors", "sd21", said)
    assert open_checkpoint(path).pipeline.scheduler.config.prediction_type == "v_prediction"
    with pytest.raises(
        InvalidRequest, match=r"got 'epsilon'.*v_prediction, as said\.safetensors itself says"
    ):
        open_checkpoint(path, reading=Reading(prediction="epsilon"))
    marked = {**load_file(sd21), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    save_file(marked, folder / "marked.safetensors")
    scheduler = open_checkpoint(folder / "marked.safetensors").pipeline.scheduler.config
    assert scheduler.prediction_type == "v_prediction"
    assert scheduler.rescale_betas_zero_snr
    assert scheduler.timestep_spacing == "trailing"


def test_a_pickled_checkpoint_is_refused_unopened(folder: Path) -> None:
    (folder / "old.ckpt").write_bytes(b"never read")
    with pytest.raises(
        InvalidRequest, match=r"old\.ckpt.*a \.safetensors file: a pickled checkpoint may run"
    ):
        find_source(str(folder / "old.ckpt"))


@pytest.mark.parametrize(
    ("dropped", "added", "words"),
    [
        ("model.diffusion_model.", {}, r"no keys model\.diffusion_model\.\*: not a whole"),
        ("first_stage_model.", {}, r"no keys first_stage_model\.\*: .*give one with --vae"),
        ("cond_stage_model.", {}, "none of the text encoders of SD1.5"),
        ("", {"edm_mean": torch.zeros(4)}, "EDM checkpoints such as Playground 2.5 cannot"),
        (
            "",
            {"conditioner.embedders.0.model.token_embedding.weight": torch.zeros(4)},
            "an SDXL refiner cannot be exported",
        ),
        ("model.diffusion_model.middle_block.0", {}, "weights are missing that its other keys call"),
        ("cond_stage_model.transformer.text_model.final", {}, "2 weights of text_encoder are missing: final"),
    ],
)
def test_a_file_that_lacks_a_part_is_refused_by_name(
    folder: Path, sd15: Path, dropped: str, added: dict[str, torch.Tensor], words: str
) -> None:
    kept = {key: one for key, one in load_file(sd15).items() if not dropped or not key.startswith(dropped)}
    save_file(kept | added, folder / "part.safetensors")
    with pytest.raises(PackInvalid, match=words):
        open_checkpoint(folder / "part.safetensors")


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    (folder / "broken.safetensors").write_bytes(b"12345678 not a header")
    with pytest.raises(PackInvalid, match=r"broken\.safetensors: cannot be read as safetensors"):
        open_checkpoint(folder / "broken.safetensors")


def test_another_vae_fills_the_place_of_one_that_is_absent(folder: Path, sd15: Path) -> None:
    kept = {key: one for key, one in load_file(sd15).items() if not key.startswith("first_stage_model.")}
    save_file(kept, folder / "bare.safetensors")
    vae = single_files.build("sd15", seed=7).vae
    vae.save_pretrained(folder / "vae")
    opened = open_checkpoint(folder / "bare.safetensors", reading=Reading(vae=folder / "vae"))
    assert_same_weights(vae, opened.pipeline.vae)
    with pytest.raises(PackInvalid, match="cannot be read as an AutoencoderKL"):
        open_checkpoint(sd15, reading=Reading(vae=folder))


def test_a_folder_takes_no_options_of_a_file(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"--prediction: got 'epsilon'.*nothing with a folder"):
        open_checkpoint(folder, reading=Reading(prediction="epsilon"))
