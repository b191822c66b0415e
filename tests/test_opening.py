"""How a pack is opened: the provider of "auto", a precision for each role, hashes that are remembered."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack
from tiny_pack import change_manifest

from faceavatar import AvatarEngine, AvatarRequest
from faceavatar.backends import available_providers
from faceavatar.errors import HashMismatch, InvalidRequest, ProviderUnavailable
from faceavatar.opening import LARGE_UNET, Later, Opening, choose_provider, precision_of
from faceavatar.pack import Pack
from faceavatar.parity import GraphError, graph_errors, tolerances
from faceavatar.stamps import sha256, stamped_sha256

PHOTO = tiny_pack.photo("astronaut")
OLD = 1_000_000_000 * 10**9  # a time long past, in ns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_pack.build(tmp_path / "tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEAVATAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def heavier(folder: Path, size: int) -> Pack:
    change_manifest(folder, lambda m: m["files"]["unet.onnx"].update(size=size))
    return Pack.load(folder, check_hashes=False)


def stored_as(folder: Path, precision: str, *roles: str) -> Pack:
    change_manifest(folder, lambda m: [m["graphs"][role].update(precision=precision) for role in roles])
    return Pack.load(folder)


def test_auto_takes_openvino_for_a_large_unet_and_onnxruntime_for_a_small_one(folder: Path) -> None:
    if available_providers()[0] not in {"cpu", "openvino"}:
        pytest.skip("a GPU comes first")
    assert choose_provider(heavier(folder, LARGE_UNET - 1), "auto") == "cpu"
    assert choose_provider(heavier(folder, LARGE_UNET), "auto") == "openvino"


def test_auto_takes_the_first_that_can_run_the_pack_as_it_was_asked_for(folder: Path) -> None:
    if available_providers()[0] not in {"cpu", "openvino"}:
        pytest.skip("a GPU comes first")
    assert choose_provider(Pack.load(folder), "auto", "bf16") == "openvino"
    assert choose_provider(stored_as(folder, "bf16", "unet"), "auto") == "openvino"


def test_auto_refuses_a_pack_that_nothing_here_can_run(folder: Path) -> None:
    if available_providers()[0] not in {"cpu", "openvino"}:
        pytest.skip("a GPU comes first")
    with pytest.raises(ProviderUnavailable, match=r"unet are fp16 graphs, .*insist with precision=.fp16"):
        choose_provider(stored_as(folder, "fp16", "unet"), "auto")


def test_the_engine_says_which_provider_auto_took_and_what_it_computes_in(folder: Path) -> None:
    engine = AvatarEngine.load(folder, threads=1).wait_until_open()
    assert engine.provider == choose_provider(Pack.load(folder), "auto")
    assert engine.precisions["unet"] == engine.precisions["vae_decoder"] == "fp32"


def test_one_precision_for_the_pack_means_the_nets_that_the_time_goes_into(folder: Path) -> None:
    pack = Pack.load(folder)
    reduced = {role for role in pack.manifest.graphs if precision_of(pack, role, "bf16") == "bf16"}
    assert reduced == {"text_encoder", "unet", "vae_decoder"}
    assert {precision_of(pack, role, "fp32") for role in pack.manifest.graphs} == {"fp32"}
    assert {precision_of(pack, role, None) for role in pack.manifest.graphs} == {None}


def test_of_a_pack_with_half_precision_graphs_it_means_these(folder: Path) -> None:
    pack = stored_as(folder, "fp16", "unet")
    assert [role for role in pack.manifest.graphs if precision_of(pack, role, "fp16")] == ["unet"]


def test_roles_may_have_precisions_of_their_own(folder: Path) -> None:
    opening = Opening.of(Pack.load(folder), "openvino", 1, {"vae_decoder": "fp32"})
    assert opening.precision_of("unet") is None
    assert opening.open("vae_decoder").precision == "fp32"
    assert opening.precisions == {"vae_decoder": "fp32"}


@pytest.mark.parametrize("precision", ["fp8", {"unet": "half"}, {"nothing": "fp32"}])
def test_a_precision_or_role_that_does_not_exist_is_refused(folder: Path, precision: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"precision: .*fp32, bf16, fp16, or one of these for each"):
        AvatarEngine.load(folder, "cpu", precision=precision)


@pytest.mark.parametrize("precision", ["bf16", {"unet": "bf16"}])
def test_the_plain_processor_names_what_can_compute_so(folder: Path, precision: Any) -> None:
    with pytest.raises(
        ProviderUnavailable, match=r"unet.* would have to compute in bf16; use provider 'openvino'"
    ):
        AvatarEngine.load(folder, "cpu", precision=precision)


@pytest.mark.slow
def test_bf16_keeps_the_toon_packs_pictures_within_35_db() -> None:
    if "BF16" not in capabilities():
        pytest.skip("this processor has no bf16")
    request = AvatarRequest(image=PHOTO, seed=5, prompt="pixel art of a man, blue background")
    full = AvatarEngine.load("toon", "openvino", 1).generate(request).images[0].astype(float)
    half = AvatarEngine.load("toon", "openvino", 1, precision="bf16").generate(request).images[0]
    error = np.mean((full - half) ** 2)
    assert error > 0
    assert 10 * np.log10(255**2 / error) > 35


def capabilities() -> list[str]:
    import openvino

    found: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return found


def test_every_graph_is_held_to_float32_on_sample_inputs(folder: Path) -> None:
    errors = list(graph_errors(Opening.of(Pack.load(folder), "openvino", 1)))
    assert [one.role for one in errors] == list(Pack.load(folder).manifest.graphs)
    assert all(one.error < 1e-4 and one.problem is None for one in errors)


def test_the_same_graph_on_the_same_provider_has_no_error(folder: Path) -> None:
    assert {one.error for one in graph_errors(Opening.of(Pack.load(folder), "cpu", 1))} == {0.0}


def test_an_error_that_is_too_small_for_its_precision_is_refused() -> None:
    assert GraphError("unet", "bf16", 1e-2, 5e-2, 2e-4).problem is None
    assert "took fp32 in silence" in (GraphError("unet", "bf16", 1e-6, 5e-2, 2e-4).problem or "")
    assert "allowed 0.05" in (GraphError("unet", "bf16", 0.2, 5e-2, 2e-4).problem or "")
    assert GraphError("unet", "bf16", float("nan"), 5e-2).problem


def test_a_pack_may_say_itself_what_its_graphs_may_stray(folder: Path) -> None:
    assert tolerances(Pack.load(folder))["bf16"] == 5e-2
    (folder / "parity.json").write_text(json.dumps({"tolerances": {"bf16": 0.01}}), encoding="utf-8")
    assert tolerances(Pack.load(folder)) == {"fp32": 1e-4, "bf16": 0.01, "fp16": 2e-2}


def test_whoever_needs_a_session_waits_for_it_and_for_its_error() -> None:
    gate = threading.Event()

    def fail() -> Any:
        gate.wait(10)
        raise HashMismatch("broken")

    later = Later(fail)
    gate.set()
    with pytest.raises(HashMismatch, match="broken"):
        later.run({})
    with pytest.raises(HashMismatch, match="broken"):
        later.wait()


def aged(path: Path) -> Path:
    os.utime(path, ns=(OLD, OLD))
    return path


def test_a_file_that_was_not_touched_is_hashed_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    monkeypatch.setattr("faceavatar.stamps._SETTLED_SECONDS", 0.0)
    assert stamped_sha256(path) == sha256(path)
    monkeypatch.setattr("faceavatar.stamps.sha256", lambda _: "read again")
    assert stamped_sha256(path) == sha256(path)


def test_a_file_written_just_now_is_hashed_again(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    stamped_sha256(path)
    assert not (cache / "hashes").exists()


@pytest.mark.parametrize("how", ["written in place", "exchanged", "with its times put back"])
def test_a_file_that_was_touched_is_hashed_again(
    cache: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceavatar.stamps._SETTLED_SECONDS", 0.0)
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    before = path.stat()
    stamped_sha256(path)
    if how == "exchanged":
        (tmp_path / "other").write_bytes(b"another")
        (tmp_path / "other").replace(path)
    else:
        path.write_bytes(b"another")
    if how == "with its times put back":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stamped_sha256(path) == sha256(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": 5}', "\x00"])
def test_a_stamp_that_is_damaged_counts_for_nothing(
    cache: Path, tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceavatar.stamps._SETTLED_SECONDS", 0.0)
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    stamped_sha256(path)
    (stamp,) = (cache / "hashes").iterdir()
    stamp.write_text(content, encoding="utf-8")
    assert stamped_sha256(path) == sha256(path)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACEAVATAR_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("faceavatar.stamps._SETTLED_SECONDS", 0.0)
    assert stamped_sha256(tmp_path / "file") == sha256(tmp_path / "file")


def test_nothing_is_kept_inside_a_pack(cache: Path, folder: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    for path in folder.iterdir():
        aged(path)
    Pack.load(folder)
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_file_changed_after_its_hash_was_remembered_is_refused(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceavatar.stamps._SETTLED_SECONDS", 0.0)
    Pack.load(folder)
    content = bytearray((folder / "unet.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "unet.onnx").write_bytes(content)
    with pytest.raises(HashMismatch, match=r"unet\.onnx has sha256"):
        Pack.load(folder)
