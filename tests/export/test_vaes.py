"""VAEs other than the checkpoint's own: a tiny decoder, and the encoder that lets photos in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import agreement
import numpy as np
import pytest
import single_files
import torch
from agreement import Exported
from safetensors.torch import save_file

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.errors import InvalidRequest, MissingGraph, PackInvalid
from faceavatar.pack import Pack
from faceavatar.schedulers import SCHEDULER_NAMES
from faceavatar_export.diffusion.checkpoint import Reading
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import LARGEST_DIFFERENCE, Case
from faceavatar_export.diffusion.proof_photo import STRENGTH, make_photo
from faceavatar_export.diffusion.vae import open_tiny_vae

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
FULL = {"latent_channels": 4, "block_out_channels": (32, 32, 32, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vaes")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    return single_files.write_tiny_vae(single_files.tiny_vae(), folder / "taesd_decoder.safetensors")


@pytest.fixture(scope="module")
def made(folder: Path, tiny: Path) -> Exported:
    """A single file's pack with a tiny decoder and an encoder; held further against the folder it came of."""
    pipeline = single_files.build("sd15")
    pipeline.save_pretrained(folder / "sd15")
    file = single_files.write(pipeline, folder / "sd15.safetensors", "sd15")
    reading = Reading(tiny_vae=tiny)
    made = agreement.export(file, folder / "pack", reading=reading, vae_encoder=True)
    return replace(made, source=folder / "sd15")


def test_a_file_with_a_tiny_decoder_draws_what_diffusers_draws(made: Exported) -> None:
    agreement.assert_proved(made)
    assert set(made.report["graphs"]) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    manifest = Pack.load(made.pack).manifest
    assert manifest.latents.scaling_factor == 0.18215
    assert manifest.files["vae_decoder.onnx.data"].attribution == "exported from taesd_decoder.safetensors"
    assert manifest.files["vae_encoder.onnx.data"].attribution == "exported from sd15.safetensors"


def test_a_file_draws_what_the_folder_of_the_same_weights_draws(made: Exported) -> None:
    plain = Case(264, 328, 1, 7.5, 3, "euler")
    agreement.assert_agree(made, [plain, replace(plain, scheduler="ddim", guidance_scale=1.0, batch=2)])


def test_a_run_that_begins_with_the_photo_is_proved_by_the_export(made: Exported) -> None:
    (row,) = [row for row in made.report["pipeline"] if row["strength"] is not None]
    assert row["max_difference"] <= LARGEST_DIFFERENCE
    assert row["spread"] > 10


def test_a_pack_of_a_file_is_proved_again_with_the_parts_it_was_made_with(made: Exported) -> None:
    from faceavatar_export.diffusion.reproof import prove_again

    file = made.pack.parent / "sd15.safetensors"
    options = Options(str(file), made.pack, "", "", reading=made.reading, proof_sizes=((256, 256),))
    report = prove_again(options, lambda words: None)
    assert report["misses"] == []
    assert set(report["graphs"]) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert [row["strength"] for row in report["pipeline"]] == [None, None, STRENGTH]
    with pytest.raises(InvalidRequest, match=r"--tiny-vae: got None, .* made with: a tiny decoder"):
        prove_again(replace(options, reading=Reading()), lambda words: None)


def test_every_scheduler_begins_with_a_photo_as_diffusers_does(made: Exported) -> None:
    plain = Case(264, 328, 1, 7.5, 5, "ddim", strength=0.6)
    pictures = agreement.assert_agree(
        made,
        [
            *(replace(plain, scheduler=name) for name in SCHEDULER_NAMES),
            replace(plain, strength=0.2),
            replace(plain, strength=1.0, scheduler="unipc"),
            replace(plain, batch=2, guidance_scale=1.0),
            replace(plain, strength=None),
        ],
    )
    weak, whole = pictures[len(SCHEDULER_NAMES)].astype(int), pictures[-1].astype(int)
    assert np.abs(weak - whole).max() > 20


def test_a_picture_begun_with_a_photo_is_the_same_alone_in_a_batch_and_beside_others(made: Exported) -> None:
    engine = AvatarEngine.load(made.pack, provider="cpu")
    request = AvatarRequest(
        image=make_photo(), prompt="a man", seed=3, height=256, width=256, num_inference_steps=4, strength=0.5
    )
    alone = engine.generate(request.model_copy(update={"seed": 4})).images[0]
    other = engine.prepare(request.model_copy(update={"image": make_photo()[::-1].copy(), "batch": 1}))
    both = engine.prepare(request.model_copy(update={"batch": 2}))
    first, second = engine.generate_together([other, both])
    assert np.abs(second.images[1].astype(int) - alone).max() <= 1
    assert np.abs(first.images[0].astype(int) - second.images[0]).max() > 5
    assert engine.prepare(request.model_copy(update={"strength": 1.0})).key != both.key
    assert engine.prepare(request.model_copy(update={"strength": None})).key != both.key
    (again,) = engine.generate_together([both])
    assert np.abs(again.images[1].astype(int) - alone).max() <= 1


def test_strength_is_refused_where_no_step_is_left_and_by_packs_without_an_encoder(made: Exported) -> None:
    photo = make_photo()
    with pytest.raises(InvalidRequest, match=r"strength: got 0\.1, allowed 0\.25\.\.1 with 4 steps"):
        AvatarEngine.load(made.pack, provider="cpu").prepare(
            AvatarRequest(image=photo, num_inference_steps=4, strength=0.1)
        )
    with pytest.raises(MissingGraph, match="no vae_encoder graph, so strength must be None"):
        AvatarEngine.load("toon", provider="cpu").prepare(AvatarRequest(image=photo, strength=0.5))
    for wrong in (0, 1.5, "half"):
        with pytest.raises(InvalidRequest, match=r"strength: .*a number above 0, up to 1, or None"):
            AvatarRequest(image=photo, strength=wrong)


def test_a_tiny_decoders_folder_and_file_are_the_same(folder: Path, tiny: Path) -> None:
    single_files.tiny_vae().save_pretrained(folder / "taesd")
    latents = torch.randn(1, 4, 5, 3) * 4  # far enough out to be clamped
    with torch.inference_mode():
        drawn = [open_tiny_vae(path, FULL).decode(latents).sample for path in (tiny, folder / "taesd")]
        wanted = single_files.tiny_vae().decode(latents).sample
    assert all(torch.equal(one, wanted) for one in drawn)


def test_a_tiny_decoder_of_other_latents_is_refused(tiny: Path) -> None:
    with pytest.raises(PackInvalid, match="decodes latents of 4 channels, the checkpoint's have 16"):
        open_tiny_vae(tiny, FULL | {"latent_channels": 16})
    with pytest.raises(PackInvalid, match="enlarges 8 times, the checkpoint's VAE 4 times"):
        open_tiny_vae(tiny, FULL | {"block_out_channels": (32, 32, 32)})


def test_a_file_that_is_no_tiny_decoder_is_refused(folder: Path, tiny: Path) -> None:
    save_file({"weight": torch.zeros(1)}, folder / "other.safetensors")
    with pytest.raises(PackInvalid, match=r"cannot be read as a tiny VAE: 1\.weight is missing"):
        open_tiny_vae(folder / "other.safetensors", FULL)
    with pytest.raises(PackInvalid, match=r"expected \.safetensors: a pickled file may run code"):
        open_tiny_vae(tiny.rename(folder / "taesd_decoder.pth"), FULL)
    (folder / "taesd_decoder.pth").rename(tiny)
