"""SDXL distilled to few steps, from one file, with a face and begun with a photo: all of it at once."""

from __future__ import annotations

from dataclasses import replace

import agreement
import checkpoints
import numpy as np
import pytest
import single_files
from agreement import Exported

from faceavatar.pack import Pack
from faceavatar_export.diffusion.checkpoint import Reading
from faceavatar_export.diffusion.proof import LARGEST_DIFFERENCE, Case

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("lightning")
    pipeline = single_files.build("sdxl")
    pipeline.save_pretrained(folder / "xl")
    file = single_files.write(pipeline, folder / "lightning.safetensors", "sdxl")
    adapter = checkpoints.face_adapter(folder / "ip-adapter-faceid_sdxl.bin", folder / "xl", "faceid")
    reading = Reading(variant="turbo")
    made = agreement.export(file, folder / "pack", adapter, reading=reading, vae_encoder=True)
    return replace(made, source=folder / "xl")


def test_lightning_with_a_face_draws_what_diffusers_draws(made: Exported) -> None:
    agreement.assert_proved(made)
    manifest = Pack.load(made.pack).manifest
    assert (manifest.family, manifest.scheduler["timestep_spacing"]) == ("sdxl", "trailing")
    assert (manifest.defaults.num_inference_steps, manifest.defaults.guidance_scale) == (4, 1.0)
    (row,) = [row for row in made.report["pipeline"] if row["strength"] is not None]
    assert row["max_difference"] <= LARGEST_DIFFERENCE


def test_a_photo_is_begun_with_on_sdxl_as_diffusers_does(made: Exported) -> None:
    plain = Case(264, 328, 1, 1.0, 4, "euler", strength=0.5)
    cases = [
        plain,
        replace(plain, face_scale=0.0),
        replace(plain, guidance_scale=5.0, negative_prompt=None, batch=2, scheduler="euler_ancestral"),
        replace(plain, scheduler="dpmpp_2m_karras", num_inference_steps=6),
    ]
    with_face, without_face, *_ = agreement.assert_agree(made, cases)
    assert np.abs(with_face.astype(int) - without_face).max() > LARGEST_DIFFERENCE
