"""Engines: compiled for this machine, proved, taken while they fit, and refused by name when they do not."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_pack

from faceavatar import AvatarEngine, AvatarRequest, AvatarResult
from faceavatar.backends import Platform, open_session
from faceavatar.backends._openvino_engine import EngineSession
from faceavatar.buckets import PictureShape, bucket_of, parse_shapes
from faceavatar.compiling import compile_pack
from faceavatar.engines import Engine, Engines, differences
from faceavatar.errors import (
    EngineStale,
    FaceAvatarError,
    HashMismatch,
    InvalidRequest,
    PackInvalid,
    ProviderUnavailable,
)
from faceavatar.opening import Opening, engine_problems, here
from faceavatar.pack import Pack
from faceavatar.parity import sample_feeds

WAYS = [
    ("cpu", None),
    ("openvino", None),
]


def opening(folder: Path, provider: str = "cpu", precision: Any = None) -> Opening:
    return Opening.of(Pack.load(folder), provider, 1, precision, "ignore")


def draw(folder: Path, provider: str = "cpu", **how: Any) -> AvatarResult:
    engine = AvatarEngine.load(folder, provider, 1, **how)
    photo = tiny_pack.photo("astronaut")
    return engine.generate(AvatarRequest(image=photo, seed=3, num_inference_steps=2))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with engines for the plain processor. Not to be changed."""
    folder = tiny_pack.build(tmp_path_factory.mktemp("compiled") / "tiny")
    compile_pack(opening(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path, compiled: Path) -> Path:
    """A copy of it."""
    import shutil

    return Path(shutil.copytree(compiled, tmp_path / "tiny"))


def change_list(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "engines" / "engines.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def in_every_engine(folder: Path, **fields: Any) -> None:
    change_list(folder, lambda content: [engine.update(fields) for engine in content["engines"]])


@pytest.mark.parametrize(("provider", "precision"), WAYS)
def test_a_picture_of_compiled_engines_is_the_plain_graphs_picture(
    tmp_path: Path, provider: str, precision: Any
) -> None:
    folder = tiny_pack.build(tmp_path / "tiny")
    plain = draw(folder, provider, precision=precision).images[0]
    made = compile_pack(opening(folder, provider, precision))
    assert {engine.role for engine in made.engines} == set(Pack.load(folder).manifest.graphs)
    after = draw(folder, provider, precision=precision)
    assert np.abs(after.images[0].astype(int) - plain).max() <= 1
    assert after.warnings == ()


def test_an_engine_is_really_what_runs(folder: Path) -> None:
    # The list vouches for another file: were the plain graph run, nobody would read it.
    unet = next(engine for engine in entries(folder) if engine.role == "unet")
    (folder / "engines" / unet.files[0].file).write_bytes(b"not a graph")
    with pytest.raises(HashMismatch, match=r"unet-cpu-fp32-.*\.onnx is not the one that engines\.json names"):
        AvatarEngine.load(folder, "cpu")


def entries(folder: Path) -> tuple[Engine, ...]:
    found = Engines.read(folder / "engines", "tiny", "tiny")
    assert found is not None
    return found.entries


def test_the_list_says_what_each_engine_was_made_of_and_for(compiled: Path) -> None:
    pack, now = Pack.load(compiled), here("cpu")
    for engine in entries(compiled):
        assert engine.graph == {f"{engine.role}.onnx": pack.manifest.files[f"{engine.role}.onnx"].sha256}
        assert (engine.device, engine.driver, engine.versions) == (now.device, now.driver, now.versions)
        assert {"faceavatar", "onnxruntime"} == set(engine.versions)
    assert engine_problems(pack) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"device": "an older processor"}, r"made for the device an older processor, here is "),
        ({"driver": "580.1"}, r"made for the driver 580\.1, here is none"),
        ({"versions": {"onnxruntime": "1.2.3"}}, r"made with onnxruntime 1\.2\.3, here is "),
        ({"graph": {"unet.onnx": "0" * 64}}, r"the graph was changed since"),
    ],
)
def test_an_engine_that_no_longer_fits_is_refused_with_what_differs_and_the_command(
    folder: Path, fields: dict[str, Any], said: str
) -> None:
    in_every_engine(folder, **fields)
    command = rf"compile it again \(faceavatar compile {folder} --provider cpu\)"
    with pytest.raises(
        EngineStale, match=rf"{said}.*{command}, or run the plain graph with engines=\"ignore\""
    ):
        AvatarEngine.load(folder, "cpu")
    assert any("does not fit" in problem for problem in engine_problems(Pack.load(folder)))


