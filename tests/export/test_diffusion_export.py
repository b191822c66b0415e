"""Checkpoints with random weights become packs, and these draw what diffusers draws from the same files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checkpoints
import face_pack
import numpy as np
import onnx
import pytest
import tiny_pack

from faceavatar import AvatarEngine, AvatarRequest, Identity, InvalidRequest
from faceavatar.errors import MissingGraph, ProviderUnavailable
from faceavatar.pack import Pack, verify
from faceavatar_cli.main import main
from faceavatar_export import face_models
from faceavatar_export.diffusion.checkpoint import open_checkpoint
from faceavatar_export.diffusion.export import export_pack
from faceavatar_export.diffusion.face_adapter import read_face_adapter
from faceavatar_export.diffusion.graphs_of import graph_plans
from faceavatar_export.diffusion.options import Options
from faceavatar_export.diffusion.proof import (
    LARGEST_DIFFERENCE,
    Case,
    compare,
    engine_pictures,
    make_face,
    reference_pictures,
)
from faceavatar_export.fuse import fuse_pack

# The libraries' own deprecations while they export; what matters is measured.
pytestmark = pytest.mark.filterwarnings("ignore")
PHOTO = np.zeros((8, 8, 3), np.uint8)


def export(source: Path, out: Path, **more: Any) -> dict[str, Any]:
    options = Options(str(source), out, out.name, "CC0-1.0", proof_sizes=((256, 256), (264, 328)), **more)
    return export_pack(options, lambda words: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def sd(folder: Path) -> Path:
    return checkpoints.sd(folder / "sd")


@pytest.fixture(scope="module")
def xl(folder: Path) -> Path:
    return checkpoints.sdxl(folder / "xl")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return checkpoints.image_encoder(folder / "clip")


@pytest.fixture(scope="module")
def sd_faceid(folder: Path, sd: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Checkpoint's pack, the adapter's file, the parity report."""
    adapter = checkpoints.face_adapter(folder / "ip-adapter-faceid_sd15.bin", sd, "faceid")
    return folder / "sd-faceid", adapter, export(sd, folder / "sd-faceid", face_adapter=adapter)


@pytest.fixture(scope="module")
def xl_plus_v2(folder: Path, xl: Path, clip: Path) -> tuple[Path, Path, dict[str, Any]]:
    """With face models, fetched from a server of our own."""
    adapter = checkpoints.face_adapter(folder / "ip-adapter-faceid-plusv2_sdxl.safetensors", xl, "plus")
    faces = face_pack.build(folder / "faces")
    source = face_models.FaceSource(name="buffalo_l", accepted="non-commercial")
    more = {"face_adapter": adapter, "image_encoder": clip, "faces": source}
    with face_pack.published(face_pack.zipped(faces)) as (url, _), pytest.MonkeyPatch.context() as patch:
        release = face_models.Release(url, face_pack.hashes(faces))
        patch.setattr(face_models, "RELEASES", {"buffalo_l": release})
        return folder / "xl-plusv2", adapter, export(xl, folder / "xl-plusv2", **more)


def assert_proved(report: dict[str, Any]) -> None:
    assert report["misses"] == []
    assert len(report["pipeline"]) == 4
    assert {row["batch"] for row in report["pipeline"]} == {1, 2}
    for row in report["pipeline"]:
        assert row["max_difference"] <= LARGEST_DIFFERENCE
        assert row["spread"] > 10  # a flat picture would prove nothing


def test_sd15_with_faceid_draws_what_diffusers_draws(sd_faceid: tuple[Path, Path, dict[str, Any]]) -> None:
    pack, _, report = sd_faceid
    assert_proved(report)
    assert json.loads((pack / "parity.json").read_text()) == report
    assert set(report["graphs"]) == {"text_encoder", "face_projection", "unet", "vae_decoder"}
    assert verify(Pack.load(pack)) == []


