"""Packs: found by name or path, and refused by name when something is wrong with them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_pack
from tiny_pack import change_manifest

from faceavatar import AvatarEngine, pack
from faceavatar.errors import HashMismatch, MissingGraph, PackInvalid, PackNotFound, SignatureMismatch
from faceavatar.pack import Pack, find_pack, list_packs, verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pack of its own for tests that break it."""
    return tiny_pack.build(tmp_path / "tiny")


def rehash(folder: Path, name: str) -> None:
    change_manifest(folder, lambda m: m["files"].update({name: tiny_pack.file_entry(folder / name)}))


def test_a_sound_pack_loads_and_has_no_problems(tiny: Path) -> None:
    loaded = Pack.load(tiny)
    assert loaded.name == "tiny"
    assert loaded.manifest.latents.channels == tiny_pack.TOON_LIKE.channels
    assert verify(loaded) == []


def test_building_the_tests_pack_twice_gives_the_same_files(tiny: Path, folder: Path) -> None:
    for path in tiny.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_a_changed_file_is_refused_by_its_name(folder: Path) -> None:
    with (folder / "unet.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(HashMismatch, match=r"unet\.onnx has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"):
        Pack.load(folder)
    problems = verify(Pack.read(folder))
    assert problems
    assert all("unet.onnx" in problem for problem in problems)


def test_a_missing_file_is_refused_by_its_name(folder: Path) -> None:
    (folder / "vae_decoder.onnx").unlink()
    with pytest.raises(MissingGraph, match=r"vae_decoder\.onnx is missing"):
        Pack.load(folder)


@pytest.mark.parametrize("role", ["unet", "text_encoder", "face_projection"])
def test_a_role_without_a_graph_is_refused_by_its_name(folder: Path, role: str) -> None:
    change_manifest(folder, lambda m: m["graphs"].pop(role))
    with pytest.raises(MissingGraph, match=f"no {role} graph"):
        Pack.load(folder)


def test_a_pack_may_do_without_matting(folder: Path) -> None:
    change_manifest(folder, lambda m: (m["graphs"].pop("matting"), m.pop("matting")))
    with pytest.raises(MissingGraph, match="no matting graph, only"):
        Pack.load(folder).graph("matting")


def shorter_text(manifest: dict[str, Any]) -> None:
    manifest["graphs"]["text_encoder"]["inputs"]["input_ids"]["shape"] = ["batch", 64]


def other_dtype(manifest: dict[str, Any]) -> None:
    manifest["graphs"]["unet"]["inputs"]["timestep"]["dtype"] = "float32"


def dynamic_where_the_graph_is_fixed(manifest: dict[str, Any]) -> None:
    manifest["graphs"]["matting"]["inputs"]["image"]["shape"] = ["batch", 3, "height", "width"]


def fewer_sides(manifest: dict[str, Any]) -> None:
    manifest["graphs"]["face_projection"]["outputs"]["face_tokens"]["shape"] = ["batch", 96]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorter_text, r"text_encoder .* input input_ids is int64\[batch, 77\], expected int64\[batch, 64\]"),
        (other_dtype, r"unet .* input timestep is int64\[batch\], expected float32\[batch\]"),
        (dynamic_where_the_graph_is_fixed, r"matting .* is float32\[batch, 3, 256, 256\], expected"),
        (fewer_sides, r"face_projection .* output face_tokens is"),
    ],
)
def test_a_graph_that_differs_from_the_manifest_is_refused_by_role_and_input(
    folder: Path, change: Any, message: str
) -> None:
    change_manifest(folder, change)
    read = Pack.read(folder)
    with pytest.raises(SignatureMismatch, match=message):
        read.open(re.split(r"\W", message)[0], "cpu")
    assert [line for line in verify(read) if re.search(message, line)]


def test_a_graph_with_other_inputs_than_stated_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "vae_decoder.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "z"
    onnx.save(model, folder / "vae_decoder.onnx")
    rehash(folder, "vae_decoder.onnx")
    with pytest.raises(SignatureMismatch, match=r"vae_decoder .* inputs are z, expected latents"):
        AvatarEngine.load(folder, provider="cpu").wait_until_open()


def test_a_role_with_other_inputs_than_the_engine_feeds_is_refused(folder: Path) -> None:
    change_manifest(folder, lambda m: m["graphs"]["unet"]["inputs"].pop("face_scale"))
    with pytest.raises(SignatureMismatch, match=r"unet: inputs are .* expected .*face_scale"):
        Pack.load(folder)