def test_engines_that_are_ignored_are_told_of_in_the_result(folder: Path) -> None:
    in_every_engine(folder, device="an older processor")
    (warning,) = draw(folder, engines="ignore").warnings
    assert "the compiled engines of tiny were left aside (engines='ignore')" in warning


def test_an_engine_for_another_provider_or_precision_is_no_business_of_this_one(folder: Path) -> None:
    in_every_engine(folder, provider="openvino", device="another machine")
    assert draw(folder).warnings == ()


def test_of_engines_for_two_machines_the_one_that_fits_is_taken(folder: Path) -> None:
    def add_foreign(content: dict[str, Any]) -> None:
        content["engines"] = [{**one, "device": "elsewhere"} for one in content["engines"]] + content[
            "engines"
        ]

    change_list(folder, add_foreign)
    assert draw(folder).warnings == ()


def test_a_missing_file_or_one_outside_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "engines" / entries(folder)[0].files[0].file
    content = file.read_bytes()
    file.unlink()
    assert any("is missing; compile it again" in problem for problem in engine_problems(Pack.load(folder)))
    (tmp_path / "elsewhere").write_bytes(content)
    file.symlink_to(tmp_path / "elsewhere")
    assert any("lies outside" in problem for problem in engine_problems(Pack.load(folder)))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda c: c.update(schema_version=2), EngineStale, r"schema_version: got 2, this version reads 1"),
        (lambda c: c.update(pack="other"), PackInvalid, r"for the pack 'other', not 'tiny'"),
        (
            lambda c: c["engines"][0]["files"][0].update(file="../x"),
            PackInvalid,
            r"engines\.0\.files\.0\.file",
        ),
        (lambda c: c["engines"][0].pop("device"), PackInvalid, r"engines\.0\.device"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder: Path, change: Any, error: Any, said: str) -> None:
    change_list(folder, change)
    with pytest.raises(error, match=said):
        AvatarEngine.load(folder, "cpu")


def test_a_list_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "engines" / "engines.json").write_text("[]", encoding="utf-8")
    with pytest.raises(PackInvalid, match=r"engines\.json: "):
        AvatarEngine.load(folder, "cpu")


def test_engines_may_lie_elsewhere_and_compiling_again_takes_their_place(tiny: Path, tmp_path: Path) -> None:
    into = tmp_path / "engines of mine"
    compile_pack(opening(tiny), into=into)
    before = sorted(path.name for path in into.iterdir())
    compile_pack(opening(tiny), into=into)
    assert sorted(path.name for path in into.iterdir()) == before
    assert draw(tiny, engines=into).warnings == ()
    with pytest.raises(InvalidRequest, match="engines"):
        AvatarEngine.load(tiny, "cpu", engines=tmp_path / "nowhere")


def test_an_engine_that_strays_too_far_is_not_kept(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "tiny")
    (folder / "parity.json").write_text('{"tolerances": {"fp32": 1e-12}}', encoding="utf-8")
    with pytest.raises(PackInvalid, match=r"away from fp32 in fp32, allowed 1e-12; nothing was written"):
        compile_pack(opening(folder, "openvino"))
    assert list((folder / "engines").iterdir()) == []


def test_where_nothing_may_be_written_another_folder_is_asked_for(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PackInvalid, match=r"cannot be written .*--into"):
        compile_pack(opening(tiny), into=tmp_path / "file")


def test_what_differs_is_said_of_each() -> None:
    engine = Engine(
        role="unet",
        provider="tensorrt",
        precision="fp16",
        files=({"file": "a", "sha256": "0" * 64, "size": 1},),
        graph={"unet.onnx": "1" * 64},
        device="GPU A",
        driver="1",
        versions={"tensorrt": "10.1"},
    )
    now = Platform("GPU A", "1", {"tensorrt": "10.1"})
    assert differences(engine, {"unet.onnx": "1" * 64}, now) == []
    other = Platform("GPU B", "2", {"tensorrt": "10.2"})
    assert len(differences(engine, {"unet.onnx": "2" * 64}, other)) == 4


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("512x512x1..8, 768x512x1", [PictureShape(512, 512, 1, 8), PictureShape(768, 512, 1, 1)]),
        ("256x320x2", [PictureShape(256, 320, 2, 2)]),
    ],
)
def test_shapes_are_width_height_and_how_many(text: str, shapes: list[PictureShape]) -> None:
    assert list(parse_shapes(text)) == shapes
    assert ",".join(map(str, shapes)) == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["", "512", "512x512", "512x512x0", "512x512x8..1", "32x512x1", "512x512x17"]
)
def test_other_shapes_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="WIDTHxHEIGHTxBATCH"):
        parse_shapes(text)


