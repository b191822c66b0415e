"""Face models for a pack: which files are taken, from where, under which licence, and what is refused."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import face_pack
import pytest
import tiny_pack

from faceavatar import AvatarEngine, InvalidRequest, MissingExtra, PackInvalid
from faceavatar.cache import Cache
from faceavatar_cli.main import main
from faceavatar_export import face_models
from faceavatar_export.face_models import (
    RELEASES,
    FaceSource,
    Release,
    check_face_source,
    fetch_face_models,
    find_face_models,
    open_face_models,
    prove,
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return face_pack.build(tmp_path_factory.mktemp("faces") / "buffalo_x")


def silent(words: str) -> None:
    """Progress that nobody reads."""


def test_the_detector_and_the_recogniser_are_told_by_their_graphs_and_taken_as_they_are(
    faces: Path, tmp_path: Path
) -> None:
    for old, new in ((face_pack.SCRFD, "a.onnx"), (face_pack.ARCFACE, "b.onnx"), (face_pack.OTHER, "c.onnx")):
        shutil.copyfile(faces / old, tmp_path / new)
    found = find_face_models(tmp_path, "CC0-1.0")
    assert (found.detector.name, found.recogniser.name, found.embedding_size) == ("a.onnx", "b.onnx", 512)
    target = tmp_path / "pack"
    target.mkdir()
    files = found.copy_to(target)
    assert {path.name for path in target.iterdir()} == set(files) == {"a.onnx", "b.onnx"}
    assert (target / "b.onnx").read_bytes() == (faces / face_pack.ARCFACE).read_bytes()
    assert {entry.license for entry in files.values()} == {"CC0-1.0"}
    assert found.part()["detector"] == {"kind": "scrfd", "file": "a.onnx"}


def test_a_folder_without_one_of_each_is_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(
        PackInvalid, match="0 detectors and 0 recognisers, expected one of each in this folder itself"
    ):
        find_face_models(tmp_path, "x")
    shutil.copyfile(faces / face_pack.SCRFD, tmp_path / "one.onnx")
    with pytest.raises(PackInvalid, match="1 detectors and 0 recognisers"):
        find_face_models(tmp_path, "x")
    for name in ("two.onnx", "three.onnx"):
        shutil.copyfile(faces / face_pack.ARCFACE, tmp_path / name)
    with pytest.raises(PackInvalid, match="1 detectors and 2 recognisers"):
        find_face_models(tmp_path, "x")
    fixed = face_pack.build(tmp_path / "fixed", side=640)
    with pytest.raises(
        PackInvalid, match=r"0 detectors and 1 .*det_10g.onnx: the detector takes 640x640 only"
    ):
        find_face_models(fixed, "x")


def test_a_recogniser_of_another_size_than_the_adapters_is_refused(faces: Path, tmp_path: Path) -> None:
    source = FaceSource(faces, "CC0-1.0")
    models = open_face_models(source, 512, tmp_path, silent)
    assert models is not None
    with pytest.raises(PackInvalid, match=r"w600k_r50.onnx gives 512 numbers, the face adapter takes 128"):
        open_face_models(source, 128, tmp_path, silent)
    assert open_face_models(FaceSource(), 512, tmp_path, silent) is None


@pytest.mark.parametrize(
    ("source", "has_adapter", "words"),
    [
        ({"folder": "faces"}, True, r"--face-pack-license: got None, allowed the face models' licence"),
        ({"folder": "faces", "license": "x"}, False, r"--face-pack: .*nothing without --face-adapter"),
        (
            {"folder": "nowhere", "license": "x"},
            True,
            r"--face-pack: got .*nowhere.*a folder with a detector",
        ),
        ({"folder": "faces", "license": "x", "name": "buffalo_l"}, True, "nothing beside --face-pack"),
        ({"name": "buffalo_xxl", "accepted": "non-commercial"}, True, "buffalo_l or antelopev2"),
        ({"name": "buffalo_l"}, True, r"--accept-license: got None, allowed non-commercial: .*research only"),
        (
            {"name": "antelopev2", "accepted": "mit"},
            True,
            r"--accept-license: got 'mit', allowed non-commercial",
        ),
    ],
)
def test_what_cannot_do_is_refused_before_anything_is_read(
    faces: Path, source: dict[str, Any], has_adapter: bool, words: str
) -> None:
    if "folder" in source:
        source = source | {"folder": faces if source["folder"] == "faces" else Path("nowhere")}
    with pytest.raises(InvalidRequest, match=words):
        check_face_source(FaceSource(**source), has_adapter)


def test_without_the_package_nothing_is_begun(faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(
        MissingExtra, match=r"'faceavatar\[insightface\]', then pip install --no-deps insightface"
    ):
        check_face_source(FaceSource(faces, "CC0-1.0"), True)


def test_the_command_fetches_nothing_until_the_terms_are_agreed_to(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "adapter.bin"
    adapter.touch()
    with face_pack.published(face_pack.zipped(faces)) as (url, asked):
        monkeypatch.setattr(face_models, "RELEASES", {"buffalo_l": Release(url, face_pack.hashes(faces))})
        command = [
            "export",
            str(tmp_path),
            "--license",
            "x",
            "-o",
            str(tmp_path / "pack"),
            "--face-adapter",
            str(adapter),
        ]
        assert main([*command, "--with-face-pack", "buffalo_l"]) == 2
        assert (
            "error[invalid_request]: --accept-license: got None, allowed non-commercial"
            in capfd.readouterr().err
        )
        assert asked == []


@pytest.mark.parametrize("inside", ["", "antelopev2/"], ids=["at the root", "in a folder"])
def test_a_published_pack_is_fetched_and_only_the_two_files_are_kept(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    with face_pack.published(face_pack.zipped(faces, inside)) as (url, asked):
        monkeypatch.setattr(face_models, "RELEASES", {"buffalo_l": Release(url, face_pack.hashes(faces))})
        source = FaceSource(name="buffalo_l", accepted="non-commercial")
        models = open_face_models(source, 512, tmp_path, silent)
    assert asked == ["/pack.zip"]
    assert models is not None
    assert {path.name for path in models.detector.parent.iterdir()} == {face_pack.SCRFD, face_pack.ARCFACE}
    assert models.provenance.license == "InsightFace model zoo: non-commercial research only"
    assert list(tmp_path.iterdir()) == [models.detector.parent]  # the zip is gone


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (
            b"not a zip",
            200,
            r"could not be fetched \(File is not a zip file\); fetch it by other means.*--face-pack",
        ),
        (b"", 404, r"could not be fetched \(404 .*--face-pack"),
        ("other", 200, r"det_10g.onnx: the fetched file has sha256 [0-9a-f]{64}, expected 0{64}"),
        ("empty", 200, r"det_10g.onnx: 0 times in the fetched zip, expected once"),
    ],
    ids=["no zip", "gone", "another file", "no file"],
)
def test_what_is_not_the_published_pack_is_refused(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: Any, status: int, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    made = {"other": face_pack.zipped(faces), "empty": face_pack.zipped(tmp_path / "empty")}
    with face_pack.published(made[body] if isinstance(body, str) else body, status) as (url, _):
        pins = {face_pack.SCRFD: "0" * 64, face_pack.ARCFACE: "0" * 64}
        monkeypatch.setattr(face_models, "RELEASES", {"buffalo_l": Release(url, pins)})
        with pytest.raises(PackInvalid, match=words):
            fetch_face_models("buffalo_l", tmp_path, silent)


def test_a_server_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with face_pack.published(b"") as (url, _):
        pass
    monkeypatch.setattr(face_models, "RELEASES", {"buffalo_l": Release(url, {})})
    with pytest.raises(PackInvalid, match=r"buffalo_l: http://127.0.0.1.* could not be fetched"):
        fetch_face_models("buffalo_l", tmp_path, silent)


def test_the_published_packs_are_pinned_by_the_hashes_of_their_files() -> None:
    for name, release in RELEASES.items():
        assert release.url.startswith("https://github.com/deepinsight/insightface/releases/download/")
        assert release.url.endswith(f"/{name}.zip")
        assert len(release.sha256) == 2
        assert all(len(digest) == 64 and int(digest, 16) for digest in release.sha256.values())


def test_the_proof_holds_the_pack_to_insightface_and_says_where_it_strays(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twenty = face_pack.build(tmp_path / "faces", tiny_pack.EMBEDDING)
    pack = face_pack.into(tiny_pack.build(tmp_path / "pack", tiny_pack.SD_LIKE), twenty)
    engine = AvatarEngine.load(pack, provider="cpu")
    report = prove(engine)
    assert report["misses"] == []
    assert report["box"] < 1e-3
    assert report["landmarks"] < 1e-3
    assert report["cosine"] > 0.9999
    embed = engine.faces.embedder.embed  # type: ignore[union-attr]
    monkeypatch.setattr(engine.faces.embedder, "embed", lambda crop: embed(crop[:, ::-1]))
    monkeypatch.setattr(engine.faces, "_looks", Cache(1))  # which knows no photo yet
    (miss,) = prove(engine)["misses"]
    assert "the face's embedding has the cosine" in miss
    detect = engine.faces.detector.detect  # type: ignore[union-attr]
    monkeypatch.setattr(engine.faces.detector, "detect", lambda image: detect(image[:64, :64]))
    monkeypatch.setattr(engine.faces, "_looks", Cache(1))  # which knows no photo yet
    assert "no face in the" in prove(engine)["misses"][0]
