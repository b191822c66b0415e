"""InsightFace's models in a pack: the engine sees what insightface's own package sees with the same files."""

from __future__ import annotations

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import face_pack
import numpy as np
import pytest
import tiny_pack
from numpy.typing import NDArray

from faceavatar import AvatarEngine, AvatarRequest, NoFaceFound, PackInvalid, SignatureMismatch
from faceavatar.face.align import align
from faceavatar.face.detect import FaceDetector
from faceavatar.face.insight import ArcFace, Scrfd
from faceavatar.pack import Pack, verify

NAMES = ["astronaut", "macron", "ardern", "obama"]
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return face_pack.build(tmp_path_factory.mktemp("faces") / "buffalo_x", tiny_pack.EMBEDDING)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    folder = tiny_pack.build(tmp_path_factory.mktemp("packs") / "tiny-insight", tiny_pack.SD_LIKE)
    return face_pack.into(folder, faces)


@pytest.fixture(scope="module")
def engine(pack: Path) -> AvatarEngine:
    return AvatarEngine.load(pack, provider="cpu")


@pytest.fixture(scope="module")
def analysis(faces: Path) -> Any:
    """insightface's own FaceAnalysis on the same files, with the side of the detector pinned."""
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(
        str(faces), allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
    )
    app.prepare(0, det_size=(640, 640))
    return app