def test_a_bucket_holds_what_the_engine_feeds(tiny_sd: Path) -> None:
    manifest = Pack.load(tiny_sd).manifest
    bucket = bucket_of(manifest, "unet", PictureShape(768, 512, 1, 4))
    assert [side["sample"] for side in (bucket.least, bucket.usual, bucket.most)] == [
        (1, 4, 64, 96),
        (2, 4, 64, 96),
        (8, 4, 64, 96),
    ]
    assert bucket.most["encoder_hidden_states"] == (8, 4 * 77, 24)
    decoder = bucket_of(manifest, "vae_decoder", PictureShape(768, 512, 1, 4))
    assert decoder.static
    assert decoder.usual == {"latents": (1, 4, 64, 96)}


def test_what_compiles_nothing_says_so(tiny: Path) -> None:
    with pytest.raises(ProviderUnavailable):
        compile_pack(opening(tiny, "cpu", "bf16"))


def test_a_shape_that_was_asked_for_has_a_blob_of_its_own_and_others_still_run(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "tiny", tiny_pack.SD_LIKE)
    plain = open_session(folder / "unet.onnx", "openvino", 1)
    made = compile_pack(opening(folder, "openvino"), parse_shapes("256x320x1,512x512x2"))
    unet = next(engine for engine in made.engines if engine.role == "unet")
    assert {engine.shapes for engine in made.engines} == {("256x320x1", "512x512x2")}
    assert [file.file.partition("-openvino-")[2][14:] for file in unet.files] == [
        "json",
        "blob",
        "2x4x40x32.blob",
        "4x4x64x64.blob",
    ]
    session = Opening.of(Pack.load(folder), "openvino", 1).open("unet")
    assert isinstance(session, EngineSession)
    assert session.inputs == plain.inputs
    assert session.precision == plain.precision
    assert session._open == {}  # whichever comes first
    for shape in ("256x320x1", "512x512x2", "384x256x3"):
        feeds = sample_feeds(Pack.load(folder), "unet", parse_shapes(shape)[0])
        got, want = session.run(feeds)["noise_pred"], plain.run(feeds)["noise_pred"]
        np.testing.assert_allclose(got, want, atol=2e-5)
    assert [blob.name for blob in session._open] == [file.file for file in (*unet.files[2:], unet.files[1])]
    with pytest.raises(FaceAvatarError, match=r"unet\.onnx failed on openvino: face_tokens: got"):
        session.run(feeds | {"face_tokens": np.zeros((6, 4, 99), np.float32)})


@pytest.mark.parametrize("damaged", ["json", "blob"])
def test_an_engine_that_openvino_cannot_read_is_stale(tmp_path: Path, damaged: str) -> None:
    folder = tiny_pack.build(tmp_path / "tiny")
    compile_pack(opening(folder, "openvino"))
    for path in (folder / "engines").glob(f"*.{damaged}"):
        path.write_bytes(b"something else" if path.name != "engines.json" else path.read_bytes())

    def vouch(content: dict[str, Any]) -> None:
        for file in (file for engine in content["engines"] for file in engine["files"]):
            data = (folder / "engines" / file["file"]).read_bytes()
            file.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    change_list(folder, vouch)
    with pytest.raises(EngineStale, match=r"compile it again: faceavatar compile PACK --provider openvino"):
        AvatarEngine.load(folder, "openvino", 1)


def test_the_command_to_compile_again_is_the_one_that_was_given(tmp_path: Path) -> None:
    folder = tiny_pack.build(tmp_path / "tiny")
    asked = {"unet": "fp32", "matting": "fp32"}
    compile_pack(opening(folder, "openvino", asked), parse_shapes("512x512x1..2"), tmp_path / "here")
    listed = tmp_path / "here" / "engines.json"
    listed.write_text(
        listed.read_text()
        .replace('"openvino":"', '"openvino":"0.')
        .replace('"openvino": "', '"openvino": "0.')
    )
    command = f"faceavatar compile {folder} --provider openvino --precision unet=fp32,matting=fp32"
    command += f" --shapes 512x512x1..2 --into {tmp_path / 'here'}"
    with pytest.raises(EngineStale, match=command):
        AvatarEngine.load(folder, "openvino", 1, engines=tmp_path / "here")


def test_what_a_killed_compilation_left_goes_with_the_next_one(tiny: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in (ended.pid, os.getpid()):
        (tmp_path / f".compiling-{number}-x").mkdir()
    compile_pack(opening(tiny), into=tmp_path)
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert left == [f".compiling-{os.getpid()}-x"]