@pytest.mark.parametrize("version", [2, 0, "1", None])
def test_another_schema_version_is_refused_with_what_to_do(folder: Path, version: object) -> None:
    change_manifest(folder, lambda m: m.update(schema_version=version))
    with pytest.raises(PackInvalid, match=r"schema_version: got .*, this version reads 1; upgrade"):
        Pack.load(folder)


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "a/../../b", "..\\b", "C:\\b", "C:b"])
def test_a_path_outside_the_folder_is_refused(folder: Path, name: str) -> None:
    def leave(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"]["unet.onnx"]
        manifest["graphs"]["unet"]["file"] = name

    change_manifest(folder, leave)
    with pytest.raises(PackInvalid, match="leaves the pack's folder"):
        Pack.load(folder)


def test_a_link_that_leads_outside_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "unet.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "unet.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(PackInvalid, match=r"'unet\.onnx' lies outside the pack's folder"):
        Pack.load(folder)


def test_a_file_that_is_used_but_not_listed_is_refused(folder: Path) -> None:
    change_manifest(folder, lambda m: m["files"].pop("tokenizer.json"))
    with pytest.raises(PackInvalid, match=r"'tokenizer\.json' is used but not listed"):
        Pack.load(folder)


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("latents", "channels", 0),
        ("latents", "scaling_factor", "big"),
        ("sizes", "policy", "stretch"),
        ("defaults", "num_inference_steps", 51),
        ("defaults", "scheduler", "heun"),
    ],
)
def test_a_wrong_value_is_refused_by_its_place_in_the_manifest(
    folder: Path, part: str, field: str, value: object
) -> None:
    change_manifest(folder, lambda m: m[part].update({field: value}))
    with pytest.raises(PackInvalid, match=rf"pack\.json: {part}\.{field}: "):
        Pack.load(folder)


def test_an_unknown_noise_schedule_is_refused_when_the_engine_loads(folder: Path) -> None:
    change_manifest(folder, lambda m: m["scheduler"].update(beta_schedule="sigmoid"))
    with pytest.raises(PackInvalid, match="beta_schedule"):
        AvatarEngine.load(folder, provider="cpu")


def test_a_manifest_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "pack.json").write_text("{", encoding="utf-8")
    with pytest.raises(PackInvalid, match="cannot be read as JSON"):
        Pack.load(folder)


def test_a_tokenizer_that_is_none_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("[]", encoding="utf-8")
    rehash(folder, "tokenizer.json")
    with pytest.raises(PackInvalid, match="not a tokenizer"):
        AvatarEngine.load(folder, provider="cpu")


def test_a_pack_is_found_by_path_and_by_its_name_on_the_search_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_pack(folder) == find_pack(str(folder)) == folder
    with pytest.raises(PackNotFound, match="no pack called 'tiny'"):
        find_pack("tiny")
    monkeypatch.setenv("FACEAVATAR_PACKS", os.pathsep.join([str(tmp_path / "none"), str(tmp_path)]))
    assert find_pack("tiny") == folder
    assert ("tiny", None) in [(found.name, found.problem) for found in list_packs()]


@pytest.mark.parametrize("name", ["nobody", "", ".", "..", "../packs", "/nowhere/at/all"])
def test_an_unknown_pack_is_refused_with_where_it_was_looked_for(name: str) -> None:
    with pytest.raises(PackNotFound, match=r"packs found: .* set FACEAVATAR_PACKS"):
        find_pack(name)


def test_an_embedded_pack_wins_over_one_of_the_same_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "EMBEDDED", tmp_path)
    monkeypatch.setenv("FACEAVATAR_PACKS", str(tiny_pack.build(tmp_path / "other" / "tiny").parent))
    assert find_pack("tiny") == folder


def test_a_broken_pack_is_listed_with_its_problem(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACEAVATAR_PACKS", str(tmp_path))
    (folder / "unet.onnx").unlink()
    (listing,) = [found for found in list_packs() if found.name == "tiny"]
    assert listing.pack is None
    assert "unet.onnx is missing" in (listing.problem or "")


def test_fields_that_a_later_minor_version_adds_are_ignored(folder: Path) -> None:
    change_manifest(folder, lambda m: m.update(parity={"unet": 1e-5}))
    assert Pack.load(folder).name == "tiny"
    assert "parity" in json.loads((folder / "pack.json").read_text(encoding="utf-8"))