def test_every_attention_of_a_unet_and_a_decoder_is_fused_and_proved(
    sd_faceid: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    pack, _, report = sd_faceid
    fused = {role: graph["fused_error"] for role, graph in report["graphs"].items() if "fused" in graph}
    assert set(fused) == {"unet", "vae_decoder"}
    assert max(fused.values()) < 1e-5
    assert "Softmax" not in {node.op_type for node in onnx.load(pack / "unet.ort.onnx").graph.node}

    wanted = json.loads((pack / "pack.json").read_text())
    older = Path(shutil.copytree(pack, tmp_path / "older"))  # a pack from before there were fused graphs
    for role in fused:
        (older / f"{role}.ort.onnx").unlink()
        tiny_pack.change_manifest(older, partial(_forget, role))
    added = fuse_pack(older)
    assert {one.role for one in added} == set(fused)
    assert max(one.error for one in added) < 1e-5
    assert json.loads((older / "pack.json").read_text()) == wanted
    assert fuse_pack(older) == []


def _forget(role: str, manifest: dict[str, Any]) -> None:
    del manifest["files"][manifest["graphs"][role].pop("fused")]


def test_sdxl_with_plusv2_draws_what_diffusers_draws(xl_plus_v2: tuple[Path, Path, dict[str, Any]]) -> None:
    pack, _, report = xl_plus_v2
    assert_proved(report)
    assert {"text_encoder_2", "image_encoder"} <= set(report["graphs"])
    manifest = Pack.load(pack).manifest
    assert manifest.family == "sdxl"
    assert manifest.text.zeros_when_unset
    assert manifest.face is not None
    assert manifest.face.adapter.kind == "faceid_plus_v2"
    assert manifest.face.image_encoder is not None
    assert manifest.face.image_encoder.align_size == 256


def test_guidance_scale_face_scale_batch_and_odd_sizes_agree_on_sd15(
    sd: Path, sd_faceid: tuple[Path, Path, dict[str, Any]]
) -> None:
    plain = Case(256, 256, 1, 7.5, 2, "ddim")
    cases = [
        replace(plain, guidance_scale=1.0),
        replace(plain, face_scale=0.0),
        replace(plain, batch=3, scheduler="euler"),
        replace(plain, negative_prompt=None),
        replace(plain, negative_prompt=""),
        replace(plain, height=520, width=392),
        replace(plain, scheduler="dpmpp_2m", num_inference_steps=4),
        replace(plain, scheduler="lcm", guidance_scale=1.0, num_inference_steps=4),
    ]
    assert_agree(sd, sd_faceid, cases)


def test_an_unset_negative_prompt_is_zeros_on_sdxl_and_an_empty_one_is_not(
    xl: Path, clip: Path, xl_plus_v2: tuple[Path, Path, dict[str, Any]]
) -> None:
    plain = Case(256, 264, 1, 7.5, 2, "euler")
    cases = [replace(plain, negative_prompt=None), replace(plain, negative_prompt="")]
    pictures = assert_agree(xl, xl_plus_v2, [*cases, replace(plain, face_scale=0.0)], clip)
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > LARGEST_DIFFERENCE


def assert_agree(
    source: Path, made: tuple[Path, Path, dict[str, Any]], cases: list[Case], clip: Path | None = None
) -> list[Any]:
    from transformers import CLIPVisionModelWithProjection

    pack, file, _ = made
    adapter = read_face_adapter(file)
    encoder = None if clip is None else CLIPVisionModelWithProjection.from_pretrained(clip).eval()
    checkpoint, engine = open_checkpoint(source), AvatarEngine.load(pack, provider="cpu")
    face = make_face(adapter, 224)
    schedule = engine._schedule
    expected = reference_pictures(checkpoint, adapter, encoder, face, cases, schedule)
    pictures = engine_pictures(engine, face, cases)
    for row in compare(cases, pictures, expected):
        assert row["max_difference"] <= LARGEST_DIFFERENCE, row
    return pictures


def test_two_faces_give_two_pictures_and_a_face_scale_of_zero_forgets_them(
    sd_faceid: tuple[Path, Path, dict[str, Any]],
) -> None:
    engine = AvatarEngine.load(sd_faceid[0], provider="cpu")
    faces = np.random.default_rng(3).standard_normal((2, checkpoints.EMBEDDING)).astype(np.float32)

    def draw(face: Any, scale: float) -> Any:
        request = AvatarRequest(
            image=PHOTO,
            prompt="a man",
            height=256,
            width=256,
            seed=5,
            num_inference_steps=3,
            face_scale=scale,
        )
        return engine.generate(request, face_embeds=face).images[0].astype(int)

    assert np.abs(draw(faces[0], 1.0) - draw(faces[1], 1.0)).max() > 20
    assert np.array_equal(draw(faces[0], 0.0), draw(faces[1], 0.0))


def test_a_long_prompt_is_read_in_windows_by_both_encoders(
    xl_plus_v2: tuple[Path, Path, Any], xl: Path
) -> None:
    import torch

    words = " ".join(f"word{number}" for number in range(60))
    engine, pipeline = AvatarEngine.load(xl_plus_v2[0], provider="cpu"), open_checkpoint(xl).pipeline
    (encoded,) = engine.text.encode(words)
    assert encoded.states.shape[1] >= 2 * 77
    ids = torch.from_numpy(engine.text.first.windows(words))
    with torch.inference_mode():
        first = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
    flat = first.reshape(1, -1, first.shape[-1]).numpy()
    assert np.allclose(encoded.states[..., : flat.shape[-1]], flat, atol=1e-4)


def test_v_prediction_and_a_portrait_adapter_in_half_precision_agree(folder: Path) -> None:
    source = checkpoints.sd(folder / "v", v_prediction=True)
    adapter = checkpoints.face_adapter(folder / "portrait.safetensors", source, "portrait")
    report = export(source, folder / "v-portrait", face_adapter=adapter, precision="fp16")
    assert report["misses"] == []
    assert all(row["psnr"] >= 35 for row in report["pipeline"])
    manifest = Pack.load(folder / "v-portrait").manifest
    assert manifest.scheduler["prediction_type"] == "v_prediction"
    assert manifest.face is not None
    assert manifest.face.adapter.tokens == 16
    with pytest.raises(ProviderUnavailable, match=r'unet.* are fp16 graphs.*insist with precision="fp16"'):
        AvatarEngine.load(folder / "v-portrait", provider="cpu")


def test_a_pack_without_face_models_asks_for_the_embedding(sd_faceid: tuple[Path, Path, Any]) -> None:
    engine = AvatarEngine.load(sd_faceid[0], provider="cpu")
    with pytest.raises(MissingGraph, match="hand the embedding in"):
        engine.generate(AvatarRequest(image=PHOTO))
    with pytest.raises(InvalidRequest, match=r"face_embeds: got .*\(3,\).*512"):
        engine.generate(AvatarRequest(image=PHOTO), face_embeds=np.ones(3, np.float32))


def test_a_photo_becomes_a_picture_in_a_pack_with_face_models(
    folder: Path, xl_plus_v2: tuple[Path, Path, Any]
) -> None:
    pack, _, report = xl_plus_v2
    assert report["faces"]["misses"] == []
    assert report["faces"]["cosine"] > 0.9999
    assert report["faces"]["landmarks"] < 0.01
    manifest = Pack.load(pack).manifest
    for name, sha256 in face_pack.hashes(folder / "faces").items():
        assert manifest.files[name].sha256 == sha256  # as published, byte for byte
        assert manifest.files[name].license == "InsightFace model zoo: non-commercial research only"
        assert manifest.files[name].attribution == "InsightFace, buffalo_l"
    assert face_pack.OTHER not in manifest.files
    engine = AvatarEngine.load(pack, provider="cpu")
    request = AvatarRequest(
        image=tiny_pack.photo("obama"), height=256, width=256, seed=2, num_inference_steps=1
    )
    drawn = engine.generate(request)
    assert drawn.face is not None
    other = engine.generate(request.model_copy(update={"image": tiny_pack.photo("ardern")}))
    assert not np.array_equal(drawn.images[0], other.images[0])
    identity = engine.identity(tiny_pack.photo("obama"))
    assert identity.image_embeds is not None
    assert identity.image_embeds.shape[0] == 1
    same = engine.generate(request.model_copy(update={"image": identity.to_bytes()}))
    assert np.array_equal(drawn.images[0], same.images[0])
    assert (same.face, same.warnings) == (None, ())
    with pytest.raises(
        InvalidRequest, match=r"an identity without image states.*one with the states of xl-plusv2"
    ):
        engine.prepare(
            request.model_copy(
                update={"image": replace(identity, image_embeds=None, image_encoder=None).to_bytes()}
            )
        )
    with pytest.raises(InvalidRequest, match="another encoder's states"):
        engine.prepare(
            request.model_copy(update={"image": replace(identity, image_encoder="0" * 64).to_bytes()})
        )
    assert Identity.load(identity.to_bytes()).image_encoder == identity.image_encoder


def test_a_pack_is_proved_again_and_a_changed_graph_is_named_with_its_error(
    sd: Path, sd_faceid: tuple[Path, Path, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made, adapter, report = sd_faceid
    pack = Path(shutil.copytree(made, tmp_path / "pack"))
    command = ["packs", "verify", str(pack), "--against", str(sd), "--face-adapter", str(adapter)]
    assert main([*command, "--json"]) == 0
    again = json.loads(capfd.readouterr().out)["parity"]
    assert again["pipeline"] == report["pipeline"]
    assert again["graphs"] == report["graphs"]
    weights = np.memmap(pack / "vae_decoder.onnx.data", np.float32, "r+")
    weights *= 1.01
    weights.flush()
    assert main(command) == 6
    assert "the file vae_decoder.onnx.data has sha256" in capfd.readouterr().out
    manifest = json.loads((pack / "pack.json").read_text())
    entry = manifest["files"]["vae_decoder.onnx.data"]
    entry["sha256"] = hashlib.sha256((pack / "vae_decoder.onnx.data").read_bytes()).hexdigest()
    (pack / "pack.json").write_text(json.dumps(manifest))
    assert main(command) == 6
    said = capfd.readouterr().out
    assert re.search(r"vae_decoder is 0\.\d+ away from torch, allowed 0\.0001", said)
    assert re.search(r"256x256 picture at batch 1 is \d+/255 away from diffusers, allowed 2", said)
    assert "text_encoder" not in said


def test_a_pack_is_proved_again_only_with_the_parts_it_was_made_of(
    sd: Path, sd_faceid: tuple[Path, Path, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pack, adapter, _ = (str(part) for part in sd_faceid)
    lora = tmp_path / "style.safetensors"
    lora.write_bytes(b"")
    against = ("--against", str(sd))
    for arguments, code, words in (
        ((pack, *against), 2, "--face-adapter: got None, .*what the pack was made with: a faceid adapter"),
        (
            (pack, *against, "--face-adapter", adapter, "--lora", str(lora)),
            2,
            "--lora: got 'style.safetensors:1', allowed what the pack was made with: none",
        ),
        ((pack, "--face-adapter", adapter), 2, "face-adapter says nothing without --against SOURCE"),
        (("toon", *against), 6, "toon: was not exported from a checkpoint"),
    ):
        assert main(["packs", "verify", *arguments]) == code
        assert re.search(words, capfd.readouterr().err)


def test_an_export_that_misses_its_bounds_is_not_written_unless_forced(
    sd: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceavatar_export.diffusion import export as room
    from faceavatar_export.diffusion import proof

    monkeypatch.setattr(proof, "GRAPH_BOUNDS", {"fp32": 1e-12})
    monkeypatch.setattr(room, "graph_plans", only_text_encoder(graph_plans))
    monkeypatch.setattr(room, "reference_pictures", lambda *_: [])
    monkeypatch.setattr(
        room,
        "prove",
        lambda options, draft, graphs, *_: {"pipeline": [], "misses": proof.misses("fp32", graphs, [])},
    )
    monkeypatch.setattr(room, "write_pack", lambda *_: None)
    with pytest.raises(
        Exception, match=r"text_encoder is .* away from torch, allowed 1e-12; nothing was written"
    ):
        export(sd, folder / "missed")
    assert not (folder / "missed").exists()
    assert not list(folder.glob(".missed*"))
    assert export(sd, folder / "missed", force=True)["misses"]
    assert (folder / "missed").exists()


def only_text_encoder(plans: Any) -> Any:
    def first(*arguments: Any) -> Any:
        yield next(plans(*arguments))

    return first