def analyse(analysis: Any, image: Picture) -> list[Any]:
    """What the package finds in uint8 RGB, in its own order: it wants BGR and sorts by score."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scikit-image, about what the package calls
        return list(analysis.get(np.ascontiguousarray(image[..., ::-1])))


def corners(bbox: tuple[float, float, float, float]) -> NDArray[np.float64]:
    return np.array([bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3]])


@pytest.mark.parametrize("name", NAMES)
def test_box_landmarks_score_and_embedding_are_those_of_the_package(
    engine: AvatarEngine, analysis: Any, name: str
) -> None:
    image = tiny_pack.photo(name)
    look, (expected,) = engine.look(image), analyse(analysis, image)
    assert look.face is not None
    np.testing.assert_allclose(corners(look.face.bbox), expected.bbox, atol=1e-3)
    np.testing.assert_array_equal(look.face.landmarks, expected.kps)
    assert look.face.score == pytest.approx(float(expected.det_score))
    assert look.face.attempt == "640"
    # Raw, not brought to length 1: the adapter says what it wants.
    np.testing.assert_allclose(look.embeds[0], expected.embedding, rtol=0, atol=1e-3)
    assert np.linalg.norm(look.embeds) > 2


def test_four_people_get_four_embeddings(engine: AvatarEngine) -> None:
    embeds = np.concatenate([engine.look(tiny_pack.photo(name)).embeds for name in NAMES])
    unit = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
    assert (unit @ unit.T - np.eye(4)).max() < 0.8


def test_the_largest_of_several_faces_is_taken_and_not_the_one_of_the_best_score(
    engine: AvatarEngine, analysis: Any
) -> None:
    small = tiny_pack.photo("astronaut")
    large = cv2.GaussianBlur(cv2.resize(small, None, fx=1.5, fy=1.5), (0, 0), 4)
    pair = np.hstack([np.pad(small, ((0, 256), (0, 0), (0, 0))), np.asarray(large, np.uint8)])
    by_score = analyse(analysis, pair)
    assert by_score[0].bbox[0] < 512 < by_score[1].bbox[0]  # the package's first one is the small face
    found = engine.look(pair).face
    assert found is not None
    assert found.bbox[0] > 512
    assert found.faces_found == 2


@pytest.mark.parametrize(
    ("name", "margin", "size", "attempt"),
    [("obama", 0.0, (9, 11), "320"), ("ardern", -0.2, (9, 11), "padded 640")],
    ids=["whole face", "inside of it"],
)
def test_the_ladder_finds_a_face_where_the_package_at_640_finds_none(
    engine: AvatarEngine,
    analysis: Any,
    name: str,
    margin: float,
    size: tuple[int, int],
    attempt: str,
) -> None:
    image = tiny_pack.photo(name)
    look = engine.look(image)
    assert look.face is not None
    x, y, width, height = look.face.bbox
    top, bottom = round(y - margin * height), round(y + (1 + margin) * height)
    crop = image[top:bottom, round(x - margin * width) : round(x + (1 + margin) * width)]
    crop = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    assert analyse(analysis, crop) == []
    found = engine.look(np.ascontiguousarray(crop)).face
    assert found is not None
    assert found.attempt == attempt
    # In pixels of the crop, whatever the scale and the border of the rung.
    centre = np.array([found.bbox[0] + found.bbox[2] / 2, found.bbox[1] + found.bbox[3] / 2])
    assert (np.abs(centre / crop.shape[1::-1] - 0.5) < 0.3).all()
    assert 0.7 < found.bbox[2] / crop.shape[1] < 2


def test_a_picture_without_a_face_says_what_was_tried(engine: AvatarEngine) -> None:
    for shape in ((300, 400, 3), (1, 1500, 3)):
        with pytest.raises(NoFaceFound, match=r"tried 640, 320, 1024, padded 640, padded 320 px"):
            engine.look(np.full(shape, 90, np.uint8))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [112, 224, 256])
def test_crops_are_those_of_norm_crop_the_sdxl_one_included(
    engine: AvatarEngine, name: str, size: int
) -> None:
    from insightface.utils.face_align import norm_crop

    image = tiny_pack.photo(name)
    look = engine.look(image)
    assert look.face is not None
    # Turned and moved, so that something lies outside the photo as well.
    landmarks = look.face.landmarks - np.array([look.face.bbox[0], 0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = norm_crop(image, landmarks, size)
    apart = np.abs(align(image, landmarks, "arcface", size).astype(int) - expected)
    # The package estimates the transform in float32, so single pixels round the other way.
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


def test_a_photo_becomes_a_picture_with_insightfaces_models(engine: AvatarEngine, pack: Path) -> None:
    assert verify(Pack.load(pack)) == []
    request = AvatarRequest(
        image=tiny_pack.photo("obama"), height=256, width=256, seed=3, num_inference_steps=2
    )
    result = engine.generate(request)
    assert result.face is not None
    assert result.warnings == ()
    other = engine.generate(request.model_copy(update={"image": tiny_pack.photo("ardern")}))
    assert not np.array_equal(result.images[0], other.images[0])


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_the_nets_run_on_the_engines_provider(faces: Path, provider: str) -> None:
    image = tiny_pack.photo("astronaut")
    detector = Scrfd(faces / face_pack.SCRFD, provider)
    found = FaceDetector(detector).detect(image).faces[0]
    assert detector._net.session.get_providers() == [provider]
    crop = align(image, found.landmarks, "arcface", 112)
    embeds = ArcFace(faces / face_pack.ARCFACE, provider).embed(crop)
    reference = FaceDetector(Scrfd(faces / face_pack.SCRFD, "cpu")).detect(image).faces[0]
    np.testing.assert_allclose(found.landmarks, reference.landmarks, atol=0.05)
    np.testing.assert_allclose(embeds, ArcFace(faces / face_pack.ARCFACE, "cpu").embed(crop), atol=1e-3)


def test_many_threads_share_the_nets(engine: AvatarEngine) -> None:
    detector, embedder = engine.faces.detector, engine.faces.embedder
    assert detector is not None
    assert embedder is not None

    def look(name: str) -> tuple[Any, ...]:
        image = tiny_pack.photo(name)
        face = detector.detect(image).faces[0]
        return (
            face.bbox,
            face.landmarks.tolist(),
            embedder.embed(align(image, face.landmarks, "arcface", 112)).tolist(),
        )

    alone = [look(name) for name in NAMES]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(look, NAMES * 3)) == alone * 3


def test_a_detector_of_another_layout_is_refused(tmp_path: Path, faces: Path) -> None:
    with pytest.raises(
        SignatureMismatch, match=r"w600k_r50.onnx: a detector has nine outputs.* this graph has 1"
    ):
        Scrfd(faces / face_pack.ARCFACE, "cpu")
    with pytest.raises(SignatureMismatch, match=r"det_10g.onnx: a recogniser takes one \(B, 3, 112, 112\)"):
        ArcFace(faces / face_pack.SCRFD, "cpu")
    fixed = face_pack.build(tmp_path / "fixed", side=640)
    with pytest.raises(SignatureMismatch, match=r"takes 640x640 only, which the ladder of scales cannot use"):
        Scrfd(fixed / face_pack.SCRFD, "cpu")


def test_without_the_package_it_is_named_with_both_commands(pack: Path) -> None:
    script = (
        "import sys; sys.modules['insightface'] = None\n"
        "from faceavatar import AvatarEngine, MissingExtra\n"
        "try: AvatarEngine.load(sys.argv[1], provider='cpu')\n"
        "except MissingExtra as error: print(error.extra, error.package, error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(pack)], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout.strip() == (
        "insightface insightface needs the package insightface: pip install 'faceavatar[insightface]', "
        "then pip install --no-deps insightface"
    )


def test_no_torch_comes_with_the_package(pack: Path) -> None:
    script = (
        "import sys\nfor name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from faceavatar import AvatarEngine\n"
        "print(AvatarEngine.load(sys.argv[1], provider='cpu').look(sys.argv[2]).embeds.shape)\n"
    )
    photo = Path(__file__).parent / "fixtures" / "photos" / "obama.jpg"
    ran = subprocess.run(
        [sys.executable, "-c", script, str(pack), str(photo)], capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.strip() == f"(1, {tiny_pack.EMBEDDING})", ran.stderr


def test_an_arcface_encoder_wants_its_own_alignment(tmp_path: Path, faces: Path) -> None:
    folder = face_pack.into(tiny_pack.build(tmp_path / "wrong", tiny_pack.SD_LIKE), faces)
    tiny_pack.change_manifest(folder, lambda content: content["face"]["alignment"].update(size=128))
    with pytest.raises(PackInvalid, match="an arcface encoder wants the alignment arcface of size 112"):
        Pack.load(folder)
    tiny_pack.change_manifest(folder, lambda content: content["face"]["alignment"].update(size=112))
    tiny_pack.change_manifest(folder, lambda content: content["files"].pop(face_pack.ARCFACE))
    with pytest.raises(PackInvalid, match=r"'w600k_r50.onnx' is used but not listed"):
        Pack.load(folder)
